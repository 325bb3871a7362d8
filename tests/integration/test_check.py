"""`stele check` finds every kind of damage and nothing else; `--repair` mends what a copy exists for."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import bootstrap
from node.domain.errors import Reason, Refusal
from node.domain.model import Scope
from node.domain.part10 import Part10Reader
from node.services.check import Finding
from tests import corpus
from tests.integration.damage import OPERATOR, Damaged, damaged
from tests.support import wait_until

SPARE_NAME = "{}0000000000000000000000000000ab"


@pytest.fixture
def node(tmp_path: Path, postgres_dsn: str) -> Iterator[Damaged]:
    """An empty archive."""
    with damaged(tmp_path / "data", postgres_dsn) as each:
        yield each


@pytest.fixture
def images(node: Damaged) -> dict[str, bytes]:
    """Four stored instances of one series: dataset bytes by UID."""
    return {
        node.store(image): bytes(Part10Reader().feed(corpus.encode(image)))
        for image in corpus.ct_series(4, 32)
    }


def spare_name(node: Damaged, uid: str) -> str:
    """A name for a copy of an instance's object."""
    return SPARE_NAME.format(node.name_of(uid)[:2])


def audited_repairs(node: Damaged, uid: str) -> list[str]:
    """Where the copies came from that the audit trail says an instance was mended with."""
    rows = node.sql(
        "SELECT detail ->> 'origin' FROM audit_events WHERE action = 'repair' AND actor = %s"
        " AND detail ->> 'instance_uid' = %s",
        OPERATOR.name,
        uid,
    )
    return [row[0] for row in rows]


def test_a_healthy_archive_has_nothing_to_report(node: Damaged, images: dict[str, bytes]) -> None:
    assert node.check() == []
    assert node.check(quick=True) == []
    assert node.check(repair=True) == []


# --- objects ---


@pytest.mark.parametrize("quick", [False, True])
def test_a_missing_object_without_a_copy_is_reported_and_left_alone(
    node: Damaged, images: dict[str, bytes], quick: bool
) -> None:
    lost = sorted(images)[0]
    node.file_of(node.name_of(lost)).unlink()
    assert node.check(quick=quick) == [Finding("missing", lost)]
    assert node.check(repair=True, quick=quick) == [Finding("missing", lost)]
    assert node.archive.catalog.instances.find(lost) is not None
    assert node.archive.catalog.surplus.take(10) == []


def test_a_missing_object_is_mended_from_an_object_that_no_row_knows(
    node: Damaged, images: dict[str, bytes]
) -> None:
    lost = sorted(images)[0]
    copy = node.copy(node.name_of(lost), spare_name(node, lost))
    node.file_of(node.name_of(lost)).unlink()
    assert node.check() == [Finding("missing", lost), Finding("orphan", copy, detail="copy")]
    assert node.check(repair=True) == [
        Finding("missing", lost, True, "from an object"),
        Finding("orphan", copy, True, "copy"),
    ]
    assert node.check() == []
    assert node.read(lost) == images[lost]
    assert audited_repairs(node, lost) == ["object without a row"]
    assert copy not in node.objects()


def test_a_copy_younger_than_the_grace_period_mends_and_stays(
    node: Damaged, images: dict[str, bytes]
) -> None:
    lost = sorted(images)[0]
    copy = node.copy(node.name_of(lost), spare_name(node, lost), hours=0)
    node.file_of(node.name_of(lost)).unlink()
    assert node.check(repair=True) == [Finding("missing", lost, True, "from an object")]
    assert node.check() == []
    assert copy in node.objects()


def test_a_row_that_names_another_object_finds_its_own_again(node: Damaged, images: dict[str, bytes]) -> None:
    uid = sorted(images)[0]
    name = node.name_of(uid)
    node.age(name, 2)
    node.sql("UPDATE instances SET object_name = %s WHERE sop_instance_uid = %s", "ab" * 16, uid)
    assert node.check() == [Finding("missing", uid), Finding("orphan", name, detail="copy")]
    node.check(repair=True)
    assert node.check() == []
    assert node.read(uid) == images[uid]


