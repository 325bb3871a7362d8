"""The programs themselves take what is rendered for them: Debian's, of whatever version is installed here.

On Debian 12 they are older than on the hosts that Stele is deployed to (Debian 13); what only the newer ones
know is said where it matters.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster import render
from cluster.parse import parse
from cluster.places import PLACES, Places
from cluster.render import ceph, monitoring
from cluster.render import haproxy as haproxy_text
from cluster.render.node import proxies
from cluster.topology import Topology
from node.config import load
from tests.cluster.example import eleven_hosts, three_hosts, topology
from tests.cluster.servers import DIE_WITH_US, Pki, server_port
from tests.postgres import debian_programs
from tests.support import require, wait_until

pytestmark = pytest.mark.cluster


def said_by(*command: str, code: int = 0) -> str:
    """What a program says, both ways; AssertionError unless it ends with `code`."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    return said


def lay_out(folder: Path, found: Topology, name: str, pki: Pki) -> Path:
    """A host's files below `folder`, with paths and certificates as they are there."""
    for file in render.files(found, found.host(name), "a: topology\n"):
        path = folder / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(localized(file.text, pki))
        path.chmod(int(file.mode, 8))
    return folder


def localized(text: str, pki: Pki) -> str:
    for there, here in ((PLACES.ca, "ca.crt"), (PLACES.certificate, "host.crt"), (PLACES.key, "host.key")):
        text = text.replace(there, pki.path(here))
    return text


ALERTS = Path(__file__).parents[2] / "monitoring/rules"
LARGE = topology(eleven_hosts())
BOTH = pytest.mark.parametrize(
    ("found", "name"), [(topology(), "a"), (LARGE, "front2")], ids=["three", "large"]
)


@BOTH
def test_haproxy_takes_its_configuration(found: Topology, name: str, pki: Pki, tmp_path: Path) -> None:
    require("haproxy")
    places = Places(
        ca=pki.path("ca.crt"),
        certificate=pki.path("host.crt"),
        key=pki.path("host.key"),
        site_certificate=pki.path("site.crt"),
        dicom_clients_ca=pki.path("clients.crt"),
    )
    config = tmp_path / "haproxy.cfg"
    for nodes in (haproxy_text.nodes_of(found), ()):
        config.write_text(haproxy_text.config(found, found.host(name), nodes, places))
        assert "WARNING" not in said_by("haproxy", "-c", "-f", str(config))


@BOTH
def test_keepalived_takes_its_configuration(found: Topology, name: str, pki: Pki, tmp_path: Path) -> None:
    """Version 2.2 ends its own process group after a successful test: status 143. 2.3 says 0."""
    require("keepalived", "ip", needs_root=True)
    folder = lay_out(tmp_path, found, name, pki) / "etc/keepalived"
    config = folder / "keepalived.conf"
    config.write_text(config.read_text().replace("/etc/keepalived/", f"{folder}/"))
    interface = found.host(name).interface
    test = f"ip link add {interface} type bridge; setsid keepalived -t -f {config}"
    done = subprocess.run(["unshare", "--net", "sh", "-c", test], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 128 + signal.SIGTERM, -signal.SIGTERM), done.stderr
    assert "Line" not in done.stderr


@BOTH
def test_prometheus_and_alertmanager_take_theirs(
    found: Topology, name: str, pki: Pki, tmp_path: Path
) -> None:
    require("promtool", "amtool")
    folder = lay_out(tmp_path, found, name, pki) / "etc/prometheus"
    config = folder / "prometheus.yml"
    config.write_text(config.read_text().replace(monitoring.RULES, str(ALERTS)))
    said = said_by("promtool", "check", "config", str(config))
    assert "SUCCESS" in said
    assert f"{len(list(ALERTS.iterdir()))} rule files found" in said
    assert "SUCCESS" in said_by("amtool", "check-config", str(folder / "alertmanager.yml"))


@pytest.fixture
def reachable_etcd() -> Iterator[None]:
    """Something that listens where the topology of three hosts has etcd: Patroni looks."""
    with ExitStack() as stack:
        for host in (2, 3, 4):
            stack.enter_context(socket.create_server((f"127.0.0.{host}", 2379)))
        yield


