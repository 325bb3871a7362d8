"""The checks on histories of an archive in a few lines: none of a right one breaks a promise, however clients
and faults meet; of a wrong one the broken promise is named.

The archive takes the first content of each UID. A fault refuses a store, or loses its answer before or after
it has taken effect. What is deleted is gone, until it is stored again.
"""

from dataclasses import dataclass, field, replace

from hypothesis import assume, given
from hypothesis import strategies as st

from chaos.checks import CHECKS, judge
from chaos.history import CONFLICT, DELETE, Operation, Result
from chaos.model import Audited, Listing, Probe, Row, Seen

UIDS = [f"1.{number}" for number in range(4)]
CONTENTS = ["1.2 a", "1.2 b"]
FATES = ["answered", "refused", "lost before", "lost after"]
PLACES = {
    uid: Row(f"P{number % 2}", f"8.{number % 2}", f"9.{number}", uid) for number, uid in enumerate(UIDS)
}


@dataclass
class Run:
    """A history, and what the archive has in the end."""

    operations: list[Operation] = field(default_factory=list)
    stored: dict[str, str] = field(default_factory=dict)

    def seen(self, nodes: tuple[str, ...] = ("a", "b")) -> Seen:
        rows = [PLACES[uid] for uid in self.stored]

        def listing() -> Listing:
            studies, series = {row.study for row in rows}, {row.series for row in rows}
            return Listing(
                patients=sorted({row.patient_id for row in rows}),
                studies=[(uid, sum(row.study == uid for row in rows)) for uid in studies],
                series=[(uid, sum(row.series == uid for row in rows)) for uid in series],
                instances=list(rows),
            )

        return Seen(
            listings={f"QIDO-RS at {node}": listing() for node in nodes},
            retrieved={f"WADO-RS at {node}": dict(self.stored) for node in nodes},
        )

    def acknowledged(self) -> list[Operation]:
        return [each for each in self.operations if each.acknowledged]


@st.composite
def runs(draw: st.DrawFn, kinds: tuple[str, ...] = ("store", "read")) -> Run:
    """Stores and reads, and deletions if need be, one after the other."""
    run = Run()
    steps = st.tuples(
        st.sampled_from(kinds),
        st.sampled_from(UIDS),
        st.sampled_from(CONTENTS),
        st.sampled_from(FATES),
    )
    for number, (kind, uid, content, fate) in enumerate(draw(st.lists(steps, min_size=1, max_size=30))):
        at = float(number)
        if kind == "read":
            run.operations.append(_read(run, uid, at, fate))
        elif kind == "delete":
            run.operations.append(_delete(run, uid, at, fate))
        else:
            run.operations.append(_store(run, uid, content, at, fate))
    return run


def _store(run: Run, uid: str, content: str, at: float, fate: str) -> Operation:
    done = Operation("client", "C-STORE", uid, content, at, at + 0.5, Result.UNKNOWN, "association lost")
    if fate == "refused":
        return replace(done, result=Result.REFUSED, status="A700")
    if fate == "lost before":
        return done
    kept = run.stored.setdefault(uid, content)
    if fate == "lost after":
        return done
    if kept != content:
        return replace(done, result=Result.REFUSED, status=CONFLICT)
    return replace(done, result=Result.OK, status="0000")


def _delete(run: Run, uid: str, at: float, fate: str) -> Operation:
    done = Operation("deleter", DELETE, uid, "", at, at + 0.5, Result.UNKNOWN, "ReadTimeout")
    if fate == "refused":
        return replace(done, result=Result.REFUSED, status="503")
    if fate == "lost before":
        return done
    was_there = run.stored.pop(uid, None) is not None
    if fate == "lost after":
        return done
    if was_there:
        return replace(done, result=Result.OK, status="204")
    return replace(done, result=Result.REFUSED, status="404")


def _read(run: Run, uid: str, at: float, fate: str) -> Operation:
    done = Operation("reader", "WADO-RS", uid, "", at, at + 0.5, Result.UNKNOWN, "ReadTimeout")
    if fate.startswith("lost"):
        return done
    if fate == "refused":
        return replace(done, result=Result.REFUSED, status="503")
    if uid not in run.stored:
        return replace(done, result=Result.REFUSED, status="404")
    return replace(done, result=Result.OK, status="200", content=run.stored[uid])


def broken(run: Run, seen: Seen) -> set[str]:
    return {each.invariant for each in judge(run.operations, PLACES.values(), seen)}


@given(runs())
def test_a_right_archive_breaks_no_promise(run: Run) -> None:
    assert judge(run.operations, PLACES.values(), run.seen()) == []


DELETING = ("store", "read", "delete")


@given(runs(DELETING))
def test_a_right_archive_that_deletes_breaks_no_promise_either(run: Run) -> None:
    assert judge(run.operations, PLACES.values(), run.seen()) == []


