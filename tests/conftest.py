"""Fixtures for all test folders."""

import os

# No setting of the machine may leak into the archives that tests start.
OF_TESTS = ("STELE_TEST_", "STELE_LAB_", "STELE_SCREENSHOTS")
for name in [name for name in os.environ if name.startswith("STELE_") and not name.startswith(OF_TESTS)]:
    del os.environ[name]

pytest_plugins = ["tests.ceph", "tests.postgres"]
