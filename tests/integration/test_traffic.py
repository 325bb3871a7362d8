"""The chaos suite's traffic, read-back and judgement as programs, on a real archive."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import requests

from chaos import corpus, history
from chaos.history import Operation, Result
from chaos.readback.whole import load, save
from tests.archive import Archive, running_archive, start_archive
from tests.cluster.pki import make_ca, make_certificate
from tests.support import free_port, require, wait_until

pytestmark = [pytest.mark.peers, pytest.mark.slow]
PASSWORD = "correct horse battery staple"
SERVER_NAME = "archive.test"
_HAPROXY = """\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend web
    bind 127.0.0.1:{port} ssl crt {certificate}
    default_backend node
backend node
    server node 127.0.0.1:{node}
"""


@dataclass
class Done:
    """A program that has ended: exit code, its last line as JSON, all of its output."""

    code: int
    told: dict[str, object]
    text: str


def chaos(*arguments: str) -> Done:
    """A program of the suite, to its end."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    lines = done.stdout.splitlines()
    told = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Done(done.returncode, told, done.stdout + done.stderr)


def operations(path: Path) -> list[Operation]:
    return history.read([path]).operations if path.exists() else []


def acknowledged(path: Path) -> set[str]:
    return {each.uid for each in operations(path) if each.acknowledged}


# --- Everybody may ---


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    require("storescu", "getscu", "findscu")
    with running_archive(tmp_path_factory.mktemp("traffic") / "data") as running:
        yield running


def where(archive: Archive) -> list[str]:
    return ["--dicom", f"127.0.0.1:{archive.dicom_port}", "--http", archive.base_url]


def steady_traffic(archive: Archive, count: int, seed: int, recorded: Path) -> "subprocess.Popen[str]":
    """Thirty instances a second, in the background."""
    what = ("--count", str(count), "--rate", "30", "--seed", str(seed), "--history", str(recorded))
    return subprocess.Popen(
        [sys.executable, "-m", "chaos.traffic", *where(archive), *what], stdout=subprocess.PIPE, text=True
    )


def test_all_that_is_sent_is_read_back_and_judged(archive: Archive, tmp_path: Path) -> None:
    recorded, seen, other = tmp_path / "history.jsonl", tmp_path / "seen.json", tmp_path / "other.json"
    other_address = f"http://localhost:{archive.http_port}"
    sent = chaos(
        "chaos.traffic", *where(archive), "--read", archive.base_url, "--read", other_address,
        "--race-http", other_address, "--race-dicom", f"localhost:{archive.dicom_port}",
        "--count", "200", "--seed", "3", "--read-rate", "20", "--history", str(recorded),
    )  # fmt: skip
    assert sent.code == 0, sent.text
    assert (sent.told["finished"], sent.told["acknowledged"]) == (True, 200)
    done = operations(recorded)
    assert {each.client for each in done} >= {"dcmtk-1", "dcmtk-2", "pynetdicom", "stow", "racer-dicom"}
    nodes = {each.client: each.node for each in done}
    assert (nodes["reader-1"], nodes["reader-2"]) == (archive.base_url, other_address)
    assert nodes["racer-stow"] == other_address
    assert nodes["racer-dicom"] == f"localhost:{archive.dicom_port}"
    assert nodes["stow"] == archive.base_url
    assert {each.uid for each in done} == {each.uid for each in corpus.instances(3, 200)}
    contested = {each.uid for each in done if each.status == "C111"}
    assert len(contested) == 200 // corpus.INSTANCES_PER_RIVAL

    # Another seed's patients are asked for only with --whole
    others = chaos("chaos.traffic", *where(archive), "--count", "20", "--seed", "4",
                   "--history", str(tmp_path / "4.jsonl"))  # fmt: skip
    assert others.code == 0, others.text
    read = chaos(
        "chaos.readback", *where(archive), "--http", other_address, "--out", str(seen), str(recorded)
    )
    assert read.code == 0, read.text
    assert read.told.pop("unread") == []
    services = ("C-FIND", "C-GET", "QIDO-RS", "QIDO-RS", "WADO-RS", "WADO-RS")
    assert tuple(sorted(name.split()[0] for name in read.told)) == services
    assert set(read.told.values()) == {200}
    judged = chaos("chaos", "check", str(recorded), str(seen))
    assert judged.code == 0, judged.text

    whole = load(seen)
    next(iter(whole.retrieved.values())).popitem()
    save(whole, other)
    judged = chaos("chaos", "check", str(recorded), str(other))
    assert judged.code == 1
    assert "durable: 1 violations\n  lost: " in judged.text
    read = chaos("chaos.readback", *where(archive), "--whole", "--out", str(other), str(recorded))
    assert read.code == 0, read.text
    judged = chaos("chaos", "check", str(recorded), str(other))
    assert judged.code == 1
    assert ", never sent: " in judged.text
    assert "durable: holds" in judged.text
    judged = chaos("chaos", "check", str(recorded), str(tmp_path / "4.jsonl"), str(other))
    assert judged.code == 1, "the others were listed, but not retrieved"
    assert "once: holds" in judged.text
    (tmp_path / "log").write_text(f"stored {corpus.CANARY}^PATIENT\n")
    judged = chaos("chaos", "check", "--text", str(tmp_path / "log"), str(recorded), str(seen))
    assert judged.code == 1
    assert "silent: 1 violations" in judged.text


