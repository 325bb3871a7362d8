"""Bodies of error answers, which must not name patients."""

import threading
from pathlib import Path


class ErrorPages:
    """Bodies of error answers, one after the other in a file; many threads add."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def __call__(self, page: str) -> None:
        """Add one."""
        with self._lock, self._path.open("a") as file:
            file.write(f"{page}\n")
