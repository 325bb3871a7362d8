"""Faults: each has a name, a tier, a target for the recovery, and knows how it is made and healed.

A fault is made on a cluster in which all is well. `inject` draws what it leaves open (which host, which of
several processes) from the generator it is given, so a seed repeats it, and returns what heals it: nothing,
if the cluster heals itself. The targets are the recovery times that the cluster promises its clients.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from chaos import deploy, release
from chaos.deployed import STELE_CLUSTER, Deployed
from chaos.lab.host import Host
from chaos.lab.shell import LabError

Heal = Callable[[], object]
POSTMASTER_PID = "/var/lib/postgresql/17/stele/postmaster.pid"


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was made: to whom, and what heals it."""

    victim: str
    heal: Heal


@dataclass(frozen=True, slots=True)
class Fault:
    """`recovery_seconds`: without any acknowledgement, at the most. `hold_seconds`: how long it stays after
    the next acknowledgement before it is healed."""

    name: str
    tier: str
    what: str
    recovery_seconds: float
    inject: Callable[[Deployed, random.Random], Injected]
    hold_seconds: float = 5.0
    making_seconds: float = 0.0  # until it is made and healed, at the most, where that is a long work


def _nothing() -> None:
    """The cluster heals by itself."""


def _kill(host: Host, unit: str) -> Injected:
    host.run("systemctl", "kill", "--signal=KILL", unit)
    return Injected(f"{unit} on {host.name}", _nothing)


def _any(cluster: Deployed, generator: random.Random) -> Host:
    return generator.choice(list(cluster.lab.hosts.values()))


def _units(host: Host, pattern: str) -> list[str]:
    """Names of the running units that fit a pattern; LabError if there are none."""
    listed = host.run("systemctl", "list-units", "--plain", "--no-legend", "--state=running", pattern)
    found = [line.split()[0] for line in listed.decode().splitlines()]
    if not found:
        raise LabError(f"{host.name} runs no {pattern}")
    return found


# --- One process ---------------------------------------------------------------------------------


def _holders_haproxy(cluster: Deployed, _generator: random.Random) -> Injected:
    return _kill(cluster.holder(), "haproxy.service")


def _holders_keepalived(cluster: Deployed, _generator: random.Random) -> Injected:
    return _kill(cluster.holder(), "keepalived.service")


def _workers(cluster: Deployed, generator: random.Random) -> Injected:
    host = _any(cluster, generator)
    units = _units(host, "stele-dimse*")
    for unit in units:
        _kill(host, unit)
    return Injected(f"{', '.join(units)} on {host.name}", _nothing)


def _primary(cluster: Deployed, _generator: random.Random) -> Injected:
    host = cluster.primary()
    host.run("sh", "-c", f"kill -KILL $(head -n 1 {POSTMASTER_PID})")
    return Injected(f"PostgreSQL on {host.name}", _nothing)


def _etcd_leader(cluster: Deployed, _generator: random.Random) -> Injected:
    return _kill(cluster.etcd_leader(), "etcd.service")


def _osd(cluster: Deployed, generator: random.Random) -> Injected:
    host = _any(cluster, generator)
    return _kill(host, generator.choice(_units(host, "ceph-osd@*")))


# --- A whole host --------------------------------------------------------------------------------


def _power_off(host: Host) -> Injected:
    host.power_off()
    return Injected(host.name, lambda: _power_on(host))


def _power_on(host: Host) -> None:
    host.power_on()
    host.wait_ready()


def _host_off(cluster: Deployed, generator: random.Random) -> Injected:
    return _power_off(_any(cluster, generator))


def _holder_off(cluster: Deployed, _generator: random.Random) -> Injected:
    return _power_off(cluster.holder())


def _primarys_host_off(cluster: Deployed, _generator: random.Random) -> Injected:
    return _power_off(cluster.primary())


def _host_frozen(cluster: Deployed, generator: random.Random) -> Injected:
    host = _any(cluster, generator)
    host.freeze()
    return Injected(host.name, host.thaw)


def _host_cut_off(cluster: Deployed, generator: random.Random) -> Injected:
    host = _any(cluster, generator)
    cluster.lab.network.isolate(host.name)
    return Injected(host.name, cluster.lab.network.heal)


