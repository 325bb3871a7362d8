"""How long to look for what breaks.

As part of all tests: a few seconds, the same examples each time. With STELE_TEST_FUZZ_FACTOR=1000, other
examples each time, a thousand times as many; what is found is shrunk and kept in `.hypothesis`, and becomes
a test by name.
"""

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("STELE_TEST_FUZZ_FACTOR", "1"))


def examples(count: int) -> settings:
    """Settings of a fuzz test that looks at `count` examples in a usual run."""
    return settings(
        max_examples=count * FACTOR,
        derandomize=FACTOR == 1,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
