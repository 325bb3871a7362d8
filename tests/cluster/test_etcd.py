"""The etcd client on real servers with mutual TLS."""

import signal
import threading
import time

import pytest
import requests

from cluster.etcd import Etcd, Refused, Unavailable
from tests.cluster.servers import EtcdServers, Pki
from tests.support import wait_until

pytestmark = pytest.mark.cluster


def test_what_is_written_is_read(etcd: Etcd) -> None:
    etcd.put("/t/a", "1")
    etcd.put("/t/b", "ä\n2")
    etcd.put("/tt", "not below it")
    found = etcd.prefix("/t/")
    assert found.values == {"/t/a": "1", "/t/b": "ä\n2"}
    assert etcd.get("/t/b") == "ä\n2"
    assert etcd.get("/t/c") is None
    assert etcd.delete("/t/a")
    assert not etcd.delete("/t/a")
    assert etcd.prefix("/t/").revision > found.revision


def test_a_lease_takes_its_keys_along(etcd: Etcd) -> None:
    lease = etcd.grant(2)
    etcd.put("/t/leased", "x", lease)
    assert etcd.keep_alive(lease)
    etcd.revoke(lease)
    assert etcd.get("/t/leased") is None
    assert not etcd.keep_alive(lease)
    etcd.revoke(lease)
    with pytest.raises(Refused):
        etcd.put("/t/leased", "x", lease)


def test_a_lease_that_nobody_keeps_runs_out(etcd: Etcd) -> None:
    etcd.put("/t/leased", "x", etcd.grant(1))
    wait_until(lambda: etcd.get("/t/leased") is None, 5, "the lease ran out")


def test_a_transaction_notices_what_was_written_meanwhile(etcd: Etcd) -> None:
    before = etcd.prefix("/t/")
    etcd.put("/elsewhere", "does not matter")
    assert etcd.put_if_unchanged("/t/a", "1", before, "/t/")
    assert not etcd.put_if_unchanged("/t/b", "2", before, "/t/")
    assert etcd.prefix("/t/").values == {"/t/a": "1"}


def test_a_watch_ends_at_a_change_or_in_silence(etcd_servers: EtcdServers, pki: Pki, etcd: Etcd) -> None:
    before = etcd.prefix("/t/")
    begun = time.monotonic()
    assert not etcd.watch("/t/", before, 0.5)
    assert 0.4 < time.monotonic() - begun < 2
    other = Etcd(etcd_servers.endpoints, pki.identity.session())
    writing = threading.Timer(0.3, lambda: other.put("/t/a", "1"))
    writing.start()
    begun = time.monotonic()
    assert etcd.watch("/t/", before, 5)
    assert time.monotonic() - begun < 2
    writing.join()
    assert etcd.watch("/t/", before, 5), "what happened before the watch began counts"


def test_the_death_of_a_member_is_got_over(three_etcd_servers: EtcdServers, pki: Pki) -> None:
    etcd = Etcd(three_etcd_servers.endpoints, pki.identity.session())
    etcd.put("/t/a", "1")
    three_etcd_servers.stop(0)
    begun = time.monotonic()
    wait_until(lambda: _can_write(etcd), 10, "writes go on")
    assert time.monotonic() - begun < 5
    three_etcd_servers.stop(1, signal.SIGSTOP)
    with pytest.raises(Unavailable):
        etcd.get("/t/a")
    three_etcd_servers.stop(1, signal.SIGCONT)
    wait_until(lambda: _can_write(etcd), 10, "writes go on")
    assert etcd.get("/t/a") == "2"


def _can_write(etcd: Etcd) -> bool:
    try:
        etcd.put("/t/a", "2")
    except Unavailable:
        return False
    return True


def test_members_tell_who_leads(three_etcd_servers: EtcdServers, pki: Pki) -> None:
    etcd = Etcd(three_etcd_servers.endpoints, pki.identity.session())
    told = [etcd.member_status(endpoint) for endpoint in three_etcd_servers.endpoints]
    assert [each.name for each in told] == ["m0", "m1", "m2"]
    assert sum(each.leader for each in told) == 1
    assert all(each.size > 0 and each.version.startswith("3.") for each in told)


def test_nobody_without_a_certificate_of_ours_gets_in(etcd_servers: EtcdServers, pki: Pki) -> None:
    session = requests.Session()
    session.verify = pki.path("ca.crt")
    session.cert = (pki.path("intruder.crt"), pki.path("intruder.key"))
    with pytest.raises(Unavailable):
        Etcd(etcd_servers.endpoints, session).get("/t/a")
