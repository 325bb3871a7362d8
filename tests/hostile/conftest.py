"""Archives under attack, and what must hold after every attack."""

import hashlib
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.domain.model import ApplicationEntity
from tests.archive import running_archive
from tests.hostile.target import CANARY, Target, Witness
from tests.support import free_port, wait_until

GROWTH_BYTES = 192 << 20  # of all processes together, during one attack
ROUND_SECONDS = 20.0  # the witness takes a tenth of a second when nobody else works
ROOM_BYTES = 2 << 30  # others use the disk too


@pytest.fixture(scope="package")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """An archive that asks for a login, takes any calling AE, and knows ELSEWHERE's network."""
    environment = {
        "STELE_HTTP__SECURE_COOKIES": "false",
        "STELE_DICOM__ANY_CALLING_AE": "true",
        "STELE_DICOM__HOST": "127.0.0.1",
    }
    data = tmp_path_factory.mktemp("target") / "data"
    with running_archive(data, arguments=(), environment=environment) as running:
        found = Target(running)
        found.add_accounts()
        found.add_entities(
            ApplicationEntity("ELSEWHERE", sources=("192.0.2.0/24",)),
            ApplicationEntity("READER", may_store=False),
            ApplicationEntity("WRITER", may_retrieve=False),
        )
        yield found


@pytest.fixture(scope="package")
def witness(target: Target) -> Iterator[Witness]:
    """A well-behaved client of the target, all the time."""
    witness = Witness(target)
    witness.start()
    wait_until(lambda: witness.rounds > 2, 60, "the witness is served")
    witness.failures.clear()  # the first rounds may come before the archive is wholly up
    yield witness
    witness.stop()


@pytest.fixture
def unharmed(target: Target, witness: Witness, request: pytest.FixtureRequest) -> Iterator[None]:
    """After the test: the witness was served, memory is bounded, the refusal is counted and silent.

    Marked `unnoticed(reason)`, a test's input is none that the archive has to refuse.
    """
    logged, noticed, before = len(target.archive.log), target.noticed(), target.resident_bytes()
    rounds, witness.slowest_seconds = witness.rounds, 0.0
    yield
    wait_until(lambda: witness.rounds > rounds + 1, 60, "the witness goes on")
    assert witness.failures == []
    assert witness.slowest_seconds < ROUND_SECONDS
    assert target.peak_bytes() - before < GROWTH_BYTES
    if not request.node.get_closest_marker("unnoticed"):
        wait_until(lambda: target.noticed() > noticed, 10, "the refusal in the metrics")
    assert CANARY not in target.archive.log[logged:].upper()


@pytest.fixture(scope="package")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with a self-signed certificate and its key: of the server, of a client and of another one."""
    folder = tmp_path_factory.mktemp("certificates")
    return {name: _certificate(folder, name) for name in ("server", "client", "other")}


def _certificate(folder: Path, name: str) -> Path:
    path = folder / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", str(path), "-keyout", str(folder / "key")],
        check=True,
        capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + (folder / "key").read_text())
    return path


@pytest.fixture(scope="package")
def narrow(tmp_path_factory: pytest.TempPathFactory, certificates: dict[str, Path]) -> Iterator[Target]:
    """An archive in one process for each edge, with short deadlines, low limits, configured AEs only and
    TLS with client certificates."""
    data = tmp_path_factory.mktemp("narrow") / "data"
    data.mkdir()
    authorities = data / "ca.pem"
    authorities.write_text(certificates["client"].read_text() + certificates["other"].read_text())
    tls_port = free_port()
    free_bytes_min = shutil.disk_usage(data).free - ROOM_BYTES
    settings = {
        "DICOM__HOST": "127.0.0.1",
        "DICOM__TLS_PORT": tls_port,
        "DICOM__TLS_CERTIFICATE": certificates["server"],
        "DICOM__TLS_KEY": certificates["server"],
        "DICOM__TLS_CLIENT_CA": authorities,
        "DICOM__WORKERS": 1,
        "DICOM__REQUEST_SECONDS": 2,
        "DICOM__IDLE_SECONDS": 2,
        "DICOM__MESSAGE_SECONDS": 2,
        "DICOM__MAX_PENDING": 4,
        "DICOM__MAX_ASSOCIATIONS": 3,
        "DICOM__MAX_ASSOCIATIONS_PER_AE": 2,
        "HTTP__MAX_REQUEST_BYTES": 4 << 20,
        "INTAKE__MAX_OBJECT_BYTES": 1 << 20,
        "OBJECTS__FREE_BYTES_MIN": free_bytes_min,
    }
    environment = {f"STELE_{name}": str(value) for name, value in settings.items()}
    with running_archive(data, arguments=(), environment=environment) as running:
        found = Target(running, tls_port, free_bytes_min)
        found.add_accounts()
        der = ssl.PEM_cert_to_DER_cert(certificates["client"].read_text().partition("-----BEGIN PRIVATE")[0])
        found.add_entities(
            *(ApplicationEntity(title) for title in ("RAW", "ONE", "TWO", "THREE", "MORE")),
            ApplicationEntity("SECURE", certificate=hashlib.sha256(der).hexdigest()),
        )
        yield found


@pytest.fixture
def full(narrow: Target) -> Iterator[Target]:
    """The narrow archive while its disk has less room than it must keep free."""
    filling = narrow.archive.data / "filling"
    with filling.open("wb") as file:
        too_much = shutil.disk_usage(narrow.archive.data).free - narrow.free_bytes_min
        os.posix_fallocate(file.fileno(), 0, max(too_much, 0) + ROOM_BYTES)
    yield narrow
    filling.unlink()


@pytest.fixture
def read_only(narrow: Target) -> Iterator[Target]:
    """The narrow archive while its catalog takes no writes, as on a primary that was demoted."""
    with narrow.catalog() as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        yield narrow
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        connection.execute("SELECT pg_reload_conf()")
