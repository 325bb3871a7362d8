"""Reading everything back, by every service, and looking where no patient's data may be."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from pydicom import Dataset
from pynetdicom import AE, build_context, build_role, evt

from tests.archive import Archive
from tests.kills.clients import MULTIPART, files_in, part10_of, parts_of
from tests.kills.corpus import CANARY, IMPLICIT, RLE, Instance
from tests.kills.judge import Listing, Row
from tests.kills.log import content_of
from tests.kills.pynetdicom_scu import without_delay

STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
PAGE = 1000
READ_SECONDS = 120
PARALLEL = 3
Contents = dict[str, str]  # by SOP Instance UID


def qido(archive: Archive) -> Listing:
    """All that QIDO-RS lists."""
    studies = _pages(archive, "studies?includefield=00201208")
    series = _pages(archive, "series?includefield=00201209")
    instances = _pages(archive, "instances?includefield=00100020")
    return Listing(
        studies=[(_value(row, "0020000D"), int(_value(row, "00201208"))) for row in studies],
        series=[(_value(row, "0020000E"), int(_value(row, "00201209"))) for row in series],
        instances=[
            Row(*(_value(row, tag) for tag in ("00100020", "0020000D", "0020000E", "00080018")))
            for row in instances
        ],
    )


def c_find(archive: Archive) -> Listing:
    """All that C-FIND lists, level by level."""
    listing = Listing()
    listing.patients = [row["PatientID"] for row in _findscu(archive, "-P", "PATIENT", PatientID="")]
    counted = {"NumberOfStudyRelatedInstances": ""}
    for study in _findscu(archive, "-S", "STUDY", StudyInstanceUID="", PatientID="", **counted):
        uid = study["StudyInstanceUID"]
        listing.studies.append((uid, int(study["NumberOfStudyRelatedInstances"])))
        counted = {"NumberOfSeriesRelatedInstances": ""}
        keys = {"StudyInstanceUID": uid, "SeriesInstanceUID": ""}
        for series in _findscu(archive, "-S", "SERIES", **keys, **counted):
            series_uid = series["SeriesInstanceUID"]
            keys = {"StudyInstanceUID": uid, "SeriesInstanceUID": series_uid}
            listing.series.append((series_uid, int(series["NumberOfSeriesRelatedInstances"])))
            rows = _findscu(archive, "-S", "IMAGE", SOPInstanceUID="", **keys)
            listing.instances += [
                Row(study["PatientID"], uid, series_uid, row["SOPInstanceUID"]) for row in rows
            ]
    return listing


def wado(archive: Archive, instances: Iterable[Instance]) -> Contents:
    """Content by SOP Instance UID, of their studies, as received. A study whose answer is refused or broken
    off, because of one instance, is asked for one by one."""
    studies: dict[str, list[Instance]] = {}
    for each in instances:
        studies.setdefault(each.study, []).append(each)

    def read(study: str) -> Contents:
        whole = _wado(archive, f"studies/{study}")
        return wado_each(archive, studies[study]) if whole is None else whole

    return _all(read, studies)


def wado_each(archive: Archive, instances: Iterable[Instance]) -> Contents:
    """Content by SOP Instance UID, each instance asked for on its own; refused ones are missing."""
    paths = [f"studies/{each.study}/series/{each.series}/instances/{each.uid}" for each in instances]
    return _all(lambda path: _wado(archive, path) or {}, paths)


def c_get(archive: Archive, folder: Path, instances: Iterable[Instance]) -> Contents:
    """Content by SOP Instance UID, of their series, each in the transfer syntax it was sent in."""
    series = sorted({(each.study, each.series, each.sop_class, each.syntax) for each in instances})
    # getscu proposes no Implicit VR for what comes back, whatever it is told
    found = _all(lambda one: _getscu(archive, folder, *one), [each for each in series if each[3] != IMPLICIT])
    for each in series:
        if each[3] == IMPLICIT:
            found.update(_pynetdicom_get(archive, *each))
    return found


def check(archive: Archive) -> tuple[list[tuple[str, str]], int]:
    """`stele check` beside the running archive, every byte read: (findings but for orphans, orphans)."""
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", "check", "--json", "--data", str(archive.data)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "STELE_INTAKE__GRACE_SECONDS": "0"},
    )
    assert done.returncode in (0, 1), done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    findings = [(each["kind"], each["name"]) for each in found if each["kind"] != "orphan"]
    return findings, len(found) - len(findings)


def leaks(archive: Archive, pages: Iterable[str]) -> list[str]:
    """Where a canary turned up: logs of the archive and of its database, metrics, error pages."""
    metrics = requests.get(f"{archive.base_url}/metrics", timeout=READ_SECONDS).text
    places = {"log": archive.log, "metrics": metrics, "error pages": "\n".join(pages)}
    for path in archive.data.glob("postgres/*.log"):
        places[path.name] = path.read_text(errors="replace")
    return [f"{CANARY} in {name}" for name, text in places.items() if CANARY in text]


def files_by_uid(archive: Archive) -> dict[str, Path]:
    """The objects' files by SOP Instance UID (of those that are there twice, one)."""
    files = (path for path in (archive.data / "objects").glob("[0-9a-f][0-9a-f]/*"))
    return {part10_of(path.read_bytes())[0]: path for path in files}


