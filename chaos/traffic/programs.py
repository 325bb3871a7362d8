"""Programs that run for clients, and are asked to end when the traffic does."""

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Programs:
    """What runs now; threads start and end programs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    @contextmanager
    def running(
        self, command: Sequence[str], *, stdin: int, errors: int | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """A program whose output is read as it comes; killed if it still runs at the end of the block."""
        with self._lock:
            program = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "TCP_NODELAY": "1"},  # DCMTK's
            )
            self._running.add(program)
            if self._stopped:
                program.terminate()
        try:
            yield program
        finally:
            with self._lock:
                self._running.discard(program)
            program.kill()
            program.wait()
            for stream in (program.stdin, program.stdout):
                if stream is not None:
                    stream.close()

    def stop(self) -> None:
        """SIGTERM to all that run, and to what may be started yet."""
        with self._lock:
            self._stopped = True
            for program in self._running:
                program.terminate()
