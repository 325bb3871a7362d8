"""The values that pass between the edges, the services and the ports."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

# A dataset in the DICOM JSON model (PS3.18 annex F): {"00100020": {"vr": "LO", "Value": ["1"]}, …}
Attributes = dict[str, dict[str, Any]]


class Level(Enum):
    """Levels of the query/retrieve information model (PS3.4 section C.6)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


class Role(Enum):
    """What a person or a machine may do. Each role may do all that the ones before it may."""

    VIEWER = "viewer"  # search, retrieve
    TECHNOLOGIST = "technologist"  # and store
    ADMINISTRATOR = "administrator"  # and delete, and manage accounts and AEs


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is asking, as policy and audit see it.

    `name` is an AE title (DICOM) or an account name (HTTP); `address` the peer's own IP address, not
    a proxy's; `protocol` is "dimse", "http" or "node" (the archive itself).
    """

    name: str
    address: str
    protocol: str
    role: Role = Role.VIEWER


@dataclass(frozen=True, slots=True)
class Scope:
    """A patient's, study's, series' or instance's address: the UIDs known, the rest None."""

    study_uid: str | None = None
    series_uid: str | None = None
    instance_uid: str | None = None
    patient_id: str | None = None  # Patient Root retrieval at the patient level only
    issuer: str | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Where an instance's bytes lie and how to know that they are the right ones.

    The object is `prefix_length` bytes of Part 10 preamble and file meta information, then
    `dataset_length` bytes of dataset exactly as received. `digest` is the BLAKE3 digest of the dataset.
    """

    name: str
    prefix_length: int
    dataset_length: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """All that the catalog learns about one received instance, as one transaction's input.

    `patient`, `study`, `series` and `instance` hold the attributes kept at each level; `header` is
    the packed header (`node.domain.header.Header.pack`), from which full metadata is made without
    touching the object.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_uid: str
    series_uid: str
    patient: Attributes
    study: Attributes
    series: Attributes
    instance: Attributes
    header: bytes
    stored: StoredObject
    source: Actor


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An instance row, enough to find, check and send its bytes."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_uid: str
    series_uid: str
    stored: StoredObject
    received_at: datetime
    number_of_frames: int = 1


class Admission(Enum):
    """What the catalog did with an instance."""

    STORED = "stored"  # a new row
    DUPLICATE = "duplicate"  # the same bytes were there; written to WAL again; the new object is surplus
    CONFLICT = "conflict"  # other bytes were there; the original stays; audited; the new object is surplus


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that somebody did or tried to do (after IHE ATNA's event identification).

    `action`: "store", "query", "retrieve", "view", "delete", "login", "associate", "manage" …;
    `outcome`: "success" or a `Reason` value; `detail`: identifiers only (UIDs, counts, AE titles),
    as JSON-able values.
    """

    action: str
    actor: Actor
    outcome: str = "success"
    study_uids: tuple[str, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApplicationEntity:
    """A DICOM peer: who may call us from where, and where to reach it (C-MOVE destination).

    `sources`: networks in CIDR notation it may call from, empty for any. `certificate`: SHA-256
    fingerprint (hex) its TLS client certificate must have, or None. Zero means "no limit of its own".
    """

    title: str
    host: str | None = None
    port: int | None = None
    tls: bool = False
    sources: tuple[str, ...] = ()
    certificate: str | None = None
    may_store: bool = True
    may_retrieve: bool = True  # query and retrieve
    max_associations: int = 0
    max_instances_per_second: float = 0.0
    max_object_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer says to a C-STORE: its status, and its Error Comment ("" if it sent none).

    The comment is the peer's and may hold anything printable: for who asked, not for logs.
    """

    status: int
    comment: str = ""

    @property
    def stored(self) -> bool:
        """Whether the peer has the instance: success or a warning (PS3.7 section 9.1.1.1.9, annex C)."""
        return self.status == 0 or self.warning

    @property
    def warning(self) -> bool:
        """Whether it has the instance, and something to say about it."""
        return self.status >> 12 == 0xB or self.status in (0x0001, 0x0107, 0x0116)


@dataclass(frozen=True, slots=True)
class Account:
    """A person or a machine that logs in over HTTP."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Lease:
    """A task held by one holder until it expires; `fence` grows with every change of holder."""

    name: str
    holder: str
    fence: int
