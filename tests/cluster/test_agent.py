"""HAProxy follows the registered nodes: joining, draining, leaving, and what happens without etcd."""

import threading
import time
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from cluster import registry
from tests.cluster.front import Front
from tests.cluster.standin import Client, StandIn, who_answers
from tests.support import wait_until

pytestmark = pytest.mark.cluster
JOIN_SECONDS = 5.0
KNOCK_SECONDS = 0.01
MakeStandIn = Callable[[str], StandIn]


def answering(front: Front, tries: int = 6) -> set[str]:
    """Who answers several connections in a row."""
    return {who_answers(front.topology.ports.dicom) for _ in range(tries)}


def joined(front: Front, standin: StandIn) -> float:
    """Register a stand-in; seconds until it takes traffic."""
    begun = time.monotonic()
    front.register(standin)
    wait_until(lambda: standin.name in answering(front, 3), JOIN_SECONDS, f"{standin.name} takes traffic")
    return time.monotonic() - begun


def test_a_node_that_joins_takes_traffic_within_five_seconds(front: Front, standins: MakeStandIn) -> None:
    first, second = standins("n1"), standins("n2")
    assert joined(front, first) < JOIN_SECONDS
    assert joined(front, second) < JOIN_SECONDS
    assert answering(front) == {"n1", "n2"}
    assert {connection.source for connection in first.connections} == {"127.0.0.1"}


def test_a_node_that_is_not_ready_does_not_join(front: Front, standins: MakeStandIn) -> None:
    ready, unready = standins("n1"), standins("n2")
    unready.ready = False
    front.register(unready)
    joined(front, ready)
    assert not front.has("n2")
    unready.ready = True
    wait_until(lambda: "n2" in answering(front, 3), JOIN_SECONDS, "n2 takes traffic")


def test_a_node_that_drains_finishes_what_it_has(front: Front, standins: MakeStandIn) -> None:
    for name in ("n1", "n2"):
        joined(front, standins(name))
    associations = [Client(front.topology.ports.dicom) for _ in range(4)]
    names = [each.line() for each in associations]
    assert set(names) == {"n1", "n2"}
    begun = time.monotonic()
    front.etcd.put(registry.drain_key(front.topology.cluster, "n1"), "{}")
    wait_until(lambda: answering(front) == {"n2"}, JOIN_SECONDS, "n1 gets nothing new")
    assert time.monotonic() - begun < JOIN_SECONDS
    assert [each.say("still here") for each in associations] == ["still here"] * 4
    assert front.has("n1"), "what it has goes on, under the eyes of the health checks"
    front.etcd.delete(registry.drain_key(front.topology.cluster, "n1"))
    wait_until(lambda: answering(front) == {"n1", "n2"}, JOIN_SECONDS, "n1 is back")
    assert [each.say("and after that") for each in associations] == ["and after that"] * 4


def test_all_draining_is_none_draining(front: Front, standins: MakeStandIn) -> None:
    joined(front, standins("n1"))
    front.etcd.put(registry.drain_key(front.topology.cluster, "n1"), "{}")
    other = front.client()
    key = registry.nodes_prefix(front.topology.cluster) + "n1"
    wait_until(lambda: '"draining": true' in (other.get(key) or ""), 5, "it is registered as draining")
    joined(front, standins("n2"))
    wait_until(lambda: answering(front) == {"n2"}, JOIN_SECONDS, "with another there, n1 drains")
    front.unregister("n2")
    wait_until(lambda: answering(front, 3) == {"n1"}, JOIN_SECONDS, "alone, n1 serves")


def test_a_node_whose_lease_dies_leaves(front: Front, standins: MakeStandIn) -> None:
    alive, dead = standins("n1"), standins("n2")
    joined(front, alive)
    joined(front, dead)
    dead.die()
    begun = time.monotonic()
    wait_until(lambda: answering(front) == {"n1"}, 4, "no more traffic for the dead")
    assert front.has("n2"), "health checks are faster than the lease"
    wait_until(lambda: not front.has("n2"), 20, "n2 has left the configuration")
    assert time.monotonic() - begun < 15


def test_a_registrar_tells_that_its_node_is_dead(front: Front, standins: MakeStandIn) -> None:
    def registered() -> float | None:
        return REGISTRY.get_sample_value("stele_register_registered")

    node = standins("n1")
    joined(front, node)
    assert registered() == 1
    node.live = False
    wait_until(lambda: registered() == 0, 5, "the registrar tells")
    node.live = True
    wait_until(lambda: registered() == 1, 5, "it is registered again")


