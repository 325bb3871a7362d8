"""Reading ahead: results in order, bounded, and nothing left behind."""

import threading
from collections.abc import Iterator

import pytest

from node.domain.errors import Reason, Refusal
from node.services.ahead import DEPTH, Job, ReadAhead
from tests.support import wait_until


def numbered(count: int, size: int = 10) -> Iterator[Job]:
    """Jobs that make their own number."""
    for number in range(count):
        yield size, lambda number=number: str(number).encode()  # type: ignore[misc]


@pytest.fixture
def ahead() -> Iterator[ReadAhead]:
    """Room for three jobs of `numbered`."""
    made = ReadAhead(limit_bytes=30)
    yield made
    made.close()


def test_results_come_in_order(ahead: ReadAhead) -> None:
    assert list(ahead.run(numbered(100))) == [str(number).encode() for number in range(100)]


def test_what_finds_no_room_is_done_by_the_reader_itself(ahead: ReadAhead) -> None:
    assert list(ahead.run(numbered(20, size=31))) == [str(number).encode() for number in range(20)]


def test_a_reader_that_stops_taking_holds_no_more_than_the_depth(ahead: ReadAhead) -> None:
    begun: list[int] = []

    def jobs() -> Iterator[Job]:
        for number in range(50):
            yield 1, lambda number=number: begun.append(number) or b""  # type: ignore[misc,func-returns-value]

    answers = ahead.run(jobs())
    next(answers)
    wait_until(lambda: len(begun) == 1 + DEPTH, 30, "as many as may be held")
    next(answers)
    wait_until(lambda: len(begun) == 2 + DEPTH, 30, "one more for the one taken")
    answers.close()
    assert len(begun) == 2 + DEPTH


def test_one_slow_reader_leaves_the_others_at_work(ahead: ReadAhead) -> None:
    slow = ahead.run(numbered(50))
    next(slow)  # now holds all the room there is
    assert len(list(ahead.run(numbered(50)))) == 50
    assert len(list(slow)) == 49


def test_a_refusal_comes_out_in_its_place_and_gives_the_room_back(ahead: ReadAhead) -> None:
    def refuse() -> bytes:
        raise Refusal(Reason.CORRUPT, "stored bytes fail their digest")

    for _ in range(5):
        answers = ahead.run([*numbered(2), (10, refuse), *numbered(2)])
        assert [next(answers), next(answers)] == [b"0", b"1"]
        with pytest.raises(Refusal, match="digest"):
            next(answers)
    wait_until(lambda: ahead._free == 30, 30, "all room is free again")


def test_closing_half_way_gives_the_room_back(ahead: ReadAhead) -> None:
    gate = threading.Event()
    answers = ahead.run([(10, lambda: b"first"), *[(10, lambda: b"" if gate.wait(30) else b"late")] * 3])
    assert next(answers) == b"first"
    answers.close()
    gate.set()
    wait_until(lambda: ahead._free == 30, 30, "all room is free again")
