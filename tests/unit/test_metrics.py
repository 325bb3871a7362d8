"""Metrics of processes that share a folder: who has ended is no part of the living."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import falcon
import falcon.testing
import pytest

from node.web.health import Metrics

# Counts itself as one open association, says so, and ends when its standard input does
PROCESS = """
from node import metrics
metrics.ASSOCIATIONS.labels("open").inc()
metrics.INSTANCES.labels("dimse", "stored").inc()
print(flush=True)
input()
"""


def started(folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline()
    return process


def page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    app: Any = falcon.App()
    app.add_route("/metrics", Metrics())
    return str(falcon.testing.TestClient(app).simulate_get("/metrics").text)


def test_who_ended_without_being_counted_out_is_forgotten_but_not_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living, dead = started(tmp_path), started(tmp_path)
    try:
        assert 'stele_associations{state="open"} 2.0' in page(tmp_path, monkeypatch)
        dead.kill()
        dead.communicate()
        told = page(tmp_path, monkeypatch)
        assert 'stele_associations{state="open"} 1.0' in told
        assert 'stele_instances_total{edge="dimse",result="stored"} 2.0' in told
    finally:
        living.communicate(b"\n", timeout=30)
