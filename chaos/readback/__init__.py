"""Everything that the archive says after a run, by every service and through every address.

    web.py     QIDO-RS and WADO-RS
    dimse.py   C-FIND and C-GET
    whole.py   all four through all addresses, and the result on disk
    cli.py     python -m chaos.readback

A refusal of one instance leaves it out of what was retrieved; `Unreadable` is for a service that gives no
answer.
"""

from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

READ_SECONDS = 120.0
PARALLEL = 3
Contents = dict[str, str]  # by SOP Instance UID
Key = TypeVar("Key", bound=Hashable)


class Unreadable(Exception):
    """A service does not answer, or not with what was asked for."""


def gathered(read: Callable[[Key], Contents], keys: Iterable[Key]) -> Contents:
    """What `read` gives for all keys together, some at a time."""
    found: Contents = {}
    with ThreadPoolExecutor(PARALLEL) as pool:
        for some in pool.map(read, keys):
            found.update(some)
    return found
