"""One lab for all tests that only use it, and one that Stele is deployed on."""

import contextlib
import os
import time
from collections.abc import Iterator

import pytest

from chaos import deploy
from chaos.deployed import Deployed
from chaos.lab import cli, lab
from chaos.lab.lab import Lab
from chaos.scenario import WELL_SECONDS
from tests.support import require

PROGRAMS = ("systemd-nspawn", "debootstrap", "nft", "curl", "ssh")
DEPLOY_SECONDS = 15 * 60


def tell(config: pytest.Config, line: str) -> None:
    """Say something in the tests' output, whether they fail or not."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        print(f"\n{line}", flush=True)


@pytest.fixture(scope="session")
def three_hosts() -> Iterator[Lab]:
    """Three hosts of this test run; a test that breaks something mends it."""
    require(*PROGRAMS, needs_root=True)
    with lab.running(f"t{os.getpid()}", 3, cli.cache()) as started:
        yield started


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Deployed]:
    """A cluster on three hosts, deployed by the playbooks; tests leave it well.

    With STELE_TEST_LAB it is the one that is deployed on the running lab of that name, and stays.
    """
    require(*PROGRAMS, needs_root=True)
    if name := os.environ.get("STELE_TEST_LAB"):
        yield deploy.enter(lab.attach(name))
        return
    with lab.running(f"c{os.getpid()}", 3, cli.cache()) as bare:
        began = time.monotonic()
        deploy.play(bare, "site.yml")
        deployed = deploy.enter(bare)
        deployed.wait_well(WELL_SECONDS)
        seconds = time.monotonic() - began
        tell(request.config, f"deployed on three bare hosts in {seconds:.0f} s")
        assert seconds < DEPLOY_SECONDS
        yield deployed
