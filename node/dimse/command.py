"""Command sets (PS3.7 section 6.3.1 and annex E): always Implicit VR Little Endian, group 0000.

Pure and bounded. Only what this archive reads or answers with is known by name; other elements of a
request are ignored.
"""

import struct
from dataclasses import dataclass

from node.dimse.pdu import INVALID_VALUE, Broken

MAX_COMMAND_BYTES = 16 << 10
NO_DATASET = 0x0101

C_STORE_RQ, C_GET_RQ, C_FIND_RQ, C_MOVE_RQ, C_ECHO_RQ = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030
C_CANCEL_RQ = 0x0FFF
RESPONSE = 0x8000

_HEAD = struct.Struct("<HHI")

# (element, VR) of the values by name (PS3.7 table E.1-1)
_ELEMENTS = {
    "class_uid": (0x0002, "UI"),
    "field": (0x0100, "US"),
    "message_id": (0x0110, "US"),
    "responded_id": (0x0120, "US"),
    "destination": (0x0600, "AE"),
    "priority": (0x0700, "US"),
    "dataset_type": (0x0800, "US"),
    "status": (0x0900, "US"),
    "comment": (0x0902, "LO"),
    "instance_uid": (0x1000, "UI"),
    "remaining": (0x1020, "US"),
    "completed": (0x1021, "US"),
    "failed": (0x1022, "US"),
    "warnings": (0x1023, "US"),
    "originator": (0x1030, "AE"),
    "originator_id": (0x1031, "US"),
}
_BY_ELEMENT = {element: (name, vr) for name, (element, vr) in _ELEMENTS.items()}


@dataclass(frozen=True, slots=True)
class Command:
    """A command set by meaning; None is an element that is absent.

    UIDs and AE titles are as sent, without padding: unchecked.
    """

    field: int
    class_uid: str | None = None
    message_id: int | None = None
    responded_id: int | None = None
    destination: str | None = None
    priority: int | None = None
    dataset_type: int = NO_DATASET
    status: int | None = None
    comment: str | None = None
    instance_uid: str | None = None
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warnings: int | None = None
    originator: str | None = None
    originator_id: int | None = None

    @property
    def has_dataset(self) -> bool:
        """Whether a dataset follows."""
        return self.dataset_type != NO_DATASET

    @property
    def is_response(self) -> bool:
        """Whether this answers a request of ours."""
        return bool(self.field & RESPONSE)


def response(request: Command, status: int, comment: str = "", *, has_dataset: bool = False) -> Command:
    """The answer to a request."""
    return Command(
        request.field | RESPONSE,
        class_uid=request.class_uid,
        responded_id=request.message_id,
        dataset_type=0 if has_dataset else NO_DATASET,
        status=status,
        comment=comment or None,
        instance_uid=request.instance_uid if request.field == C_STORE_RQ else None,
    )


def decode(data: bytes | bytearray) -> Command:
    """A command set; Broken if it is malformed or has no command field."""
    values: dict[str, str | int] = {}
    at, end = 0, len(data)
    while at < end:
        if end - at < _HEAD.size:
            raise Broken(INVALID_VALUE, "command set ends inside an element")
        group, element, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if group or length > end - at:
            raise Broken(INVALID_VALUE, "command set with a foreign or cut element")
        known = _BY_ELEMENT.get(element)
        if known is not None and length:
            values[known[0]] = _value(known[1], bytes(data[at : at + length]))
        at += length
    if not isinstance(values.get("field"), int):
        raise Broken(INVALID_VALUE, "command set without a command field")
    return Command(**values)  # type: ignore[arg-type]  # _value makes what each VR stands for


def encode(command: Command) -> bytes:
    """A command set with its group length."""
    elements = []
    for name, (element, vr) in _ELEMENTS.items():
        value = getattr(command, name)
        if value is None:
            continue
        raw = struct.pack("<H", value) if vr == "US" else str(value).encode("ascii", "replace")
        if len(raw) % 2:
            raw += b"\0" if vr == "UI" else b" "
        elements.append(_HEAD.pack(0, element, len(raw)) + raw)
    body = b"".join(elements)
    return _HEAD.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


def _value(vr: str, raw: bytes) -> str | int:
    if vr == "US":
        if len(raw) < 2:
            raise Broken(INVALID_VALUE, "command set with a cut number")
        return int.from_bytes(raw[:2], "little")
    return raw.decode("latin-1").strip("\0 ")
