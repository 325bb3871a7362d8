"""Instances on PostgreSQL: admitted once, found, listed, removed, prepared."""

import itertools
import random
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pytest

from node.adapters.catalog_postgres.catalog import PostgresCatalog
from node.domain.errors import Reason, Refusal
from node.domain.model import (
    Admission,
    Attributes,
    AuditEvent,
    InstanceRecord,
    Scope,
    StoredInstance,
    StoredObject,
)
from tests.contract.catalog_records import (
    DELETE,
    MODALITY,
    STORE,
    counts,
    one,
    open_catalog,
    record,
    rows,
    whole,
)

T = TypeVar("T")


@pytest.fixture
def dsn(any_postgres_dsn: str) -> str:
    return any_postgres_dsn


@pytest.fixture
def catalog(dsn: str) -> Iterator[PostgresCatalog]:
    catalog = open_catalog(dsn)
    yield catalog
    catalog.close()


def at_once(calls: list[Callable[[], T]]) -> list[T]:
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]


def racing(
    catalog: PostgresCatalog, racers: list[InstanceRecord]
) -> tuple[list[Admission], list[StoredInstance]]:
    answers = at_once([partial(catalog.instances.admit, racer, STORE) for racer in racers])
    return [admission for admission, _ in answers], [row for _, row in answers]


def outcomes(dsn: str) -> list[tuple[object, ...]]:
    return rows(dsn, "SELECT action, outcome FROM audit_events ORDER BY event_id")


# --- Admission -----------------------------------------------------------------------------------


def test_a_new_instance_is_stored_with_its_audit_row(catalog: PostgresCatalog, dsn: str) -> None:
    new = record(1)
    admission, row = catalog.instances.admit(new, replace(STORE, study_uids=("2.25.1",)))
    assert admission is Admission.STORED
    assert row == catalog.instances.find(new.sop_instance_uid)
    assert row.stored == new.stored
    assert (row.study_uid, row.series_uid, row.number_of_frames) == ("2.25.1", "2.25.1.1", 1)
    assert row.transfer_syntax_uid == new.transfer_syntax_uid
    ((action, outcome, actor, studies),) = rows(
        dsn, "SELECT action, outcome, actor, study_uids FROM audit_events"
    )
    assert (action, outcome, actor, studies) == ("store", "success", "MODALITY", ["2.25.1"])
    whole(dsn)


