"""The way of an image out: the row first, then bytes checked against their digest.

Bytes go out as received when the client takes their transfer syntax, otherwise transcoded by a decoder
that runs apart. Frames and bulk data are found by the packed header in the catalog, so that an object is
read by range and never parsed again. Every retrieval leaves an audit event in the transaction that reads
its rows; reading a study's frames and metadata one by one is one "view" by that person for
`VIEW_SECONDS`, not thousands.
"""

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from node.domain import frames, part10
from node.domain.errors import Reason, Refusal
from node.domain.header import Header
from node.domain.inflate import Inflater
from node.domain.model import Actor, AuditEvent, Scope, StoredInstance
from node.domain.syntaxes import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    can_transcode,
)
from node.ports import Audits, Codecs, Instances
from node.services.objects import Objects

VIEW_SECONDS = 300.0
VIEWS_KEPT = 10_000
HEADERS_KEPT = 256
SERIES_TRIED = 4  # for an image that stands for a study
MAX_TRANSCODE_BYTES = 512 << 20

# What peers take who cannot take an instance as it is stored, best first
_FALLBACKS = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)


@dataclass(frozen=True, slots=True)
class Rendering:
    """How to show a frame (PS3.18 section 8.3.5); see `node.ports.Codecs.render`."""

    media_type: str
    window: tuple[float, float, str] | None = None
    viewport: tuple[int, int] | None = None
    region: tuple[float, float, float, float] | None = None
    quality: int = 90


@dataclass(frozen=True, slots=True)
class Part10:
    """A Part 10 file to send: its length in bytes if that is known before it is made, and its bytes."""

    length: int | None
    content: Iterator[bytes]


