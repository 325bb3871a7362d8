"""When a node says that it is ready: with its DICOM port, if it serves DICOM, and without, if it does not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.support import free_port, wait_until

START_SECONDS = 90.0


@contextmanager
def serving(log: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """`stele serve` with its web server's root; not waited for."""
    port = free_port()
    command = [sys.executable, "-m", "node.cli", "serve", *arguments, "--http-port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env={**os.environ, **environment}
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ready(root: str) -> requests.Response | None:
    try:
        return requests.get(f"{root}/health/ready", timeout=30)
    except requests.RequestException:
        return None


def test_a_node_whose_dicom_port_does_not_open_is_not_ready(tmp_path: Path) -> None:
    log = tmp_path / "log"
    # An address that is not of this machine: the DIMSE processes fail, everything else goes on.
    arguments = ("--data", str(tmp_path / "data"), "--dicom-port", str(free_port()))
    with serving(log, *arguments, STELE_DICOM__HOST="192.0.2.1") as root:
        wait_until(lambda: ready(root) is not None, START_SECONDS, "an answer")
        wait_until(lambda: "uncaught exception" in log.read_text(), START_SECONDS, "a process that fails")
        answer = ready(root)
        assert answer is not None
        assert (answer.status_code, answer.json()["comment"]) == (503, "the DICOM port is not open")
    lines = [json.loads(line) for line in log.read_text().splitlines()]  # each of them is JSON
    (first, *_) = [line for line in lines if line["event"] == "uncaught exception"]
    assert (first["role"], first["kind"]) == ("dimse", "OSError")
    assert any("listener.py:" in place for place in first["at"])


def test_a_web_server_alone_is_ready_without_a_dicom_port(tmp_path: Path, postgres_dsn: str) -> None:
    arguments = ("web", "--data", str(tmp_path), "--dicom-port", str(free_port()))
    with serving(tmp_path / "log", *arguments, STELE_CATALOG__DSN=postgres_dsn) as root:
        wait_until(lambda: getattr(ready(root), "status_code", 0) == 200, START_SECONDS, "ready")
