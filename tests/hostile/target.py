"""An archive to be attacked, and a client that must not notice.

`Target` is a running archive as an operator sees it: its ports, its log, its metrics, its processes.
`Witness` is a well-behaved client that stores, searches and retrieves over and over, on both ports.
"""

import hashlib
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import requests
from psycopg.types.json import Jsonb
from pydicom.dataset import FileDataset

from node.adapters.passwords_argon2 import Argon2Passwords
from node.adapters.postgres_embedded import EmbeddedPostgres
from node.domain.model import ApplicationEntity, Role
from tests import corpus
from tests.archive import Archive
from tests.integration.dimse_peer import CT, EXPLICIT, IMPLICIT, VERIFICATION, Peer, context, dataset_of, echo

PERSON, PASSWORD = "person", "correct horse battery staple"
CANARY = "CANARYBIRD"  # stands in every payload where a patient's data could
STUDIES = "/dicom-web/studies"
_COUNTED = re.compile(
    r"^(stele_refusals_total|stele_instances_total|stele_http_seconds_count)\{(.*)\} ([0-9.e+]+)$", re.M
)
_HARMLESS = re.compile(r'result="(stored|duplicate)"|status="([123]\d\d|500|503)"')


_seeds = iter(range(5000, 10_000))


def an_image(size: int = 64) -> FileDataset:
    """An image that nobody has stored, of a patient with a canary's name."""
    seed = next(_seeds)
    (image,) = corpus.ct_series(1, size=size, study=corpus.Study(seed=seed))
    image.PatientName, image.PatientID = f"{CANARY}^YELLOW", f"{CANARY}-{seed}"
    return image


