"""The checks on hand-made histories: each broken promise is named."""

from dataclasses import replace

import pytest

from chaos.checks import CHECKS, judge
from chaos.history import ASSOCIATE, DELETE, Operation, Result
from chaos.model import Audited, Evidence, Limits, Listing, Probe, Row, Seen, Violation

OURS, OTHERS = "1.2.840.10008.1.2.1 aa", "1.2.840.10008.1.2.1 bb"
ROW = Row("P", "1.1", "1.1.1", "1.1.1.1")
STORED = Operation("client", "C-STORE", ROW.uid, OURS, 1.0, 2.0, Result.OK, "0000")
READ = Operation("reader", "WADO-RS", ROW.uid, OURS, 3.0, 4.0, Result.OK, "200")


def listing(*rows: Row) -> Listing:
    """What a service lists that is right."""
    studies, series = {row.study for row in rows}, {row.series for row in rows}
    return Listing(
        patients=sorted({row.patient_id for row in rows}),
        studies=[(each, sum(row.study == each for row in rows)) for each in studies],
        series=[(each, sum(row.series == each for row in rows)) for each in series],
        instances=list(rows),
    )


def seen(content: str | None = OURS, *, rows: tuple[Row, ...] = (ROW,)) -> Seen:
    """What an archive says afterwards; `content` of the one instance, None if it is not to be had."""
    retrieved = {} if content is None else {ROW.uid: content}
    return Seen(
        listings={"QIDO-RS": listing(*rows), "C-FIND": listing(*rows)},
        retrieved={"WADO-RS": dict(retrieved), "C-GET": dict(retrieved)},
    )


def broken(history: list[Operation], after: Seen) -> set[tuple[str, str]]:
    """(invariant, first word) of each violation."""
    return {(each.invariant, each.what.partition(":")[0]) for each in judge(history, [ROW], after)}


def test_what_was_acknowledged_and_is_there_is_right() -> None:
    assert broken([STORED, READ], seen()) == set()


def test_an_unknown_outcome_may_be_there_or_not() -> None:
    unknown = replace(STORED, result=Result.UNKNOWN, status="association lost")
    assert broken([unknown], seen()) == set()
    assert broken([unknown], seen(None, rows=())) == set()


def test_lost() -> None:
    assert ("durable", "lost") in broken([STORED], seen(None, rows=()))


@pytest.mark.parametrize("service", ["WADO-RS", "C-GET"])
def test_corrupt_by_either_service(service: str) -> None:
    after = seen()
    after.retrieved[service][ROW.uid] = OTHERS
    assert {("durable", "corrupt"), ("atomic", "not whole")} == broken([STORED], after)


def test_flipped_bits_may_be_refused_but_not_handed_out() -> None:
    after = seen()
    after.flipped = {ROW.uid}
    after.findings = [("corrupt", ROW.uid)]
    assert broken([STORED], after) == set()
    after.from_flipped = {"WADO-RS": {ROW.uid: OTHERS}}
    assert broken([STORED], after) == {("durable", "corrupt")}


def test_listed_but_not_retrievable() -> None:
    unknown = replace(STORED, result=Result.UNKNOWN, status="association lost")
    assert ("atomic", "listed by QIDO-RS, not retrievable") in broken([unknown], seen(None))


def test_two_rows() -> None:
    after = seen()
    after.listings["C-FIND"] = listing(ROW, ROW)
    assert ("once", "2 rows by C-FIND") in broken([STORED], after)


@pytest.mark.parametrize("level", ["studies", "series", "patients"])
def test_phantoms_above_the_instance(level: str) -> None:
    after = seen()
    getattr(after.listings["QIDO-RS"], level).append("9" if level == "patients" else ("9", 0))
    assert {invariant for invariant, _ in broken([STORED], after)} == {"once"}


@pytest.mark.parametrize("status", ["404", "0 rows", "204"])
def test_a_read_after_the_acknowledgement_that_does_not_see_it(status: str) -> None:
    stale = replace(READ, content="", result=Result.REFUSED, status=status)
    assert ("fresh", f"stale: {ROW.uid} by WADO-RS".partition(":")[0]) in broken([STORED, stale], seen())
    early = replace(stale, invoked=1.5)
    assert "fresh" not in {invariant for invariant, _ in broken([STORED, early], seen())}


def test_a_read_while_the_archive_is_down_is_no_violation() -> None:
    down = replace(READ, content="", result=Result.REFUSED, status="503")
    cut = replace(READ, content="", result=Result.UNKNOWN, status="ConnectionError")
    assert broken([STORED, down, cut], seen()) == set()


def test_two_contents_acknowledged() -> None:
    other = replace(STORED, content=OTHERS)
    assert ("conflict", "2 contents acknowledged") in broken([STORED, other], seen())


