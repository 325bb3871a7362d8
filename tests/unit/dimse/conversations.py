"""One association on a pair of sockets, served by either of the two ways there are, and what came of it.

The archive behind it keeps what it is given and says of some instance UIDs that they are refused.
"""

import dataclasses
import functools
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any, cast

from node.config import Settings
from node.dimse import pdu, serve
from node.dimse.association import Edge, Served
from node.dimse.gate import Caller
from node.dimse.storing import Storing
from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, ApplicationEntity
from node.services.archive import Archive

PATIENCE_SECONDS = 20.0
EVERYTHING = 1 << 20
RELEASE = pdu.release(pdu.RELEASE_RQ)
REFUSED = "1.2.9."  # instances of such UIDs are refused at their end,
WRONG = "1.2.8."  # with these there is a fault of ours at their end,
UNWRITABLE = "1.2.7."  # with these at their first bytes
LAST_KINDS = (pdu.RELEASE_RP, pdu.ABORT)


class Intake:
    """What a `node.services.ingest.Intake` is to an association."""

    def __init__(self, ingest: "Ingest", facts: tuple[str, ...]) -> None:
        self.facts = facts
        self.data = bytearray()
        self.ended = False
        self._ingest = ingest

    def write(self, data: memoryview) -> None:
        """Keep it: the buffer is used again."""
        if data and self.facts[1].startswith(UNWRITABLE):
            raise OSError("a fault of ours")
        assert not self.ended
        self.data += data

    def finish(self) -> None:
        """Stored, unless the UID says otherwise."""
        assert not self.ended
        self.ended = True
        self._ingest.while_finishing()
        if self.facts[1].startswith(REFUSED):
            raise Refusal(Reason.CONFLICT, "other bytes are stored under this SOP Instance UID")
        if self.facts[1].startswith(WRONG):
            raise RuntimeError("a fault of ours")
        self._ingest.stored.append((*self.facts, bytes(self.data)))

    def abort(self) -> None:
        """Nothing is left of it."""
        self.ended = True


class Ingest:
    """What `node.services.ingest.Ingest` is to an association; `stored`: (class UID, instance UID,
    transfer syntax UID, dataset) of each instance in order; `while_finishing` is called before."""

    def __init__(self, while_finishing: Callable[[], object] = lambda: None) -> None:
        self.while_finishing = while_finishing
        self.begun: list[Intake] = []
        self.stored: list[tuple[Any, ...]] = []

    def begin(
        self,
        _source: Actor,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        max_object_bytes: int = 0,
    ) -> Intake:
        """An instance begins."""
        self.begun.append(Intake(self, (sop_class_uid, sop_instance_uid, transfer_syntax_uid)))
        return self.begun[-1]


class Audits:
    """The audit trail."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def record(self, event: Any) -> None:
        """Keep it."""
        self.events.append(event)


class Policy:
    """Everybody may come in."""

    def admit(self, title: str, _address: str, _fingerprint: str | None) -> ApplicationEntity:
        """An AE that the site says nothing about."""
        return ApplicationEntity(title)


def archive_keeping(ingest: Ingest) -> Archive:
    """An archive that is no more than what associations that only store need of it."""
    catalog = SimpleNamespace(audits=Audits())
    return cast(Archive, SimpleNamespace(ingest=ingest, catalog=catalog, policy=Policy()))


@functools.cache
def _edge() -> Edge:
    settings = Settings.model_validate({"data": "/nonexistent", "catalog": {"dsn": "none"}})
    return serve.listener(settings, archive_keeping(Ingest()))._edge


def edge_for(ingest: Ingest, **dicom: object) -> Edge:
    """An edge on an archive of its own; `dicom`: settings other than the defaults."""
    common = _edge()
    section = common.settings.dicom.model_copy(update=dicom)
    settings = common.settings.model_copy(update={"dicom": section})
    return dataclasses.replace(
        common, settings=settings, archive=archive_keeping(ingest), stopping=threading.Event()
    )


class Wire(socket.socket):
    """A socket that gives no more at a time than `sizes` say, one after the other; then everything."""

    def __init__(self, whole: socket.socket, sizes: Iterable[int] = ()) -> None:
        super().__init__(whole.family, whole.type, whole.proto, whole.detach())
        self._sizes = chain(sizes, repeat(EVERYTHING))
        self._size = next(self._sizes)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As a socket, but less."""
        count = super().recv_into(buffer, min(len(buffer), self._size), flags)
        self._size = next(self._sizes)
        return count


