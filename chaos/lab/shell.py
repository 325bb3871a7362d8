"""Running programs and waiting for states."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence


class LabError(Exception):
    """The lab cannot do what it was asked for; the text says why and, where there is one, the remedy."""


def run(
    *command: str,
    seconds: float = 60,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> bytes:
    """Run a program to its end and return its standard output; LabError with its complaint if it fails."""
    done = attempt(command, seconds=seconds, stdin=stdin, env=env)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-2000:]
        raise LabError(f"{' '.join(command)}: exit code {done.returncode}: {said}")
    return done.stdout


def attempt(
    command: Sequence[str],
    *,
    seconds: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program whose failure is an answer; LabError only if it has not ended after `seconds`."""
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, timeout=seconds, env=env, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise LabError(f"{' '.join(command)}: not done after {seconds:g} s") from late


def wait_for(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    """Poll until `condition` is true; LabError saying `otherwise` when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"after {seconds:g} s: {otherwise}")
        time.sleep(0.05)
