"""Processes of the nodes."""

import random

from chaos.deployed import Deployed
from chaos.faults import processes
from chaos.faults.fault import Fault, Injected, nothing
from chaos.faults.processes import running, units
from chaos.lab.controllers import Limited, missing
from chaos.lab.shell import wait_for

WORKERS = "stele-dimse*"
STARVED_BYTES = 4096
STARVING_SECONDS = 30.0


def _workers_killed(cluster: Deployed, generator: random.Random) -> Injected:
    host = generator.choice(running(cluster, WORKERS))
    return processes.kill(host, *units(host, WORKERS))


def _workers_stopped(cluster: Deployed, generator: random.Random) -> Injected:
    host = generator.choice(running(cluster, WORKERS))
    return processes.stop(host, *units(host, WORKERS))


def _workers_starved(cluster: Deployed, generator: random.Random) -> Injected:
    """They keep what they have; the next page that they ask for is too much, and the kernel kills them."""
    host = generator.choice(running(cluster, WORKERS))
    names = units(host, WORKERS)
    before = [process for name in names for process in host.processes(name)]
    limit = {"memory.limit_in_bytes": str(STARVED_BYTES)}
    group = Limited("memory", f"{host.name}-starved", limit, before)
    try:
        wait_for(
            lambda: not group.processes(), STARVING_SECONDS, f"{host.name}: nobody was killed for memory"
        )
    finally:
        group.release()
    return Injected(processes.named(host, *names), nothing)


FAULTS = (
    Fault("workers-killed", "Node", "a node's DIMSE workers: kill -9", 3, _workers_killed),
    Fault("workers-stopped", "Node", "a node's DIMSE workers: SIGSTOP", 3, _workers_stopped, hold_seconds=20),
    Fault(
        "workers-starved",
        "Node",
        "a node's DIMSE workers: out of memory",
        3,
        _workers_starved,
        unavailable=lambda _cluster: missing("memory"),
    ),
)
