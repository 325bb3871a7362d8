"""What operators do with a running cluster: drain a node, give it back, move the primary."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import yaml

from cluster import observe, registry, rollout
from cluster.clients import etcd_of, patroni_of
from cluster.etcd import Etcd
from cluster.patroni import PatroniRefused
from cluster.render import postgres
from cluster.topology import Topology

TRIES = 3
LOOK_SECONDS = 0.5
STEADY_SECONDS = 5.0  # what has just gone is still told of as there for a while


class NotNow(Exception):
    """What was asked for would harm, or did not come about in time; the message says what and why."""


def drain(
    topology: Topology,
    name: str,
    seconds: float,
    tell: Callable[[str], None],
    *,
    by: str,
    force: bool = False,
) -> None:
    """Give a node no new work and wait until it has finished what it has; NotNow.

    Without `force` the last node that takes work is not drained: HAProxy would not follow anyway. The wish
    stays in etcd, also after a time-out, until `undrain`.
    """
    etcd = etcd_of(topology)
    _wish(topology, etcd, name, by, force=force)
    deadline = time.monotonic() + seconds
    tell("waiting until HAProxy sends nothing new")
    _wait(lambda: _sent_nothing(topology, name), deadline, f"some HAProxy still sends to {name}")
    told: int | None = -1
    while True:
        count = observe.open_associations(topology, name)
        if not count:
            tell("no association is open")
            return
        if count != told:
            tell(f"{count} associations are open")
            told = count
        if time.monotonic() > deadline:
            raise NotNow(f"{name}: {count} associations are still open after {seconds:.0f} s")
        time.sleep(LOOK_SECONDS)


def _wish(topology: Topology, etcd: Etcd, name: str, by: str, *, force: bool) -> None:
    """Write down that a node drains, but not at the same time as somebody else does for another."""
    prefix = registry.drain_key(topology.cluster, "")
    wish = json.dumps({"by": by, "at": datetime.now(UTC).isoformat(timespec="seconds")})
    for _ in range(TRIES):
        wishes = etcd.prefix(prefix)
        draining = {key.removeprefix(prefix) for key in wishes.values}
        others = {node.name for node in observe.registered(topology) or ()} - draining - {name}
        if not others and not force:
            raise NotNow(f"{name}: no other node takes work")
        if etcd.put_if_unchanged(registry.drain_key(topology.cluster, name), wish, wishes, prefix):
            return
    raise NotNow(f"{name}: others are draining nodes right now")


def _sent_nothing(topology: Topology, name: str) -> bool:
    """Whether no HAProxy that answers gives the node new work."""
    return not any(observe.weights(topology, name).values())


def _wait(condition: Callable[[], bool], deadline: float, otherwise: str) -> None:
    while not condition():
        if time.monotonic() > deadline:
            raise NotNow(otherwise)
        time.sleep(LOOK_SECONDS)


def undrain(topology: Topology, name: str) -> bool:
    """Let a node take work again; False if it was not draining."""
    return etcd_of(topology).delete(registry.drain_key(topology.cluster, name))


def switchover(topology: Topology, candidate: str | None) -> str:
    """Make a standby the primary and wait for it; what Patroni says. NotNow."""
    patroni = patroni_of(topology)
    members = patroni.members()
    leader = next((member.name for member in members if member.leads), None)
    if leader is None:
        raise NotNow("there is no primary to switch over from")
    if candidate == leader:
        raise NotNow(f"{candidate} is the primary already")
    try:
        return patroni.switchover(leader, candidate)
    except PatroniRefused as error:
        raise NotNow(str(error)) from error


def wait_whole(topology: Topology, seconds: float, tell: Callable[[str], None]) -> None:
    """Wait until nothing is missing in any tier, and has not been for STEADY_SECONDS; NotNow with what is.

    A node that drains is no trouble, nor are two versions side by side.
    """
    deadline = time.monotonic() + seconds
    whole_since: float | None = None
    told: tuple[str, ...] = ()
    while True:
        missing = rollout.missing(topology, observe.observe(topology).facts(topology))
        now = time.monotonic()
        if missing:
            whole_since = None
            if missing != told:
                tell("; ".join(missing))
            told = missing
            if now > deadline:
                raise NotNow(f"not whole after {seconds:.0f} s: {'; '.join(missing)}")
        elif whole_since is None:
            whole_since = now
        elif now - whole_since >= STEADY_SECONDS:
            return
        time.sleep(LOOK_SECONDS)


def configure_postgres(topology: Topology) -> bool:
    """Bring what all PostgreSQL members share in step with the topology; False if it is already. NotNow."""
    try:
        return patroni_of(topology).configure(yaml.safe_load(postgres.dcs(topology)))
    except PatroniRefused as error:
        raise NotNow(str(error)) from error
