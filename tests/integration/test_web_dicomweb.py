"""DICOMweb as its users have it: dicomweb-client and plain HTTP against a running archive."""

import copy
import email
import email.message
import gzip
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from node.web.openapi import description
from tests import corpus
from tests.archive import Archive, running_archive

NAMES = ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "US1_J2KR.dcm", "color3d_jpeg_baseline.dcm")
SLICES = 25


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with running_archive(tmp_path_factory.mktemp("web")) as running:
        yield running


@pytest.fixture(scope="module")
def client(archive: Archive) -> DICOMwebClient:
    return DICOMwebClient(f"{archive.base_url}/dicom-web")


@pytest.fixture(scope="module")
def stored(client: DICOMwebClient) -> dict[str, FileDataset]:
    images = {name: pydicom.dcmread(str(get_testdata_file(name))) for name in NAMES}
    answer = client.store_instances(list(images.values()))
    assert len(answer.ReferencedSOPSequence) == len(images)
    assert "FailedSOPSequence" not in answer
    return images


@pytest.fixture(scope="module")
def series(client: DICOMwebClient) -> list[FileDataset]:
    slices = list(corpus.ct_series(SLICES, size=64, study=corpus.Study(seed=7)))
    client.store_instances(slices)
    return slices


def path(image: FileDataset) -> str:
    return (
        f"/dicom-web/studies/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}"
        f"/instances/{image.SOPInstanceUID}"
    )


def get(archive: Archive, address: str, accept: str = "*/*", **headers: str) -> requests.Response:
    return requests.get(f"{archive.base_url}{address}", headers={"Accept": accept, **headers}, timeout=60)


@pytest.mark.parametrize("name", NAMES)
def test_what_went_in_comes_out_byte_identical(
    client: DICOMwebClient, stored: dict[str, FileDataset], name: str, archive: Archive
) -> None:
    image = stored[name]
    sent = Path(str(get_testdata_file(name))).read_bytes()
    answer = get(archive, path(image), "application/dicom; transfer-syntax=*")
    assert answer.status_code == 200
    received = answer.content
    assert _dataset(received) == _dataset(sent)
    assert pydicom.dcmread(_file(received)).file_meta.TransferSyntaxUID == image.file_meta.TransferSyntaxUID


def _dataset(part10: bytes) -> bytes:
    length = pydicom.dcmread(_file(part10)).file_meta.FileMetaInformationGroupLength
    return part10[132 + 12 + length :]


def _file(data: bytes) -> pydicom.filebase.DicomBytesIO:
    return pydicom.filebase.DicomBytesIO(data)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_syntax_it_comes_uncompressed(
    archive: Archive, stored: dict[str, FileDataset], name: str
) -> None:
    answer = get(archive, path(stored[name]), "application/dicom")
    image = pydicom.dcmread(_file(answer.content))
    assert image.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert image.pixel_array.shape == stored[name].pixel_array.shape


def test_searches_find_what_was_stored(client: DICOMwebClient, series: list[FileDataset]) -> None:
    first = series[0]
    found = client.search_for_studies(search_filters={"PatientID": first.PatientID})
    assert first.StudyInstanceUID in [each["0020000D"]["Value"][0] for each in found]
    study = next(each for each in found if each["0020000D"]["Value"][0] == first.StudyInstanceUID)
    assert study["00201208"]["Value"] == [SLICES]
    assert study["00080061"]["Value"] == ["CT"]
    instances = client.search_for_instances(first.StudyInstanceUID, first.SeriesInstanceUID)
    assert {each["00080018"]["Value"][0] for each in instances} == {each.SOPInstanceUID for each in series}


