"""Debian's Orthanc beside a running archive: as sender, as query and move client, as receiver, and as
DICOMweb client. Whatever way an image goes, its dataset's bytes stay what they were."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from node.domain.part10 import Meta, Part10Reader
from node.services.access import ENTITY_CACHE_SECONDS
from tests import corpus
from tests.archive import Archive, running_archive
from tests.integration.test_dimse_roundtrip import get
from tests.orthanc import Orthanc, running_orthanc
from tests.support import require, wait_until

pytestmark = [pytest.mark.peers, pytest.mark.slow]
SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
)
WAIT_SECONDS = 60.0


@dataclass
class Image:
    """A file to send, and what it should be at the other end."""

    path: Path
    meta: Meta
    dataset: bytes
    study_uid: str


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Archive, Orthanc]]:
    """An archive and an Orthanc that know each other."""
    require("Orthanc", "movescu")
    folder = tmp_path_factory.mktemp("peers")
    with running_archive(folder / "data") as archive:
        url = f"{archive.base_url}/dicom-web/"
        with running_orthanc(
            folder / "orthanc",
            modalities={"stele": ("STELE", "127.0.0.1", archive.dicom_port)},
            dicomweb={"stele": url},
        ) as orthanc:
            address = f"127.0.0.1:{orthanc.dicom_port}"
            command = ["ae", "add", "ORTHANC", "--address", address, "--data", str(archive.data)]
            subprocess.run([sys.executable, "-m", "node.cli", *command], check=True, timeout=60)
            yield archive, orthanc


def images(folder: Path, number: int) -> list[Image]:
    """A study of one image in each of SYNTAXES; `number` tells the tests' studies apart."""
    study = corpus.Study(
        corpus.Person("PHANTOM^ORTHANC", f"ORTHANC-{number}"), number, accession=f"O{number}"
    )
    made = []
    for series, syntax in enumerate(SYNTAXES, 1):
        slices = corpus.ct_series(1, 128, study=study, series=series, transfer_syntax=syntax)
        (path,) = corpus.write(slices, folder)
        reader = Part10Reader()
        dataset = bytes(reader.feed(path.read_bytes()))
        made.append(Image(path, reader.finish(), dataset, str(study.study_uid)))
    return made


def upload(orthanc: Orthanc, made: list[Image]) -> list[str]:
    """Give the files to Orthanc by its REST API; its identifiers."""
    return [orthanc.post("/instances", image.path.read_bytes())["ID"] for image in made]


def stow(archive: Archive, made: list[Image]) -> None:
    """Put the files into the archive, by `stele send`."""
    command = ["send", str(made[0].path.parent), f"127.0.0.1:{archive.dicom_port}"]
    subprocess.run([sys.executable, "-m", "node.cli", *command], check=True, timeout=120)


def in_stele(archive: Archive, made: list[Image]) -> dict[str, bytes]:
    """Dataset bytes as the archive gives them."""
    received, _ = get(archive.dicom_port, [image.meta for image in made])
    return received


def in_orthanc(orthanc: Orthanc, study_uid: str) -> dict[str, bytes]:
    """Dataset bytes as Orthanc keeps them, of one study."""
    query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}, "Expand": True}
    kept = {}
    for instance in orthanc.post("/tools/find", query):
        file = requests.get(f"{orthanc.url}/instances/{instance['ID']}/file", timeout=60).content
        kept[instance["MainDicomTags"]["SOPInstanceUID"]] = bytes(Part10Reader().feed(file))
    return kept


def sent(made: list[Image]) -> dict[str, bytes]:
    """Dataset bytes by SOP Instance UID."""
    return {image.meta.sop_instance_uid: image.dataset for image in made}


def test_orthanc_sends(peers: tuple[Archive, Orthanc], tmp_path: Path) -> None:
    archive, orthanc = peers
    made = images(tmp_path, 1)
    answer = orthanc.post(
        "/modalities/stele/store", {"Resources": upload(orthanc, made), "Synchronous": True}
    )
    assert answer["FailedInstancesCount"] == 0
    assert in_stele(archive, made) == sent(made)


