"""Which files of a folder are sent, and under which UIDs."""

from pathlib import Path

import pytest

from node.domain import part10
from node.domain.errors import Refusal
from node.services.send import File, Sent, _files
from tests.unit.domain.encoding import BIG_ENDIAN, DEFLATED, EXPLICIT, element, real_files

CLASS, INSTANCE = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"


def uids(class_uid: str = CLASS, instance_uid: str = INSTANCE) -> bytes:
    """The head of a dataset with these UIDs."""
    return element(0x00080016, "UI", even(class_uid)) + element(0x00080018, "UI", even(instance_uid))


def even(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def only(folder: Path) -> File:
    """The one file found in a folder."""
    (file,) = _files(folder, Sent())
    return file


def test_only_instances_are_sent(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "image").write_bytes(part10.prefix("1.2.3", "1.2.3.4", EXPLICIT, "") + bytes(8))
    (tmp_path / "DICOMDIR").write_bytes(part10.prefix("1.2.840.10008.1.3.10", "1.2.3.5", EXPLICIT, ""))
    (tmp_path / "nameless").write_bytes(part10.prefix("1.2.3", "", EXPLICIT, "") + bytes(8))
    (tmp_path / "note.txt").write_text("no image")
    result = Sent()
    found = list(_files(tmp_path, result))
    assert [file.path.name for file in found] == ["image"]
    assert [path.name for path, _ in result.failed] == ["nameless"]


def test_a_single_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no image")
    result = Sent()
    assert list(_files(tmp_path / "note.txt", result)) == []
    assert len(result.failed) == 1


def test_the_datasets_uids_count_and_a_difference_is_told(tmp_path: Path) -> None:
    tail = element(0x00080060, "CS", b"CT")
    (tmp_path / "image").write_bytes(part10.prefix("1.2.3", "1.2.9", EXPLICIT, "") + uids() + tail)
    assert only(tmp_path) == File(tmp_path / "image", CLASS, INSTANCE, EXPLICIT, differs=True)
    (tmp_path / "image").write_bytes(part10.prefix(CLASS, INSTANCE, EXPLICIT, "") + uids() + tail)
    assert only(tmp_path) == File(tmp_path / "image", CLASS, INSTANCE, EXPLICIT, differs=False)
    (tmp_path / "image").write_bytes(part10.prefix("", "", EXPLICIT, "") + uids() + tail)
    assert only(tmp_path) == File(tmp_path / "image", CLASS, INSTANCE, EXPLICIT, differs=False)


def test_a_dataset_without_uids_or_unreadable_leaves_those_of_the_meta_information(tmp_path: Path) -> None:
    prefix = part10.prefix(CLASS, INSTANCE, EXPLICIT, "")
    for dataset in (element(0x00100020, "LO", b"ID"), b"\xff" * 100, b""):
        (tmp_path / "image").write_bytes(prefix + dataset)
        assert only(tmp_path) == File(tmp_path / "image", CLASS, INSTANCE, EXPLICIT)
    # What was read before it broke counts
    (tmp_path / "image").write_bytes(part10.prefix(CLASS, "1.2.9", EXPLICIT, "") + uids() + b"\xff" * 100)
    assert only(tmp_path).sop_instance_uid == INSTANCE


def test_every_bundled_file_is_known_by_its_datasets_uids() -> None:
    checked = set()
    for real in real_files():
        try:
            (file,) = _files(real.path, Sent())
        except ValueError:
            continue  # a DICOMDIR, or nothing with UIDs
        if real.transfer_syntax_uid == DEFLATED:
            checked.add(DEFLATED)
            assert file.sop_instance_uid
            continue
        order = ">HH" if real.transfer_syntax_uid == BIG_ENDIAN else "<HH"
        checked.add(order)
        head = real.dataset[:2000]
        if file.differs:
            assert file.sop_instance_uid.encode() in head, real.path.name
    assert checked == {DEFLATED, "<HH", ">HH"}


def test_the_dataset_is_read_anew_each_time(tmp_path: Path) -> None:
    data = uids() + element(0x7FE00010, "OW", bytes(3 << 20))
    (tmp_path / "image").write_bytes(part10.prefix(CLASS, INSTANCE, EXPLICIT, "") + data)
    file = only(tmp_path)
    assert b"".join(file) == b"".join(file) == data
    file.path.write_bytes(b"gone")
    with pytest.raises(Refusal):
        list(file)
