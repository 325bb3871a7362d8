"""dicomweb-client retrieves everything that it knows how to ask for."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from requests.exceptions import HTTPError

from tests import corpus
from tests.archive import running_archive

SLICES = 4
EXPLICIT = "1.2.840.10008.1.2.1"
ANY_DICOM = (("application/dicom", "*"),)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DICOMwebClient]:
    with running_archive(tmp_path_factory.mktemp("client")) as archive:
        yield DICOMwebClient(f"{archive.base_url}/dicom-web")


@pytest.fixture(scope="module")
def series(client: DICOMwebClient) -> list[FileDataset]:
    slices = list(corpus.ct_series(SLICES, size=64, study=corpus.Study(seed=51)))
    client.store_instances(slices)
    return slices


@pytest.fixture(scope="module")
def compressed(client: DICOMwebClient) -> FileDataset:
    image = pydicom.dcmread(str(get_testdata_file("color3d_jpeg_baseline.dcm")))
    client.store_instances([image])
    return image


@pytest.fixture(scope="module")
def big(client: DICOMwebClient, tmp_path_factory: pytest.TempPathFactory) -> FileDataset:
    path = corpus.multiframe(tmp_path_factory.mktemp("big") / "image.dcm", megabytes=9, size=256)
    image = pydicom.dcmread(path)
    client.store_instances([image])
    return image


def uids(image: FileDataset) -> tuple[str, str, str]:
    return image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID


def test_whole_instances(client: DICOMwebClient, series: list[FileDataset]) -> None:
    study_uid, series_uid, instance_uid = uids(series[1])
    of_study = client.retrieve_study(study_uid, media_types=ANY_DICOM)
    of_series = client.retrieve_series(study_uid, series_uid, media_types=ANY_DICOM)
    for found in (
        of_study,
        of_series,
        list(client.iter_series(study_uid, series_uid, media_types=ANY_DICOM)),
    ):
        assert {each.SOPInstanceUID: each.PixelData for each in found} == {
            each.SOPInstanceUID: each.PixelData for each in series
        }
    one = client.retrieve_instance(study_uid, series_uid, instance_uid, media_types=ANY_DICOM)
    assert one == pydicom.dcmread(io.BytesIO(corpus.encode(series[1])))


def test_metadata(client: DICOMwebClient, series: list[FileDataset]) -> None:
    study_uid, series_uid, instance_uid = uids(series[2])
    for found in (
        client.retrieve_study_metadata(study_uid),
        client.retrieve_series_metadata(study_uid, series_uid),
    ):
        assert [each["00080018"]["Value"] for each in found] == [[each.SOPInstanceUID] for each in series]
    one = client.retrieve_instance_metadata(study_uid, series_uid, instance_uid)
    assert one["00280010"]["Value"] == [series[2].Rows]


def test_frames_in_long_lists(client: DICOMwebClient, big: FileDataset) -> None:
    count = int(big.NumberOfFrames)
    assert count > 1
    size = len(big.PixelData) // count
    numbers = [*range(count, 0, -1), 1]
    found = client.retrieve_instance_frames(*uids(big), frame_numbers=numbers)
    assert found == [big.PixelData[(number - 1) * size : number * size] for number in numbers]


def test_compressed_frames_and_decoded_ones(client: DICOMwebClient, compressed: FileDataset) -> None:
    numbers = [1, 2, int(compressed.NumberOfFrames)]
    stored = client.retrieve_instance_frames(
        *uids(compressed), frame_numbers=numbers, media_types=(("image/jpeg", "1.2.840.10008.1.2.4.50"),)
    )
    count = int(compressed.NumberOfFrames)
    assert stored == [
        pydicom.encaps.get_frame(compressed.PixelData, number - 1, number_of_frames=count)
        for number in numbers
    ]
    decoded = client.retrieve_instance_frames(
        *uids(compressed),
        frame_numbers=numbers,
        media_types=(("application/octet-stream", "1.2.840.10008.1.2.1"),),
    )
    shape = (compressed.Rows, compressed.Columns, compressed.SamplesPerPixel)
    assert [len(each) for each in decoded] == [int(np.prod(shape))] * len(numbers)


def test_frames_that_do_not_exist(client: DICOMwebClient, series: list[FileDataset]) -> None:
    with pytest.raises(HTTPError) as caught:
        client.retrieve_instance_frames(*uids(series[0]), frame_numbers=[999999])
    assert caught.value.response.status_code == 404


def test_bulk_data(client: DICOMwebClient, big: FileDataset, compressed: FileDataset) -> None:
    base = client.base_url.removesuffix("/dicom-web")
    for image in (big, compressed):
        (metadata,) = [client.retrieve_instance_metadata(*uids(image))]
        found = client.retrieve_bulkdata(base + metadata["7FE00010"]["BulkDataURI"])
        if image is big:
            assert b"".join(found) == big.PixelData
        else:
            assert len(found) == int(compressed.NumberOfFrames)
            assert all(each.startswith(b"\xff\xd8") for each in found)


def test_rendered_images(client: DICOMwebClient, series: list[FileDataset], compressed: FileDataset) -> None:
    jpeg = client.retrieve_instance_rendered(
        *uids(series[0]), media_types=("image/jpeg",), params={"viewport": "32,32"}
    )
    assert Image.open(io.BytesIO(jpeg)).size == (32, 32)
    png = client.retrieve_instance_frames_rendered(
        *uids(compressed), frame_numbers=[2], media_types=("image/png",)
    )
    assert Image.open(io.BytesIO(png)).size == (compressed.Columns, compressed.Rows)


def test_deleting(client: DICOMwebClient, tmp_path: Path) -> None:
    slices = list(corpus.ct_series(2, size=32, study=corpus.Study(seed=52)))
    client.store_instances(slices)
    client.delete_instance(*uids(slices[0]))
    left = client.retrieve_study(slices[0].StudyInstanceUID, media_types=ANY_DICOM)
    assert [each.SOPInstanceUID for each in left] == [slices[1].SOPInstanceUID]
    client.delete_study(slices[0].StudyInstanceUID)
    assert client.search_for_studies(search_filters={"StudyInstanceUID": slices[0].StudyInstanceUID}) == []
