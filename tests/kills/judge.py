"""The invariants, judged on plain values: the clients' log and what the archive says afterwards.

Nothing here asks the archive anything, so that the same judge serves one node, a cluster, and hand-made
histories (`tests/unit/test_kills_judge.py`). Each violation names the invariant that does not hold:

    durable     acknowledged, but lost or other bytes      conflict    two contents under one UID acknowledged
    atomic      listed, but not retrievable or not whole   reconciled  rows without object, too many orphans
    once        more or fewer rows than instances          alive       too long, or no defined status
    fresh       acknowledged, and then not seen            silent      a patient's data where it must not be
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.kills.log import STORES, Operation, Result, longest_gap_seconds

OPERATION_SECONDS = 60.0
GAP_SECONDS = 45.0  # no acknowledgement for so long: beyond every recovery time
# What a store may be told (PS3.4 B.2.3, PS3.18 I.2.2), and a reader, while parts of the archive are down
DEFINED_STORE = frozenset({"0000", "A700", "C111"})
DEFINED_READ = frozenset({"200", "503"})
CONFLICT = "C111"


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


@dataclass(slots=True)
class Seen:
    """What the archive says after the run.

    `listings` and `retrieved` by service; `retrieved`: content by SOP Instance UID. `flipped`: instances
    with a flipped bit in the store; `from_flipped`: what was handed out of them nevertheless. `findings`:
    of `stele check`, as (kind, name). `orphans`: objects without a row. `leaks`: where a patient's data was
    found.
    """

    listings: dict[str, Listing] = field(default_factory=dict)
    retrieved: dict[str, dict[str, str]] = field(default_factory=dict)
    flipped: set[str] = field(default_factory=set)
    from_flipped: dict[str, dict[str, str]] = field(default_factory=dict)
    findings: list[tuple[str, str]] = field(default_factory=list)
    orphans: int = 0
    leaks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold, and what shows it."""

    invariant: str
    what: str


def judge(history: Iterable[Operation], sent: Iterable[Row], seen: Seen) -> list[Violation]:
    """Everything that is wrong. `sent`: where each instance of the corpus belongs."""
    operations = list(history)
    stores = [each for each in operations if each.kind in STORES]
    reads = [each for each in operations if each.kind not in STORES]
    offered: dict[str, set[str]] = {}
    accepted: dict[str, set[str]] = {}
    for each in stores:
        offered.setdefault(each.uid, set()).add(each.content)
        if each.result is Result.OK:
            accepted.setdefault(each.uid, set()).add(each.content)
    return [
        *_durable(accepted, seen),
        *_atomic(offered, seen),
        *_once(accepted, offered, list(sent), seen),
        *_fresh(stores, reads, accepted),
        *_conflict(stores, accepted, offered),
        *_reconciled(stores, seen),
        *_alive(operations),
        *(Violation("silent", leak) for leak in seen.leaks),
    ]


def _durable(accepted: dict[str, set[str]], seen: Seen) -> Iterable[Violation]:
    for service, retrieved in seen.retrieved.items():
        for uid, contents in accepted.items():
            content = retrieved.get(uid)
            if content is None:
                yield Violation("durable", f"lost: {uid} by {service}")
            elif content not in contents:
                yield Violation("durable", f"corrupt: {uid} by {service}")
    for service, retrieved in seen.from_flipped.items():
        for uid, content in retrieved.items():
            if content not in accepted.get(uid, set()):
                yield Violation("durable", f"corrupt: {uid} by {service}, flipped on the disk")


def _atomic(offered: dict[str, set[str]], seen: Seen) -> Iterable[Violation]:
    for service, retrieved in seen.retrieved.items():
        for uid, content in retrieved.items():
            if content not in offered.get(uid, set()):
                yield Violation("atomic", f"not whole: {uid} by {service}")
        for name, listing in seen.listings.items():
            listed = {row.uid for row in listing.instances}
            for uid in listed - set(retrieved):
                yield Violation("atomic", f"listed by {name}, not retrievable: {uid} by {service}")
            for uid in set(retrieved) - listed:
                yield Violation("atomic", f"retrievable by {service}, not listed: {uid} by {name}")


