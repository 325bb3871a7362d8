"""The other form of a STOW-RS request: metadata in JSON, bulk data in parts of their own.

A BulkDataURI may name a part of the same request (by its Content-Location) and nothing else: this archive
never fetches anything on a client's behalf. Bulk data waits in a temporary file, so that memory stays
bounded; a request that is malformed anywhere is refused before anything of it is stored.
"""

import json
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
_IN_MEMORY_BYTES = 8 << 20
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
# Parsed JSON takes many times the room of its text.
_AT_ONCE = threading.BoundedSemaphore(2)
_WAIT_SECONDS = 30.0


class MetadataRequest:
    """One such request; a context manager, which owns the temporary file."""

    def __init__(self, *, max_metadata_bytes: int, max_depth: int) -> None:
        self._max_metadata_bytes = min(max_metadata_bytes, MAX_METADATA_BYTES)
        self._max_depth = max_depth
        self._metadata = bytearray()
        self._bulk: dict[str, list[tuple[Bulk, dict[str, str], str]]] = {}
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed in close
        self._bulk_bytes = 0

    def __enter__(self) -> "MetadataRequest":
        if not _AT_ONCE.acquire(timeout=_WAIT_SECONDS):
            self._file.close()
            raise Refusal(Reason.TOO_MANY, "too many requests with JSON metadata")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        _AT_ONCE.release()
        self._file.close()

    def read(self, events: Iterator[multipart.Event]) -> None:
        """Take the request's parts. Refusal(TOO_LARGE, NOT_UNDERSTOOD)."""
        metadata, start = False, 0
        part = multipart.PartBegins()
        for event in events:
            if isinstance(event, multipart.PartBegins):
                part, start = event, self._bulk_bytes
                media_type, _ = accept.media_type_and_parameters(part.headers.get("content-type", DICOM_JSON))
                metadata = media_type in (DICOM_JSON, JSON)
                if metadata and self._metadata:
                    raise Refusal(Reason.NOT_UNDERSTOOD, "more than one part with metadata")
            elif isinstance(event, multipart.PartData):
                self._take(event.data, metadata)
            elif not metadata:
                self._keep(part, Bulk(start, self._bulk_bytes - start))

    def instances(self) -> list[Iterator[bytes]]:
        """Each instance as the pieces of a Part 10 file. Refusal(NOT_UNDERSTOOD, INVALID_UID)."""
        try:
            datasets = json.loads(self._metadata)
        except (ValueError, RecursionError):
            raise Refusal(Reason.NOT_UNDERSTOOD, "metadata is not JSON, or nested too deep") from None
        if isinstance(datasets, dict):
            datasets = [datasets]
        if not isinstance(datasets, list):
            raise Refusal(Reason.NOT_UNDERSTOOD, "metadata is not a list of datasets")
        return [self._file_of(*self._encoded(each)) for each in datasets]

    def _take(self, data: bytes, metadata: bool) -> None:
        if metadata:
            if len(self._metadata) + len(data) > self._max_metadata_bytes:
                raise Refusal(Reason.TOO_LARGE, f"metadata over {self._max_metadata_bytes} bytes")
            self._metadata += data
            return
        self._bulk_bytes += len(data)
        if self._bulk_bytes > MAX_BULK_BYTES:
            raise Refusal(Reason.TOO_LARGE, f"bulk data over {MAX_BULK_BYTES} bytes; send it as a file")
        try:
            self._file.write(data)
        except OSError:
            raise Refusal(Reason.STORE_FULL, "no room for the request's bulk data") from None

    def _keep(self, part: multipart.PartBegins, bulk: Bulk) -> None:
        location = part.headers.get("content-location", "")
        media_type, parameters = accept.media_type_and_parameters(part.headers.get("content-type", ""))
        self._bulk.setdefault(location, []).append((bulk, parameters, media_type))

    def _encoded(self, dataset: Any) -> tuple[list[str], Pieces]:
        """(SOP Class UID, SOP Instance UID, transfer syntax), dataset."""
        syntaxes: set[str] = set()
        told = _text(dataset, _AVAILABLE_SYNTAX)

        def resolve(uri: str) -> BulkValue:
            parts = self._bulk.get(uri)
            if not uri or not parts:
                raise Refusal(Reason.NOT_UNDERSTOOD, "a BulkDataURI that names no part of the request")
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
            self._file.seek(piece.offset)
            rest = piece.length
            while rest:
                data = self._file.read(min(rest, _PIECE_BYTES))
                rest -= len(data)
                yield data


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