def flip_a_bit(path: Path) -> None:
    """In the middle of a file, which is in its pixels."""
    with path.open("r+b") as file:
        at = path.stat().st_size // 2
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def _all(read: Callable[[Any], Contents], keys: Iterable[Any]) -> Contents:
    found: Contents = {}
    with ThreadPoolExecutor(PARALLEL) as pool:
        for some in pool.map(read, keys):
            found.update(some)
    return found


def _wado(archive: Archive, path: str) -> Contents | None:
    """None if the answer is none, or breaks off."""
    try:
        answer = requests.get(
            f"{archive.base_url}/dicom-web/{path}",
            headers={"Accept": f"{MULTIPART}; transfer-syntax=*"},
            timeout=READ_SECONDS,
        )
    except requests.RequestException:
        return None
    return dict(parts_of(answer)) if answer.status_code == 200 else None


def _findscu(archive: Archive, model: str, level: str, **keys: str) -> list[dict[str, str]]:
    """The rows that DCMTK's findscu prints, by keyword; AssertionError if it does not succeed."""
    command = ["findscu", "-v", model, "-aec", "STELE", "-td", str(READ_SECONDS)]
    for name, value in {"QueryRetrieveLevel": level, **keys}.items():
        command += ["-k", f"{name}={value}"]
    command += ["127.0.0.1", str(archive.dicom_port)]
    done = subprocess.run(
        command,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Received Final Find Response (Success)" in done.stdout, done.stdout[-2000:]
    _, *answers = re.split(r"Find Response: \d+ \(Pending\)", done.stdout)
    printed = re.compile(r"^I: \(....,....\) .. \[(.*?)[ \0]*\] *#.* (\w+)$", re.MULTILINE)
    return [{name: value for value, name in printed.findall(answer)} for answer in answers]


def _getscu(archive: Archive, folder: Path, study: str, series: str, _class: str, syntax: str) -> Contents:
    target = folder / series
    target.mkdir(parents=True)
    command = ["getscu", "+B", "-S", "+xr" if syntax == RLE else "+xe", "-od", str(target)]
    command += ["-aec", "STELE", "-td", str(READ_SECONDS)]
    for key in ("QueryRetrieveLevel=SERIES", f"StudyInstanceUID={study}", f"SeriesInstanceUID={series}"):
        command += ["-k", key]
    command += ["127.0.0.1", str(archive.dicom_port)]
    subprocess.run(command, check=False, capture_output=True, env={**os.environ, "TCP_NODELAY": "1"})
    return dict(files_in(target))


def _pynetdicom_get(archive: Archive, study: str, series: str, sop_class: str, syntax: str) -> Contents:
    received: Contents = {}

    def keep(event: Any) -> int:
        content = content_of(event.context.transfer_syntax, event.request.DataSet.getvalue())
        received[str(event.request.AffectedSOPInstanceUID)] = content
        return 0

    ae = AE("GETTER")
    ae.acse_timeout = ae.dimse_timeout = READ_SECONDS
    association = ae.associate(
        "127.0.0.1",
        archive.dicom_port,
        [build_context(STUDY_GET), build_context(sop_class, [syntax])],
        ae_title="STELE",
        ext_neg=[build_role(sop_class, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )
    assert association.is_established
    without_delay(association)
    keys = Dataset()
    keys.QueryRetrieveLevel = "SERIES"
    keys.StudyInstanceUID, keys.SeriesInstanceUID = study, series
    list(association.send_c_get(keys, STUDY_GET))
    association.release()
    return received


def _pages(archive: Archive, query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        answer = requests.get(
            f"{archive.base_url}/dicom-web/{query}&limit={PAGE}&offset={len(rows)}",
            headers={"Accept": "application/dicom+json"},
            timeout=READ_SECONDS,
        )
        assert answer.status_code in (200, 204), answer.text
        more = answer.json() if answer.content else []
        rows += more
        if len(more) < PAGE:
            return rows


def _value(row: dict[str, Any], tag: str) -> str:
    return str(row[tag]["Value"][0])
