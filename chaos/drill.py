"""The restore drill: clients store, a backup is made, they store more, the catalog is wiped on every member.

| Drill | What it is brought back from |
|---|---|
| log | the backup and the archived log, then the objects: what was not archived yet when all died |
| older | the backup and nothing after it, then the objects |
| objects | the objects alone |

Between backup and wipe some studies are deleted, too: their bytes must never come back. Where neither log
nor audit trail tells of the deletion (older), their rows do come back: objects cannot tell what was deleted
from what was lost, so such rows are counted, not hidden, and `stele check` names them.

Judged by the same checks as every scenario, on everything that clients were told.
"""

import json
import time
import zlib
from collections.abc import Set
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos import corpus, deploy, history
from chaos.campaign import READ_BACK_SECONDS
from chaos.checks import violations
from chaos.deployed import STELE, Deployed
from chaos.faults.fault import RATE
from chaos.judging import evidence
from chaos.lab.lab import Lab
from chaos.lab.shell import LabError, run
from chaos.model import Limits, Violation
from chaos.scenario import WELL_SECONDS

DRILLS = {
    "log": (),
    "older": ("--extra-vars", "stele_restore_target=backup"),
    "objects": ("--extra-vars", "stele_restore_from=objects"),
}
TARGET_SECONDS = 3600.0
DATA = "/var/lib/postgresql/17/stele"
STORING_SECONDS = 30.0  # before the backup, and after it
DOOMED_SECONDS = 4.0
ENDING_SECONDS = 120.0
CHECK_SECONDS = 600.0
ADMINISTRATOR = "drill"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a drill went; times in seconds. `served`: from the restore's beginning until nothing was wrong.

    `returned`: rows of deleted studies that are listed again; `violations`: promises that do not hold.
    """

    drill: str
    seed: int
    acknowledged: int
    deleted: int
    returned: int
    backup: float
    restore: float
    served: float
    violations: list[str]

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, in time."""
        return not self.violations and self.served <= TARGET_SECONDS

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps(asdict(self))


def conduct(cluster: Deployed, drill: str, seed: int, folder: Path, rate: float = RATE) -> Outcome:
    """Wipe the catalog and get it back as `drill` says; histories are in `folder`. LabError."""
    cluster.wait_well(WELL_SECONDS)
    before, after, doomed = (
        folder / f"{drill}-{part}-{seed}.jsonl" for part in ("before", "after", "doomed")
    )
    _store(cluster, doomed, DOOMED_SECONDS, rate)
    _store(cluster, before, STORING_SECONDS, rate)
    backup = deploy.play(cluster.lab, "backup.yml")
    _store(cluster, after, STORING_SECONDS, rate)
    token = cluster.stele("machine", "add", ADMINISTRATOR, "--role", "administrator").split()[-1]
    deleted = _delete(cluster, doomed, token)
    _wipe(cluster.lab)
    began = time.monotonic()
    restore = deploy.play(cluster.lab, "restore.yml", *DRILLS[drill])
    if drill == "objects":  # which know no accounts
        (cluster.lab.folder / "token").unlink()
    cluster = deploy.enter(cluster.lab)
    cluster.wait_well(WELL_SECONDS)
    served = time.monotonic() - began
    found, returned = _judge(cluster, drill, folder, [before, after], doomed)
    return Outcome(
        drill=drill,
        seed=seed,
        acknowledged=sum(each.acknowledged for each in history.read([before, after]).operations),
        deleted=deleted,
        returned=returned,
        backup=backup,
        restore=restore,
        served=served,
        violations=[str(each) for each in found],
    )


def _store(cluster: Deployed, log: Path, seconds: float, rate: float) -> None:
    clients = cluster.traffic(log, zlib.crc32(log.stem.encode()), rate, seconds)
    try:
        code = clients.wait(seconds + ENDING_SECONDS)
    finally:
        clients.kill()
        clients.wait()
    if code != 0:
        raise LabError(f"the clients have ended with exit code {code}; see {log.with_suffix('.log')}")


def _delete(cluster: Deployed, doomed: Path, token: str) -> int:
    """Delete every study that a history tells of, as an administrator; how many instances went."""
    stored = {each.uid for each in history.read([doomed]).operations if each.acknowledged}
    rows = [each.row for each in corpus.all_instances(history.read([doomed]).corpora)]
    entrance = cluster.entrance
    for study in sorted({row.study for row in rows if row.uid in stored}):
        command = (
            *("curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--request", "DELETE"),
            *("--resolve", f"{entrance.server_name}:{entrance.https_port}:{entrance.address}"),
            *("--cacert", str(entrance.ca), "--header", f"Authorization: Bearer {token}"),
            f"https://{entrance.server_name}:{entrance.https_port}/dicom-web/studies/{study}",
        )
        run(*cluster.lab.client_command(*command), seconds=60)
    return len(stored)


def _wipe(lab: Lab) -> None:
    """Every member dies and loses its data at once; Patroni starts again and finds nothing."""
    hosts = list(lab.hosts.values())
    for host in hosts:
        host.run("sh", "-c", "systemctl kill --signal=KILL patroni; systemctl stop patroni")
    for host in hosts:
        host.run("sh", "-c", f"pkill -KILL -u postgres -x postgres; rm -rf {DATA}")
    for host in hosts:
        host.run("systemctl", "start", "--no-block", "patroni")


def _judge(
    cluster: Deployed, drill: str, folder: Path, histories: list[Path], doomed: Path
) -> tuple[list[Violation], int]:
    """What does not hold, and how many rows of deleted instances are listed again."""
    readback, gone = folder / f"{drill}-readback.json", folder / f"{drill}-doomed.json"
    cluster.read_back(histories, readback, READ_BACK_SECONDS)
    cluster.read_back([doomed], gone, READ_BACK_SECONDS)
    forgotten = evidence([doomed], gone, Limits()).seen
    returned = {row.uid for listing in forgotten.listings.values() for row in listing.instances}
    bytes_back = {uid for contents in forgotten.retrieved.values() for uid in contents}
    findings = folder / f"{drill}-check.jsonl"
    findings.write_text(unexplained(_check(cluster), returned if drill == "older" else set()))
    # Nobody was served while the catalog was away: the gap is what the drill measures, not a broken promise
    given = evidence(histories, readback, Limits(gap_seconds=TARGET_SECONDS), findings=findings)
    found = violations(given)
    found += [Violation("deleted", f"its bytes come back: {uid}") for uid in sorted(bytes_back)]
    if drill != "older":
        found += [Violation("deleted", f"listed again: {uid}") for uid in sorted(returned)]
    return found, len(returned)


def _check(cluster: Deployed) -> str:
    """What `stele check --json` says, whether anything is wrong or not."""
    host = next(iter(cluster.lab.hosts.values()))
    command = f"{' '.join(STELE)} check --json || [ $? = 1 ]"
    return host.run("sh", "-c", command, seconds=CHECK_SECONDS).decode()


def unexplained(said: str, deleted: Set[str]) -> str:
    """Findings of `stele check --json`, without rows of deleted instances whose objects are missing."""
    found = [(json.loads(line), line) for line in said.splitlines()]
    kept = [line for each, line in found if each["kind"] != "missing" or each["name"] not in deleted]
    return "".join(f"{line}\n" for line in kept)


def write(outcome: Outcome, folder: Path) -> None:
    """Add it to the folder's outcomes."""
    with (folder / "drills.jsonl").open("a") as lines:
        lines.write(f"{outcome.line()}\n")
