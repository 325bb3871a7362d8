"""Deploying Stele on a lab: the project's own playbooks, run where the deploying machine stands."""

import os
import re
import sys
import time
from pathlib import Path

from chaos.deployed import ROOT, STATE, Deployed, Entrance
from chaos.lab.lab import VIRTUAL_ADDRESS, Lab
from chaos.lab.shell import LabError, run

DEPLOY_SECONDS = 1500.0
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
    ansible = Path(sys.executable).with_name("ansible-playbook")
    environment = (
        *("env", f"STELE_LAB_NAME={lab.record.name}", f"ANSIBLE_CONFIG={ROOT}/ansible/ansible.cfg"),
        *("ANSIBLE_NOCOLOR=1", f"PATH={ansible.parent}:{os.environ['PATH']}", "LC_ALL=C.UTF-8"),
    )
    hosts = _inventory(lab, inventory)
    command = (str(ansible), "-i", str(hosts), str(ROOT / "ansible" / playbook), *options)
    began = time.monotonic()
    done = lab.client(*environment, *command, seconds=seconds)
    (lab.folder / f"{playbook}.log").write_bytes(done.stdout + done.stderr)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")[-4000:]
        raise LabError(f"{playbook} fails with exit code {done.returncode}:\n{said}")
    return time.monotonic() - began


def upgrade(lab: Lab, bundle: Path) -> float:
    """Upgrade every host to what a bundle holds; returns the seconds it took. LabError."""
    return play(lab, "upgrade.yml", "--extra-vars", f"stele_bundle={bundle}")


def changed(lab: Lab, playbook: str) -> dict[str, int]:
    """What the last run of a playbook changed, by host, as its recap tells."""
    recap = (lab.folder / f"{playbook}.log").read_text(errors="replace").rpartition("PLAY RECAP")[2]
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
