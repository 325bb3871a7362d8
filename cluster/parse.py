"""Reading a topology out of a mapping (a YAML file that Ansible writes from its inventory).

Every value is checked against a narrow pattern, since it ends up in configuration text. All problems are
gathered before any is told. Rules about the whole are in `cluster.rules`, which `parse` asks, too: there is
no way to a topology that they refuse.
"""

import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from cluster import rules
from cluster.topology import (
    DEFAULT_TIERS,
    ERASURES,
    GIB,
    TIERS,
    WIDE_HOSTS,
    Host,
    Ports,
    Problem,
    Topology,
    WrongTopology,
)

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,14}")
_DEVICE = re.compile(r"/[A-Za-z0-9_./:+-]{1,200}")
_SERVER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~-]{0,39}")
_OPTION = re.compile(r"[a-z][a-z0-9_]{0,63}")
_OPTION_VALUE = re.compile(r"[A-Za-z0-9_./:,+-]{1,200}")
_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/-]*)?")


class _Reader:
    """Takes values out of a mapping, gathers problems, and at the end names what nobody asked for."""

    def __init__(self, mapping: Mapping[str, Any], where: str, problems: list[Problem]) -> None:
        self._rest = dict(mapping)
        self._where = where
        self.problems = problems

    def wrong(self, name: str, reason: str, remedy: str) -> None:
        self.problems.append(Problem(f"{self._where}{name}", reason, remedy))

    def take(self, name: str, default: Any, is_right: Callable[[Any], bool], wanted: str) -> Any:
        """The value; its default, also when it is wrong. A default of None makes it required."""
        value = self._rest.pop(name, default)
        if value is None:
            self.wrong(name, "missing", f"write {wanted}")
        elif not is_right(value):
            self.wrong(name, f"{value!r} is wrong", f"write {wanted}")
            return default
        return value

    def text(self, name: str, default: str | None, pattern: re.Pattern[str], wanted: str) -> Any:
        return self.take(name, default, lambda v: isinstance(v, str) and bool(pattern.fullmatch(v)), wanted)

    def number(self, name: str, default: int | None, low: int, high: int) -> Any:
        def is_right(value: Any) -> bool:
            return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

        return self.take(name, default, is_right, f"a whole number from {low} to {high}")

    def switch(self, name: str, default: bool) -> Any:
        return self.take(name, default, lambda value: isinstance(value, bool), "true or false")

    def mapping(self, name: str) -> dict[str, Any]:
        value = self.take(name, {}, lambda v: isinstance(v, dict) and all(isinstance(k, str) for k in v), "")
        return dict(value)

    def finish(self) -> None:
        for name in self._rest:
            self.wrong(str(name), "unknown name", "remove it, or correct its spelling")


def parse(mapping: Mapping[str, Any]) -> Topology:
    """The topology that a mapping describes; WrongTopology with every problem found.

    README.md of this package shows the mapping.
    """
    problems: list[Problem] = []
    read = _Reader(mapping, "", problems)
    interface = read.text("interface", "eth0", _INTERFACE, "the network interface of the virtual IP")
    memory_gib = read.number("memory_gib", 8, 1, 4096)
    hosts = tuple(
        _host(str(name), settings, interface, memory_gib, problems)
        for name, settings in sorted(read.mapping("hosts").items())  # whatever order YAML has them in
    )
    cluster = read.text("cluster", None, _NAME, "a name of small letters, digits and hyphens")
    server_name = read.text("server_name", None, _SERVER_NAME, "the DNS name that browsers use")
    virtual_ip = _virtual_ip(read)
    erasure = read.take("erasure", "auto", lambda v: v == "auto" or v in ERASURES, "auto, 3+3 or 4+2")
    if erasure == "auto":
        wide = sum("ceph-osd" in host.tiers for host in hosts) >= WIDE_HOSTS
        erasure = "4+2" if wide else "3+3"
    values: dict[str, Any] = {
        "version": read.text("version", None, _VERSION, "the release of Stele to run"),
        "virtual_router_id": read.number("virtual_router_id", 51, 1, 255),
        "ae_title": read.take("ae_title", "STELE", _is_ae_title, "1 to 16 printable ASCII characters"),
        "ceph_fsid": read.take("ceph_fsid", _fsid(cluster, server_name), _is_uuid, "a UUID"),
        "ports": _ports(read.mapping("ports"), problems),
        "any_calling_ae": read.switch("any_calling_ae", False),
        "dimse_workers": read.number("dimse_workers", 2, 1, 64),
        "connections": read.number("connections", 4000, 100, 100_000),
        "watchdog": read.switch("watchdog", False),
        "backup_path": read.text("backup_path", "/var/lib/pgbackrest", _DEVICE, "an absolute path"),
        "backup_weeks": read.number("backup_weeks", 2, 1, 520),
        "alert_webhook": read.take("alert_webhook", "", _is_url_or_empty, "an http or https address"),
        "ceph_options": _ceph_options(read.mapping("ceph_options"), problems),
    }
    read.finish()
    if problems:
        raise WrongTopology(problems)
    address, prefix = virtual_ip
    topology = Topology(
        cluster=cluster,
        hosts=hosts,
        virtual_ip=address,
        virtual_prefix=prefix,
        server_name=server_name,
        erasure=ERASURES[erasure],
        **values,
    )
    if problems := rules.broken(topology):
        raise WrongTopology(problems)
    return topology