def _once(
    accepted: dict[str, set[str]], offered: dict[str, set[str]], sent: list[Row], seen: Seen
) -> Iterable[Violation]:
    place = {row.uid: row for row in sent}
    for name, listing in seen.listings.items():
        for uid, count in Counter(row.uid for row in listing.instances).items():
            if count > 1:
                yield Violation("once", f"{count} rows by {name}: {uid}")
        listed = {row.uid: row for row in listing.instances}
        for uid in set(accepted) - set(listed):
            yield Violation("once", f"acknowledged, not listed by {name}: {uid}")
        for uid in set(listed) - set(offered):
            yield Violation("once", f"listed by {name}, never sent: {uid}")
        for uid, row in listed.items():
            if uid in place and row != place[uid]:
                yield Violation("once", f"in the wrong place by {name}: {uid}")
        rows = list(listed.values())
        levels = (
            ("study", listing.studies, Counter(row.study for row in rows)),
            ("series", listing.series, Counter(row.series for row in rows)),
        )
        for level, given, counted in levels:
            if sorted(given) != sorted(counted.items()):
                differing = set(given) ^ set(counted.items())
                yield Violation("once", f"{level} rows and counts by {name} differ: {sorted(differing)[:4]}")
        if listing.patients and sorted(listing.patients) != sorted({row.patient_id for row in rows}):
            yield Violation("once", f"patients by {name}: {len(listing.patients)} rows")


def _fresh(
    stores: list[Operation], reads: list[Operation], accepted: dict[str, set[str]]
) -> Iterable[Violation]:
    since: dict[str, float] = {}
    for each in stores:
        if each.result is Result.OK:
            since[each.uid] = min(each.returned, since.get(each.uid, each.returned))
    for read in reads:
        if read.uid not in since or read.invoked < since[read.uid]:
            continue
        if read.result is Result.REFUSED and read.status != "503":
            yield Violation("fresh", f"stale: {read.uid} by {read.kind}: {read.status}")
        elif read.result is Result.OK and read.content and read.content not in accepted[read.uid]:
            yield Violation("durable", f"corrupt: {read.uid} by {read.kind} during the run")


def _conflict(
    stores: list[Operation], accepted: dict[str, set[str]], offered: dict[str, set[str]]
) -> Iterable[Violation]:
    refused = {(each.uid, each.content) for each in stores if each.status == CONFLICT}
    for uid, contents in offered.items():
        taken = accepted.get(uid, set())
        if len(taken) > 1:
            yield Violation("conflict", f"{len(taken)} contents acknowledged: {uid}")
        for content in contents:
            if (uid, content) in refused and content in taken:
                yield Violation("conflict", f"acknowledged and refused: {uid}")
        if len(contents) > 1 and not taken:
            yield Violation("conflict", f"none of {len(contents)} contents accepted: {uid}")
        if len(contents) == 1 and any((uid, content) in refused for content in contents):
            yield Violation("conflict", f"refused without a rival: {uid}")


def _reconciled(stores: list[Operation], seen: Seen) -> Iterable[Violation]:
    for kind, name in seen.findings:
        if kind != "corrupt" or name not in seen.flipped:
            yield Violation("reconciled", f"{kind}: {name}")
    unacknowledged = sum(each.result is not Result.OK for each in stores)
    if seen.orphans > unacknowledged:
        yield Violation("reconciled", f"{seen.orphans} orphans of {unacknowledged} unacknowledged stores")


def _alive(operations: list[Operation]) -> Iterable[Violation]:
    for each in operations:
        seconds = each.returned - each.invoked
        if seconds > OPERATION_SECONDS:
            yield Violation("alive", f"{each.client}: {each.kind} took {seconds:.0f} s")
        defined = DEFINED_STORE if each.kind in STORES else DEFINED_READ
        if each.result is not Result.UNKNOWN and each.status not in defined and "rows" not in each.status:
            yield Violation("alive", f"{each.client}: {each.kind} answered {each.status}")
    gap = longest_gap_seconds(operations)
    if gap > GAP_SECONDS:
        yield Violation("alive", f"no acknowledgement for {gap:.0f} s")
