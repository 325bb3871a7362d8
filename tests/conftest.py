"""Fixtures for all test folders."""

import os

# No setting of the machine may leak into the archives that tests start.
for name in [name for name in os.environ if name.startswith("STELE_") and not name.startswith("STELE_TEST_")]:
    if name != "STELE_SCREENSHOTS":
        del os.environ[name]

pytest_plugins = ["tests.ceph", "tests.postgres"]
