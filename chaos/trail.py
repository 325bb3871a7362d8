"""The audit trail against the clients' log: pure functions, and how the trail is taken out of the catalog.

The trail names the instance of a store and of a deletion, but only the study of a retrieval, and not what a
search was for (values of keys may be a patient's). So these are counted: there have to be at least as many
rows as clients were answered. A client that got no answer may have been heard or not.
"""

import json
from collections import Counter
from collections.abc import Iterable

from chaos.history import CONFLICT, DELETE, Operation, Result
from chaos.model import Audited, Evidence, Violation

BROKEN_CHAIN = "audit"  # the kind of a finding of `stele check`
Deed = tuple[str, str, str]  # action, outcome, and of what: an instance, a study or nothing in particular

# Rows of the audit trail since a moment (seconds of the Unix epoch), one JSON object each
EXPORT = """
SELECT json_build_object('action', action, 'outcome', outcome, 'protocol', protocol, 'studies', study_uids,
                         'instance', coalesce(detail ->> 'instance_uid', ''))
FROM audit_events WHERE at >= to_timestamp({since}) ORDER BY txid, event_id
"""


def audited(evidence: Evidence) -> Iterable[Violation]:
    """Everything that clients were answered is in the audit trail, and its chain has no gap."""
    for kind, name in evidence.seen.findings:
        if kind == BROKEN_CHAIN:
            yield Violation("audited", f"broken chain: {name}")
    if evidence.seen.audit is None:
        return
    told = Counter(deed for row in evidence.seen.audit for deed in _told(row))
    done = Counter(deed for each in evidence.operations if (deed := _done(each, evidence)) is not None)
    for deed, times in sorted((done - told).items()):
        action, outcome, what = deed
        yield Violation(
            "audited", f"{times} of {done[deed]} not in the trail: {action} {outcome} {what}".rstrip()
        )


def audit_in(text: str) -> list[Audited]:
    """What an export holds. ValueError, TypeError or KeyError if it is none."""
    rows = (json.loads(line) for line in text.splitlines())
    return [Audited(**{**row, "studies": tuple(row["studies"])}) for row in rows]


def _told(row: Audited) -> Iterable[Deed]:
    if row.action in ("store", "delete"):
        yield row.action, row.outcome, row.instance
    elif row.action == "retrieve":
        for study in row.studies:
            yield row.action, row.outcome, study
    elif row.action == "query" and row.protocol == "http":
        yield row.action, row.outcome, ""


def _done(each: Operation, evidence: Evidence) -> Deed | None:
    """What has to be in the trail of an operation; None if its client does not know."""
    if each.acknowledged:
        return "store", "success", each.uid
    if each.status == CONFLICT:
        return "store", "conflict", each.uid
    if each.kind == DELETE and each.result is Result.OK:
        return "delete", "success", each.uid
    if each.kind == "WADO-RS" and each.result is Result.OK and each.uid in evidence.places:
        return "retrieve", "success", evidence.places[each.uid].study
    if each.kind == "QIDO-RS" and (each.result is Result.OK or each.status.endswith(" rows")):
        return "query", "success", ""
    return None
