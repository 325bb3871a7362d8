"""Key values become matches (PS3.4 section C.2.2.2)."""

import pytest

from node.domain.errors import Reason, Refusal
from node.domain.matching import (
    MAX_VALUE_CHARS,
    MAX_VALUES,
    Rules,
    combine_dates_and_times,
    holds,
    match_of,
    matches_of,
    selected_items,
)
from node.domain.query import Kind, Match

PLAIN = Rules()


def match(vr: str, *values: str, rules: Rules = PLAIN) -> tuple[Kind, tuple[str, ...]] | None:
    found = match_of(("00080000",), vr, values, rules)
    return (found.kind, found.values) if found else None


@pytest.mark.parametrize(
    ("vr", "value", "kind", "values"),
    [
        ("LO", " A ", Kind.SINGLE, ("A",)),
        ("LO", "A*", Kind.WILDCARD, ("A*",)),
        ("PN", "A?^B", Kind.WILDCARD, ("A?^B",)),
        ("UI", "1.2\0", Kind.SINGLE, ("1.2",)),
        ("DA", "20260102", Kind.SINGLE, ("20260102",)),
        ("DA", "2026.01.02", Kind.SINGLE, ("20260102",)),
        ("DA", "20260102-20260103", Kind.RANGE, ("20260102", "20260103")),
        ("DA", "2026.01.02 - ", Kind.RANGE, ("20260102", "")),
        ("DA", "-20260103", Kind.RANGE, ("", "20260103")),
        ("TM", "10", Kind.UNIT, ("100000", "105959.999999")),
        ("TM", "10:11:12", Kind.UNIT, ("101112", "101112.999999")),
        ("TM", "101112.50", Kind.UNIT, ("101112.5", "101112.509999")),
        ("TM", "-1011", Kind.RANGE, ("", "101159.999999")),
        ("TM", "1011-", Kind.RANGE, ("101100", "")),
        ("TM", "235960", Kind.UNIT, ("235960", "235960.999999")),
        ("DT", "2026", Kind.UNIT, ("20260101000000", "20261231235959.999999")),
        ("DT", "20260102-202601031200", Kind.RANGE, ("20260102000000", "20260103120059.999999")),
        ("DT", "2026010212-0500", Kind.UNIT, ("20260102120000", "20260102125959.999999")),
        ("DT", "20260102-0500-20260103-0500", Kind.RANGE, ("20260102000000", "20260103235959.999999")),
        ("DT", "2025-2026", Kind.RANGE, ("20250101000000", "20261231235959.999999")),  # no time zone
        ("IS", " 07 ", Kind.SINGLE, ("07",)),
        ("DS", "1e3", Kind.SINGLE, ("1e3",)),
        ("AS", "0*1Y", Kind.SINGLE, ("0*1Y",)),  # no wildcards in this VR
    ],
)
def test_one_value(vr: str, value: str, kind: Kind, values: tuple[str, ...]) -> None:
    assert match(vr, value) == (kind, values)


@pytest.mark.parametrize("values", [(), ("",), ("  ",), ("*",), ("**",), ("", "*")])
@pytest.mark.parametrize("vr", ["LO", "UI", "DA", "TM", "IS", "PN", "SQ", "OB"])
def test_nothing_and_stars_are_universal(vr: str, values: tuple[str, ...]) -> None:
    assert match(vr, *values) is None


def test_several_values_are_any_of_them_or_each_where_negotiated() -> None:
    assert match("UI", "1.2", "1.3") == (Kind.LIST, ("1.2", "1.3"))
    assert match("CS", "CT", "MR") == (Kind.LIST, ("CT", "MR"))
    assert match("CS", "CT", "MR", rules=Rules(multiple=True)) == (Kind.ALL, ("CT", "MR"))
    assert match("UI", "1.2", "1.3", rules=Rules(multiple=True)) == (Kind.LIST, ("1.2", "1.3"))


def test_two_quotes_mean_no_value_only_where_negotiated() -> None:
    assert match("LO", '""', rules=Rules(empty=True)) == (Kind.EMPTY, ())
    assert match("LO", '""') == (Kind.SINGLE, ('""',))
    with pytest.raises(Refusal):
        match("DA", '""')


@pytest.mark.parametrize(
    ("vr", "values"),
    [
        ("DA", ("2026",)),
        ("DA", ("20260230",)),
        ("DA", ("20260102-2026",)),
        ("DA", ("-",)),
        ("DA", ("2026*",)),
        ("DA", ("2026-01-02",)),
        ("DA", ("٢٠٢٦٠١٠٢",)),
        ("TM", ("24",)),
        ("TM", ("1060",)),
        ("TM", ("101",)),
        ("TM", ("10-11-12",)),
        ("TM", ("-",)),
        ("DT", ("202613",)),
        ("DT", ("-",)),
        ("UI", ("1.2.x",)),
        ("UI", ("1.2.*",)),
        ("UI", ("1" * 65,)),
        ("IS", ("one",)),
        ("DS", ("NaN",)),
        ("DS", ("1e999999999",)),
        ("OB", ("x",)),
        ("SQ", ("x",)),
        ("LO", ("a\0b",)),
        ("LO", ("\ud800",)),
        ("LO", ("a*", "b")),
        ("LO", ("x" * (MAX_VALUE_CHARS + 1),)),
        ("UI", ("1.2",) * (MAX_VALUES + 1)),
    ],
)
def test_what_a_vr_does_not_allow_is_refused_without_its_value(vr: str, values: tuple[str, ...]) -> None:
    with pytest.raises(Refusal) as refused:
        match(vr, *values)
    assert refused.value.reason is Reason.INVALID_QUERY
    assert refused.value.comment.startswith("00080000: ")
    assert (
        values[0] == "x"
        or values[0] not in refused.value.comment.removeprefix("00080000: ")
        or len(values[0]) == 1
    )


