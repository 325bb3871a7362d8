"""Plans of campaigns: repeated by their seed, and pairs of faults that may meet."""

import random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos import plan
from chaos.deployed import Deployed
from chaos.faults import FAULTS, Fault, Injected
from chaos.faults.fault import JOINED

CLUSTER = cast(Deployed, None)  # these faults ask nothing of it


@given(st.integers(1, 40), st.integers(0, 2**31))
def test_a_seed_repeats_its_plan(count: int, seed: int) -> None:
    steps = plan.drawn(FAULTS, count, seed)
    assert steps == plan.drawn(dict(FAULTS), count, seed)
    assert len(set(steps)) == count
    assert all(plan.fault_of(FAULTS, name).name == name for name, _ in steps)


def test_other_seeds_have_other_plans_and_a_longer_one_begins_like_a_shorter() -> None:
    plans = {tuple(plan.drawn(FAULTS, 10, seed)) for seed in range(20)}
    assert len(plans) == 20
    assert plan.drawn(FAULTS, 30, 4)[:10] == plan.drawn(FAULTS, 10, 4)
    assert any(JOINED in name for name, _ in plan.drawn(FAULTS, 10, 4))


def test_every_fault_with_every_seed() -> None:
    assert plan.catalogue(["a", "b"], range(3, 5)) == [("a", 3), ("b", 3), ("a", 4), ("b", 4)]


def test_pairs_are_of_two_tiers_and_one_of_them_spares_the_hosts() -> None:
    pairs = [name.split(JOINED) for name in plan.compatible(FAULTS)]
    assert {*plan.FIRST, *plan.SECOND} <= set(FAULTS)
    assert {first for first, _ in pairs} == set(plan.FIRST)
    assert {second for _, second in pairs} == set(plan.SECOND)
    assert all(FAULTS[first].tier != FAULTS[second].tier for first, second in pairs)
    assert ["haproxy-killed", "holder-off"] not in pairs


def test_an_unknown_fault_is_named() -> None:
    for name in ("nothing", "osd-killed+nothing", "nothing+osd-killed"):
        with pytest.raises(KeyError, match="nothing"):
            plan.fault_of(FAULTS, name)


def made(name: str, done: list[str], *, fails: bool = False) -> Fault:
    """A fault that only notes what happens to it."""

    def inject(_cluster: Deployed, _generator: random.Random) -> Injected:
        done.append(f"{name} made")
        if fails:
            raise RuntimeError(name)
        return Injected(f"victim of {name}", lambda: done.append(f"{name} healed"))

    return Fault(name, f"tier of {name}", f"what {name} is", 5, inject, hold_seconds=3, making_seconds=2)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two of a pair come one right after the other."""
    monkeypatch.setattr(plan, "APART_SECONDS", 0.0)


def test_two_faults_as_one() -> None:
    done: list[str] = []
    both = plan.together(made("a", done), made("b", done))
    assert (both.name, both.tier, both.what) == ("a+b", "tier of a+tier of b", "what a is; then what b is")
    assert (both.recovery_seconds, both.hold_seconds, both.making_seconds) == (10, 3, 4)
    injected = both.inject(CLUSTER, random.Random(1))
    assert injected.victim == "victim of a; victim of b"
    injected.heal()
    assert done == ["a made", "b made", "b healed", "a healed"]


def test_the_first_is_healed_if_the_second_cannot_be_made() -> None:
    done: list[str] = []
    with pytest.raises(RuntimeError, match="b"):
        plan.together(made("a", done), made("b", done, fails=True)).inject(CLUSTER, random.Random(1))
    assert done == ["a made", "b made", "a healed"]