# --- Everything ----------------------------------------------------------------------------------


def _all_off(cluster: Deployed, _generator: random.Random) -> Injected:
    hosts = list(cluster.lab.hosts.values())
    for host in hosts:
        host.power_off()
    for host in hosts:  # power comes back for all at once; nobody helps
        host.power_on()
    return Injected("all hosts", _nothing)


# --- Changes that nobody may notice ---------------------------------------------------------------


def _switchover(cluster: Deployed, _generator: random.Random) -> Injected:
    primary = cluster.primary()
    primary.run(STELE_CLUSTER, "switchover", seconds=120)
    return Injected(f"PostgreSQL on {primary.name}", _nothing)


def _upgrade(*packages: str) -> Callable[[Deployed, random.Random], Injected]:
    """Every host gets another release, and Debian's packages of these names under higher versions; then the
    release that was there before."""

    def inject(cluster: Deployed, _generator: random.Random) -> Injected:
        suffix = f"+chaos{time.time():.0f}"  # higher than that of an earlier run
        bundle = release.raised(deploy.BUNDLE, deploy.BUNDLE.with_name("bundle-raised"), packages, suffix)
        deploy.upgrade(cluster.lab, bundle)
        return Injected("every host", lambda: deploy.upgrade(cluster.lab, deploy.BUNDLE))

    return inject


# Of each tier one that nothing else demands in exactly its version
PROGRAMS = ("etcd-server", "postgresql-17", "ceph-osd", "haproxy", "keepalived", "prometheus")


def _rotate(asked: str, then: str = "") -> Callable[[Deployed, random.Random], Injected]:
    """New certificates for every host; `asked`, `then`: variables of the playbook and of its second run."""

    def inject(cluster: Deployed, _generator: random.Random) -> Injected:
        def play(variables: str) -> None:
            deploy.play(cluster.lab, "rotate_certificates.yml", "--extra-vars", variables)

        play(asked)
        return Injected("every host", lambda: play(then) if then else None)

    return inject


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("haproxy-killed", "LB", "HAProxy on the virtual IP's holder: kill -9", 3, _holders_haproxy),
        Fault("keepalived-killed", "VIP", "keepalived on the holder: kill -9", 5, _holders_keepalived),
        Fault("holder-off", "VIP", "the virtual IP's holder loses power", 45, _holder_off),
        Fault("workers-killed", "Node", "a node's DIMSE workers: kill -9", 3, _workers),
        Fault("primary-killed", "PostgreSQL", "the primary's postmaster: kill -9", 29, _primary),
        Fault("switchover", "PostgreSQL", "planned switchover", 5, _switchover),
        Fault("etcd-leader-killed", "etcd", "etcd's leader: kill -9", 3, _etcd_leader),
        Fault("osd-killed", "Ceph", "an OSD: kill -9", 5, _osd),
        Fault("host-off", "Host", "a host loses power", 45, _host_off),
        Fault("primarys-host-off", "Host", "the primary's host loses power", 45, _primarys_host_off),
        Fault("host-frozen", "Host", "a host stands still", 45, _host_frozen),
        Fault("host-cut-off", "Network", "a host is cut off from all others", 45, _host_cut_off),
        Fault(
            "rolling-upgrade",
            "Change",
            "another release, host by host, and back",
            5,
            _upgrade(),
            making_seconds=2 * deploy.UPGRADE_SECONDS,
        ),
        Fault(
            "packages",
            "Change",
            "the same, and every tier's programs",
            5,
            _upgrade(*PROGRAMS),
            making_seconds=2 * deploy.UPGRADE_SECONDS,
        ),
        Fault(
            "certificates",
            "Change",
            "new certificates, host by host",
            5,
            _rotate("stele_renew_all=true"),
            making_seconds=deploy.DEPLOY_SECONDS,
        ),
        Fault(
            "authority",
            "Change",
            "a new authority; the old retires",
            5,
            _rotate("stele_authority=new", "stele_authority=retire"),
            making_seconds=2 * deploy.DEPLOY_SECONDS,
        ),
        Fault("power-loss", "Site", "everything loses power, and gets it back", 300, _all_off),
    )
}
