"""Packed attributes, names and the health check that the object stores share."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.adapters.blobs_common import ATTRIBUTE_BYTES_MAX, Health, is_name, pack, unpack
from node.domain.errors import Reason, Refusal
from tests.support import wait_until

ATTRIBUTES = st.dictionaries(st.text(max_size=20), st.binary(max_size=200), max_size=10)


@given(ATTRIBUTES)
def test_attributes_come_back_in_their_order(attributes: dict[str, bytes]) -> None:
    assert list(unpack(pack(attributes)).items()) == list(attributes.items())


@given(ATTRIBUTES.filter(bool), st.data())
def test_cut_off_attributes_are_not_taken_for_whole(
    attributes: dict[str, bytes], data: st.DataObject
) -> None:
    packed = pack(attributes)
    cut = data.draw(st.integers(1, len(packed) - 1))
    try:
        found = unpack(packed[:cut])
    except ValueError:
        return
    assert len(found) < len(attributes)  # cut between two: the store's own checksum tells


@given(st.binary(max_size=100))
def test_no_bytes_break_unpack(packed: bytes) -> None:
    try:
        unpack(packed)
    except ValueError:
        pass


def test_the_limit_counts_names_and_values() -> None:
    fits = ATTRIBUTE_BYTES_MAX - 6 - len("key")
    pack({"key": bytes(fits)})
    with pytest.raises(ValueError, match=str(ATTRIBUTE_BYTES_MAX)):
        pack({"key": bytes(fits + 1)})


def test_names() -> None:
    assert is_name("0123456789abcdef" * 2)
    for wrong in ("", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0" * 31 + "\n", "٠" * 32, "../" + "0" * 29):
        assert not is_name(wrong)


class Store:
    """A store whose probe is counted, may hang and may fail."""

    def __init__(self) -> None:
        self.probes = 0
        self.refusal: Refusal | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def probe(self) -> None:
        self.probes += 1
        assert self.may_go_on.wait(30)
        if self.refusal:
            raise self.refusal


def test_an_answer_holds_for_a_while_good_or_bad() -> None:
    store = Store()
    health = Health(store.probe, good_for_seconds=3600)
    health.check()
    health.check()
    assert store.probes == 1
    store = Store()
    store.refusal = Refusal(Reason.STORE_FULL, "full")
    health = Health(store.probe, good_for_seconds=3600)
    for _ in range(2):
        with pytest.raises(Refusal) as refused:
            health.check()
        assert (refused.value.reason, refused.value.comment) == (Reason.STORE_FULL, "full")
    assert store.probes == 1


def test_an_old_answer_is_asked_for_again() -> None:
    store = Store()
    health = Health(store.probe, good_for_seconds=0)
    health.check()
    store.refusal = Refusal(Reason.UNAVAILABLE)
    with pytest.raises(Refusal):
        health.check()
    store.refusal = None
    health.check()
    assert store.probes == 3


def test_one_probe_hangs_and_the_others_are_told_soon() -> None:
    store = Store()
    store.may_go_on.clear()
    health = Health(store.probe, wait_seconds=0.2)
    first = threading.Thread(target=health.check)
    first.start()
    wait_until(lambda: store.probes == 1, 10, "the probe hangs")
    begun = time.monotonic()
    with pytest.raises(Refusal) as refused:
        health.check()
    assert refused.value.reason is Reason.UNAVAILABLE
    assert time.monotonic() - begun < 5
    store.may_go_on.set()
    first.join()
    health.check()
    assert store.probes == 1


def test_a_fault_of_our_own_is_not_a_refusal() -> None:
    def probe() -> None:
        raise ZeroDivisionError

    health = Health(probe)
    for _ in range(2):  # and the lock is free again
        with pytest.raises(ZeroDivisionError):
            health.check()
