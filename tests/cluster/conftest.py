"""Certificates and servers for the cluster's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.etcd import Etcd
from cluster.render import haproxy as haproxy_text
from tests.cluster.front import Front, running_front
from tests.cluster.servers import EtcdServers, HaproxyServer, Pki
from tests.cluster.standin import StandIn
from tests.support import require


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Certificates, made once."""
    require("openssl")
    return Pki(tmp_path_factory.mktemp("pki") / "pki")


@pytest.fixture
def etcd_servers(tmp_path: Path, pki: Pki) -> Iterator[EtcdServers]:
    """A single etcd member, running."""
    yield from _etcd(tmp_path, pki, 1)


@pytest.fixture
def three_etcd_servers(tmp_path: Path, pki: Pki) -> Iterator[EtcdServers]:
    """Three members, running."""
    yield from _etcd(tmp_path, pki, 3)


def _etcd(folder: Path, pki: Pki, members: int) -> Iterator[EtcdServers]:
    require("etcd")
    servers = EtcdServers(folder / "etcd", pki, members)
    try:
        servers.start()
        yield servers
    finally:
        servers.close()


@pytest.fixture
def etcd(etcd_servers: EtcdServers, pki: Pki) -> Iterator[Etcd]:
    """A client of the single member."""
    client = Etcd(etcd_servers.endpoints, pki.identity.session())
    yield client
    client.close()


@pytest.fixture
def haproxy(tmp_path: Path, pki: Pki) -> Iterator[HaproxyServer]:
    """A HAProxy that is not started yet."""
    require("haproxy")
    server = HaproxyServer(tmp_path / "haproxy", pki)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def front(
    etcd_servers: EtcdServers, haproxy: HaproxyServer, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Front]:
    """etcd, HAProxy and the agent, running; no node yet. Less patience than on a host: tests wait for it."""
    monkeypatch.setattr(haproxy_text, "INSPECT_SECONDS", 1)
    with running_front(etcd_servers, haproxy, pki) as running:
        yield running


@pytest.fixture
def standins() -> Iterator[Callable[[str], StandIn]]:
    """Makes stand-in nodes, which die with the test."""
    made: list[StandIn] = []

    def make(name: str) -> StandIn:
        made.append(StandIn(name))
        return made[-1]

    yield make
    for each in made:
        each.die()
