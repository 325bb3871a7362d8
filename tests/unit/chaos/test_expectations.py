"""What clients may expect of a fault, judged on hand-made histories."""

import json
import random
from dataclasses import replace

import pytest

from chaos import expectations
from chaos.deployed import Deployed
from chaos.expectations import Course
from chaos.faults import Expect, Fault, Injected
from chaos.history import CONFLICT, Operation, Result
from chaos.scenario import Outcome

STORED = Operation("a", "C-STORE", "1", "", 0.0, 1.0, Result.OK, "0000")
READ = replace(STORED, kind="WADO-RS", status="200")
# Made at 10, healing begins at 50, whole at 60, clients end at 63
COURSE = Course(10.0, 50.0, 60.0, 63.0, {}, {}, ["host1"])


def _inject(_cluster: Deployed, _generator: random.Random) -> Injected:
    raise AssertionError("not in these tests")


SERVED = Fault("x", "Node", "a fault", 3, _inject)
REFUSED = replace(SERVED, expects=Expect.REFUSED, settling_seconds=5)
UNNOTICED = replace(SERVED, expects=Expect.UNNOTICED)


def stored(invoked: float, returned: float) -> Operation:
    """A store that was acknowledged."""
    return replace(STORED, invoked=invoked, returned=returned)


def refused(invoked: float, returned: float, status: str = "A700") -> Operation:
    """A store that was refused."""
    return replace(STORED, invoked=invoked, returned=returned, result=Result.REFUSED, status=status)


def read(invoked: float, returned: float) -> Operation:
    """A read that succeeded."""
    return replace(READ, invoked=invoked, returned=returned)


def test_served_again_counts_from_the_fault() -> None:
    operations = [stored(8, 9), stored(12, 14), stored(15, 16), stored(51, 55), stored(56, 57)]
    assert expectations.recovery(SERVED, operations, COURSE) == 39
    assert expectations.recovery(SERVED, operations[:1], COURSE) is None
    assert expectations.broken(SERVED, [*operations, refused(13, 14)], COURSE) == []


def test_who_still_waits_when_the_clients_are_told_to_end_is_no_silence() -> None:
    waits = replace(stored(12, 72), result=Result.UNKNOWN, status="TimeoutError")
    operations = [stored(8, 9), *(stored(at, at + 1) for at in range(11, 62)), waits]
    assert expectations.recovery(SERVED, operations, COURSE) == 2
    assert expectations.recovery(SERVED, [stored(8, 9), stored(11, 12), waits], COURSE) == 51
    assert expectations.recovery(SERVED, operations[:20], COURSE) == 2  # traffic has its bound


def test_who_is_told_that_nothing_is_there_or_loses_a_race_has_not_failed() -> None:
    answered = [refused(12, 13, CONFLICT), replace(refused(12, 13, "0 rows"), kind="QIDO-RS")]
    gone = replace(refused(14, 15, "404"), kind="WADO-RS")
    assert expectations.failures([*answered, gone], COURSE) == 0
    assert expectations.failures([*answered, refused(12, 13), refused(8, 9)], COURSE) == 1


def test_refused_meanwhile_counts_from_the_healing() -> None:
    operations = [stored(8, 9), refused(12, 14), read(20, 21), stored(51, 55), stored(56, 57)]
    assert expectations.recovery(REFUSED, operations, COURSE) == 5
    assert expectations.recovery(REFUSED, operations[:3], COURSE) is None
    assert expectations.broken(REFUSED, operations, COURSE) == []


def test_a_store_that_is_acknowledged_while_all_should_be_refused() -> None:
    operations = [refused(12, 14), read(20, 21)]
    # Still settling; on its way when it was made; and acknowledged once the healing had begun
    allowed = [stored(14, 16), stored(9, 30), stored(49, 51)]
    assert expectations.broken(REFUSED, [*operations, *allowed], COURSE) == []
    found = expectations.broken(REFUSED, [*operations, stored(16, 17), stored(30, 31)], COURSE)
    assert found == ["2 stores were acknowledged all the same"]