def test_orthanc_queries_and_moves(peers: tuple[Archive, Orthanc], tmp_path: Path) -> None:
    archive, orthanc = peers
    made = images(tmp_path, 2)
    stow(archive, made)
    question = {"Level": "Study", "Query": {"PatientID": "ORTHANC-2", "NumberOfStudyRelatedInstances": ""}}
    query = orthanc.post("/modalities/stele/query", question)["ID"]
    (answer,) = orthanc.get(f"/queries/{query}/answers?expand&simplify")
    assert answer["StudyInstanceUID"] == made[0].study_uid
    assert answer["NumberOfStudyRelatedInstances"] == str(len(SYNTAXES))
    wait_until(lambda: known(archive), ENTITY_CACHE_SECONDS + 10, "ORTHANC is known as a destination")
    orthanc.post(f"/queries/{query}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
    assert in_orthanc(orthanc, made[0].study_uid) == sent(made)


def test_orthanc_finds_nothing_where_nothing_is(peers: tuple[Archive, Orthanc]) -> None:
    _, orthanc = peers
    question = {"Level": "Study", "Query": {"PatientID": "NOBODY"}}
    query = orthanc.post("/modalities/stele/query", question)["ID"]
    assert orthanc.get(f"/queries/{query}/answers") == []


def move(archive: Archive, study_uid: str) -> subprocess.CompletedProcess[str]:
    """DCMTK asks the archive to send a study to Orthanc."""
    command = ["movescu", "-S", "-aec", "STELE", "-aem", "ORTHANC", "127.0.0.1", str(archive.dicom_port)]
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study_uid}"]
    return subprocess.run([*command, *keys], capture_output=True, text=True, timeout=120, check=False)


def known(archive: Archive) -> bool:
    """Whether the archive has the destination in force: a move of nothing succeeds."""
    return move(archive, "1.2.3.4").returncode == 0


def test_orthanc_receives_what_a_third_party_moves(peers: tuple[Archive, Orthanc], tmp_path: Path) -> None:
    archive, orthanc = peers
    made = images(tmp_path, 3)
    stow(archive, made)
    wait_until(lambda: known(archive), ENTITY_CACHE_SECONDS + 10, "ORTHANC is known as a destination")
    moved = move(archive, made[0].study_uid)
    assert moved.returncode == 0, moved.stderr
    assert in_orthanc(orthanc, made[0].study_uid) == sent(made)


def test_orthanc_stores_by_dicomweb(peers: tuple[Archive, Orthanc], tmp_path: Path) -> None:
    archive, orthanc = peers
    made = images(tmp_path, 4)
    orthanc.post("/dicom-web/servers/stele/stow", {"Resources": upload(orthanc, made), "Synchronous": True})
    assert in_stele(archive, made) == sent(made)


def test_orthanc_queries_by_dicomweb(peers: tuple[Archive, Orthanc], tmp_path: Path) -> None:
    archive, orthanc = peers
    made = images(tmp_path, 5)
    stow(archive, made)
    question = {"Uri": "/studies", "Arguments": {"PatientID": "ORTHANC-5"}}
    (found,) = ask(orthanc, question)
    assert found["0020000D"]["Value"] == [made[0].study_uid]
    assert len(ask(orthanc, {"Uri": f"/studies/{made[0].study_uid}/instances"})) == len(SYNTAXES)


def ask(orthanc: Orthanc, question: dict[str, Any]) -> Any:
    """A GET that Orthanc makes to the archive's DICOMweb."""
    question = {**question, "HttpHeaders": {"Accept": "application/dicom+json"}}
    return orthanc.post("/dicom-web/servers/stele/get", question)


def test_orthanc_retrieves_by_dicomweb(peers: tuple[Archive, Orthanc], tmp_path: Path) -> None:
    """Orthanc asks for any transfer syntax, so all comes as it is stored."""
    archive, orthanc = peers
    made = images(tmp_path, 6)
    stow(archive, made)
    resources = {"Resources": [{"Study": made[0].study_uid}], "Synchronous": True}
    orthanc.post("/dicom-web/servers/stele/retrieve", resources)
    assert in_orthanc(orthanc, made[0].study_uid) == sent(made)