def _host(name: str, settings: Any, interface: str, memory_gib: int, problems: list[Problem]) -> Host:
    where = f"hosts.{name}"
    if not _NAME.fullmatch(name):
        problems.append(Problem(where, "not a host name", "use small letters, digits and hyphens"))
    if not isinstance(settings, Mapping):
        problems.append(Problem(where, "has no settings", "give it at least an address"))
        settings = {"address": "127.0.0.1"}
    read = _Reader(settings, f"{where}.", problems)
    devices = read.take("osd_devices", [], _is_list_of(_DEVICE), "a list of paths of disks")
    tiers = read.take("tiers", list(DEFAULT_TIERS), _are_tiers, f"a list out of {', '.join(TIERS)}")
    address = read.take("address", None, _is_address, "its IP address")
    host = Host(
        name=name,
        address=str(ipaddress.ip_address(address)) if address else "",
        tiers=frozenset(tiers),
        interface=read.text("interface", interface, _INTERFACE, "a network interface"),
        memory_bytes=read.number("memory_gib", memory_gib, 1, 4096) * GIB,
        osd_devices=tuple(devices),
    )
    read.finish()
    return host


def _virtual_ip(read: _Reader) -> tuple[str, int]:
    def is_right(value: Any) -> bool:
        return isinstance(value, str) and "/" in value and _is_address(value)

    value = read.take("virtual_ip", None, is_right, "an address with its prefix length, like 192.0.2.10/24")
    if value is None:
        return "", 0
    interface = ipaddress.ip_interface(value)
    return str(interface.ip), interface.network.prefixlen


def _ports(mapping: Mapping[str, Any], problems: list[Problem]) -> Ports:
    read = _Reader(mapping, "ports.", problems)
    values = {}
    for each in fields(Ports):
        low = 0 if each.name == "dicom_tls" else 1
        values[each.name] = read.number(each.name, int(str(each.default)), low, 65535)
    read.finish()
    return Ports(**values)


def _ceph_options(mapping: Mapping[str, Any], problems: list[Problem]) -> tuple[tuple[str, str], ...]:
    for name, value in mapping.items():
        if not _OPTION.fullmatch(name) or not _OPTION_VALUE.fullmatch(str(value)):
            problems.append(Problem(f"ceph_options.{name}", "malformed", "write option_name: value"))
    return tuple((name, str(value)) for name, value in mapping.items())


def _fsid(cluster: Any, server_name: Any) -> str:
    """A stable identity for the Ceph cluster, so that no run of the deployment invents a second one."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"ceph.{cluster}.{server_name}"))


def _is_address(value: Any) -> bool:
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        return False
    return isinstance(value, str)


def _is_uuid(value: Any) -> bool:
    try:
        return bool(str(uuid.UUID(value)) == value)
    except (ValueError, AttributeError, TypeError):
        return False


def _is_ae_title(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value.strip()) <= 16
        and value.isascii()
        and value.isprintable()
        and not set(value) & set("\\\"'")
    )


def _is_url_or_empty(value: Any) -> bool:
    return isinstance(value, str) and (not value or bool(_URL.fullmatch(value)))


def _is_list_of(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, list) and all(isinstance(e, str) and pattern.fullmatch(e) for e in v)


def _are_tiers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(tier in TIERS for tier in value)
