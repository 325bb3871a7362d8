"""The senders' loop, with an archive that answers as a test says."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.corpus import Sample, make
from chaos.history import History, Operation, Result
from chaos.traffic.sending import Sender, answered, final, rotated, unknown
from chaos.traffic.traffic import shares

Attempt = Callable[[str, list[Sample]], list[Operation]]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return make(tmp_path_factory.mktemp("sending") / "corpus", 40, seed=1).samples


def send(samples: list[Sample], attempt: Attempt, **options: float) -> History:
    history = History()
    batch, rate = int(options.get("batch", 3)), options.get("rate")
    Sender(history, threading.Event()).send(samples, ["a", "b"], attempt, batch=batch, rate=rate)
    return history


def told(status: str) -> Attempt:
    return lambda node, left: [answered("client", "C-STORE", each, 0.0, status, node) for each in left]


@pytest.mark.parametrize(
    ("status", "result"), [("0000", Result.OK), ("B000", Result.OK), ("C111", Result.REFUSED)]
)
def test_a_final_answer_is_the_last(samples: list[Sample], status: str, result: Result) -> None:
    done = send(samples[:7], told(status)).operations
    assert [each.uid for each in done] == [each.uid for each in samples[:7]]
    assert {each.result for each in done} == {result}
    assert {each.node for each in done} == {"a"}


@pytest.mark.parametrize("status", ["A700", "HTTP 503", "0110", None])
def test_what_is_refused_for_now_or_unknown_is_tried_again_elsewhere(
    samples: list[Sample], status: str | None
) -> None:
    def attempt(node: str, left: list[Sample]) -> list[Operation]:
        if node == "b":
            return told("0000")(node, left)
        if status is None:
            return [unknown("client", "C-STORE", left[0], 0.0, "lost", node)]
        return told(status)(node, left)

    done = send(samples[:2], attempt).operations
    assert all(not final(each) for each in done if each.node == "a")
    assert sorted(each.uid for each in done if each.node == "b") == sorted(each.uid for each in samples[:2])


def test_one_that_is_never_taken_does_not_hold_up_the_others(samples: list[Sample]) -> None:
    bad, *good = samples[:6]
    tries = 0

    def attempt(node: str, left: list[Sample]) -> list[Operation]:
        nonlocal tries
        tries += left[0] is bad
        status = "A700" if left[0] is bad and tries < 3 else "0000"
        return told(status)(node, left)

    done = send([bad, *good], attempt, batch=1).operations
    assert [each.uid for each in done] == [bad.uid, *(each.uid for each in good), bad.uid, bad.uid]


def test_a_rate_spreads_what_becomes_due(samples: list[Sample]) -> None:
    began = time.monotonic()
    done = send(samples[:11], told("0000"), rate=50.0).operations
    since = [each.returned - began for each in done]
    assert all(seconds >= number / 50 for number, seconds in enumerate(since))
    assert since[-1] >= 0.2


def test_what_could_not_be_sent_in_time_is_caught_up_with(samples: list[Sample]) -> None:
    sizes: list[int] = []

    def attempt(node: str, left: list[Sample]) -> list[Operation]:
        sizes.append(len(left))
        if len(sizes) == 1:
            time.sleep(0.2)  # an archive that is slow for a while
        return told("0000")(node, left)

    assert len(send(samples[:20], attempt, batch=10, rate=100.0).operations) == 20
    assert sizes[0] == 1
    assert sizes[1] == 10


def test_a_stop_begins_nothing_new_and_notes_what_has_begun(samples: list[Sample]) -> None:
    history, stop = History(), threading.Event()

    def attempt(node: str, left: list[Sample]) -> list[Operation]:
        stop.set()
        return told("0000")(node, left)

    Sender(history, stop).send(samples, ["a"], attempt, batch=3)
    assert len(history.operations) == 3


def test_addresses_begin_elsewhere() -> None:
    assert rotated("abc", 1) == ["b", "c", "a"]
    assert rotated("abc", 5) == ["c", "a", "b"]


def test_every_sample_is_sent_and_some_twice(tmp_path: Path) -> None:
    corpus = make(tmp_path / "corpus", 400, seed=2)
    share = shares(corpus, 2)
    assert share == shares(corpus, 2)
    assert share != shares(corpus, 3)
    dcmtk = [each.uid for half in share.dcmtk for each in half]
    others = [each.uid for each in (*share.pynetdicom, *share.stow)]
    assert {*dcmtk, *others} == {each.uid for each in corpus.samples}
    assert 0 < len(dcmtk) + len(others) - len(corpus.samples) == len({*dcmtk} & {*others})
