"""Kills while thousands of instances come in: what was acknowledged stays, judged from the clients' log.

See `tests/kills` and `chaos`. The mutations show that the checks would notice.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import corpus
from tests.kills import scenario
from tests.support import require

pytestmark = [pytest.mark.slow, pytest.mark.peers, pytest.mark.timeout(600)]
INSTANCES = 5000
FEWER = 1000  # for the mutations
SEEDS = range(1, 11)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[corpus.Corpus]:
    require("storescu", "getscu")
    yield corpus.make(tmp_path_factory.mktemp("kills") / "images", INSTANCES, seed=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_invariant_holds_under_kills_and_a_power_cut(
    tmp_path: Path, images: corpus.Corpus, seed: int
) -> None:
    run = scenario.run(tmp_path / "run", images, seed)
    print(run)
    assert run.violations == [], str(run)


@pytest.mark.parametrize(
    ("mutation", "invariant", "word"),
    [
        ("acknowledge before the commit", "durable", "lost"),
        ("drop the fsync", "durable", "lost"),
        ("skip the digest check", "durable", "corrupt"),
    ],
)
def test_the_judge_notices_a_broken_promise(
    tmp_path: Path, images: corpus.Corpus, mutation: str, invariant: str, word: str
) -> None:
    run = scenario.run(tmp_path / "run", images.first(FEWER), seed=1, mutation=mutation)
    print(run)
    noticed = {(each.invariant, each.what.partition(":")[0]) for each in run.violations}
    assert (invariant, word) in noticed, str(run)
