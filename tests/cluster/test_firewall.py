"""The firewall: what a tier's port is open to, and that nft takes the rules."""

import subprocess
from pathlib import Path

from cluster import render
from cluster.render.firewall import EVERYBODY, openings
from tests.cluster.example import eleven_hosts, topology
from tests.support import require


def test_clients_come_to_the_virtual_ips_ports_and_nowhere_else() -> None:
    large = topology(eleven_hosts())
    for host in large.hosts:
        open_to_all = {port for port, callers in openings(large, host) if callers == EVERYBODY}
        assert open_to_all == ({"11112", "443", "80"} if "haproxy" in host.tiers else set())


def test_a_port_is_open_to_the_tiers_that_talk_to_it() -> None:
    large = topology(eleven_hosts())
    database = dict(openings(large, large.host("db1")))
    assert database["2380"] == ("etcd",)
    assert set(database["5432"]) == {"postgres", "node"}
    assert database["8432"] == ("backup",)
    assert "6800-7568" not in database
    assert set(dict(openings(large, large.host("osd4")))["6800-7568"]) >= {"ceph-osd", "node"}


def test_stele_cluster_reaches_every_tier_from_the_hosts_that_have_it() -> None:
    large = topology(eleven_hosts())
    ports = large.ports
    asked = {"db1": (ports.etcd_client, ports.patroni), "front1": (ports.haproxy_internal, ports.https)}
    for name, some in asked.items():
        opened = dict(openings(large, large.host(name)))
        for callers in (opened[str(port)] for port in some):
            assert callers == EVERYBODY or {"ceph-mon", "node", "haproxy"} <= set(callers)


def test_nft_takes_the_rules_of_every_host(tmp_path: Path) -> None:
    require("nft", needs_root=True)
    for each in (topology(), topology(eleven_hosts())):
        for host in each.hosts:
            [rules] = [file for file in render.files(each, host, "") if file.path == "/etc/nftables.conf"]
            path = tmp_path / f"{each.cluster}-{host.name}"
            path.write_text(rules.text)
            subprocess.run(["nft", "--check", "--file", path], check=True)
