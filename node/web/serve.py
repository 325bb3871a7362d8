"""The web process: falcon under gunicorn's threaded workers.

gthread, because answers are streamed with back-pressure and a slow reader then costs a thread, not a
process. Sockets have a time limit for each read and write, and `node.web.body` one for the whole body, so
that a trickling peer gets its thread taken away. Behind a proxy the PROXY protocol (v1 or v2) tells the
client's address, from the configured networks only.
"""

import socket
import struct
from collections.abc import Callable
from typing import Any

import gunicorn.app.base
import structlog

from node.config import Settings
from node.services.archive import Archive
from node.web.app import create_app

READ_SECONDS = 30
WRITE_SECONDS = 60
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


def _limit_sockets(server: Any) -> None:
    """Time limits on the listeners, which accepted sockets inherit (socket(7), SO_RCVTIMEO)."""
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", READ_SECONDS, 0))
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", WRITE_SECONDS, 0))


def serve(settings: Settings, build_archive: Callable[[], Archive]) -> None:
    """Serve until SIGTERM, then finish the requests in hand. Every worker builds its own archive."""
    http = settings.http
    built: list[Archive] = []

    def load() -> Any:
        built.append(build_archive())
        return create_app(settings, built[-1])

    def close(_server: Any, _worker: Any) -> None:
        for archive in built:
            archive.close()

    options: dict[str, Any] = {
        "bind": f"{http.host}:{http.port}",
        "workers": http.workers,
        "worker_class": "gthread",
        "threads": http.threads,
        "keepalive": http.keepalive_seconds,
        "timeout": HEARTBEAT_SECONDS,
        "graceful_timeout": GRACEFUL_SECONDS,
        "worker_tmp_dir": "/dev/shm",  # noqa: S108 - heartbeats never wait for a disk
        "control_socket_disable": True,
        "forwarded_allow_ips": ",".join(http.proxies),
        "accesslog": None,
        "loglevel": "warning",
        "limit_request_line": 8190,
        "when_ready": _limit_sockets,
        "worker_exit": close,
        "reuse_port": False,
    }
    if http.proxies:
        options |= {"proxy_protocol": "auto", "proxy_allow_ips": ",".join(http.proxies)}
    _Server(options, load).run()
