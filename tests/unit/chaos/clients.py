"""Clients without an archive: a store every few milliseconds, acknowledged or not, in a history like that of
`chaos.traffic`.

    python -m tests.unit.chaos.clients HISTORY SEED FOLDER

While there is a file DOWN in the folder, stores are refused; with DEAF, SIGTERM is not listened to; with
DEAD, they die with last words.
"""

import itertools
import signal
import sys
import time
from pathlib import Path

from chaos import corpus
from chaos.history import History, Operation, Result

PAUSE_SECONDS = 0.01
COUNT = 2000
CONTENT = "1.2 aa"
LAST_WORDS = "no more cable"
DEAD = 3


def main() -> int:
    """Until SIGTERM, or the corpus is at its end."""
    path, seed, folder = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    ended = False

    def end(_signal: int, _frame: object) -> None:
        nonlocal ended
        ended = not (folder / "DEAF").exists()

    signal.signal(signal.SIGTERM, end)
    history = History(path)
    history.describe(seed, COUNT)
    waiting = iter(corpus.instances(seed, COUNT))
    instance = next(waiting)
    for _ in itertools.count():
        if ended:
            return 0
        if (folder / "DEAD").exists():
            print(LAST_WORDS, flush=True)
            return DEAD
        invoked = time.monotonic()
        time.sleep(PAUSE_SECONDS)  # what a store takes
        down = (folder / "DOWN").exists()
        result, status = (Result.REFUSED, "A700") if down else (Result.OK, "0000")
        now = time.monotonic()
        history.add(Operation("client", "C-STORE", instance.uid, CONTENT, invoked, now, result, status))
        if not down:
            instance = next(waiting)
    return 0


if __name__ == "__main__":
    sys.exit(main())
