"""A lab as a whole: start it, find it again, take it down, and clear away what crashed runs left."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from chaos.lab import records, rootfs
from chaos.lab.host import Host, Place
from chaos.lab.network import CLIENT, CLIENT_ADDRESS, SUBNET, Network
from chaos.lab.records import Record
from chaos.lab.shell import LabError, attempt, run

HOSTS = range(3, 7)
FIRST_ADDRESS = 11
VIRTUAL_ADDRESS = f"{SUBNET}.200"  # kept free for the virtual IP
FETCH_SECONDS = 10.0

_SSH_CONFIG = """\
User root
IdentityFile {folder}/key
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
StrictHostKeyChecking yes
HashKnownHosts no
ConnectTimeout 5
LogLevel ERROR
"""


class Lab:
    """A running lab; `hosts` by name, `network` for its faults. Make one with `start` or `attach`."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.folder = record.folder
        self.ssh_config = self.folder / "ssh_config"
        names = [f"host{number}" for number in range(1, record.hosts + 1)]
        self.network = Network(record.name, names)
        self.hosts = {
            name: Host(
                record.name, name, f"{SUBNET}.{FIRST_ADDRESS + index}", self.network, self._place(name)
            )
            for index, name in enumerate(names)
        }

    def _place(self, host: str) -> Place:
        disk = Path(self.record.disks) / host
        image = Path(self.record.disks) / f"{host}.image" if self.record.lossy else None
        return Place(Path(self.record.root_image), disk, self.folder / host, self.ssh_config, image)

    # --- Life ------------------------------------------------------------------------------------

    def make(self) -> None:
        """Make keys, network and empty disks, start all hosts; returns when SSH answers on each."""
        self.network.make()
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.folder / "key"))
        self._install(list(self.hosts.values()))

    def renew(self, name: str) -> None:
        """Put a new machine in a host's place: same name and address, nothing of what the old one had."""
        host = self.hosts[name]
        if host.powered:
            host.power_off()
        host.remove()
        self._install([host])

    def _install(self, hosts: list[Host]) -> None:
        """Give hosts empty disks, make them known to everybody and start them; returns when SSH answers."""
        authorized = (self.folder / "key.pub").read_text()
        hosts_file = self._hosts_file()
        known_hosts = self.folder / "known_hosts"
        known = dict(line.split(" ", 1) for line in _lines(known_hosts))
        for host in hosts:
            known[f"{host.name},{host.address}"] = host.make_disk(authorized, hosts_file)
        known_hosts.write_text("".join(f"{names} {key.strip()}\n" for names, key in known.items()))
        for host in self.hosts.values():
            (host.root / "etc/hosts").write_text(hosts_file)
        aliases = [f"Host {host.name}\n  HostName {host.address}\n" for host in self.hosts.values()]
        self.ssh_config.write_text("".join(aliases) + "Host *\n" + _SSH_CONFIG.format(folder=self.folder))
        for action in (Host.power_on, Host.wait_ready):
            self._each(action, hosts)

    def remove(self) -> None:
        """Take down and delete everything; works on what is left of a lab, too."""
        self._each(Host.remove, list(self.hosts.values()))
        self.network.remove()
        shutil.rmtree(self.record.disks, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _each(action: Callable[[Host], None], hosts: list[Host]) -> None:
        with ThreadPoolExecutor(len(hosts)) as threads:
            list(threads.map(action, hosts))

    def _hosts_file(self) -> str:
        lines = ["127.0.0.1 localhost", f"{CLIENT_ADDRESS} {CLIENT}"]
        return "\n".join([*lines, *(f"{host.address} {host.name}" for host in self.hosts.values())]) + "\n"

    # --- The clients' side -----------------------------------------------------------------------

    def client_command(self, *command: str) -> tuple[str, ...]:
        """The same command, but where modalities and the deploying machine stand: on the bridge."""
        return ("nsenter", f"--net=/run/netns/{self.network.client_namespace}", *command)

    def client(self, *command: str, seconds: float = 60) -> subprocess.CompletedProcess[bytes]:
        """Run a command there to its end."""
        return attempt(self.client_command(*command), seconds=seconds)

    def fetch(self, url: str) -> bytes:
        """What a web address gives to a client (metrics, say); LabError if it does not answer 200."""
        limit = f"{FETCH_SECONDS:g}"
        options = ("--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", limit)
        return run(*self.client_command("curl", *options, url), seconds=FETCH_SECONDS + 5)


def start(name: str, hosts: int, cache: Path, *, owned: bool, lossy: bool = False) -> Lab:
    """Start a lab of that many hosts; one that is `owned` ends with this process at the latest. Disks of one
    that is `lossy` lose in a power cut what was not synced.

    Clears away what crashed runs left. LabError if a lab of this name runs.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]{0,15}", name):
        raise LabError(f"{name!r} is no name for a lab: a letter, then letters and digits, 16 at most")
    if hosts not in HOSTS:
        raise LabError(f"{hosts} hosts are too few or too many: {HOSTS[0]} to {HOSTS[-1]}")
    if os.geteuid() != 0:
        raise LabError("a lab needs root")
    with records.locked():
        sweep()
        if records.read(name) is not None:
            raise LabError(f"a lab named {name!r} runs already: take it down first, or take another name")
        image = rootfs.ensure(cache.resolve())
        process, began = records.owner()
        disks = cache.resolve() / "disks" / name
        record = Record(name, hosts, str(disks), str(image), records.boot_number(), process, began, lossy)
        record.write()
    lab = Lab(record)
    try:
        lab.make()
    except BaseException:
        lab.remove()
        raise
    if not owned:
        replace(record, owner=0, owner_started=0).write()
    return lab


def add(name: str) -> Lab:
    """Add a host to the running lab of this name, as its last; returns when SSH answers on it. LabError."""
    with records.locked():
        before = attach(name).record
        if before.hosts + 1 not in HOSTS:
            raise LabError(f"{name} has {before.hosts} hosts, which is as many as can be")
        record = replace(before, hosts=before.hosts + 1)
        record.write()
    lab = Lab(record)
    added = list(lab.hosts)[-1]
    lab.network.admit(added)
    lab.renew(added)
    return lab


def attach(name: str) -> Lab:
    """The running lab of this name; LabError if there is none."""
    record = records.read(name)
    if record is None or record.abandoned():
        raise LabError(f"no lab named {name!r} runs")
    return Lab(record)


def sweep() -> list[str]:
    """Take down every lab whose owner has died; returns their names."""
    abandoned = [record for record in records.all_records() if record.abandoned()]
    for record in abandoned:
        Lab(record).remove()
    return [record.name for record in abandoned]


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@contextmanager
def running(name: str, hosts: int, cache: Path, *, lossy: bool = False) -> Iterator[Lab]:
    """A lab for the time of a `with` block."""
    lab = start(name, hosts, cache, owned=True, lossy=lossy)
    try:
        yield lab
    finally:
        lab.remove()
