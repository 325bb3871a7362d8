"""What reaches a node through HAProxy, and what does not."""

import hashlib
import http.client
import os
import select
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from cluster.haproxy import Haproxy, HaproxyFailed
from cluster.parse import parse
from cluster.render import haproxy as haproxy_text
from cluster.topology import Topology
from tests.cluster.front import loopback_mapping
from tests.cluster.servers import HaproxyServer, Pki
from tests.cluster.standin import REQUEST, Client, StandIn, who_answers
from tests.support import wait_until

pytestmark = pytest.mark.cluster


class Balanced:
    """HAProxy in front of two stand-ins, n1 and n2."""

    def __init__(self, haproxy: HaproxyServer, pki: Pki, standins: list[StandIn]) -> None:
        self.haproxy, self.pki, self.standins = haproxy, pki, standins
        self.topology: Topology = parse(loopback_mapping())
        self.ports = self.topology.ports

    def config(self) -> str:
        nodes = [each.node for each in self.standins]
        return haproxy_text.config(self.topology, self.topology.hosts[0], nodes, self.haproxy.places)

    def start(self) -> None:
        self.haproxy.start(self.config())
        wait_until(lambda: self.answering() == {"n1", "n2"}, 10, "both stand-ins serve")
        self.forget()

    def answering(self, tries: int = 6) -> set[str]:
        return {who_answers(self.ports.dicom) for _ in range(tries)}

    def forget(self) -> None:
        for each in self.standins:
            each.connections.clear()
            each.requests.clear()

    @property
    def came(self) -> list[bytes]:
        """What has reached a DICOM port since `forget`."""
        return [bytes(found.data) for each in self.standins for found in each.connections]

    def web(self, method: str = "GET", path: str = "/", **arguments: Any) -> requests.Response:
        """A request by HTTPS; the site's certificate is checked."""
        session = requests.Session()
        session.trust_env = False
        url = f"https://localhost:{self.ports.https}{path}"
        return session.request(method, url, verify=self.pki.path("ca.crt"), timeout=15, **arguments)


@pytest.fixture
def balanced(
    haproxy: HaproxyServer,
    pki: Pki,
    standins: Callable[[str], StandIn],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Balanced]:
    """HAProxy with two stand-ins behind it, both serving."""
    monkeypatch.setattr(haproxy_text, "INSPECT_SECONDS", 1)
    whole = Balanced(haproxy, pki, [standins("n1"), standins("n2")])
    whole.start()
    yield whole


# --- DICOM ---


def test_a_request_arrives_whole_with_its_source(balanced: Balanced) -> None:
    client = Client(balanced.ports.dicom, first=REQUEST + b"more")
    assert client.line() in ("n1", "n2")
    assert balanced.came == [REQUEST + b"more"]
    assert {found.source for each in balanced.standins for found in each.connections} == {"127.0.0.1"}


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: archive\r\n\r\n" + b"x" * 100,
        b"\x16\x03\x01\x02\x00" + bytes(100),  # TLS on the plain port
        b"\x04\x00" + bytes(100),  # P-DATA first
        b"\x01\x01" + bytes(100),
        b"\x0b\x00" + bytes(20),  # MLLP
    ],
    ids=["http", "tls", "p-data", "reserved byte", "mllp"],
)
def test_what_is_no_association_request_is_closed_at_once(balanced: Balanced, first: bytes) -> None:
    begun = time.monotonic()
    assert Client(balanced.ports.dicom, first=first).line() == ""
    assert time.monotonic() - begun < 1
    assert balanced.came == []


@pytest.mark.parametrize("first", [b"", b"\x01", REQUEST[:6], REQUEST[:-1]], ids=len)
def test_a_half_open_connection_is_closed_in_time(balanced: Balanced, first: bytes) -> None:
    begun = time.monotonic()
    assert Client(balanced.ports.dicom, first=first).line() == ""
    assert time.monotonic() - begun < 3
    assert balanced.came == []


