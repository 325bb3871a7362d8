"""Protocol data units of the DICOM upper layer (PS3.8 section 9.3), as far as the gate needs them.

Pure: bytes in, values out. Whatever a peer may send wrong raises `Broken` with the abort that PS3.8
table 9-26 has for it, or `Rejected` with the rejection of table 9-21. pynetdicom decodes the same bytes
again later; by then they are known to be well-formed.
"""

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

HEADER_BYTES = 6
MAX_REQUEST_BYTES = 256 << 10  # an A-ASSOCIATE-RQ with 128 contexts of 60 syntaxes each fits twice
DICOM_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

# Reasons of an A-ABORT by the service provider (source 2)
NOT_SPECIFIED, UNRECOGNIZED_PDU, UNEXPECTED_PDU = 0, 1, 2
UNRECOGNIZED_PARAMETER, UNEXPECTED_PARAMETER, INVALID_VALUE = 4, 5, 6

_APPLICATION_CONTEXT_ITEM, _CONTEXT_ITEM, _ANSWERED_ITEM, _USER_ITEM = 0x10, 0x20, 0x21, 0x50
_ABSTRACT_ITEM, _TRANSFER_ITEM = 0x30, 0x40
MAXIMUM_LENGTH_ITEM = 0x51
IMPLEMENTATION_CLASS_ITEM, IMPLEMENTATION_VERSION_ITEM = 0x52, 0x55
_FIXED_BYTES = 68  # of an A-ASSOCIATE-RQ before its items
_UID = re.compile(r"[0-9.]{1,64}")
_HEADER = struct.Struct(">BxI")
VALUE = struct.Struct(">IBB")  # item length, presentation context ID, message control header


class Broken(Exception):
    """The peer broke the protocol: A-ABORT with source 2 and this reason."""

    def __init__(self, reason: int, comment: str) -> None:
        super().__init__(comment)
        self.reason = reason


class Rejected(Exception):
    """The association is refused: A-ASSOCIATE-RJ with this result, source and reason."""

    def __init__(self, result: int, source: int, reason: int, comment: str) -> None:
        super().__init__(comment)
        self.result = result
        self.source = source
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed presentation context."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a proposed presentation context: a result of PS3.8 table 9-18, and its syntax."""

    context_id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Request:
    """An A-ASSOCIATE-RQ. Titles without padding; `max_length` of P-DATA-TF the peer takes, 0: any;
    `user_items`: types of the sub-items of user information (PS3.7 annex D.3.3)."""

    called: str
    calling: str
    proposals: tuple[Proposal, ...]
    max_length: int
    user_items: frozenset[int]


