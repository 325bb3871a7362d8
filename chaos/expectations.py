"""Whether clients got what they may expect of a fault: pure functions over the history.

Three kinds of faults are judged each in its way: clients are soon served again though the fault goes on;
stores are refused for as long as it holds, and soon taken again afterwards; or nobody notices anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chaos.checks import NOT_THERE
from chaos.faults import Expect, Fault
from chaos.history import CONFLICT, READS, STORES, Operation, Result
from chaos.recovery import longest_gap, recovery_seconds


@dataclass(frozen=True, slots=True)
class Course:
    """When a fault was made, when its healing began, when nothing was wrong any more, and when the clients
    were told to end, in seconds of the history's clock. `before` and `after`: who had which role. `holders`:
    who has the virtual IP at last."""

    made: float
    healed: float
    whole: float
    end: float
    before: Mapping[str, str]
    after: Mapping[str, str]
    holders: Sequence[str]


def recovery(fault: Fault, operations: Iterable[Operation], course: Course) -> float | None:
    """Seconds without any acknowledgement: from the fault to the end, or from the healing where stores are
    refused meanwhile. None if nothing was acknowledged any more. The end is when clients are told to end: one
    that still waits then for an answer is not the archive's silence."""
    since = course.healed if fault.expects is Expect.REFUSED else course.made
    known = list(operations)
    last = max((each.returned for each in known if each.kind in STORES), default=course.end)
    gap = longest_gap(known, since, min(course.end, last))
    return gap.seconds if gap and recovery_seconds(known, since) is not None else None


def failures(operations: Iterable[Operation], course: Course) -> int:
    """Operations that ended after the fault without success. Who lost a race for a UID has not failed, nor
    who was told that nothing is there: whether it should be is `chaos.checks`' question."""
    ended = (each for each in operations if each.returned >= course.made)
    answered = NOT_THERE | {CONFLICT}
    return sum(each.result is not Result.OK and each.status not in answered for each in ended)


def reads_meanwhile(operations: Iterable[Operation], course: Course) -> int:
    """Reads that began and succeeded while the fault held."""
    return sum(each.kind in READS and each.result is Result.OK for each in _meanwhile(operations, course))


def broken(fault: Fault, operations: Iterable[Operation], course: Course) -> list[str]:
    """What was promised and not kept, in sentences, but for the recovery time."""
    known = list(operations)
    found = []
    if fault.expects is Expect.UNNOTICED and (failed := failures(known, course)):
        found.append(f"{failed} operations failed")
    if fault.expects is Expect.REFUSED:
        found += _refusals(fault, known, course)
    if fault.share:
        found += _share(fault, known, course)
    if course.whole - course.healed > fault.whole_seconds:
        found.append(f"whole again after {course.whole - course.healed:.0f} s, not {fault.whole_seconds:g}")
    if fault.roles_stay:
        for role, who in course.before.items():
            if course.after.get(role) != who:
                found.append(f"{role} was {who}, and is {course.after.get(role)}")
    if len(course.holders) != 1:
        found.append(f"the virtual IP is held by {', '.join(course.holders) or 'nobody'}")
    return found


def refused(operation: Operation) -> bool:
    """Whether a store was refused, and not for another's bytes under its UID."""
    is_store = operation.kind in STORES and operation.status != CONFLICT
    return is_store and operation.result is Result.REFUSED


def unseen(what: str, limit: float, seen: float | None) -> str:
    """The sentence for a sign that was not seen in time; "" if it was."""
    if seen is None:
        return f"not seen: {what}"
    return f"{what} after {seen:.0f} s, not {limit:g}" if seen > limit else ""


def _refusals(fault: Fault, operations: list[Operation], course: Course) -> Iterable[str]:
    meanwhile = _meanwhile(operations, course)
    if not any(map(refused, meanwhile)):
        yield "no store was refused"
    settled = course.made + fault.settling_seconds
    taken = [each for each in meanwhile if each.acknowledged and each.invoked >= settled]
    if taken := [each for each in taken if each.returned < course.healed]:
        yield f"{len(taken)} stores were acknowledged all the same"
    if fault.reads_go_on and not reads_meanwhile(operations, course):
        yield "no read succeeded"


def _share(fault: Fault, operations: list[Operation], course: Course) -> Iterable[str]:
    taken = {each.uid for each in _meanwhile(operations, course) if each.acknowledged}
    sent = fault.rate * (course.healed - course.made)
    if len(taken) < fault.share * sent:
        yield f"{len(taken)} of {sent:.0f} instances were acknowledged meanwhile"


def _meanwhile(operations: Iterable[Operation], course: Course) -> list[Operation]:
    return [each for each in operations if course.made <= each.invoked < course.healed]