def test_trickled_bytes_gain_no_time(balanced: Balanced) -> None:
    client = Client(balanced.ports.dicom, first=b"")
    begun = time.monotonic()
    with pytest.raises(OSError):
        for byte in REQUEST * 2:
            client.socket.sendall(bytes([byte]))
            client.socket.settimeout(0.1)
            try:
                if client.socket.recv(1) == b"":
                    raise ConnectionResetError
            except TimeoutError:
                continue
    assert time.monotonic() - begun < 3
    assert balanced.came == []


def test_half_open_connections_keep_nobody_out(balanced: Balanced) -> None:
    halves = [Client(balanced.ports.dicom, first=REQUEST[:3]) for _ in range(100)]
    begun = time.monotonic()
    assert balanced.answering() == {"n1", "n2"}
    assert time.monotonic() - begun < 1
    assert [half.line() for half in halves] == [""] * 100


def test_one_address_cannot_take_all_connections(balanced: Balanced) -> None:
    half = balanced.topology.connections // 2
    many = [Client(balanced.ports.dicom) for _ in range(half + 50)]
    served = [client for client in many if client.line()]
    assert len(served) < half + 10
    assert who_answers(balanced.ports.dicom, source="127.0.0.9") != ""
    for client in served:
        client.close()
    wait_until(lambda: who_answers(balanced.ports.dicom) != "", 5, "there is room again")


def tls(pki: Pki, name: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=pki.path("ca.crt"))
    if name:
        context.load_cert_chain(pki.path(f"{name}.crt"), pki.path(f"{name}.key"))
    return context


def secured(balanced: Balanced, context: ssl.SSLContext) -> str:
    """Who answers by DICOM TLS; "" if nobody does."""
    try:
        plain = socket.create_connection(("127.0.0.1", balanced.ports.dicom_tls), 5)
        with context.wrap_socket(plain, server_hostname="localhost") as connected:
            connected.settimeout(5)
            connected.sendall(REQUEST)
            return connected.recv(100).decode().strip()
    except (OSError, ssl.SSLError):
        return ""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_dicom_tls_ends_here_and_needs_a_certificate_of_the_site(balanced: Balanced) -> None:
    assert secured(balanced, tls(balanced.pki, "modality")) in ("n1", "n2")
    assert balanced.came == [REQUEST]
    balanced.forget()
    assert secured(balanced, tls(balanced.pki, None)) == ""
    assert secured(balanced, tls(balanced.pki, "intruder")) == ""
    old = tls(balanced.pki, "modality")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    assert secured(balanced, old) == ""
    assert balanced.came == []


def test_a_node_is_told_whose_certificate_it_was(balanced: Balanced) -> None:
    """HAProxy 2.9 and newer; an older one tells nothing, so that AEs bound to a certificate are refused."""
    version = subprocess.run(["haproxy", "-v"], check=True, capture_output=True, text=True).stdout.split()[2]
    tells = tuple(int(part) for part in version.split(".")[:2]) >= (2, 9)
    pem = Path(balanced.pki.path("modality.crt")).read_text()
    own = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    assert secured(balanced, tls(balanced.pki, "modality"))
    assert who_answers(balanced.ports.dicom)
    told = [found.certificate for each in balanced.standins for found in each.connections]
    assert sorted(told, key=str) == sorted([None, own if tells else None], key=str)


def test_the_first_look_holds_behind_tls_too(balanced: Balanced) -> None:
    plain = socket.create_connection(("127.0.0.1", balanced.ports.dicom_tls), 5)
    with tls(balanced.pki, "modality").wrap_socket(plain, server_hostname="localhost") as connected:
        connected.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(100))
        connected.settimeout(5)
        assert connected.recv(100) == b""
    assert balanced.came == []


# --- Health ---


def test_who_is_not_ready_gets_nothing_and_loses_what_it_has(balanced: Balanced) -> None:
    associations = [Client(balanced.ports.dicom) for _ in range(4)]
    names = [each.line() for each in associations]
    first = balanced.standins[0]
    first.ready = False
    begun = time.monotonic()
    wait_until(lambda: balanced.answering() == {"n2"}, 5, "n1 gets nothing")
    assert time.monotonic() - begun < 5
    for name, association in zip(names, associations, strict=True):
        assert association.line() == "" if name == "n1" else association.say("on") == "on"
    first.ready = True
    wait_until(lambda: "n1" in balanced.answering(), 6, "n1 is back")


