"""Shares: one address cannot take everybody's places, nor fill the places to wait in."""

import threading

from node.services.limits import Turns, most_crowding
from tests.support import wait_until


def test_one_address_gets_half_of_the_places_and_others_the_rest() -> None:
    turns = Turns(4, 0, 5)
    assert [turns.enter("a") for _ in range(3)] == [True, True, False]
    assert [turns.enter("b") for _ in range(3)] == [True, True, False]
    assert not turns.enter("c")  # all are taken
    turns.leave("a")
    assert turns.enter("c")


def test_a_single_place_is_everybodys() -> None:
    turns = Turns(1, 0, 5)
    assert turns.enter("a")
    assert not turns.enter("b")
    turns.leave("a")
    assert turns.enter("b")


def test_who_waits_gets_the_place_that_becomes_free_and_one_address_half_of_the_places_to_wait_in() -> None:
    turns = Turns(2, 4, 30)
    assert turns.enter("a")
    results: list[bool] = []

    def wait() -> None:
        results.append(turns.enter("a"))
        turns.leave("a")

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: turns._before["a"] == 2, 10, "both wait")
    assert not turns.enter("a")  # at once: its places to wait in are taken
    assert turns.enter("b")  # others do not queue behind it
    turns.leave("a")
    for thread in threads:
        thread.join()
    assert results == [True, True]
    turns.leave("b")
    assert not turns._inside
    assert not turns._before


def test_a_wait_ends() -> None:
    turns = Turns(1, 2, 0.05)
    assert turns.enter("a")
    assert not turns.enter("b")
    turns.leave("a")
    assert turns.enter("b")


def test_whoever_waits_most_makes_room_oldest_first() -> None:
    waiting = [("honest", 1), ("greedy", 2), ("greedy", 3), ("honest too", 4)]
    assert most_crowding(waiting) == 2
    assert most_crowding([("a", 1), ("b", 2)]) == 1
