"""Clients that send with retries, as modalities do, and note every operation.

Each takes its share of the instances and ends when each of them was acknowledged or refused for good (other
bytes are stored under its UID). What was refused for now, or has an unknown outcome, is sent again after a
pause, for as long as it takes: `Traffic.run` sets the limit.
"""

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from node.domain.errors import Refusal
from node.domain.part10 import Part10Reader
from tests.bench.scu import Association, Prepared
from tests.kills.corpus import IMPLICIT, Corpus, Instance
from tests.kills.log import History, Operation, Result, content_of

OPERATION_SECONDS = 60  # the clients' own patience: who waits for longer has found the archive not alive
PAUSE_SECONDS = 0.2  # before something is tried again
CONFLICT = "C111"
DCMTK_BATCH, STOW_BATCH = 150, 20  # instances per association and per request
MULTIPART = 'multipart/related; type="application/dicom"'
_DCMTK_STATUS = {
    "Success": "0000",
    "Refused: OutOfResources": "A700",
    "Error: CannotUnderstand": CONFLICT,  # DCMTK tells the class of Cxxx only
}


@dataclass
class Target:
    """Where the archive listens, and the title of its AE."""

    dicom_port: int
    base_url: str
    title: str = "STELE"


@dataclass
class Traffic:
    """All clients of one run. `pages`: bodies of error answers, which must not name patients."""

    target: Target
    history: History
    pages: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    faults: list[str] = field(default_factory=list)  # of the clients themselves

    def start(self, corpus: Corpus, seed: int) -> list[threading.Thread]:
        """Start everybody on their share of the corpus; returns the threads to wait for."""
        generator = random.Random(seed)
        mixed = list(corpus.instances)
        generator.shuffle(mixed)
        # DCMTK would send Implicit VR as Explicit VR, which is its right, but not what the log says
        mixed.sort(key=lambda each: each.syntax == IMPLICIT)
        tenth = len(mixed) // 10
        dcmtk, others = mixed[: 4 * tenth], mixed[4 * tenth :]
        generator.shuffle(others)
        pynetdicom, stow = others[: 2 * tenth], others[2 * tenth :]
        # Some come in twice, from two clients, at about the same time
        stow = stow + dcmtk[: tenth // 2]
        generator.shuffle(stow)
        half = len(dcmtk) // 2
        jobs: list[tuple[str, Callable[[], None]]] = [
            ("dcmtk-1", lambda: self._dcmtk("dcmtk-1", dcmtk[:half])),
            ("dcmtk-2", lambda: self._dcmtk("dcmtk-2", dcmtk[half:])),
            ("pynetdicom", lambda: self._pynetdicom("pynetdicom", pynetdicom)),
            ("stow", lambda: self._stow("stow", stow, STOW_BATCH)),
            ("racers", lambda: self._race(corpus)),
        ]
        threads = [threading.Thread(target=self._guarded, args=job, name=job[0]) for job in jobs]
        for thread in threads:
            thread.start()
        return threads

    def _guarded(self, name: str, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - a client's own fault must not pass unseen
            self.faults.append(f"{name}: {error!r}")

    def _until_done(
        self, instances: Sequence[Instance], attempt: Callable[[list[Instance]], Iterable[Operation]]
    ) -> None:
        """Try again and again until everything has a final answer."""
        left = {each.uid: each for each in instances}
        while left and not self.stop.is_set():
            before = len(left)
            for operation in attempt(list(left.values())):
                self.history.add(operation)
                if final(operation):
                    left.pop(operation.uid, None)
            if left and len(left) == before:
                self.stop.wait(PAUSE_SECONDS)

    # --- DCMTK -----------------------------------------------------------------------------------

    def _dcmtk(self, name: str, instances: Sequence[Instance]) -> None:
        self._until_done(instances, lambda left: self._storescu(name, left[:DCMTK_BATCH]))

    def _storescu(self, name: str, batch: list[Instance]) -> Iterable[Operation]:
        """One association; its operations are read off storescu's log as they happen."""
        by_path = {str(each.path): each for each in batch}
        patience = ["-to", "20", "-ta", str(OPERATION_SECONDS), "-td", str(OPERATION_SECONDS)]
        command = [
            "storescu",
            "-v",
            "-nh",
            "-R",
            "-xr",
            *patience,
            "-aet",
            name.upper(),
            "-aec",
            self.target.title,
        ]
        command += ["127.0.0.1", str(self.target.dicom_port), *by_path]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
        assert process.stdout is not None
        current: Instance | None = None
        invoked = 0.0
        for line in process.stdout:
            if sending := re.search(r"I: Sending file: (.*)$", line):
                current, invoked = by_path[sending[1].strip()], time.monotonic()
            elif (answer := re.search(r"I: Received Store Response \((.*)\)", line)) and current is not None:
                status = _DCMTK_STATUS.get(answer[1], answer[1])
                yield _stored(name, "C-STORE", current, invoked, status)
                current = None
        process.wait()
        if current is not None:
            yield _unknown(name, "C-STORE", current, invoked, "association lost")

    # --- pynetdicom ------------------------------------------------------------------------------

    def _pynetdicom(self, name: str, instances: Sequence[Instance]) -> None:
        """In a process of its own, which pynetdicom keeps busy."""
        left = {each.uid: each for each in instances}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.kills.pynetdicom_scu", str(self.target.dicom_port), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        fields = [(each.sop_class, each.uid, each.syntax, each.content, str(each.path)) for each in instances]
        process.stdin.write(json.dumps(fields))
        process.stdin.close()
        try:
            for line in process.stdout:
                operation = Operation.from_line(line)
                self.history.add(operation)
                if final(operation):
                    left.pop(operation.uid, None)
                if self.stop.is_set():
                    break
        finally:
            process.kill()
            process.wait()
        assert self.stop.is_set() or not left, f"{len(left)} instances not sent"

    # --- STOW-RS ---------------------------------------------------------------------------------

    def _stow(self, name: str, instances: Sequence[Instance], batch: int) -> None:
        with requests.Session() as session:
            self._until_done(instances, lambda left: self._post(session, name, left[:batch]))

    def _post(self, session: requests.Session, name: str, batch: list[Instance]) -> list[Operation]:
        """One STOW-RS request."""
        parts = b"".join(
            b"--part\r\nContent-Type: application/dicom\r\n\r\n" + each.file() + b"\r\n" for each in batch
        )
        headers = {"Content-Type": f"{MULTIPART}; boundary=part", "Accept": "application/dicom+json"}
        invoked = time.monotonic()
        try:
            answer = session.post(
                f"{self.target.base_url}/dicom-web/studies",
                data=parts + b"--part--\r\n",
                headers=headers,
                timeout=OPERATION_SECONDS,
            )
        except requests.RequestException as error:
            return [_unknown(name, "STOW-RS", each, invoked, type(error).__name__) for each in batch]
        if answer.status_code >= 400:
            self.pages.append(answer.text)
        return [
            _stored(name, "STOW-RS", each, invoked, status)
            for each, status in zip(batch, _statuses(answer, batch), strict=True)
        ]

    # --- Races -----------------------------------------------------------------------------------

    def _race(self, corpus: Corpus) -> None:
        """Two clients at a time send the same UID with different bytes: by C-STORE and by STOW-RS."""
        session = requests.Session()
        for original, rival in zip(corpus.originals, corpus.rivals, strict=True):
            if self.stop.is_set():
                break
            start = threading.Barrier(2)

            def dicom(instance: Instance = original, start: threading.Barrier = start) -> None:
                self._c_store(instance, start)

            other = threading.Thread(target=self._guarded, args=("racer-dicom", dicom))
            other.start()
            start.wait(OPERATION_SECONDS)
            self._until_done([rival], lambda left: self._post(session, "racer-stow", left))
            other.join()
        session.close()

    def _c_store(self, instance: Instance, start: threading.Barrier) -> None:
        try:
            association: Association | None = self._associate(instance)
        except OSError:
            association = None
        start.wait(OPERATION_SECONDS)

        def attempt(_left: list[Instance]) -> list[Operation]:
            nonlocal association
            invoked = time.monotonic()
            try:
                association = association or self._associate(instance)
                status = association.store(1, instance.uid.encode(), instance.dataset())
            except OSError as error:
                association = None
                return [_unknown("racer-dicom", "C-STORE", instance, invoked, type(error).__name__)]
            return [_stored("racer-dicom", "C-STORE", instance, invoked, f"{status:04X}")]

        self._until_done([instance], attempt)
        if association is not None:
            try:
                association.release()
            except OSError:
                pass  # it is over anyway

    def _associate(self, instance: Instance) -> Association:
        prepared = Prepared(instance.sop_class.encode(), instance.syntax.encode(), b"", b"", b"", b"")
        return Association(self.target.dicom_port, self.target.title, prepared)

    # --- Readers ---------------------------------------------------------------------------------

    def read_latest(self, ended: threading.Event, seed: int) -> None:
        """Until `ended`: find and retrieve what has just been acknowledged."""
        generator = random.Random(seed)

        def read() -> None:
            with requests.Session() as session:
                while not ended.wait(0.05):
                    latest = self.history.latest(40)
                    if not latest:
                        continue
                    uid = generator.choice(latest)
                    operation, path = self._look_up(session, uid)
                    self.history.add(operation)
                    if path:
                        self.history.add(self._fetch(session, uid, path))

        self._guarded("reader", read)

    def _look_up(self, session: requests.Session, uid: str) -> tuple[Operation, str]:
        """Find an instance's row; also the path to retrieve it from, "" if it was not found."""
        invoked = time.monotonic()
        answer = self._get(session, f"instances?SOPInstanceUID={uid}", "application/dicom+json")
        result, status, path = Result.REFUSED, "", ""
        if isinstance(answer, str):
            result, status = Result.UNKNOWN, answer
        elif answer.status_code not in (200, 204):
            status = str(answer.status_code)
        else:
            rows = answer.json() if answer.content else []
            status = f"{len(rows)} rows"
            if len(rows) == 1:
                result, status = Result.OK, "200"
                above = [rows[0][tag]["Value"][0] for tag in ("0020000D", "0020000E")]
                path = f"studies/{above[0]}/series/{above[1]}/instances/{uid}"
        return Operation("reader", "QIDO-RS", uid, "", invoked, time.monotonic(), result, status), path

    def _fetch(self, session: requests.Session, uid: str, path: str) -> Operation:
        """Retrieve it."""
        invoked = time.monotonic()
        answer = self._get(session, path, f"{MULTIPART}; transfer-syntax=*")
        if isinstance(answer, str):
            return Operation("reader", "WADO-RS", uid, "", invoked, time.monotonic(), Result.UNKNOWN, answer)
        content = dict(parts_of(answer)).get(uid, "") if answer.status_code == 200 else ""
        result = Result.OK if answer.status_code == 200 else Result.REFUSED
        status = str(answer.status_code)
        return Operation("reader", "WADO-RS", uid, content, invoked, time.monotonic(), result, status)

    def _get(self, session: requests.Session, path: str, accept: str) -> "requests.Response | str":
        try:
            answer = session.get(
                f"{self.target.base_url}/dicom-web/{path}",
                headers={"Accept": accept},
                timeout=OPERATION_SECONDS,
            )
        except requests.RequestException as error:
            return type(error).__name__
        if answer.status_code >= 400:
            self.pages.append(answer.text)
        return answer


def final(operation: Operation) -> bool:
    """Whether a store needs no other attempt."""
    return operation.result is Result.OK or operation.status in (CONFLICT, "A900", "C000", "0117", "0122")


def part10_of(file: bytes) -> tuple[str, str]:
    """A Part 10 file's (SOP Instance UID, content); ("", "") if it is none."""
    reader = Part10Reader()
    try:
        dataset = bytes(reader.feed(file))
        meta = reader.finish()
    except Refusal:
        return "", ""
    return meta.sop_instance_uid, content_of(meta.transfer_syntax_uid, dataset)


def parts_of(answer: requests.Response) -> Iterable[tuple[str, str]]:
    """(SOP Instance UID, content) of each part of a WADO-RS answer."""
    boundary = answer.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
    for part in answer.content.split(b"--" + boundary)[1:-1]:
        yield part10_of(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))


def files_in(folder: Path) -> Iterable[tuple[str, str]]:
    """(SOP Instance UID, content) of every file."""
    return (part10_of(path.read_bytes()) for path in folder.iterdir())


def _stored(client: str, kind: str, instance: Instance, invoked: float, status: str) -> Operation:
    result = Result.OK if status == "0000" else Result.REFUSED
    returned = time.monotonic()
    return Operation(client, kind, instance.uid, instance.content, invoked, returned, result, status)


def _unknown(client: str, kind: str, instance: Instance, invoked: float, what: str) -> Operation:
    returned = time.monotonic()
    return Operation(client, kind, instance.uid, instance.content, invoked, returned, Result.UNKNOWN, what)


def _statuses(answer: requests.Response, batch: list[Instance]) -> list[str]:
    """Each instance's status out of a Store Instances Response Module, in DIMSE's terms."""
    try:
        module: dict[str, Any] = answer.json()
    except ValueError:
        return [f"HTTP {answer.status_code}"] * len(batch)
    told = {_uid(item): "0000" for item in module.get("00081199", {}).get("Value", [])}
    for item in module.get("00081198", {}).get("Value", []):
        told[_uid(item)] = f"{item['00081197']['Value'][0]:04X}"
    return [told.get(each.uid, f"HTTP {answer.status_code}") for each in batch]


def _uid(item: dict[str, Any]) -> str:
    return str(item["00081155"]["Value"][0])