@pytest.mark.parametrize("offset", [1000, 2000, -2000], ids=["header", "pixels", "last pixels"])
def test_a_flipped_bit_of_a_dataset_is_found_and_mended_from_a_file(
    node: Damaged, images: dict[str, bytes], tmp_path: Path, offset: int
) -> None:
    uid, *others = sorted(images)
    node.flip(node.name_of(uid), offset)
    assert node.check() == [Finding("corrupt", uid)]
    assert node.check(repair=True) == [Finding("corrupt", uid)]
    with pytest.raises(Refusal) as refused:
        node.read(uid)
    assert refused.value.reason is Reason.CORRUPT
    # Others of the series, the right one with other bytes, no image, and at last the right one.
    folder = tmp_path / "files"
    series = list(corpus.ct_series(4, 32))
    corpus.write([image for image in series if image.SOPInstanceUID in others], folder)
    changed = next(image for image in series if image.SOPInstanceUID == uid)
    changed.PatientComments = "changed"
    (folder / "changed.dcm").write_bytes(corpus.encode(changed))
    (folder / "notes.txt").write_text("no image")
    before = node.objects()
    assert node.check(repair=True, folders=(folder,)) == [Finding("corrupt", uid)]
    assert node.objects() == before
    del changed.PatientComments
    (folder / "right.dcm").write_bytes(corpus.encode(changed))
    assert node.check(repair=True, folders=(folder,)) == [Finding("corrupt", uid, True, "from a file")]
    assert node.check() == []
    assert node.read(uid) == images[uid]
    assert audited_repairs(node, uid) == ["a file"]


@pytest.mark.parametrize("offset", [10, 140, -40], ids=["preamble", "meta information", "digests"])
def test_a_flipped_bit_beside_the_dataset_is_mended_from_the_dataset(
    node: Damaged, images: dict[str, bytes], offset: int
) -> None:
    uid = sorted(images)[0]
    node.flip(node.name_of(uid), offset)
    assert node.check() == [Finding("label", uid)]
    assert node.check(repair=True) == [Finding("label", uid, True)]
    assert node.check() == []
    assert node.read(uid) == images[uid]


def test_a_large_object_with_damaged_digests_is_mended_from_its_own_bytes(node: Damaged) -> None:
    (image,) = corpus.ct_series(1, 32)
    image.PixelData = bytes(9 << 20)  # three pieces
    image.Rows, image.Columns = 2304, 2048
    uid = node.store(image)
    name = node.name_of(uid)
    node.flip(name, node.file_of(name).read_bytes().index(b"stele.pieces") + 40)
    with pytest.raises(Refusal):
        node.read(uid)
    assert node.check() == [Finding("label", uid)]
    assert node.check(repair=True) == [Finding("label", uid, True)]
    assert node.check() == []
    assert node.read(uid)[-(8 << 20) :] == bytes(8 << 20)


def test_an_object_cut_short_is_corrupt(node: Damaged, images: dict[str, bytes]) -> None:
    uid = sorted(images)[0]
    name = node.name_of(uid)
    node.overwrite(name, node.file_of(name).read_bytes()[:-1])
    assert node.check() == [Finding("corrupt", uid)]
    assert node.check(quick=True) == [Finding("corrupt", uid)]


# --- objects without a row ---


def test_a_spare_object_is_removed_once_the_rows_own_has_been_read(
    node: Damaged, images: dict[str, bytes]
) -> None:
    uid = sorted(images)[0]
    spare = node.copy(node.name_of(uid), spare_name(node, uid))
    assert node.check() == [Finding("orphan", spare, detail="spare")]
    assert node.check(quick=True) == [Finding("orphan", spare)]
    assert node.check(repair=True) == [Finding("orphan", spare, True, "spare")]
    assert node.check() == []
    assert node.read(uid) == images[uid]
    assert spare not in node.objects()


