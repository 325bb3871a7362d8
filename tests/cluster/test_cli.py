"""`stele-cluster` as an operator uses it, with the services as systemd starts them."""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from cluster import agent, certificates, expiry
from cluster.parse import parse
from cluster.places import PLACES
from cluster.render import haproxy as haproxy_text
from cluster.tls import plain
from tests.cluster.example import three_hosts
from tests.cluster.front import loopback_mapping
from tests.cluster.servers import DIE_WITH_US, EtcdServers, HaproxyServer, Pki, server_port
from tests.cluster.standin import Client, StandIn, who_answers
from tests.cluster.test_members import gathered
from tests.support import require, wait_until

COMMAND = (sys.executable, "-m", "cluster.cli")


class Site:
    """A topology file and the environment that a host's services have, on loopback."""

    def __init__(self, folder: Path, pki: Pki, etcd: EtcdServers, haproxy: HaproxyServer) -> None:
        mapping = loopback_mapping(etcd.client_ports[0])
        self.file = folder / "topology.yml"
        self.file.write_text(yaml.safe_dump(mapping))
        self.topology = parse(mapping)
        self.haproxy = haproxy
        self._log = folder / "services.log"
        self._services: list[subprocess.Popen[bytes]] = []
        where = {f"STELE_CLUSTER_{each.name.upper()}": str(getattr(haproxy.places, each.name))
                 for each in fields(haproxy.places)}  # fmt: skip
        # No Ceph here, which its command is to find out at once
        self.environment = {**os.environ, **where, "COLUMNS": "200", "CEPH_CONF": str(folder / "none")}

    def serve(self, service: str) -> subprocess.Popen[bytes]:
        """Start a service of host a."""
        command = [*DIE_WITH_US, *COMMAND, service, "--topology", str(self.file), "--host", "a"]
        with self._log.open("ab") as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self._services.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command with this topology, to its end."""
        return subprocess.run(
            [*COMMAND, *arguments, "--topology", str(self.file)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def close(self) -> None:
        for process in self._services:
            process.kill()
            process.wait()


@pytest.fixture
def site(
    tmp_path: Path,
    etcd_servers: EtcdServers,
    haproxy: HaproxyServer,
    pki: Pki,
) -> Iterator[Site]:
    """etcd and HAProxy as host a's, nothing else yet."""
    found = Site(tmp_path, pki, etcd_servers, haproxy)
    topology = found.topology
    nodes = haproxy_text.nodes_of(topology)
    haproxy.start(haproxy_text.config(topology, topology.hosts[0], nodes, haproxy.places))
    yield found
    found.close()


@pytest.mark.cluster
def test_services_register_drain_and_stop(site: Site) -> None:
    ports = site.topology.ports
    node = StandIn("a", (ports.node_dicom, ports.node_http))
    other = StandIn("b")
    follower, registrar = site.serve("agent"), site.serve("register")
    try:
        wait_until(lambda: who_answers(ports.dicom) == "a", 20, "the node takes traffic")

        refused = site.run("drain", "a")
        assert refused.returncode == 1
        assert refused.stderr == "stele-cluster: a: no other node takes work\n"

        _register(site, other)
        wait_until(lambda: {who_answers(ports.dicom) for _ in range(4)} == {"a", "b"}, 10, "b joins")
        associations = [Client(ports.dicom) for _ in range(2)]
        (own,) = [each for each in associations if each.line() == "a"]
        busy = site.run("drain", "a", "--seconds", "3")
        assert busy.returncode == 1
        assert "a: 1 associations are open" in busy.stderr
        assert "a: 1 associations are still open after 3 s" in busy.stderr
        assert own.say("still here") == "still here"
        assert {who_answers(ports.dicom) for _ in range(4)} == {"b"}
        own.close()
        drained = site.run("drain", "a", "--seconds", "20")
        assert (drained.returncode, drained.stdout) == (0, "a is drained\n"), drained.stderr
        seen = json.loads(site.run("status", "--json").stdout)
        assert {each["name"]: each["draining"] for each in seen["nodes"]} == {"a": True, "b": False}

        assert site.run("undrain", "a").stdout == "a takes work again\n"
        assert site.run("undrain", "a").stdout == "a was not draining\n"
        wait_until(lambda: {who_answers(ports.dicom) for _ in range(4)} == {"a", "b"}, 10, "a is back")

        registrar.send_signal(signal.SIGTERM)
        assert registrar.wait(10) == 0
        wait_until(lambda: {who_answers(ports.dicom) for _ in range(4)} == {"b"}, 5, "a has left")
        follower.send_signal(signal.SIGTERM)
        assert follower.wait(10) == 0
        assert {who_answers(ports.dicom) for _ in range(4)} == {"b"}, "HAProxy needs no agent to serve"
    finally:
        node.die()
        other.die()


