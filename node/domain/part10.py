"""The DICOM file format (PS3.10 section 7): preamble, prefix and file meta information."""

import struct
from dataclasses import dataclass

from node.domain.errors import Reason, Refusal
from node.domain.syntaxes import DEFLATED
from node.domain.vr import LONG, SHORT

IMPLEMENTATION_CLASS_UID = "2.25.184036953217485026904613381245074926531"
IMPLEMENTATION_VERSION_NAME = "STELE_0"
MAX_META_BYTES = 64 << 10

_MAGIC_AT = 128
_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX = 0x00020002, 0x00020003, 0x00020010
_SOURCE_AE = 0x00020016
_head = struct.Struct("<HH2sH").unpack_from


@dataclass(frozen=True, slots=True)
class Meta:
    """What file meta information says about the dataset behind it; "" where it says nothing."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_ae: str = ""


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 0002 in Explicit VR Little Endian, padded to even length."""
    if len(value) % 2:
        value += b" " if vr in (b"AE", b"SH") else b"\0"
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in LONG:
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


_VERSION = _element(0x00020001, b"OB", b"\0\1")
_IMPLEMENTATION = _element(0x00020012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii")) + _element(
    0x00020013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")
)


def prefix(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae: str) -> bytes:
    """All that precedes the dataset in a file: zeroed preamble, "DICM", file meta information.

    `source_ae`: AE title of the sender, left out if empty.
    """
    elements = [
        _VERSION,
        _element(_SOP_CLASS, b"UI", sop_class_uid.encode("ascii")),
        _element(_SOP_INSTANCE, b"UI", sop_instance_uid.encode("ascii")),
        _element(_TRANSFER_SYNTAX, b"UI", transfer_syntax_uid.encode("ascii")),
        _IMPLEMENTATION,
    ]
    if source_ae:
        elements.append(_element(_SOURCE_AE, b"AE", source_ae.encode("ascii", "replace")[:16]))
    group = b"".join(elements)
    return b"".join(
        (bytes(_MAGIC_AT), b"DICM", _element(0x00020000, b"UL", struct.pack("<I", len(group))), group)
    )


class Part10Reader:
    """Separates the dataset out of a file that arrives in chunks.

    The preamble's content is dropped: it may be a program (CVE-2019-11687). `has_preamble` says whether
    there was any. The meta information ends where its group length says, unless an element of group 0002
    follows there (writers get it wrong); without a group length it ends before the first element of
    another group. `meta` is None until it is complete.
    """

    def __init__(self) -> None:
        self.meta: Meta | None = None
        self.has_preamble = False
        self._buffer = bytearray()
        self._values: dict[int, str] = {}
        self._pos = 0  # where the next element of group 0002 would begin; 0 before the prefix is seen
        self._end = 0  # as the group length says; 0 if it says nothing

    def feed(self, data: bytes | bytearray | memoryview) -> memoryview:
        """Take the next bytes of the file; returns the dataset bytes among them.

        Refusal(NOT_UNDERSTOOD) if it is no DICOM file or the meta information is malformed or longer
        than MAX_META_BYTES.
        """
        data = memoryview(data)
        if self.meta is not None:
            return data
        taken = len(self._buffer)
        # Room for one element header past the limit, so that passing it shows.
        self._buffer += data[: max(0, MAX_META_BYTES + 12 - taken)]
        if not self._complete():
            if len(self._buffer) > MAX_META_BYTES:
                raise Refusal(Reason.NOT_UNDERSTOOD, f"file meta information over {MAX_META_BYTES} bytes")
            return memoryview(b"")
        self._keep()
        peeked = bytes(self._buffer[self._pos : taken])  # dataset bytes of earlier chunks, at most one
        rest = data[max(0, self._pos - taken) :]
        self._buffer = bytearray()
        return memoryview(peeked + rest) if peeked else rest

    def finish(self) -> Meta:
        """The meta information; Refusal(NOT_UNDERSTOOD) if the file ended inside it."""
        if self.meta is None:
            if not self._pos or self._pos != len(self._buffer):
                raise Refusal(Reason.NOT_UNDERSTOOD, "file ends inside its meta information")
            self._keep()  # no dataset follows
        assert self.meta is not None  # noqa: S101 - _keep sets it or raises
        return self.meta

    def _complete(self) -> bool:
        """Walk on through group 0002; True when its end has been seen."""
        buffer = self._buffer
        if not self._pos:
            if len(buffer) < _MAGIC_AT + 4:
                return False
            if buffer[_MAGIC_AT : _MAGIC_AT + 4] != b"DICM":
                raise Refusal(Reason.NOT_UNDERSTOOD, "no DICM after the preamble")
            self.has_preamble = any(buffer[:_MAGIC_AT])
            self._pos = _MAGIC_AT + 4
        while True:
            pos = self._pos
            if pos == self._end and self._values.get(_TRANSFER_SYNTAX) == DEFLATED:
                return True  # what follows is compressed and may look like group 0002
            if len(buffer) < pos + 2:
                return False
            if buffer[pos : pos + 2] != b"\2\0":
                return True
            if len(buffer) < pos + 8:
                return False
            group, number, vr, length = _head(buffer, pos)
            start = pos + 8
            if vr in LONG:
                if len(buffer) < pos + 12:
                    return False
                length = int.from_bytes(buffer[start : start + 4], "little")
                start += 4
            elif vr not in SHORT:
                raise Refusal(Reason.NOT_UNDERSTOOD, f"(0002,{number:04X}) in the file meta has no known VR")
            if start + length > MAX_META_BYTES:
                raise Refusal(Reason.NOT_UNDERSTOOD, f"file meta information over {MAX_META_BYTES} bytes")
            if len(buffer) < start + length:
                return False
            self._element(group << 16 | number, bytes(buffer[start : start + length]), start + length)
            self._pos = start + length

    def _element(self, tag: int, value: bytes, end: int) -> None:
        if tag == 0x00020000 and len(value) == 4:
            self._end = end + int.from_bytes(value, "little")
        elif tag in (_SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX, _SOURCE_AE):
            self._values[tag] = value.decode("latin-1").strip("\0 ")

    def _keep(self) -> None:
        if not self._values.get(_TRANSFER_SYNTAX):
            raise Refusal(Reason.NOT_UNDERSTOOD, "file meta information has no Transfer Syntax UID")
        self.meta = Meta(
            self._values.get(_SOP_CLASS, ""),
            self._values.get(_SOP_INSTANCE, ""),
            self._values[_TRANSFER_SYNTAX],
            self._values.get(_SOURCE_AE, ""),
        )
