"""Settled objects are out of the collector's sight; what comes after them is not."""

import gc
import weakref

from node import lasting


class Knot:
    """Holds on to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_is_looked_at_no_more_and_what_comes_later_is() -> None:
    left_behind = weakref.ref(Knot())
    lasts = Knot()
    try:
        lasting.settle()
        assert left_behind() is None
        assert not any(each is lasts for each in gc.get_objects())
        later = weakref.ref(Knot())
        gc.collect()
        assert later() is None
    finally:
        gc.unfreeze()