@pytest.mark.cluster
def test_the_agent_tells_where_the_virtual_ip_is_and_when_certificates_end(site: Site) -> None:
    """Of three hosts' servers only etcd on host a and HAProxy, which listens on all addresses, run."""
    site.serve("agent")
    ports = site.topology.ports
    url = f"http://127.0.0.1:{ports.agent}/metrics"

    def told() -> dict[tuple[str, str], float]:
        try:
            text = plain().get(url, timeout=5).text
        except requests.RequestException:
            return {}
        samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
        assert {each.value for each in samples if each.name == "stele_agent_virtual_ip_held"} == {1}
        return {
            (each.labels["server"], each.labels["service"]): each.value
            for each in samples
            if each.name == "stele_certificate_end_timestamp_seconds"
        }

    def known() -> bool:
        return len(told()) == len(presented)

    presented = {("a", "etcd"), *((name, service) for name in "abc" for service in ("haproxy", "https"))}
    wait_until(known, 20, "certificates are looked at")
    assert told().keys() == presented
    ends = certificates.end_of(ssl.PEM_cert_to_DER_cert(Path(site.haproxy.places.certificate).read_text()))
    assert ends is not None
    assert told()["b", "haproxy"] == ends.timestamp()


def test_what_is_no_address_of_this_host_is_not_held() -> None:
    assert agent.holds("127.0.0.100")
    assert agent.holds("::1")
    assert not agent.holds("192.0.2.1")
    assert not agent.holds("2001:db8::1")