def test_an_object_whose_row_was_lost_is_admitted_again(node: Damaged, images: dict[str, bytes]) -> None:
    uid = sorted(images)[0]
    name = node.name_of(uid)
    node.sql("DELETE FROM instances WHERE sop_instance_uid = %s", uid)
    assert node.check() == []  # an intake may be about to commit it
    node.age(name, 2)
    assert node.check() == [Finding("orphan", name, detail="unknown")]
    assert node.check(repair=True) == [Finding("orphan", name, True, "unknown")]
    assert node.check() == []
    assert node.read(uid) == images[uid]
    assert node.name_of(uid) == name


def test_what_was_deleted_does_not_come_back_from_a_second_object(
    node: Damaged, images: dict[str, bytes]
) -> None:
    deleted, other, *_ = sorted(images)
    left = node.copy(node.name_of(deleted), spare_name(node, deleted))
    lost = node.name_of(other)
    node.archive.remove.remove(Scope(instance_uid=deleted), OPERATOR)
    node.sql("DELETE FROM instances WHERE sop_instance_uid = %s", other)
    node.age(lost, 2)
    found = {finding.name: finding.detail for finding in node.check()}
    assert found == {left: "deleted", lost: "unknown"}
    assert all(finding.mended for finding in node.check(repair=True))
    assert node.check() == []
    assert node.archive.catalog.instances.find(deleted) is None
    assert node.read(other) == images[other]
    assert left not in node.objects()


def test_what_was_stored_again_after_its_deletion_and_lost_its_row_comes_back(
    node: Damaged, images: dict[str, bytes]
) -> None:
    image = next(corpus.ct_series(1, 32))
    uid = str(image.SOPInstanceUID)
    node.archive.remove.remove(Scope(instance_uid=uid), OPERATOR)
    node.store(image)
    name = node.name_of(uid)
    node.sql("DELETE FROM instances WHERE sop_instance_uid = %s", uid)
    judged = bootstrap.build_orphans(node.archive).judge(name, 0.0)  # it is younger than the deletion
    assert judged is not None
    assert judged.fate.value == "unknown"


def test_a_refused_object_is_removed_and_a_rival_kept(node: Damaged, images: dict[str, bytes]) -> None:
    uid = sorted(images)[0]
    mine = node.name_of(uid)
    other = next(image for image in corpus.ct_series(4, 32) if image.SOPInstanceUID == uid)
    other.PatientComments = "other bytes"
    left = node.leave(other, hours=2)
    assert node.check() == [Finding("orphan", left, detail="refused")]
    # Had the row been made anew since, nobody could tell who was first.
    node.sql("DELETE FROM instances WHERE sop_instance_uid = %s", uid)
    judged = bootstrap.build_orphans(node.archive).judge(mine, 3 * 3600)
    assert judged is not None
    bootstrap.build_orphans(node.archive).adopt(judged, OPERATOR)
    assert node.check(repair=True) == [Finding("orphan", left, False, "rival")]
    assert {mine, left} <= node.objects()
    assert node.read(uid) == images[uid]


def test_a_damaged_object_without_a_row_is_kept(node: Damaged, images: dict[str, bytes]) -> None:
    uid = sorted(images)[0]
    spare = node.copy(node.name_of(uid), spare_name(node, uid))
    node.flip(spare, 1500)
    node.age(spare, 2)
    expected = [Finding("orphan", spare, detail="unreadable")]
    assert node.check() == expected
    assert node.check(repair=True) == expected
    assert spare in node.objects()


# --- rows that do not fit together: wrong counts ---


def test_an_instance_below_another_study_is_placed_where_its_dataset_says(
    node: Damaged, images: dict[str, bytes]
) -> None:
    uid = sorted(images)[0]
    other = node.store(corpus.small_image(corpus.Study(corpus.Person("PHANTOM^OTHER", "OTHER"))))
    before = rows_above(node, uid)
    node.sql(
        "UPDATE instances SET study_pk = other.study_pk FROM instances AS other"
        " WHERE instances.sop_instance_uid = %s AND other.sop_instance_uid = %s",
        uid,
        other,
    )
    assert node.check() == [Finding("misplaced", uid)]
    assert node.check(quick=True) == [Finding("misplaced", uid)]
    assert node.check(repair=True) == [Finding("misplaced", uid, True)]
    assert node.check() == []
    assert rows_above(node, uid) == before