def test_a_node_that_stops_leaves_at_once(front: Front, standins: MakeStandIn) -> None:
    for name in ("n1", "n2"):
        joined(front, standins(name))
    front.unregister("n2")
    wait_until(lambda: answering(front) == {"n1"}, 3, "n2 gets nothing more")
    assert not front.has("n2")


def test_without_etcd_the_last_good_configuration_stays(front: Front, standins: MakeStandIn) -> None:
    for name in ("n1", "n2"):
        joined(front, standins(name))
    before = front.config()
    front.servers.stop(0)
    until = time.monotonic() + 12  # longer than the leases
    while time.monotonic() < until:
        assert answering(front, 2) <= {"n1", "n2"}
    assert front.config() == before
    front.servers.start()
    assert joined(front, standins("n3")) < 10
    wait_until(lambda: answering(front, 9) == {"n1", "n2", "n3"}, 10, "all serve")


def test_an_empty_registry_empties_nothing(front: Front, standins: MakeStandIn) -> None:
    for name in ("n1", "n2"):
        joined(front, standins(name))
    prefix = registry.nodes_prefix(front.topology.cluster)
    front.unregister("n2")
    wait_until(lambda: answering(front) == {"n1"}, 3, "n2 has left")
    front.unregister("n1")
    wait_until(lambda: not front.etcd.prefix(prefix).values, 3, "nobody is registered")
    until = time.monotonic() + 7  # a resynchronization and more
    while time.monotonic() < until:
        assert answering(front, 1) == {"n1"}
    assert front.has("n1")


def test_the_agent_remembers_across_its_restart(front: Front, standins: MakeStandIn) -> None:
    joined(front, standins("n1"))
    front.stop_agent()
    front.unregister("n1")
    front.start_agent()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert answering(front, 1) == {"n1"}


@pytest.mark.parametrize(
    "value",
    [
        "not JSON",
        "{}",
        '{"name": "n9", "address": "127.0.0.1\\n    server evil 192.0.2.1:1", "dicom_port": 1, '
        '"http_port": 2, "version": "1"}',
        '{"name": "n1 check\\n", "address": "127.0.0.1", "dicom_port": 1, "http_port": 2, "version": "1"}',
        '{"name": "n9", "address": "127.0.0.1", "dicom_port": "1 evil", "http_port": 2, "version": "1"}',
        '{"name": "n9", "address": "127.0.0.1", "dicom_port": 1, "http_port": 70000, "version": "1"}',
        '{"name": "other", "address": "127.0.0.1", "dicom_port": 1, "http_port": 2, "version": "1"}',
        '{"name": "n9", "address": "127.0.0.1", "dicom_port": true, "http_port": 2, "version": "1"}',
    ],
)
def test_what_is_no_registration_is_ignored(value: str) -> None:
    with pytest.raises(registry.NotANode):
        registry.decode("/stele/x/nodes/n9", value)


def test_a_bad_registration_does_not_keep_the_good_ones_out(front: Front, standins: MakeStandIn) -> None:
    front.etcd.put(registry.nodes_prefix(front.topology.cluster) + "n9", "not JSON")
    joined(front, standins("n1"))
    assert not front.has("n9")


def test_a_reload_in_mid_transfer_drops_nothing(front: Front, standins: MakeStandIn) -> None:
    """Long transfers and new connections go on while nodes come and go, with a reload each time."""
    joined(front, standins("n1"))
    port = front.topology.ports.dicom
    failures: list[str] = []
    counts = [0, 0]
    over = threading.Event()

    def transfer() -> None:
        client = Client(port)
        if client.line() != "n1":
            failures.append("not connected")
        block = b"x" * 65535 + b"\n"
        while not over.is_set():
            client.socket.sendall(block)
            if len(client.line()) != 65535:
                failures.append("a transfer broke off")
                return
            counts[0] += 1

    def knock() -> None:
        while not over.wait(KNOCK_SECONDS):
            try:
                client = Client(port)
                if not client.line():
                    failures.append("a connection was closed")
                client.close()
            except OSError as error:
                failures.append(f"a connection failed: {error}")
            counts[1] += 1

    threads = [threading.Thread(target=work, daemon=True) for work in (transfer, transfer, knock, knock)]
    for thread in threads:
        thread.start()
    workers = front.haproxy.workers()
    for _ in range(3):
        joined(front, standins("n2"))
        front.unregister("n2")
        wait_until(lambda: answering(front) == {"n1"}, 5, "n2 gets nothing more")
    young = front.haproxy.workers()
    over.set()
    for thread in threads:
        thread.join(20)
    assert not failures
    assert workers < young, "HAProxy has reloaded, and the worker with the transfers is still there"
    assert counts[0] > 20
    assert counts[1] > 20
