"""The decoder processes: what they do to real files, and what hostile input does not do to us."""

import io
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from openjpeg.utils import decode as openjpeg_decode
from pydicom import dcmread
from pydicom.encaps import encapsulate, get_frame

from node.adapters.codecs_process import ProcessCodecs
from node.domain import syntaxes as ts
from node.domain.errors import Reason, Refusal
from tests.support import require
from tests.unit.adapters.test_codecs_part10 import bundled, written
from tests.unit.adapters.test_codecs_render import an_image

MEMORY_BYTES = 1 << 30
# These say something else than they hold; nobody reads them, or only by guessing.
BROKEN = {
    "JPEG2000-embedded-sequence-delimiter.dcm",  # its SIZ marker is overwritten
    "MR_truncated.dcm",
    "SC_rgb_jpeg.dcm",  # Implicit VR under a syntax that is explicit
    "badVR.dcm",  # its Number of Frames is "1A"
}
# Read here, but not by the pydicom of the tests; DCMTK is the second opinion below.
NOT_BY_PYDICOM = {ts.JPEG_LS_LOSSLESS, ts.JPEG_LS_NEAR_LOSSLESS, ts.JPEG_LOSSLESS_SV1, ts.JPEG_EXTENDED}


def part10_files() -> list[Path]:
    """pydicom's bundled Part 10 files that have pixels, in a syntax that we say we decode."""
    found = []
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*")):
        if path.is_file() and path.name not in BROKEN and path.read_bytes()[128:132] == b"DICM":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = dcmread(path, specific_tags=["PixelData", "Rows", "TransferSyntaxUID"])
            syntax = dataset.file_meta.get("TransferSyntaxUID")
            if "PixelData" in dataset and "Rows" in dataset and ts.can_decode(str(syntax)):
                found.append(path)
    return found


FILES = part10_files()


@pytest.fixture(scope="module")
def codecs() -> Iterator[ProcessCodecs]:
    codecs = ProcessCodecs(2, MEMORY_BYTES, 30)
    yield codecs
    codecs.close()


