"""`python -m chaos check`, in the process."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chaos import corpus
from chaos.checks import CHECKS
from chaos.cli import app
from chaos.history import History, Operation, Result
from chaos.model import Listing, Seen
from chaos.readback.whole import load, save

INSTANCE = corpus.instances(1, 1)[0]
STORED = Operation("client", "C-STORE", INSTANCE.uid, "1.2 aa", 1.0, 2.0, Result.OK, "0000", "vip:104")


def check(*arguments: object) -> tuple[int, str]:
    """(exit code, output)."""
    done = CliRunner().invoke(app, ["check", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A history and a read-back in which everything is right."""
    history = History(tmp_path / "history")
    history.describe(1, 1)
    history.add(STORED)
    listing = Listing(studies=[(INSTANCE.study, 1)], series=[(INSTANCE.series, 1)], instances=[INSTANCE.row])
    seen = Seen({"QIDO-RS at a": listing}, {"WADO-RS at a": {INSTANCE.uid: "1.2 aa"}}, flipped={"x"})
    save(seen, tmp_path / "seen")
    assert load(tmp_path / "seen") == seen
    return tmp_path / "history", tmp_path / "seen"


def test_all_holds(files: tuple[Path, Path]) -> None:
    code, output = check(*files)
    assert code == 0
    assert output.splitlines() == [f"{name}: holds" for name in CHECKS]


def test_limits_and_the_addresses_they_hold_for(files: tuple[Path, Path]) -> None:
    assert check(*files, "--operation-seconds", "0.5")[0] == 1
    assert check(*files, "--operation-seconds", "0.5", "--service", "https://vip")[0] == 0
    assert check(*files, "--gap-seconds", "0.5")[0] == 1


def test_findings_of_the_archives_own_check(files: tuple[Path, Path], tmp_path: Path) -> None:
    findings = tmp_path / "findings"
    findings.write_text('{"kind": "missing", "name": "1.2"}\n{"kind": "orphan", "name": "ab"}\n')
    code, output = check(*files, "--findings", findings)
    assert code == 1
    assert "reconciled: 2 violations\n  missing: 1.2\n  1 orphans of 0 " in output


def test_the_audit_trail_and_write_probes(files: tuple[Path, Path], tmp_path: Path) -> None:
    trail, probes = tmp_path / "trail", tmp_path / "probes"
    row = {"action": "store", "outcome": "success", "protocol": "dimse", "studies": []}
    trail.write_text(json.dumps({**row, "instance": INSTANCE.uid}) + "\n")
    probe = {"host": "a", "timeline": 1, "began": 1.0, "ended": 1.1}
    probes.write_text(json.dumps(probe) + "\n")
    assert check(*files, "--audit", trail, "--probes", probes)[0] == 0
    trail.write_text("")
    with probes.open("a") as more:
        more.write(json.dumps({**probe, "host": "b"}) + "\n")
    code, output = check(*files, "--audit", trail, "--probes", probes)
    assert code == 1
    assert f"audited: 1 violations\n  1 of 1 not in the trail: store success {INSTANCE.uid}" in output
    assert "one primary: 1 violations\n  timeline 1 acknowledged on a and b" in output
    probes.write_text("{}\n")
    assert check(*files, "--probes", probes)[0] == 2


def test_an_error_page_beside_a_history_is_searched(files: tuple[Path, Path]) -> None:
    files[0].with_name("history.pages").write_text("no such thing\n")
    assert check(*files)[0] == 0
    files[0].with_name("history.pages").write_text(f"no {corpus.CANARY}^PATIENT\n")
    assert check(*files)[0] == 1


def test_one_thing_that_happens_often_is_told_once(files: tuple[Path, Path]) -> None:
    history = History(files[0])
    for _ in range(30):
        history.add(Operation("r", "QIDO-RS", "1", "", 1.0, 2.0, Result.REFUSED, "401"))
    code, output = check(*files)
    assert code == 1
    assert "alive: 30 violations\n  r: QIDO-RS answered 401 (30 times)\nsilent" in output


@pytest.mark.parametrize("broken", ["history", "seen", "findings"])
def test_files_that_are_something_else(files: tuple[Path, Path], tmp_path: Path, broken: str) -> None:
    (tmp_path / broken).write_text("[]" if broken == "seen" else "{}\n")
    more = ["--findings", str(tmp_path / "findings")] if broken == "findings" else []
    assert check(*files, *more)[0] == 2
    assert check(tmp_path / "nowhere", files[1])[0] == 2


@pytest.mark.parametrize(
    "options", [[], ["osd-killed", "--all"], ["osd-killed", "--random", "2"], ["osd-killd"], ["osd-killed+x"]]
)
def test_what_to_run_is_said_in_one_way_and_exists(tmp_path: Path, options: list[str]) -> None:
    done = CliRunner().invoke(app, ["run", "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 2, done.output
    assert not (tmp_path / "out").exists()


def test_a_campaign_that_cannot_begin_has_an_exit_code_and_a_report(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["run", "--out", str(tmp_path / "out"), "--lab", "nosuchlab", "osd-killed"]
    )
    assert done.exit_code == 3, done.output
    assert "no lab named 'nosuchlab' runs" in done.output
    assert "Unfinished" in (tmp_path / "out/report.html").read_text()
