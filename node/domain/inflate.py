"""Deflated datasets (PS3.5 section A.5), inflated in small pieces and within bounds."""

import zlib
from collections.abc import Iterator

from node.domain.errors import Reason, Refusal

_PIECE_BYTES = 64 << 10
# Deflate reaches 1,032 : 1 on constant bytes, and small segmentations come near it. What is larger
# than _FREE_BYTES and still shrinks by more than _MAX_RATIO is a bomb.
_FREE_BYTES = 64 << 20
_MAX_RATIO = 100
# Behind the stream: a byte that makes the length even, or gzip's checksum and size, which some writers leave
_TRAILER_BYTES = 9


class Inflater:
    """Inflates a raw deflate stream that comes in chunks, to at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._max_bytes = max_bytes
        self._taken = 0
        self._given = 0

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """The inflated pieces of a chunk. Refusal(TOO_LARGE) for a bomb, (NOT_UNDERSTOOD) for no deflate."""
        stream = self._stream
        self._taken += len(data)
        rest: bytes | bytearray | memoryview = data
        while True:
            try:
                piece = stream.decompress(rest, _PIECE_BYTES)
            except zlib.error:
                raise Refusal(Reason.NOT_UNDERSTOOD, f"no deflate stream at offset {self._given}") from None
            self._given += len(piece)
            if self._given > self._max_bytes:
                raise Refusal(Reason.TOO_LARGE, f"dataset inflates over {self._max_bytes} bytes")
            if self._given > max(_FREE_BYTES, _MAX_RATIO * self._taken):
                raise Refusal(Reason.TOO_LARGE, f"dataset inflates over {_MAX_RATIO} times")
            if piece:
                yield piece
            rest = stream.unconsumed_tail
            if stream.eof or (not rest and len(piece) < _PIECE_BYTES):
                break
        if len(stream.unused_data) > _TRAILER_BYTES:
            raise Refusal(Reason.NOT_UNDERSTOOD, "data behind the deflate stream")

    def finish(self) -> None:
        """Refusal(NOT_UNDERSTOOD) if the stream has not ended."""
        if not self._stream.eof:
            raise Refusal(Reason.NOT_UNDERSTOOD, f"deflate stream ends at offset {self._given}, too early")
