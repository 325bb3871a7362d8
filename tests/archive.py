"""A whole archive for tests: `stele serve` as its user starts it, on loopback and free ports."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.support import free_port, wait_until

START_SECONDS = 60.0
STOP_SECONDS = 45.0


@dataclass
class Archive:
    """A running archive; `process` is its supervisor."""

    data: Path
    dicom_port: int
    http_port: int
    process: subprocess.Popen[bytes]

    @property
    def base_url(self) -> str:
        """The web server's root, without a trailing slash."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def log(self) -> str:
        """All that it has logged so far."""
        return (self.data / "log").read_text()

    def ready(self) -> bool:
        """Whether the archive says that it can serve, which it does once its DICOM port is open."""
        try:
            return requests.get(f"{self.base_url}/health/ready", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def stop(self) -> int:
        """Ask it to stop as an operator would; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def start_archive(
    data: Path,
    *,
    arguments: tuple[str, ...] = ("--demo",),
    environment: dict[str, str] | None = None,
    ports: tuple[int, int] | None = None,
) -> Archive:
    """Start `stele serve` on `data` and wait until it is ready; AssertionError with its log if not.

    `ports`: of DICOM and HTTP; free ones if not given.
    """
    data.mkdir(parents=True, exist_ok=True)
    dicom_port, http_port = ports or (free_port(), free_port())
    command = [sys.executable, "-m", "node.cli", "serve", "--data", str(data)]
    command += ["--dicom-port", str(dicom_port), "--http-port", str(http_port), *arguments]
    with (data / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
    archive = Archive(data, dicom_port, http_port, process)
    try:
        wait_until(lambda: archive.ready() or process.poll() is not None, START_SECONDS, "archive ready")
        assert process.poll() is None
    except AssertionError:
        process.kill()
        process.wait()
        raise AssertionError(f"the archive did not start:\n{archive.log[-8000:]}") from None
    return archive


@contextmanager
def running_archive(
    data: Path, *, arguments: tuple[str, ...] = ("--demo",), environment: dict[str, str] | None = None
) -> Iterator[Archive]:
    """`start_archive`, stopped at the end."""
    archive = start_archive(data, arguments=arguments, environment=environment)
    try:
        yield archive
    finally:
        archive.stop()
