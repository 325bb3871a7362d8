"""What the node needs from outside, as protocols.

Each port has one adapter per technology and one contract suite (`tests/contract`) that all of them
pass. Services see these and nothing else. Every call blocks the calling thread, is bounded in time by
the adapter's configuration, and raises `Refusal` (UNAVAILABLE, STORE_FULL, CORRUPT, NOT_FOUND) when
the outside says no.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Protocol

from node.domain.model import (
    Account,
    Admission,
    Answer,
    ApplicationEntity,
    AuditEvent,
    InstanceRecord,
    Lease,
    Level,
    Role,
    Scope,
    StoredInstance,
    StoredObject,
)
from node.domain.query import Hit, Page, Query

# --- Objects -------------------------------------------------------------------------------------


class BlobWriter(Protocol):
    """An object being written. Nothing is visible under its name until `commit` returns."""

    name: str

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes; the buffer may be reused after the call returns."""

    def commit(self, attributes: dict[str, bytes]) -> None:
        """Make bytes and attributes durable and visible, all or nothing. Refusal(STORE_FULL) …"""

    def abort(self) -> None:
        """Throw away what was written; harmless after `commit` or a failure."""


class Blobs(Protocol):
    """Immutable named byte strings with small attributes (at most 32 KiB in all).

    Names are 32 lower-case hexadecimal digits, given by the store and never twice: one for each attempt.
    """

    def create(self) -> BlobWriter:
        """Begin an object, under a name that nothing else has or will have. Refusal(STORE_FULL) …"""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Refusal NOT_FOUND; CORRUPT if the object is shorter."""

    def attributes(self, name: str) -> dict[str, bytes]:
        """The attributes given to `commit`. Refusal NOT_FOUND."""

    def size(self, name: str) -> int:
        """Length in bytes. Refusal NOT_FOUND."""

    def remove(self, name: str) -> None:
        """Remove for good; removing what is not there is not an error."""

    def names(self) -> Iterator[tuple[str, float]]:
        """Every committed object as (name, age in seconds), in no order."""

    def check(self) -> None:
        """Return if objects can be written and read now; otherwise raise the Refusal."""

    def close(self) -> None:
        """Release connections. The object is not used afterwards."""


# --- Catalog -------------------------------------------------------------------------------------


class Instances(Protocol):
    """The catalog's instances."""

    def admit(self, record: InstanceRecord, event: AuditEvent) -> tuple[Admission, StoredInstance]:
        """Record an instance and its audit event in one transaction, durable on return.

        Returns what happened and the row that is in force now. The caller removes its own object if
        the row in force names another one. On DUPLICATE the existing row is written again, so that the
        commit waits for the synchronous standby like the first did.
        """

    def find(self, sop_instance_uid: str) -> StoredInstance | None:
        """The instance's row, or None."""

    def select(self, scopes: Sequence[Scope], event: AuditEvent | None = None) -> list[StoredInstance]:
        """All instances in any of the scopes, each once, [] if none.

        Ordered by series, Instance Number, SOP Instance UID. `event`, if given, is written to the audit
        trail in the same transaction, with the study UIDs found added to it.
        """

    def repoint(self, sop_instance_uid: str, stored: StoredObject, event: AuditEvent) -> None:
        """Let the row refer to another, intact copy of the same bytes (same digest); the former
        object's name goes to `surplus`. Refusal(CONFLICT) if the digests differ, NOT_FOUND without a row.
        """

    def headers(self, scope: Scope) -> Iterator[tuple[StoredInstance, bytes]]:
        """Instances in scope with their packed headers, streamed in `select`'s order."""

    def remove(self, scope: Scope, event: AuditEvent) -> list[StoredInstance]:
        """Take the instances in scope (and what became empty above them) out of the catalog.

        In the same transaction their object names are handed to the collector (`surplus`). Returns
        what was removed, [] if nothing was there.
        """

    def names(self) -> Iterator[tuple[str, StoredInstance]]:
        """Every object name that a row refers to, with its row, streamed."""

    def refers_to(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that some row refers to."""

    def series_of(self, study_uid: str) -> list[str]:
        """Series Instance UIDs of a study by Series Number, then UID; [] if there is no such study."""

    def series_version(self, series_uid: str) -> tuple[str, int] | None:
        """(opaque version, number of instances) of a series now; None if unknown. Changes with every
        instance that is added to or removed from it; used as ETag."""

    def prepared(self, series_uid: str) -> tuple[str, bytes] | None:
        """The prepared series metadata as (version, gzip-compressed JSON array), or None."""

    def prepare(self, series_uid: str, version: str, metadata: bytes) -> None:
        """Keep prepared series metadata for `version` in place of any older one."""

    def unprepared(self, quiet_seconds: float, limit: int) -> list[str]:
        """Series UIDs without current prepared metadata that have been quiet for so long."""


class Repairs(Protocol):
    """What is asked of the catalog about damage, and how its own rows are mended (`stele check`)."""

    def misplaced(self) -> Iterator[tuple[StoredObject, bytes]]:
        """Instances whose rows do not hang below a series and the study of that series, as (object,
        packed header), streamed. Searches miss them or count them in the wrong study."""

    def place(self, record: InstanceRecord, event: AuditEvent) -> None:
        """Hang an instance's row below its record's series and study, made if missing, and write the
        event, in one transaction. Refusal(NOT_FOUND) without the row, MISMATCH if the series exists in
        another study."""

    def hollow(self, level: Level) -> list[tuple[int, str]]:
        """Patients, studies or series with nothing below them, as (key, name); the name is the UID, a
        patient's its key."""

    def drop_hollow(self, level: Level, key: int, event: AuditEvent) -> bool:
        """Remove such a row if there is still nothing below it; the event in the same transaction."""

    def source_of(self, sop_instance_uid: str) -> str:
        """The AE title or account that an instance came from. Refusal(NOT_FOUND)."""

    def deleted_since(self, record: InstanceRecord, age_seconds: float) -> bool:
        """Whether the audit trail has a deletion of the record's instance in the last `age_seconds`."""

    def rebuilt_since(self, record: InstanceRecord, age_seconds: float) -> bool:
        """Whether it has the instance made anew from an object in the last `age_seconds`."""


class Searches(Protocol):
    """The catalog's queries."""

    def search(self, query: Query, event: AuditEvent) -> Generator[Hit, None, None]:
        """Results with all kept attributes of the level and above and the computed ones asked for.

        The audit event is written in the transaction that first looks into the catalog, and durable before
        anything that was found is handed on. Results are read in batches, and between two batches nothing
        is held, so that a slow reader costs nothing and closing the generator ends the query. Computed
        attributes are PS3.4 section C.3.4's; see `node.domain.query.COMPUTED`. InstanceAvailability is
        always there. Refusal(INVALID_QUERY) if `after` is not a cursor.
        """

    def page(self, query: Query, event: AuditEvent, count_at_most: int) -> Page:
        """The results at once, and how many follow them, counted up to `count_at_most` where that is
        cheap; elsewhere only whether any do."""


class Audits(Protocol):
    """The audit trail: rows written by everybody, sealed into a hash chain by one worker."""

    def record(self, event: AuditEvent) -> None:
        """Write an event of its own (one that tells of no other transaction), durable on return."""

    def seal(self) -> int:
        """Seal every row whose transaction has ended; returns how many."""

    def verify(self) -> list[str]:
        """Walk the whole chain; returns what is wrong with it, [] if nothing."""

    def unsealed(self) -> tuple[int, float]:
        """(rows not yet sealed, age in seconds of the oldest)."""


class Accounts(Protocol):
    """People and machines that use HTTP. Secrets are stored as hashes only."""

    def add(self, name: str, password_hash: str | None, role: Role, event: AuditEvent) -> None:
        """Create or replace an account; replacing ends its sessions."""

    def password_hash(self, name: str) -> tuple[Account, str | None] | None:
        """The account with its argon2 hash, or None if there is no such account."""

    def open_session(self, name: str, token_sha256: bytes, seconds: float, event: AuditEvent) -> None:
        """Keep a session (or, with seconds=0, a machine's bearer token without end)."""

    def session(self, token_sha256: bytes) -> Account | None:
        """Whose live session or token this is."""

    def close_session(self, token_sha256: bytes, event: AuditEvent) -> None:
        """End a session or revoke a token."""


class Entities(Protocol):
    """Application entities."""

    def put(self, entity: ApplicationEntity, event: AuditEvent) -> None:
        """Create or replace."""

    def drop(self, title: str, event: AuditEvent) -> bool:
        """Remove; False if it was not there."""

    def all(self) -> list[ApplicationEntity]:
        """All, by title."""


class Surplus(Protocol):
    """Objects that no row needs: handed over by `Instances.remove`, worked off by the collector."""

    def take(self, limit: int) -> list[str]:
        """Names handed over, oldest first; they stay until `done`."""

    def done(self, names: Sequence[str]) -> None:
        """These objects are gone from the store."""

    def among(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that are handed over and not done."""


class Leases(Protocol):
    """Who does a periodic job now."""

    def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        """Take or renew the lease; None while somebody else holds it."""

    def release(self, lease: Lease) -> None:
        """Give it back early; harmless if it was lost."""


class Catalog(Protocol):
    """One transactional catalog, by subject."""

    @property
    def instances(self) -> Instances:
        """See `Instances`."""

    @property
    def searches(self) -> Searches:
        """See `Searches`."""

    @property
    def audits(self) -> Audits:
        """See `Audits`."""

    @property
    def accounts(self) -> Accounts:
        """See `Accounts`."""

    @property
    def entities(self) -> Entities:
        """See `Entities`."""

    @property
    def surplus(self) -> Surplus:
        """See `Surplus`."""

    @property
    def repairs(self) -> Repairs:
        """See `Repairs`."""

    def check(self) -> None:
        """Return if the catalog takes writes now; otherwise raise the Refusal."""

    def close(self) -> None:
        """Release connections. The object is not used afterwards."""


# --- Passwords -----------------------------------------------------------------------------------


class Passwords(Protocol):
    """A slow, salted password hash."""

    def hash(self, password: str) -> str:
        """The hash to keep."""

    def verify(self, hashed: str, password: str) -> bool:
        """Whether the password is the one that was hashed."""


# --- Pixels --------------------------------------------------------------------------------------


class Codecs(Protocol):
    """Decoding and encoding of pixel data, apart from the node: memory and time are limited.

    Refusal NOT_ACCEPTABLE when it cannot be done, is over a limit, or the decoder died of it.
    """

    def transcode(self, part10: bytes, transfer_syntax_uid: str) -> bytes:
        """A whole Part 10 object in another transfer syntax; the SOP Instance UID stays."""

    def decode_frames(self, part10: bytes, frames: Sequence[int]) -> list[bytes]:
        """Frames (1-based) as native little-endian pixel bytes, as Explicit VR Little Endian has them."""

    def render(
        self,
        part10: bytes,
        frame: int,
        media_type: str,
        *,
        window: tuple[float, float, str] | None = None,
        viewport: tuple[int, int] | None = None,
        region: tuple[float, float, float, float] | None = None,
        quality: int = 90,
    ) -> bytes:
        """A frame (1-based) as "image/jpeg" or "image/png" for display (PS3.18 section 8.3.5).

        `window`: centre, width, function ("linear", "linear-exact", "sigmoid"); None takes the
        dataset's own, or the frame's range. `viewport`: largest width and height in pixels, aspect
        kept. `region`: left, top, width, height of the source to show, in pixels.
        """

    def close(self) -> None:
        """End the decoders."""


# --- Peers ---------------------------------------------------------------------------------------


class Delivery(Protocol):
    """An open association to a peer, for sending instances."""

    def accepts(self, sop_class_uid: str) -> tuple[str, ...]:
        """Transfer syntaxes that the peer accepted for a SOP class."""

    def send(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        dataset: Iterable[bytes],
        originator: tuple[str, int] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Answer:
        """C-STORE the encoded dataset, which comes in pieces of any size; returns what the peer answers.
        `meanwhile` is called once all has been sent, before the answer is waited for.

        Refusal(UNAVAILABLE) if the association is lost. It is lost, too, if `dataset` raises (which goes
        on to the caller): what has begun cannot be taken back otherwise. `accepts` says () from then on.
        """

    def close(self) -> None:
        """Release the association; harmless if it is lost."""


class Peers(Protocol):
    """DICOM peers that we call."""

    def connect(self, entity: ApplicationEntity, contexts: Sequence[tuple[str, str]]) -> Delivery:
        """Associate for (SOP class, transfer syntax) pairs, at most 128. Refusal(UNAVAILABLE) if it does
        not answer."""
