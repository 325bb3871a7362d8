"""One lab for all tests that only use it, and what they need."""

import os
from collections.abc import Iterator

import pytest

from chaos.lab import cli, lab
from chaos.lab.lab import Lab
from tests.support import require


@pytest.fixture(scope="session")
def three_hosts() -> Iterator[Lab]:
    """Three hosts of this test run; a test that breaks something mends it."""
    require("systemd-nspawn", "debootstrap", "nft", "curl", "ssh", needs_root=True)
    with lab.running(f"t{os.getpid()}", 3, cli.cache()) as started:
        yield started
