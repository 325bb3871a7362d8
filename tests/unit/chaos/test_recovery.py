"""How long clients noticed a fault, on hand-made histories."""

from dataclasses import replace

import pytest

from chaos.history import Operation, Result
from chaos.recovery import Gap, by_client, gap_around, longest_gap, recovery_seconds

OK = Operation("a", "C-STORE", "1", "", 0.0, 1.0, Result.OK, "0000")
REFUSED = replace(OK, result=Result.REFUSED, status="A700")


def at(invoked: float, returned: float, operation: Operation = OK) -> Operation:
    return replace(operation, invoked=invoked, returned=returned)


HISTORY = [at(0, 1), at(1, 2), at(1.5, 9), at(3, 4, REFUSED), at(5, 12, REFUSED), at(10, 13), at(13, 14)]


def test_recovery_is_the_first_acknowledgement_of_what_began_afterwards() -> None:
    # What began at 1.5 and was acknowledged at 9 may have been on its way when it happened, at 3
    assert recovery_seconds(HISTORY, 3.0) == 10.0
    assert recovery_seconds(HISTORY, 0.0) == 1.0
    assert recovery_seconds(HISTORY, 13.5) is None


def test_only_acknowledged_stores_are_signs_of_life() -> None:
    read = at(4, 5, replace(OK, kind="WADO-RS"))
    unknown = at(4, 5, replace(OK, result=Result.UNKNOWN))
    assert recovery_seconds([*HISTORY, read, unknown], 3.0) == 10.0
    assert longest_gap([*HISTORY, read, unknown]) == Gap(2, 9)


def test_the_longest_gap_of_a_history_and_of_a_part_of_it() -> None:
    gap = longest_gap(HISTORY)
    assert gap == Gap(2, 9)
    assert gap.seconds == 7
    assert longest_gap(HISTORY, 9.5, 13.5) == Gap(9.5, 13)
    assert longest_gap(HISTORY, 3.0, 4.0) == Gap(3, 4)


def test_nothing_acknowledged_before_the_end_is_a_gap_too() -> None:
    assert longest_gap([at(0, 1), at(2, 30, REFUSED)]) == Gap(1, 30)
    assert longest_gap([at(0, 30, REFUSED)]) == Gap(0, 30)
    assert longest_gap([]) is None


@pytest.mark.parametrize(
    ("moment", "gap"),
    [(0.5, Gap(0, 1)), (3, Gap(2, 9)), (9, Gap(9, 13)), (13.5, Gap(13, 14)), (-1, None), (15, None)],
)
def test_the_gap_around_a_moment(moment: float, gap: Gap | None) -> None:
    assert gap_around(HISTORY, moment) == gap


def test_the_gap_around_a_moment_after_which_nothing_was_acknowledged() -> None:
    assert gap_around([at(0, 1), at(2, 30, REFUSED), at(3, 20, REFUSED)], 5) == Gap(1, 30)


def test_one_client_may_wait_while_others_are_served() -> None:
    slow = [at(0, 1, replace(OK, client="slow")), at(2, 20, replace(OK, client="slow"))]
    clients = by_client([*HISTORY, *slow])
    assert longest_gap(clients["slow"]) == Gap(1, 20)
    assert longest_gap(clients["a"]) == Gap(2, 9)
