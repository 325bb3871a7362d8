"""Recorded associations: all that clients of several makes have sent, storing generated images.

`python -m tests.corpus.associations` records them again.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def recorded() -> dict[str, bytes]:
    """What was sent, by the recording's name."""
    return {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.bin"))}
