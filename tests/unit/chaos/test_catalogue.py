"""The faults that there are, as `python -m chaos list` shows them."""

import pytest
from typer.testing import CliRunner

from chaos.cli import app
from chaos.faults import FAULTS, Fault


@pytest.mark.parametrize("name", FAULTS)
def test_each_says_what_it_is_and_how_soon_clients_are_served_again(name: str) -> None:
    fault: Fault = FAULTS[name]
    assert fault.name == name
    assert fault.tier
    assert fault.what
    assert fault.recovery_seconds > 0
    assert fault.hold_seconds >= 0


def test_no_two_are_the_same() -> None:
    assert len({fault.what for fault in FAULTS.values()}) == len(FAULTS)


def test_all_are_listed() -> None:
    done = CliRunner().invoke(app, ["list"])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()] == list(FAULTS)


def test_an_unknown_one_is_refused_before_anything_is_done() -> None:
    done = CliRunner().invoke(
        app, ["run", "--lab", "nowhere", "--out", "nowhere", "osd-killed", "no-such-fault"]
    )
    assert done.exit_code == 2
    assert "no such fault: no-such-fault" in done.output