@dataclass(frozen=True, slots=True)
class Fragment:
    """A presentation data value (PS3.8 section 9.3.5.1 and annex E.2)."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


def read_header(header: bytes | bytearray | memoryview) -> tuple[int, int]:
    """(type, length of what follows) from the six bytes that begin a PDU."""
    kind, length = _HEADER.unpack(header)
    return kind, length


def check_request_header(kind: int, length: int) -> None:
    """Whether a connection may begin with such a PDU; Broken if not."""
    if kind in (ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP):
        raise Broken(UNEXPECTED_PDU, "the first PDU is no A-ASSOCIATE-RQ")
    if kind not in (ASSOCIATE_RQ, ABORT):
        raise Broken(UNRECOGNIZED_PDU, "not the DICOM upper layer protocol")
    if length > MAX_REQUEST_BYTES or (kind == ABORT and length != 4):
        raise Broken(INVALID_VALUE, "PDU length out of range")


def parse_request(body: bytes) -> Request:
    """An A-ASSOCIATE-RQ without its six header bytes; Broken or Rejected."""
    if len(body) < _FIXED_BYTES:
        raise Broken(INVALID_VALUE, "A-ASSOCIATE-RQ too short")
    (version,) = struct.unpack_from(">H", body)
    if not version & 1:
        raise Rejected(1, 2, 2, "protocol version")
    called, calling = parse_title(body[4:20]), parse_title(body[20:36])
    contexts: list[str] = []
    proposals: dict[int, Proposal] = {}
    max_length: int | None = None
    user_items: frozenset[int] = frozenset()
    for kind, value in _items(body[_FIXED_BYTES:]):
        if kind == _APPLICATION_CONTEXT_ITEM:
            contexts.append(_uid(value))
        elif kind == _CONTEXT_ITEM:
            proposal = _proposal(value)
            if proposal.context_id in proposals:
                raise Broken(INVALID_VALUE, "presentation context ID used twice")
            proposals[proposal.context_id] = proposal
        elif kind == _USER_ITEM:
            max_length, user_items = _user_information(value)
    if len(contexts) != 1 or max_length is None or not proposals:
        raise Broken(INVALID_VALUE, "A-ASSOCIATE-RQ without a required item")
    if contexts[0] != DICOM_APPLICATION_CONTEXT:
        raise Rejected(1, 1, 2, "application context name")
    return Request(called, calling, tuple(proposals.values()), max_length, user_items)


def fragments(body: memoryview) -> list[Fragment]:
    """The presentation data values of a P-DATA-TF without its header; Broken."""
    found = []
    at, end = 0, len(body)
    while at < end:
        if end - at < VALUE.size:
            raise Broken(INVALID_VALUE, "P-DATA-TF ends inside an item")
        length, context_id, control = VALUE.unpack_from(body, at)
        if length < 2 or at + 4 + length > end:
            raise Broken(INVALID_VALUE, "an item longer than its P-DATA-TF")
        if not context_id & 1:
            raise Broken(INVALID_VALUE, "an even presentation context ID")
        found.append(
            Fragment(
                context_id, bool(control & 1), bool(control & 2), body[at + VALUE.size : at + 4 + length]
            )
        )
        at += 4 + length
    if not found:
        raise Broken(INVALID_VALUE, "P-DATA-TF without an item")
    return found


def acceptance(
    request: Request,
    answers: Iterable[Answer],
    *,
    max_pdu_bytes: int,
    implementation_class_uid: str,
    implementation_version_name: str,
) -> bytes:
    """An A-ASSOCIATE-AC (PS3.8 section 9.3.3, PS3.7 annex D.3.3) without any extended negotiation."""
    contexts = b"".join(
        _item(
            _ANSWERED_ITEM,
            bytes((answer.context_id, 0, answer.result, 0))
            + _item(_TRANSFER_ITEM, answer.transfer_syntax.encode("ascii")),
        )
        for answer in answers
    )
    user = _item(MAXIMUM_LENGTH_ITEM, struct.pack(">I", max_pdu_bytes))
    user += _item(IMPLEMENTATION_CLASS_ITEM, implementation_class_uid.encode("ascii"))
    user += _item(IMPLEMENTATION_VERSION_ITEM, implementation_version_name.encode("ascii"))
    body = struct.pack(
        ">HH16s16s32x", 1, 0, request.called.encode().ljust(16), request.calling.encode().ljust(16)
    )
    body += _item(_APPLICATION_CONTEXT_ITEM, DICOM_APPLICATION_CONTEXT.encode()) + contexts
    body += _item(_USER_ITEM, user)
    return _HEADER.pack(ASSOCIATE_AC, len(body)) + body


def release(kind: int) -> bytes:
    """An A-RELEASE-RQ or A-RELEASE-RP."""
    return _HEADER.pack(kind, 4) + bytes(4)


def abort(reason: int) -> bytes:
    """An A-ABORT by the service provider."""
    return struct.pack(">BxIxxBB", ABORT, 4, 2, reason)


def rejection(rejected: Rejected) -> bytes:
    """An A-ASSOCIATE-RJ."""
    return struct.pack(">BxIxBBB", ASSOCIATE_RJ, 4, rejected.result, rejected.source, rejected.reason)


def with_plain_version(body: bytes) -> bytes:
    """The request's body as if it named version 1 alone.

    Bit 0 is all that counts (PS3.8 section 9.3.2), but pynetdicom compares the whole field.
    """
    return b"\0\1" + body[2:]


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _items(data: bytes) -> list[tuple[int, bytes]]:
    """(type, value) of consecutive items that must fill `data` exactly."""
    found = []
    at, end = 0, len(data)
    while at < end:
        if end - at < 4:
            raise Broken(INVALID_VALUE, "ends inside an item")
        kind, length = struct.unpack_from(">BxH", data, at)
        at += 4
        if at + length > end:
            raise Broken(INVALID_VALUE, "an item longer than its PDU")
        found.append((kind, data[at : at + length]))
        at += length
    return found


def _proposal(value: bytes) -> Proposal:
    if len(value) < 4:
        raise Broken(INVALID_VALUE, "presentation context too short")
    context_id = value[0]
    if not context_id & 1:
        raise Broken(INVALID_VALUE, "an even presentation context ID")
    items = _items(value[4:])
    abstract = [_uid(content) for kind, content in items if kind == _ABSTRACT_ITEM]
    transfer = tuple(_uid(content) for kind, content in items if kind == _TRANSFER_ITEM)
    if len(abstract) != 1 or not transfer:
        raise Broken(INVALID_VALUE, "presentation context without its syntaxes")
    return Proposal(context_id, abstract[0], transfer)


def _user_information(value: bytes) -> tuple[int, frozenset[int]]:
    """Maximum Length Received (PS3.8 section D.1), and the types of all sub-items."""
    max_length = 0
    kinds = set()
    for kind, content in _items(value):
        kinds.add(kind)
        if kind == IMPLEMENTATION_CLASS_ITEM:
            _uid(content)
        if kind == MAXIMUM_LENGTH_ITEM:
            if len(content) != 4:
                raise Broken(INVALID_VALUE, "maximum length item")
            max_length = int.from_bytes(content, "big")
            if 0 < max_length < 16:
                raise Broken(INVALID_VALUE, "maximum length too small for any fragment")
    return max_length, frozenset(kinds)


def _uid(value: bytes) -> str:
    text = value.rstrip(b"\0 ").decode("latin-1")
    if not _UID.fullmatch(text):
        raise Broken(INVALID_VALUE, "a syntax name that is no UID")
    return text


def parse_title(value: bytes) -> str:
    """An AE title without padding; Broken if it is empty or not printable ASCII."""
    title = value.strip(b"\0 ")
    if not title or any(not 0x20 <= byte < 0x7F or byte == 0x5C for byte in title):
        raise Broken(INVALID_VALUE, "an AE title that is none")
    return title.decode("ascii")