def test_with_nobody_ready_who_lives_answers(balanced: Balanced) -> None:
    """So that the node itself refuses what it cannot store, and reads go on."""
    for each in balanced.standins:
        each.ready = False
    wait_until(lambda: "UP" not in states(balanced, "dicom"), 6, "nobody is ready")
    assert balanced.answering() == {"n1", "n2"}
    assert balanced.web().status_code == 200
    balanced.standins[0].live = False
    wait_until(lambda: balanced.answering() == {"n2"}, 6, "only n2 lives")
    balanced.standins[0].ready = balanced.standins[0].live = True
    wait_until(lambda: "UP" in states(balanced, "dicom"), 6, "n1 is ready")
    assert balanced.answering() == {"n1"}


def states(balanced: Balanced, backend: str) -> set[str]:
    rows = [row.split(",") for row in Haproxy(balanced.haproxy.places).command("show stat").splitlines()]
    return {
        row[17].split(" ")[0] for row in rows if row[0] == backend and row[1] not in ("BACKEND", "FRONTEND")
    }


def test_a_dead_node_costs_no_connection(balanced: Balanced) -> None:
    """What was not connected is tried on the other one, before any health check has noticed."""
    balanced.standins[0].die()
    assert balanced.answering(20) == {"n2"}


# --- Web ---


def test_https_reaches_a_node_with_the_clients_address(balanced: Balanced) -> None:
    forged = {"X-Forwarded-For": "192.0.2.66", "X-Forwarded-Proto": "http", "Forwarded": "for=192.0.2.66"}
    answer = balanced.web(headers=forged)
    assert answer.text in ("n1", "n2")
    assert answer.headers["Strict-Transport-Security"]
    ((source, head),) = [found for each in balanced.standins for found in each.requests]
    assert source == "127.0.0.1"
    assert b"x-forwarded-proto: https" in head.lower()
    assert b"192.0.2.66" not in head


def test_two_clients_never_share_a_connection_with_one_address(balanced: Balanced) -> None:
    for address in ("127.0.0.1", "127.0.0.9"):
        connection = http.client.HTTPSConnection(
            "localhost",
            balanced.ports.https,
            source_address=(address, 0),
            context=tls(balanced.pki, None),
            timeout=5,
        )
        for _ in range(2):
            connection.request("GET", "/")
            connection.getresponse().read()
    sources = sorted(source for each in balanced.standins for source, _ in each.requests)
    assert sources == ["127.0.0.1"] * 2 + ["127.0.0.9"] * 2


def test_an_idle_connection_outlives_a_reload(balanced: Balanced) -> None:
    """Closed at once, it would fail a request that is just on its way: it is ended with its next answer."""
    connection = http.client.HTTPSConnection(
        "localhost", balanced.ports.https, timeout=15, context=tls(balanced.pki, None)
    )
    connection.request("GET", "/")
    connection.getresponse().read()
    held = connection.sock
    Haproxy(balanced.haproxy.places).install(balanced.config() + "# another\n")
    assert select.select([held], [], [], 2)[0] == []
    connection.request("POST", "/", body=b"an image")
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    answer.read()


def test_http_2_is_offered(balanced: Balanced) -> None:
    context = tls(balanced.pki, None)
    context.set_alpn_protocols(["h2", "http/1.1"])
    plain = socket.create_connection(("127.0.0.1", balanced.ports.https), 5)
    with context.wrap_socket(plain, server_hostname="localhost") as connected:
        assert connected.selected_alpn_protocol() == "h2"


def test_plain_http_is_sent_to_https(balanced: Balanced) -> None:
    answer = requests.get(f"http://localhost:{balanced.ports.http}/x", timeout=5, allow_redirects=False)
    assert answer.status_code == 308
    assert answer.headers["Location"].startswith("https://localhost")