def test_a_steady_rate_goes_on_until_sigterm_and_ends_in_order(archive: Archive, tmp_path: Path) -> None:
    recorded = tmp_path / "history.jsonl"
    process = steady_traffic(archive, 3000, 7, recorded)
    try:
        wait_until(lambda: len(acknowledged(recorded)) > 90, 60, "three seconds of traffic")
    finally:
        process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=70)
    assert process.returncode == 0
    told = json.loads(output)
    assert told["finished"] is False
    assert told["acknowledged"] == len(acknowledged(recorded))
    times = sorted(each.returned for each in operations(recorded) if each.acknowledged)
    assert 20 < len(times) / (times[-1] - times[0]) < 40, "instances per second"
    assert max(later - earlier for earlier, later in pairwise(times)) < 2

    seen = tmp_path / "seen.json"
    assert chaos("chaos.readback", *where(archive), "--out", str(seen), str(recorded)).code == 0
    judged = chaos("chaos", "check", str(recorded), str(seen))
    assert judged.code == 0, f"every operation was noted, also those cut off\n{judged.text}"


def test_an_archive_that_goes_away_is_unknown_and_tried_until_it_is_back(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    recorded = tmp_path / "history.jsonl"
    archive = start_archive(tmp_path / "data", ports=ports)
    process = steady_traffic(archive, 300, 8, recorded)
    try:
        wait_until(lambda: len(acknowledged(recorded)) > 30, 60, "traffic")
        archive.stop()
        before = len(operations(recorded))
        wait_until(
            lambda: (
                {each.kind for each in operations(recorded)[before:] if each.result is Result.UNKNOWN}
                >= {"STOW-RS", "A-ASSOCIATE", "QIDO-RS"}
            ),
            30,
            "unknown outcomes",
        )
        archive = start_archive(tmp_path / "data", ports=ports)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        archive.stop()
    assert json.loads(output)["acknowledged"] == 300


# --- Behind authentication and TLS ---


@dataclass
class Closed:
    """An archive with accounts, DICOM TLS, and HAProxy with HTTPS before it; `pki` has the certificates."""

    archive: Archive
    tls_port: int
    https: str
    pki: Path

    def stele(self, *arguments: str, typed: str = "") -> str:
        command = [sys.executable, "-m", "node.cli", *arguments, "--data", str(self.archive.data)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, input=typed, timeout=60)
        return done.stdout

    def where(self) -> list[str]:
        return [
            "--dicom", f"127.0.0.1:{self.tls_port}", "--http", self.https,
            "--ca", str(self.pki / "ca.crt"), "--server-name", SERVER_NAME,
            "--tls-certificate", str(self.pki / "modality.crt"), "--tls-key", str(self.pki / "modality.key"),
        ]  # fmt: skip


@contextmanager
def https_before(folder: Path, port: int, certificate: Path) -> Iterator[str]:
    """HAProxy, as it ends TLS on a cluster; its URL."""
    require("haproxy")
    own = free_port()
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(port=own, node=port, certificate=certificate))
    process = subprocess.Popen(["haproxy", "-f", str(folder / "haproxy.cfg")])
    try:
        yield f"https://127.0.0.1:{own}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    require("storescu", "getscu", "findscu", "haproxy")
    folder = tmp_path_factory.mktemp("closed")
    make_ca(folder)
    for name in (SERVER_NAME, "modality"):
        make_certificate(folder, name)
    both = folder / "both.pem"
    both.write_text("".join((folder / f"{SERVER_NAME}.{kind}").read_text() for kind in ("crt", "key")))
    tls_port = free_port()
    environment = {
        "STELE_DICOM__TLS_PORT": str(tls_port),
        "STELE_DICOM__TLS_CERTIFICATE": str(folder / f"{SERVER_NAME}.crt"),
        "STELE_DICOM__TLS_KEY": str(folder / f"{SERVER_NAME}.key"),
        "STELE_DICOM__TLS_CLIENT_CA": str(folder / "ca.crt"),
    }
    with (
        running_archive(folder / "data", arguments=(), environment=environment) as running,
        https_before(folder, running.http_port, both) as https,
    ):
        made = Closed(running, tls_port, https, folder)
        made.stele("ae", "add", "CHAOS")
        yield made