def test_an_instance_below_another_series_is_found_by_its_dataset(
    node: Damaged, images: dict[str, bytes]
) -> None:
    uid = sorted(images)[0]
    other = node.store(corpus.small_image(corpus.Study(corpus.Person("PHANTOM^OTHER", "OTHER"))))
    before = rows_above(node, uid)
    node.sql(
        "UPDATE instances SET study_pk = other.study_pk, series_pk = other.series_pk"
        " FROM instances AS other"
        " WHERE instances.sop_instance_uid = %s AND other.sop_instance_uid = %s",
        uid,
        other,
    )
    assert node.check(quick=True) == []  # the rows agree with each other
    assert node.check() == [Finding("misplaced", uid)]
    assert node.check(repair=True) == [Finding("misplaced", uid, True)]
    assert node.check() == []
    assert rows_above(node, uid) == before


def test_lost_rows_above_instances_are_made_again(node: Damaged, images: dict[str, bytes]) -> None:
    before = {uid: rows_above(node, uid) for uid in images}
    for statement in ("DELETE FROM series", "DELETE FROM studies", "DELETE FROM patients"):
        node.sql(statement)
    assert sorted(node.check(), key=lambda each: each.name) == [
        Finding("misplaced", uid) for uid in sorted(images)
    ]
    assert all(finding.mended for finding in node.check(repair=True))
    assert node.check() == []
    assert {uid: rows_above(node, uid) for uid in images} == before


def test_rows_with_nothing_below_them_are_removed(node: Damaged, images: dict[str, bytes]) -> None:
    phantom = node.store(corpus.small_image(corpus.Study(corpus.Person("PHANTOM^EMPTY", "EMPTY"))))
    study, series, patient = node.sql(
        "SELECT study_uid, series_uid, patient_pk::text FROM instances JOIN series USING (series_pk)"
        " JOIN studies ON studies.study_pk = series.study_pk WHERE sop_instance_uid = %s",
        phantom,
    )[0]
    name = node.name_of(phantom)
    node.sql("DELETE FROM instances WHERE sop_instance_uid = %s", phantom)
    node.file_of(name).unlink()
    assert node.check() == [Finding("hollow", series, detail="series")]
    assert node.check(repair=True) == [
        Finding("hollow", series, True, "series"),
        Finding("hollow", study, True, "study"),
        Finding("hollow", patient, True, "patient"),
    ]
    assert node.check() == []
    assert set(images) == {row[0] for row in node.sql("SELECT sop_instance_uid FROM instances")}


# --- while the archive works ---


@pytest.mark.timeout(120)
def test_intake_and_deletion_under_way_are_no_damage(node: Damaged) -> None:
    stop = threading.Event()
    stored: set[str] = set()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        study = 0
        try:
            while not stop.is_set():
                study += 1
                person = corpus.Person(f"PHANTOM^{number}", f"P{number}")
                uids = [
                    node.store(corpus.small_image(corpus.Study(person, study), instance=each))
                    for each in (1, 2, 2)
                ]
                if study % 2:
                    node.archive.remove.remove(Scope(instance_uid=uids[0]), OPERATOR)
                    node.archive.remove.remove(Scope(instance_uid=uids[1]), OPERATOR)
                else:
                    stored.update(uids)
        except BaseException as error:  # noqa: BLE001 - the test tells of it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(stored) > 10 or failures, 60, "intake under way")
        rounds = [node.check(), node.check(repair=True), node.check(quick=True), node.check(repair=True)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert rounds == [[], [], [], []]
    assert node.check() == []
    for uid in stored:
        node.read(uid)


def rows_above(node: Damaged, uid: str) -> list[tuple[object, ...]]:
    """What an instance's series, study and patient say, without keys and times."""
    return node.sql(
        "SELECT series_uid, series.attributes, study_uid, studies.attributes, patient_key,"
        " patients.attributes, patient_name"
        " FROM instances JOIN series USING (series_pk) JOIN studies ON studies.study_pk = instances.study_pk"
        " AND studies.study_pk = series.study_pk JOIN patients USING (patient_pk)"
        " WHERE sop_instance_uid = %s",
        uid,
    )
