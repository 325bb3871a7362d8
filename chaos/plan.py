"""Which scenarios a campaign runs: plain values, drawn from a seed where nobody has chosen. Pure.

A step names one fault, or two joined by "+" of which the second is made while the first one's traces are
still there, and the seed that repeats who is hit and when.
"""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from chaos.deployed import Deployed
from chaos.faults import Fault, Injected
from chaos.faults.fault import JOINED

Step = tuple[str, int]  # name of a fault or of two, seed

PAIRS = 1 / 3  # of a random campaign's steps
APART_SECONDS = 8.0  # between the two faults of a pair, at the most
SEEDS = range(1, 10_000)
# What its host mends by itself within seconds, so that one host more can be spared
FIRST = ("workers-killed", "haproxy-killed", "etcd-leader-killed", "osd-killed")
SECOND = (
    *("primary-killed", "osd-killed", "holder-off", "host-off", "primarys-host-off"),
    *("host-frozen", "host-cut-off"),
)
# HAProxy's end moves the virtual IP, whose holder nobody could name meanwhile
APART = {"LB": frozenset({"LB", "VIP"})}


def catalogue(names: Sequence[str], seeds: Sequence[int]) -> list[Step]:
    """Every fault with every seed; the first seed of all comes first."""
    return [(name, seed) for seed in seeds for name in names]


def drawn(faults: Mapping[str, Fault], count: int, seed: int) -> list[Step]:
    """`count` steps out of a seed: the same ones as long as the catalogue is the same."""
    generator = random.Random(seed)
    pairs = compatible(faults)
    steps: list[Step] = []
    while len(steps) < count:
        paired = pairs and generator.random() < PAIRS
        name = generator.choice(pairs) if paired else generator.choice(list(faults))
        step = name, generator.choice(SEEDS)
        if step not in steps:
            steps.append(step)
    return steps


def compatible(faults: Mapping[str, Fault]) -> list[str]:
    """Pairs of faults that may meet: their tiers are different, and the first heals by itself."""
    return [
        f"{first}{JOINED}{second}"
        for first in FIRST
        for second in SECOND
        if first in faults and second in faults
        if faults[second].tier not in APART.get(faults[first].tier, frozenset({faults[first].tier}))
    ]


def fault_of(faults: Mapping[str, Fault], name: str) -> Fault:
    """The fault of a step. KeyError with the name that is none."""
    first, joined, second = name.partition(JOINED)
    return together(faults[first], faults[second]) if joined else faults[name]


def together(first: Fault, second: Fault) -> Fault:
    """Two faults as one: the second some seconds after the first. Clients may wait for both recoveries."""

    def inject(cluster: Deployed, generator: random.Random) -> Injected:
        one = first.inject(cluster, generator)
        try:
            time.sleep(generator.uniform(0, APART_SECONDS))
            other = second.inject(cluster, generator)
        except BaseException:
            one.heal()
            raise

        def heal() -> None:
            try:
                other.heal()
            finally:
                one.heal()

        return replace(other, victim=f"{one.victim}; {other.victim}", heal=heal)

    return replace(
        second,
        name=f"{first.name}{JOINED}{second.name}",
        tier=f"{first.tier}{JOINED}{second.tier}",
        what=f"{first.what}; then {second.what}",
        recovery_seconds=first.recovery_seconds + second.recovery_seconds,
        inject=inject,
        hold_seconds=max(first.hold_seconds, second.hold_seconds),
        making_seconds=first.making_seconds + second.making_seconds,
    )
