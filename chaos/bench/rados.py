"""`rados bench` on a node's host, with the node's own key and pool."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from chaos.lab.host import Host
from chaos.lab.shell import LabError

POOL = "stele.objects"
USER = "stele"  # of Ceph: client.stele
# Names of runs. Ceph's own cleaning knows of each name's last run only
WRITTEN, READ = "stele-bench-write", "stele-bench-read"
ENDING_SECONDS = 120.0
SAID = 500  # characters of an answer that is not understood
_AT_THE_END = {
    "seconds": "Total time run",
    "operations": "Total (?:writes|reads) made",
    "bytes": "(?:Write|Read) size",
}


class RadosBench:
    """Each run takes `seconds`, on objects of `size` bytes, which Ceph rounds up to whole stripes."""

    def __init__(self, host: Host, size: int, seconds: float) -> None:
        self._host = host
        self._size = size
        self._seconds = seconds

    @contextmanager
    def written(self, concurrency: int) -> Iterator[None]:
        """There are objects to read, and none of them left at the end."""
        with self._cleaned(READ):
            self._write(concurrency, READ)
            yield

    def write(self, concurrency: int) -> float:
        """Bytes a second."""
        with self._cleaned(WRITTEN):
            return self._write(concurrency, WRITTEN)

    def rand(self, concurrency: int) -> float:
        """Bytes a second, of whole objects at random."""
        return self._bench("rand", READ, "-t", str(concurrency))

    def _write(self, concurrency: int, name: str) -> float:
        return self._bench("write", name, "-t", str(concurrency), "-b", str(self._size), "--no-cleanup")

    @contextmanager
    def _cleaned(self, name: str) -> Iterator[None]:
        try:
            yield
        finally:
            self._call("cleanup", "--run-name", name)

    def _bench(self, mode: str, name: str, *options: str) -> float:
        return rate(self._call("bench", f"{self._seconds:.0f}", mode, *options, "--run-name", name))

    def _call(self, *arguments: str) -> str:
        command = ("rados", "--id", USER, "--pool", POOL, *arguments)
        return self._host.run(*command, seconds=self._seconds + ENDING_SECONDS).decode()


def rate(said: str) -> float:
    """Bytes a second, out of what `rados bench` says at its end; LabError if it says something else."""
    values: dict[str, float] = {}
    for name, words in _AT_THE_END.items():
        if found := re.search(rf"^{words}:\s*([\d.]+)$", said, re.MULTILINE):
            values[name] = float(found[1])
    if values.keys() != _AT_THE_END.keys():
        raise LabError(f"rados bench says: {said[-SAID:]}")
    return values["operations"] * values["bytes"] / values["seconds"]