def test_pages_follow_their_links_to_every_instance_once(archive: Archive, series: list[FileDataset]) -> None:
    address = f"/dicom-web/studies/{series[0].StudyInstanceUID}/instances?limit=7"
    seen: list[str] = []
    while address:
        answer = get(archive, address)
        seen += [each["00080018"]["Value"][0] for each in answer.json()]
        link = re.match(r"<([^>]*)>", answer.headers.get("Link", ""))
        address = link[1] if link else ""
    assert sorted(seen) == sorted(each.SOPInstanceUID for each in series)


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=x", "offset=-1", "nonsense=1", "StudyDate=2020-01-01-x", "fuzzymatching=perhaps"],
)
def test_a_wrong_query_is_refused(archive: Archive, query: str) -> None:
    answer = get(archive, f"/dicom-web/studies?{query}")
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_series_metadata_is_versioned_and_compressed(archive: Archive, series: list[FileDataset]) -> None:
    first = series[0]
    address = f"/dicom-web/studies/{first.StudyInstanceUID}/series/{first.SeriesInstanceUID}/metadata"
    answer = get(archive, address, "application/dicom+json", **{"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    metadata = answer.json()
    assert [each["00080018"]["Value"][0] for each in metadata] == [each.SOPInstanceUID for each in series]
    bulk = metadata[0]["7FE00010"]["BulkDataURI"]
    assert get(archive, bulk, "application/octet-stream").content == first.PixelData
    again = get(archive, address, "application/dicom+json", **{"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304
    plain = get(archive, address, "application/dicom+json", **{"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert plain.json() == metadata
    assert gzip.compress(plain.content)  # it is bytes, not compressed twice


def test_frames_as_stored_and_decoded(archive: Archive, stored: dict[str, FileDataset]) -> None:
    compressed = stored["US1_J2KR.dcm"]
    as_stored = get(archive, f"{path(compressed)}/frames/1", "image/jp2")
    assert as_stored.status_code == 200
    assert as_stored.content.startswith(b"\xff\x4f\xff\x51")
    decoded = get(archive, f"{path(compressed)}/frames/1", "application/octet-stream")
    assert len(decoded.content) == compressed.pixel_array.nbytes
    plain = stored["CT_small.dcm"]
    assert get(archive, f"{path(plain)}/frames/1", "application/octet-stream").content == plain.PixelData
    assert get(archive, f"{path(plain)}/frames/999999").status_code == 404
    assert get(archive, f"{path(plain)}/frames/0").status_code == 400
    assert get(archive, f"{path(plain)}/frames/1", "video/mp4").status_code == 406


def test_ranges_of_an_instance(archive: Archive, stored: dict[str, FileDataset]) -> None:
    address = path(stored["CT_small.dcm"])
    whole = get(archive, address, "application/dicom; transfer-syntax=*")
    part = get(archive, address, "application/dicom; transfer-syntax=*", Range="bytes=100-299")
    assert part.status_code == 206
    assert part.content == whole.content[100:300]
    assert "immutable" in whole.headers["Cache-Control"]
    beyond = get(archive, address, "application/dicom; transfer-syntax=*", Range="bytes=99999999-")
    assert beyond.status_code == 416


@pytest.mark.parametrize(("accept", "magic"), [("image/jpeg", b"\xff\xd8"), ("image/png", b"\x89PNG")])
def test_rendered_images_and_thumbnails(
    archive: Archive, stored: dict[str, FileDataset], accept: str, magic: bytes
) -> None:
    image = stored["CT_small.dcm"]
    for address in (
        f"{path(image)}/rendered?window=40,400,linear&viewport=64,64&quality=80",
        f"{path(image)}/thumbnail",
        f"/dicom-web/studies/{image.StudyInstanceUID}/thumbnail",
    ):
        answer = get(archive, address, accept)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == accept
        assert answer.content.startswith(magic)
    assert get(archive, f"{path(image)}/rendered", "image/tiff").status_code == 406
    assert get(archive, f"{path(image)}/rendered?window=1").status_code == 400


def test_listed_frames_are_rendered_in_the_order_of_the_list(
    archive: Archive, client: DICOMwebClient
) -> None:
    (cine,) = corpus.ct_series(1, size=32, study=corpus.Study(seed=24))
    cine.NumberOfFrames = 3
    cine.PixelData = b"".join(struct.pack("<1024H", *([value] * 1024)) for value in (900, 1000, 1100))
    client.store_instances([cine])
    below = f"{path(cine)}/frames"
    alone = {
        number: get(archive, f"{below}/{number}/rendered?window=0,400", "image/png").content
        for number in (1, 2, 3)
    }
    assert len(set(alone.values())) == 3
    asked = 'multipart/related; type="image/png"'
    answer = get(archive, f"{below}/3,1,3/rendered?window=0,400", asked)
    assert answer.status_code == 200
    parts = list(parts_of(answer))
    assert [headers["content-location"] for headers, _ in parts] == [
        f"{below}/{number}/rendered" for number in (3, 1, 3)
    ]
    assert {headers["content-type"] for headers, _ in parts} == {"image/png"}
    assert [png for _, png in parts] == [alone[3], alone[1], alone[3]]
    known = {"If-None-Match": answer.headers["ETag"]}
    assert get(archive, f"{below}/3,1,3/rendered?window=0,400", asked, **known).status_code == 304
    assert get(archive, f"{below}/1,3/rendered?window=0,400", asked, **known).status_code == 200
    assert len(list(parts_of(get(archive, f"{below}/1,2/rendered")))) == 2
    assert get(archive, f"{below}/1,2/rendered", "image/png").status_code == 406
    assert get(archive, f"{below}/1,4/rendered", asked).status_code == 404
    assert get(archive, f"{below}/1,2/thumbnail").status_code == 406


def test_a_series_is_rendered_in_order_without_what_is_no_image(
    archive: Archive, client: DICOMwebClient
) -> None:
    slices = list(corpus.ct_series(3, size=32, study=corpus.Study(seed=20)))
    report = copy.deepcopy(slices[1])
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = UID("2.25.2001")
    del report.PixelData
    broken = copy.deepcopy(slices[1])  # an image, but for the decoder
    broken.SOPInstanceUID = broken.file_meta.MediaStorageSOPInstanceUID = UID("2.25.2002")
    broken.Rows, broken.InstanceNumber = 60000, 3
    client.store_instances([*reversed(slices), report, broken])
    study = f"/dicom-web/studies/{slices[0].StudyInstanceUID}"
    for address in (study, f"{study}/series/{slices[0].SeriesInstanceUID}"):
        answer = get(archive, f"{address}/rendered?viewport=16,16", 'multipart/related; type="image/png"')
        assert answer.status_code == 200
        parts = list(parts_of(answer))
        assert [headers["content-location"] for headers, _ in parts] == [
            f"{path(image)}/rendered" for image in slices
        ]
        for (headers, png), image in zip(parts, slices, strict=True):
            assert headers["content-type"] == "image/png"
            alone = get(archive, f"{path(image)}/rendered?viewport=16,16", "image/png")
            assert png == alone.content
        known = {"If-None-Match": answer.headers["ETag"]}
        again = get(
            archive, f"{address}/rendered?viewport=16,16", "multipart/related; type=image/png", **known
        )
        assert again.status_code == 304
        headers, _ = next(parts_of(get(archive, f"{address}/rendered")))
        assert headers["content-type"] == "image/jpeg"
        assert get(archive, f"{address}/rendered", "image/png").status_code == 406
        assert get(archive, f"{address}/thumbnail", "image/png").status_code == 200


def test_one_image_alone_is_rendered_plain_where_that_is_asked_for(
    archive: Archive, client: DICOMwebClient
) -> None:
    (image,) = corpus.ct_series(1, size=32, study=corpus.Study(seed=21))
    report = copy.deepcopy(image)
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = UID("2.25.2003")
    del report.PixelData
    client.store_instances([image, report])
    address = f"/dicom-web/studies/{image.StudyInstanceUID}/rendered"
    plain = get(archive, address, "image/png")
    assert (plain.status_code, plain.headers["Content-Type"]) == (200, "image/png")
    assert plain.content == get(archive, f"{path(image)}/rendered", "image/png").content
    ((_, part),) = parts_of(get(archive, address, 'multipart/related; type="image/png"'))
    assert part == plain.content


def test_nothing_to_render_is_not_acceptable(archive: Archive, client: DICOMwebClient) -> None:
    (report,) = corpus.ct_series(1, size=32, study=corpus.Study(seed=22))
    del report.PixelData
    (broken,) = corpus.ct_series(1, size=32, study=corpus.Study(seed=23))
    broken.Rows = 60000
    client.store_instances([report, broken])
    for image in (report, broken):
        answer = get(archive, f"/dicom-web/studies/{image.StudyInstanceUID}/rendered")
        assert answer.status_code == 406
    assert get(archive, "/dicom-web/studies/1.2.3.4/rendered").status_code == 404


def parts_of(answer: requests.Response) -> Iterator[tuple[dict[str, str], bytes]]:
    """(headers, content) of each part."""
    message = email.message_from_bytes(
        f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode() + answer.content
    )
    assert message.is_multipart()
    for part in message.get_payload():
        assert isinstance(part, email.message.Message)
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        yield {name.lower(): value for name, value in part.items()}, content


def test_dates_and_versions_of_what_is_retrieved(archive: Archive, client: DICOMwebClient) -> None:
    first, second = corpus.ct_series(2, size=32, study=corpus.Study(seed=25))
    client.store_instances([first, second])
    study = f"/dicom-web/studies/{first.StudyInstanceUID}"
    for accept in ("application/dicom", 'multipart/related; type="application/dicom"'):
        whole = get(archive, path(first), accept)
        since = {"If-Modified-Since": whole.headers["Last-Modified"]}
        assert get(archive, path(first), accept, **since).status_code == 304
        assert (
            get(archive, path(first), accept, **{"If-None-Match": whole.headers["ETag"]}).status_code == 304
        )
        old = {"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"}
        assert get(archive, path(first), accept, **old).status_code == 200
    both = get(archive, study)
    assert both.headers["Cache-Control"] == "private, no-cache"
    known = {"If-None-Match": both.headers["ETag"]}
    assert get(archive, study, **known).status_code == 304
    since = {"If-Modified-Since": both.headers["Last-Modified"]}
    client.delete_instance(second.StudyInstanceUID, second.SeriesInstanceUID, second.SOPInstanceUID)
    assert get(archive, study, **since).status_code == 200  # one is gone, and no date tells
    assert get(archive, study, **known).status_code == 200


def test_other_bytes_under_a_known_uid_are_refused(archive: Archive, series: list[FileDataset]) -> None:
    changed = next(iter(corpus.ct_series(1, size=64, study=corpus.Study(seed=7))))
    before = get(archive, path(changed), "application/dicom; transfer-syntax=*").content
    changed.PatientComments = "other bytes"
    answer = requests.post(
        f"{archive.base_url}/dicom-web/studies",
        data=corpus.encode(changed),
        headers={"Content-Type": "application/dicom"},
        timeout=60,
    )
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081155"]["Value"] == [changed.SOPInstanceUID]
    assert get(archive, path(changed), "application/dicom; transfer-syntax=*").content == before


def test_what_was_deleted_is_gone_and_nothing_else(archive: Archive, client: DICOMwebClient) -> None:
    kept, gone = (next(iter(corpus.ct_series(1, size=32, study=corpus.Study(seed=n)))) for n in (8, 9))
    client.store_instances([kept, gone])
    address = f"{archive.base_url}/dicom-web/studies/{gone.StudyInstanceUID}"
    assert requests.delete(address, timeout=60).status_code == 204
    assert requests.get(address, timeout=60).status_code == 404
    assert requests.delete(address, timeout=60).status_code == 404
    assert get(archive, path(kept)).status_code == 200


def test_nobody_is_let_in_without_login_or_token(tmp_path: Path) -> None:
    with running_archive(tmp_path, arguments=()) as closed:
        for address in ("/dicom-web/studies", "/viewer/", "/", "/dicom-web/studies?token=x"):
            answer = requests.get(f"{closed.base_url}{address}", timeout=30, allow_redirects=False)
            assert answer.status_code == 401, address
        assert get(closed, "/health/ready").status_code == 200
        wrong = get(closed, "/dicom-web/studies", Authorization="Bearer nonsense")
        assert wrong.status_code == 401
        page = get(closed, "/", "text/html")
        assert page.url.endswith("/login?next=%2F")


def test_the_description_names_every_address_that_is_served(archive: Archive) -> None:
    served = requests.get(f"{archive.base_url}/openapi.json", timeout=30).json()
    assert served == description()
    for address, operations in served["paths"].items():
        concrete = re.sub(r"\{(study|series|instance)\}", "1.2.3", address).replace("{numbers}", "1")
        concrete = concrete.replace("{path}", "7FE00010")
        for method in set(operations) & {"get", "post", "delete"}:
            answer = requests.request(method, f"{archive.base_url}{concrete}", timeout=30)
            assert str(answer.status_code) in operations[method]["responses"], (method, concrete, answer.text)
