"""Helpers that several test folders share."""

import os
import shutil
import socket
import time
from collections.abc import Callable


def require(*programs: str, needs_root: bool = False) -> None:
    """Skip the calling test if a program or root is missing, or fail it where all must be there.

    `make test` installs every program and sets STELE_TEST_REQUIRE_ALL=1 when it runs as root, so that
    nothing is skipped unseen.
    """
    import pytest  # here only, so that `make run` does without the test dependencies

    missing = [program for program in programs if shutil.which(program) is None]
    if needs_root and os.geteuid() != 0:
        missing.append("root")
    if not missing:
        return
    reason = f"missing: {', '.join(missing)}"
    if os.environ.get("STELE_TEST_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on right now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `condition` is true; AssertionError naming `what` when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