class Retrieve:
    """Finds instances and hands out their bytes, for every edge alike."""

    def __init__(self, objects: Objects, instances: Instances, audits: Audits, codecs: Codecs) -> None:
        self._objects = objects
        self._instances = instances
        self._audits = audits
        self._codecs = codecs
        self._lock = threading.Lock()
        self._views: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._headers: OrderedDict[str, Header] = OrderedDict()

    # --- which ---

    def select(self, scopes: Sequence[Scope], actor: Actor) -> list[StoredInstance]:
        """Instances in any of the scopes, for a retrieval that is audited here. [] if none."""
        return self._instances.select(scopes, AuditEvent("retrieve", actor))

    def one(self, scope: Scope, actor: Actor) -> tuple[StoredInstance, Header]:
        """A single instance with its header, for viewing. Refusal(NOT_FOUND)."""
        for instance, packed in self._instances.headers(scope):
            self.viewed(instance.study_uid, actor)
            return instance, self._header(instance, packed)
        raise Refusal(Reason.NOT_FOUND, "no such instance")

    def pictured(self, instances: Iterable[StoredInstance]) -> Iterator[StoredInstance]:
        """Those of the instances that have pixel data and are still there, found out one by one."""
        for instance in instances:
            scope = Scope(instance.study_uid, instance.series_uid, instance.sop_instance_uid)
            for current, packed in self._instances.headers(scope):
                if self._header(current, packed).pixel is not None:
                    yield current

    def typical(self, scope: Scope, actor: Actor) -> StoredInstance:
        """The instance that stands for a study or series: from the middle of its first series with images,
        or an end of it. Refusal(NOT_FOUND), NOT_ACCEPTABLE if there is no image among those looked at."""
        by_series: dict[str, list[StoredInstance]] = {}
        for row in self._instances.select([scope]):
            by_series.setdefault(row.series_uid, []).append(row)
        if not by_series:
            raise Refusal(Reason.NOT_FOUND, "nothing stored there")
        tried = itertools.islice(by_series.values(), SERIES_TRIED)
        for instance in self.pictured(rows[at] for rows in tried for at in (len(rows) // 2, 0, -1)):
            self.viewed(instance.study_uid, actor)
            return instance
        raise Refusal(Reason.NOT_ACCEPTABLE, "no image there")

    def viewed(self, study_uid: str, actor: Actor) -> None:
        """Audit that the actor looks into the study, once per `VIEW_SECONDS`."""
        key = (actor.name, actor.address, study_uid)
        now = time.monotonic()
        with self._lock:
            if now - self._views.get(key, float("-inf")) < VIEW_SECONDS:
                return
        self._audits.record(AuditEvent("view", actor, study_uids=(study_uid,)))
        with self._lock:
            self._views[key] = now
            self._views.move_to_end(key)
            while len(self._views) > VIEWS_KEPT:
                self._views.popitem(last=False)

    # --- what ---

    def syntax_for(self, instance: StoredInstance, accepted: Sequence[str]) -> str | None:
        """The transfer syntax to send an instance in to a client that accepts these: as received if it
        can be, else the best that it can be transcoded to, else None. "*" accepts any."""
        stored = instance.transfer_syntax_uid
        if "*" in accepted or stored in accepted:
            return stored
        ranked = [uid for uid in _FALLBACKS if uid in accepted]
        ranked += [uid for uid in accepted if uid not in ranked]
        return next((uid for uid in ranked if can_transcode(stored, uid)), None)

    def dataset(self, instance: StoredInstance, syntax_uid: str) -> bytes:
        """The encoded dataset in a transfer syntax, checked."""
        if syntax_uid == instance.transfer_syntax_uid:
            return self._objects.read(instance.stored)
        transcoded = self._transcoded(instance, syntax_uid)
        reader = part10.Part10Reader()
        return bytes(reader.feed(transcoded))

    def part10(self, instance: StoredInstance, syntax_uid: str) -> Iterator[bytes]:
        """The instance as a Part 10 file in a transfer syntax, piece by piece, each checked."""
        if syntax_uid == instance.transfer_syntax_uid:
            yield self._prefix(instance)
            yield from self._objects.stream(instance.stored)
        else:
            yield self._transcoded(instance, syntax_uid)

    def part10_each(self, chosen: Sequence[tuple[StoredInstance, str]]) -> list[Part10]:
        """`part10` of each instance, the next ones' bytes being read while the former's are sent: go through
        their contents in turn, each to its end."""
        as_stored = (each.stored for each, syntax in chosen if syntax == each.transfer_syntax_uid)
        datasets = self._objects.stream_each(as_stored)
        return [
            self._as_stored(instance, datasets)
            if syntax == instance.transfer_syntax_uid
            else Part10(None, self.part10(instance, syntax))
            for instance, syntax in chosen
        ]

    def part10_length(self, instance: StoredInstance) -> int:
        """Length in bytes of what `part10` yields for the stored transfer syntax."""
        return len(self._prefix(instance)) + instance.stored.dataset_length

    def stored_frames(self, instance: StoredInstance, header: Header, numbers: Sequence[int]) -> list[bytes]:
        """Frames (1-based) as stored. Refusal(NOT_FOUND) for a number that does not exist."""
        if instance.transfer_syntax_uid in (DEFLATED, EXPLICIT_BIG):
            return self.decoded_frames(instance, numbers)  # clients take native frames in little endian only
        ranges = frames.frame_ranges(header)
        self._check_frames(numbers, len(ranges))
        return [
            b"".join(self._objects.read_range(instance.stored, *piece) for piece in ranges[number - 1])
            for number in numbers
        ]

    def decoded_frames(self, instance: StoredInstance, numbers: Sequence[int]) -> list[bytes]:
        """Frames (1-based) as Explicit VR Little Endian has them."""
        self._check_frames(numbers, instance.number_of_frames)
        return self._codecs.decode_frames(self._whole(instance), numbers)

    def part10_range(self, instance: StoredInstance, first: int, count: int) -> Iterator[bytes]:
        """`count` bytes from `first` of what `part10` yields for the stored transfer syntax."""
        prefix = self._prefix(instance)
        head = prefix[first : first + count]
        if head:
            yield head
        rest = count - len(head)
        if rest:
            yield from self._objects.stream_range(instance.stored, max(0, first - len(prefix)), rest)

    def bulk(self, instance: StoredInstance, offset: int, length: int) -> Iterator[bytes]:
        """A bulk value (or a range of it) by its place in the dataset (`Header.bulk`), in pieces."""
        if instance.transfer_syntax_uid != DEFLATED:
            yield from self._objects.stream_range(instance.stored, offset, length)
            return
        if offset + length > MAX_TRANSCODE_BYTES:
            raise Refusal(Reason.NOT_ACCEPTABLE, "too far into a deflated dataset")
        inflater = Inflater(MAX_TRANSCODE_BYTES)
        inflated = b"".join(
            part for piece in self._objects.stream(instance.stored) for part in inflater.feed(piece)
        )
        yield inflated[offset : offset + length]

    def rendered(self, instance: StoredInstance, frame: int, how: Rendering) -> bytes:
        """A frame (1-based) for display."""
        self._check_frames((frame,), instance.number_of_frames)
        return self._codecs.render(
            self._whole(instance),
            frame,
            how.media_type,
            window=how.window,
            viewport=how.viewport,
            region=how.region,
            quality=how.quality,
        )

    def all_rendered(
        self, instances: Iterable[StoredInstance], how: Rendering
    ) -> Iterator[tuple[StoredInstance, bytes]]:
        """The first frame of each instance for display, one made at a time. What cannot be decoded, or
        has been removed meanwhile, is left out."""
        for instance in instances:
            try:
                yield instance, self.rendered(instance, 1, how)
            except Refusal as refusal:
                if refusal.reason not in (Reason.NOT_ACCEPTABLE, Reason.NOT_FOUND):
                    raise

    # --- how ---

    def _transcoded(self, instance: StoredInstance, syntax_uid: str) -> bytes:
        return self._codecs.transcode(self._whole(instance), syntax_uid)

    def _whole(self, instance: StoredInstance) -> bytes:
        if instance.stored.dataset_length > MAX_TRANSCODE_BYTES:
            raise Refusal(Reason.NOT_ACCEPTABLE, "too large to be decoded; ask for it as stored")
        return self._prefix(instance) + self._objects.read(instance.stored)

    def _as_stored(self, instance: StoredInstance, datasets: Iterator[Iterator[bytes]]) -> Part10:
        prefix = self._prefix(instance)

        def content() -> Iterator[bytes]:
            yield prefix
            yield from next(datasets)  # taken out only when it is its turn

        return Part10(len(prefix) + instance.stored.dataset_length, content())

    @staticmethod
    def _prefix(instance: StoredInstance) -> bytes:
        # Made anew from the row, so it needs no check; the one in the store is for who has no row.
        return part10.prefix(
            instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid, "STELE"
        )

    @staticmethod
    def _check_frames(numbers: Sequence[int], count: int) -> None:
        if any(not 1 <= number <= count for number in numbers):
            raise Refusal(Reason.NOT_FOUND, f"frame number outside 1 to {count}")

    def _header(self, instance: StoredInstance, packed: bytes) -> Header:
        """Unpacked headers are kept by object name: an object never changes."""
        name = instance.stored.name
        with self._lock:
            header = self._headers.get(name)
            if header is not None:
                self._headers.move_to_end(name)
                return header
        header = Header.unpack(packed)
        with self._lock:
            self._headers[name] = header
            while len(self._headers) > HEADERS_KEPT:
                self._headers.popitem(last=False)
        return header
