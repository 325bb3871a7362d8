"""What the object stores have in common: the rules on names, packed attributes, and the health check."""

import re
import struct
import threading
import time
from collections.abc import Callable

from node.domain.errors import Reason, Refusal

ATTRIBUTE_BYTES_MAX = 32 * 1024  # names and values together, as packed

_NAME = re.compile(r"[0-9a-f]{32}")
_LENGTHS = struct.Struct("<HI")  # of an attribute's name and of its value


def is_name(text: str) -> bool:
    """Whether `text` is an object's name: 32 lower-case hexadecimal digits."""
    return _NAME.fullmatch(text) is not None


def checked_name(name: str) -> str:
    """`name` if it is one; ValueError otherwise, so that a name can never become a path."""
    if not is_name(name):
        raise ValueError("an object's name is 32 lower-case hexadecimal digits")
    return name


def checked_range(offset: int, length: int) -> None:
    """ValueError for a range that no object has."""
    if offset < 0 or length < 0:
        raise ValueError("offset and length are not negative")


def pack(attributes: dict[str, bytes]) -> bytes:
    """Attributes as one byte string. ValueError beyond ATTRIBUTE_BYTES_MAX.

    Per attribute: length of the name (2 bytes), length of the value (4 bytes, both little endian),
    the name in UTF-8, the value.
    """
    pieces: list[bytes] = []
    for key, value in attributes.items():
        encoded = key.encode()
        pieces += (_LENGTHS.pack(len(encoded), len(value)), encoded, value)
    packed = b"".join(pieces)
    if len(packed) > ATTRIBUTE_BYTES_MAX:
        raise ValueError(f"attributes take {len(packed)} bytes, more than {ATTRIBUTE_BYTES_MAX}")
    return packed


def unpack(packed: bytes) -> dict[str, bytes]:
    """The inverse of `pack`; ValueError if that is not what `packed` is."""
    attributes: dict[str, bytes] = {}
    at = 0
    while at < len(packed):
        if at + _LENGTHS.size > len(packed):
            raise ValueError("attributes are cut off")
        key_length, value_length = _LENGTHS.unpack_from(packed, at)
        at += _LENGTHS.size
        middle, end = at + key_length, at + key_length + value_length
        if end > len(packed):
            raise ValueError("attributes are cut off")
        attributes[packed[at:middle].decode()] = packed[middle:end]
        at = end
    return attributes


class Health:
    """A store's `check`: one probe at a time, its answer good for a second.

    Readiness is asked for by every load balancer every second, and a probe of a store that hangs takes
    as long as the store's time limit: without this, each question would cost a thread for that long.
    """

    def __init__(
        self,
        probe: Callable[[], None],
        *,
        good_for_seconds: float = 1.0,
        wait_seconds: float = 5.0,
    ) -> None:
        self._probe = probe
        self._good_for_seconds = good_for_seconds
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._known_until = -1.0
        self._answer: Refusal | None = None

    def check(self) -> None:
        """Return if the store works; otherwise raise its Refusal, or UNAVAILABLE while a probe hangs."""
        if not self._lock.acquire(timeout=self._wait_seconds):
            raise Refusal(Reason.UNAVAILABLE, "object store does not answer")
        try:
            if time.monotonic() >= self._known_until:
                self._answer = self._ask()
                self._known_until = time.monotonic() + self._good_for_seconds
            answer = self._answer
        finally:
            self._lock.release()
        if answer is not None:
            raise Refusal(answer.reason, answer.comment)

    def _ask(self) -> Refusal | None:
        try:
            self._probe()
        except Refusal as refusal:
            return refusal
        return None