def test_dates_and_times_become_moments_only_if_their_ends_agree() -> None:
    date = Match(("00080020",), Kind.RANGE, ("20260102", "20260103"), "DA")
    time = Match(("00080030",), Kind.RANGE, ("100000", "115959.999999"), "TM")
    moments = Match(
        ("00080020",), Kind.RANGE, ("20260102100000", "20260103115959.999999"), "DT", time="00080030"
    )
    assert combine_dates_and_times([time, date]) == (moments,)
    half_open = Match(("00080020",), Kind.RANGE, ("20260102", ""), "DA")
    assert combine_dates_and_times([half_open, time]) == (half_open, time)
    single = Match(("00080020",), Kind.SINGLE, ("20260102",), "DA")
    assert combine_dates_and_times([single, time]) == (single, time)
    unit = Match(("00080030",), Kind.UNIT, time.values, "TM")
    assert combine_dates_and_times([date, unit]) == (date, unit)
    nested = Match(("00400275", "00080020"), Kind.RANGE, date.values, "DA")
    assert combine_dates_and_times([nested, time]) == (nested, time)


def test_sequences_have_one_item_and_are_matched_inside() -> None:
    inner = {"00400009": {"vr": "SH", "Value": ["S1"]}, "00401001": {"vr": "SH"}}
    assert matches_of({"00400275": {"vr": "SQ", "Value": [inner]}}, PLAIN) == [
        Match(("00400275", "00400009"), Kind.SINGLE, ("S1",), "SH")
    ]
    assert matches_of({"00400275": {"vr": "SQ"}}, PLAIN) == []
    for items in ([inner, inner], [{"00400275": {"vr": "SQ", "Value": [{"00400275": {"vr": "SQ"}}]}}]):
        deep = items if len(items) == 2 else [{"00081110": {"vr": "SQ", "Value": items}}]
        with pytest.raises(Refusal):
            matches_of({"00400275": {"vr": "SQ", "Value": deep}}, PLAIN)


def test_items_are_selected_by_all_their_keys() -> None:
    one = {"00400009": {"vr": "SH", "Value": ["S1"]}, "00401001": {"vr": "SH", "Value": ["R1"]}}
    two = {"00400009": {"vr": "SH", "Value": ["S2"]}, "00401001": {"vr": "SH", "Value": ["R2"]}}
    element = {"vr": "SQ", "Value": [one, two]}
    s2 = Match(("00400009",), Kind.SINGLE, ("S2",), "SH")
    r1 = Match(("00401001",), Kind.SINGLE, ("R1",), "SH")
    assert selected_items(element, {}, []) == element
    assert selected_items(element, {"00401001": {"vr": "SH"}}, [s2]) == {
        "vr": "SQ",
        "Value": [{"00401001": {"vr": "SH", "Value": ["R2"]}}],
    }
    assert selected_items(element, {}, [s2, r1]) == {"vr": "SQ"}


@pytest.mark.parametrize(
    ("vr", "stored", "kind", "values", "expected"),
    [
        ("PN", {"Alphabetic": "Müller^Anna"}, Kind.SINGLE, ("MULLER^anna",), True),
        ("PN", {"Alphabetic": "Yamada^Taro", "Ideographic": "山田^太郎"}, Kind.WILDCARD, ("山*",), True),
        ("PN", {"Alphabetic": "Yamada^Taro", "Ideographic": "山田^太郎"}, Kind.WILDCARD, ("Y*郎",), False),
        ("PN", {"Alphabetic": "Yamada^Taro", "Ideographic": "山田^太郎"}, Kind.WILDCARD, ("*=山*",), True),
        ("DS", 1.5, Kind.SINGLE, ("1.50",), True),
        ("IS", "broken", Kind.SINGLE, ("1",), False),
        ("DA", "2026.01.02", Kind.RANGE, ("20260101", "20260102"), True),
        ("TM", "09:00", Kind.RANGE, ("090000", "090000.999999"), True),
        ("DT", "202601020300+0100", Kind.RANGE, ("20260102030000", ""), True),
        ("LO", "a.c", Kind.WILDCARD, ("a.?",), True),
        ("LO", "abc", Kind.WILDCARD, ("a.?",), False),
        ("LO", None, Kind.EMPTY, (), True),
        ("CS", "CT", Kind.ALL, ("CT", "MR"), False),
    ],
)
def test_what_holds(vr: str, stored: object, kind: Kind, values: tuple[str, ...], expected: bool) -> None:
    attributes = {"00400009": {"vr": vr, "Value": [stored]}}
    assert holds(attributes, Match(("00400009",), kind, values, vr)) is expected
