"""Associations that only store: their bytes against those of pynetdicom's way, recorded ones and made up.

What may differ between the two, and is made equal here or kept out of what is made up:

- The order of the contexts in an A-ASSOCIATE-AC, which means nothing (PS3.8 section 9.3.3).
- pynetdicom's way looks at a whole PDU before it takes its first value, and aborts without the answers that
  were not sent yet. A peer here waits for its answers before it breaks the protocol, and what was begun
  by a message that breaks off is not compared.
- What comes of a break behind a whole message in one PDU, of an A-RELEASE-RP that nobody asked for, of a
  release in the middle of a message and of a query on a storage context: these have tests of their own.
"""

import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import cycle, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.association import Served
from node.dimse.storing import Storing, suits
from tests.corpus.associations import recorded
from tests.fuzz.effort import examples
from tests.integration.dimse_peer import CT, EXPLICIT, IMPLICIT, VERIFICATION, context, item
from tests.unit.dimse.conversations import (
    Outcome,
    Talk,
    contexts_sorted,
    converse,
)
from tests.unit.dimse.talks import BROKEN, ECHO, PROPOSED, STORE_BEGUN, message, proposing, requests, talks

RECORDED = {name: Talk.recorded(stream) for name, stream in recorded().items()}
AT_ONCE = 6  # talks of pynetdicom's way, which spends its time waiting
SHORT_BYTES = 1500
SMALL = (1, 2, 3, 5, 7, 11, 13, 17)


def assert_equal(storing: Outcome, served: Outcome, *, is_cut: bool = False) -> None:
    """Every byte of the answers, and everything that was stored."""
    assert contexts_sorted(storing.acceptance) == contexts_sorted(served.acceptance)
    assert storing.answers == served.answers
    assert storing.last == served.last
    assert storing.stored == served.stored
    assert is_cut or storing.begun == served.begun


def compare(together: Iterable[tuple[Talk, list[int]]]) -> None:
    """Hold each talk in both ways, its bytes read in pieces of these sizes."""

    def both(talk: Talk, sizes: list[int]) -> tuple[Outcome, Outcome, bool]:
        storing = converse(Storing, talk, sizes)
        return storing, converse(Served, talk, sizes, earned=len(storing.answers)), talk.is_cut

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for storing, served, is_cut in pool.map(lambda each: both(*each), together):
            assert_equal(storing, served, is_cut=is_cut)


@cache
def whole(name: str) -> Outcome:
    """A recorded association, read in one piece."""
    return converse(Storing, RECORDED[name])


# --- Recorded ---


def test_all_recorded_associations_are_for_this_way() -> None:
    assert len(RECORDED) >= 15
    assert [name for name, talk in RECORDED.items() if not suits(pdu.parse_request(talk.request[6:]))] == []


def test_recorded_associations_are_answered_as_pynetdicom_does() -> None:
    compare((talk, []) for talk in RECORDED.values())


def test_recorded_associations_in_small_pieces_are_answered_as_pynetdicom_does() -> None:
    compare((talk, [size] * 40000) for size, talk in zip(cycle(SMALL), RECORDED.values(), strict=False))


@pytest.mark.parametrize("name", [name for name in RECORDED if "store" in name or "send" in name])
def test_recorded_datasets_are_stored(name: str) -> None:
    stored = whole(name).stored
    assert len(stored) >= 3
    assert all(len(dataset) > 300 for *_, dataset in stored)


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_association_read_byte_by_byte(name: str) -> None:
    assert converse(Storing, RECORDED[name], repeat(1)) == whole(name)


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_association_cut_anywhere(name: str) -> None:
    talk = RECORDED[name]
    length = len(talk.body) + len(talk.end)
    chance = random.Random(name)
    cuts = range(1, length) if length < SHORT_BYTES else chance.sample(range(1, length), 120)
    for cut in cuts:
        assert converse(Storing, talk, [cut]) == whole(name), cut
    for _ in range(30):
        most = chance.choice([2, 10, 100, 1000, 10000])
        sizes = [chance.randint(1, most) for _ in range(length)]
        assert converse(Storing, talk, sizes) == whole(name), sizes


# --- Made up ---


@examples(12)
@given(st.lists(requests(max_contexts=40).map(lambda found: Talk(found[0], b"")), min_size=4, max_size=8))
def test_requests_are_answered_as_pynetdicom_does(together: list[Talk]) -> None:
    compare((talk, []) for talk in together)


@examples(15)
@given(
    st.lists(
        st.tuples(talks(), st.sampled_from([[], [1] * 9000, [2, 3, 5] * 3000, [7] * 2000])),
        min_size=4,
        max_size=8,
    )
)
def test_talks_are_answered_as_pynetdicom_does(together: list[tuple[Talk, list[int]]]) -> None:
    compare(together)


@examples(250)
@given(talks(), st.lists(st.lists(st.integers(1, 300), max_size=40), min_size=4, max_size=8))
def test_how_a_talk_is_cut_makes_no_difference(talk: Talk, cuts: list[list[int]]) -> None:
    found = converse(Storing, talk)
    for sizes in (*cuts, [1] * 10000):
        assert converse(Storing, talk, sizes) == found


