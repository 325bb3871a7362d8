"""A small client of HAProxy: its configuration checked, installed and reloaded, and its sockets.

Reload goes through the master's socket, as Debian's unit opens it (`haproxy -Ws -S`): the master starts a new
worker, which takes over the listening sockets (`expose-fd listeners`), and the old one finishes what it has.
It needs no right to talk to systemd and says whether it succeeded: HAProxy 2.7 and newer in the answer, older
ones in the process list.
"""

import contextlib
import os
import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from cluster.places import Places

CHECK_SECONDS = 20.0
ANSWER_SECONDS = 10.0
MOST_ANSWER_BYTES = 16 << 20
_FAILED = re.compile(r"\[failed: [1-9]")


class HaproxyFailed(Exception):
    """HAProxy did not do what it was asked to; the message is its own."""


class Haproxy:
    """The HAProxy of this host."""

    def __init__(self, places: Places) -> None:
        self._config = Path(places.haproxy_config)
        self._master = places.haproxy_master
        self._admin = places.haproxy_socket

    def installed(self) -> str:
        """The configuration that HAProxy starts with; empty if there is none."""
        try:
            return self._config.read_text()
        except FileNotFoundError:
            return ""

    def install(self, text: str) -> None:
        """Check a configuration, put it in place and reload; HaproxyFailed, with the old one in place again.

        Whatever happens on the way, the file is either the old or the new one, and whole.
        """
        candidate = self._write(text)
        try:
            check(candidate)
            previous = self.installed()
            candidate.replace(self._config)
        finally:
            candidate.unlink(missing_ok=True)
        try:
            self.reload()
        except HaproxyFailed:
            if previous:
                self._write(previous).replace(self._config)
            raise

    def reload(self) -> None:
        """Let a new worker take over from the old one, which finishes what it has; HaproxyFailed."""
        before = _workers(ask(self._master, "show proc"))
        answer = ask(self._master, "reload")
        if answer.startswith("Success=0"):
            raise HaproxyFailed(answer.strip())
        if answer.startswith("Success=1"):
            return
        deadline = time.monotonic() + ANSWER_SECONDS  # before 2.7: the master starts itself anew
        while time.monotonic() < deadline:
            with contextlib.suppress(HaproxyFailed):
                processes = ask(self._master, "show proc")
                if _FAILED.search(processes):
                    raise HaproxyFailed("the new configuration was not loaded")
                if _workers(processes) - before:
                    return
            time.sleep(0.05)
        raise HaproxyFailed("no new worker in time")

    def command(self, line: str) -> str:
        """What the running worker answers to a line of its command language; HaproxyFailed."""
        return ask(self._admin, line)

    def _write(self, text: str) -> Path:
        descriptor, name = tempfile.mkstemp(prefix=".haproxy-", suffix=".cfg", dir=self._config.parent)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        Path(name).chmod(0o640)
        return Path(name)


def check(config: Path) -> None:
    """Have HAProxy check a configuration; HaproxyFailed with what it says is wrong."""
    try:
        done = subprocess.run(  # noqa: S603
            ["haproxy", "-c", "-f", str(config)],  # noqa: S607 - Debian's, on the unit's own path
            check=False,
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HaproxyFailed(f"cannot check: {error}") from error
    if done.returncode != 0:
        raise HaproxyFailed(done.stderr.strip()[-2000:])


def ask(path: str, line: str) -> str:
    """Send a line to one of HAProxy's sockets and read until it closes; HaproxyFailed if nobody is there."""
    answer = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
            connected.settimeout(ANSWER_SECONDS)
            connected.connect(path)
            connected.sendall(line.encode() + b"\n")
            connected.shutdown(socket.SHUT_WR)  # the master does not close before
            while len(answer) < MOST_ANSWER_BYTES and (data := connected.recv(65536)):
                answer += data
    except ConnectionResetError:  # the master of an older HAProxy, starting itself anew
        pass
    except OSError as error:
        raise HaproxyFailed(f"{path}: {error.strerror or error}") from error
    return answer.decode(errors="replace")


def _workers(processes: str) -> set[str]:
    """Process ids of the workers in `show proc`."""
    rows = [line.split() for line in processes.splitlines() if line and not line.startswith("#")]
    return {row[0] for row in rows if len(row) >= 2 and row[1] == "worker"}
