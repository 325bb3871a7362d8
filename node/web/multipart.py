"""multipart/related (RFC 2387, RFC 2046 section 5.1), read and written in bounded memory.

`Reader` is a push parser: bytes go in as they come off the wire, events come out, and a part's content is
handed on in pieces and never gathered. It keeps back at most one part's header block, or as many bytes as
could still turn out to be a delimiter.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from node.domain.errors import Reason, Refusal

MAX_BOUNDARY_CHARS = 200  # RFC 2046 says 70, but Orthanc writes 73
MAX_HEADERS_BYTES = 16 << 10
GATHERED_BYTES = 32 << 10
MAX_PADDING_BYTES = 1024  # white space that may follow a delimiter on its line

_HEADERS_END = b"\r\n\r\n"
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class PartBegins:
    """A part's header block; names in lower case."""

    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartData:
    """The next bytes of the part's content."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The part is complete."""


Event = PartBegins | PartData | PartEnds


def check_boundary(boundary: str) -> bytes:
    """The boundary parameter as bytes, or Refusal(NOT_UNDERSTOOD) (RFC 2046 section 5.1.1,
    but for the length)."""
    if len(boundary) > MAX_BOUNDARY_CHARS or not _BOUNDARY.fullmatch(boundary):
        raise Refusal(Reason.NOT_UNDERSTOOD, "no valid multipart boundary")
    return boundary.encode("ascii")


class Reader:
    """Push parser for one message body; Refusal(NOT_UNDERSTOOD) when it is malformed.

    `max_parts` bounds their number (Refusal TOO_LARGE). Preamble and epilogue are dropped. Line ends are
    CRLF, as the standard has them.
    """

    def __init__(self, boundary: str, max_parts: int) -> None:
        self._delimiter = b"\r\n--" + check_boundary(boundary)
        self._max_parts = max_parts
        self._parts = 0
        # The first delimiter need not have a line break before it: lend it one.
        self._buffer = bytearray(b"\r\n")
        self._state: Callable[[], Iterator[Event]] = self._preamble

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """Take the next bytes of the body; the events are to be consumed before the next call."""
        self._buffer += data
        while True:
            state = self._state
            yield from state()
            if self._state == state:
                return

    def finish(self) -> None:
        """The body has ended; Refusal(NOT_UNDERSTOOD) unless its closing delimiter was seen."""
        if self._state != self._epilogue:
            raise Refusal(Reason.NOT_UNDERSTOOD, "multipart body ends without its closing delimiter")

    # Each state takes what it can from the buffer; the parser waits for bytes when the state stays.

    def _preamble(self) -> Iterator[Event]:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            del self._buffer[: -len(self._delimiter)]
        else:
            del self._buffer[: at + len(self._delimiter)]
            self._state = self._after_delimiter
        return iter(())

    def _after_delimiter(self) -> Iterator[Event]:
        """White space and a line break, or "--" for the last one.

        What is judged is the first byte that is no padding, so that the verdict does not depend on where
        the body was cut.
        """
        buffer = self._buffer
        beginning = bytes(buffer[: MAX_PADDING_BYTES + 1])
        padding = len(beginning) - len(beginning.lstrip(b" \t"))
        rest = bytes(buffer[padding : padding + 2])
        if padding > MAX_PADDING_BYTES:
            raise Refusal(Reason.NOT_UNDERSTOOD, "malformed multipart delimiter")
        if padding == 0 and rest == b"--":
            self._state = self._epilogue
        elif rest == b"\r\n":
            self._parts += 1
            if self._parts > self._max_parts:
                raise Refusal(Reason.TOO_LARGE, f"more than {self._max_parts} parts")
            del buffer[:padding]  # the line break stays: a part without headers begins with an empty line
            self._state = self._headers
        elif rest not in (b"", b"\r") and not (padding == 0 and rest == b"-"):
            raise Refusal(Reason.NOT_UNDERSTOOD, "malformed multipart delimiter")
        return iter(())

    def _headers(self) -> Iterator[Event]:
        at = self._buffer.find(_HEADERS_END)
        nowhere_before = at if at >= 0 else len(self._buffer) - len(_HEADERS_END) + 1
        if nowhere_before > MAX_HEADERS_BYTES:
            raise Refusal(Reason.NOT_UNDERSTOOD, f"part headers over {MAX_HEADERS_BYTES} bytes")
        if at < 0:
            return
        headers = _parsed(bytes(self._buffer[2:at]))
        # The last line break stays: it may already belong to the next delimiter.
        del self._buffer[: at + 2]
        self._state = self._first_content
        yield PartBegins(headers)

    def _first_content(self) -> Iterator[Event]:
        """Tell an empty part from one whose content begins after the empty line."""
        length = len(self._delimiter)
        if len(self._buffer) < length and self._delimiter.startswith(self._buffer):
            return iter(())
        if not self._buffer.startswith(self._delimiter):
            del self._buffer[:2]
        self._state = self._content
        return iter(())

    def _content(self) -> Iterator[Event]:
        at = self._buffer.find(self._delimiter)
        if at >= 0:
            if at:
                yield PartData(bytes(self._buffer[:at]))
            del self._buffer[: at + len(self._delimiter)]
            self._state = self._after_delimiter
            yield PartEnds()
            return
        kept = _possible_start(self._buffer, self._delimiter)
        ready = len(self._buffer) - kept
        if ready:
            data = bytes(memoryview(self._buffer)[:ready])
            del self._buffer[:ready]
            yield PartData(data)

    def _epilogue(self) -> Iterator[Event]:
        self._buffer.clear()
        return iter(())