def test_nobody_was_refused() -> None:
    unknown = replace(refused(12, 40), result=Result.UNKNOWN)
    others = [read(20, 21), unknown, refused(12, 14, CONFLICT), refused(8, 9), refused(51, 52)]
    assert expectations.broken(REFUSED, others, COURSE) == ["no store was refused"]


def test_reads_go_on_while_stores_are_refused() -> None:
    failed = replace(read(20, 21), result=Result.REFUSED, status="503")
    operations = [refused(12, 14), failed, read(8, 9), read(51, 52)]
    assert expectations.broken(REFUSED, operations, COURSE) == ["no read succeeded"]
    assert expectations.broken(replace(REFUSED, reads_go_on=False), operations, COURSE) == []


def test_a_fault_that_nobody_may_notice() -> None:
    unnoticed = [stored(8, 12), read(13, 14), refused(13, 14, CONFLICT), refused(8, 9)]
    assert expectations.broken(UNNOTICED, unnoticed, COURSE) == []
    lost = replace(read(20, 21), result=Result.UNKNOWN, status="ConnectionError")
    assert expectations.broken(UNNOTICED, [*unnoticed, refused(9, 11), lost], COURSE) == [
        "2 operations failed"
    ]


@pytest.mark.parametrize("role", ["primary", "holder", "timeline"])
def test_a_role_that_moved_though_it_should_stay(role: str) -> None:
    before = {"primary": "host1", "holder": "host2", "timeline": "00000001"}
    after = {**before, role: "another"}
    course = replace(COURSE, before=before, after=after)
    staying = replace(SERVED, roles_stay=True)
    assert expectations.broken(staying, [], course) == [f"{role} was {before[role]}, and is another"]
    assert expectations.broken(staying, [], replace(course, after=before)) == []
    assert expectations.broken(SERVED, [], course) == []


def test_an_address_that_two_hosts_have_or_nobody() -> None:
    for holders, said in ((["host1", "host2"], "host1, host2"), ([], "nobody")):
        course = replace(COURSE, holders=holders)
        assert expectations.broken(SERVED, [], course) == [f"the virtual IP is held by {said}"]


def test_a_cluster_that_is_not_soon_whole_again() -> None:
    soon = replace(SERVED, whole_seconds=9)
    assert expectations.broken(soon, [], COURSE) == ["whole again after 10 s, not 9"]
    assert expectations.broken(replace(soon, whole_seconds=10), [], COURSE) == []


def test_a_sign_that_is_late_or_not_there() -> None:
    assert expectations.unseen("the alert X", 60, 59.9) == ""
    assert expectations.unseen("the alert X", 60, 75.2) == "the alert X after 75 s, not 60"
    assert expectations.unseen("the alert X", 60, None) == "not seen: the alert X"


def test_who_behaves_well_gets_a_share_all_the_same() -> None:
    fair = replace(SERVED, share=0.5, rate=0.1)  # four in the forty seconds that it held
    operations = [stored(11, 12), replace(stored(20, 21), uid="2"), stored(22, 23), stored(51, 52)]
    assert expectations.broken(fair, operations, COURSE) == []
    found = expectations.broken(fair, operations[::2], COURSE)
    assert found == ["1 of 4 instances were acknowledged meanwhile"]


def test_an_outcome_with_a_broken_promise_is_no_recovery() -> None:
    good = Outcome("x", "Node", 1, "host1", 3.0, 2.0, 1.0, 9, 0, 0, 0.5, 2)
    assert good.recovered
    assert not replace(good, broken=("2 operations failed",)).recovered
    assert not replace(good, recovery=3.1).recovered
    told = json.loads(replace(good, expects=Expect.REFUSED, broken=("no store was refused",)).line())
    assert told["expects"] == "refused"
    assert told["broken"] == ["no store was refused"]


def test_the_longest_silence_that_a_fault_may_cause() -> None:
    assert SERVED.silence_seconds == 3
    assert REFUSED.silence_seconds == 5 + 60 + 5 + 3  # settling, the refusals themselves, held, recovery
