"""Datasets and Part 10 files that lie, by C-STORE and by STOW-RS."""

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, generate_uid

from tests import corpus
from tests.hostile.target import CANARY, STUDIES, Target, an_image
from tests.integration.dimse_peer import CT, EXPLICIT, Peer, context, dataset_of
from tests.unit.adapters.test_codecs_codestreams import siz
from tests.unit.domain.encoding import element, item, nested

pytestmark = pytest.mark.usefixtures("unharmed")

DEFLATED = "1.2.840.10008.1.2.1.99"
FAILED = "00081198"


def header_of(instance_uid: str, class_uid: str = CT) -> bytes:
    """The least that identifies an instance, in Explicit VR Little Endian."""

    def uid(tag: int, value: str) -> bytes:
        return element(tag, "UI", value.encode() + b"\0" * (len(value) % 2))

    return b"".join(
        (
            uid(0x00080016, class_uid),
            uid(0x00080018, instance_uid),
            element(0x00100010, "PN", CANARY.encode()),
            uid(0x0020000D, instance_uid + ".1"),
            uid(0x0020000E, instance_uid + ".2"),
        )
    )


def part10(instance_uid: str, dataset: bytes, syntax: str = EXPLICIT, preamble: bytes = bytes(128)) -> bytes:
    """A file around a dataset."""

    def uid(tag: int, value: str) -> bytes:
        return element(tag, "UI", value.encode() + b"\0" * (len(value) % 2))

    meta = uid(0x00020002, CT) + uid(0x00020003, instance_uid) + uid(0x00020010, syntax)
    return preamble + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + dataset


def by_store(target: Target, uid: str, dataset: bytes, syntax: str = EXPLICIT) -> int | None:
    """A C-STORE's status."""
    peer = Peer.associated(target.dicom_port, context(1, CT, syntax))
    pieces = [dataset[at : at + 60_000] for at in range(0, len(dataset), 60_000)]
    status = peer.store(1, uid, pieces).status
    peer.release()
    return status


def by_stow(target: Target, uid: str, dataset: bytes, syntax: str = EXPLICIT) -> int | None:
    """The Failure Reason of a STOW-RS of one file, which has to fail."""
    answer = target.store(part10(uid, dataset, syntax))
    assert answer.status_code in (400, 409, 413), answer.text
    assert CANARY not in answer.text
    return int(answer.json()[FAILED]["Value"][0]["00081197"]["Value"][0])


Send = Callable[[Target, str, bytes, str], int | None]


@pytest.fixture(params=[by_store, by_stow], ids=["C-STORE", "STOW-RS"])
def send(request: pytest.FixtureRequest) -> Send:
    """Both ways into the archive."""
    chosen: Send = request.param
    return chosen


def deflated(dataset: bytes, zeros: int = 0) -> bytes:
    """The dataset, and behind it so many MiB of zeros, as a raw deflate stream."""
    stream = zlib.compressobj(9, wbits=-15)
    return b"".join(
        (
            stream.compress(dataset),
            *(stream.compress(bytes(1 << 20)) for _ in range(zeros)),
            stream.flush(),
        )
    )


PIXELS = element(0x7FE00010, "OW", b"", 600 << 20)
LIES = {
    "sequence depth 200": (nested(200), EXPLICIT, 0xC000),
    "PixelData says 4 GiB, holds 4 bytes": (
        element(0x7FE00010, "OW", b"abcd", 0xFFFFFFFE),
        EXPLICIT,
        0xC000,
    ),
    "Rows as UL": (element(0x00280010, "UL", struct.pack("<I", 512)), EXPLICIT, 0xA900),
    "unknown VR": (element(0x00280010, "ZZ", b"ab"), EXPLICIT, 0xC000),
    "element of file meta information": (element(0x00020010, "UI", b"1.2\0"), EXPLICIT, 0xC000),
    "item longer than its sequence": (
        element(0x00409096, "SQ", item(b"", 5000)),
        EXPLICIT,
        0xC000,
    ),
    "no deflate stream": (b"\xff" * 100, DEFLATED, 0xC000),
}


@pytest.mark.parametrize("name", LIES)
def test_a_dataset_that_lies(target: Target, send: Send, name: str) -> None:
    """C000, cannot understand; A900 where an attribute has another VR than its own (PS3.4 table B.2-1)."""
    lie, syntax, status = LIES[name]
    uid = generate_uid()
    dataset = lie if syntax == DEFLATED else header_of(uid) + lie
    assert send(target, uid, dataset, syntax) == status
    assert not target.has(uid)


def test_a_deflate_bomb(target: Target, send: Send) -> None:
    """600 kB that inflate to 600 MiB, with a length that adds up: refused in the memory that every test may
    take. C002 rather than C000: both are "cannot understand" (Cxxx) to a sender, and the archive tells a
    limit from a broken dataset."""
    uid = generate_uid()
    bomb = deflated(header_of(uid) + PIXELS, zeros=600)
    assert len(bomb) < 1 << 20
    assert send(target, uid, bomb, DEFLATED) == 0xC002
    assert not target.has(uid)


