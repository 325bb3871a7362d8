"""Faults, a module for each tier: every one has a name, a target, and knows how it is made and healed.

fault.py      what a fault is, and what clients may expect meanwhile
processes.py  killed, kept down, stopped;  alerts.py  what operators have to be told

The recovery times are what the cluster promises its clients; what is promised of the tiers themselves (an
address that moves, an alert that fires) is a fault's sign.
"""

from chaos.faults import ceph, change, clock, etcd, front, host, network, node, overload, postgres
from chaos.faults.fault import Expect, Fault, Heal, Injected, Sign

__all__ = ["FAULTS", "Expect", "Fault", "Heal", "Injected", "Sign"]

FAULTS = {
    fault.name: fault
    for tier in (
        front.FAULTS,
        node.FAULTS,
        host.FAULTS,
        etcd.FAULTS,
        postgres.FAULTS,
        ceph.FAULTS,
        network.FAULTS,
        clock.FAULTS,
        overload.FAULTS,
        change.FAULTS,
        host.SITE,
    )
    for fault in tier
}
