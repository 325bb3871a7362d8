"""Faults in a log: kind and place, one JSON object a line, and nothing that a dataset could say."""

import json
import subprocess
import sys

import pytest

CANARY = "CANARYBIRD"
PROLOGUE = f"""
import gc, logging, structlog, sys, threading
from node import log
log.set_up("info", "test")
def fail(value="{CANARY}"):
    raise ValueError(f"dataset says {{value}}")
"""
WAYS = {
    "main thread": "fail()",
    "thread": "t = threading.Thread(target=fail); t.start(); t.join()",
    "destructor": "class Left:\n    def __del__(self): fail()\nLeft(); gc.collect()",
    "caught and logged": (
        "try:\n    fail()\nexcept ValueError:\n    structlog.get_logger().exception('worker failed')"
    ),
    "logged by a library": (
        "try:\n    fail()\nexcept ValueError:\n    logging.getLogger('lib').exception('it failed')"
    ),
    "chained": (
        "try:\n    fail()\nexcept ValueError as error:\n    raise RuntimeError('and so did this') from error"
    ),
}


def run(program: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + program], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_a_fault_is_told_by_kind_and_place(way: str) -> None:
    _, told = run(WAYS[way])
    (line,) = map(json.loads, told.splitlines())
    assert CANARY not in told
    assert line["kind"] == ("RuntimeError" if way == "chained" else "ValueError")
    assert line["role"] == "test"
    assert line["at"]
    assert all(place.rpartition(":")[2].isdigit() for place in line["at"])


def test_a_thread_may_end_on_purpose() -> None:
    assert run("t = threading.Thread(target=sys.exit); t.start(); t.join()") == (0, "")


def test_the_exit_status_still_tells() -> None:
    assert run("fail()")[0] == 1


@pytest.mark.parametrize("module", ["node", "cluster"])
def test_a_line_is_written_at_once(module: str) -> None:
    """Several processes write to one log: a line in two pieces would have another's in between."""
    set_up = 'log.set_up("info", "test")' if module == "node" else "log.set_up()"
    program = f"""
import json, structlog, sys
from {module} import log
written = []
class Stream:
    def write(self, text): written.append(text)
    def flush(self): pass
sys.stderr, former = Stream(), sys.stderr
{set_up}
structlog.get_logger().warning("told")
print(json.dumps(written), file=former)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    (line,) = json.loads(done.stderr)
    assert line.endswith("}\n")
