"""What only the memory store has: a capacity."""

import pytest

from node.adapters.blobs_memory import MemoryBlobs
from node.domain.errors import Reason, Refusal


def test_beyond_its_capacity_it_is_full_until_something_goes() -> None:
    blobs = MemoryBlobs(capacity_bytes=10)
    writer = blobs.create()
    first = writer.name
    writer.write(b"0123456789")
    writer.commit({})
    with pytest.raises(Refusal) as refused:
        blobs.check()
    assert refused.value.reason is Reason.STORE_FULL
    writer = blobs.create()
    writer.write(b"x")
    with pytest.raises(Refusal) as refused:
        writer.commit({})
    assert refused.value.reason is Reason.STORE_FULL
    blobs.remove(first)
    blobs.check()
    writer = blobs.create()
    writer.write(b"x")
    writer.commit({})
    assert blobs.read(writer.name, 0, 1) == b"x"
