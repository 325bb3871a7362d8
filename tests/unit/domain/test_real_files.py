"""Every DICOM file that pydicom bundles: read as pydicom reads it, or refused for a known reason."""

import logging
import warnings
import zlib
from typing import Any

import pydicom
import pytest
from pydicom.dataelem import RawDataElement

from node.domain.errors import Reason, Refusal
from node.domain.frames import frame_ranges
from node.domain.header import Header, read_header
from node.domain.levels import split
from tests.unit.domain.encoding import DEFLATED, LIMITS, RealFile, real_files

# The files that are refused, and what is wrong with each
REFUSED = {
    "MR_truncated.dcm": "pixel data shorter than its length says",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "sequence delimiter missing at the end",
    "rtplan_truncated.dcm": "ends inside a sequence",
    "SC_rgb_jpeg.dcm": "implicit VR under an explicit VR transfer syntax",
    "DICOMDIR-nooffset": "the directory sequence is longer than it says",
}
# Where pydicom's JSON is no measure: it raises on an invalid IS
NO_JSON = {"badVR.dcm"}

FILES = real_files()


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def read(file: RealFile) -> Header:
    return read_header(file.dataset, file.transfer_syntax_uid, LIMITS)


def test_the_files_are_there() -> None:
    assert len(FILES) > 150


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_broken_files_are_refused(name: str) -> None:
    for file in FILES:
        if file.path.name == name:
            with pytest.raises(Refusal) as refusal:
                read(file)
            assert refusal.value.reason is Reason.NOT_UNDERSTOOD


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.path.name not in REFUSED], ids=lambda f: f.path.name
)
def test_a_file_reads_as_pydicom_reads_it(file: RealFile) -> None:
    header = read(file)
    dataset = pydicom.dcmread(file.path)
    assert header.tags() == sorted(map(int, dataset.keys()))
    compare_raw(header, dataset, file)
    if file.path.name not in NO_JSON:
        problems: list[str] = []
        compare_json(header.attributes(), dataset.to_json_dict(), "", problems)
        assert problems == []
    again = Header.unpack(header.pack())
    assert again.attributes(str_uri) == header.attributes(str_uri)
    assert (again.pixel, again.tags(), again.dataset_length) == (
        header.pixel,
        header.tags(),
        header.dataset_length,
    )
    assert split(again, {}) == split(header, {})


def str_uri(path: tuple[str | int, ...], offset: int, length: int) -> str:
    return f"{path}:{offset}:{length}"


def compare_raw(header: Header, dataset: pydicom.Dataset, file: RealFile) -> None:
    """The same raw bytes at the same places."""
    encoded, base = file.dataset, file.offset
    if file.transfer_syntax_uid == DEFLATED:
        encoded, base = zlib.decompressobj(-15).decompress(file.dataset), 0
    for tag in header.tags():
        raw = dataset.get_item(tag)
        kept = header.get(tag)
        if not isinstance(raw, RawDataElement) or raw.length == 0xFFFFFFFF:
            continue
        if kept is not None:
            assert kept == (raw.value or b""), f"{tag:08X}"
        elif header.vr(tag) != "SQ":
            offset, length = header.bulk((f"{tag:08X}",))
            assert encoded[offset : offset + length] == raw.value, f"{tag:08X}"
            assert file.transfer_syntax_uid == DEFLATED or offset == raw.value_tell - base


def compare_json(ours: Any, theirs: Any, path: str, problems: list[str]) -> None:
    """Equal, but for what is listed here: pydicom is not right, or knows more, in these."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and "vr" not in ours:
        for key in ours.keys() | theirs.keys():
            if key.endswith("0000") or key in ("FFFCFFFC", "00080005"):
                continue  # left out; always ISO_IR 192
            if key not in ours or key not in theirs:
                if key[:2].isalnum():
                    problems.append(f"{path}/{key}: only on one side")
                continue
            compare_json(ours[key], theirs[key], f"{path}/{key}", problems)
        return
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if ours["vr"] == "UN" and int(path[-8:-4], 16) % 2:
            return  # pydicom has a dictionary of private elements
        if ours.keys() == {"vr"} and (theirs.get("Value") == [] or "InlineBinary" in theirs):
            return  # an empty sequence has no Value; our value was cut
        if ours["vr"] != theirs["vr"] or ours.get("InlineBinary") != theirs.get("InlineBinary"):
            problems.append(f"{path}: {ours['vr']} and {theirs['vr']}, or not the same binary")
        compare_json(ours.get("Value", []), theirs.get("Value", []), path, problems)
        return
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            compare_json(left, right, f"{path}[{index}]", problems)
        return
    if isinstance(theirs, str):
        theirs = theirs.strip(" \0") or None  # padding inside a list, empty values
    if ours != theirs:
        problems.append(f"{path}: {ours!r} and {theirs!r}")


def test_frames_cover_what_pydicom_finds() -> None:
    """As many frames as pydicom finds in the encapsulated files that name their frames, same bytes."""
    from pydicom.encaps import generate_frames

    compared = 0
    for file in FILES:
        if file.path.name in REFUSED:
            continue
        header = read(file)
        if header.pixel is None or not header.pixel.encapsulated:
            continue
        try:
            frames = frame_ranges(header)
        except Refusal as refusal:
            assert refusal.reason is Reason.NOT_ACCEPTABLE
            continue
        dataset = pydicom.dcmread(file.path)
        theirs = list(generate_frames(dataset.PixelData, number_of_frames=len(frames)))
        ours = [b"".join(file.dataset[at : at + size] for at, size in pieces) for pieces in frames]
        assert ours == theirs, file.path.name
        compared += 1
    assert compared > 30
