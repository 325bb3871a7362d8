"""dciodvfy (dicom3tools) as a judge: it finds no error in what comes out that was not in what went in, as
stored by C-GET and in Explicit VR Little Endian by WADO-RS."""

import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from node.domain import part10
from node.domain.part10 import Meta, Part10Reader
from tests import corpus
from tests.archive import Archive, running_archive
from tests.integration.test_dimse_roundtrip import get
from tests.integration.test_outside_images import Sendable, address, send

pytestmark = [pytest.mark.peers, pytest.mark.slow]
DCIODVFY = Path(sys.executable).with_name("dciodvfy")
REAL = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPEG2000.dcm",
    "JPEG-LL.dcm",
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "693_J2KR.dcm",
    "liver_1frame.dcm",
    "examples_rgb_color.dcm",
    "image_dfl.dcm",
)


def judged(data: bytes, folder: Path) -> Counter[str]:
    """The errors that dciodvfy finds in a file, without its warnings. It cannot read deflated datasets:
    those it gets inflated."""
    reader = Part10Reader()
    dataset = reader.feed(data)
    meta = reader.finish()
    if meta.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        head = part10.prefix(meta.sop_class_uid, meta.sop_instance_uid, ExplicitVRLittleEndian, "")
        data = head + zlib.decompressobj(-zlib.MAX_WBITS).decompress(dataset)
    file = folder / "judged.dcm"
    file.write_bytes(data)
    said = subprocess.run(
        [DCIODVFY, file], capture_output=True, text=True, errors="replace", timeout=60, check=False
    )
    return Counter(line for line in said.stderr.splitlines() if line.startswith("Error"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    assert DCIODVFY.exists(), "dicom3tools is not installed (make install-test)"
    with running_archive(tmp_path_factory.mktemp("dciodvfy") / "data") as running:
        yield running


def generated(folder: Path) -> Iterator[tuple[str, bytes]]:
    """CT in every transfer syntax, MR, CR, multi-frame."""
    for number, syntax in enumerate(corpus.TRANSFER_SYNTAXES, 1):
        study = corpus.Study(corpus.Person("PHANTOM^JUDGED", "JUDGED"), number)
        for ds in corpus.ct_series(1, 128, study=study, transfer_syntax=syntax):
            yield f"CT {syntax}", corpus.encode(ds)
    yield from (("MR", corpus.encode(ds)) for ds in corpus.mr_series(1, 128))
    yield "CR", corpus.encode(corpus.cr_image(400, 500))
    yield "multi-frame", corpus.multiframe(folder / "multiframe.dcm", 2).read_bytes()


def real() -> Iterator[tuple[str, bytes]]:
    """Some of pydicom's files, each under a UID of its own, since some are one image in several syntaxes."""
    for name in REAL:
        path = get_testdata_file(name, download=False)
        assert path is not None, name
        ds = dcmread(str(path))
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = corpus.uid("judged", name)
        ds.StudyInstanceUID, ds.SeriesInstanceUID = (
            corpus.uid("judged", level, name) for level in ("study", "series")
        )
        yield name, corpus.encode(ds)


def test_dciodvfy_finds_nothing_new_in_what_comes_out(archive: Archive, tmp_path: Path) -> None:
    new: dict[tuple[str, str], Counter[str]] = {}
    for name, data in [*generated(tmp_path), *real()]:
        reader = Part10Reader()
        dataset = bytes(reader.feed(data))
        meta = reader.finish()
        assert send(archive, Sendable(meta, dataset)) == "", name
        before = judged(data, tmp_path)
        for way, out in (("C-GET", by_dimse(archive, meta)), ("WADO-RS", by_web(archive, meta))):
            if added := judged(out, tmp_path) - before:
                new[name, way] = added
    assert new == {}


def by_dimse(archive: Archive, meta: Meta) -> bytes:
    """The instance as stored, as a file that a C-GET client would write."""
    received, _ = get(archive.dicom_port, [meta])
    head = part10.prefix(meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, "STELE")
    return head + received[meta.sop_instance_uid]


def by_web(archive: Archive, meta: Meta) -> bytes:
    """The instance in Explicit VR Little Endian."""
    accept = f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
    url = address(archive, meta.sop_instance_uid)
    answer = requests.get(url, headers={"Accept": accept}, timeout=60)
    answer.raise_for_status()
    reader = Part10Reader()
    reader.feed(answer.content)
    assert reader.finish().transfer_syntax_uid == ExplicitVRLittleEndian
    return answer.content


def test_dciodvfy_tells_of_a_missing_attribute(tmp_path: Path) -> None:
    (ds,) = corpus.ct_series(1, 128)
    assert judged(corpus.encode(ds), tmp_path) == Counter()
    del ds.Rows
    assert any("Rows" in error for error in judged(corpus.encode(ds), tmp_path))
