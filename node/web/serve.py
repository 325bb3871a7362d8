"""The web process: falcon under gunicorn's threaded workers.

Threads, because answers are streamed with back-pressure and a slow reader then costs a thread, not a
process; `node.web.worker` says what keeps slow peers from costing more.
"""

import ipaddress
import os
from collections.abc import Callable
from typing import Any

import gunicorn.app.base
import structlog
from prometheus_client.multiprocess import mark_process_dead

from node import lasting
from node.config import Settings
from node.services.archive import Archive
from node.web.app import SPARE_THREADS, create_app
from node.web.worker import ServerLog, Worker

CONNECTIONS = 2000  # open at once, per process
GRACEFUL_SECONDS = 25  # less than the supervisor's own patience
HEARTBEAT_SECONDS = 60

log = structlog.get_logger()


class _Server(gunicorn.app.base.BaseApplication):  # type: ignore[misc]
    """Gunicorn with our settings instead of its command line and configuration file."""

    def __init__(self, options: dict[str, Any], load: Callable[[], Any]) -> None:
        self._options = options
        self._load = load
        super().__init__()

    def load_config(self) -> None:
        """Our settings."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The application, made in the worker after the fork."""
        return self._load()


def _count_out(pid: int) -> None:
    """Take a worker that has ended out of the metrics of living processes."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def serve(settings: Settings, build_archive: Callable[[], Archive], *, with_dimse: bool) -> None:
    """Serve until SIGTERM, then finish the requests in hand. Every worker builds its own archive.

    `with_dimse`: this node serves DICOM, too, and is not ready before it does.
    """
    http = settings.http
    host = f"[{http.host}]" if ":" in http.host else http.host
    proxies = ",".join(str(ipaddress.ip_network(each, strict=False)) for each in http.proxies)
    built: list[Archive] = []

    def load() -> Any:
        built.append(build_archive())
        app = create_app(settings, built[-1], with_dimse=with_dimse)
        lasting.settle()
        return app

    def close(_server: Any, _worker: Any) -> None:
        for archive in built:
            archive.close()

    options: dict[str, Any] = {
        "bind": f"{host}:{http.port}",
        "workers": http.workers,
        "worker_class": Worker,
        "logger_class": ServerLog,
        "threads": http.threads + SPARE_THREADS,
        "worker_connections": CONNECTIONS,
        "keepalive": http.keepalive_seconds,
        "timeout": HEARTBEAT_SECONDS,
        "graceful_timeout": GRACEFUL_SECONDS,
        "worker_tmp_dir": "/dev/shm",  # noqa: S108 - heartbeats never wait for a disk
        "control_socket_disable": True,
        # Who may say that the client came by HTTPS, and who must say where it came from
        "forwarded_allow_ips": proxies,
        "proxy_allow_ips": proxies,
        "accesslog": None,
        "loglevel": "warning",
        "limit_request_line": 8190,
        "worker_exit": close,
        "child_exit": lambda _server, worker: _count_out(worker.pid),
    }
    _Server(options, load).run()
