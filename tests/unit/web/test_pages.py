"""Logging in never leads elsewhere, and guessing is slowed down."""

import pytest

from node.domain.errors import Reason, Refusal
from node.web import auth
from node.web.auth import LoginThrottle
from node.web.openapi import description
from node.web.pages import local_path


@pytest.mark.parametrize("target", ["/", "/viewer/viewer?StudyInstanceUIDs=1.2", "/login"])
def test_a_path_of_ours_is_kept(target: str) -> None:
    assert local_path(target) == target


@pytest.mark.parametrize(
    "target",
    [
        "//elsewhere",
        "https://elsewhere",
        "/\\elsewhere",
        "\\elsewhere",
        "javascript:x",
        "",
        "/a\r\nb",
        "/\t/x",
    ],
)
def test_any_other_target_becomes_the_front_page(target: str) -> None:
    assert local_path(target) == "/"


def test_too_many_failures_wait() -> None:
    throttle = LoginThrottle()
    for _ in range(auth.LOGIN_TRIES):
        throttle.check("192.0.2.1", "name")
        throttle.failed("192.0.2.1", "name")
    with pytest.raises(Refusal) as caught:
        throttle.check("192.0.2.1", "name")
    assert caught.value.reason is Reason.TOO_MANY
    throttle.check("192.0.2.2", "name")
    throttle.check("192.0.2.1", "other")


def test_failures_are_kept_for_a_bounded_number_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "LOGIN_KEYS_KEPT", 10)
    throttle = LoginThrottle()
    for number in range(100):
        throttle.failed("192.0.2.1", str(number))
    assert len(throttle._failures) == 10


def test_every_path_parameter_is_described() -> None:
    for path, operations in description()["paths"].items():
        named = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert {each["name"] for each in operations.get("parameters", [])} == named
