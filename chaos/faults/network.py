"""Cables: cut between hosts in every shape, lossy, slow. Clients reach every host all the while, but for the
one that is cut off from everybody."""

import random

from chaos.deployed import Deployed
from chaos.faults.fault import Fault, Injected
from chaos.faults.processes import any_host

MEND_SECONDS = 60.0  # from whole cables until nothing is wrong
# Of all frames from host to host, which run through the losses of both
LOSS = 0.05
LOSS_OF_ONE = 1 - (1 - LOSS) ** 0.5
SLOW_KBIT = 1000
RING_HOSTS = 5  # with fewer, everybody is everybody's neighbour, or nobody has a majority


def _cut_off(cluster: Deployed, generator: random.Random) -> Injected:
    host = any_host(cluster, generator)
    cluster.lab.network.isolate(host.name)
    return Injected(host.name, cluster.lab.network.heal)


def _shuffled(cluster: Deployed, generator: random.Random) -> list[str]:
    names = list(cluster.lab.hosts)
    generator.shuffle(names)
    return names


def _half(cluster: Deployed, generator: random.Random) -> Injected:
    names = _shuffled(cluster, generator)
    minority = (len(names) - 1) // 2
    cluster.lab.network.partition(names[:minority], names[minority:])
    return Injected(", ".join(names[:minority]), cluster.lab.network.heal)


def _one_way(cluster: Deployed, generator: random.Random) -> Injected:
    host = any_host(cluster, generator).name
    hears = generator.random() < 0.5
    for other in cluster.lab.hosts:
        if other != host:
            source, target = (host, other) if hears else (other, host)
            cluster.lab.network.cut(source, target, one_way=True)
    said = "hears, and is not heard" if hears else "is heard, and hears nothing"
    return Injected(f"{host} {said}", cluster.lab.network.heal)


def _bridge(cluster: Deployed, generator: random.Random) -> Injected:
    bridge, *others = _shuffled(cluster, generator)
    half = len(others) // 2
    cluster.lab.network.partition(others[:half], others[half:])
    return Injected(
        f"{bridge} between {', '.join(others[:half])} and {', '.join(others[half:])}",
        cluster.lab.network.heal,
    )


def apart(ring: list[str]) -> list[tuple[str, str]]:
    """The pairs that are no neighbours in a ring."""
    count = len(ring)
    pairs = [(one, other) for one in range(count) for other in range(one + 1, count)]
    return [(ring[one], ring[other]) for one, other in pairs if other - one not in (1, count - 1)]


def _ring(cluster: Deployed, generator: random.Random) -> Injected:
    names = _shuffled(cluster, generator)
    for pair in apart(names):
        cluster.lab.network.cut(*pair)
    return Injected(f"ring {', '.join(names)}", cluster.lab.network.heal)


def _too_few_for_a_ring(cluster: Deployed) -> str:
    count = len(cluster.lab.hosts)
    return f"{RING_HOSTS} hosts are needed, there are {count}" if count < RING_HOSTS else ""


def _loss(cluster: Deployed, _generator: random.Random) -> Injected:
    for name in cluster.lab.hosts:
        cluster.lab.network.lose(name, LOSS_OF_ONE)
    return Injected("all hosts", cluster.lab.network.heal)


def _slow(cluster: Deployed, generator: random.Random) -> Injected:
    host = any_host(cluster, generator)
    cluster.lab.network.limit(host.name, SLOW_KBIT)
    return Injected(host.name, cluster.lab.network.heal)


FAULTS = (
    Fault("host-cut-off", "Network", "a host is cut off from all others and the clients", 45, _cut_off),
    Fault(
        "half-partition",
        "Network",
        "a minority is cut off from the others, not from clients",
        45,
        _half,
        hold_seconds=30,
        whole_seconds=MEND_SECONDS,
    ),
    Fault(
        "one-way-partition",
        "Network",
        "a host hears the others and is not heard, or the reverse",
        45,
        _one_way,
        hold_seconds=30,
        whole_seconds=MEND_SECONDS,
    ),
    Fault(
        "bridge-partition",
        "Network",
        "two sides see each other through one host only",
        45,
        _bridge,
        hold_seconds=30,
        whole_seconds=MEND_SECONDS,
    ),
    Fault(
        "ring-partition",
        "Network",
        "each host sees its two neighbours only",
        45,
        _ring,
        hold_seconds=30,
        whole_seconds=MEND_SECONDS,
        unavailable=_too_few_for_a_ring,
    ),
    Fault(
        "frames-lost",
        "Network",
        f"{LOSS:.0%} of all frames between hosts are lost",
        10,
        _loss,
        hold_seconds=60,
        roles_stay=True,
    ),
    Fault(
        "slow-link",
        "Network",
        f"a host receives {SLOW_KBIT} kbit/s",
        20,
        _slow,
        hold_seconds=60,
        roles_stay=True,
    ),
)
