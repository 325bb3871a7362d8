"""What a fault is: a name, a tier, what clients may expect meanwhile, how it is made and healed.

`prepare` puts in place what a fault needs (a small disk, a clock that can be moved), while nobody looks yet.
`inject` makes the fault at its moment, on a cluster in which all is well. Both draw what they leave open
(which host, which of several processes) from the generator they are given, so a seed repeats it. Both return
what undoes them, which has to work in any state of the cluster.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from chaos.deployed import Deployed

Heal = Callable[[], object]
WHOLE_SECONDS = 300.0
RATE = 10.0


# Faults of these tiers may move the virtual IP, or take a host or its link away: connections end without a
# word, and a client that has nothing left to send waits out its own time-out (RFC 9293 section 3.5.1)
SEVERING = frozenset({"VIP", "LB", "Host", "Site", "Network"})
JOINED = "+"  # of two faults' tiers and names


class Expect(StrEnum):
    """What clients may expect while a fault holds."""

    SERVED = "served"  # again, within the recovery time, though the fault goes on
    REFUSED = (
        "refused"  # stores get their refusal, none is acknowledged; served within that time of the healing
    )
    UNNOTICED = "unnoticed"  # no operation fails


@dataclass(frozen=True, slots=True)
class Sign:
    """Something that has to be seen of a fault, at the latest `seconds` after it was made; `seen` may raise
    LabError, which is not yet."""

    what: str
    seconds: float
    seen: Callable[[Deployed], bool]


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was made: to whom, and what heals it (nothing, if the cluster heals itself). `wrong`: what
    only the fault itself can tell, in sentences; asked just before it is healed. `made`: when, of
    CLOCK_MONOTONIC, where to find the victim takes longer than the fault."""

    victim: str
    heal: Heal
    wrong: Callable[[], list[str]] = list
    made: float | None = None


def nothing() -> None:
    """The cluster heals by itself."""


def _unprepared(_cluster: Deployed, _generator: random.Random) -> Heal:
    return nothing


def _everywhere(_cluster: Deployed) -> str:
    return ""


Inject = Callable[[Deployed, random.Random], Injected]


@dataclass(frozen=True, slots=True)
class Fault:
    """All times in seconds.

    `recovery_seconds`: without any acknowledgement, at the most (see `Expect` from when on). `hold_seconds`:
    how long the fault stays after the next acknowledgement (or after its refusals have settled) before it is
    healed. `whole_seconds`: from the healing until nothing is wrong. `roles_stay`: neither the catalog's
    primary nor the virtual IP may move. `settling_seconds`: until nothing is acknowledged any more, and
    `reads_go_on` meanwhile, where stores are refused. `share`: of what clients send, acknowledged while the
    fault holds, at least. `rate`: instances per second that clients send. `unavailable`: why this cluster or
    machine cannot have the fault, "" if it can.
    """

    name: str
    tier: str
    what: str
    recovery_seconds: float
    inject: Inject
    hold_seconds: float = 5.0
    making_seconds: float = 0.0  # until it is made and healed, at the most, where that is a long work
    expects: Expect = Expect.SERVED
    roles_stay: bool = False
    settling_seconds: float = 0.0
    reads_go_on: bool = True
    whole_seconds: float = WHOLE_SECONDS
    share: float = 0.0
    rate: float = RATE
    sign: Sign | None = None
    prepare: Callable[[Deployed, random.Random], Heal] = _unprepared
    unavailable: Callable[[Deployed], str] = _everywhere

    @property
    def silence_seconds(self) -> float:
        """Without any acknowledgement from the fault to the end of the recovery, at the most."""
        if self.expects is not Expect.REFUSED:
            return self.recovery_seconds
        sign = 2 * self.sign.seconds if self.sign else 0.0
        return self.settling_seconds + REFUSAL_SECONDS + sign + self.hold_seconds + self.recovery_seconds


def severs(tier: str) -> bool:
    """Whether a fault of a tier, or of several that are joined, may end connections without a word."""
    return not SEVERING.isdisjoint(tier.split(JOINED))


REFUSAL_SECONDS = 60.0  # an operation's patience: by then each has its answer
