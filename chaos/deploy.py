"""Deploying Stele on a lab: the project's own playbooks, run where the deploying machine stands."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from chaos.deployed import ROOT, STATE, Deployed, Entrance
from chaos.lab.lab import VIRTUAL_ADDRESS, Lab
from chaos.lab.shell import LabError, run, wait_for

DEPLOY_SECONDS = 1500.0
UPGRADE_SECONDS = 2400.0  # three hosts, each of them whole again before the next, on a busy machine
BUNDLE = ROOT / ".cache/bundle"
INVENTORY = ROOT / "ansible/inventories/lab/three.yml"  # unless another is named
SERVER_NAME = "pacs.lab.example"  # of all the lab's inventories, as its virtual address is
MACHINES = {"token": ("chaos", "technologist"), "administrator": ("chaos-delete", "administrator")}


def play(
    lab: Lab,
    playbook: str,
    *options: str,
    inventory: Path | None = None,
    seconds: float = DEPLOY_SECONDS,
) -> float:
    """Run one of the project's playbooks on the lab; returns the seconds it took. LabError.

    `inventory`: from now on the lab's; by default the one that was named last.
    """
    began = time.monotonic()
    with _started(lab, playbook, *options, inventory=inventory) as running:
        try:
            running.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LabError(f"{playbook}: not done after {seconds:g} s; see {_log(lab, playbook)}") from None
    if running.returncode != 0:
        said = _log(lab, playbook).read_text(errors="replace")[-4000:]
        raise LabError(f"{playbook} fails with exit code {running.returncode}:\n{said}")
    return time.monotonic() - began


def play_killed(lab: Lab, playbook: str, tasks: int, after: float, seconds: float = DEPLOY_SECONDS) -> str:
    """Run a playbook and kill it `after` seconds after the beginning of its task number `tasks`.

    Returns the name of the task that ran last; what a module does on a host then goes on there, as it does
    when a machine dies that runs Ansible. LabError if the playbook has ended before, or takes too long.
    """
    log = _log(lab, playbook)

    def begun() -> list[str]:
        return re.findall(r"^TASK \[(.*)\]", log.read_text(errors="replace"), re.MULTILINE)

    with _started(lab, playbook) as running:
        wait_for(
            lambda: running.poll() is not None or len(begun()) >= tasks, seconds, f"no task {tasks} in {log}"
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(after)
        if running.poll() is not None:
            raise LabError(f"{playbook} has ended by itself after {len(begun())} tasks; see {log}")
    return begun()[-1]


@contextlib.contextmanager
def _started(
    lab: Lab, playbook: str, *options: str, inventory: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A playbook that runs, from the clients' side; what is left of it in the end is killed."""
    ansible = Path(sys.executable).with_name("ansible-playbook")
    command = lab.client_command(
        *("env", f"STELE_LAB_NAME={lab.record.name}", f"ANSIBLE_CONFIG={ROOT}/ansible/ansible.cfg"),
        *("ANSIBLE_NOCOLOR=1", f"PATH={ansible.parent}:{os.environ['PATH']}", "LC_ALL=C.UTF-8"),
        *(str(ansible), "-i", str(_inventory(lab, inventory)), str(ROOT / "ansible" / playbook), *options),
    )
    with _log(lab, playbook).open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def _log(lab: Lab, playbook: str) -> Path:
    """What the last run of a playbook said."""
    return lab.folder / f"{playbook}.log"


def upgrade(lab: Lab, bundle: Path) -> float:
    """Upgrade every host to what a bundle holds; returns the seconds it took. LabError."""
    return play(lab, "upgrade.yml", "--extra-vars", f"stele_bundle={bundle}", seconds=UPGRADE_SECONDS)


def changed(lab: Lab, playbook: str) -> dict[str, int]:
    """What the last run of a playbook changed, by host, as its recap tells."""
    recap = _log(lab, playbook).read_text(errors="replace").rpartition("PLAY RECAP")[2]
    return {host: int(count) for host, count in re.findall(r"^(\S+).* changed=(\d+)", recap, re.MULTILINE)}


def enter(lab: Lab) -> Deployed:
    """The cluster that is deployed on the lab, with accounts for its clients."""
    token, administrator = (lab.folder / name for name in MACHINES)
    cluster = Deployed(
        lab, Entrance(VIRTUAL_ADDRESS, SERVER_NAME, _pki(lab) / "trusted.crt", token, administrator)
    )
    for name, (machine, role) in MACHINES.items():
        file = lab.folder / name
        if not file.exists():
            said = cluster.stele("machine", "add", machine, "--role", role)
            file.touch(mode=0o600)
            file.write_text(said.strip().splitlines()[-1])
    return cluster


def entered(lab: Lab) -> bool:
    """Whether somebody has entered a cluster on this lab, so that one is deployed."""
    return all((lab.folder / name).exists() for name in MACHINES)


def client_certificate(lab: Lab, name: str) -> tuple[Path, Path]:
    """Certificate and key (PEM files) of a modality, by the authority that the cluster's HAProxy trusts."""
    issue = ROOT / "ansible/roles/certificates/files/issue"
    run("sh", str(issue), str(_pki(lab)), name, "30", "1", f"DNS:{name}")
    return _pki(lab) / f"{name}.crt", _pki(lab) / f"{name}.key"


def _pki(lab: Lab) -> Path:
    return lab.folder / STATE / "pki"


def _inventory(lab: Lab, named: Path | None) -> Path:
    remembered = lab.folder / "inventory"
    if named is not None:
        remembered.write_text(str(named.resolve(strict=True)))
    return Path(remembered.read_text()) if remembered.exists() else INVENTORY
