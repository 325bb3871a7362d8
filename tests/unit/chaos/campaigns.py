"""A campaign's folder without a cluster: histories as clients leave them, and what an archive says then."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from chaos import corpus
from chaos.folder import Campaign, Folder
from chaos.history import DELETE, History, Operation, Result
from chaos.journals import Line
from chaos.model import Audited, Listing, Probe, Seen
from chaos.readback.whole import save
from chaos.scenario import Outcome, new_history
from chaos.watch import Watched

FAULT = 103.5  # its moment, seconds
STEPS = [("osd-killed", 1), ("osd-killed", 2), ("host-off", 1)]
OUTCOME = Outcome(
    fault="osd-killed",
    tier="Ceph",
    seed=1,
    victim="ceph-osd@1 on host1",
    target=5,
    recovery=2.5,
    whole=8.0,
    acknowledged=4,
    refused=1,
    unknown=1,
    load=3.5,
    cores=2,
    made=FAULT,
    healed=111.0,
)
CAMPAIGN = Campaign("2026-01-02T03:04:05+00:00", "0.1.0 (abc)", "cluster", STEPS, 60.0)


def outcome(step: tuple[str, int], **others: object) -> Outcome:
    """That of a step."""
    return replace(OUTCOME, fault=step[0], seed=step[1], **others)  # type: ignore[arg-type]


def record(folder: Folder, step: tuple[str, int], corpus_seed: int) -> list[corpus.Instance]:
    """A scenario's history: four stores, one of them tried again after the fault; a read and a deletion.
    Returns what is there afterwards."""
    history = new_history(folder.path, *step)
    instances = corpus.instances(corpus_seed, 4)
    kept = History(history)
    kept.describe(corpus_seed, 4)
    stored = [
        Operation("dcmtk-1", "C-STORE", each.uid, f"1.2 {number}", at, at + 0.5, Result.OK, "0000")
        for number, (each, at) in enumerate(zip(instances, (100.0, 101.0, 102.0, 103.0), strict=True))
    ]
    lost = replace(stored[3], returned=104.0, result=Result.UNKNOWN, status="association lost")
    refused = replace(stored[3], invoked=104.0, returned=104.5, result=Result.REFUSED, status="A700")
    again = replace(stored[3], invoked=105.0, returned=106.0)
    read = Operation("reader-1", "WADO-RS", instances[0].uid, "1.2 0", 104.0, 104.1, Result.OK, "200")
    gone = Operation("deleter", DELETE, instances[2].uid, "", 107.0, 107.2, Result.OK, "204")
    for each in (*stored[:3], lost, refused, read, again, gone):
        kept.add(each)
    watched = Watched(
        troubles=[(104.0, []), (106.5, ["1 of 6 OSDs is down"]), (119.0, [])],
        load=[(104.0, 2.0), (106.5, 3.5)],
        lines={"host1": [Line(103.9, "ceph-osd@1", "Main process exited", 2)]},
    )
    history.with_suffix(".watch.json").write_text(json.dumps(asdict(watched)))
    history.with_suffix(".probes").write_text(json.dumps(asdict(Probe("host1", 1, 100.0, 100.1))) + "\n")
    return [each for each in instances if each.uid != instances[2].uid]


def finish(folder: Folder, there: list[corpus.Instance]) -> Seen:
    """What an archive says that has kept every promise, on disk; returned for those who break one."""
    listing = Listing(
        studies=[(uid, sum(each.study == uid for each in there)) for uid in {each.study for each in there}],
        series=[(uid, sum(each.series == uid for each in there)) for uid in {each.series for each in there}],
        instances=[each.row for each in there],
    )
    seen = Seen({"QIDO-RS": listing}, {"WADO-RS": {each.uid: f"1.2 {each.number}" for each in there}})
    save(seen, folder.readback)
    folder.findings.write_text("")
    folder.audit.write_text("".join(f"{json.dumps(asdict(row))}\n" for row in trail(folder)))
    return seen


def trail(folder: Folder) -> list[Audited]:
    """What the audit trail has of all histories."""
    rows = []
    for path in folder.histories():
        for line in path.read_text().splitlines()[1:]:
            each = Operation.from_line(line)
            if each.result is Result.OK and each.kind != "WADO-RS":
                action = "delete" if each.kind == DELETE else "store"
                rows.append(Audited(action, "success", "http", (), each.uid))
    studies = {each.uid: each.study for seed in range(1, 4) for each in corpus.instances(seed, 4)}
    reads = [corpus.instances(seed, 4)[0].uid for seed in range(1, 4)]
    return [*rows, *(Audited("retrieve", "success", "http", (studies[uid],), "") for uid in reads)]


def whole(path: Path, **others: object) -> Folder:
    """A campaign that is over and kept every promise; `others`: of the first outcome."""
    folder = Folder(path)
    folder.write(CAMPAIGN)
    there = []
    for number, step in enumerate(STEPS, 1):
        there += record(folder, step, number)
        folder.add(outcome(step, **(others if number == 1 else {})))
    finish(folder, there)
    return folder
