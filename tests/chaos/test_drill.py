"""The catalog is lost on all members: restored from each source, nothing that was acknowledged is lost."""

from pathlib import Path

import pytest

from chaos import drill
from chaos.deployed import Deployed
from tests.chaos.conftest import tell

pytestmark = [
    pytest.mark.deployed,
    pytest.mark.long,
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
]


@pytest.mark.parametrize("name", list(drill.DRILLS))
def test_a_wiped_catalog_comes_back(
    cluster: Deployed, name: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    outcome = drill.conduct(cluster, name, 1, tmp_path)
    tell(pytestconfig, outcome.line())
    assert outcome.passed, outcome.line()
