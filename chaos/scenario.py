"""One scenario: clients send and read, a fault is made, stays for a while, is healed; how long it took.

What is judged here is what clients noticed of the fault (`chaos.expectations`): what their histories promise
is checked at the end of a campaign against everything that the cluster says then (`chaos.checks`).
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos import expectations, history
from chaos.deployed import Deployed
from chaos.expectations import Course
from chaos.faults import Expect, Fault, Sign
from chaos.faults.fault import REFUSAL_SECONDS
from chaos.history import Follower
from chaos.lab.shell import LabError, wait_for
from chaos.recovery import recovery_seconds

WELL_SECONDS = 300.0  # for the cluster to be whole again
BEFORE = 20  # acknowledgements before the fault
AFTER_SECONDS = 3.0  # of traffic in a cluster that is whole again
TRAFFIC_SECONDS = 600.0  # a bound; it is ended when the scenario is over
ENDING_SECONDS = 90.0  # an operation's patience, and the end of the clients themselves
LATE_SECONDS = 60.0  # beyond twice its time a recovery is not waited for


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a scenario went; all times in seconds.

    `recovery`: the longest time without any acknowledgement from the fault to the end, healing included, or
    from the healing where stores are refused meanwhile (`expects`); None if nothing was acknowledged any
    more. `whole`: from the healing until nothing was wrong. `load`: the machine's load average at the end, of
    `cores`.

    `made` and `healed`: when the fault was made and its healing began, of CLOCK_MONOTONIC as the history's
    times. `sign`: what had to be seen of the fault, and after how long it was (None: it was not). `failed`:
    operations without success since the fault; `reads`: those with success while it held. `broken`: promises
    that were not kept, in sentences.
    """

    fault: str
    tier: str
    seed: int
    victim: str
    target: float
    recovery: float | None
    whole: float
    acknowledged: int
    refused: int
    unknown: int
    load: float
    cores: int
    expects: str = Expect.SERVED
    made: float = 0.0
    healed: float = 0.0
    sign: str = ""
    sign_seconds: float | None = None
    failed: int = 0
    reads: int = 0
    broken: tuple[str, ...] = ()

    @property
    def recovered(self) -> bool:
        """Whether the recovery took no longer than promised, and nothing else was broken."""
        return self.recovery is not None and self.recovery <= self.target and not self.broken

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> "Outcome":
        """The inverse of `line`. ValueError or TypeError if it is none."""
        return cls(**json.loads(line))


def run(cluster: Deployed, fault: Fault, seed: int, folder: Path) -> Outcome:
    """Run it; its history is `folder`/FAULT-SEED.jsonl, or what `new_history` says if there is one already.

    LabError if the cluster cannot have the fault, or is not or gets not well. What is sent is new each time:
    an archive may have what an earlier run has sent.
    """
    if reason := fault.unavailable(cluster):
        raise LabError(f"{fault.name} is not available: {reason}")
    cluster.wait_well(WELL_SECONDS)
    generator = random.Random(seed)
    log = new_history(folder, fault.name, seed)
    undo = fault.prepare(cluster, generator)
    try:
        cluster.wait_well(WELL_SECONDS)
        outcome = _observed(cluster, fault, seed, generator, log)
    finally:
        undo()
    cluster.wait_well(WELL_SECONDS)
    return outcome


def _observed(cluster: Deployed, fault: Fault, seed: int, generator: random.Random, log: Path) -> Outcome:
    """The scenario, as clients see it."""
    corpus = random.SystemRandom().getrandbits(32)
    before = cluster.roles() if fault.roles_stay else {}
    clients = cluster.traffic(log, corpus, fault.rate, TRAFFIC_SECONDS + fault.making_seconds)
    try:
        _wait_for_acknowledgements(clients, log, BEFORE + generator.randrange(BEFORE))
        made = time.monotonic()
        injected = fault.inject(cluster, generator)
        made = injected.made or made
        sign = fault.sign
        try:
            seen = _wait_for_sign(cluster, sign, made) if sign else None
            if fault.expects is Expect.REFUSED:
                _wait_for_refusals(clients, log, made, fault)
            else:
                _wait_for_recovery(clients, log, made, fault)
            _let_pass(clients, fault.hold_seconds)
            wrong = injected.wrong()
        finally:
            healed = time.monotonic()
            injected.heal()
        cluster.wait_well(WELL_SECONDS)
        whole = time.monotonic()
        _let_pass(clients, AFTER_SECONDS)
        end = time.monotonic()
        after = cluster.roles() if fault.roles_stay else {}
        course = Course(made, healed, whole, end, before, after, cluster.holders())
    finally:
        _end(clients)
    operations = history.read([log]).operations
    if sign and (missed := expectations.unseen(sign.what, sign.seconds, seen)):
        wrong.append(missed)
    ends = [each.result for each in operations if each.kind in history.STORES]
    return Outcome(
        fault=fault.name,
        tier=fault.tier,
        seed=seed,
        victim=injected.victim,
        target=fault.recovery_seconds,
        recovery=expectations.recovery(fault, operations, course),
        whole=whole - healed,
        acknowledged=ends.count(history.Result.OK),
        refused=ends.count(history.Result.REFUSED),
        unknown=ends.count(history.Result.UNKNOWN),
        load=os.getloadavg()[0],
        cores=os.cpu_count() or 1,
        expects=fault.expects,
        made=made,
        healed=healed,
        sign=sign.what if sign else "",
        sign_seconds=seen,
        failed=expectations.failures(operations, course),
        reads=expectations.reads_meanwhile(operations, course),
        broken=(*wrong, *expectations.broken(fault, operations, course)),
    )


