"""Rates: what is let through, of how many."""

import pytest

from node.services import limits
from node.services.limits import Bucket, Sparingly


def test_a_flood_is_audited_sparingly() -> None:
    sparingly = Sparingly()
    assert sum(sparingly.allows("192.0.2.1") for _ in range(1000)) < 20
    assert sparingly.allows("192.0.2.2")


def test_few_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ADDRESSES_KEPT", 3)
    sparingly = Sparingly()
    for number in range(100):
        assert sparingly.allows(f"192.0.2.{number}")
    assert len(sparingly._buckets) == 3


def test_a_bucket_never_saves_more_than_its_burst() -> None:
    bucket = Bucket(1000, 2)
    bucket._at -= 3600
    assert [bucket.take() for _ in range(3)] == [True, True, False]
