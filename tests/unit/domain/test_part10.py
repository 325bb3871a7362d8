import io

import pydicom
import pytest

from node.domain.errors import Reason, Refusal
from node.domain.part10 import MAX_META_BYTES, Part10Reader, prefix
from tests.unit.domain.encoding import DEFLATED, EXPLICIT, element, real_files

DATASET = element(0x00100020, "LO", b"ID")
PREFIX = prefix("1.2.840.10008.5.1.4.1.1.2", "1.2.3", EXPLICIT, "SENDER")


def read(stream: bytes, step: int) -> tuple[Part10Reader, bytes]:
    reader = Part10Reader()
    pieces = [bytes(reader.feed(stream[at : at + step])) for at in range(0, len(stream), step)]
    return reader, b"".join(pieces)


def test_pydicom_reads_the_prefix() -> None:
    dataset = pydicom.dcmread(io.BytesIO(PREFIX + DATASET))
    meta = dataset.file_meta
    assert PREFIX[:128] == bytes(128)
    assert meta.FileMetaInformationGroupLength == len(PREFIX) - 128 - 4 - 12
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert (meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == ("1.2.3", EXPLICIT)
    assert meta.ImplementationClassUID.is_valid and meta.ImplementationClassUID.startswith("2.25.")
    assert (meta.ImplementationVersionName, meta.SourceApplicationEntityTitle) == ("STELE_0", "SENDER")
    assert dataset.PatientID == "ID"


def test_no_source_no_element() -> None:
    assert b"AE" not in prefix("1.2", "1.3", EXPLICIT, "")


@pytest.mark.parametrize("step", [1, 2, 3, 7, 131, 132, 133, 200, 100_000])
def test_the_dataset_comes_out_whole_in_any_pieces(step: int) -> None:
    reader, dataset = read(b"\x7fELF" + bytes(124) + PREFIX[128:] + DATASET, step)
    assert dataset == DATASET
    meta = reader.finish()
    assert meta.sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert (meta.sop_instance_uid, meta.transfer_syntax_uid) == ("1.2.3", EXPLICIT)


def test_every_bundled_file_is_split_where_pydicom_splits_it() -> None:
    for file in real_files():
        with file.path.open("rb") as stream:
            pydicom.filereader.read_preamble(stream, False)
            pydicom.filereader._read_file_meta_info(stream)
            assert stream.tell() == file.offset, file.path.name
        for step in (1, 1000):
            assert read(file.path.read_bytes()[: file.offset + 50], step)[1] == file.dataset[:50]


def test_a_file_without_a_dataset_ends_well() -> None:
    reader, dataset = read(PREFIX, 64)
    assert dataset == b""
    assert reader.finish().sop_instance_uid == "1.2.3"


def test_deflated_bytes_that_look_like_meta_information_are_dataset() -> None:
    dataset = b"\2\0\2\0UI\4\0001.2\0"
    assert read(prefix("1.2", "1.3", DEFLATED, "") + dataset, 50)[1] == dataset


@pytest.mark.parametrize("change", [-8, 8, 1000])
def test_a_wrong_group_length_does_not_matter(change: int) -> None:
    stream = bytearray(PREFIX + DATASET)
    stream[140] = (stream[140] + change) % 256
    assert read(bytes(stream), 11)[1] == DATASET


def test_no_group_length_does_not_matter() -> None:
    assert read(PREFIX[:132] + PREFIX[144:] + DATASET, 11)[1] == DATASET


@pytest.mark.parametrize("size", [0, 127, 131, 132, 140, 144, 150, 200])
def test_an_end_inside_the_meta_information_is_refused(size: int) -> None:
    reader, dataset = read(PREFIX[:size], 64)
    assert not dataset
    with pytest.raises(Refusal) as refusal:
        reader.finish()
    assert refusal.value.reason is Reason.NOT_UNDERSTOOD


@pytest.mark.parametrize(
    "stream",
    [
        bytes(128) + b"DCM " + DATASET,
        DATASET * 20,
        bytes(128) + b"DICM" + DATASET,  # no meta information
        bytes(128) + b"DICM" + element(0x00020003, "UI", b"1.2\0") + DATASET,  # no transfer syntax
        bytes(128) + b"DICM" + element(0x00020003, "ZZ", b"1.2\0") + DATASET,
        bytes(128) + b"DICM" + element(0x00020001, "OB", b"", 0xFFFFFFFF),
        bytes(128) + b"DICM" + element(0x00020102, "OB", bytes(MAX_META_BYTES)) + DATASET,
        bytes(128) + b"DICM" + element(0x00020016, "AE", b"X" * 16) * 4000 + DATASET,
    ],
)
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_what_is_no_file_is_refused(stream: bytes, step: int) -> None:
    with pytest.raises(Refusal) as refusal:
        read(stream, step)[0].finish()
    assert refusal.value.reason is Reason.NOT_UNDERSTOOD
