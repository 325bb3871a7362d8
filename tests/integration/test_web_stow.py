"""STOW-RS (PS3.18 section 10.5) against a running archive: what is taken, what is answered to the rest."""

import base64
import contextlib
import gzip
import http.client
import json
import os
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset

from node import bootstrap
from node.config import Settings
from tests import corpus
from tests.archive import Archive, running_archive
from tests.support import wait_until

DICOM, DICOM_JSON = "application/dicom", "application/dicom+json"
STORED, FAILED, OTHERS = "00081199", "00081198", "0008119A"
Part = tuple[dict[str, str], bytes]
LIMITS = {
    "STELE_HTTP__MAX_PARTS": "5",
    "STELE_HTTP__MAX_REQUEST_BYTES": str(4 << 20),
    "STELE_INTAKE__MAX_OBJECT_BYTES": str(1 << 20),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with running_archive(tmp_path_factory.mktemp("stow")) as running:
        yield running


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An archive with low limits."""
    with running_archive(tmp_path_factory.mktemp("narrow"), environment=LIMITS) as running:
        yield running


def images(seed: int, count: int = 1, size: int = 32) -> list[FileDataset]:
    """Images of a study that belongs to one test."""
    return list(corpus.ct_series(count, size=size, study=corpus.Study(seed=seed)))


def file(image: FileDataset) -> Part:
    return {"Content-Type": DICOM}, corpus.encode(image)


def message(parts: Iterable[Part], end: bytes = b"--frontier--\r\n") -> bytes:
    body = bytearray()
    for headers, content in parts:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        body += b"--frontier\r\n" + lines.encode() + b"\r\n" + content + b"\r\n"
    return bytes(body + end)


def multipart(kind: str = DICOM) -> str:
    return f'multipart/related; type="{kind}"; boundary=frontier'


def post(
    archive: Archive,
    body: bytes | Iterator[bytes],
    content_type: str | None = None,
    study: str = "",
    **headers: str,
) -> requests.Response:
    sent = {"Content-Type": content_type or multipart(), **headers}
    address = f"{archive.base_url}/dicom-web/studies" + (f"/{study}" if study else "")
    return requests.post(address, data=body, headers=sent, timeout=300)


def items(answer: requests.Response, sequence: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer.json().get(sequence, {}).get("Value", [])
    return found


def uids(answer: requests.Response, sequence: str = STORED) -> list[str]:
    return [item["00081155"]["Value"][0] for item in items(answer, sequence)]


def path(image: FileDataset) -> str:
    return (
        f"/dicom-web/studies/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}"
        f"/instances/{image.SOPInstanceUID}"
    )


def retrieve(archive: Archive, image: FileDataset) -> requests.Response:
    headers = {"Accept": "application/dicom; transfer-syntax=*"}
    return requests.get(archive.base_url + path(image), headers=headers, timeout=60)


def bytes_of(archive: Archive) -> int:
    """How many bytes lie in the store, in finished objects or not."""
    found = 0
    for folder, _, files in os.walk(archive.data / "objects"):
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # one that was being filled
                found += (Path(folder) / name).stat().st_size
    return found


# --- Files ---------------------------------------------------------------------------------------


def test_all_are_stored_and_told_where(archive: Archive) -> None:
    sent = images(1001, 3)
    answer = post(archive, message(map(file, sent)))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == DICOM_JSON
    assert set(answer.json()) == {"00081190", STORED}
    assert uids(answer) == [image.SOPInstanceUID for image in sent]
    for image, item in zip(sent, items(answer, STORED), strict=True):
        assert item["00081150"]["Value"] == [image.SOPClassUID]
        assert item["00081190"]["Value"] == [archive.base_url + path(image)]
        assert retrieve(archive, image).status_code == 200
    study = answer.json()["00081190"]["Value"]
    assert study == [f"{archive.base_url}/dicom-web/studies/{sent[0].StudyInstanceUID}"]


def test_storing_again_is_no_failure(archive: Archive) -> None:
    body = message(map(file, images(1002)))
    assert [post(archive, body).status_code for _ in range(2)] == [200, 200]


def test_a_single_file_in_pieces_of_unknown_length(archive: Archive) -> None:
    (image,) = images(1003)
    data = corpus.encode(image)
    answer = post(archive, (data[at : at + 100] for at in range(0, len(data), 100)), DICOM)
    assert answer.status_code == 200
    assert uids(answer) == [image.SOPInstanceUID]


def test_dicomweb_client_stores_into_its_study(archive: Archive) -> None:
    sent = images(1004, 2)
    client = DICOMwebClient(f"{archive.base_url}/dicom-web")
    answer = client.store_instances(sent, study_instance_uid=sent[0].StudyInstanceUID)
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
        image.SOPInstanceUID for image in sent
    ]


def test_the_answer_as_xml(archive: Archive) -> None:
    sent = images(1005)
    answer = post(archive, message(map(file, sent)), Accept="application/dicom+xml")
    assert answer.headers["Content-Type"] == "application/dicom+xml"
    root = ET.fromstring(answer.content)  # noqa: S314 - our own archive's
    named = [each.attrib.get("keyword") for each in root.iter() if "keyword" in each.attrib]
    assert "ReferencedSOPSequence" in named
    assert sent[0].SOPInstanceUID in answer.text


def test_an_answer_that_nobody_wants_stores_nothing(archive: Archive) -> None:
    (image,) = images(1006)
    assert post(archive, message([file(image)]), Accept="text/html").status_code == 406
    assert retrieve(archive, image).status_code == 404


def test_another_study_than_the_address_says(archive: Archive) -> None:
    (image,) = images(1007)
    answer = post(archive, message([file(image)]), study="1.2.3")
    assert answer.status_code == 409
    assert uids(answer, FAILED) == [image.SOPInstanceUID]
    assert items(answer, FAILED)[0]["00081197"]["Value"] == [0xA900]
    assert "Value" not in answer.json()["00081190"]
    assert retrieve(archive, image).status_code == 404


@pytest.mark.parametrize("study", ["x", "1..2", "1.2.%2e%2e", "%2e%2e", "1" * 65])
def test_a_study_that_is_none(archive: Archive, study: str) -> None:
    assert post(archive, message(map(file, images(1008))), study=study).status_code in (400, 404)


def test_one_bad_part_does_not_hold_up_the_others(archive: Archive) -> None:
    first, cut, last = images(1009, 3)
    bad: list[Part] = [
        ({"Content-Type": DICOM}, b"no DICOM file"),
        ({"Content-Type": "image/jpeg"}, b"\xff\xd8\xff"),
        ({"Content-Type": DICOM}, b""),
        ({"Content-Type": DICOM}, corpus.encode(cut)[:-10]),
    ]
    answer = post(archive, message([file(first), *bad, file(last)]))
    assert answer.status_code == 202
    assert uids(answer) == [first.SOPInstanceUID, last.SOPInstanceUID]
    assert uids(answer, FAILED) == [cut.SOPInstanceUID]
    reasons = [item["00081197"]["Value"][0] for item in items(answer, OTHERS)]
    assert reasons == [0xC000] * 3
    assert retrieve(archive, cut).status_code == 404


def test_file_meta_information_that_names_another_instance(archive: Archive) -> None:
    (image,) = images(1010)
    image.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3.4")
    buffer = pydicom.filebase.DicomBytesIO()
    pydicom.dcmwrite(buffer, image)
    answer = post(archive, message([({"Content-Type": DICOM}, buffer.getvalue())]))
    assert answer.status_code == 409
    assert items(answer, FAILED)[0]["00081197"]["Value"] == [0xA900]


def test_what_came_before_a_break_is_stored_and_told(archive: Archive) -> None:
    first, second = images(1011, 2)
    broken = message([file(first), file(second)], end=b"")[:-50]
    answer = post(archive, broken)
    assert answer.status_code == 202
    assert uids(answer) == [first.SOPInstanceUID]
    assert uids(answer, FAILED) == [second.SOPInstanceUID]
    assert retrieve(archive, first).status_code == 200
    assert retrieve(archive, second).status_code == 404
    answer = post(archive, message([file(first)], end=b"--frontier oops\r\n\r\n"))
    assert answer.status_code == 202
    assert len(items(answer, OTHERS)) == 1


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", multipart()),
        (b"--frontier--\r\n", multipart()),
        (b"nothing of the kind", multipart()),
        (message([({"Content-Type": DICOM}, b"x")], end=b""), multipart()),
        (message([({"Content-Type": DICOM}, b"x")]), f'multipart/related; type="{DICOM}"'),
        (message([({"Content-Type": DICOM}, b"x")]), f'multipart/related; type="{DICOM}"; boundary="\xe9"'),
        (message([({"Content-Type": DICOM}, b"x")]), f"multipart/related; type={DICOM}; boundary={'x' * 71}"),
    ],
)
def test_malformed_messages(archive: Archive, body: bytes, content_type: str) -> None:
    answer = post(archive, body, content_type)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "content_type",
    [
        "application/dicom+xml",
        "text/plain",
        "multipart/related; boundary=frontier",
        "multipart/related; type=application/dicom+xml; boundary=frontier",
        "multipart/form-data; boundary=frontier",
        "nonsense",
    ],
)
def test_other_types_are_not_taken(archive: Archive, content_type: str) -> None:
    answer = post(archive, message(map(file, images(1012))), content_type)
    assert answer.status_code == 415
    assert DICOM in answer.headers["Accept"]


def test_compressed_bodies_are_not_taken(archive: Archive) -> None:
    body = gzip.compress(message(map(file, images(1013))))
    assert post(archive, body, **{"Content-Encoding": "gzip"}).status_code == 415


@pytest.mark.slow
def test_ten_thousand_parts(archive: Archive) -> None:
    (image,) = images(1014)

    def body() -> Iterator[bytes]:
        for _ in range(10_000):
            yield message([({"Content-Type": "text/plain"}, b"x")], end=b"")
        yield message([file(image)])

    before = refusals_audited(archive)
    answer = post(archive, body())
    assert answer.status_code == 202
    assert len(items(answer, OTHERS)) == 10_000
    assert uids(answer) == [image.SOPInstanceUID]
    (outcome, detail) = refusals_audited(archive)[len(before) :][0]
    assert (outcome, detail["instances"]) == ("not_understood", 10_000)
    assert len(refusals_audited(archive)) == len(before) + 1


def test_one_event_tells_of_all_that_was_refused_for_a_reason(archive: Archive) -> None:
    cut, foreign, stored = images(1030, 3)
    before = refusals_audited(archive)
    whole, other = corpus.encode(cut), images(1031)[0].StudyInstanceUID
    parts = [({"Content-Type": DICOM}, whole[: -3 - number]) for number in range(3)]
    answer = post(archive, message([*parts, file(foreign)]), study=other)
    assert answer.status_code == 409
    assert post(archive, message([file(stored)])).status_code == 200
    told = dict(refusals_audited(archive)[len(before) :])
    assert {reason: detail["instances"] for reason, detail in told.items()} == {
        "not_understood": 3,
        "mismatch": 1,
    }
    assert told["not_understood"]["instance_uids"] == [cut.SOPInstanceUID] * 3
    assert told["not_understood"]["bytes"] > len(whole)
    assert told["mismatch"]["instance_uids"] == [foreign.SOPInstanceUID]


def test_a_message_that_breaks_off_leaves_the_events_of_its_parts(archive: Archive) -> None:
    before = refusals_audited(archive)
    body = message([({"Content-Type": DICOM}, b"nothing")] * 3, end=b"")  # the third one never ends
    assert post(archive, body).status_code == 400
    ((reason, detail),) = refusals_audited(archive)[len(before) :]
    assert (reason, detail["instances"]) == ("not_understood", 2)


def refusals_audited(archive: Archive) -> list[tuple[str, dict[str, Any]]]:
    """(reason, detail) of the refused stores in the audit trail, oldest first."""
    settings = bootstrap.resolved(bootstrap.run_file(Settings(data=archive.data)))
    with psycopg.connect(settings.catalog.dsn) as connection:
        found = connection.execute(
            "SELECT outcome, detail FROM audit_events WHERE action = 'store' AND outcome <> 'success'"
            " ORDER BY event_id"
        )
        return found.fetchall()


def test_a_sender_that_goes_away_leaves_nothing(archive: Archive) -> None:
    (image,) = images(1015, size=2560)  # half of it is more than is held in memory
    body = message([file(image)])
    before = bytes_of(archive)
    logged = archive.log.count('"complete"')
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1:{archive.http_port}\r\n"
        f"Content-Type: {multipart()}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", archive.http_port), timeout=30) as connection:
        connection.sendall(head.encode() + body[: len(body) // 2])
        wait_until(lambda: bytes_of(archive) > before, 30, "the object begun on disk")
    wait_until(lambda: archive.log.count('"complete"') > logged, 30, "the request's end logged")
    assert retrieve(archive, image).status_code == 404
    assert bytes_of(archive) == before
    assert post(archive, body).status_code == 200


# --- Limits --------------------------------------------------------------------------------------


def test_a_request_that_says_it_is_too_large(narrow: Archive) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", narrow.http_port, timeout=60)
    connection.putrequest("POST", "/dicom-web/studies")
    connection.putheader("Content-Type", multipart())
    connection.putheader("Content-Length", str(5 << 20))
    connection.endheaders(bytes(5 << 20))
    assert connection.getresponse().status == 413
    connection.close()


def test_a_request_that_grows_too_large(narrow: Archive) -> None:
    (image,) = images(1101)
    junk: Part = ({"Content-Type": "text/plain"}, bytes(5 << 20))
    assert post(narrow, iter([message([junk])])).status_code == 413
    answer = post(narrow, iter([message([file(image), junk])]))
    assert answer.status_code == 202
    assert uids(answer) == [image.SOPInstanceUID]


def test_an_instance_that_is_too_large(narrow: Archive) -> None:
    (large,), (small,) = images(1102, size=1024), images(1103)
    answer = post(narrow, message([file(large)]))
    assert answer.status_code == 413
    assert uids(answer, FAILED) == [large.SOPInstanceUID]
    assert items(answer, FAILED)[0]["00081197"]["Value"] == [0xC002]
    assert post(narrow, message([file(large), file(small)])).status_code == 202


def test_too_many_parts(narrow: Archive) -> None:
    sent = images(1104, 6)
    answer = post(narrow, message(map(file, sent)))
    assert answer.status_code == 202
    assert len(uids(answer)) == 5
    assert len(items(answer, OTHERS)) == 1


def test_only_those_who_may_store_do(tmp_path: Path) -> None:
    with running_archive(tmp_path, arguments=()) as closed:
        (image,) = images(1105)
        body = message([file(image)])
        expected = {"viewer": 403, "technologist": 200}
        for role, code in expected.items():
            token = _token(closed, role)
            assert post(closed, body, Authorization=f"Bearer {token}").status_code == code, role
        assert post(closed, body).status_code == 401


def _token(archive: Archive, role: str) -> str:
    command = [sys.executable, "-m", "node.cli", "machine", "add", f"machine-{role}", "--role", role]
    command += ["--data", str(archive.data)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()[-1]


# --- Metadata with bulk data ---------------------------------------------------------------------


def metadata_of(image: FileDataset, location: str) -> dict[str, Any]:
    """The image's metadata as pydicom writes it, its pixels elsewhere."""
    metadata: dict[str, Any] = image.to_json_dict(bulk_data_threshold=1 << 30, suppress_invalid_tags=False)
    metadata["7FE00010"] = {"vr": image["PixelData"].VR, "BulkDataURI": location}
    return metadata


def post_metadata(archive: Archive, metadata: object, *bulk: Part) -> requests.Response:
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    parts = [({"Content-Type": DICOM_JSON}, text), *bulk]
    return post(archive, message(parts), multipart(DICOM_JSON))


def test_metadata_and_pixels_make_an_image(archive: Archive) -> None:
    sent = images(1201, 2)
    bulk = [
        ({"Content-Type": "application/octet-stream", "Content-Location": f"p/{n}"}, image.PixelData)
        for n, image in enumerate(sent)
    ]
    answer = post_metadata(archive, [metadata_of(image, f"p/{n}") for n, image in enumerate(sent)], *bulk)
    assert answer.status_code == 200
    assert uids(answer) == [image.SOPInstanceUID for image in sent]
    for image in sent:
        read = pydicom.dcmread(pydicom.filebase.DicomBytesIO(retrieve(archive, image).content))
        assert read.pixel_array.tolist() == image.pixel_array.tolist()
        differing = [
            element.keyword
            for element in image
            if element.tag not in read
            or (read[element.tag].value or None) != (element.value or None)  # "" is read for None
        ]
        assert set(differing) <= {"SpecificCharacterSet"}


def test_compressed_frames_make_an_image(archive: Archive) -> None:
    image = pydicom.dcmread(str(get_testdata_file("JPEG2000.dcm")))
    image.SOPInstanceUID = "2.25.1202"
    frame = next(pydicom.encaps.generate_frames(image.PixelData, number_of_frames=1))
    syntax = image.file_meta.TransferSyntaxUID
    headers = {
        "Content-Type": f"application/octet-stream; transfer-syntax={syntax}",
        "Content-ID": "<frame@1>",
    }
    assert post_metadata(archive, [metadata_of(image, "cid:frame@1")], (headers, frame)).status_code == 200
    read = pydicom.dcmread(pydicom.filebase.DicomBytesIO(retrieve(archive, image).content))
    assert read.file_meta.TransferSyntaxUID == syntax
    assert next(pydicom.encaps.generate_frames(read.PixelData, number_of_frames=1)) == frame


def test_nothing_is_ever_fetched(archive: Archive) -> None:
    (image,) = images(1203)
    with socket.create_server(("127.0.0.1", 0)) as internal:
        internal.settimeout(0.5)
        address = f"http://127.0.0.1:{internal.getsockname()[1]}/pixels"
        assert post_metadata(archive, [metadata_of(image, address)]).status_code == 400
        with pytest.raises(TimeoutError):
            internal.accept()
    assert retrieve(archive, image).status_code == 404


@pytest.mark.parametrize(
    "metadata", [b"[" * 1_000_000, b'[{"00081140":' * 100_000, b"{", b"7", b"[]", b"[{}]", b"[NaN]"]
)
def test_what_is_no_metadata(archive: Archive, metadata: bytes) -> None:
    assert post_metadata(archive, metadata).status_code == 400


def test_a_sequence_two_hundred_deep(archive: Archive) -> None:
    (image,) = images(1204)
    nested: dict[str, Any] = {}
    for _ in range(200):
        nested = {"00081140": {"vr": "SQ", "Value": [nested]}}
    metadata = {**image.to_json_dict(), **nested}
    metadata["7FE00010"] = {"vr": "OW", "InlineBinary": base64.b64encode(image.PixelData).decode()}
    assert post_metadata(archive, [metadata]).status_code == 400


def test_a_study_is_checked_here_too(archive: Archive) -> None:
    (image,) = images(1205)
    text = json.dumps([image.to_json_dict()]).encode()
    body = message([({"Content-Type": DICOM_JSON}, text)])
    answer = post(archive, body, multipart(DICOM_JSON), study="1.2.3")
    assert answer.status_code == 409
    assert uids(answer, FAILED) == [image.SOPInstanceUID]