@pytest.fixture(scope="module")
def credentials(closed: Closed) -> dict[str, str]:
    """A file for each way to prove who one is."""
    token, login = closed.pki / "token", closed.pki / "login"
    token.write_text(closed.stele("machine", "add", "chaos", "--role", "technologist").split()[-1] + "\n")
    closed.stele("user", "add", "person", "--role", "technologist", typed=f"{PASSWORD}\n{PASSWORD}\n")
    login.write_text(f"person:{PASSWORD}\n")
    return {"--token-file": str(token), "--login-file": str(login)}


@pytest.mark.parametrize(("option", "seed"), [("--token-file", "1"), ("--login-file", "2")])
def test_with_accounts_and_tls(
    closed: Closed, credentials: dict[str, str], tmp_path: Path, option: str, seed: str
) -> None:
    recorded, seen = tmp_path / "history.jsonl", tmp_path / "seen.json"
    who = [*closed.where(), option, credentials[option]]
    sent = chaos("chaos.traffic", *who, "--count", "60", "--seed", seed, "--history", str(recorded))
    assert sent.code == 0, sent.text
    assert (sent.told["finished"], sent.told["acknowledged"]) == (True, 60)
    assert {each.result for each in operations(recorded) if each.kind == "WADO-RS"} == {Result.OK}
    assert chaos("chaos.readback", *who, "--out", str(seen), str(recorded)).code == 0
    judged = chaos("chaos", "check", str(recorded), str(seen))
    assert judged.code == 0, judged.text


def test_without_a_token_nothing_gets_in_by_http_and_the_checks_say_so(
    closed: Closed, credentials: dict[str, str], tmp_path: Path
) -> None:
    recorded, seen = tmp_path / "history.jsonl", tmp_path / "seen.json"
    sent = chaos("chaos.traffic", *closed.where(), "--count", "20", "--seed", "9", "--seconds", "4",
                 "--history", str(recorded))  # fmt: skip
    assert sent.code == 0, sent.text
    assert sent.told["finished"] is False
    assert {each.status for each in operations(recorded) if each.kind == "STOW-RS"} == {"HTTP 401"}
    nobody = free_port()
    read = chaos("chaos.readback", *closed.where(), "--dicom", f"127.0.0.1:{nobody}",
                 "--out", str(seen), str(recorded))  # fmt: skip
    assert read.code == 0, read.text
    judged = chaos("chaos", "check", str(recorded), str(seen))
    assert judged.code == 1
    assert "durable: holds" in judged.text, "what does not answer has lost nothing"
    assert "STOW-RS answered HTTP 401" in judged.text
    for service in ("QIDO-RS at https", "WADO-RS at https", "C-FIND at 127", "C-GET at 127"):
        assert f"no answer afterwards: {service}" in judged.text


def test_a_certificate_of_another_name_or_ca_is_not_taken(closed: Closed, tmp_path: Path) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(closed.https, verify=str(closed.pki / "modality.crt"), timeout=10)
    for number, wrong in enumerate(
        (["--server-name", "other.test"], ["--ca", str(closed.pki / "modality.crt")])
    ):
        recorded = tmp_path / f"{number}.jsonl"
        chaos("chaos.traffic", *closed.where(), *wrong, "--count", "20", "--seed", "10", "--seconds", "3",
              "--history", str(recorded))  # fmt: skip
        done = operations(recorded)
        assert {each.status for each in done if each.kind == "STOW-RS"} == {"SSLError"}
        assert not acknowledged(recorded) & {each.uid for each in done if each.client.startswith("racer")}
