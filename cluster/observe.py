"""The state of every tier, asked for at once: each question has its own limit, and no answer is one, too."""

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import requests
from prometheus_client.parser import text_string_to_metric_families

from cluster import backups, ceph, certificates, registry
from cluster.backups import Backup, BackupsUnknown
from cluster.ceph import CephStatus, CephUnavailable
from cluster.clients import etcd_endpoints, etcd_of, identity, internal_url, patroni_of
from cluster.etcd import MemberStatus, Refused, Unavailable
from cluster.patroni import Member, PatroniUnavailable
from cluster.registry import Node, NotANode
from cluster.rollout import Facts
from cluster.topology import Topology

SECONDS = (1.0, 3.0)
MOST_THREADS = 32

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Certificate:
    """When what a host's service presents ends; None if it presented nothing."""

    host: str
    service: str
    ends: datetime | None


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen. None for what could not be; by host where each host has one of its own."""

    etcd: Mapping[str, MemberStatus | None]
    nodes: tuple[Node, ...] | None
    associations: Mapping[str, int | None]
    members: tuple[Member, ...] | None
    postgres_versions: Mapping[str, str]
    ceph: CephStatus | None
    ceph_trouble: str
    haproxies: Mapping[str, bool]
    holder: str | None
    certificates: tuple[Certificate, ...]
    backups: tuple[Backup, ...] | None = None  # also None where nobody keeps any, or this host cannot ask
    backups_trouble: str = ""

    def facts(self, topology: Topology) -> Facts:
        """What decisions about a change need."""
        down = {name for name, status in self.etcd.items() if status is None}
        down |= {name for name, up in self.haproxies.items() if not up}
        if self.members is not None:
            running = {member.name for member in self.members if member.leads or member.follows}
            down |= {host.name for host in topology.on("postgres")} - running
        if self.nodes is not None:
            down |= {host.name for host in topology.on("node")} - {node.name for node in self.nodes}
        if self.ceph is not None:
            down |= {host.name for host in topology.on("ceph-mon")} - set(self.ceph.monitors_up)
        return Facts(
            down=frozenset(down),
            draining=frozenset(node.name for node in self.nodes or () if node.draining),
            primary=next((member.name for member in self.members or () if member.leads), None),
            holder=self.holder,
            standbys=None if self.members is None else sum(member.follows for member in self.members),
            clean=None if self.ceph is None else self.ceph.clean,
        )


def observe(topology: Topology) -> Observed:
    """Ask everybody; takes no longer than the slowest of the limits."""
    with ThreadPoolExecutor(MOST_THREADS) as pool:

        def by_host(ask: Callable[[Topology, str], Answer], tier: str) -> dict[str, Future[Answer]]:
            return {host.name: pool.submit(ask, topology, host.name) for host in topology.on(tier)}

        etcd = by_host(_member_status, "etcd")
        haproxies = by_host(_is_haproxy_up, "haproxy")
        associations = by_host(open_associations, "node")
        versions = by_host(_postgres_version, "postgres")
        nodes = pool.submit(registered, topology)
        members = pool.submit(_members, topology)
        ceph_state = pool.submit(_ceph)
        holder = pool.submit(_host_at, topology, topology.virtual_ip)
        presented = [pool.submit(certificate, *each) for each in tls_servers(topology)]
        kept = pool.submit(_backups, topology)
        state, trouble = ceph_state.result()
        backups_kept, backups_trouble = kept.result()
        return Observed(
            etcd=_results(etcd),
            nodes=nodes.result(),
            associations=_results(associations),
            members=members.result(),
            postgres_versions=_results(versions),
            ceph=state,
            ceph_trouble=trouble,
            haproxies=_results(haproxies),
            holder=holder.result(),
            certificates=tuple(each.result() for each in presented),
            backups=backups_kept,
            backups_trouble=backups_trouble,
        )


def _results(futures: Mapping[str, Future[Answer]]) -> dict[str, Answer]:
    return {name: future.result() for name, future in futures.items()}


def registered(topology: Topology) -> tuple[Node, ...] | None:
    """The registered nodes, by name; None if etcd does not say."""
    found = []
    try:
        values = etcd_of(topology).prefix(registry.nodes_prefix(topology.cluster)).values
    except (Unavailable, Refused):
        return None
    for key, value in values.items():
        try:
            found.append(registry.decode(key, value))
        except NotANode:
            continue  # the agents log it
    return tuple(sorted(found, key=lambda node: node.name))


def open_associations(topology: Topology, name: str) -> int | None:
    """Associations open at a node, as it counts them itself; None if no HAProxy reaches it."""
    for host in topology.on("haproxy"):
        text = _page(topology, host.address, f"/node/{name}/metrics")
        if text is None:
            continue
        for family in text_string_to_metric_families(text):
            if family.name == "stele_associations":
                return int(sum(sample.value for sample in family.samples))
    return None


def weights(topology: Topology, name: str) -> dict[str, int | None]:
    """The weight of a node at each HAProxy, 0 while it drains; None if either is not there."""
    found: dict[str, int | None] = {}
    for host in topology.on("haproxy"):
        rows = (_page(topology, host.address, "/stats;csv") or "").splitlines()
        cells = [row.split(",") for row in rows if row.startswith(f"dicom,{name},")]
        found[host.name] = int(cells[0][18]) if cells else None
    return found


def _page(topology: Topology, address: str, path: str) -> str | None:
    try:
        answer = identity().session().get(internal_url(topology, address, path), timeout=SECONDS)
    except requests.exceptions.RequestException:
        return None
    return answer.text if answer.status_code == requests.codes.ok else None


def _host_at(topology: Topology, address: str) -> str | None:
    """The name of the host whose HAProxy answers at an address."""
    text = _page(topology, address, "/host")
    return text.strip() if text else None


def _is_haproxy_up(topology: Topology, name: str) -> bool:
    return _host_at(topology, topology.host(name).address) == name


def _member_status(topology: Topology, name: str) -> MemberStatus | None:
    try:
        return etcd_of(topology).member_status(etcd_endpoints(topology)[name])
    except (Unavailable, Refused):
        return None


def _members(topology: Topology) -> tuple[Member, ...] | None:
    try:
        return patroni_of(topology).members()
    except PatroniUnavailable:
        return None


def _postgres_version(topology: Topology, name: str) -> str:
    try:
        return patroni_of(topology).version(name)
    except PatroniUnavailable:
        return ""


def _ceph() -> tuple[CephStatus | None, str]:
    try:
        return ceph.status(), ""
    except CephUnavailable as error:
        return None, str(error)


def _backups(topology: Topology) -> tuple[tuple[Backup, ...] | None, str]:
    if not topology.on("backup") or shutil.which("pgbackrest") is None:
        return None, ""
    try:
        return backups.backups(), ""
    except BackupsUnknown as error:
        return None, str(error)


def tls_servers(topology: Topology) -> list[tuple[str, str, str, int]]:
    """Every TLS server of the cluster: host, service, address, port."""
    ports = topology.ports
    services = {
        "etcd": ("etcd", ports.etcd_client),
        "patroni": ("postgres", ports.patroni),
        "haproxy": ("haproxy", ports.haproxy_internal),
        "https": ("haproxy", ports.https),
    }
    return [
        (host.name, service, host.address, port)
        for service, (tier, port) in services.items()
        for host in topology.on(tier)
    ]


def certificate(host: str, service: str, address: str, port: int) -> Certificate:
    """What one of `tls_servers` presents right now."""
    return Certificate(host, service, certificates.expiry(address, port, identity().unchecked()))