def test_a_short_talk_cut_twice_anywhere() -> None:
    talk = Talk(PROPOSED, message(commands.C_STORE_RQ, b"abc", sizes=(90, 2, 0, 1), counts=(2,)) + ECHO)
    length = len(talk.body) + len(talk.end)
    found = converse(Storing, talk)
    assert [dataset for *_, dataset in found.stored] == [b"abc"]
    assert found.last == pdu.release(pdu.RELEASE_RP)
    for first in range(1, length, 3):
        for second in range(1, length - first, 7):
            assert converse(Storing, talk, [first, second]) == found, (first, second)


# --- Broken ---


@cache
def served_broken() -> dict[str, Outcome]:
    """What pynetdicom's way says to each break, after an echo that it answers."""
    earned = len(converse(Storing, Talk(PROPOSED, ECHO)).answers)

    def hold(end: bytes) -> Outcome:
        return converse(Served, Talk(PROPOSED, ECHO, end), earned=earned)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(BROKEN, pool.map(hold, BROKEN.values()), strict=True))


@pytest.mark.parametrize("name", BROKEN)
def test_a_break_of_the_protocol_is_answered_as_pynetdicoms_way_does(name: str) -> None:
    talk = Talk(PROPOSED, ECHO, BROKEN[name])
    found = converse(Storing, talk)
    assert found.last[:1] == bytes([pdu.ABORT])
    assert found.stored == []
    assert_equal(found, served_broken()[name])


@pytest.mark.parametrize("name", BROKEN)
def test_a_break_of_the_protocol_cut_anywhere(name: str) -> None:
    """What is behind the break may be left unread, so all that counts are the answers."""
    talk = Talk(PROPOSED, ECHO, BROKEN[name])
    found = converse(Storing, talk)
    length = len(ECHO) + len(talk.end)
    for cut in range(1, length, 1 + length // 150):
        assert converse(Storing, talk, [cut]) == found, cut


def test_a_message_that_is_complete_is_served_though_its_pdu_breaks_behind_it() -> None:
    """pynetdicom's way throws it away, having looked at the whole PDU before."""
    inside = ECHO[6:] + b"\0\0\0\x63\1\3xx"
    talk = Talk(PROPOSED, b"", b"\4\0" + len(inside).to_bytes(4, "big") + inside)
    storing, served = converse(Storing, talk), converse(Served, talk)
    assert storing.answers == converse(Storing, Talk(PROPOSED, ECHO)).answers
    assert served.answers == b""
    assert storing.last == served.last == pdu.abort(pdu.INVALID_VALUE)


def test_a_release_answer_that_nobody_asked_for_is_unexpected() -> None:
    """PS3.8 table 9-10: AA-8 in Sta6. pynetdicom gives no reason for its abort."""
    talk = Talk(PROPOSED, ECHO, pdu.release(pdu.RELEASE_RP))
    storing = converse(Storing, talk)
    assert storing.last == pdu.abort(pdu.UNEXPECTED_PDU)
    assert converse(Served, talk, earned=len(storing.answers)).last == pdu.abort(pdu.NOT_SPECIFIED)


def test_a_release_in_the_middle_of_a_message_is_answered_and_nothing_stored() -> None:
    found = converse(Storing, Talk(PROPOSED, STORE_BEGUN))
    assert (found.last, found.stored, found.begun) == (pdu.release(pdu.RELEASE_RP), [], 1)


@pytest.mark.parametrize("field", [commands.C_FIND_RQ, commands.C_GET_RQ, commands.C_MOVE_RQ])
def test_a_query_where_none_was_negotiated_is_no_operation(field: int) -> None:
    """PS3.7 section C.5.19. pynetdicom's way, where queries are known, says 0122."""
    talk = Talk(PROPOSED, message(field, b"\x08\0\x52\0\6\0\0\0STUDY ") + ECHO)
    first, second = list(_commands(converse(Storing, talk).answers))
    assert (first.field, first.status) == (field | commands.RESPONSE, 0x0211)
    assert (second.field, second.status) == (commands.C_ECHO_RQ | commands.RESPONSE, 0)


def _commands(answers: bytes) -> Iterable[commands.Command]:
    while answers:
        length = int.from_bytes(answers[2:6], "big")
        yield commands.decode(answers[12 : 6 + length])
        answers = answers[6 + length :]


# --- What is whose ---

PLAIN = context(1, CT, EXPLICIT), context(3, VERIFICATION, IMPLICIT)


def test_a_query_class_is_for_pynetdicom() -> None:
    for number in ("1", "2", "3"):
        for root in ("1", "2", "3"):
            query = context(5, f"1.2.840.10008.5.1.4.1.2.{root}.{number}", IMPLICIT)
            assert not suits(pdu.parse_request(proposing(*PLAIN, query)[6:]))
    assert suits(pdu.parse_request(proposing(*PLAIN)[6:]))


@pytest.mark.parametrize("kind", [0x53, 0x54, 0x56, 0x58, 0x59, 0x99])
def test_extended_negotiation_is_for_pynetdicom(kind: int) -> None:
    assert not suits(pdu.parse_request(proposing(*PLAIN, more=item(kind, b"\0\0\0\0"))[6:]))
