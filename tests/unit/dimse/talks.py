"""Associations made up: what peers that store propose and send, right and wrong, in values and PDUs of any
size. For hypothesis, and by hand."""

import struct
from collections.abc import Iterable, Iterator
from itertools import cycle

from hypothesis import strategies as st

from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from tests.integration.dimse_peer import CT, EXPLICIT, IMPLICIT, VERIFICATION, context, item, p_data, request
from tests.unit.dimse.conversations import REFUSED, RELEASE, UNWRITABLE, WRONG, Talk

BIG_ENDIAN, DEFLATED, JPEG = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.70"
UNKNOWN_SYNTAX, MIME = "1.9.9", "1.2.840.10008.1.2.6.1"
SYNTAXES = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, JPEG, UNKNOWN_SYNTAX, MIME)
MR, RAW_DATA = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.66"
STORED = (CT, MR, RAW_DATA)
UNKNOWN_CLASSES = ("1.2.3.4.5", "1.2.840.10008.1.20.1")  # private; Storage Commitment, which is not offered
CLASSES = (VERIFICATION, *STORED, *UNKNOWN_CLASSES)
INSTANCES = ("1.2.3", "", "x", "1.2.3." + "4" * 70, REFUSED + "1", WRONG + "1", UNWRITABLE + "1")
N_CREATE_RQ = 0x0140

Value = tuple[int, int, bytes]  # presentation context, message control header, data


def proposing(*contexts: bytes, max_length: int = 65536, calling: str = "RAW", more: bytes = b"") -> bytes:
    """An A-ASSOCIATE-RQ of a peer that takes PDUs of `max_length`."""
    usual = item(0x51, struct.pack(">I", 65536))
    asked = request(*contexts, calling=calling, more=more)
    return asked.replace(usual, item(0x51, struct.pack(">I", max_length)))


def taken(class_uid: str, syntaxes: Iterable[str]) -> bool:
    """Whether this archive accepts a context of this class in one of the syntaxes."""
    if class_uid in UNKNOWN_CLASSES:
        return False
    without = (UNKNOWN_SYNTAX, MIME, JPEG) if class_uid == VERIFICATION else (UNKNOWN_SYNTAX, MIME)
    return any(syntax not in without for syntax in syntaxes)


def command(
    field: int, *, has_dataset: bool, class_uid: str = CT, instance: str = "1.2.3", number: int = 1
) -> bytes:
    """A command set."""
    return commands.encode(
        Command(
            field,
            class_uid=class_uid,
            message_id=number,
            priority=0,
            dataset_type=0 if has_dataset else commands.NO_DATASET,
            instance_uid=instance,
        )
    )