def test_plain_columns_are_made_from_the_attributes(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.instances.admit(record(7), STORE)
    assert rows(dsn, "SELECT patient_id, name, name_sounds FROM patients") == [
        ("P1", "test^anna", ["T230", "A500"])
    ]
    assert rows(dsn, "SELECT study_date FROM studies") == [("20260102",)]
    assert rows(dsn, "SELECT modality, series_number FROM series") == [("CT", 3)]
    assert rows(dsn, "SELECT instance_number, source FROM instances") == [(7, "MODALITY")]


def test_the_same_bytes_again_are_a_duplicate_and_written_again(catalog: PostgresCatalog, dsn: str) -> None:
    first, again = record(1), record(1)
    catalog.instances.admit(first, STORE)
    assert one(dsn, "SELECT received_again_at FROM instances") is None
    admission, row = catalog.instances.admit(again, STORE)
    assert admission is Admission.DUPLICATE
    assert row.stored == first.stored
    assert one(dsn, "SELECT received_again_at FROM instances") is not None
    assert outcomes(dsn) == [("store", "success"), ("store", "success")]


def test_the_same_attempt_again_is_still_stored(catalog: PostgresCatalog) -> None:
    """A caller that did not hear the answer must not throw the object away that the row names."""
    attempt = record(1)
    catalog.instances.admit(attempt, STORE)
    admission, row = catalog.instances.admit(attempt, STORE)
    assert admission is Admission.STORED
    assert row.stored.name == attempt.stored.name


@pytest.mark.parametrize(
    "other",
    [
        record(1, dataset=b"other"),
        record(1, syntax="1.2.840.10008.1.2"),
        record(1, study="2.25.2", uid="2.25.1.1.1", dataset=b"other"),
        record(1, series="2.25.1.9", uid="2.25.1.1.1", dataset=b"other", patient_id="P2"),
    ],
    ids=["bytes", "transfer syntax", "in a new study", "in a new series"],
)
def test_something_else_under_the_uid_is_a_conflict(
    catalog: PostgresCatalog, dsn: str, other: InstanceRecord
) -> None:
    first = record(1)
    catalog.instances.admit(first, STORE)
    admission, row = catalog.instances.admit(other, STORE)
    assert admission is Admission.CONFLICT
    assert row.stored == first.stored
    assert row.study_uid == "2.25.1"
    assert outcomes(dsn) == [("store", "success"), ("store", "conflict")]
    assert counts(dsn) == (1, 1, 1)
    whole(dsn)


def test_a_series_of_another_study_is_refused_and_leaves_nothing(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.instances.admit(record(1), STORE)
    with pytest.raises(Refusal) as caught:
        catalog.instances.admit(record(2, study="2.25.2", series="2.25.1.1", patient_id="P2"), STORE)
    assert caught.value.reason is Reason.MISMATCH
    assert one(dsn, "SELECT count(*) FROM instances") == 1
    whole(dsn)


def test_a_study_stays_with_its_first_patient(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.instances.admit(record(1), STORE)
    for instance, series in ((2, ""), (1, "2.25.1.2")):
        admission, _ = catalog.instances.admit(record(instance, series=series, patient_id="P2"), STORE)
        assert admission is Admission.STORED
    assert rows(dsn, "SELECT patient_id FROM patients") == [("P1",)]
    flagged = one(dsn, "SELECT count(*) FROM audit_events WHERE detail @> '{\"other_patient\": true}'")
    assert flagged == 2


def test_without_patient_id_each_study_has_its_own_patient(catalog: PostgresCatalog, dsn: str) -> None:
    for study in ("2.25.1", "2.25.2", "2.25.2"):
        catalog.instances.admit(record(study=study, patient_id=""), STORE)
    assert one(dsn, "SELECT count(*) FROM patients") == 2


def test_issuers_tell_patients_with_the_same_id_apart(catalog: PostgresCatalog, dsn: str) -> None:
    for study, issuer in (("2.25.1", "A"), ("2.25.2", "B")):
        attributes: Attributes = {"00100021": {"vr": "LO", "Value": [issuer]}}
        catalog.instances.admit(record(study=study, patient=attributes), STORE)
    assert one(dsn, "SELECT count(*) FROM patients") == 2
    assert len(catalog.instances.select([Scope(patient_id="P1", issuer="B")])) == 1
    assert len(catalog.instances.select([Scope(patient_id="P1")])) == 2


def test_values_that_postgresql_cannot_hold_are_taken_all_the_same(catalog: PostgresCatalog) -> None:
    attributes: Attributes = {
        "00100040": {"vr": "CS", "Value": ["F\x00"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Te\x00st"}, None]},
        "00104000": {"vr": "LT", "Value": [None]},
    }
    odd = record(10**30, uid="2.25.5", patient=attributes)
    admission, _ = catalog.instances.admit(odd, STORE)
    assert admission is Admission.STORED


def test_values_longer_than_any_index_takes_are_taken_all_the_same(
    catalog: PostgresCatalog, dsn: str
) -> None:
    dice = random.Random(3)  # noise, so that nothing compresses

    def noise(length: int) -> str:
        return "".join(chr(dice.randrange(0x3400, 0x9FFF)) for _ in range(length))

    name: dict[str, Any] = {
        "vr": "PN",
        "Value": [{group: noise(5000) for group in ("Alphabetic", "Ideographic", "Phonetic")}],
    }
    long: dict[str, Any] = {"vr": "LO", "Value": [noise(10_000)]}
    patient = {"00100010": name, "00100020": long, "00100021": long, "00100030": long, "00100040": long}
    above = {"00080020": long, "00080030": long, "00080050": long, "00081030": long, "00080090": name}
    series = {"00080060": long, "0020000E": long}
    odd = replace(record(), patient=patient, study={**above, "00200010": long}, series=series)
    assert catalog.instances.admit(odd, STORE)[0] is Admission.STORED
    issuer = {"vr": "LO", "Value": [noise(10_000)]}
    other = record(study="2.25.2")
    other = replace(other, patient={**patient, "00100021": issuer}, study=odd.study, series=series)
    assert catalog.instances.admit(other, STORE)[0] is Admission.STORED
    assert counts(dsn) == (2, 2, 2)


@pytest.mark.parametrize("round_", range(3))
def test_racing_writers_of_one_uid_have_one_winner(catalog: PostgresCatalog, dsn: str, round_: int) -> None:
    racers = [record(1, dataset=bytes([number]), patient_id=f"P{number}") for number in range(8)]
    admissions, in_force = racing(catalog, racers)
    assert admissions.count(Admission.STORED) == 1
    assert admissions.count(Admission.CONFLICT) == 7
    winner = racers[admissions.index(Admission.STORED)].stored
    assert {row.stored for row in in_force} == {winner}
    assert one(dsn, "SELECT count(*) FROM audit_events") == 8
    whole(dsn)


def test_racing_equal_writers_are_one_stored_and_duplicates(catalog: PostgresCatalog, dsn: str) -> None:
    racers = [record(1) for _ in range(8)]
    admissions, _ = racing(catalog, racers)
    assert admissions.count(Admission.STORED) == 1
    assert admissions.count(Admission.DUPLICATE) == 7
    whole(dsn)


@pytest.mark.parametrize(
    "scope", [Scope(study_uid="2.25.1"), Scope(patient_id="P1")], ids=["study", "patient"]
)
def test_removal_racing_admission_leaves_no_orphan(catalog: PostgresCatalog, dsn: str, scope: Scope) -> None:
    """Whatever the order: rows fit together, and every object is either referred to or surplus."""
    admitted: list[str] = []

    def store(study: str, first: int) -> None:
        for number in range(first, first + 40):
            new = record(number, study=study)
            admission, row = catalog.instances.admit(new, STORE)
            assert admission is Admission.STORED
            admitted.append(row.stored.name)

    def remove() -> None:
        for _ in range(40):
            catalog.instances.remove(scope, DELETE)

    at_once(
        [lambda: store("2.25.1", 0), lambda: store("2.25.1", 100), lambda: store("2.25.2", 0), remove, remove]
    )
    whole(dsn)
    kept = {name for name, _ in catalog.instances.names()}
    surplus = set(catalog.surplus.take(1000))
    assert len(admitted) == 120
    assert kept | surplus == set(admitted)
    assert not kept & surplus


# --- Reading -------------------------------------------------------------------------------------


def test_select_is_ordered_and_holds_each_instance_once(catalog: PostgresCatalog) -> None:
    for series, instance in itertools.product(("2.25.1.1", "2.25.1.2"), (10, 2, 1)):
        catalog.instances.admit(record(instance, series=series), STORE)
    catalog.instances.admit(record(study="2.25.2"), STORE)
    found = catalog.instances.select(
        [
            Scope(study_uid="2.25.1", series_uid="2.25.1.2"),
            Scope(study_uid="2.25.1"),
            Scope(instance_uid="2.25.1.1.2"),
            Scope(instance_uid="2.25.9"),
        ]
    )
    assert [instance.sop_instance_uid for instance in found] == [
        f"2.25.1.{series}.{instance}" for series in (1, 2) for instance in (1, 2, 10)
    ]


def test_select_wants_all_parts_of_a_scope_to_fit(catalog: PostgresCatalog) -> None:
    catalog.instances.admit(record(1), STORE)
    fitting = Scope("2.25.1", "2.25.1.1", "2.25.1.1.1", "P1")
    assert len(catalog.instances.select([fitting])) == 1
    for wrong in (
        replace(fitting, study_uid="2.25.2"),
        replace(fitting, series_uid="2.25.1.2"),
        replace(fitting, patient_id="P2"),
        replace(fitting, issuer="X"),
    ):
        assert catalog.instances.select([wrong]) == []
    assert catalog.instances.select([]) == []
    with pytest.raises(ValueError, match="scope"):
        catalog.instances.select([Scope()])


def test_select_writes_the_audit_row_with_what_was_found(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.instances.admit(record(1), STORE)
    scopes = [Scope(patient_id="P1"), Scope(study_uid="2.25.404")]
    catalog.instances.select(scopes, AuditEvent("retrieve", MODALITY))
    assert rows(dsn, "SELECT outcome, study_uids, detail FROM audit_events WHERE action = 'retrieve'") == [
        ("success", ["2.25.1"], {"instances": 1})
    ]


def fill(dsn: str, count: int, header_bytes: int) -> None:
    """`count` instances in one series, by SQL."""
    rows(
        dsn,
        f"""
        INSERT INTO instances (sop_instance_uid, series_pk, study_pk, sop_class_uid, transfer_syntax_uid,
            instance_number, number_of_frames, attributes, header, object_name, prefix_length,
            dataset_length, digest, source)
        SELECT '2.25.7.' || n, series_pk, study_pk, '1.2', '1.2', n, 1, '{{}}',
            repeat('h', {header_bytes})::bytea, 'object' || n, 1, 1, 'x', 'A'
        FROM series, generate_series(1, {count}) AS n
        """,  # noqa: S608
    )


def test_ten_thousand_headers_are_streamed_in_bounded_memory(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.instances.admit(record(0), STORE)
    fill(dsn, 10_000, 4000)
    tracemalloc.start()
    try:
        count = sum(len(header) > 0 for _, header in catalog.instances.headers(Scope(study_uid="2.25.1")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 10_001
    assert peak < 12 << 20, "40 MB of headers must not be in memory together"


def test_headers_come_in_order_and_hold_no_transaction_open(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.instances.admit(record(0), STORE)
    fill(dsn, 1200, 10)
    stream = catalog.instances.headers(Scope(series_uid="2.25.1.1"))
    first, header = next(stream)
    assert (first.sop_instance_uid, header) == ("2.25.1.1.0", b"header")
    assert catalog.pool.in_use == 0
    catalog.instances.remove(Scope(instance_uid="2.25.7.1200"), DELETE)
    rest = [instance.sop_instance_uid for instance, _ in stream]
    assert rest == [f"2.25.7.{number}" for number in range(1, 1200)]


def test_names_are_streamed_with_their_rows(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.instances.admit(record(0), STORE)
    fill(dsn, 10_000, 10)
    tracemalloc.start()
    try:
        count = sum(name == row.stored.name for name, row in catalog.instances.names())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 10_001
    assert peak < 4 << 20
    assert catalog.instances.refers_to(["object5", "nothing"]) == {"object5"}


def test_what_is_not_there_is_not_found(catalog: PostgresCatalog) -> None:
    assert catalog.instances.find("2.25.404") is None
    assert catalog.instances.series_version("2.25.404") is None
    assert catalog.instances.prepared("2.25.404") is None
    assert list(catalog.instances.headers(Scope(study_uid="2.25.404"))) == []


# --- Removal and repair --------------------------------------------------------------------------


def stored(catalog: PostgresCatalog) -> dict[str, StoredInstance]:
    """Two patients, three studies, four series, five instances."""
    for new in (
        record(1),
        record(2),
        record(1, series="2.25.1.2"),
        record(1, study="2.25.2"),
        record(1, study="2.25.3", patient_id="P2"),
    ):
        catalog.instances.admit(new, STORE)
    return {row.sop_instance_uid: row for _, row in catalog.instances.names()}


@pytest.mark.parametrize(
    ("scope", "removed", "left"),
    [
        (Scope(instance_uid="2.25.1.1.1"), 1, (2, 3, 4)),
        (Scope(study_uid="2.25.1", series_uid="2.25.1.1"), 2, (2, 3, 3)),
        (Scope(study_uid="2.25.1"), 3, (2, 2, 2)),
        (Scope(patient_id="P1"), 4, (1, 1, 1)),
    ],
    ids=["instance", "series", "study", "patient"],
)
def test_removal_takes_what_became_empty_with_it(
    catalog: PostgresCatalog, dsn: str, scope: Scope, removed: int, left: tuple[int, int, int]
) -> None:
    before = stored(catalog)
    gone = catalog.instances.remove(scope, DELETE)
    assert len(gone) == removed
    after = {row.sop_instance_uid: row for _, row in catalog.instances.names()}
    assert after == {uid: row for uid, row in before.items() if row not in gone}
    assert sorted(catalog.surplus.take(10)) == sorted(row.stored.name for row in gone)
    assert counts(dsn) == left
    ((outcome, studies, detail),) = rows(
        dsn, "SELECT outcome, study_uids, detail FROM audit_events WHERE action = 'delete'"
    )
    assert outcome == "success"
    assert sorted(studies) == sorted({row.study_uid for row in gone})
    assert detail["instances"] == removed
    whole(dsn)


def test_removing_nothing_is_audited_as_such(catalog: PostgresCatalog, dsn: str) -> None:
    assert catalog.instances.remove(Scope(study_uid="2.25.404"), DELETE) == []
    assert rows(dsn, "SELECT action, outcome, detail FROM audit_events") == [
        ("delete", "not_found", {"instances": 0, "study_uid": "2.25.404"})
    ]


def test_an_instance_can_come_back_after_its_removal(catalog: PostgresCatalog) -> None:
    catalog.instances.admit(record(1), STORE)
    catalog.instances.remove(Scope(study_uid="2.25.1"), DELETE)
    assert catalog.instances.find("2.25.1.1.1") is None
    admission, _ = catalog.instances.admit(record(1, dataset=b"other"), STORE)
    assert admission is Admission.STORED


def test_repointing_hands_the_former_object_over(catalog: PostgresCatalog) -> None:
    _, row = catalog.instances.admit(record(1), STORE)
    intact = replace(row.stored, name="f" * 32, prefix_length=360)
    catalog.instances.repoint(row.sop_instance_uid, intact, AuditEvent("repair", MODALITY))
    found = catalog.instances.find(row.sop_instance_uid)
    assert found is not None
    assert found.stored == intact
    assert catalog.surplus.take(10) == [row.stored.name]


def test_repointing_wants_the_same_bytes(catalog: PostgresCatalog, dsn: str) -> None:
    _, row = catalog.instances.admit(record(1), STORE)
    other = StoredObject("f" * 32, 1, 1, b"another digest")
    for uid, reason in ((row.sop_instance_uid, Reason.CONFLICT), ("2.25.404", Reason.NOT_FOUND)):
        with pytest.raises(Refusal) as caught:
            catalog.instances.repoint(uid, other, AuditEvent("repair", MODALITY))
        assert caught.value.reason is reason
    assert catalog.instances.find(row.sop_instance_uid) == row
    assert outcomes(dsn) == [("store", "success")]


# --- Prepared metadata ---------------------------------------------------------------------------


def test_a_series_version_changes_with_every_instance(catalog: PostgresCatalog) -> None:
    seen = []
    for number in (1, 2, 3):
        catalog.instances.admit(record(number), STORE)
        seen.append(catalog.instances.series_version("2.25.1.1"))
    catalog.instances.admit(record(3), STORE)
    assert catalog.instances.series_version("2.25.1.1") == seen[-1], "a duplicate changes nothing"
    for number in (1, 3):
        catalog.instances.remove(Scope(instance_uid=f"2.25.1.1.{number}"), DELETE)
        seen.append(catalog.instances.series_version("2.25.1.1"))
    catalog.instances.admit(record(3), STORE)
    seen.append(catalog.instances.series_version("2.25.1.1"))
    assert [each[1] for each in seen if each] == [1, 2, 3, 2, 1, 2]
    assert len({each[0] for each in seen if each}) == 6


def test_a_quiet_series_is_prepared_once_and_again_after_a_change(catalog: PostgresCatalog) -> None:
    instances = catalog.instances
    instances.admit(record(1), STORE)
    assert instances.unprepared(0, 10) == ["2.25.1.1"]
    assert instances.unprepared(3600, 10) == []
    version, _ = instances.series_version("2.25.1.1") or ("", 0)
    instances.prepare("2.25.1.1", version, b"\x1f\x8b\x00metadata")
    assert instances.prepared("2.25.1.1") == (version, b"\x1f\x8b\x00metadata")
    assert instances.unprepared(0, 10) == []
    instances.admit(record(1), STORE)
    assert instances.unprepared(0, 10) == [], "a duplicate changes nothing"
    instances.admit(record(2), STORE)
    assert instances.unprepared(0, 10) == ["2.25.1.1"]
    instances.prepare("2.25.1.1", version, b"old")
    assert instances.unprepared(0, 10) == ["2.25.1.1"], "prepared for a version that is past"
    current, _ = instances.series_version("2.25.1.1") or ("", 0)
    instances.prepare("2.25.1.1", current, b"new")
    assert instances.unprepared(0, 10) == []
    instances.remove(Scope(instance_uid="2.25.1.1.2"), DELETE)
    assert instances.unprepared(0, 10) == ["2.25.1.1"]


def test_prepared_metadata_goes_with_its_series(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.instances.admit(record(1), STORE)
    version, _ = catalog.instances.series_version("2.25.1.1") or ("", 0)
    catalog.instances.prepare("2.25.1.1", version, b"metadata")
    catalog.instances.remove(Scope(study_uid="2.25.1"), DELETE)
    catalog.instances.prepare("2.25.1.1", version, b"too late")
    assert one(dsn, "SELECT count(*) FROM series_metadata") == 0