@dataclass
class Target:
    """A running archive; `tokens` by role, the administrator's is used unless a request has its own.

    `free_bytes_min`: the room that it must leave on its disk.
    """

    archive: Archive
    tls_port: int = 0
    free_bytes_min: int = 0
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def dicom_port(self) -> int:
        """Where DIMSE is spoken."""
        return self.archive.dicom_port

    def ask(self, method: str, address: str, **arguments: object) -> requests.Response:
        """A request, by the administrator unless `headers` name somebody (or "Authorization": "")."""
        given = arguments.pop("headers", None) or {}
        assert isinstance(given, dict)
        headers = {"Authorization": f"Bearer {self.tokens['administrator']}", **given}
        if not headers["Authorization"]:
            del headers["Authorization"]
        url = address if address.startswith("http") else self.archive.base_url + address
        return requests.request(method, url, headers=headers, timeout=120, **arguments)  # type: ignore[arg-type]

    def get(self, address: str, **headers: str) -> requests.Response:
        """GET."""
        return self.ask("GET", address, headers=headers)

    def store(self, image: FileDataset | bytes) -> requests.Response:
        """STOW-RS of one file."""
        data = image if isinstance(image, bytes) else corpus.encode(image)
        return self.ask("POST", STUDIES, data=data, headers={"Content-Type": "application/dicom"})

    def has(self, instance_uid: str) -> bool:
        """Whether a search finds the instance."""
        found = self.get(f"/dicom-web/instances?SOPInstanceUID={instance_uid}")
        assert found.status_code == 200
        return bool(found.json())

    def noticed(self) -> float:
        """How many refusals its metrics count: requests, instances, HTTP answers that blame the client."""
        text = requests.get(f"{self.archive.base_url}/metrics", timeout=60).text
        return sum(
            float(count) for _, labels, count in _COUNTED.findall(text) if not _HARMLESS.search(labels)
        )

    def audited(self, **columns: str) -> int:
        """How many audit events have these values."""
        where = " AND ".join(f"{name} = %s" for name in columns)
        with self.catalog() as connection:
            row = connection.execute(
                f"SELECT count(*) FROM audit_events WHERE {where}",  # noqa: S608 - ours
                list(columns.values()),
            ).fetchone()
        assert row is not None
        return int(row[0])

    def catalog(self) -> "psycopg.Connection[tuple[Any, ...]]":
        """A connection to its database, as its operator has one."""
        return psycopg.connect(EmbeddedPostgres(self.archive.data / "postgres").start(), autocommit=True)

    def add_accounts(self) -> None:
        """A machine for each role, with its token in `tokens`, and the administrator PERSON."""
        self.tokens = {role.value: secrets.token_urlsafe(32) for role in Role}
        with self.catalog() as connection:
            for role, token in self.tokens.items():
                connection.execute("INSERT INTO accounts (name, role) VALUES (%s, %s)", (role, role))
                digest = hashlib.sha256(token.encode()).digest()
                connection.execute(
                    "INSERT INTO sessions (token_sha256, name) VALUES (%s, %s)", (digest, role)
                )
            connection.execute(
                "INSERT INTO accounts (name, role, password_hash) VALUES (%s, 'administrator', %s)",
                (PERSON, Argon2Passwords().hash(PASSWORD)),
            )

    def stele(self, *arguments: str) -> str:
        """What a command of `stele` prints."""
        command = [sys.executable, "-m", "node.cli", *arguments, "--data", str(self.archive.data)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        return done.stdout

    def add_entities(self, *entities: ApplicationEntity) -> None:
        """Configure AEs, before the first association asks for them."""
        with self.catalog() as connection:
            for entity in entities:
                settings = {name: value for name, value in asdict(entity).items() if name != "title"}
                connection.execute(
                    "INSERT INTO entities (title, settings) VALUES (%s, %s)",
                    (entity.title, Jsonb(settings)),
                )

    # --- Memory ---

    def processes(self) -> Iterator[Path]:
        """/proc folders of the supervisor and all below it but the database's."""
        parents: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended meanwhile
            parents.setdefault(parent, []).append(int(path.name))
        waiting = [self.archive.process.pid]
        while waiting:
            pid = waiting.pop()
            path = Path(f"/proc/{pid}")
            try:
                if (path / "comm").read_text().strip() == "postgres":
                    continue
            except OSError:
                continue
            waiting += parents.get(pid, [])
            yield path

    def resident_bytes(self) -> int:
        """Memory of all its processes now; the peaks count from here."""
        total = 0
        for path in self.processes():
            try:
                (path / "clear_refs").write_text("5")
                total += _memory(path, "VmRSS")
            except OSError:
                continue
        return total

    def peak_bytes(self) -> int:
        """The most memory that each process has had since `resident_bytes`, added up."""
        return sum(_memory(path, "VmHWM") for path in self.processes())


def _memory(process: Path, which: str) -> int:
    try:
        found = re.search(rf"{which}:\s+(\d+) kB", (process / "status").read_text())
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


class Witness(threading.Thread):
    """A client that does all that a hospital does, for ever, and remembers what failed."""

    def __init__(self, target: Target) -> None:
        super().__init__(daemon=True)
        self._target = target
        (self._image,) = corpus.ct_series(1, size=64, study=corpus.Study(seed=4000))
        self._stopping = threading.Event()
        self.rounds = 0
        self.failures: list[str] = []
        self.slowest_seconds = 0.0

    def run(self) -> None:
        """Rounds until `stop`."""
        standing: Peer | None = None
        while not self._stopping.wait(0.05):
            began = time.monotonic()
            try:
                standing = standing or self._associate()
                self._round(standing)
            except Exception as error:  # noqa: BLE001 - whatever it was, service was taken away
                self.failures.append(f"{type(error).__name__}: {error}")
                standing = None
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
            self.rounds += 1
        if standing is not None:
            standing.close()

    def stop(self) -> None:
        """End after the round in hand."""
        self._stopping.set()
        self.join(60)

    def _associate(self) -> Peer:
        return Peer.associated(
            self._target.dicom_port,
            context(1, CT, EXPLICIT),
            context(3, VERIFICATION, IMPLICIT),
            calling="WITNESS",
        )

    def _round(self, standing: Peer) -> None:
        assert echo(standing, 3) == 0
        fresh = self._associate()
        answer = fresh.store(1, self._image.SOPInstanceUID, [dataset_of(corpus.encode(self._image))])
        assert answer.status == 0, answer
        fresh.release()
        (found,) = self._target.get(f"{STUDIES}?StudyInstanceUID={self._image.StudyInstanceUID}").json()
        assert found["0020000D"]["Value"] == [self._image.StudyInstanceUID]
        path = f"{STUDIES}/{self._image.StudyInstanceUID}/series/{self._image.SeriesInstanceUID}"
        whole = self._target.get(
            f"{path}/instances/{self._image.SOPInstanceUID}",
            Accept="application/dicom; transfer-syntax=*",
        )
        assert dataset_of(whole.content) == dataset_of(corpus.encode(self._image))
