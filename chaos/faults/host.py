"""Whole hosts: off, frozen, and all at once."""

import random
import time

from chaos.deployed import Deployed
from chaos.faults.fault import Fault, Injected, nothing
from chaos.faults.processes import any_host
from chaos.lab.host import Host


def power_off(host: Host) -> Injected:
    """A pulled plug; it is healed when the host is up again."""
    made = time.monotonic()
    host.power_off()
    return Injected(host.name, lambda: _power_on(host), made=made)


def _power_on(host: Host) -> None:
    host.power_on()
    host.wait_ready()


def _off(cluster: Deployed, generator: random.Random) -> Injected:
    return power_off(any_host(cluster, generator))


def _primarys_off(cluster: Deployed, _generator: random.Random) -> Injected:
    return power_off(cluster.primary())


def _frozen(cluster: Deployed, generator: random.Random) -> Injected:
    host = any_host(cluster, generator)
    host.freeze()
    return Injected(host.name, host.thaw)


def _all_off(cluster: Deployed, _generator: random.Random) -> Injected:
    hosts = list(cluster.lab.hosts.values())
    for host in hosts:  # nobody sees another go
        host.freeze()
    for host in hosts:
        host.power_off()
    for host in hosts:  # power comes back for all at once; nobody helps
        host.power_on()
    return Injected("all hosts", nothing)


def _disks_keep_all(cluster: Deployed) -> str:
    return (
        ""
        if cluster.lab.record.lossy
        else "disks of this lab keep what was not synced: start it with --lossy"
    )


FAULTS = (
    Fault("host-off", "Host", "a host loses power", 45, _off),
    Fault("primarys-host-off", "Host", "the primary's host loses power", 45, _primarys_off),
    Fault("host-frozen", "Host", "a host stands still", 45, _frozen),
)
SITE = (
    Fault("power-loss", "Site", "everything loses power, and gets it back", 300, _all_off),
    Fault(
        "power-loss-unsynced",
        "Site",
        "the same, and what no disk had been made to keep is lost",
        300,
        _all_off,
        unavailable=_disks_keep_all,
    ),
)
