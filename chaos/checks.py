"""The invariants, judged on plain values: the clients' log and what the archive says afterwards.

Nothing here asks the archive anything, so that the same checks serve one node, a cluster, and hand-made
histories (`tests/unit/chaos`). Each has the name of what must hold:

    durable     acknowledged, but lost or other bytes      conflict    two contents under one UID acknowledged
    atomic      listed, but not retrievable or not whole   reconciled  rows without object, too many orphans
    once        more or fewer rows than instances          alive       too long, or no defined status
    fresh       acknowledged, and then not seen            silent      a patient's data where it must not be
    deleted     deleted, and there again                   audited     done, but not in the audit trail
    one primary two timelines of PostgreSQL that both acknowledge
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from chaos.corpus import CANARY
from chaos.deletions import deleted
from chaos.history import ASSOCIATE, CONFLICT, DELETE, STORES, Operation, Result
from chaos.model import Evidence, Limits, Listing, Row, Seen, Violation
from chaos.primaries import one_primary
from chaos.recovery import longest_gap
from chaos.trail import BROKEN_CHAIN, audited

# What a store may be told (PS3.4 table B.2-1, PS3.18 section I.2.2; 503 and 507 of a whole request: PS3.18
# section 10.5.3.1), and a reader, while parts of the archive are down
DEFINED_STORE = frozenset({"0000", "B000", "B006", "B007", "A700", CONFLICT, "HTTP 503", "HTTP 507"})
DEFINED_READ = frozenset({"200", "503"})
DEFINED_DELETE = frozenset({"204", "503"})
NOT_THERE = frozenset({"204", "404", "410", "0 rows"})


def judge(
    history: Iterable[Operation], sent: Iterable[Row], seen: Seen, limits: Limits | None = None
) -> list[Violation]:
    """Everything that is wrong. `sent`: where each instance of the corpus belongs."""
    return violations(Evidence([list(history)], sent, seen, limits))


def violations(evidence: Evidence) -> list[Violation]:
    """What every check finds."""
    return [violation for check in CHECKS.values() for violation in check(evidence)]


def durable(evidence: Evidence) -> Iterable[Violation]:
    """What was acknowledged comes back with the same bytes in the same transfer syntax, from everywhere."""
    accepted = evidence.accepted
    for service, retrieved in evidence.seen.retrieved.items():
        for uid, contents in evidence.lasting.items():
            content = retrieved.get(uid)
            if content is None:
                yield Violation("durable", f"lost: {uid} by {service}")
            elif content not in contents:
                yield Violation("durable", f"corrupt: {uid} by {service}")
    for service, retrieved in evidence.seen.from_flipped.items():
        for uid, content in retrieved.items():
            if content not in accepted.get(uid, set()):
                yield Violation("durable", f"corrupt: {uid} by {service}, flipped on the disk")
    for read in evidence.reads:
        settled = evidence.is_after_acknowledgement(read) and not evidence.may_be_gone(read.uid)
        known = accepted if settled else evidence.offered
        if read.content and read.content not in known.get(read.uid, set()):
            yield Violation("durable", f"corrupt: {read.uid} by {read.kind} during the run")


def atomic(evidence: Evidence) -> Iterable[Violation]:
    """What was not acknowledged is absent or whole; what is listed can be retrieved, and the reverse."""
    for service, retrieved in evidence.seen.retrieved.items():
        for uid, content in retrieved.items():
            if content not in evidence.offered.get(uid, set()):
                yield Violation("atomic", f"not whole: {uid} by {service}")
        for name, listing in evidence.seen.listings.items():
            listed = {row.uid for row in listing.instances}
            for uid in listed - set(retrieved):
                yield Violation("atomic", f"listed by {name}, not retrievable: {uid} by {service}")
            for uid in set(retrieved) - listed:
                yield Violation("atomic", f"retrievable by {service}, not listed: {uid} by {name}")


def once(evidence: Evidence) -> Iterable[Violation]:
    """One row for each instance, where it belongs; levels above have the rows and counts that follow."""
    for name, listing in evidence.seen.listings.items():
        for uid, count in Counter(row.uid for row in listing.instances).items():
            if count > 1:
                yield Violation("once", f"{count} rows by {name}: {uid}")
        listed = {row.uid: row for row in listing.instances}
        for uid in set(evidence.lasting) - set(listed):
            yield Violation("once", f"acknowledged, not listed by {name}: {uid}")
        for uid in set(listed) - set(evidence.offered):
            yield Violation("once", f"listed by {name}, never sent: {uid}")
        for uid, row in listed.items():
            if row != evidence.places.get(uid, row):
                yield Violation("once", f"in the wrong place by {name}: {uid}")
        yield from _levels(name, listing, list(listed.values()))
    for read in evidence.reads:
        if read.status.endswith(" rows") and read.status != "0 rows":
            yield Violation("once", f"{read.status} by {read.kind} during the run: {read.uid}")


def _levels(name: str, listing: Listing, rows: list[Row]) -> Iterable[Violation]:
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


def fresh(evidence: Evidence) -> Iterable[Violation]:
    """A read that begins after an acknowledgement sees the instance, wherever it is asked for; so does who
    wants to delete it."""
    for read in (*evidence.reads, *evidence.deletions):
        if evidence.may_be_gone(read.uid, read.returned):
            continue
        if read.status in NOT_THERE and evidence.is_after_acknowledgement(read):
            where = f" at {read.node}" if read.node else ""
            yield Violation("fresh", f"stale: {read.uid} by {read.kind}{where}: {read.status}")


def conflict(evidence: Evidence) -> Iterable[Violation]:
    """Of different bytes under one UID exactly one is acknowledged; nobody is refused without a rival."""
    refused = {(each.uid, each.content) for each in evidence.stores if each.status == CONFLICT}
    for uid, contents in evidence.offered.items():
        if evidence.may_be_gone(uid):
            continue  # what is stored after a deletion has no rival
        taken = evidence.accepted.get(uid, set())
        if len(taken) > 1:
            yield Violation("conflict", f"{len(taken)} contents acknowledged: {uid}")
        for content in contents:
            if (uid, content) in refused and content in taken:
                yield Violation("conflict", f"acknowledged and refused: {uid}")
        if len(contents) > 1 and not taken and all((uid, content) in refused for content in contents):
            yield Violation("conflict", f"none of {len(contents)} contents accepted: {uid}")
        if len(contents) == 1 and any((uid, content) in refused for content in contents):
            yield Violation("conflict", f"refused without a rival: {uid}")


def reconciled(evidence: Evidence) -> Iterable[Violation]:
    """No row without its object; no more objects without rows than unacknowledged stores explain."""
    for kind, name in evidence.seen.findings:
        if kind != BROKEN_CHAIN and (kind != "corrupt" or name not in evidence.seen.flipped):
            yield Violation("reconciled", f"{kind}: {name}")
    unacknowledged = sum(not each.acknowledged for each in evidence.stores)
    orphans = evidence.seen.orphans
    if orphans > unacknowledged:
        yield Violation("reconciled", f"{orphans} orphans of {unacknowledged} unacknowledged stores")


def alive(evidence: Evidence) -> Iterable[Violation]:
    """Every operation ends in time with a defined status, and acknowledgements never cease for long."""
    limits = evidence.limits
    for each in evidence.operations:
        seconds = each.returned - each.invoked
        in_service = not limits.service or each.node in limits.service
        if in_service and seconds > limits.operation_seconds and not limits.excuse(each):
            yield Violation("alive", f"{each.client}: {each.kind} took {seconds:.0f} s")
        if each.result is not Result.UNKNOWN and not _defined(each):
            yield Violation("alive", f"{each.client}: {each.kind} answered {each.status}")
    for run in evidence.runs:
        gap = longest_gap(each for each in run if not limits.excuse(each))
        if gap is not None and gap.seconds > limits.gap_seconds:
            yield Violation("alive", f"no acknowledgement for {gap.seconds:.0f} s")
    for service in evidence.seen.unread:
        yield Violation("alive", f"no answer afterwards: {service}")


def _defined(operation: Operation) -> bool:
    """Whether the status is one that the archive may give; that nothing was found is for `fresh`."""
    if operation.kind == ASSOCIATE:
        return True
    if operation.kind in STORES:
        return operation.status in DEFINED_STORE
    if operation.kind == DELETE:
        return operation.status in DEFINED_DELETE | NOT_THERE
    return operation.status in DEFINED_READ | NOT_THERE or operation.status.endswith(" rows")


def silent(evidence: Evidence) -> Iterable[Violation]:
    """No patient's data in logs, metrics and error pages."""
    return (Violation("silent", leak) for leak in evidence.seen.leaks)


def leaks_in(texts: Mapping[str, str]) -> list[str]:
    """Where a canary turned up, out of texts by the names of their places."""
    return [f"{CANARY} in {name}" for name, text in texts.items() if CANARY in text]


def findings_in(text: str) -> tuple[list[tuple[str, str]], int]:
    """What `stele check --json` printed: (findings but for orphans, as (kind, name); number of orphans)."""
    found = [json.loads(line) for line in text.splitlines()]
    findings = [(str(each["kind"]), str(each["name"])) for each in found if each["kind"] != "orphan"]
    return findings, len(found) - len(findings)


CHECKS: dict[str, Callable[[Evidence], Iterable[Violation]]] = {
    "durable": durable,
    "atomic": atomic,
    "once": once,
    "fresh": fresh,
    "conflict": conflict,
    "reconciled": reconciled,
    "alive": alive,
    "silent": silent,
    "deleted": deleted,
    "audited": audited,
    "one primary": one_primary,
}
