"""The archive on its embedded defaults, on this machine: what a cluster is compared with."""

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import requests

from chaos.lab.shell import LabError, wait_for
from chaos.target import Dicom, Web

START_SECONDS = 180.0  # a few on an idle machine
STOP_SECONDS = 45.0
SAID = 2000  # characters of its last words


class Embedded(NamedTuple):
    """Where it is reached."""

    dicom: Dicom
    web: Web


@contextmanager
def running(folder: Path) -> Iterator[Embedded]:
    """`stele serve` with its data below `folder`, on loopback, for the time of a `with` block. LabError."""
    with tempfile.TemporaryDirectory(prefix="embedded-", dir=folder) as name:
        data = Path(name)
        data.chmod(0o755)  # its PostgreSQL has a user of its own
        dicom, http = _free_port(), _free_port()
        command = (str(Path(sys.executable).with_name("stele")), "serve", "--demo", "--data", name)
        ports = ("--dicom-port", str(dicom), "--http-port", str(http))
        with (data / "log").open("wb") as log:
            process = subprocess.Popen((*command, *ports), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_for(
                lambda: process.poll() is not None or _ready(http), START_SECONDS, f"{name} is not ready"
            )
            if process.poll() is not None:
                said = (data / "log").read_text(errors="replace")[-SAID:]
                raise LabError(f"the embedded archive does not start: {said}")
            yield Embedded(Dicom("127.0.0.1", dicom, calling="BENCH"), Web(f"http://127.0.0.1:{http}"))
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def _ready(port: int) -> bool:
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=5, proxies={"http": ""})
    except requests.RequestException:
        return False
    return bool(answer.status_code == requests.codes.ok)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
