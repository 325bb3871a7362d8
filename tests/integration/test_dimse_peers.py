"""DCMTK's programs as clients and as a C-MOVE destination."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from node.config import Settings
from node.domain.model import Actor, ApplicationEntity, AuditEvent
from node.domain.part10 import Part10Reader
from node.services.access import ENTITY_CACHE_SECONDS
from node.services.archive import Archive
from tests.integration.dimse_peer import archive_on, listening
from tests.support import free_port, require, wait_until

pytestmark = pytest.mark.peers
STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"  # of CT_small.dcm


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Archive]]:
    require("storescu", "echoscu", "findscu", "movescu", "getscu", "storescp")
    with archive_on(tmp_path_factory.mktemp("archive")) as built:
        settings, stele = built
        with listening(settings, stele):
            yield built


def run(archive: tuple[Settings, Archive], program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A DCMTK program against the archive, all of its output in `stdout`."""
    command = [program, "-aec", "STELE", "127.0.0.1", str(archive[0].dicom.port), *arguments]
    return subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )


def sample(name: str) -> str:
    """The path of one of pydicom's bundled files."""
    return str(get_testdata_file(name))


def dataset_of(path: Path) -> bytes:
    """The encoded dataset of a Part 10 file."""
    return bytes(Part10Reader().feed(path.read_bytes()))


@contextmanager
def storescp(folder: Path, title: str, *arguments: str) -> Iterator[int]:
    """A DCMTK storage SCP that keeps what it gets bit by bit; its port."""
    port = free_port()
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(["storescp", "-aet", title, "-od", str(folder), "+B", *arguments, str(port)])
    try:
        echo = ["echoscu", "-aec", title, "127.0.0.1", str(port)]
        wait_until(
            lambda: subprocess.run(echo, check=False, capture_output=True).returncode == 0, 10, "storescp"
        )
        yield port
    finally:
        process.terminate()
        process.wait()


def test_echoscu(archive: tuple[Settings, Archive]) -> None:
    assert run(archive, "echoscu").returncode == 0


def test_a_wrong_called_title_is_rejected(archive: tuple[Settings, Archive]) -> None:
    result = subprocess.run(
        ["echoscu", "-aec", "OTHER", "127.0.0.1", str(archive[0].dicom.port)],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode != 0
    assert "Called AE Title Not Recognized" in result.stderr


@pytest.mark.parametrize(
    ("proposal", "name", "syntax"),
    [
        ("-xe", "CT_small.dcm", "1.2.840.10008.1.2.1"),
        ("-xi", "MR_small_implicit.dcm", "1.2.840.10008.1.2"),
        ("-xb", "MR_small_bigendian.dcm", "1.2.840.10008.1.2.2"),
        ("-xs", "SC_rgb_jpeg_gdcm.dcm", "1.2.840.10008.1.2.4.70"),
        ("-xy", "SC_rgb_jpeg_dcmtk.dcm", "1.2.840.10008.1.2.4.50"),
        ("-xv", "MR2_J2KR.dcm", "1.2.840.10008.1.2.4.90"),
        ("-xt", "MR_small_jpeg_ls_lossless.dcm", "1.2.840.10008.1.2.4.80"),
        ("-xr", "MR_small_RLE.dcm", "1.2.840.10008.1.2.5"),
    ],
)
def test_compressed_proposals_are_kept(
    archive: tuple[Settings, Archive], tmp_path: Path, proposal: str, name: str, syntax: str
) -> None:
    # Several of the samples are one image in several syntaxes, under one UID
    image = dcmread(sample(name))
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.save_as(tmp_path / name)
    result = run(archive, "storescu", "+C", proposal, str(tmp_path / name))
    assert result.returncode == 0, result.stdout
    stored = archive[1].catalog.instances.find(image.SOPInstanceUID)
    assert stored is not None
    assert stored.transfer_syntax_uid == syntax


def test_findscu_finds_the_study(archive: tuple[Settings, Archive]) -> None:
    assert run(archive, "storescu", sample("CT_small.dcm")).returncode == 0
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}", "-k", "PatientName"]
    result = run(archive, "findscu", "-S", *keys, "-k", "NumberOfStudyRelatedInstances")
    assert result.returncode == 0, result.stdout
    assert "CompressedSamples^CT1" in result.stdout
    assert "RetrieveAETitle" in result.stdout


def test_movescu_moves_to_a_configured_destination_bit_by_bit(
    archive: tuple[Settings, Archive], tmp_path: Path
) -> None:
    stele = archive[1]
    assert run(archive, "storescu", sample("CT_small.dcm")).returncode == 0
    with storescp(tmp_path / "in", "DEST") as port:
        put(stele, ApplicationEntity("DEST", "127.0.0.1", port))
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
        result = run(archive, "movescu", "-S", "-aem", "DEST", *keys)
        assert result.returncode == 0, result.stdout
    (received,) = (tmp_path / "in").iterdir()
    assert dataset_of(received) == stored_bytes(archive[1])


def test_movescu_to_nobody_is_refused(archive: tuple[Settings, Archive]) -> None:
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
    result = run(archive, "movescu", "-v", "-S", "-aem", "NOBODY", *keys)
    assert result.returncode != 0
    assert "Move Destination unknown" in result.stdout.replace(
        "MoveDestinationUnknown", "Move Destination unknown"
    )


def test_getscu_gets_bit_by_bit(archive: tuple[Settings, Archive], tmp_path: Path) -> None:
    assert run(archive, "storescu", sample("CT_small.dcm")).returncode == 0
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}"]
    result = run(archive, "getscu", "-S", "+B", "-od", str(tmp_path), *keys)
    assert result.returncode == 0, result.stdout
    (received,) = tmp_path.iterdir()
    assert dataset_of(received) == stored_bytes(archive[1])


def stored_bytes(stele: Archive) -> bytes:
    """The dataset of CT_small.dcm as storescu has sent it."""
    stored = stele.catalog.instances.find(dcmread(sample("CT_small.dcm")).SOPInstanceUID)
    assert stored is not None
    return stele.objects.read(stored.stored)


def put(stele: Archive, entity: ApplicationEntity) -> None:
    """Configure an AE and wait until it is in force."""
    actor = Actor("test", "", "node")
    stele.catalog.entities.put(entity, AuditEvent("manage", actor))
    wait_until(
        lambda: (known := stele.policy.find(entity.title)) is not None and known.port == entity.port,
        ENTITY_CACHE_SECONDS + 5,
        "AE in force",
    )