def test_a_million_elements(target: Target, send: Send) -> None:
    """Small items that a parser would make large ones of: C002 at a limit."""
    uid = generate_uid()
    dataset = header_of(uid) + element(0x00409096, "SQ", item(b"") * 1_000_000)
    assert send(target, uid, dataset, EXPLICIT) == 0xC002


@pytest.mark.unnoticed("it is mended, not refused")
@pytest.mark.parametrize("program", [b"MZ\x90\0", b"\x7fELF", b"#!/bin/sh\n"], ids=["PE", "ELF", "script"])
def test_an_executable_preamble(target: Target, program: bytes) -> None:
    """CVE-2019-11687: a file that is a program too. It is stored, its preamble zeroed (PS3.10 section 7.1
    leaves its use to others), and the audit says so."""
    image = an_image()
    image.preamble = program.ljust(128, b"\x90")
    before = target.audited(action="store", outcome="preamble_removed")
    answer = target.store(image)
    assert answer.status_code == 200
    (stored,) = answer.json()["00081199"]["Value"]
    back = target.get(
        stored["00081190"]["Value"][0].partition("/dicom-web")[2].join(("/dicom-web", "")),
        Accept="application/dicom; transfer-syntax=*",
    )
    assert back.content[:132] == bytes(128) + b"DICM"
    assert dataset_of(back.content) == dataset_of(corpus.encode(image))
    assert target.audited(action="store", outcome="preamble_removed") == before + 1
    for path in (target.archive.data / "objects").glob("??/*"):
        with suppress(FileNotFoundError):  # one that was being written, and has been given up
            assert path.read_bytes()[:4] != program[:4]


def test_a_kilobyte_of_j2k_that_claims_a_gigapixel(target: Target) -> None:
    """Stored, since it may be what it says; rendering it is refused with 406 and costs nothing."""
    image = an_image()
    image.Rows = image.Columns = 65535
    image.PixelData = encapsulate([siz(65535, 65535) + bytes(1000)])
    image["PixelData"].is_undefined_length = True
    image["PixelData"].VR = "OB"
    image.file_meta.TransferSyntaxUID = JPEG2000
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, image, enforce_file_format=True)
    assert target.store(buffer.getvalue()).status_code == 200
    address = f"{STUDIES}/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}"
    instance = f"{address}/instances/{image.SOPInstanceUID}"
    for below, accept in (("/rendered", "image/png"), ("/thumbnail", "image/jpeg"), ("/frames/1", "*/*")):
        answer = target.get(instance + below, Accept=accept)
        if below == "/frames/1":
            continue  # as stored it may be had
        assert answer.status_code == 406, answer.text
    decoded = target.get(f"{instance}/frames/1", Accept="application/octet-stream")
    assert decoded.status_code == 406


def test_a_dicomdir(target: Target) -> None:
    """Refused, whatever its file names are: it is no composite instance (0122 on a C-STORE's context, which
    is not even accepted; A900 in STOW-RS, since it names no study). No path in it is ever followed."""
    directory = "1.2.840.10008.1.3.10"
    uid = generate_uid()
    record = element(0x00041500, "CS", b"..\\..\\ETC\\PASSWD ")
    dataset = (
        element(0x00041130, "CS", CANARY.encode())
        + element(0x00041220, "SQ", item(record))
        + element(0x00080016, "UI", directory.encode())
        + element(0x00080018, "UI", uid.encode() + b"\0" * (len(uid) % 2))
    )
    assert by_stow(target, uid, dataset) == 0xA900
    peer = Peer.connect(target.dicom_port)
    from tests.integration.dimse_peer import request

    peer.send(request(context(1, directory, EXPLICIT)))
    kind, body = peer.read_pdu()
    assert kind == 2
    assert body[body.index(b"\x21\0\0") + 6] == 3


@pytest.mark.unnoticed("HTML is text like any other")
def test_html_in_a_patient_name(target: Target) -> None:
    """Stored raw; escaped in XML, marked as what it is in JSON, and on no page of the archive's own."""
    image = an_image()
    name = "<script>alert(1)</script>^<svg onload>"
    image.PatientName = name
    assert target.store(image).status_code == 200
    address = f"{STUDIES}?StudyInstanceUID={image.StudyInstanceUID}"
    found = target.get(address, Accept="application/dicom+json")
    assert found.json()[0]["00100010"]["Value"] == [{"Alphabetic": name}]
    assert found.headers["Content-Type"] == "application/dicom+json"
    study = f"{STUDIES}/{image.StudyInstanceUID}"
    written = target.get(f"{study}/metadata", Accept='multipart/related; type="application/dicom+xml"')
    assert written.status_code == 200
    assert "&lt;script&gt;" in written.text
    assert "<script>" not in written.text
    whole = target.get(study, Accept='multipart/related; type="application/dicom"; transfer-syntax=*')
    assert name.encode() in whole.content
    for answer in (found, written, whole, target.get(f"{STUDIES}?PatientName=<script>")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff", answer.url
        assert "html" not in answer.headers["Content-Type"]


def test_noise(target: Target, send: Send) -> None:
    """Bytes without any meaning: C000."""
    noise = np.random.default_rng(1).bytes(100_000)
    assert send(target, generate_uid(), noise, EXPLICIT) == 0xC000