def history_of(folder: Path, fault: str, seed: int) -> Path:
    """The newest history of a scenario: FAULT-SEED.jsonl, or FAULT-SEED.2.jsonl if that was interrupted."""
    path, attempt = folder / f"{fault}-{seed}.jsonl", 2
    while (newer := folder / f"{fault}-{seed}.{attempt}.jsonl").exists():
        path, attempt = newer, attempt + 1
    return path


def new_history(folder: Path, fault: str, seed: int) -> Path:
    """Where the next history of a scenario goes."""
    newest = history_of(folder, fault, seed)
    if not newest.exists():
        return newest
    attempt = newest.stem.removeprefix(f"{fault}-{seed}").removeprefix(".") or "1"
    return folder / f"{fault}-{seed}.{int(attempt) + 1}.jsonl"


def _wait_for_acknowledgements(clients: "subprocess.Popen[bytes]", log: Path, count: int) -> None:
    follower = Follower(log)

    def enough() -> bool:
        _demand_life(clients, log)
        return sum(each.acknowledged for each in follower.operations()) >= count

    wait_for(enough, 120, f"fewer than {count} acknowledgements; see {log}")


def _wait_for_recovery(clients: "subprocess.Popen[bytes]", log: Path, moment: float, fault: Fault) -> None:
    """Too late is an outcome, not an error: it is healed, and told."""
    follower = Follower(log)

    def again() -> bool:
        return clients.poll() is not None or recovery_seconds(follower.operations(), moment) is not None

    with contextlib.suppress(LabError):
        wait_for(again, 2 * fault.recovery_seconds + LATE_SECONDS, "no acknowledgement after the fault")
    _demand_life(clients, log)


def _wait_for_refusals(clients: "subprocess.Popen[bytes]", log: Path, moment: float, fault: Fault) -> None:
    """Until a store has been refused, and nothing may be acknowledged any more."""
    follower = Follower(log)

    def refused() -> bool:
        since = (each for each in follower.operations() if each.invoked >= moment)
        return clients.poll() is not None or any(map(expectations.refused, since))

    with contextlib.suppress(LabError):
        wait_for(refused, fault.settling_seconds + REFUSAL_SECONDS, "no refusal after the fault")
    _demand_life(clients, log)
    _let_pass(clients, max(0.0, moment + fault.settling_seconds - time.monotonic()))


def _wait_for_sign(cluster: Deployed, sign: Sign, moment: float) -> float | None:
    """After how long it was seen; for twice its time it is waited for."""

    def seen() -> bool:
        try:
            return sign.seen(cluster)
        except LabError:
            return False

    try:
        wait_for(seen, 2 * sign.seconds, sign.what)
    except LabError:
        return None
    return time.monotonic() - moment


def _demand_life(clients: "subprocess.Popen[bytes]", log: Path) -> None:
    if clients.poll() is not None:
        said = log.with_suffix(".log").read_text(errors="replace")[-2000:]
        raise LabError(f"the clients have ended with exit code {clients.returncode}: {said}")


def _let_pass(clients: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Let traffic go on for a while; it may come to its end meanwhile."""
    try:
        clients.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


def _end(clients: "subprocess.Popen[bytes]") -> None:
    if clients.poll() is None:
        clients.send_signal(signal.SIGTERM)
    try:
        clients.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        clients.kill()
        clients.wait()
        raise LabError("the clients do not end") from None
