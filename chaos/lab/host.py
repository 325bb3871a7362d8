"""One host of the lab: its disk, its power, and two ways to run a command on it."""

import os
import shlex
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos.lab.cgroup import Cgroup
from chaos.lab.network import PREFIX_LENGTH, Network, port
from chaos.lab.shell import LabError, attempt, run, wait_for

BOOT_SECONDS = 60.0
POWER_SECONDS = 20.0  # until nothing of a host that was killed is left
STOP_SECONDS = 90.0  # systemd's own limit for a service that does not stop

_NETWORK = """\
[Match]
Name=host0
[Network]
Address={address}/{prefix}
LinkLocalAddressing=no
IPv6AcceptRA=no
"""

# Everything of the boot that must happen inside the new process: enter the cgroups, then the namespace.
_BOOT = 'for procs in $CGROUPS; do echo $$ > "$procs"; done; exec "$@"'


@dataclass(frozen=True)
class Place:
    """Where a host's parts are: `disk` keeps what it writes, `run` the mount and console of this boot."""

    root_image: Path
    disk: Path
    run: Path
    ssh_config: Path


class Host:
    """A host `name` with an address, plugged into `network`."""

    def __init__(self, lab: str, name: str, address: str, network: Network, place: Place) -> None:
        self.name = name
        self.address = address
        self._machine = f"{lab}-{name}"
        self._network = network
        self._place = place
        self._cgroup = Cgroup(f"stele-lab/{lab}/{name}")

    # --- Disk ------------------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """The host's root folder, as seen from here: what it writes can be read and changed in place."""
        return self._place.run / "root"

    def make_disk(self, authorized_key: str, hosts_file: str) -> str:
        """Make an empty disk over the shared root and give it an identity; returns its public SSH key."""
        for folder in ("upper", "work"):
            (self._place.disk / folder).mkdir(parents=True)
        self.root.mkdir(parents=True, exist_ok=True)
        disk = self._place.disk
        layers = f"lowerdir={self._place.root_image},upperdir={disk}/upper,workdir={disk}/work"
        run("mount", "-t", "overlay", "-o", layers, self._machine, str(self.root))
        etc = self.root / "etc"
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(hosts_file)
        (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
        network = etc / "systemd/network/10-host0.network"
        network.write_text(_NETWORK.format(address=self.address, prefix=PREFIX_LENGTH))
        (self.root / "root/.ssh/authorized_keys").write_text(authorized_key)
        key = etc / "ssh/ssh_host_ed25519_key"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(key))
        return key.with_suffix(".pub").read_text()

    # --- Power -----------------------------------------------------------------------------------

    @property
    def powered(self) -> bool:
        """Does anything of the host live?"""
        return self._cgroup.populated()

    def power_on(self) -> None:
        """Start the host from its disk; returns when its cable is plugged in (see `wait_ready`)."""
        if self.powered:
            raise LabError(f"{self.name} is on")
        console = self._place.run / "console"
        with console.open("ab") as output:
            _run_detached(self._boot_command(), output.fileno(), self._boot_environment())
        self._wait(lambda: self._network.plug(self.name), 10, f"no network interface; see {console}")

    def power_off(self) -> None:
        """What a pulled plug does: SIGKILL to the host's init, which takes all its processes along.

        What it had written to its disk is still there, even unsynced: this machine's page cache lives on.
        """
        leader = self._cgroup.leader()
        if leader is None:
            raise LabError(f"{self.name} is off")
        os.kill(leader, signal.SIGKILL)
        self._wait(lambda: not self.powered, POWER_SECONDS, "killed, but something lives on")
        self._wait(lambda: not self._network.plugged(self.name), POWER_SECONDS, "its cable is still there")
        self._cgroup.remove()

    def stop(self) -> None:
        """Shut the host down in order: services are stopped, file systems synced."""
        attempt(self.command("systemctl", "poweroff"), seconds=STOP_SECONDS)
        self._wait(lambda: not self.powered, STOP_SECONDS, "still not down")
        self._wait(lambda: not self._network.plugged(self.name), POWER_SECONDS, "its cable is still there")
        self._cgroup.remove()

    def freeze(self) -> None:
        """Stop all its processes between two instructions, as a hanging hypervisor does; see `thaw`."""
        self._cgroup.freeze()

    def thaw(self) -> None:
        """Undo `freeze`: it goes on as if no time had passed."""
        self._cgroup.thaw()

    def wait_ready(self, seconds: float = BOOT_SECONDS) -> None:
        """Return when systemd has started everything and SSH answers; LabError with the console if not."""
        try:
            self._wait(self._started, seconds, "systemd has not started everything")
            self._wait(lambda: self.ssh("true", seconds=10).returncode == 0, 10, "SSH does not answer")
        except LabError as late:
            console = (self._place.run / "console").read_text(errors="replace")[-2000:]
            raise LabError(f"{late}\n{console}") from late

    def remove(self) -> None:
        """Kill what runs, unmount and delete the disk; works on what is left of a host, too."""
        leader = self._cgroup.leader()
        if leader is not None:
            self._cgroup.thaw()
            os.kill(leader, signal.SIGKILL)  # its nspawn ends by itself and clears up what it made under /run
        try:
            self._wait(lambda: not self.powered, POWER_SECONDS, "its init is killed, but something lives on")
        except LabError:
            self._cgroup.kill()
            self._wait(lambda: not self.powered, POWER_SECONDS, "killed, but something lives on")
        self._cgroup.remove()
        if self.root.is_mount():
            run("umount", "--lazy", str(self.root))
        shutil.rmtree(self._place.disk, ignore_errors=True)

    # --- Commands --------------------------------------------------------------------------------

    def ssh(self, *command: str, seconds: float = 60) -> subprocess.CompletedProcess[bytes]:
        """Run a command over SSH from the clients' side; exit code 255 is SSH's own failure."""
        enter = ("nsenter", f"--net=/run/netns/{self._network.client_namespace}")
        call = ("ssh", "-F", str(self._place.ssh_config), self.name, shlex.join(command))
        return attempt((*enter, *call), seconds=seconds)

    def command(self, *command: str) -> tuple[str, ...]:
        """The same command, but on the host, past its network and SSH; LabError if it is off."""
        leader = self._cgroup.leader()
        if leader is None:
            raise LabError(f"{self.name} is off")
        clean = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8")
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wdns=/root")
        return ("nsenter", "--target", str(leader), *spaces, *clean, *command)

    def run(self, *command: str, seconds: float = 60, stdin: bytes = b"") -> bytes:
        """Run a command on the host past its network and SSH; its output, or LabError if it fails."""
        return run(*self.command(*command), seconds=seconds, stdin=stdin)

    def journal(self, unit: str | None = None, lines: int = 200) -> str:
        """The last lines of the host's journal, or of one unit's."""
        which = ("--unit", unit) if unit else ()
        listed = self.run("journalctl", "--no-pager", "--output=short-precise", "--lines", str(lines), *which)
        return listed.decode(errors="replace")

    # --- Inside ----------------------------------------------------------------------------------

    def _boot_command(self) -> list[str]:
        return [
            *("sh", "-c", _BOOT, "sh"),
            *("nsenter", f"--net=/run/netns/{self._network.bridge_namespace}"),
            *("systemd-nspawn", "--boot", f"--directory={self.root}", f"--machine={self._machine}"),
            *("--register=no", "--keep-unit", "--private-users=no", "--console=pipe"),
            *("--link-journal=no", "--resolv-conf=off", "--timezone=off"),
            *("--private-network", f"--network-veth-extra={port(self.name)}:host0"),
            f"--hostname={self.name}",
        ]

    def _boot_environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "CGROUPS": " ".join(str(path) for path in self._cgroup.make()),
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",  # Debian 13's systemd boots with version 2 only
        }

    def _started(self) -> bool:
        if self._cgroup.leader() is None:
            return False
        state = attempt(self.command("systemctl", "is-system-running"), seconds=10).stdout.strip()
        return state in (b"running", b"degraded")

    def _wait(self, condition: Callable[[], object], seconds: float, otherwise: str) -> None:
        wait_for(condition, seconds, f"{self.name}: {otherwise}")


def _run_detached(command: list[str], output: int, environment: dict[str, str]) -> None:
    """Start a program that outlives this one, in a session of its own and with no signal ignored.

    What this one was told to ignore (a shell's background jobs ignore SIGINT) would be ignored by the host's
    init, too, which is then not shut down in order.
    """
    subprocess.run(
        ["env", "--default-signal", "setsid", "--fork", *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        check=True,
    )