@given(runs(DELETING), st.sampled_from(UIDS))
def test_what_comes_back_is_caught(run: Run, uid: str) -> None:
    run.operations = [each for each in run.operations if each.uid != uid]
    run.stored.pop(uid, None)
    content = CONTENTS[0]
    run.operations += [_store(run, uid, content, 40.0, "answered"), _delete(run, uid, 41.0, "answered")]
    later = 42.0

    listed = run.seen()
    listed.listings["QIDO-RS at b"].instances.append(PLACES[uid])
    assert "deleted" in broken(run, listed)

    retrieved = run.seen()
    retrieved.retrieved["WADO-RS at a"][uid] = content
    assert "deleted" in broken(run, retrieved)

    read = Operation("reader", "WADO-RS", uid, content, later, later + 1, Result.OK, "200", "a")
    assert broken(Run([*run.operations, read]), run.seen()) == {"deleted"}


@given(runs(), st.data())
def test_a_wrong_one_is_caught_by_the_promise_it_breaks(run: Run, data: st.DataObject) -> None:
    assume(run.acknowledged())
    store = data.draw(st.sampled_from(run.acknowledged()))
    node = data.draw(st.sampled_from(["a", "b"]))
    later = run.operations[-1].returned + 1

    lost = run.seen()
    del lost.retrieved[f"WADO-RS at {node}"][store.uid]
    assert {"durable", "atomic"} <= broken(run, lost)

    corrupt = run.seen()
    corrupt.retrieved[f"WADO-RS at {node}"][store.uid] = "1.2 half"
    assert {"durable", "atomic"} <= broken(run, corrupt)

    twice = run.seen()
    twice.listings[f"QIDO-RS at {node}"].instances.append(PLACES[store.uid])
    assert "once" in broken(run, twice)

    read = Operation("reader", "QIDO-RS", store.uid, "", later, later + 1, Result.REFUSED, "0 rows", node)
    assert broken(Run([*run.operations, read]), run.seen()) == {"fresh"}

    other = replace(store, content="1.2 other", invoked=later, returned=later + 1)
    assert "conflict" in broken(Run([*run.operations, other]), run.seen())

    slow = replace(store, returned=store.invoked + 61)
    assert "alive" in broken(Run([*run.operations, slow]), run.seen())

    orphaned, leaking = run.seen(), run.seen()
    orphaned.orphans = len(run.operations) + 1
    assert broken(run, orphaned) == {"reconciled"}
    leaking.leaks = ["in a log"]
    assert broken(run, leaking) == {"silent"}

    forgetful = run.seen()
    forgetful.audit = [row for row in trail_of(run) if row.instance != store.uid]
    assert broken(run, forgetful) == {"audited"}


def trail_of(run: Run) -> list[Audited]:
    """What a right archive has in its audit trail of answered operations."""
    rows = []
    for each in run.operations:
        study = PLACES[each.uid].study
        if each.kind == "WADO-RS" and each.result is Result.OK:
            rows.append(Audited("retrieve", "success", "http", (study,), ""))
        elif each.acknowledged:
            rows.append(Audited("store", "success", "dimse", (study,), each.uid))
        elif each.status == CONFLICT:
            rows.append(Audited("store", "conflict", "dimse", (study,), each.uid))
        elif each.kind == DELETE and each.result is Result.OK:
            rows.append(Audited("delete", "success", "http", (study,), each.uid))
    return rows


@given(runs(DELETING))
def test_a_trail_that_tells_everything_is_right(run: Run) -> None:
    seen = run.seen()
    seen.audit = trail_of(run)
    assert judge(run.operations, PLACES.values(), seen) == []


@st.composite
def reigns(draw: st.DrawFn) -> list[Probe]:
    """Probes of primaries one after the other, each on a timeline of its own; in any order."""
    probes: list[Probe] = []
    at = 0.0
    reign = st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.floats(0, 30))
    for timeline, (host, count, pause) in enumerate(draw(st.lists(reign, min_size=2, max_size=5)), 1):
        at += pause
        for _ in range(count):
            at += 0.5  # a probe may take long; the next one begins when it has ended
            probes.append(Probe(host, timeline, at, at + 0.25))
    return draw(st.permutations(probes))


@given(reigns(), st.data())
def test_primaries_one_after_the_other_are_right_and_a_late_one_is_caught(
    probes: list[Probe], data: st.DataObject
) -> None:
    stored = Operation("client", "C-STORE", UIDS[0], CONTENTS[0], 0, 1, Result.OK, "0000")
    run = Run([stored], {UIDS[0]: CONTENTS[0]})
    right, wrong = run.seen(), run.seen()
    right.probes = probes
    assert broken(run, right) == set()
    newest = max(each.timeline for each in probes)
    old = data.draw(st.sampled_from([each for each in probes if each.timeline != newest]))
    late = max(each.ended for each in probes) + 0.1
    wrong.probes = [*probes, replace(old, began=late, ended=late + 0.1)]
    assert broken(run, wrong) == {"one primary"}


def test_every_check_has_been_seen_to_fail() -> None:
    """What the property above names, so that a new check gets its own case there."""
    assert set(CHECKS) == {
        "durable", "atomic", "once", "fresh", "conflict", "alive", "reconciled", "silent",
        "deleted", "audited", "one primary",
    }  # fmt: skip
