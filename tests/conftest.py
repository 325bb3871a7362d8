"""Fixtures for all test folders."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
# Folders whose tests measure time, or take the whole machine for what they start.
QUIET = ("browser", "chaos", "cluster", "hostile")

# No setting of the machine may leak into the archives that tests start.
OF_TESTS = ("STELE_TEST_", "STELE_LAB_", "STELE_SCREENSHOTS")
for name in [name for name in os.environ if name.startswith("STELE_") and not name.startswith(OF_TESTS)]:
    del os.environ[name]

# Property tests look at the same examples each time, and fail for what they find, never for how long it took:
# others may take the machine meanwhile.
settings.register_profile(
    "stele", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("stele")

pytest_plugins = ["tests.ceph", "tests.postgres"]


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests `quiet` by their folder; the file that takes longest comes first, so that two workers end
    together."""
    items.sort(key=lambda item: item.path.name != "test_kills.py")
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in QUIET:
            item.add_marker(pytest.mark.quiet)
