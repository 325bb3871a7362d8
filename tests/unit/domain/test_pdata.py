"""Messages in PDUs of any size: nothing is lost, nothing copied, and each fits."""

from collections.abc import Iterator
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.dimse import pdu
from node.domain import pdata

PIECES = st.lists(st.binary(max_size=3000), max_size=12)


def fragments(data: bytes, limit: int) -> list[pdu.Fragment]:
    """The values of PDUs, each of which must fit the peer's limit."""
    found = []
    at = 0
    while at < len(data):
        kind, length = pdu.read_header(data[at : at + 6])
        assert kind == pdu.P_DATA
        assert length <= limit
        found += pdu.fragments(memoryview(data)[at + 6 : at + 6 + length])
        at += 6 + length
    return found


@given(command=st.binary(min_size=2, max_size=300), pieces=PIECES | st.none(), limit=st.integers(16, 5000))
def test_a_message_comes_back_whole(command: bytes, pieces: list[bytes] | None, limit: int) -> None:
    batches = list(pdata.gathered(5, command, pieces, pdata.value_bytes(limit)))
    assert all(len(batch) <= pdata.BATCH_BUFFERS for batch in batches)
    found = fragments(b"".join(buffer for batch in batches for buffer in batch), limit)
    assert {each.context_id for each in found} == {5}
    head = [each for each in found if each.is_command]
    tail = [each for each in found if not each.is_command]
    assert found == head + tail
    assert b"".join(each.data for each in head) == command
    assert [each.is_last for each in head] == [False] * (len(head) - 1) + [True]
    if pieces is None:
        assert not tail
        return
    assert b"".join(each.data for each in tail) == b"".join(pieces)
    assert [each.is_last for each in tail] == [False] * (len(tail) - 1) + [True]


def test_a_dataset_is_neither_copied_nor_gathered_whole() -> None:
    pieces = [bytes([number]) * (4 << 20) for number in range(4)]
    begun: list[int] = []

    def dataset() -> Iterator[bytes]:
        for number, piece in enumerate(pieces):
            begun.append(number)
            yield piece

    for batch in pdata.gathered(1, b"command.", dataset(), pdata.value_bytes(131072)):
        assert sum(map(len, batch)) < pdata.BATCH_BYTES + (256 << 10)
        for buffer in batch:
            if isinstance(buffer, memoryview) and len(buffer) > 8:
                assert buffer.obj is pieces[begun[-1]] or buffer.obj is pieces[begun[-1] - 1]
    assert begun == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("limit", "size"),
    [(0, (128 << 10) - 6), (16, 10), (17, 10), (131072, 131066), (1 << 20, 1048570), (0xFFFFFFFF, 1048570)],
)
def test_a_value_is_even_and_within_the_peers_limit_and_ours(limit: int, size: int) -> None:
    assert pdata.value_bytes(limit) == size


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_what_is_left_after_any_number_of_bytes(buffers: list[bytes]) -> None:
    whole = b"".join(buffers)
    for count in range(len(whole) + 1):
        assert b"".join(pdata.unwritten(list(buffers), count)) == whole[count:]
    for end in accumulate(map(len, buffers)):
        left = pdata.unwritten(list(buffers), end)
        assert not left or len(left[0]) > 0
