"""Datasets in the store: digests, spilling, budget, and bytes that are not what they were."""

import hashlib

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from node.adapters.blobs_memory import MemoryBlobs
from node.domain.errors import Reason, Refusal
from node.domain.model import StoredObject
from node.services.objects import PIECE_BYTES, Objects

PREFIX = b"\0" * 128 + b"DICM"


def store(objects: Objects, data: bytes, chunk: int = 1 << 20) -> StoredObject:
    writer = objects.begin(PREFIX)
    for start in range(0, len(data), chunk):
        writer.write(memoryview(data)[start : start + chunk])
    return writer.finish()


def pattern(length: int) -> bytes:
    return hashlib.shake_128(b"pattern").digest(length)


@pytest.mark.parametrize(
    "length",
    [0, 1, 1000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 2 * PIECE_BYTES + 5],
)
def test_what_was_written_is_read_with_its_digest(length: int) -> None:
    blobs = MemoryBlobs()
    objects = Objects(blobs, 64 << 20, 1 << 20)
    data = pattern(length)
    stored = store(objects, data, chunk=1_000_003)
    assert stored.digest == blake3(data).digest()
    assert (stored.dataset_length, stored.prefix_length) == (length, len(PREFIX))
    assert objects.read(stored) == data
    assert blobs.read(stored.name, 0, len(PREFIX)) == PREFIX
    assert objects.whole(stored)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_range_is_read_and_checked(data: st.DataObject) -> None:
    content = pattern(2 * PIECE_BYTES + 12345)
    objects = Objects(MemoryBlobs(), 64 << 20, 1 << 20)
    stored = store(objects, content)
    offset = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, len(content) - offset))
    assert objects.read_range(stored, offset, length) == content[offset : offset + length]


class CountingBlobs(MemoryBlobs):
    """A store that counts what is asked of it."""

    reads = 0
    looks = 0

    def read(self, name: str, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().read(name, offset, length)

    def attributes(self, name: str) -> dict[str, bytes]:
        self.looks += 1
        return super().attributes(name)


def test_a_range_across_pieces_reads_each_once_and_their_digests_once() -> None:
    blobs = CountingBlobs()
    objects = Objects(blobs, 64 << 20, 1 << 20)
    content = pattern(3 * PIECE_BYTES)
    stored = store(objects, content)
    start, length = PIECE_BYTES // 2, 2 * PIECE_BYTES
    assert b"".join(objects.stream_range(stored, start, length)) == content[start : start + length]
    assert (blobs.reads, blobs.looks) == (3, 1)


def test_a_range_beyond_the_end_is_refused() -> None:
    objects = Objects(MemoryBlobs(), 64 << 20, 1 << 20)
    stored = store(objects, b"1234")
    with pytest.raises(Refusal) as caught:
        objects.read_range(stored, 3, 2)
    assert caught.value.reason is Reason.CORRUPT


class FlippingBlobs(MemoryBlobs):
    """A store that answers with one bit of its object turned over, as a bad disk would."""

    flip_at: int | None = None

    def read(self, name: str, offset: int, length: int) -> bytes:
        data = bytearray(super().read(name, offset, length))
        if self.flip_at is not None and offset <= self.flip_at < offset + length:
            data[self.flip_at - offset] ^= 1
        return bytes(data)


@pytest.mark.parametrize("length", [1000, 2 * PIECE_BYTES + 5])
def test_wrong_bytes_are_never_handed_on(length: int) -> None:
    blobs = FlippingBlobs()
    objects = Objects(blobs, 64 << 20, 1 << 20)
    stored = store(objects, pattern(length))
    blobs.flip_at = len(PREFIX) + length - 1
    handed_on = b""
    with pytest.raises(Refusal) as caught:
        for piece in objects.stream(stored):
            handed_on += piece
    assert caught.value.reason is Reason.CORRUPT
    assert pattern(length).startswith(handed_on)
    with pytest.raises(Refusal):
        objects.read_range(stored, length - 10, 10)


def test_digests_that_tell_of_other_bytes_are_refused() -> None:
    objects = Objects(MemoryBlobs(), 64 << 20, 1 << 20)
    one = store(objects, pattern(PIECE_BYTES + 1))
    two = store(objects, pattern(PIECE_BYTES + 2))
    mixed = StoredObject(two.name, one.prefix_length, one.dataset_length, one.digest)
    with pytest.raises(Refusal) as caught:
        objects.read(mixed)
    assert caught.value.reason is Reason.CORRUPT


def test_memory_stays_within_the_budget_and_nobody_waits() -> None:
    """Past the budget an intake goes to the store in pieces: as many as like may be under way."""
    blobs = MemoryBlobs()
    objects = Objects(blobs, budget_bytes=3 << 20, spill_bytes=4 << 20)
    data = pattern(2 << 20)
    writers = [objects.begin(PREFIX) for _ in range(5)]
    for start in range(0, len(data), 1 << 19):
        for writer in writers:
            writer.write(data[start : start + (1 << 19)])
    held = sum(writer._held_bytes for writer in writers)
    assert held <= 3 << 20
    stored = [writer.finish() for writer in writers]
    assert all(objects.read(each) == data for each in stored)
    assert objects._budget._free == 3 << 20


def test_an_aborted_dataset_leaves_nothing_and_gives_its_memory_back() -> None:
    blobs = MemoryBlobs()
    objects = Objects(blobs, 8 << 20, 1 << 20)
    for size in (1000, 3 << 20):
        writer = objects.begin(PREFIX)
        writer.write(pattern(size))
        writer.abort()
    assert list(blobs.names()) == []
    assert objects._budget._free == 8 << 20


def test_names_are_never_shared() -> None:
    objects = Objects(MemoryBlobs(), 8 << 20, 1 << 20)
    assert len({store(objects, b"same bytes").name for _ in range(50)}) == 50
