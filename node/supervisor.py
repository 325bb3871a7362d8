"""`stele serve`: starts the node's processes, keeps them running, and ends them in order.

The supervisor itself serves nobody. It starts the embedded PostgreSQL if no other is configured, brings
the schema up to date, writes the resolved settings where its children read them, and starts the
processes: some `dimse`, one `web`, one `worker`. A child that dies is started again, after a pause that
grows while it keeps dying; so is the embedded server. On SIGTERM or SIGINT the children are asked to finish
what they have begun; who has not within `STOP_SECONDS` is killed; the embedded server stops last. Children
die with their supervisor (PR_SET_PDEATHSIG), so that a killed one leaves no half archive behind.
"""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import structlog
from prometheus_client import multiprocess

from node import bootstrap
from node.config import Settings

ROLES = ("dimse", "web", "worker")
STOP_SECONDS = 30.0
PAUSES_SECONDS = (0.2, 1.0, 5.0, 15.0)
HEALTHY_SECONDS = 30.0  # a child that lived for so long starts at the first pause again
OPEN_FILES = 8192  # per process: two thousand connections and what they have open
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


@dataclass
class _Child:
    role: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    start_at: float = 0.0


class Supervisor:
    """The node's processes on one host. `roles` of ROLES; `run` blocks until it is told to stop.

    `with_dimse`: DICOM is served by this supervisor, or by another one of the same node. If the environment
    names a folder for metrics (PROMETHEUS_MULTIPROC_DIR), supervisors of the same node share it.
    """

    def __init__(
        self, settings: Settings, roles: tuple[str, ...] = ROLES, *, with_dimse: bool = False
    ) -> None:
        self._settings = settings
        self._with_dimse = with_dimse or "dimse" in roles
        self._stopping = False
        counts = {"dimse": settings.dicom.workers, "web": 1, "worker": 1}
        self._children = [_Child(role) for role in roles for _ in range(counts[role])]

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        _allow_open_files()
        settings = self._settings
        run_folder = bootstrap.run_file(settings).parent
        run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            metrics_folder = run_folder / "metrics"
            shutil.rmtree(metrics_folder, ignore_errors=True)
            metrics_folder.mkdir(mode=0o700)
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_folder)
        with bootstrap.kept_catalog(settings) as (resolved, tend_catalog):
            bootstrap.migrate_catalog(resolved)
            file = bootstrap.run_file(settings)
            _write_private(file, resolved.model_dump_json())
            try:
                self._watch(file, tend_catalog)
            finally:
                self._end_children()
                file.unlink(missing_ok=True)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _watch(self, file: Path, tend_catalog: Callable[[], bool]) -> None:
        """Start children, and start them again when they die, until told to stop."""
        while not self._stopping:
            if tend_catalog():
                log.error("process died", child="postgres")
            now = time.monotonic()
            for child in self._children:
                if child.process is not None and (code := child.process.poll()) is not None:
                    self._died(child, code, now)
                if child.process is None and now >= child.start_at:
                    self._start(child, file)
            time.sleep(0.1)  # the supervisor's own beat; signals end it at once

    def _start(self, child: _Child, file: Path) -> None:
        command = [sys.executable, "-m", "node.cli", "process", child.role, str(file)]
        if self._with_dimse:
            command.append("--with-dimse")
        child.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own program
        child.started_at = time.monotonic()

    def _died(self, child: _Child, code: int, now: float) -> None:
        assert child.process is not None  # noqa: S101 - for the type checker
        multiprocess.mark_process_dead(child.process.pid)  # type: ignore[no-untyped-call]
        child.deaths = 1 if now - child.started_at > HEALTHY_SECONDS else child.deaths + 1
        pause = PAUSES_SECONDS[min(child.deaths, len(PAUSES_SECONDS)) - 1]
        child.start_at = now + pause
        child.process = None
        log.error("process died", child=child.role, code=code, again_in_seconds=pause)

    def _end_children(self) -> None:
        living = [child.process for child in self._children if child.process is not None]
        for process in living:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in living:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("process did not finish in time", pid=process.pid)
                process.kill()
                process.wait()
        for process in living:
            multiprocess.mark_process_dead(process.pid)  # type: ignore[no-untyped-call]


def _allow_open_files() -> None:
    """Raise the soft limit, which is 1,024 on Debian, for this process and its children, as far as the
    hard limit lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def die_with_parent() -> None:
    """Ask the kernel to send SIGTERM to this process when its supervisor is gone."""
    supervisor = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:  # it went in between
        raise SystemExit("the supervisor is gone")


def _write_private(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