def pixels(data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(io.BytesIO(data)).pixel_array


def refusal_of(call: Any, *arguments: Any, **named: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        call(*arguments, **named)
    return refused.value


# --- Real files ----------------------------------------------------------------------------------


def test_the_bundled_files_hold_the_common_syntaxes() -> None:
    held = {str(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID) for path in FILES}
    assert held >= ts.NATIVE | NOT_BY_PYDICOM | {
        ts.JPEG_BASELINE,
        ts.JPEG_2000,
        ts.JPEG_2000_LOSSLESS,
        ts.RLE_LOSSLESS,
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pixels_come_out_as_another_decoder_has_them(codecs: ProcessCodecs, path: Path) -> None:
    original = path.read_bytes()
    plain = codecs.transcode(original, ts.EXPLICIT_LITTLE)
    source = dcmread(io.BytesIO(original)).file_meta.TransferSyntaxUID
    after = dcmread(io.BytesIO(plain))
    assert after.file_meta.TransferSyntaxUID == ts.EXPLICIT_LITTLE
    assert after.SOPInstanceUID == dcmread(io.BytesIO(original)).SOPInstanceUID
    if source in NOT_BY_PYDICOM or path.name == "GDCMJ2K_TextGBR.dcm":
        assert after.pixel_array.size > 0
    else:
        assert np.array_equal(pixels(plain), pixels(original))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_decoded_frames_are_those_of_the_object_in_explicit_vr(codecs: ProcessCodecs, path: Path) -> None:
    original = path.read_bytes()
    after = dcmread(io.BytesIO(codecs.transcode(original, ts.EXPLICIT_LITTLE)))
    text = str(after.get("NumberOfFrames", 1) or 1)
    count = int(text) if text.isdigit() else 1
    frames = codecs.decode_frames(original, [count, 1])
    size = len(frames[0])
    if after.BitsAllocated > 1:
        assert after.PixelData[(count - 1) * size : count * size] == frames[0]
    assert after.PixelData[:size] == frames[1]


@pytest.mark.parametrize("target", sorted(ts.ENCODABLE - {ts.JPEG_BASELINE}))
def test_every_target_keeps_every_value_of_every_file(codecs: ProcessCodecs, target: str) -> None:
    """What `can_transcode` claims, for each bundled image that the target can hold."""
    kept = 0
    for path in FILES:
        plain = codecs.transcode(path.read_bytes(), ts.EXPLICIT_LITTLE)
        dataset = dcmread(io.BytesIO(plain))
        raw = target in ts.NATIVE | {ts.ENCAPSULATED_UNCOMPRESSED, ts.DEFLATED_FRAMES}
        deep = dataset.BitsAllocated > 16 and target != ts.RLE_LOSSLESS
        xl = target in (ts.JPEG_XL, ts.JPEG_XL_LOSSLESS) and "YBR" in dataset.PhotometricInterpretation
        if not raw and (dataset.BitsAllocated == 1 or deep or xl):
            assert refusal_of(codecs.transcode, plain, target).reason is Reason.NOT_ACCEPTABLE
            continue
        there = codecs.transcode(path.read_bytes(), target)
        back = codecs.transcode(there, ts.EXPLICIT_LITTLE)
        assert np.array_equal(pixels(back), pixels(plain)), path.name
        kept += 1
    assert kept >= 55


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_rendered(codecs: ProcessCodecs, path: Path) -> None:
    assert codecs.render(path.read_bytes(), 1, "image/jpeg", viewport=(64, 64)).startswith(b"\xff\xd8\xff")
    assert codecs.render(path.read_bytes(), 1, "image/png", viewport=(64, 64)).startswith(b"\x89PNG")


# --- Other decoders' opinion ---------------------------------------------------------------------

SAMPLES = (
    "CT_small.dcm",
    "693_J2KI.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "examples_overlay.dcm",
    "examples_palette.dcm",
    "examples_rgb_color.dcm",
    "examples_ybr_color.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
)


@pytest.mark.peers
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(
    ("target", "program"),
    [
        (ts.JPEG_LS_LOSSLESS, "dcmdjpls"),
        (ts.JPEG_LOSSLESS_SV1, "dcmdjpeg"),
        (ts.JPEG_LOSSLESS, "dcmdjpeg"),
        (ts.RLE_LOSSLESS, "dcmdrle"),
        (ts.DEFLATED, "dcmconv"),
        (ts.IMPLICIT_LITTLE, "dcmconv"),
    ],
)
def test_dcmtk_reads_what_was_encoded(
    codecs: ProcessCodecs, tmp_path: Path, name: str, target: str, program: str
) -> None:
    require(program)
    (tmp_path / "in.dcm").write_bytes(codecs.transcode(bundled(name), target))
    done = subprocess.run(
        [program, tmp_path / "in.dcm", tmp_path / "out.dcm"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = codecs.transcode(bundled(name), ts.EXPLICIT_LITTLE)
    assert np.array_equal(pixels((tmp_path / "out.dcm").read_bytes()), pixels(expected))


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", "dcmdjpls"),
        ("JPEGLSNearLossless_08.dcm", "dcmdjpls"),
        ("JPEGLSNearLossless_16.dcm", "dcmdjpls"),
        ("SC_rgb_jls_lossy_sample.dcm", "dcmdjpls"),
        ("SC_rgb_jls_lossy_line.dcm", "dcmdjpls"),
        ("SC_rgb_jpeg_gdcm.dcm", "dcmdjpeg"),
        ("JPEG-lossy.dcm", "dcmdjpeg"),
        ("JPGExtended.dcm", "dcmdjpeg"),
    ],
)
def test_dcmtk_decodes_the_same(codecs: ProcessCodecs, tmp_path: Path, name: str, program: str) -> None:
    """Lossy JPEG may differ by one: its inverse transform is not exact."""
    require(program)
    (tmp_path / "in.dcm").write_bytes(bundled(name))
    subprocess.run([program, tmp_path / "in.dcm", tmp_path / "out.dcm"], check=True)
    ours = pixels(codecs.transcode(bundled(name), ts.EXPLICIT_LITTLE)).astype(int)
    theirs = pixels((tmp_path / "out.dcm").read_bytes()).astype(int)
    tolerance = 1 if dcmread(io.BytesIO(bundled(name))).file_meta.TransferSyntaxUID == ts.JPEG_EXTENDED else 0
    assert np.abs(ours - theirs).max() <= tolerance


@pytest.mark.parametrize("name", [name for name in SAMPLES if "422" not in name])  # pydicom makes RGB of it
@pytest.mark.parametrize("target", [ts.JPEG_2000_LOSSLESS, ts.HTJ2K_LOSSLESS, ts.HTJ2K_LOSSLESS_RPCL])
def test_openjpeg_reads_what_was_encoded(codecs: ProcessCodecs, name: str, target: str) -> None:
    """HTJ2K is written by another library (OpenJPH)."""
    dataset = dcmread(io.BytesIO(codecs.transcode(bundled(name), target)))
    count = int(dataset.get("NumberOfFrames", 1))
    theirs = openjpeg_decode(get_frame(dataset.PixelData, 0, number_of_frames=count))
    expected = pixels(codecs.transcode(bundled(name), ts.EXPLICIT_LITTLE))
    assert np.array_equal(theirs, expected[0] if count > 1 else expected)


# --- The Image Pixel module ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target", "photometric", "planar"),
    [
        ("examples_rgb_color.dcm", ts.JPEG_2000_LOSSLESS, "YBR_RCT", 0),
        ("examples_rgb_color.dcm", ts.HTJ2K_LOSSLESS, "YBR_RCT", 0),
        ("examples_rgb_color.dcm", ts.JPEG_LS_LOSSLESS, "RGB", 0),
        ("examples_rgb_color.dcm", ts.RLE_LOSSLESS, "RGB", 1),
        ("examples_rgb_color.dcm", ts.JPEG_BASELINE, "YBR_FULL_422", 0),
        ("examples_ybr_color.dcm", ts.EXPLICIT_LITTLE, "RGB", 0),
        ("examples_jpeg2k.dcm", ts.EXPLICIT_LITTLE, "RGB", 0),
        ("SC_rgb_rle.dcm", ts.IMPLICIT_LITTLE, "RGB", 0),
        ("SC_ybr_full_422_uncompressed.dcm", ts.IMPLICIT_LITTLE, "YBR_FULL_422", 0),
        ("SC_ybr_full_422_uncompressed.dcm", ts.JPEG_LS_LOSSLESS, "YBR_FULL", 0),
    ],
)
def test_colours_are_called_what_they_are(
    codecs: ProcessCodecs, name: str, target: str, photometric: str, planar: int
) -> None:
    dataset = dcmread(io.BytesIO(codecs.transcode(bundled(name), target)))
    assert (dataset.PhotometricInterpretation, dataset.PlanarConfiguration) == (photometric, planar)


def test_loss_is_admitted(codecs: ProcessCodecs) -> None:
    """PS3.3 section C.7.6.1.1.5: flag, ratio and method, each step appended."""
    once = dcmread(io.BytesIO(codecs.transcode(bundled("examples_rgb_color.dcm"), ts.JPEG_BASELINE)))
    assert once.LossyImageCompression == "01"
    assert once.LossyImageCompressionMethod == "ISO_10918_1"
    assert 2 < float(once.LossyImageCompressionRatio) < 100
    out = io.BytesIO()
    once.save_as(out)
    plain = codecs.transcode(out.getvalue(), ts.EXPLICIT_LITTLE)
    twice = dcmread(io.BytesIO(codecs.transcode(plain, ts.JPEG_BASELINE)))
    assert list(twice.LossyImageCompressionMethod) == ["ISO_10918_1"] * 2
    assert len(twice.LossyImageCompressionRatio) == 2


def test_a_lossy_source_stays_lossy_when_it_is_decoded(codecs: ProcessCodecs) -> None:
    original = dcmread(io.BytesIO(bundled("SC_rgb_jpeg_dcmtk.dcm")))
    assert "LossyImageCompression" not in original or original.LossyImageCompression == "01"
    after = dcmread(io.BytesIO(codecs.transcode(bundled("SC_rgb_jpeg_dcmtk.dcm"), ts.EXPLICIT_LITTLE)))
    assert after.LossyImageCompression == "01"


def test_bits_above_bits_stored_survive_compression(codecs: ProcessCodecs) -> None:
    """Old overlays lie there (PS3.5 section 8.1.2 before 2004)."""
    noise = np.random.default_rng(0).integers(0, 65536, (32, 32)).astype("<u2")
    original = written(an_image(noise, BitsStored=12, HighBit=11), ts.EXPLICIT_LITTLE)
    for target in sorted(ts.ENCODABLE - {ts.JPEG_BASELINE}):
        there = codecs.transcode(original, target)
        assert codecs.decode_frames(there, [1]) == [noise.tobytes()], target


def test_frames_of_single_bits_that_end_inside_a_byte(codecs: ProcessCodecs) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (3, 5, 5)).astype("u1")
    dataset = an_image(bits)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.PixelData = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    frames = codecs.decode_frames(written(dataset, ts.EXPLICIT_LITTLE), [1, 2, 3])
    for frame, expected in zip(frames, bits, strict=True):
        unpacked = np.unpackbits(np.frombuffer(frame, "u1"), bitorder="little")[:25]
        assert np.array_equal(unpacked.reshape(5, 5), expected)


def test_one_frame_of_many_fragments_is_put_together(codecs: ProcessCodecs) -> None:
    dataset = dcmread(io.BytesIO(codecs.transcode(bundled("examples_ybr_color.dcm"), ts.HTJ2K_LOSSLESS)))
    frames = [get_frame(dataset.PixelData, at, number_of_frames=30) for at in range(30)]
    expected = codecs.decode_frames(bundled("examples_ybr_color.dcm"), [1, 17, 30])
    for has_table in (True, False):
        dataset.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=has_table)
        out = io.BytesIO()
        dataset.save_as(out)
        assert codecs.decode_frames(out.getvalue(), [1, 17, 30]) == expected


def test_what_a_syntax_cannot_hold_is_refused(codecs: ProcessCodecs) -> None:
    for name, target in [
        ("CT_small.dcm", ts.JPEG_BASELINE),
        ("reportsi.dcm", ts.JPEG_2000_LOSSLESS),
        ("CT_small.dcm", ts.EXPLICIT_BIG),
        ("CT_small.dcm", "1.2.840.10008.1.2.4.102"),
        ("CT_small.dcm", "not a uid"),
    ]:
        assert refusal_of(codecs.transcode, bundled(name), target).reason is Reason.NOT_ACCEPTABLE
    assert refusal_of(codecs.decode_frames, bundled("CT_small.dcm"), [2]).comment == "no such frame"
    assert refusal_of(codecs.decode_frames, bundled("CT_small.dcm"), [0]).comment == "no such frame"
