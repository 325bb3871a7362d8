"""What is accepted, and what extended negotiation answers."""

from pynetdicom.presentation import AllStoragePresentationContexts, build_context

from node.dimse import contexts
from node.dimse.limits import Rates, Seats
from node.dimse.status import Service, status_of
from node.domain import syntaxes
from node.domain.errors import Reason, Refusal

FIND = "1.2.840.10008.5.1.4.1.2.1.1"
MOVE = "1.2.840.10008.5.1.4.1.2.1.2"


def test_every_storage_class_and_every_syntax() -> None:
    known = {str(each.abstract_syntax): each for each in contexts.supported(["1.2.3.4"])}
    for each in AllStoragePresentationContexts:
        assert set(known[str(each.abstract_syntax)].transfer_syntax) >= {
            syntaxes.EXPLICIT_BIG,
            syntaxes.DEFLATED,
            syntaxes.HTJ2K_LOSSLESS,
            syntaxes.JPEG_XL,
        }
    assert "1.2.3.4" in known
    assert "1.2.840.10008.5.1.4.1.1.6" in known  # retired
    assert "1.2.840.10008.5.1.4.38.1" not in known  # hanging protocols belong to no patient


def test_the_requestors_order_decides_for_each_context() -> None:
    known = {str(each.abstract_syntax): each for each in contexts.supported()}
    ct = "1.2.840.10008.5.1.4.1.1.2"
    first = build_context(ct, ["1.2.3", syntaxes.JPEG_2000_LOSSLESS, syntaxes.EXPLICIT_LITTLE])
    second = build_context(ct, [syntaxes.EXPLICIT_LITTLE, syntaxes.JPEG_2000_LOSSLESS])
    unknown = build_context(ct, ["1.2.3"])
    contexts.narrow([first, second, unknown], known)
    assert first.transfer_syntax == [syntaxes.JPEG_2000_LOSSLESS]
    assert second.transfer_syntax == [syntaxes.EXPLICIT_LITTLE]
    assert unknown.transfer_syntax == ["1.2.3"]


def test_extended_negotiation_says_what_is_true() -> None:
    answers = contexts.answer({FIND: b"\1\1\1\1\1\1\1", MOVE: b"\1\1", "1.2.3": b"\1"})
    assert answers == {FIND: b"\1\1\1\0\0\1\1", MOVE: b"\1\0"}
    assert contexts.agreed(answers[FIND]) == contexts.Agreed(True, True, True, True, True)
    assert contexts.answer({FIND: b"\0\0\1"}) == {FIND: b"\0\0\1"}
    assert contexts.agreed(b"\0\0\1") == contexts.Agreed(fuzzy=True)


def test_every_reason_has_a_status_of_every_service() -> None:
    for service in Service:
        for reason in Reason:
            status, comment = status_of(service, Refusal(reason, "why"))
            assert status not in (0, 0xFF00, 0xFF01)
            assert comment == "why"


def test_the_unknown_is_internal_and_tells_nothing() -> None:
    status, comment = status_of(Service.STORE, ValueError("Canary^Name"))
    assert status == 0x0110
    assert "Canary" not in comment


def test_seats_by_title_and_in_all() -> None:
    seats = Seats(3)
    assert [seats.enter("A", 2) for _ in range(3)] == [True, True, False]
    assert seats.enter("B", 2)
    assert not seats.enter("C", 2)
    seats.leave("A")
    assert seats.enter("C", 2)
    assert seats.taken() == 3


def test_a_rate_delays() -> None:
    rates = Rates()
    waits = [rates.wait_seconds("A", 10) for _ in range(20)]
    assert waits[:10] == [0] * 10
    assert 0.5 < waits[-1] <= 1.0
    assert rates.wait_seconds("B", 10) == 0
    assert rates.wait_seconds("A", 0) == 0