def _possible_start(buffer: bytearray, delimiter: bytes) -> int:
    """How many bytes at the buffer's end may be the beginning of a delimiter."""
    longest = min(len(delimiter) - 1, len(buffer))
    for size in range(longest, 0, -1):
        if buffer.endswith(delimiter[:size]):
            return size
    return 0


def _parsed(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in block.decode("latin-1").split("\r\n"):
        if not line:
            continue
        if line[0] in " \t" and headers:  # folded (RFC 2046 allows it)
            last = next(reversed(headers))
            headers[last] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise Refusal(Reason.NOT_UNDERSTOOD, "malformed part header")
        headers[name.lower()] = value.strip()
    return headers


# --- Writing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A part to send: its headers, its content, and the content's length in bytes if it is known."""

    headers: tuple[tuple[str, str], ...]
    content: Iterable[bytes]
    length: int | None = None


def begins(boundary: str, part: Part, first: bool) -> bytes:
    """What precedes a part's content."""
    lines = [f"{'' if first else chr(13) + chr(10)}--{boundary}"]
    lines += [f"{name}: {value}" for name, value in part.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def ends(boundary: str) -> bytes:
    """What follows the last part."""
    return f"\r\n--{boundary}--\r\n".encode("latin-1")


def write(boundary: str, parts: Iterable[Part]) -> Iterator[bytes]:
    """The message body piece by piece; an exception of a part's content ends it half-way.

    Small pieces are gathered, so that headers cost no system call, and no packet, of their own.
    """
    small = bytearray()
    first = True
    for part in parts:
        small += begins(boundary, part, first)
        for piece in part.content:
            if len(piece) < GATHERED_BYTES and len(small) < GATHERED_BYTES:
                small += piece
                continue
            if small:
                yield bytes(small)
                small.clear()
            yield piece
        first = False
    small += ends(boundary)
    yield bytes(small)


def length(boundary: str, parts: Iterable[Part]) -> int | None:
    """Length in bytes of what `write` yields, None if a part's is not known."""
    total, first = len(ends(boundary)), True
    for part in parts:
        if part.length is None:
            return None
        total += len(begins(boundary, part, first)) + part.length
        first = False
    return total