def test_patroni_takes_its_configuration(pki: Pki, tmp_path: Path, reachable_etcd: None) -> None:
    """PyPI's Patroni, 4.1: Debian 13's 4.0 knows quorum commit, but its own check takes it for a mistake."""
    mapping = three_hosts(virtual_ip="127.0.0.100/8")
    for number, host in enumerate(mapping["hosts"].values(), 2):
        host["address"] = f"127.0.0.{number}"
    config = lay_out(tmp_path, parse(mapping), "a", pki) / "etc/patroni/config.yml"
    text = config.read_text().replace("/usr/lib/postgresql/17/bin", str(debian_programs()))
    config.write_text(text.replace("/var/lib/postgresql/17/stele", str(tmp_path / "data")))
    patroni = Path(sys.executable).with_name("patroni")
    assert said_by(str(patroni), "--validate-config", str(config)) == ""
    config.write_text(config.read_text().replace("synchronous_mode: quorum", "synchronous_mode: often"))
    assert "synchronous_mode" in said_by(str(patroni), "--validate-config", str(config), code=1)


def test_three_etcd_members_find_each_other(pki: Pki, tmp_path: Path) -> None:
    require("etcd")
    ports = {"etcd_client": server_port(), "etcd_peer": server_port()}
    mapping = three_hosts(virtual_ip="127.0.0.100/8", ports=ports)
    for host, address in zip(mapping["hosts"].values(), ("127.0.0.2", "127.0.0.3", "127.0.0.4"), strict=True):
        host["address"] = address
    found = parse(mapping)
    pki.for_addresses("127.0.0.2", "127.0.0.3", "127.0.0.4")
    members = []
    try:
        for host in found.hosts:
            folder = lay_out(tmp_path / host.name, found, host.name, pki)
            text = (folder / "etc/default/etcd").read_text().replace("/host.", "/three.")
            # On a host the member listens on its loopback address, too; here that is one for all three
            text = text.replace(f",https://127.0.0.1:{ports['etcd_client']}", "")
            text = text.replace("/var/lib/etcd", str(folder))
            lines = [line for line in text.splitlines() if line and not line.startswith("#")]
            environment = {**os.environ, **dict(line.split("=", 1) for line in lines)}
            with (folder / "log").open("wb") as log:
                command = [*DIE_WITH_US, "etcd"]
                members.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        session = pki.identity.session()

        def healthy() -> bool:
            try:
                urls = [f"https://{host.address}:{ports['etcd_client']}/health" for host in found.hosts]
                return all(session.get(url, timeout=2).json()["health"] == "true" for url in urls)
            except (OSError, KeyError, ValueError):
                return False

        wait_until(healthy, 20, "all members are healthy")
    finally:
        for member in members:
            member.kill()
            member.wait()


@BOTH
def test_the_node_takes_its_settings(found: Topology, name: str, pki: Pki, tmp_path: Path) -> None:
    settings = load(lay_out(tmp_path, found, name, pki) / "etc/stele/stele.toml")
    assert settings.objects.kind == "rados"
    assert "target_session_attrs=read-write" in settings.catalog.dsn
    assert list(settings.dicom.proxies) == list(settings.http.proxies) == proxies(found)
    assert settings.dicom.max_associations == haproxy_text.ASSOCIATIONS_PER_WORKER
    assert settings.ae_title == found.ae_title


@BOTH
def test_systemd_takes_the_units(found: Topology, name: str, pki: Pki, tmp_path: Path) -> None:
    require("systemd-analyze")
    folder = lay_out(tmp_path, found, name, pki) / "etc/systemd/system"
    units = sorted(path for path in folder.iterdir() if path.is_file())
    assert any(unit.name == "stele-dimse@.service" for unit in units)
    for unit in units:  # what they start is not there
        text = unit.read_text().replace("/opt/stele/bin/stele-cluster", "/bin/true")
        text = text.replace("/opt/stele/bin/stele", "/bin/true").replace("/usr/bin/pgbackrest", "/bin/true")
        unit.write_text(text)
    assert said_by("systemd-analyze", "verify", "--man=no", *map(str, units)) == ""


def test_no_unit_of_ours_runs_as_root() -> None:
    units = [
        file
        for file in render.files(topology(), topology().host("a"), "")
        if re.search(r"/stele-[^/]*\.service$", file.path)
    ]
    assert len(units) == 5
    for unit in units:
        assert re.search(r"^User=stele", unit.text, re.MULTILINE), unit.path
        for line in ("NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict"):
            assert f"\n{line}\n" in unit.text, unit.path


