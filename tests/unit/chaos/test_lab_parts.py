"""Parts of the lab that need no root: recipe, mirror, records."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.lab import records, rootfs
from chaos.lab.records import Record
from chaos.lab.shell import LabError, run, wait_for
from cluster.bundle import apt


def test_a_changed_recipe_makes_another_root_file_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = rootfs.path(tmp_path)
    assert rootfs.path(tmp_path) == before
    monkeypatch.setattr(rootfs, "PACKAGES", (*rootfs.PACKAGES, "nano"))
    assert rootfs.path(tmp_path) != before


def test_packages_of_another_release_come_from_the_same_mirror() -> None:
    sources = apt.Mirror("http://mirror.invalid/debian/", "http://mirror.invalid/debian-security/").sources(
        "trixie"
    )
    assert [line.split("] ")[1] for line in sources.splitlines()] == [
        "http://mirror.invalid/debian/ trixie main",
        "http://mirror.invalid/debian/ trixie-updates main",
        "http://mirror.invalid/debian-security/ trixie-security main",
    ]
    assert "security" not in apt.Mirror("http://mirror.invalid/debian/", None).sources("trixie")


def test_a_record_is_abandoned_when_its_owner_died_or_the_machine_restarted() -> None:
    process, began = records.owner()
    mine = Record("x", 3, "/disks", "/image", records.boot_number(), process, began)
    assert not mine.abandoned()
    assert not replace(mine, owner=0, owner_started=0).abandoned()
    assert replace(mine, boot="another").abandoned()
    assert replace(mine, owner_started=began - 1).abandoned()  # the number was given to another process
    ended = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # dead, but still listed
        assert records.started(ended.pid) == 0
    finally:
        ended.wait()


def test_a_lab_of_another_version_is_left_to_that_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(records, "RUN", tmp_path)
    mine = Record("mine", 3, "/disks", "/image", records.boot_number(), 0, 0)
    mine.write()
    replace(mine, name="theirs").write()
    assert [each.name for each in records.all_records()] == ["mine", "theirs"]
    theirs = tmp_path / "theirs/record.json"
    theirs.write_text(theirs.read_text().replace("{", '{"colour": "red", '))
    assert records.all_records() == [mine]


def test_a_failed_program_says_why() -> None:
    with pytest.raises(LabError, match="exit code 3: because"):
        run("sh", "-c", "echo because >&2; exit 3")
    with pytest.raises(LabError, match=r"not done after 0\.1 s"):
        run("sleep", "5", seconds=0.1)
    with pytest.raises(LabError, match=r"after 0\.1 s: it never comes"):
        wait_for(lambda: False, 0.1, "it never comes")
