"""The servers that are measured beside each other, each as its users would run it, on loopback."""

import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import conninfo

from node.adapters.postgres_embedded import EmbeddedPostgres
from tests.archive import running_archive
from tests.orthanc import running_orthanc
from tests.postgres import debian_programs
from tests.support import free_port, wait_until


@dataclass
class Server:
    """A running DICOM server; `dicomweb` is its DICOMweb root if it has one, `durable` whether an
    acknowledged instance is synced and indexed."""

    name: str
    port: int
    title: str
    durable: bool
    pid: int
    folder: Path
    dicomweb: str | None = None

    def cpu_seconds(self) -> float:
        """CPU time of the server's processes so far, its children and its database included."""
        pids = set(descendants(self.pid))
        for file in self.folder.rglob("postmaster.pid"):
            pids.update(descendants(int(file.read_text().split()[0])))
        return sum(_cpu_ticks(pid) for pid in pids) / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found += descendants(int(entry.name))
    return found


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15])


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _program(command: list[str], port: int, folder: Path) -> Iterator[int]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "TCP_NODELAY": "1"}, cwd=Path.cwd()
        )
    try:
        wait_until(lambda: _listening(port), 30, f"{command[0]} listens")
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def storescp(folder: Path) -> Iterator[Server]:
    """DCMTK's storescp: no fsync, no index."""
    port = free_port()
    command = ["storescp", "--fork", "+xa", "-pdu", "131072", "-od", str(folder), str(port)]
    with _program(command, port, folder) as pid:
        yield Server("storescp", port, "STORESCP", False, pid, folder)


@contextmanager
def pynetdicom(folder: Path) -> Iterator[Server]:
    """A bare pynetdicom SCP: no fsync, no index."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.pynetdicom_scp", str(port), str(folder)]
    with _program(command, port, folder) as pid:
        yield Server("pynetdicom", port, "PYNETDICOM", False, pid, folder)


@contextmanager
def orthanc(folder: Path) -> Iterator[Server]:
    """Orthanc with its PostgreSQL index and storage, as those who need durability run it: everything
    it acknowledges is in PostgreSQL, with fsync."""
    server = EmbeddedPostgres(folder / "postgres", programs=debian_programs())
    try:
        given = conninfo.conninfo_to_dict(server.start())
        section: dict[str, Any] = {
            "EnableIndex": True,
            "EnableStorage": False,
            "Host": str(given["host"]),
            "Port": int(given.get("port") or 5432),
            "Database": str(given["dbname"]),
            "Username": str(given["user"]),
            "Password": str(given["password"]),
            "Lock": False,
        }
        with running_orthanc(folder / "orthanc", postgres=section, settings={"SyncStorageArea": True}) as run:
            yield Server(
                "Orthanc+PostgreSQL",
                run.dicom_port,
                run.title,
                True,
                run.process.pid,
                folder,
                f"{run.url}/dicom-web",
            )
    finally:
        server.stop()


@contextmanager
def stele(folder: Path) -> Iterator[Server]:
    """The archive on its embedded defaults."""
    with running_archive(folder) as run:
        yield Server(
            "Stele", run.dicom_port, "STELE", True, run.process.pid, folder, f"{run.base_url}/dicom-web"
        )


ALL = {"storescp": storescp, "pynetdicom": pynetdicom, "orthanc": orthanc, "stele": stele}


@contextmanager
def folder_for(name: str) -> Iterator[Path]:
    """A folder of its own on the disk that the tests use."""
    with tempfile.TemporaryDirectory(prefix=f"stele-bench-{name}-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


def raise_file_limit() -> None:
    """As many open files as allowed: many associations at once need them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
