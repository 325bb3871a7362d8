"""`stele rebuild` makes an emptied catalog anew from the objects: equal row by row, but for what objects
cannot know, which `node/services/rebuild.py` names and these tests name with it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from node import bootstrap
from node.domain.model import AuditEvent, Scope
from node.services.collect import Collect
from tests import corpus
from tests.integration.damage import GRACE_SECONDS, OPERATOR, SENDER, Damaged, damaged
from tests.integration.test_cli import ROWS

REBUILT = frozenset(ROWS)
NOT_IN_OBJECTS = frozenset(
    {
        "accounts",
        "audit_events",
        "audit_seals",
        "entities",
        "leases",
        "schema_migrations",
        "series_metadata",
        "sessions",
        "surplus",
    }
)
AGAIN = replace(SENDER, name="MODALITY2")


@pytest.fixture
def node(tmp_path: Path, postgres_dsn: str) -> Iterator[Damaged]:
    """An empty archive."""
    with damaged(tmp_path / "data", postgres_dsn) as each:
        yield each


def images() -> Iterator[FileDataset]:
    """Character sets, transfer syntaxes, private elements, many frames, no patient ID."""
    yield from corpus.character_set_images()
    for number, syntax in enumerate(corpus.TRANSFER_SYNTAXES):
        study = corpus.Study(corpus.Person("PHANTOM^SYNTAX", f"SYNTAX{number % 3}"), number)
        yield from corpus.ct_series(2, 32, study=study, transfer_syntax=syntax)
    private = corpus.small_image(corpus.Study(corpus.Person("PHANTOM^PRIVATE", "PRIVATE")))
    block = private.private_block(0x0029, "PHANTOM ELLIPSOIDS", create=True)
    block.add_new(0x10, "LO", "private")
    block.add_new(0x11, "UN", bytes(range(256)) * 40)
    yield private
    nobody = corpus.small_image(corpus.Study(corpus.Person("", "")))
    del nobody.PatientID
    yield nobody


def rows(node: Damaged) -> dict[str, list[str]]:
    """Every row of the rebuilt tables, without keys and times, in an order of its own."""
    return {
        table: sorted(json.dumps(row[0], sort_keys=True) for row in node.sql(query.encode()))
        for table, query in ROWS.items()
    }


def metadata(node: Damaged) -> dict[str, bytes]:
    """Every series' metadata as viewers get it."""
    found = node.sql("SELECT series_uid FROM series")
    return {uid: node.archive.metadata.series(uid)[1] for (uid,) in found}


def empty(node: Damaged) -> None:
    """Lose the catalog."""
    for table in sorted(REBUILT | NOT_IN_OBJECTS - {"schema_migrations"}):
        node.sql(f"TRUNCATE {table} CASCADE".encode())


def rebuild(node: Damaged) -> dict[str, str]:
    """What became of each object that had no row."""
    return {each.name: each.result for each in bootstrap.build_rebuild(node.archive).run(OPERATOR)}


def test_every_table_is_rebuilt_or_named_as_what_objects_cannot_know(node: Damaged) -> None:
    found = node.sql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    assert {row[0] for row in found} == REBUILT | NOT_IN_OBJECTS