@dataclasses.dataclass(frozen=True)
class Talk:
    """What a peer sends: its A-ASSOCIATE-RQ, whole PDUs of whole messages, and at last `end`, after which
    it waits for the archive's last PDU, or, if it is `abrupt`, closes."""

    request: bytes
    body: bytes
    end: bytes = RELEASE
    abrupt: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether it breaks off in the middle of a message."""
        return self.abrupt and self.end[:1] == bytes([pdu.P_DATA])

    @classmethod
    def recorded(cls, stream: bytes) -> "Talk":
        """All that a client has sent on an association."""
        found = list(pdus(stream))
        return cls(found[0], b"".join(found[1:-1]), found[-1], abrupt=found[-1][0] == pdu.ABORT)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a talk: the PDUs that were answered, and what the archive has got."""

    acceptance: bytes
    answers: bytes
    last: bytes
    stored: list[tuple[Any, ...]]
    begun: int


def pdus(stream: bytes) -> Iterator[bytes]:
    """The PDUs that make a stream, with their headers."""
    while stream:
        _, length = pdu.read_header(stream[: pdu.HEADER_BYTES])
        yield stream[: pdu.HEADER_BYTES + length]
        stream = stream[pdu.HEADER_BYTES + length :]


def caller_of(connected: socket.socket, request: bytes, **entity: Any) -> Caller:
    """Who was let in with this A-ASSOCIATE-RQ."""
    parsed = pdu.parse_request(request[6:])
    known = ApplicationEntity(parsed.calling, **entity)
    return Caller(connected, "127.0.0.1", parsed, request[6:], known)


class Line:
    """An association under way, and its peer's end: `peer` sends, `read` reads."""

    def __init__(
        self,
        kind: type[Served] | type[Storing],
        edge: Edge,
        request: bytes,
        sizes: Iterable[int] = (),
        **entity: Any,
    ) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(PATIENCE_SECONDS)
        self.error: Exception | None = None
        self._wire = Wire(ours, sizes)
        self.association = kind(edge, caller_of(self._wire, request, **entity))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def read(self) -> bytes:
        """The next PDU, b"" when the archive has closed."""
        header = self._read(pdu.HEADER_BYTES)
        if len(header) < pdu.HEADER_BYTES:
            return b""
        return header + self._read(pdu.read_header(header)[1])

    def close(self) -> None:
        """The peer closes; returns when nothing of the association is left."""
        self.peer.close()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "an association without an end"

    def _serve(self) -> None:
        try:
            self.association.serve()
        except Exception as error:  # noqa: BLE001 - for the test to look at
            self.error = error
        finally:
            self._wire.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self.peer.recv(size - len(data))
            except ConnectionResetError:
                break
            if not more:
                break
            data += more
        return data


def converse(
    kind: type[Served] | type[Storing],
    talk: Talk,
    sizes: Iterable[int] = (),
    earned: int = 0,
    **dicom: object,
) -> Outcome:
    """Hold a talk. `earned`: how many bytes of answers the peer waits for before it sends its `end`."""
    ingest = Ingest()
    line = Line(kind, edge_for(ingest, **dicom), talk.request, sizes)
    acceptance, answers, last = line.read(), b"", b""
    try:
        if earned:
            line.peer.sendall(talk.body)
            while len(answers) < earned:
                answers += line.read() or _fail(f"{len(answers)} of {earned} bytes of answers")
            line.peer.sendall(talk.end)
        else:
            line.peer.sendall(talk.body + talk.end)
        if talk.abrupt:
            line.peer.shutdown(socket.SHUT_WR)
        while answer := line.read():
            if answer[0] in LAST_KINDS:
                last = answer
                break
            answers += answer
    finally:
        line.close()
    if line.error is not None:
        raise line.error
    assert all(intake.ended for intake in ingest.begun), "an intake was left open"
    return Outcome(acceptance, answers, last, ingest.stored, len(ingest.begun))


def contexts_sorted(acceptance: bytes) -> tuple[bytes, list[bytes]]:
    """An A-ASSOCIATE-AC without its contexts, and these in the order of their bytes: PS3.8 section 9.3.3
    gives their order no meaning."""
    assert acceptance[0] == pdu.ASSOCIATE_AC
    items = [struct.pack(">BxH", kind, len(value)) + value for kind, value in pdu._items(acceptance[74:])]
    others = acceptance[:74] + b"".join(each for each in items if each[0] != 0x21)
    return others, sorted(each for each in items if each[0] == 0x21)


def _fail(why: str) -> bytes:
    raise AssertionError(why)