@pytest.mark.parametrize("path", ["/metrics", "/METRICS", "/%6detrics", "/metrics/x"])
def test_metrics_are_not_for_everybody(balanced: Balanced, path: str) -> None:
    connection = http.client.HTTPSConnection(
        "localhost", balanced.ports.https, context=tls(balanced.pki, None), timeout=5
    )
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    assert [each.requests for each in balanced.standins] == [[], []]


def test_a_post_that_was_sent_is_never_sent_again(balanced: Balanced) -> None:
    for each in balanced.standins:
        each.respond = False
    assert balanced.web("POST", "/studies", data=b"x" * 1000).status_code == 502
    assert sum(len(each.requests) for each in balanced.standins) == 1


# --- For the cluster itself ---


def inside(balanced: Balanced, path: str) -> requests.Response:
    session = balanced.pki.identity.session()
    return session.get(f"https://localhost:{balanced.ports.haproxy_internal}{path}", timeout=5)


def test_hosts_see_statistics_metrics_and_who_this_is(balanced: Balanced) -> None:
    assert inside(balanced, "/host").text == "a"
    metrics = inside(balanced, "/metrics").text
    assert 'haproxy_server_status{proxy="dicom",server="n1",state="UP"} 1' in metrics
    assert "n1" in inside(balanced, "/stats").text
    assert inside(balanced, "/node/n1/metrics").text == 'stele_associations{state="open"} 0\n'
    assert balanced.standins[0].requests[0][1].startswith(b"GET /metrics ")
    assert inside(balanced, "/node/n3/metrics").status_code in (403, 404, 503)
    assert inside(balanced, "/studies").status_code == 404


def test_nobody_else_does(balanced: Balanced) -> None:
    url = f"https://localhost:{balanced.ports.haproxy_internal}/host"
    with pytest.raises(requests.exceptions.RequestException):
        requests.get(url, verify=balanced.pki.path("ca.crt"), timeout=5)
    client = (balanced.pki.path("modality.crt"), balanced.pki.path("modality.key"))
    with pytest.raises(requests.exceptions.RequestException):
        requests.get(url, verify=balanced.pki.path("ca.crt"), cert=client, timeout=5)


def test_keepaliveds_script_tells_a_serving_haproxy_from_a_frozen_one(
    balanced: Balanced, tmp_path: Path
) -> None:
    from cluster.render.text import render

    script = tmp_path / "haproxy-alive"
    script.write_text(render("haproxy-alive.j2"))
    script.chmod(0o755)

    def alive() -> bool:
        return not subprocess.call([script, str(balanced.ports.haproxy_alive)], stderr=subprocess.DEVNULL)

    workers = [int(worker) for worker in balanced.haproxy.workers()]
    assert alive()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    assert not alive()
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    wait_until(alive, 5, "it answers again")
    balanced.haproxy.close()
    assert not alive()


# --- Loading a configuration ---


def test_a_wrong_configuration_is_refused_and_the_old_one_stays(balanced: Balanced) -> None:
    before = balanced.haproxy.workers()
    client = Haproxy(balanced.haproxy.places)
    with pytest.raises(HaproxyFailed, match="nonsense"):
        client.install(balanced.config() + "\nnonsense\n")
    assert client.installed() == balanced.config()
    assert balanced.haproxy.workers() == before
    assert balanced.answering() == {"n1", "n2"}


def test_what_passes_the_check_but_cannot_be_loaded_is_taken_back(balanced: Balanced) -> None:
    client = Haproxy(balanced.haproxy.places)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        unloadable = balanced.config() + f"\nfrontend x from web\n    bind 127.0.0.1:{port}\n"
        with pytest.raises(HaproxyFailed):
            client.install(unloadable)
    assert client.installed() == balanced.config()
    assert balanced.answering() == {"n1", "n2"}
    client.install(balanced.config())
    assert balanced.answering() == {"n1", "n2"}


def test_no_log_line_has_a_path_or_query(balanced: Balanced) -> None:
    balanced.web(path="/studies?PatientName=CANARY")
    wait_until(lambda: " GET 200 " in balanced.haproxy.log, 5, "the request is logged")
    assert "CANARY" not in balanced.haproxy.log
    assert "studies" not in balanced.haproxy.log
