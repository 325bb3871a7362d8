"""What the judgement is about, as plain values: what was said, and what the archive says afterwards."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from chaos.history import DELETE, READS, STORES, Operation, Result

OPERATION_SECONDS = 60.0
GAP_SECONDS = 45.0  # no acknowledgement for so long: beyond every recovery time


@dataclass(frozen=True, slots=True)
class Row:
    """An instance as a query lists it."""

    patient_id: str
    study: str
    series: str
    uid: str


@dataclass(slots=True)
class Listing:
    """What one query service says: every level on its own, with the counts that it gives."""

    patients: list[str] = field(default_factory=list)
    studies: list[tuple[str, int]] = field(default_factory=list)  # (UID, number of instances)
    series: list[tuple[str, int]] = field(default_factory=list)
    instances: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Audited:
    """A row of the archive's audit trail; `instance`: the SOP Instance UID that it names, or ""."""

    action: str
    outcome: str
    protocol: str
    studies: tuple[str, ...]
    instance: str


@dataclass(frozen=True, slots=True)
class Probe:
    """A write that PostgreSQL on `host` acknowledged on a timeline; seconds of the history's clock."""

    host: str
    timeline: int
    began: float
    ended: float


@dataclass(slots=True)
class Seen:
    """What the archive says after the run.

    `listings` and `retrieved` by service and address; `retrieved`: content by SOP Instance UID. `unread`:
    services that gave no answer. `flipped`: instances with a flipped bit in the store; `from_flipped`: what
    was handed out of them nevertheless. `findings`: of `stele check`, as (kind, name). `orphans`: objects
    without a row. `leaks`: where a patient's data was found. `audit`: the audit trail of the run, before
    anything was read back; None if it was not looked at. `probes`: writes past the archive, in any order.
    """

    listings: dict[str, Listing] = field(default_factory=dict)
    retrieved: dict[str, dict[str, str]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    flipped: set[str] = field(default_factory=set)
    from_flipped: dict[str, dict[str, str]] = field(default_factory=dict)
    findings: list[tuple[str, str]] = field(default_factory=list)
    orphans: int = 0
    leaks: list[str] = field(default_factory=list)
    audit: list[Audited] | None = None
    probes: list[Probe] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold, and what shows it."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one operation may take, and how long all clients together may be without acknowledgement.

    `service`: the addresses at which operations may not take longer, as the history names them; all if empty.
    A node's own address is none while that node is down. `severed`: from when to when connections may have
    ended without a word, so that a client could only wait.
    """

    operation_seconds: float = OPERATION_SECONDS
    gap_seconds: float = GAP_SECONDS
    service: frozenset[str] = frozenset()
    severed: tuple[tuple[float, float], ...] = ()

    def excuse(self, operation: Operation) -> bool:
        """Whether a client may have waited in vain: no answer, and under way while connections were lost."""
        return operation.result is Result.UNKNOWN and any(
            begin <= operation.returned and operation.invoked <= end for begin, end in self.severed
        )


class Evidence:
    """All that a check may look at, sorted once.

    `places`: where each instance of the corpus belongs, by SOP Instance UID. `offered` and `accepted`:
    the contents that were sent under each UID, and those that were acknowledged. `runs`: histories with any
    time between them. `lasting`: those of `accepted` that nobody has tried to delete.
    """

    def __init__(
        self, runs: Iterable[list[Operation]], sent: Iterable[Row], seen: Seen, limits: Limits | None = None
    ) -> None:
        self.runs = list(runs)
        self.operations = [operation for run in self.runs for operation in run]
        self.places = {row.uid: row for row in sent}
        self.seen = seen
        self.limits = limits or Limits()
        self.stores = [each for each in self.operations if each.kind in STORES]
        self.reads = [each for each in self.operations if each.kind in READS]
        self.deletions = [each for each in self.operations if each.kind == DELETE]
        self.offered: dict[str, set[str]] = {}
        self.accepted: dict[str, set[str]] = {}
        self._since: dict[str, float] = {}
        for each in self.stores:
            self.offered.setdefault(each.uid, set()).add(each.content)
            if each.acknowledged:
                self.accepted.setdefault(each.uid, set()).add(each.content)
                self._since[each.uid] = min(each.returned, self._since.get(each.uid, each.returned))
        self._condemned: dict[str, float] = {}
        for each in self.deletions:
            if may_delete(each):
                self._condemned[each.uid] = min(each.invoked, self._condemned.get(each.uid, each.invoked))
        self.lasting = {uid: of for uid, of in self.accepted.items() if uid not in self._condemned}

    def is_after_acknowledgement(self, read: Operation) -> bool:
        """Whether a read began when its instance had been acknowledged."""
        return read.invoked >= self._since.get(read.uid, float("inf"))

    def may_be_gone(self, uid: str, at: float = float("inf")) -> bool:
        """Whether a deletion that has taken effect, or may have, had begun at a moment."""
        return self._condemned.get(uid, float("inf")) < at


def may_delete(deletion: Operation) -> bool:
    """Whether a deletion has taken effect, or may have: what is answered while the catalog is away (5xx) says
    nothing about a commit that was on its way."""
    return deletion.result is not Result.REFUSED or deletion.status.startswith("5")
