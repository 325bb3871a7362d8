"""How long clients noticed a fault, on hand-made histories."""

from dataclasses import replace

from chaos.history import Operation, Result
from chaos.recovery import Gap, longest_gap, recovery_seconds

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


def test_a_gap_that_begins_later_than_the_moment_counts() -> None:
    """A fault that is slow to come: stores were acknowledged after it was ordered, and none after it came."""
    operations = [at(0, 1), at(2, 3), at(3, 40, REFUSED), at(41, 42)]
    assert longest_gap(operations, 1.5) == Gap(3, 42)
    assert longest_gap(operations[:3], 1.5) == Gap(3, 40)
