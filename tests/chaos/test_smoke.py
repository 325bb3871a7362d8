"""One fault of each tier on a deployed cluster under traffic: soon all is well, and nothing is lost."""

from pathlib import Path

import pytest

from chaos import campaign, scenario
from chaos.deployed import Deployed
from chaos.faults import FAULTS
from chaos.scenario import Outcome
from tests.chaos.conftest import tell

pytestmark = [pytest.mark.deployed, pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

SEED = 1
SMOKE = (
    "haproxy-killed",
    "keepalived-killed",
    "workers-killed",
    "primary-killed",
    "etcd-leader-killed",
    "osd-killed",
    "holder-off",
    "power-loss",
)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """How the scenarios went."""
    return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Histories of all scenarios, judged at the end."""
    return tmp_path_factory.mktemp("smoke")


@pytest.mark.parametrize("name", SMOKE)
def test_clients_are_soon_served_again(
    cluster: Deployed, folder: Path, outcomes: list[Outcome], name: str, pytestconfig: pytest.Config
) -> None:
    outcome = scenario.run(cluster, FAULTS[name], SEED, folder)
    outcomes.append(outcome)
    tell(pytestconfig, outcome.line())
    assert outcome.recovered, outcome.line()


def test_nothing_that_was_acknowledged_is_lost(
    cluster: Deployed, folder: Path, outcomes: list[Outcome]
) -> None:
    """Invariants of the clients' histories, over all scenarios before."""
    histories = sorted(folder.glob("*-*.jsonl"))
    assert len(histories) == len(SMOKE)
    assert campaign.judged(cluster, histories, folder / "readback.json", outcomes) == []