def pieces(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    """`data` in pieces of these sizes."""
    at = 0
    while True:
        size = next(sizes)
        yield data[at : at + size]
        at += size
        if at >= len(data):
            return


def values(context_id: int, commanded: bytes, dataset: bytes | None, sizes: Iterator[int]) -> list[Value]:
    """A message in presentation data values of these sizes."""
    found: list[Value] = []
    for control, data in ((1, commanded), (0, dataset)):
        if data is not None:
            parts = list(pieces(data, sizes))
            found += [(context_id, control, part) for part in parts[:-1]]
            found.append((context_id, control | 2, parts[-1]))
    return found


def gathered(found: list[Value], counts: Iterator[int]) -> bytes:
    """Presentation data values in P-DATA-TF PDUs of so many each."""
    stream = b""
    while found:
        count = next(counts)
        inside = b"".join(p_data(*value)[6:] for value in found[:count])
        stream += struct.pack(">BxI", pdu.P_DATA, len(inside)) + inside
        found = found[count:]
    return stream


def message(
    field: int,
    dataset: bytes | None = None,
    *,
    context_id: int = 1,
    class_uid: str = CT,
    instance: str = "1.2.3",
    number: int = 1,
    sizes: Iterable[int] = (16384,),
    counts: Iterable[int] = (1,),
) -> bytes:
    """A message as PDUs: values of these sizes, so many in each PDU, over and over again."""
    commanded = command(
        field, has_dataset=dataset is not None, class_uid=class_uid, instance=instance, number=number
    )
    return gathered(values(context_id, commanded, dataset, cycle(sizes)), cycle(counts))


STORE_BEGUN = p_data(1, 3, command(commands.C_STORE_RQ, has_dataset=True)) + p_data(1, 0, b"\x08\0" * 20)
PROPOSED = proposing(
    context(1, CT, EXPLICIT, IMPLICIT), context(3, VERIFICATION, IMPLICIT), context(5, "1.2.3", IMPLICIT)
)
CANCEL = p_data(1, 3, command(commands.C_CANCEL_RQ, has_dataset=True))
ECHO = message(commands.C_ECHO_RQ, context_id=3, class_uid=VERIFICATION)

# What breaks the protocol, on the contexts of PROPOSED, of which 5 is not accepted
BROKEN = {
    "PDU of 4 GiB": b"\4\0\xff\xff\xff\xff" + bytes(100),
    "PDU beyond what was negotiated": struct.pack(">BxI", 4, 131073) + bytes(100),
    "PDU without a value": b"\4\0\0\0\0\0",
    "PDU that ends inside a value's header": b"\4\0\0\0\0\5" + bytes(5),
    "PDU that ends inside its second value's header": b"\4\0\0\0\0\x0b\0\0\0\2\1\1" + bytes(5),
    "value longer than its PDU": struct.pack(">BxIIBB", 4, 8, 100, 1, 3) + b"xx",
    "value of length 0": struct.pack(">BxIIBB", 4, 8, 0, 1, 3) + b"xx",
    "value of length 1": struct.pack(">BxIIBB", 4, 8, 1, 1, 3) + b"xx",
    "value of length 2 GiB": struct.pack(">BxIIBB", 4, 8, 1 << 31, 1, 3) + b"xx",
    "unknown PDU type": b"\x2a\0\0\0\0\4\0\0\0\0",
    "PDU type 0": b"\0\0\0\0\0\4\0\0\0\0",
    "a second request": PROPOSED,
    "an acceptance": b"\2\0\0\0\0\4\0\0\0\0",
    "a rejection": b"\3\0\0\0\0\4\0\1\1\1",
    "release request of five bytes": b"\5\0\0\0\0\5\0\0\0\0\0",
    "release answer of three bytes": b"\6\0\0\0\0\3\0\0\0",
    "abort of three bytes": b"\7\0\0\0\0\3\0\0\0",
    "abort of 4 GiB": b"\7\0\xff\xff\xff\xff\0\0\0",
    "even context": p_data(2, 3, b"xx"),
    "context that was not accepted": p_data(5, 3, b"xx"),
    "context that was not proposed": p_data(77, 0, b"xx"),
    "dataset without a command": p_data(1, 2, b"xx"),
    "empty dataset without a command": p_data(1, 0, b""),
    "dataset in the middle of a command": p_data(1, 1, b"\0\0") + p_data(1, 0, b"xx"),
    "command in the middle of a dataset": STORE_BEGUN + p_data(1, 3, b"xx"),
    "empty command in the middle of a dataset": STORE_BEGUN + p_data(1, 1, b""),
    "command on two contexts": p_data(1, 1, b"\0\0") + p_data(3, 1, b"\0\0"),
    "message on two contexts": STORE_BEGUN + p_data(3, 2, b"xx"),
    "a bad value after the dataset's": STORE_BEGUN + p_data(1, 0, b"yy") + p_data(1, 4, b"")[:-1] + b"\1",
    "garbled command": p_data(1, 3, b"\0\0\0\1\xff\xff\xff\xff"),
    "command with a cut head": p_data(1, 3, b"\0\0\0\1\0"),
    "command with a cut number": p_data(1, 3, b"\0\0\0\1\1\0\0\0x"),
    "command of another group": p_data(1, 3, b"\x08\0\0\1\2\0\0\0xx"),
    "command without a field": p_data(1, 3, b"\0\0\0\0\4\0\0\0\0\0\0\0"),
    "empty command": p_data(1, 3, b""),
    "endless command": b"".join(p_data(1, 1, bytes(8192)) for _ in range(3)),
    "command too long in one value": p_data(1, 1, bytes(commands.MAX_COMMAND_BYTES + 1)),
    "dataset after a cancel": CANCEL + p_data(1, 2, b"xx"),
    "dataset after a command without one": message(0x8001) + p_data(1, 2, b"xx"),
}  # fmt: skip

_SIZES = st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any)
_COUNTS = st.lists(st.integers(1, 5), min_size=1, max_size=4)
_MORE = st.sampled_from(
    [b"", item(0x55, b"SOMETHING_1"), item(0x57, b"\0\x05" + b"1.2.3" + b"\0\x03" + b"1.2" + b"\0\0")]
)
_TITLES = st.sampled_from(["RAW", "A", "SIXTEEN_LETTERS_", " LED", "TWO WORDS"])
_FIELDS = st.sampled_from(
    [commands.C_STORE_RQ] * 6 + [commands.C_ECHO_RQ] * 2 + [N_CREATE_RQ, 0x0100, 0x8001, 0x8030, 0xFFFF]
    + [commands.C_CANCEL_RQ]
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn, max_contexts: int = 8) -> tuple[bytes, list[tuple[int, str]]]:
    """An A-ASSOCIATE-RQ, and (context ID, class) of what this archive accepts of it."""
    numbers = draw(
        st.lists(st.integers(0, 127).map(lambda n: 2 * n + 1), min_size=1, max_size=max_contexts, unique=True)
    )
    proposed, accepted = [], []
    for number in numbers:
        class_uid = draw(st.sampled_from(CLASSES))
        syntaxes = draw(st.lists(st.sampled_from(SYNTAXES), min_size=1, max_size=4))
        proposed.append(context(number, class_uid, *syntaxes))
        if taken(class_uid, syntaxes):
            accepted.append((number, class_uid))
    limit = draw(st.sampled_from([0, 16, 17, 40, 1000, 16384, 65536, 0xFFFFFFFF]))
    asked = proposing(*proposed, max_length=limit, calling=draw(_TITLES), more=draw(_MORE))
    return asked, accepted