def test_of_two_rivals_one_has_to_be_accepted() -> None:
    refused = replace(STORED, result=Result.REFUSED, status="C111")
    rivals = [refused, replace(refused, content=OTHERS)]
    assert ("conflict", "none of 2 contents accepted") in broken(rivals, seen(None, rows=()))
    assert broken([STORED, replace(refused, content=OTHERS)], seen()) == set()


def test_a_conflict_without_a_rival() -> None:
    refused = replace(STORED, result=Result.REFUSED, status="C111")
    assert ("conflict", "acknowledged and refused") in broken([refused, STORED], seen())


def test_rows_without_objects_and_too_many_orphans() -> None:
    after = seen()
    after.findings, after.orphans = [("missing", ROW.uid)], 1
    assert broken([STORED], after) == {
        ("reconciled", "missing"),
        ("reconciled", "1 orphans of 0 unacknowledged stores"),
    }


@pytest.mark.parametrize(
    "operation",
    [
        replace(STORED, returned=62.0),
        replace(STORED, returned=62.0, result=Result.UNKNOWN, status="ReadTimeout"),
        replace(STORED, result=Result.REFUSED, status="0110"),
        replace(READ, result=Result.REFUSED, status="500", invoked=0.0),
    ],
)
def test_too_long_or_undefined(operation: Operation) -> None:
    assert "alive" in {invariant for invariant, _ in broken([STORED, operation], seen())}


def test_a_long_gap() -> None:
    assert ("alive", "no acknowledgement for 50 s") in broken(
        [STORED, replace(STORED, returned=52.0)], seen()
    )


def test_who_waits_in_vain_while_connections_are_severed_is_excused() -> None:
    others = [replace(STORED, invoked=at, returned=at + 1.0) for at in range(120)]
    waits = replace(STORED, invoked=20.0, returned=85.0, result=Result.UNKNOWN, status="TimeoutError")

    def told(operation: Operation, *severed: tuple[float, float]) -> list[str]:
        limits = Limits(severed=severed)
        evidence = Evidence([[*others, operation]], [ROW], seen(), limits)
        return [each.what for each in CHECKS["alive"](evidence)]

    assert told(waits) == ["client: C-STORE took 65 s"]
    assert told(waits, (30.0, 40.0)) == told(waits, (0.0, 1.0), (10.0, 20.5)) == []
    assert told(waits, (0.0, 19.0)) == told(waits, (86.0, 90.0)) == told(waits)
    assert told(replace(waits, result=Result.OK, status="0000"), (30.0, 40.0)) == told(waits)


def test_leaks() -> None:
    after = seen()
    after.leaks = ["CANARY in log"]
    assert broken([STORED], after) == {("silent", "CANARY in log")}


# --- Several nodes, and clients of a cluster ---


def test_every_node_has_to_give_it_back() -> None:
    after = seen()
    after.retrieved["WADO-RS at b"] = {}
    after.listings["QIDO-RS at b"] = listing()
    found = {each.what for each in judge([STORED], [ROW], after)}
    assert f"lost: {ROW.uid} by WADO-RS at b" in found
    assert f"acknowledged, not listed by QIDO-RS at b: {ROW.uid}" in found


def test_a_stale_node_is_named() -> None:
    stale = replace(READ, kind="QIDO-RS", content="", result=Result.REFUSED, status="0 rows", node="b")
    (violation,) = judge([STORED, replace(READ, node="a"), stale], [ROW], seen())
    assert violation == Violation("fresh", f"stale: {ROW.uid} by QIDO-RS at b: 0 rows")


def test_a_service_that_does_not_answer_afterwards() -> None:
    after = seen()
    after.unread = ["C-FIND at b: refused"]
    assert broken([STORED], after) == {("alive", "no answer afterwards")}


def test_two_rows_during_the_run() -> None:
    twice = replace(READ, kind="QIDO-RS", content="", result=Result.REFUSED, status="2 rows")
    assert broken([STORED, twice], seen()) == {("once", "2 rows by QIDO-RS during the run")}


def test_a_row_in_the_wrong_place() -> None:
    after = seen(rows=(replace(ROW, patient_id="Q"),))
    assert ("once", "in the wrong place by C-FIND") in broken([STORED], after)


def test_bytes_read_during_the_run_have_to_be_those_that_were_sent() -> None:
    before = replace(READ, invoked=1.5)
    assert broken([STORED, before], seen()) == set()
    assert broken([STORED, replace(before, content=OTHERS)], seen()) == {("durable", "corrupt")}
    # A rival's bytes may be seen until the other has been acknowledged
    rival = replace(STORED, content=OTHERS, result=Result.REFUSED, status="C111")
    assert broken([STORED, rival, replace(before, content=OTHERS)], seen()) == set()
    assert broken([STORED, rival, replace(READ, content=OTHERS)], seen()) == {("durable", "corrupt")}


