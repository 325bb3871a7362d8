"""Clients that take more than their share, at an address of their own, beside those that behave well."""

import random
import subprocess
from pathlib import Path

from chaos.deployed import ROOT, Deployed
from chaos.faults.fault import Fault, Inject, Injected
from chaos.faults.processes import running, units
from chaos.lab.host import Host
from chaos.lab.network import CLIENT_PORT, PREFIX_LENGTH, SUBNET
from chaos.lab.shell import LabError, run

ADDRESS = f"{SUBNET}.101"
SERVICES = ("stele-dimse*", "stele-web*", "stele-worker*", "haproxy.service")
MEMORY_BYTES = 2 << 30  # of Stele's and HAProxy's processes on a host


def _greedy(kind: str) -> Inject:
    def inject(cluster: Deployed, _generator: random.Random) -> Injected:
        lived = _main_processes(cluster)
        address = ("ip", "address", "{}", f"{ADDRESS}/{PREFIX_LENGTH}", "dev", CLIENT_PORT)
        run(*cluster.lab.client_command(*(part.format("add") for part in address)))
        command = cluster.client_program("chaos.traffic.greedy", "--from", ADDRESS, kind)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)

        def heal() -> None:
            process.kill()
            process.wait()
            run(*cluster.lab.client_command(*(part.format("delete") for part in address)))

        if process.stdout is None or process.stdout.readline() != b"ready\n":
            heal()
            raise LabError(f"greedy clients ({kind}) do not come into position")
        return Injected(f"{kind} from {ADDRESS}", heal, lambda: _wrong(cluster, lived))

    return inject


def _main_processes(cluster: Deployed) -> dict[str, str]:
    found = {}
    for host in running(cluster, *SERVICES):
        for unit in units(host, *SERVICES):
            main = host.run("systemctl", "show", "--value", "--property=MainPID", unit)
            found[f"{unit} on {host.name}"] = main.decode().strip()
    return found


def _wrong(cluster: Deployed, lived: dict[str, str]) -> list[str]:
    now = _main_processes(cluster)
    found = [f"{name} has died" for name, process in lived.items() if now.get(name) != process]
    for host in running(cluster, *SERVICES):
        if (used := memory_bytes(host)) > MEMORY_BYTES:
            found.append(f"{used >> 20} MiB are taken on {host.name}")
    return found


def memory_bytes(host: Host) -> int:
    """What the processes of Stele and HAProxy have resident on a host, shared pages counted once."""
    processes = [process for unit in units(host, *SERVICES) for process in host.processes(unit)]
    return sum(map(resident_bytes, processes))


def resident_bytes(process: int) -> int:
    """A process's share of the memory (proc(5), Pss); 0 if it has ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return int(text.partition("Pss:")[2].split()[0]) * 1024 if text else 0


def _fault(name: str, what: str, kind: str) -> Fault:
    # Slower than usual is no fault of the archive's, as long as everybody is served
    return Fault(name, "Overload", what, 10, _greedy(kind), hold_seconds=45, roles_stay=True, share=0.5)


FAULTS = (
    _fault("overload-intake", "a hundred associations store as fast as they can", "flood"),
    _fault("overload-gigabytes", "ten objects of 1 GB at once, without end", "gigabytes"),
    _fault("overload-half-open-dicom", "2,000 connections with half a DICOM header", "half-open-dicom"),
    _fault("overload-half-open-web", "2,000 connections with half a TLS hello", "half-open-web"),
    _fault("overload-slow-readers", "200 retrievals at 10 KB/s", "slow-readers"),
)
