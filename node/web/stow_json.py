"""The other form of a STOW-RS request: metadata in JSON, bulk data in parts of their own.

A BulkDataURI may name a part of the same request (by its Content-Location, or as `cid:` by its
Content-ID, RFC 2392) and nothing else: this archive never fetches anything on a client's behalf. The parts
wait in a temporary file, so that memory stays bounded; a request that is malformed anywhere is refused
before anything of it is stored.
"""

import json
import math
import tempfile
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from node.domain import part10
from node.domain.errors import Reason, Refusal
from node.domain.syntaxes import ENCAPSULATED_UNCOMPRESSED, EXPLICIT_LITTLE, IMPLICIT_LITTLE, SYNTAXES
from node.domain.uid import check_uid
from node.web import accept, multipart
from node.web.body import DICOM_JSON, JSON
from node.web.json_dataset import Bulk, BulkValue, Pieces, encode

MAX_METADATA_BYTES = 16 << 20
MAX_BULK_BYTES = 2 << 30
# Several instances may share a part; without a limit a short request could ask for endless copies.
MAX_REFERENCED_PARTS = 1_000_000
_IN_MEMORY_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20
_AVAILABLE_SYNTAX = "00083002"
# What a compressed media type stands for if neither the part nor the metadata name a transfer syntax
_DEFAULT_SYNTAX = {
    "image/jpeg": "1.2.840.10008.1.2.4.50",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jpx": "1.2.840.10008.1.2.4.92",
    "image/jxl": "1.2.840.10008.1.2.4.110",
    "image/jphc": "1.2.840.10008.1.2.4.201",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "video/mpeg": "1.2.840.10008.1.2.4.100",
    "video/mp4": "1.2.840.10008.1.2.4.102",
}
_PLAIN_SYNTAXES = frozenset({EXPLICIT_LITTLE, IMPLICIT_LITTLE, ENCAPSULATED_UNCOMPRESSED})
# Parsed JSON takes many times the room of its text. Held only once the request has been read, so that a
# slow sender keeps nobody waiting.
_AT_ONCE = threading.BoundedSemaphore(2)
_WAIT_SECONDS = 30.0


