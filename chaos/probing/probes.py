"""A probe on each host of a lab for the time of a scenario, and what was acknowledged as lines of JSON."""

import json
import os
import select
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from chaos.lab.host import Host
from chaos.lab.shell import LabError
from chaos.model import Probe

PER_SECOND = 5.0
AGAIN_SECONDS = 1.0  # after a host was off, or its program ended
LOOK_SECONDS = 0.5
END_SECONDS = 5.0
PROGRAM = Path(__file__).with_name("on_host.py")
# A release's Python has psycopg if it is called where it lies; and PostgreSQL takes its own user's word
PYTHON = 'exec "$(readlink -f /opt/stele/bin)/python" "$@"'
COMMAND = ("runuser", "-u", "postgres", "--", "sh", "-c", PYTHON, "sh", "-c", PROGRAM.read_text())
DSN = "host=/var/run/postgresql dbname=postgres"

Note = Callable[[Probe], None]


@contextmanager
def probing(hosts: Iterable[Host], path: Path) -> Iterator[None]:
    """Probe for the time of a `with` block."""
    stop = threading.Event()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(probe: Probe) -> None:
        os.write(file, f"{json.dumps(asdict(probe))}\n".encode())  # appended whole: one write

    threads = [
        threading.Thread(target=_probe, args=(host, note, stop), name=f"probe-{host.name}") for host in hosts
    ]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in threads:
            each.join()
        os.close(file)


def read(path: Path) -> list[Probe]:
    """What a file of `probing` holds. ValueError or TypeError if it is none; a line cut off is left out."""
    return [Probe(**json.loads(line)) for line in path.read_text().split("\n")[:-1]]


def _probe(host: Host, note: Note, stop: threading.Event) -> None:
    """Keep a program running on a host until `stop`."""
    while True:
        try:
            command = host.command(*COMMAND, DSN, f"{PER_SECOND:g}")
        except LabError:
            pass  # the host is off
        else:
            follow(_started(command), host.name, note, stop)
        if stop.wait(AGAIN_SECONDS):
            return


def _started(command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def follow(program: "subprocess.Popen[bytes]", host: str, note: Note, stop: threading.Event) -> None:
    """Note what a program tells until it ends; `stop` has it end."""
    if program.stdin is None or program.stdout is None:
        raise ValueError("a probe is followed through its pipes")
    rest = b""
    while not stop.is_set():
        if not select.select([program.stdout], [], [], LOOK_SECONDS)[0]:
            continue
        told = os.read(program.stdout.fileno(), 65536)
        if not told:
            break
        *lines, rest = (rest + told).split(b"\n")
        for line in lines:
            note(Probe(host, **json.loads(line)))
    program.stdin.close()
    try:
        program.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        program.kill()  # its write hangs, which is no acknowledgement
        program.wait()
    program.stdout.close()