@BOTH
def test_scripts_parse(found: Topology, name: str, pki: Pki, tmp_path: Path) -> None:
    scripts = [
        (file.path, file.text)
        for host in found.hosts
        for file in render.files(found, host, "")
        if file.text.startswith("#!/bin/sh")
    ]
    assert len(scripts) >= 4
    for path, text in scripts:
        script = tmp_path / "script"
        script.write_text(text)
        said_by(text.partition("\n")[0].removeprefix("#!"), "-n", str(script))
        assert Path(path).suffix == ""


def _crush_map(found: Topology, folder: Path) -> tuple[str, dict[int, str]]:
    """A compiled map of the hosts' OSDs with the rendered rule, and the host of each OSD."""
    require("crushtool")
    hosts = found.on("ceph-osd")
    lines, osd = ["type 0 osd", "type 1 host", "type 11 root"], 0
    buckets: list[str] = []
    where: dict[int, str] = {}
    for number, host in enumerate(hosts, 2):
        items = []
        for _ in host.osd_devices:
            lines.insert(0, f"device {osd} osd.{osd}")
            items.append(f"\titem osd.{osd} weight 1.000")
            where[osd] = host.name
            osd += 1
        buckets += [f"host {host.name} {{", f"\tid -{number}", "\talg straw2", "\thash 0", *items, "}"]
    items = [f"\titem {host.name} weight {len(host.osd_devices)}.000" for host in hosts]
    buckets += ["root default {", "\tid -1", "\talg straw2", "\thash 0", *items, "}"]
    text = folder / "map"
    text.write_text(
        "\n".join(sorted(lines[:osd], key=lambda line: int(line.split()[1])) + lines[osd:] + buckets)
    )
    rule = ceph.crush_rule(found)
    if int(said_by("ceph", "--version").split()[2].partition(".")[0]) < 17:  # demanded then, unknown since
        rule = rule.replace("type erasure", "type erasure\n\tmin_size 1\n\tmax_size 9")
    with text.open("a") as stream:
        stream.write("\n" + rule)
    compiled = str(folder / "compiled")
    said_by("crushtool", "-c", str(text), "-o", compiled)
    return compiled, where


def _mappings(compiled: str, found: Topology, *more: str) -> list[list[int]]:
    """On which OSDs the rule puts each of 500 placement groups' shards."""
    shards = found.erasure.k + found.erasure.m
    arguments = ("--test", "--show-mappings", "--rule", str(ceph.RULE_ID), "--num-rep", str(shards))
    told = said_by("crushtool", "-i", compiled, *arguments, "--min-x", "0", "--max-x", "499", *more)
    found_mappings = [[int(each) for each in line.split(",")] for line in re.findall(r"\[([\d,]+)\]", told)]
    assert len(found_mappings) == 500
    return found_mappings


@pytest.mark.parametrize(("found", "per_host"), [(topology(), 2), (LARGE, 1)], ids=["3+3", "4+2"])
def test_every_object_lies_on_as_many_hosts_as_it_should(
    found: Topology, per_host: int, tmp_path: Path
) -> None:
    """Ceph's own placement, over a map of the topology's hosts and disks."""
    compiled, where = _crush_map(found, tmp_path)
    for osds in _mappings(compiled, found):
        assert len(set(osds)) == found.erasure.k + found.erasure.m
        names = [where[each] for each in osds]
        assert {names.count(name) for name in names} == {per_host}


def test_shards_leave_a_host_whose_osds_weigh_nothing_but_not_one_whose_osds_are_only_out(
    tmp_path: Path,
) -> None:
    hosts = three_hosts()["hosts"]
    four = topology(
        three_hosts(
            hosts={
                **hosts,
                "d": {**hosts["a"], "address": "198.18.0.14", "tiers": ["ceph-osd", "node"]},
            }
        )
    )
    compiled, where = _crush_map(four, tmp_path)
    leaving = [osd for osd, name in where.items() if name == "d"]
    out = [part for osd in leaving for part in ("--weight", str(osd), "0")]
    nowhere = 0x7FFFFFFF
    assert any(nowhere in osds for osds in _mappings(compiled, four, *out))
    for osd in leaving:
        said_by("crushtool", "-i", compiled, "--reweight-item", f"osd.{osd}", "0", "-o", compiled)
    for osds in _mappings(compiled, four):
        assert nowhere not in osds
        assert not set(osds) & set(leaving)


def test_toml_survives_what_an_ae_title_may_hold() -> None:
    found = topology(three_hosts(ae_title="A B#[1]=é"[:8]))
    text = next(f.text for f in render.files(found, found.host("a"), "") if f.path == PLACES.node_settings)
    assert tomllib.loads(text)["ae_title"] == found.ae_title
