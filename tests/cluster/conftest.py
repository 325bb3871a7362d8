"""Certificates and servers for the cluster's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.etcd import Etcd
from tests.cluster.servers import EtcdServers, HaproxyServer, Pki
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
