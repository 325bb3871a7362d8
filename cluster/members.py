"""Who belongs to a running cluster, as its own tools tell it: etcdctl, ceph and patronictl, in JSON. Pure."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

KIB = 1 << 10
FOLLOWING = ("Quorum Standby", "Sync Standby")


class NotUnderstood(Exception):
    """A tool's answer is not what it should be; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Voter:
    """A member of etcd. `number` is as etcdctl takes it; `name` is empty until it has started once."""

    number: str
    name: str
    address: str
    learner: bool
    answers: bool


@dataclass(frozen=True, slots=True)
class Osd:
    """An OSD and the host that it is on, as CRUSH has it; `size` and `used` in bytes."""

    number: int
    host: str
    up: bool
    size: int
    used: int


@dataclass(frozen=True, slots=True)
class Members:
    """What a running cluster takes for its members, and what its hosts have on their disks.

    `data`: by host that was asked, what of a member it keeps: `etcd`, `ceph-mon`, `osd.7`. `groups`:
    placement groups by state. `profile`: how the pool's objects are cut up, like 3+3; empty without a pool.
    `postgres`: roles as Patroni names them, by member.
    """

    data: Mapping[str, frozenset[str]]
    etcd: tuple[Voter, ...]
    monitors: frozenset[str]
    quorum: frozenset[str]
    osds: tuple[Osd, ...]
    groups: Mapping[str, int]
    profile: str
    postgres: Mapping[str, str]

    @property
    def primary(self) -> str | None:
        """PostgreSQL's primary, None if there is none."""
        return next((name for name, role in self.postgres.items() if role == "Leader"), None)

    def has(self, host: str, what: str) -> bool:
        """Whether a host keeps this member's data; one that was not asked does not."""
        return what in self.data.get(host, frozenset())

    def has_osds(self, host: str) -> bool:
        """Whether a host keeps any OSD."""
        return any(what.startswith("osd.") for what in self.data.get(host, frozenset()))


def parse(told: Mapping[str, Any]) -> Members:
    """What was gathered, by tool; NotUnderstood.

    `data`: lines of each host. `etcd`: `members` (etcdctl member list) and `health` (endpoint health
    --cluster). `ceph`: `quorum` (quorum_status), `osds` (osd df tree), `groups` (pg stat) and `profile` (osd
    pool get … erasure_code_profile, {} without a pool). `postgres`: patronictl list.
    """
    try:
        ceph = told["ceph"]
        return Members(
            data={name: frozenset(lines) for name, lines in told["data"].items()},
            etcd=_voters(told["etcd"]["members"], told["etcd"]["health"]),
            monitors=frozenset(each["name"] for each in ceph["quorum"]["monmap"]["mons"]),
            quorum=frozenset(ceph["quorum"]["quorum_names"]),
            osds=_osds(ceph["osds"]["nodes"]),
            groups={each["name"]: each["num"] for each in ceph["groups"]["pg_summary"]["num_pg_by_state"]},
            profile=ceph["profile"].get("erasure_code_profile", "").removeprefix("stele_").replace("_", "+"),
            postgres={each["Member"]: each["Role"] for each in told["postgres"]},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotUnderstood(f"{type(error).__name__}: {error}") from error


def _voters(members: Mapping[str, Any], health: list[Mapping[str, Any]]) -> tuple[Voter, ...]:
    answering = {each["endpoint"] for each in health if each["health"]}
    return tuple(
        Voter(
            number=f"{each['ID']:x}",
            name=each.get("name", ""),
            address=str(ipaddress.ip_address(urlsplit(each["peerURLs"][0]).hostname or "")),
            learner=bool(each.get("isLearner", False)),
            answers=bool(answering & set(each.get("clientURLs", ()))),
        )
        for each in members["members"]
    )


def _osds(nodes: list[Mapping[str, Any]]) -> tuple[Osd, ...]:
    host_of = {child: node["name"] for node in nodes if node["type"] == "host" for child in node["children"]}
    return tuple(
        Osd(
            number=node["id"],
            host=host_of.get(node["id"], ""),
            up=node["status"] == "up",
            size=node["kb"] * KIB,
            used=node["kb_used"] * KIB,
        )
        for node in nodes
        if node["type"] == "osd"
    )
