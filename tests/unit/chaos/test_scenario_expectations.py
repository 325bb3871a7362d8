"""Scenarios whose stores are refused meanwhile, and signs: the cluster is a program that tells a history."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from chaos import scenario
from chaos.deployed import Deployed
from chaos.faults import Expect, Fault, Injected, Sign
from chaos.lab.shell import LabError

# Stores and reads twenty times a second; stores are refused while the file `refusing` is there
CLIENTS = """
import itertools, pathlib, signal, sys, time
from chaos.history import History, Operation, Result
log, refusing = map(pathlib.Path, sys.argv[1:])
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
history = History(log)
history.describe(1, 1)
for number in itertools.count():
    if ended:
        break
    began = time.monotonic()
    refused = refusing.exists() and time.time() - refusing.stat().st_mtime > 1  # it takes a while
    time.sleep(0.02)
    result, status = (Result.REFUSED, "A700") if refused else (Result.OK, "0000")
    now = time.monotonic()
    history.add(Operation("a", "C-STORE", str(number), "", began, now, result, status))
    history.add(Operation("b", "STOW-RS", str(number), "y", began, now, Result.REFUSED, "C111"))
    history.add(Operation("a", "WADO-RS", str(number), "x", began, now, Result.OK, "200"))
    time.sleep(0.03)
"""


class Cluster:
    """What scenarios ask of a cluster; all is always well."""

    def __init__(self, folder: Path) -> None:
        self.refusing = folder / "refusing"
        self.prepared = False
        self.primaries = iter(["host1", "host1"])

    def wait_well(self, _seconds: float) -> float:
        """At once."""
        return 0.0

    def roles(self) -> dict[str, str]:
        """As the test has it."""
        return {"primary": next(self.primaries)}

    def holders(self) -> list[str]:
        """One."""
        return ["host1"]

    def traffic(self, log: Path, _seed: int, _rate: float, _seconds: float) -> "subprocess.Popen[bytes]":
        """A program that tells a history."""
        command = (sys.executable, "-c", CLIENTS, str(log), str(self.refusing))
        with log.with_suffix(".log").open("wb") as said:
            return subprocess.Popen(command, stdout=said, stderr=said)


def _refuse(cluster: Deployed, _generator: random.Random) -> Injected:
    fake = cast("Cluster", cluster)
    fake.refusing.touch()
    return Injected("everybody", fake.refusing.unlink, lambda: ["told by itself"])


REFUSING = Fault(
    "refusing", "Ceph", "stores are refused", 2, _refuse, 0.3, expects=Expect.REFUSED, settling_seconds=1.2
)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster; scenarios are short."""
    monkeypatch.setattr(scenario, "AFTER_SECONDS", 0.5)
    return Cluster(tmp_path)


def outcome(fake: Cluster, fault: Fault, folder: Path) -> scenario.Outcome:
    """Of one run."""
    return scenario.run(cast("Deployed", fake), fault, 1, folder)


def test_stores_are_refused_until_it_is_healed(fake: Cluster, tmp_path: Path) -> None:
    result = outcome(fake, REFUSING, tmp_path)
    assert result.expects == "refused"
    assert result.healed - result.made >= 1.3
    assert result.recovery is not None
    assert result.recovery < 2
    assert result.refused > 5
    assert result.reads > 5
    assert result.broken == ("told by itself",)
    assert not fake.refusing.exists()


def test_stores_that_are_taken_though_all_should_be_refused(
    fake: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenario, "REFUSAL_SECONDS", 0.5)
    idle = replace(REFUSING, inject=lambda _cluster, _generator: Injected("nobody", lambda: None))
    result = outcome(fake, idle, tmp_path)
    assert result.broken[0] == "no store was refused"
    assert result.broken[1].endswith("stores were acknowledged all the same")
    assert not result.recovered


def test_a_sign_is_waited_for_and_told(fake: Cluster, tmp_path: Path) -> None:
    asked: list[int] = []

    def seen(_cluster: Deployed) -> bool:
        asked.append(1)
        if len(asked) == 1:
            raise LabError("nobody answers yet")
        return len(asked) > 3

    shown = replace(REFUSING, sign=Sign("it shows", 5, seen))
    result = outcome(fake, shown, tmp_path)
    assert result.sign == "it shows"
    assert result.sign_seconds is not None
    assert result.broken == ("told by itself",)
    never = replace(REFUSING, name="never", sign=Sign("it shows", 0.1, lambda _cluster: False))
    assert "not seen: it shows" in outcome(fake, never, tmp_path).broken


def test_to_find_the_victim_is_no_part_of_the_fault(fake: Cluster, tmp_path: Path) -> None:
    moments: list[float] = []

    def inject(cluster: Deployed, generator: random.Random) -> Injected:
        moments.append(time.monotonic())
        return replace(REFUSING.inject(cluster, generator), made=moments[0])

    assert outcome(fake, replace(REFUSING, inject=inject), tmp_path).made == moments[0]


def test_roles_that_move_though_they_should_stay(fake: Cluster, tmp_path: Path) -> None:
    fake.primaries = iter(["host1", "host2"])
    result = outcome(fake, replace(REFUSING, roles_stay=True), tmp_path)
    assert "primary was host1, and is host2" in result.broken


def test_what_a_fault_needs_is_prepared_before_and_undone_after(fake: Cluster, tmp_path: Path) -> None:
    def prepare(cluster: Deployed, _generator: random.Random) -> Callable[[], None]:
        cast("Cluster", cluster).prepared = True
        return undone.set

    def inject(cluster: Deployed, generator: random.Random) -> Injected:
        assert cast("Cluster", cluster).prepared
        assert not undone.is_set()
        raise LabError("it cannot be made")

    undone = threading.Event()
    with pytest.raises(LabError, match="cannot be made"):
        outcome(fake, replace(REFUSING, prepare=prepare, inject=inject), tmp_path)
    assert undone.is_set()


def test_a_fault_that_cannot_be_had_is_refused_before_anything_is_done(fake: Cluster, tmp_path: Path) -> None:
    lacking = replace(REFUSING, unavailable=lambda _cluster: "five hosts are needed")
    with pytest.raises(LabError, match="refusing is not available: five hosts are needed"):
        outcome(fake, lacking, tmp_path)
    assert not list(tmp_path.iterdir())
