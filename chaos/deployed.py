"""A deployed cluster in a lab, as its operators and clients see it.

Operators' questions go to `stele-cluster status` on a host that is on; what clients do runs on the clients'
side and knows the virtual IP only.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from chaos import trail
from chaos.lab.host import Host
from chaos.lab.lab import Lab
from chaos.lab.shell import LabError, attempt, run

STATUS_SECONDS = 30.0
CHECK_SECONDS = 1800.0
POLL_SECONDS = 0.5
DELETE_RATE = 0.5  # instances per second
STELE_CLUSTER = "/opt/stele/bin/stele-cluster"
# The node's command line, as its own user
STELE = (
    *("runuser", "-u", "stele", "--", "env", "STELE_CONFIG=/etc/stele/stele.toml"),
    "/opt/stele/bin/stele",
)
ROOT = Path(__file__).parents[1]  # of the sources, which the clients' programs are started from
STATE = "ansible"  # in the lab's folder: what the deploying machine keeps between runs


@dataclass(frozen=True, slots=True)
class Entrance:
    """What a client has to know: the address, ports, the name in the certificate and its CA, tokens."""

    address: str
    server_name: str
    ca: Path
    token_file: Path
    administrator_file: Path | None = None  # with the token of one who may delete
    dicom_port: int = 104
    https_port: int = 443

    @property
    def url(self) -> str:
        """Root of the web server."""
        return f"https://{self.address}:{self.https_port}"

    def options(self) -> tuple[str, ...]:
        """For `chaos.traffic` and `chaos.readback`."""
        return (
            *("--dicom", f"{self.address}:{self.dicom_port}", "--http", self.url),
            *("--ca", str(self.ca), "--server-name", self.server_name),
            *("--token-file", str(self.token_file)),
        )


class Deployed:
    """The cluster on the hosts of `lab`, entered at `entrance`."""

    def __init__(self, lab: Lab, entrance: Entrance) -> None:
        self.lab = lab
        self.entrance = entrance

    def on(self, tier: str) -> list[Host]:
        """The hosts of a tier by its name in the topology (`node`, `ceph-osd`), switched on or not; LabError
        if nothing is deployed."""
        try:
            topology = yaml.safe_load((self.lab.folder / STATE / "topology.yml").read_text())
        except FileNotFoundError as error:
            raise LabError("nothing is deployed here") from error
        named = {name for name, host in topology["hosts"].items() if tier in host["tiers"]}
        return [host for name, host in self.lab.hosts.items() if name in named]

    # --- What operators see ----------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What `stele-cluster status --json` says on the first host that answers of those that may ask Ceph,
        which are the monitors'; LabError if none does."""
        told = "every host is off"
        for host in self.on("ceph-mon"):
            if not host.powered:
                continue
            try:
                done = host.ssh(STELE_CLUSTER, "status", "--json", seconds=STATUS_SECONDS)
                return dict(json.loads(done.stdout))
            except (LabError, ValueError) as error:
                told = f"{host.name}: {error}"
        raise LabError(f"no host tells the cluster's state: {told}")

    def troubles(self) -> list[str]:
        """What is wrong, in sentences; empty if all is well."""
        try:
            return [str(each) for each in self.status()["troubles"]]
        except LabError as error:
            return [str(error)]

    def wait_well(self, seconds: float) -> float:
        """Return when nothing is wrong any more, with the seconds that it took; LabError with what is."""
        began = time.monotonic()
        while troubles := self.troubles():
            if time.monotonic() - began > seconds:
                raise LabError(f"after {seconds:g} s: {'; '.join(troubles)}")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    def stele(self, *arguments: str) -> str:
        """What the command `stele` says on the first node that is on; LabError if it fails."""
        host = next((host for host in self.on("node") if host.powered), None)
        if host is None:
            raise LabError("every node is off")
        return host.run(*STELE, *arguments).decode()

    def sql(self, statement: str) -> list[list[str]]:
        """Rows of a query at the catalog's primary, each value as text; LabError."""
        psql = ("runuser", "-u", "postgres", "--", "psql", "-d", "stele", "-At", "-F", "\t", "-c", statement)
        lines = self.primary().run(*psql).decode().splitlines()
        return [line.split("\t") for line in lines]

    def primary(self) -> Host:
        """The host of the catalog's primary; LabError if there is none."""
        return self._named("primary")

    def holder(self) -> Host:
        """The host that has the virtual IP; LabError if nobody does."""
        return self._named("holder")

    def roles(self) -> dict[str, str]:
        """Who is the catalog's primary, on which timeline, and who has the virtual IP. LabError."""
        [[timeline]] = self.sql("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)")
        status = self.status()
        return {"primary": status["primary"], "timeline": timeline, "holder": status["holder"]}

    def holders(self) -> list[str]:
        """The hosts that have the virtual IP on an interface, as they say themselves. LabError."""
        address = ("ip", "-o", "address", "show", "to", self.entrance.address)
        return [host.name for host in self.lab.hosts.values() if host.powered and host.run(*address)]

    def etcd_leader(self) -> Host:
        """The host of etcd's leader; LabError if there is none."""
        members = self.status()["etcd"]
        for name, member in members.items():
            if member and member["leader"]:
                return self.lab.hosts[name]
        raise LabError("etcd has no leader")

    def _named(self, what: str) -> Host:
        name = self.status()[what]
        if name is None:
            raise LabError(f"the cluster has no {what}")
        return self.lab.hosts[name]

    # --- What clients do -------------------------------------------------------------------------

    def client_program(self, module: str, *arguments: str) -> tuple[str, ...]:
        """The command line of one of our programs on the clients' side, pointed at the cluster."""
        start = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", module)
        return self.lab.client_command(*start, *self.entrance.options(), *arguments)

    def check(self, out: Path) -> None:
        """Write into a file what `stele check --json` finds, every byte read. LabError."""
        host = next((host for host in self.on("node") if host.powered), None)
        if host is None:
            raise LabError("every node is off")
        done = attempt(host.command(*STELE, "check", "--json"), seconds=CHECK_SECONDS)
        if done.returncode not in (0, 1) or (done.returncode == 1 and not done.stdout):
            raise LabError(f"stele check: {done.stderr.decode(errors='replace')[-2000:]}")
        out.write_bytes(done.stdout)

    def export_audit(self, since: float, out: Path) -> None:
        """Write the audit trail since a moment (seconds of the Unix epoch) into a file, an event a line."""
        rows = self.sql(trail.EXPORT.format(since=since))
        out.write_text("".join(f"{row[0]}\n" for row in rows))

    def traffic(self, history: Path, seed: int, rate: float, seconds: float) -> "subprocess.Popen[bytes]":
        """Start clients that send at `rate` instances per second for at most `seconds`, and read meanwhile.

        SIGTERM ends them in order. What they say themselves goes to a file beside the history.
        """
        given = ["--seed", str(seed), "--rate", str(rate), "--seconds", str(seconds)]
        if self.entrance.administrator_file is not None:
            given += ["--delete-rate", str(DELETE_RATE)]
            given += ["--delete-token-file", str(self.entrance.administrator_file)]
        program = self.client_program("chaos.traffic", *given, "--history", str(history))
        command = ("setpriv", "--pdeathsig", "TERM", *program)  # they end with whoever watches them
        with history.with_suffix(".log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)

    def read_back(self, histories: list[Path], out: Path, seconds: float) -> None:
        """Read everything that the histories tell of, by every service, into the file `out`."""
        files = [str(each) for each in histories]
        run(*self.client_program("chaos.readback", "--out", str(out), *files), seconds=seconds)