def test_rivals_of_which_one_was_cut_off_may_both_be_missing() -> None:
    refused = replace(STORED, result=Result.REFUSED, status="C111")
    unknown = replace(STORED, content=OTHERS, result=Result.UNKNOWN, status="association lost")
    assert broken([refused, unknown], seen(OTHERS)) == set()


def test_no_association_is_no_store_but_may_not_take_long() -> None:
    none = Operation("dcmtk", ASSOCIATE, "", "", 3.0, 4.0, Result.REFUSED, "rejected")
    assert broken([STORED, none], seen()) == set()
    assert broken([STORED, replace(none, returned=80.0)], seen()) == {("alive", "dcmtk")}


def test_limits_are_the_callers() -> None:
    slow = replace(STORED, returned=12.0)
    assert list(judge([slow], [ROW], seen())) == []
    told = {each.what for each in judge([slow], [ROW], seen(), Limits(5.0, 8.0))}
    assert told == {"client: C-STORE took 11 s", "no acknowledgement for 11 s"}


def test_only_the_services_own_addresses_have_to_answer_in_time() -> None:
    down = replace(READ, content="", returned=70.0, result=Result.UNKNOWN, status="ReadTimeout", node="b")
    assert broken([STORED, down], seen()) == {("alive", "reader")}
    assert judge([STORED, down], [ROW], seen(), Limits(service=frozenset({"a"}))) == []
    assert judge([STORED, down], [ROW], seen(), Limits(service=frozenset({"a", "b"}))) != []


def test_between_two_runs_there_may_be_any_time() -> None:
    later = replace(STORED, invoked=1000.0, returned=1001.0)
    assert broken([STORED, later], seen()) == {("alive", "no acknowledgement for 999 s")}
    assert list(CHECKS["alive"](Evidence([[STORED], [later]], [ROW], seen()))) == []


def test_an_archive_that_never_comes_back_has_a_gap_until_the_end() -> None:
    tries = [replace(STORED, invoked=at, returned=at + 1, result=Result.UNKNOWN) for at in range(3, 60)]
    assert broken([STORED, *tries], seen()) == {("alive", "no acknowledgement for 58 s")}


def test_what_http_may_answer_of_a_whole_request() -> None:
    for status in ("HTTP 503", "HTTP 507", "A700"):
        assert broken([replace(STORED, result=Result.REFUSED, status=status), STORED], seen()) == set()
    for status in ("HTTP 401", "HTTP 500", "0110"):
        refused = replace(STORED, result=Result.REFUSED, status=status)
        assert judge([refused, STORED], [ROW], seen()) == [
            Violation("alive", f"client: C-STORE answered {status}")
        ]


# --- Deletions ---

DELETED = Operation("deleter", DELETE, ROW.uid, "", 3.0, 4.0, Result.OK, "204", "a")
GONE = replace(READ, invoked=5.0, returned=6.0, content="", result=Result.REFUSED, status="404")


def test_what_was_deleted_is_gone() -> None:
    assert broken([STORED, DELETED, GONE], seen(None, rows=())) == set()
    assert broken([STORED, DELETED], seen()) == {
        ("deleted", "deleted, listed by QIDO-RS"),
        ("deleted", "deleted, listed by C-FIND"),
        ("deleted", "deleted, retrieved by WADO-RS"),
        ("deleted", "deleted, retrieved by C-GET"),
    }


@pytest.mark.parametrize("kind, status", [("WADO-RS", "200"), ("QIDO-RS", "200")])
def test_a_deleted_instance_that_is_seen_again_during_the_run(kind: str, status: str) -> None:
    again = replace(GONE, kind=kind, result=Result.OK, status=status)
    after = seen(None, rows=())
    assert broken([STORED, DELETED, again], after) == {("deleted", f"deleted, then seen by {kind}")}
    assert broken([STORED, DELETED, replace(again, invoked=3.5)], after) == set()


def test_a_deletion_of_unknown_outcome_may_have_taken_effect_or_not() -> None:
    for unknown in (
        replace(DELETED, result=Result.UNKNOWN, status="ReadTimeout"),
        replace(DELETED, result=Result.REFUSED, status="503"),
    ):
        assert broken([STORED, unknown], seen()) == set()
        assert broken([STORED, unknown, GONE], seen(None, rows=())) == set()


def test_a_deletion_that_was_refused_excuses_nothing() -> None:
    refused = replace(DELETED, result=Result.REFUSED, status="403")
    assert ("durable", "lost") in broken([STORED, refused], seen(None, rows=()))
    assert ("alive", "deleter") in broken([STORED, refused], seen())