class MetadataRequest:
    """One such request; a context manager, which owns the temporary file."""

    def __init__(self, *, max_metadata_bytes: int, max_depth: int) -> None:
        self._max_metadata_bytes = min(max_metadata_bytes, MAX_METADATA_BYTES)
        self._max_depth = max_depth
        self._metadata: Bulk | None = None
        self._bulk: dict[str, list[tuple[Bulk, dict[str, str], str]]] = {}
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed in close
        self._written = 0
        self._bulk_bytes = 0
        self._referenced_bytes = 0
        self._referenced_parts = 0
        self._parsing = False

    def __enter__(self) -> "MetadataRequest":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._parsing:
            _AT_ONCE.release()
        self._file.close()

    def read(self, events: Iterator[multipart.Event]) -> None:
        """Take the request's parts. Refusal(TOO_LARGE, NOT_UNDERSTOOD)."""
        metadata, start = False, 0
        part = multipart.PartBegins()
        for event in events:
            if isinstance(event, multipart.PartBegins):
                part, start = event, self._written
                metadata = self._is_metadata(part)
            elif isinstance(event, multipart.PartData):
                self._take(event.data, start if metadata else None)
            elif metadata:
                self._metadata = Bulk(start, self._written - start)
            else:
                self._keep(part, Bulk(start, self._written - start))

    def instances(self) -> list[Iterator[bytes]]:
        """Each instance as the pieces of a Part 10 file; to be read one after the other.

        Refusal(NOT_UNDERSTOOD, INVALID_UID, TOO_LARGE), TOO_MANY if too many wait for their turn.
        """
        if self._metadata is None:
            raise Refusal(Reason.NOT_UNDERSTOOD, "no part with metadata")
        self._parsing = _AT_ONCE.acquire(timeout=_WAIT_SECONDS)
        if not self._parsing:
            raise Refusal(Reason.TOO_MANY, "too many requests with JSON metadata")
        try:
            text = b"".join(self._read(self._metadata))
            datasets = json.loads(text, parse_float=_finite, parse_constant=_finite)
        except (ValueError, RecursionError):
            raise Refusal(Reason.NOT_UNDERSTOOD, "metadata is not JSON, or nested too deep") from None
        if isinstance(datasets, dict):
            datasets = [datasets]
        if not isinstance(datasets, list):
            raise Refusal(Reason.NOT_UNDERSTOOD, "metadata is not a list of datasets")
        return [self._file_of(*self._encoded(each)) for each in datasets]

    def _is_metadata(self, part: multipart.PartBegins) -> bool:
        """The first part is, even if it has no type; every other one is bulk data."""
        media_type, _ = accept.media_type_and_parameters(part.headers.get("content-type", ""))
        named = media_type in (DICOM_JSON, JSON)
        if named and self._metadata is not None:
            raise Refusal(Reason.NOT_UNDERSTOOD, "more than one part with metadata")
        return named or (not self._written and "content-type" not in part.headers)

    def _take(self, data: bytes, metadata_start: int | None) -> None:
        self._written += len(data)
        if metadata_start is None:
            self._bulk_bytes += len(data)
            if self._bulk_bytes > MAX_BULK_BYTES:
                raise Refusal(Reason.TOO_LARGE, f"bulk data over {MAX_BULK_BYTES} bytes; send it as a file")
        elif self._written - metadata_start > self._max_metadata_bytes:
            raise Refusal(Reason.TOO_LARGE, f"metadata over {self._max_metadata_bytes} bytes")
        try:
            self._file.write(data)
        except OSError:
            raise Refusal(Reason.STORE_FULL, "no room for the request's bulk data") from None

    def _keep(self, part: multipart.PartBegins, bulk: Bulk) -> None:
        media_type, parameters = accept.media_type_and_parameters(part.headers.get("content-type", ""))
        identifier = part.headers.get("content-id", "").removeprefix("<").removesuffix(">")
        for uri in (part.headers.get("content-location"), identifier and f"cid:{identifier}"):
            if uri:
                self._bulk.setdefault(uri, []).append((bulk, parameters, media_type))

    def _encoded(self, dataset: Any) -> tuple[list[str], Pieces]:
        """(SOP Class UID, SOP Instance UID, transfer syntax), dataset."""
        syntaxes: set[str] = set()
        told = _text(dataset, _AVAILABLE_SYNTAX)

        def resolve(uri: str) -> BulkValue:
            parts = self._bulk.get(uri)
            if not parts:
                raise Refusal(Reason.NOT_UNDERSTOOD, "a BulkDataURI that names no part of the request")
            self._count(len(parts), sum(bulk.length for bulk, _, _ in parts))
            found = {_syntax(media_type, parameters, told) for _, parameters, media_type in parts}
            if len(found) != 1:
                raise Refusal(Reason.NOT_UNDERSTOOD, "parts of one value in several forms")
            syntax = found.pop()
            if syntax is not None:
                syntaxes.add(syntax)
            return BulkValue(tuple(bulk for bulk, _, _ in parts), syntax)

        pieces = encode(dataset, resolve, self._max_depth)
        uids = [check_uid(_text(dataset, "00080016")), check_uid(_text(dataset, "00080018"))]
        return [*uids, syntaxes.pop() if syntaxes else EXPLICIT_LITTLE], pieces

    def _file_of(self, uids: list[str], pieces: Pieces) -> Iterator[bytes]:
        yield part10.prefix(uids[0], uids[1], uids[2], "")
        for piece in pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            yield from self._read(piece)

    def _count(self, parts: int, length: int) -> None:
        self._referenced_parts += parts
        self._referenced_bytes += length
        if self._referenced_parts > MAX_REFERENCED_PARTS or self._referenced_bytes > MAX_BULK_BYTES:
            raise Refusal(Reason.TOO_LARGE, "bulk data referred to too often")

    def _read(self, bulk: Bulk) -> Iterator[bytes]:
        for at in range(bulk.offset, bulk.offset + bulk.length, _PIECE_BYTES):
            self._file.seek(at)
            yield self._file.read(min(_PIECE_BYTES, bulk.offset + bulk.length - at))


def _finite(text: str) -> float:
    """JSON (RFC 8259) has no other numbers; Python would read them."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _text(dataset: Any, tag: str) -> str:
    try:
        value = dataset[tag]["Value"][0]
    except (KeyError, IndexError, TypeError):
        return ""
    return value if isinstance(value, str) else ""


def _syntax(media_type: str, parameters: dict[str, str], told: str) -> str | None:
    """The transfer syntax of compressed frames; None for plain bytes."""
    named = parameters.get("transfer-syntax", "")
    if named in _PLAIN_SYNTAXES or (not named and media_type not in _DEFAULT_SYNTAX):
        return None
    if not named and told in SYNTAXES and SYNTAXES[told].media_type == media_type:
        named = told
    named = named or _DEFAULT_SYNTAX[media_type]
    if named not in SYNTAXES or not SYNTAXES[named].encapsulated:
        raise Refusal(Reason.NOT_UNDERSTOOD, "bulk data in a transfer syntax that is none for frames")
    return named