@pytest.mark.cluster
def test_who_presents_nothing_any_more_is_left_out(
    haproxy: HaproxyServer, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in fields(haproxy.places):
        monkeypatch.setenv(f"STELE_CLUSTER_{each.name.upper()}", str(getattr(haproxy.places, each.name)))
    topology = parse(loopback_mapping(server_port()))
    haproxy.start(haproxy_text.config(topology, topology.hosts[0], (), haproxy.places))
    metric = "stele_certificate_end_timestamp_seconds"
    labels = {"server": "a", "service": "https"}
    expiry.look(topology)
    assert REGISTRY.get_sample_value(metric, labels) is not None
    haproxy.close()
    expiry.look(topology)
    assert REGISTRY.get_sample_value(metric, labels) is None


def _register(site: Site, standin: StandIn) -> None:
    from cluster import registry
    from cluster.etcd import Etcd
    from cluster.tls import Identity

    places = site.haproxy.places
    endpoint = f"https://127.0.0.1:{site.topology.ports.etcd_client}"
    etcd = Etcd([endpoint], Identity(places.ca, places.certificate, places.key).session())
    etcd.put(registry.nodes_prefix(site.topology.cluster) + standin.name, registry.encode(standin.node))


@pytest.mark.cluster
def test_status_tells_what_is_there_and_what_is_not(site: Site) -> None:
    """Of three hosts' services only host a's etcd and HAProxy run."""
    require("ceph")
    told = site.run("status")
    assert told.returncode == 1
    for line in (
        "etcd: b does not answer",
        "postgres: no Patroni answers",
        "ceph: no answer: ",
        "node: c is not registered",
    ):
        assert line in told.stdout, told.stdout
    assert "etcd: a does not answer" not in told.stdout
    assert "haproxy: a does not answer" not in told.stdout
    seen: dict[str, Any] = json.loads(site.run("status", "--json").stdout)
    assert seen["etcd"]["a"]["leader"] is True
    assert seen["etcd"]["b"] is None
    assert seen["haproxies"]["a"] is True
    assert seen["primary"] is None
    assert seen["holder"] == "a", "the virtual IP is on loopback, too"
    ends = {(each["host"], each["service"]): each["ends"] for each in seen["certificates"]}
    assert ends["a", "etcd"] is not None
    assert any("certificate: etcd of a ends in 29 days" in trouble for trouble in seen["troubles"])

    assert site.run("rollout").stdout.split() == ["b", "c", "a"], "the holder of the virtual IP goes last"
    refused = site.run("rollout", "--host", "a")
    assert refused.returncode == 1
    assert "a may not go down: etcd: 0 of 3 would be up, 2 needed" in refused.stderr

    waited = site.run("whole", "--seconds", "1")
    assert waited.returncode == 1
    assert "stele-cluster: not whole after 1 s: a: some tier does not answer" in waited.stderr
    assert "ceph: not every placement group" in waited.stderr


@pytest.mark.cluster
def test_without_etcd_operators_are_told_so(site: Site, etcd_servers: EtcdServers) -> None:
    etcd_servers.stop(0)
    told = site.run("drain", "a")
    assert told.returncode == 1
    assert told.stderr.startswith("stele-cluster: https://127.0.0.")
    assert "Traceback" not in told.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "topology.yml"
    path.write_text(yaml.safe_dump(three_hosts()))
    return str(path)


def test_every_file_of_a_host_is_written_with_a_manifest(file: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("render", "--topology", file, "--host", "a", "--out", str(out)).returncode == 0
    manifest = json.loads((out / "manifest.json").read_text())
    written = {"/" + str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {each["path"] for each in manifest} | {"/manifest.json"} == written
    for each in manifest:
        assert (out / each["path"][1:]).stat().st_mode & 0o777 == int(each["mode"], 8)
    assert (out / PLACES.topology[1:]).read_text() == Path(file).read_text()
    assert [each["path"] for each in manifest if each["once"]] == [PLACES.haproxy_config]

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "manifest.json"}
    assert run("render", "--topology", file, "--host", "a", "--out", str(out)).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing is written twice"


def test_one_tier_is_printed(file: str) -> None:
    told = run("render", "--topology", file, "--host", "b", "--tier", "etcd").stdout
    assert "# --- /etc/default/etcd\nETCD_NAME=b\n" in told
    assert "patroni" not in told.lower().replace("which patroni and stele use", "")


def test_members_are_planned_from_what_tools_say(file: str) -> None:
    told = json.dumps(gathered())

    def plan(*arguments: str, told: str = told) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "membership", *arguments, "--topology", file]
        return subprocess.run(command, input=told, capture_output=True, text=True, timeout=60, check=False)

    refused = plan("replace", "b")
    assert refused.returncode == 1
    assert "stele-cluster: c: has no data, too; one after the other\n" in refused.stderr
    assert plan("replace").returncode == 2
    assert "standard input: KeyError" in plan("add", told="{}").stderr
    added = plan("add")
    assert (added.returncode, json.loads(added.stdout)["joining"]) == (0, ["b", "c"]), added.stderr
    assert "etcd: without b, 0 of 0 voters answer and 1 must" in plan("remove", "b").stderr


def test_the_topology_is_checked_and_explained(file: str) -> None:
    assert run("topology", "--topology", file).stdout == "example: 3 hosts, all is well\n"
    assert "any one host may fail at once" in run("topology", "--topology", file, "--explain").stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cluster: [", "while parsing"),
        ("- a\n", "no mapping of names to values"),
        ("cluster: x\n", "version: missing; write the release of Stele to run"),
    ],
)
def test_a_wrong_file_is_refused_in_lines(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "topology.yml"
    path.write_text(text)
    done = run("topology", "--topology", str(path))
    assert done.returncode == 2
    assert told in done.stderr
    assert all(line.startswith("stele-cluster: ") for line in done.stderr.splitlines())


def test_an_unknown_host_or_file_is_told(file: str) -> None:
    done = run("render", "--topology", file, "--host", "z")
    assert (done.returncode, done.stderr) == (2, "stele-cluster: z: no such host; there are a, b, c\n")
    done = run("topology", "--topology", "/nowhere.yml")
    assert (done.returncode, done.stderr) == (2, "stele-cluster: /nowhere.yml: No such file or directory\n")


def test_who_has_no_certificate_is_told(file: str) -> None:
    done = run("status", "--topology", file)
    assert done.returncode == 1
    assert done.stderr == (
        "stele-cluster: /etc/stele/pki/ca.crt: cannot be read; run this on a host of the cluster, as root\n"
    )