@st.composite
def messages(draw: st.DrawFn, accepted: list[tuple[int, str]]) -> list[Value]:
    """A message on one of these contexts, as the values it comes in."""
    context_id, class_uid = draw(st.sampled_from(accepted))
    field = draw(_FIELDS)
    has_dataset = draw(st.booleans()) if field not in (commands.C_ECHO_RQ, commands.C_CANCEL_RQ) else False
    commanded = command(
        field,
        has_dataset=has_dataset or field == commands.C_STORE_RQ,
        class_uid=draw(st.sampled_from([class_uid] * 5 + list(CLASSES))),
        instance=draw(st.sampled_from(INSTANCES)),
        number=draw(st.integers(0, 0xFFFF)),
    )
    if field == commands.C_STORE_RQ:
        has_dataset = True
    dataset = draw(st.binary(max_size=300)) * draw(st.sampled_from([1, 1, 1, 7])) if has_dataset else None
    return values(context_id, commanded, dataset, cycle(draw(_SIZES)))


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    """A whole association of a peer that stores, well-behaved until its end at least."""
    asked, accepted = draw(requests())
    if not accepted:
        return Talk(asked, b"")
    found: list[Value] = []
    for _ in range(draw(st.integers(0, 4))):
        found += draw(messages(accepted))
    counts = cycle(draw(_COUNTS))
    body = gathered(found, counts)
    end = draw(st.sampled_from(["release"] * 4 + ["abort", "gone", "cut"]))
    if end == "release":
        return Talk(asked, body, RELEASE)
    if end == "abort":
        return Talk(asked, body, b"\7\0\0\0\0\4\0\0\0\0", abrupt=True)
    if end == "gone":
        return Talk(asked, body, b"", abrupt=True)
    last = gathered(draw(messages(accepted)), counts)
    return Talk(asked, body, last[: draw(st.integers(0, len(last) - 1))], abrupt=True)
