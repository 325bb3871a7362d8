"""Messages as P-DATA-TF PDUs (PS3.8 section 9.3.5 and annex E), gathered for writing.

Pure, and no byte of a dataset is copied: a PDU is a header and a view of what it holds, and many of them
are given to the kernel at once.
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import chain

Buffer = bytes | memoryview

BATCH_BYTES = 1 << 20  # given to the kernel at once; a slow peer's patience is counted in these
BATCH_BUFFERS = 512  # half of what sendmsg(2) takes
MAX_PDU_BYTES = 1 << 20  # sent, however much more the peer takes
USUAL_PDU_BYTES = 128 << 10  # sent to peers that set no limit

_P_DATA = 4
_HEADER = struct.Struct(">BxIIBB")
_VALUE_HEADER_BYTES = 6  # of a value: its length, context and control; counted by the limit


def value_bytes(peer_limit: int) -> int:
    """How much of a message a PDU may hold, by the Maximum Length Received that the peer has sent (0: any,
    PS3.8 section D.1). Even, as fragments must be."""
    return (min(peer_limit or USUAL_PDU_BYTES, MAX_PDU_BYTES) - _VALUE_HEADER_BYTES) & ~1


def gathered(
    context_id: int, command: bytes, dataset: Iterable[bytes] | None, size: int
) -> Iterator[list[Buffer]]:
    """A message as lists of buffers, each to be written in one go: about BATCH_BYTES, or the rest.

    `dataset` comes in pieces of any length, None if there is none; `size`: `value_bytes` of the peer.
    """
    values = _values(context_id, 1, (command,), size)
    if dataset is not None:
        values = chain(values, _values(context_id, 0, dataset, size))
    batch: list[Buffer] = []
    gathered_bytes = 0
    for header, value in values:
        batch += (header, value)
        gathered_bytes += len(value)
        if gathered_bytes >= BATCH_BYTES or len(batch) >= BATCH_BUFFERS:
            yield batch
            batch, gathered_bytes = [], 0
    if batch:
        yield batch


def unwritten(buffers: list[Buffer], count: int) -> list[Buffer]:
    """What is left of `buffers` when the first `count` bytes of them have been written."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [memoryview(buffer)[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return []


def _values(
    context_id: int, control: int, pieces: Iterable[bytes], size: int
) -> Iterator[tuple[bytes, memoryview]]:
    """(header, value) of each PDU; bit 0 of `control` says command, bit 1 is set on the last."""
    held: memoryview | None = None
    for piece in pieces:
        view = memoryview(piece)
        for at in range(0, len(view), size):
            if held is not None:
                yield _header(context_id, control, held), held
            held = view[at : at + size]
    last = memoryview(b"") if held is None else held
    yield _header(context_id, control | 2, last), last


def _header(context_id: int, control: int, value: memoryview) -> bytes:
    length = len(value)
    return _HEADER.pack(_P_DATA, length + _VALUE_HEADER_BYTES, length + 2, context_id, control)