def test_an_emptied_catalog_is_made_anew_equal_row_by_row(node: Damaged) -> None:
    sent = list(images())
    for image in sent:
        node.store(image)
    # A retry; a retry that a crash left an object of; other bytes that were refused and left by a crash.
    node.store(sent[0], AGAIN)
    retry = node.leave(sent[1], AGAIN)
    other = sent[2]
    other.PatientComments = "other bytes"
    refused = node.leave(other)
    # Deleted: an instance of a series, and a study as a whole.
    gone = [str(sent[-5].SOPInstanceUID), str(sent[-2].SOPInstanceUID)]
    node.archive.remove.remove(Scope(instance_uid=gone[0]), OPERATOR)
    node.archive.remove.remove(Scope(study_uid=str(sent[-2].StudyInstanceUID)), OPERATOR)
    before, metadata_before = rows(node), metadata(node)
    uids = [row[0] for row in node.sql("SELECT sop_instance_uid FROM instances")]
    datasets = {uid: node.read(uid) for uid in uids}
    objects = node.objects()
    assert len(uids) == len(sent) - 2

    empty(node)
    results = rebuild(node)
    assert {name: result for name, result in results.items() if result != "stored"} == {
        retry: "duplicate",
        refused: "conflict",
    }
    assert rows(node) == before
    assert metadata(node) == metadata_before
    assert {uid: node.read(uid) for uid in datasets} == datasets
    assert all(node.archive.catalog.instances.find(uid) is None for uid in gone)
    assert node.objects() == objects  # nothing is removed
    assert set(rebuild(node).values()) == {"duplicate", "conflict"}
    assert rows(node) == before


def test_of_two_objects_with_one_uid_the_older_is_admitted_and_the_other_kept_for_good(
    node: Damaged,
) -> None:
    (image,) = corpus.ct_series(1, 32)
    uid = node.store(image)
    first, dataset = node.name_of(uid), node.read(uid)
    node.age(first, 3)
    image.PatientComments = "other bytes"
    later = node.leave(image, hours=2)
    empty(node)
    assert rebuild(node) == {first: "stored", later: "conflict"}
    collect(node).orphans()
    assert node.objects() == {first, later}
    assert node.read(uid) == dataset


def test_a_deletion_is_not_undone_while_its_objects_wait_for_the_collector(node: Damaged) -> None:
    (image,) = corpus.ct_series(1, 32)
    uid = node.store(image)
    name = node.name_of(uid)
    # As far as a crash in the midst of a deletion, or a store that does not answer, lets it come
    node.archive.catalog.instances.remove(Scope(instance_uid=uid), AuditEvent("delete", OPERATOR))
    assert rebuild(node) == {}
    assert node.archive.catalog.instances.find(uid) is None
    assert node.check(repair=True) == []
    assert collect(node).surplus() == 1
    assert name not in node.objects()


def test_a_deletion_takes_the_objects_with_it_so_that_no_rebuild_can_undo_it(node: Damaged) -> None:
    uids = [node.store(image) for image in corpus.ct_series(3, 32)]
    node.archive.remove.remove(Scope(instance_uid=uids[0]), OPERATOR)
    assert node.objects() == {node.name_of(uid) for uid in uids[1:]}
    assert node.archive.catalog.surplus.take(10) == []
    empty(node)
    assert sorted(rebuild(node).values()) == ["stored", "stored"]
    assert node.archive.catalog.instances.find(uids[0]) is None


def test_the_collector_of_an_emptied_catalog_deletes_nothing(node: Damaged) -> None:
    sent = list(corpus.ct_series(3, 32))
    uids = [node.store(image) for image in sent]
    before, objects = rows(node), node.objects()
    for name in objects:
        node.age(name, 2 * GRACE_SECONDS / 3600)
    node.sql("UPDATE instances SET received_at = now() - interval '2 hours'")
    empty(node)
    assert collect(node).orphans() == 0
    assert node.objects() == objects
    assert rows(node) == before
    assert all(node.read(uid) for uid in uids)


def test_the_collector_heals_a_row_before_it_removes_what_could_be_the_last_copy(node: Damaged) -> None:
    (image,) = corpus.ct_series(1, 32)
    uid = node.store(image)
    dataset = node.read(uid)
    node.leave(image, hours=2)
    node.flip(node.name_of(uid), -2000)
    collect(node).orphans()
    collect(node).surplus()
    assert node.read(uid) == dataset
    assert node.objects() == {node.name_of(uid)}


def collect(node: Damaged) -> Collect:
    """The archive's collector."""
    return bootstrap.build_collect(node.settings, node.archive)
