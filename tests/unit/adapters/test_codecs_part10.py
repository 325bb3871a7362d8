"""Datasets in one encoding written in another, without a value touched."""

import io
import warnings
import zlib
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset as PydicomDataset
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.filebase import DicomBytesIO
from pydicom.uid import UID

from node.adapters.decoder.part10 import read, swapped
from node.adapters.decoder.transcode import transcode
from node.domain import syntaxes as ts
from node.domain.errors import Reason, Refusal

LIMIT = 1 << 28


def converted(data: bytes, target: str) -> bytes:
    return b"".join(transcode(read(memoryview(data), LIMIT), target, LIMIT))


def bundled(name: str) -> bytes:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path).read_bytes()


def written(dataset: PydicomDataset, syntax: str) -> bytes:
    """A synthetic object around `dataset`."""
    dataset.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    dataset.SOPInstanceUID = UID("2.25.1")
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    out = DicomBytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return bytes(out.getvalue())


def values(data: bytes) -> PydicomDataset:
    dataset = dcmread(io.BytesIO(data))
    for element in list(dataset):
        if element.tag.element == 0:
            del dataset[element.tag]
    return dataset


NON_IMAGES = sorted(
    path.name
    for path in (Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")
    if path.name.startswith(
        ("rtplan", "reportsi", "test-SR", "empty_charset", "priv_SQ", "nested_priv", "UN_seq")
    )
    and "truncated" not in path.name
)


@pytest.mark.parametrize("name", NON_IMAGES)
@pytest.mark.parametrize("target", [ts.IMPLICIT_LITTLE, ts.EXPLICIT_LITTLE, ts.DEFLATED])
def test_what_is_no_image_keeps_its_values(name: str, target: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here, there = values(bundled(name)), values(converted(bundled(name), target))
        assert there.file_meta.TransferSyntaxUID == target
        for dataset in (here, there):
            dataset.remove_private_tags()  # their VR may not be known any more: see below
        assert there == here


@pytest.mark.parametrize("name", NON_IMAGES)
@pytest.mark.parametrize("target", [ts.IMPLICIT_LITTLE, ts.EXPLICIT_LITTLE, ts.DEFLATED])
def test_every_byte_of_every_value_survives_conversion(name: str, target: str) -> None:
    """VRs are the one thing that Implicit VR loses: written as Implicit VR, both are the same bytes."""

    def plain(data: bytes) -> bytes:
        return converted(converted(data, ts.EXPLICIT_LITTLE), ts.IMPLICIT_LITTLE)

    assert plain(converted(bundled(name), target)) == plain(bundled(name))


def test_deflated_and_back_is_the_same_object() -> None:
    original = bundled("CT_small.dcm")
    assert converted(converted(original, ts.DEFLATED), ts.EXPLICIT_LITTLE) == original


def test_a_deflated_dataset_has_an_even_length() -> None:
    for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "reportsi.dcm"):
        assert len(converted(bundled(name), ts.DEFLATED)) % 2 == 0


def test_big_endian_gives_the_values_of_its_little_endian_twin() -> None:
    big = values(converted(bundled("MR_small_bigendian.dcm"), ts.EXPLICIT_LITTLE))
    little = values(bundled("MR_small.dcm"))
    for element in little:
        if element.tag.group > 2 and element.tag in big and element.keyword != "SOPInstanceUID":
            assert big[element.tag].value == element.value, element.tag


def test_text_is_not_decoded() -> None:
    """Bytes that are no text in the character set that is claimed survive as they are."""
    dataset = PydicomDataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = "placeholder"
    data = written(dataset, ts.EXPLICIT_LITTLE).replace(b"placeholder", b"\xff\xfe\x80\x81 broken"[:11])
    assert b"\xff\xfe\x80\x81 broken"[:11] in converted(data, ts.IMPLICIT_LITTLE)


def test_private_values_go_out_as_un_and_their_creators_as_lo() -> None:
    dataset = PydicomDataset()
    block = dataset.private_block(0x11, "SYNTHETIC", create=True)
    block.add_new(1, "DS", "1.50")
    explicit = converted(written(dataset, ts.IMPLICIT_LITTLE), ts.EXPLICIT_LITTLE)
    assert b"\x11\x00\x10\x00LO" in explicit
    assert b"\x11\x00\x01\x10UN\x00\x00\x04\x00\x00\x001.50" in explicit


def test_us_or_ss_follows_the_pixel_representation() -> None:
    for representation, vr in ((0, b"US"), (1, b"SS")):
        dataset = PydicomDataset()
        dataset.PixelRepresentation = representation
        dataset.SmallestImagePixelValue = 5
        explicit = converted(written(dataset, ts.IMPLICIT_LITTLE), ts.EXPLICIT_LITTLE)
        assert b"\x28\x00\x06\x01" + vr in explicit


def test_a_value_too_long_for_a_short_vr_goes_out_as_un() -> None:
    dataset = PydicomDataset()
    dataset.add_new(0x00081030, "LO", "x")
    data = written(dataset, ts.IMPLICIT_LITTLE)
    at = data.index(b"\x08\x00\x30\x10")
    data = data[:at] + b"\x08\x00\x30\x10" + (70000).to_bytes(4, "little") + b"x" * 70000
    assert b"\x08\x00\x30\x10UN\x00\x00" + (70000).to_bytes(4, "little") in converted(
        data, ts.EXPLICIT_LITTLE
    )


def test_group_lengths_go_when_lengths_change() -> None:
    original = bundled("ExplVR_BigEnd.dcm")
    tags = [element.tag for element in read(memoryview(original), LIMIT).dataset.elements]
    assert 0x00080000 in tags
    after = read(memoryview(converted(original, ts.IMPLICIT_LITTLE)), LIMIT)
    assert not [element for element in after.dataset.elements if element.tag & 0xFFFF == 0]


@pytest.mark.parametrize(
    ("tail", "comment"),
    [
        (b"\x08\x00\x60\x00CS\xff\xff" + b"MR", "element 00080060 is longer than what holds it"),
        (b"\x08\x00\x60\x00??\x02\x00MR", "unknown VR in element 00080060"),
        (b"\x08\x00", "truncated at offset 2"),
        (b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff", "sequence 00081140 without its end"),
        (
            b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\x7f",
            "bad fragment in encapsulated pixel data",
        ),
        (
            (b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff") * 200,
            "sequences nested too deeply",
        ),
    ],
)
def test_what_cannot_be_read_to_the_end_is_refused(tail: bytes, comment: str) -> None:
    head = written(PydicomDataset(), ts.EXPLICIT_LITTLE)
    head = head[: head.index(b"\x08\x00\x16\x00")]
    with pytest.raises(Refusal) as refused:
        converted(head + tail, ts.IMPLICIT_LITTLE)
    assert (refused.value.reason, refused.value.comment) == (Reason.NOT_ACCEPTABLE, comment)


def test_a_deflate_bomb_stops_at_the_limit() -> None:
    head = written(PydicomDataset(), ts.DEFLATED)
    head = head[: head.index(b"1.2.840.10008.1.2.1.99") + 22]
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(64 << 20)) + deflater.flush()
    with pytest.raises(Refusal) as refused:
        read(memoryview(head + bomb), 1 << 20)
    assert refused.value.comment == "deflated dataset cut off or over the memory limit"


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_damage_is_refused_or_converted(data: st.DataObject) -> None:
    """One changed byte, or a cut, never raises anything but a Refusal."""
    original = bytearray(bundled("rtplan.dcm"))
    at = data.draw(st.integers(132, len(original) - 1))
    if data.draw(st.booleans()):
        original[at] = data.draw(st.integers(0, 255))
    else:
        del original[at:]
    try:
        converted(bytes(original), ts.EXPLICIT_LITTLE)
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_ACCEPTABLE


@given(st.binary(max_size=64), st.sampled_from([2, 4, 8]))
def test_swapping_twice_changes_nothing(data: bytes, width: int) -> None:
    data = data[: len(data) // width * width]
    assert swapped(swapped(data, width), width) == data


def test_swapping_reverses_each_number() -> None:
    assert swapped(b"\1\2\3\4", 2) == b"\2\1\4\3"
    assert swapped(b"\1\2\3\4", 4) == b"\4\3\2\1"
    with pytest.raises(Refusal):
        swapped(b"\1\2\3", 2)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "rtplan.dcm"])
@pytest.mark.parametrize("count", [2, 7, 8, 4096])
def test_zeros_behind_the_last_element_are_left_out(name: str, count: int) -> None:
    data = bundled(name)
    target = ts.IMPLICIT_LITTLE if name != "rtplan.dcm" else ts.EXPLICIT_LITTLE
    assert converted(data + bytes(count), target) == converted(data, target)
    with pytest.raises(Refusal) as refusal:
        read(memoryview(data + bytes(count) + b"\1"), LIMIT)
    assert refusal.value.reason is Reason.NOT_ACCEPTABLE
