"""Which files of a folder are sent, on how many associations."""

from pathlib import Path

from node.domain import part10
from node.domain.part10 import Meta
from node.services.send import MAX_CONTEXTS, Sent, _batches, _files

EXPLICIT = "1.2.840.10008.1.2.1"


def test_only_instances_are_sent(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "image").write_bytes(part10.prefix("1.2.3", "1.2.3.4", EXPLICIT, "") + bytes(8))
    (tmp_path / "DICOMDIR").write_bytes(part10.prefix("1.2.840.10008.1.3.10", "1.2.3.5", EXPLICIT, ""))
    (tmp_path / "nameless").write_bytes(part10.prefix("1.2.3", "", EXPLICIT, "") + bytes(8))
    (tmp_path / "note.txt").write_text("no image")
    result = Sent()
    found = list(_files(tmp_path, result))
    assert [path.name for path, _ in found] == ["image"]
    assert [path.name for path, _ in result.failed] == ["nameless"]


def test_a_single_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no image")
    result = Sent()
    assert list(_files(tmp_path / "note.txt", result)) == []
    assert len(result.failed) == 1


def test_no_association_has_more_kinds_than_it_has_contexts() -> None:
    files = [(Path(str(number)), Meta(f"1.2.{number % 300}", "1", EXPLICIT)) for number in range(600)]
    batches = list(_batches(files))
    assert [file for batch in batches for file in batch] == files
    assert all(len({meta.sop_class_uid for _, meta in batch}) <= MAX_CONTEXTS for batch in batches)
