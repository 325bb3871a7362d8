"""One fault of each tier on a deployed cluster under traffic: soon all is well, and every promise is kept."""

import pytest

from chaos import campaign, report
from chaos.deployed import Deployed
from chaos.faults import FAULTS
from chaos.folder import Folder
from chaos.report.gathered import Report
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
def told(cluster: Deployed, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Report:
    """The report of a campaign with all of them."""
    folder = Folder(tmp_path_factory.mktemp("smoke"))
    plan = [(FAULTS[name], SEED) for name in SMOKE]
    campaign.run(cluster, plan, folder.path, lambda outcome: tell(pytestconfig, outcome.line()))
    made = report.write(folder)
    tell(pytestconfig, f"{made.verdict} See {folder.path / report.PAGE}")
    return made


@pytest.mark.parametrize("name", SMOKE)
def test_clients_are_soon_served_again(told: Report, name: str) -> None:
    [outcome] = [each.outcome for each in told.scenarios if each.outcome.fault == name]
    assert outcome.recovered, outcome.line()


def test_nothing_that_was_acknowledged_is_lost(told: Report) -> None:
    """Nor any other promise of `chaos.checks` broken, over all scenarios."""
    assert told.finished
    assert told.violations == []


def test_no_promise_was_left_out(told: Report) -> None:
    assert told.unseen == []
