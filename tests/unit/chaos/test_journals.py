"""What is kept of a host's journal."""

import json

from chaos.journals import UNIT_LINES, Line, condensed, lines_in


def entry(moment: float, message: object, unit: str = "etcd.service", **others: str) -> str:
    return json.dumps(
        {"__MONOTONIC_TIMESTAMP": f"{moment * 1e6:.0f}", "MESSAGE": message, "_SYSTEMD_UNIT": unit, **others}
    )


def test_lines_have_a_moment_a_unit_and_a_text() -> None:
    of_systemd = entry(3, "exited", "init.scope", UNIT="a@1.service")
    printed = [entry(1.5, "hello"), entry(2, [1, 2]), of_systemd]
    assert list(lines_in("\n".join(printed))) == [
        Line(1.5, "etcd", "hello", 1),
        Line(3.0, "a@1", "exited", 1),
    ]


def test_lines_that_differ_in_numbers_are_one() -> None:
    said = [Line(at, "patroni", f"{at} INFO: no action for 7f3a{at}", 1) for at in range(1, 9)]
    assert condensed(said, 0, 100) == [Line(1, "patroni", "1 INFO: no action for 7f3a1", 8)]


def test_only_what_was_said_meanwhile_and_is_no_request() -> None:
    said = [
        Line(1, "etcd", "before", 1),
        Line(5, "stele-web", json.dumps({"event": "request", "level": "info"}), 1),
        Line(6, "stele-web", json.dumps({"event": "catalog away", "level": "warning"}), 1),
        Line(7, "stele-web", "{ no JSON", 1),
        Line(11, "etcd", "after", 1),
    ]
    assert [each.moment for each in condensed(said, 2, 10)] == [6, 7]


def test_a_unit_that_says_much_is_cut_off_and_others_are_not() -> None:
    words = [f"{chr(103 + number // 20)}{chr(103 + number % 20)}" for number in range(50)]
    said = [Line(number, "ceph-osd@1", f"line {word}", 1) for number, word in enumerate(words)]
    kept = condensed([*said, Line(60, "etcd", "x" * 1000, 1)], 0, 100)
    assert len(kept) == UNIT_LINES + 1
    assert len(kept[-1].text) == 300
