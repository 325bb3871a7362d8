"""A deployment that is killed again and again ends in the same state as one that was left alone."""

import os
import random
from collections.abc import Iterator

import pytest

from chaos import deploy
from chaos.lab import cli, lab
from chaos.lab.lab import Lab
from chaos.scenario import WELL_SECONDS
from tests.chaos.conftest import PROGRAMS, tell
from tests.support import require

pytestmark = [
    pytest.mark.deployed,
    pytest.mark.long,
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
]

SEED = 1
KILLS = 5
TASKS = 170  # that site.yml has at least, counted as it tells of them
LATE_SECONDS = 3.0  # at the most, after a task's beginning


@pytest.fixture
def bare() -> Iterator[Lab]:
    """Three hosts of this test alone."""
    require(*PROGRAMS, needs_root=True)
    with lab.running(f"i{os.getpid()}", 3, cli.cache()) as started:
        yield started


def test_what_was_killed_at_any_task_is_made_up_for(bare: Lab, pytestconfig: pytest.Config) -> None:
    generator = random.Random(SEED)
    for task in sorted(generator.sample(range(1, TASKS), KILLS)):
        name = deploy.play_killed(bare, "site.yml", task, generator.uniform(0, LATE_SECONDS))
        tell(pytestconfig, f"site.yml killed in its task {task} or one soon after: {name}")
    deploy.play(bare, "site.yml")
    deploy.enter(bare).wait_well(WELL_SECONDS)
    deploy.play(bare, "site.yml")
    assert not any(deploy.changed(bare, "site.yml").values()), deploy.changed(bare, "site.yml")