def test_who_wants_to_delete_what_is_acknowledged_has_to_find_it() -> None:
    nothing = replace(DELETED, result=Result.REFUSED, status="404")
    assert broken([STORED, nothing], seen()) == {("fresh", "stale")}
    tried = replace(DELETED, invoked=2.5, returned=2.7, result=Result.UNKNOWN, status="ReadTimeout")
    assert broken([STORED, tried, nothing], seen(None, rows=())) == set()


def test_a_store_that_may_have_come_after_the_deletion_brings_it_back_rightly() -> None:
    for store in (
        replace(STORED, invoked=3.5, returned=5.0),
        replace(STORED, invoked=1.0, returned=1.5, result=Result.UNKNOWN, status="association lost"),
    ):
        assert broken([STORED, store, DELETED], seen()) == set()


# --- The audit trail ---

FOUND = replace(READ, kind="QIDO-RS", content="")
TRAIL = [
    Audited("store", "success", "dimse", (ROW.study,), ROW.uid),
    Audited("retrieve", "success", "http", (ROW.study,), ""),
    Audited("query", "success", "http", (), ""),
]


def trailed(*rows: Audited) -> Seen:
    after = seen()
    after.audit = list(rows)
    return after


def test_everything_that_was_answered_is_in_the_trail() -> None:
    assert broken([STORED, FOUND, READ], trailed(*TRAIL)) == set()
    for number, what in enumerate(("store success", "retrieve success", "query success")):
        ((invariant, told),) = broken([STORED, FOUND, READ], trailed(*TRAIL[:number], *TRAIL[number + 1 :]))
        assert (invariant, told) == ("audited", "1 of 1 not in the trail")
        (violation,) = judge([STORED, FOUND, READ], [ROW], trailed(*TRAIL[:number], *TRAIL[number + 1 :]))
        assert what in violation.what


def test_a_second_retrieval_needs_a_second_row() -> None:
    twice = [STORED, READ, replace(READ, invoked=5.0, returned=6.0)]
    assert broken(twice, trailed(*TRAIL)) == {("audited", "1 of 2 not in the trail")}
    assert broken(twice, trailed(*TRAIL, TRAIL[1])) == set()


def test_a_conflict_and_a_deletion_are_in_the_trail() -> None:
    rival = replace(STORED, content=OTHERS, result=Result.REFUSED, status="C111")
    assert broken([STORED, rival], trailed(*TRAIL)) == {("audited", "1 of 1 not in the trail")}
    refused = Audited("store", "conflict", "http", (ROW.study,), ROW.uid)
    assert broken([STORED, rival], trailed(*TRAIL, refused)) == set()
    after = replace(seen(None, rows=()), audit=TRAIL)
    assert broken([STORED, DELETED], after) == {("audited", "1 of 1 not in the trail")}
    after.audit = [*TRAIL, Audited("delete", "success", "http", (ROW.study,), ROW.uid)]
    assert broken([STORED, DELETED], after) == set()


def test_what_nobody_was_answered_need_not_be_in_the_trail() -> None:
    lost = replace(STORED, result=Result.UNKNOWN, status="association lost")
    down = replace(READ, content="", result=Result.REFUSED, status="503")
    assert broken([STORED, lost, down], trailed(*TRAIL)) == set()


def test_a_chain_with_a_gap() -> None:
    after = seen()
    after.findings = [("audit", "seal 3 is missing")]
    assert broken([STORED], after) == {("audited", "broken chain")}


# --- PostgreSQL's primaries ---


def probed(*probes: Probe) -> set[tuple[str, str]]:
    after = seen()
    after.probes = list(probes)
    return {(each.invariant, each.what) for each in judge([STORED], [ROW], after)}


def test_a_primary_after_another() -> None:
    assert probed(Probe("a", 3, 1.0, 1.1), Probe("b", 4, 8.0, 8.1), Probe("a", 5, 9.0, 9.1)) == set()


def test_an_old_primary_that_still_acknowledges() -> None:
    old, new = Probe("a", 3, 8.5, 8.6), Probe("b", 4, 8.0, 8.1)
    told = "timeline 3 on a still acknowledged 0.4 s after timeline 4 on b had"
    assert probed(old, new) == {("one primary", told)}
    assert probed(replace(old, timeline=2), Probe("c", 3, 5.0, 5.1), new) != set()
    # It had begun when the other had not ended yet: it may have been the first of the two
    assert probed(replace(old, began=8.05), new) == set()


def test_two_hosts_on_one_timeline() -> None:
    told = "timeline 3 acknowledged on a and b"
    assert probed(Probe("a", 3, 1.0, 1.1), Probe("b", 3, 8.0, 8.1)) == {("one primary", told)}
