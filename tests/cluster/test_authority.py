"""The scripts that deployment makes certificates with; a change of authority that breaks off goes on."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import require

SCRIPTS = Path(__file__).parents[2] / "ansible/roles/certificates/files"


@pytest.fixture
def pki(tmp_path: Path) -> "Pki":
    require("openssl")
    return Pki(tmp_path / "pki")


class Pki:
    """The folder that both scripts work in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def authority(self, step: str, path: str = "") -> subprocess.CompletedProcess[str]:
        """A step, with programs of `path` before all others."""
        environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        return subprocess.run(
            ["sh", SCRIPTS / "authority", self.folder, step],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def step(self, step: str) -> str:
        done = self.authority(step)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def issue(self, renew_days: int = 60, name: str = "a") -> bool:
        """Whether a certificate was made."""
        given = (str(self.folder), name, "365", str(renew_days), "DNS:a,IP:192.0.2.1")
        done = subprocess.run(["sh", str(SCRIPTS / "issue"), *given], capture_output=True, check=True)
        return done.stdout == b"issued\n"

    def trusts(self, name: str = "a") -> bool:
        """Whether a host that believes `trusted.crt` believes the certificate, by strict rules (RFC 5280)."""
        command = ["openssl", "verify", "-x509_strict", "-CAfile", "trusted.crt", f"{name}.crt"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, check=False).returncode == 0

    def trusted(self) -> int:
        return (self.folder / "trusted.crt").read_text().count("BEGIN CERTIFICATE")

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


def test_a_certificate_is_made_once_and_anew_when_it_has_to_be(pki: Pki) -> None:
    pki.step("keep")
    assert pki.issue()
    assert pki.trusts()
    assert not pki.issue()
    assert not pki.issue(renew_days=364), "younger than a day"
    first = pki.content()["a.crt"]
    assert pki.issue(renew_days=365)
    assert pki.content()["a.crt"] != first
    (pki.folder / "a.key").write_bytes((pki.folder / "ca.key").read_bytes())
    assert pki.issue(), "a key that is not the certificate's"
    assert not any(path.stat().st_mode & 0o077 for path in pki.folder.iterdir()), "nobody else reads keys"


def test_at_no_step_of_a_change_does_a_host_meet_one_whom_it_does_not_trust(pki: Pki) -> None:
    pki.step("keep")
    pki.issue()
    old, old_trust = pki.content(), pki.content()["trusted.crt"]

    assert "made a successor" in pki.step("next")
    assert pki.trusted() == 2
    assert pki.trusts()
    assert not pki.issue(), "the successor signs nothing before all hosts trust it"
    assert pki.step("next") == "", "the same change, not another"

    assert "the successor signs" in pki.step("sign")
    assert pki.trusts(), "certificates of the predecessor are still good"
    assert pki.issue(), "and are replaced"
    assert pki.trusts()
    assert pki.content()["a.crt"] != old["a.crt"]
    assert pki.step("sign") == pki.step("next") == ""

    assert "retired the predecessor" in pki.step("retire")
    assert pki.trusted() == 1
    assert pki.trusts()
    (pki.folder / "trusted.crt").write_bytes(old_trust)
    assert not pki.trusts(), "it was another authority"
    assert pki.step("retire") == "others are trusted\n"


def test_a_predecessor_is_not_retired_before_the_successor_signs(pki: Pki) -> None:
    pki.step("next")
    refused = pki.authority("retire")
    assert refused.returncode == 1
    assert "finish with stele_authority=new first" in refused.stderr
    assert pki.trusted() == 2


def test_a_step_that_broke_off_at_any_command_is_made_up_for(pki: Pki, tmp_path: Path) -> None:
    """The script's n-th mv, cp or rm is killed before it does anything, for each n."""
    for broken in range(1, 20):
        for leftover in list(pki.folder.iterdir()) if pki.folder.exists() else []:
            leftover.unlink()
        pki.step("keep")
        pki.issue()
        tools = tmp_path / f"tools{broken}"
        tools.mkdir()
        for name in ("mv", "cp", "rm"):
            (tools / name).write_text(
                f"#!/bin/sh\necho >>{tools}/count\n"
                f'[ "$(wc -l <{tools}/count)" -ne {broken} ] || {{ kill -9 $PPID; exit; }}\n'
                f'exec /bin/{name} "$@"\n'
            )
            (tools / name).chmod(0o755)
        results = [pki.authority(step, str(tools)).returncode for step in ("next", "sign")]
        pki.step("next")
        assert pki.trusts(), broken
        pki.step("sign")
        assert pki.trusts(), broken
        assert pki.issue(), broken
        assert pki.trusts(), broken
        pki.step("retire")
        assert pki.trusts(), broken
        if not any(results):
            assert broken > 6, "there was something to break"
            return
    pytest.fail("some step never ends")
