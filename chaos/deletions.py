"""Deleted stays deleted, whatever fails afterwards: pure functions over the history."""

from collections.abc import Iterable

from chaos.history import Operation, Result
from chaos.model import Evidence, Violation

NOT_SEEN = "0 rows"


def deleted(evidence: Evidence) -> Iterable[Violation]:
    """What was deleted, and not stored again, is neither listed nor retrieved nor read any more."""
    gone = gone_since(evidence)
    for name, listing in evidence.seen.listings.items():
        for uid in sorted(gone.keys() & {row.uid for row in listing.instances}):
            yield Violation("deleted", f"deleted, listed by {name}: {uid}")
    for service, retrieved in evidence.seen.retrieved.items():
        for uid in sorted(gone.keys() & retrieved.keys()):
            yield Violation("deleted", f"deleted, retrieved by {service}: {uid}")
    for read in evidence.reads:
        if read.invoked >= gone.get(read.uid, float("inf")) and _seen(read):
            yield Violation("deleted", f"deleted, then seen by {read.kind}: {read.uid}")


def gone_since(evidence: Evidence) -> dict[str, float]:
    """Since when instances have to be gone, by SOP Instance UID.

    That is from the acknowledgement of a deletion that had begun when every store of the instance had been
    acknowledged. Of a store that was refused or has an unknown outcome nobody knows when it ended.
    """
    quiet: dict[str, float] = {}
    for store in evidence.stores:
        ended = store.returned if store.result is Result.OK else float("inf")
        quiet[store.uid] = max(ended, quiet.get(store.uid, ended))
    gone: dict[str, float] = {}
    for each in evidence.deletions:
        if each.result is Result.OK and each.invoked >= quiet.get(each.uid, float("inf")):
            gone[each.uid] = min(each.returned, gone.get(each.uid, each.returned))
    return gone


def _seen(read: Operation) -> bool:
    return read.result is Result.OK or (read.status.endswith(" rows") and read.status != NOT_SEEN)
