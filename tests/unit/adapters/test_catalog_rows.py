"""Attributes become columns: every odd value has a defined one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.adapters.catalog_postgres.locks import lock_key
from node.adapters.catalog_postgres.rows import bounded, first, json_text, number, patient_key, time_text


@pytest.mark.parametrize(
    ("element", "text"),
    [
        ({"vr": "LO", "Value": ["A", "B"]}, "A"),
        ({"vr": "LO", "Value": []}, ""),
        ({"vr": "LO", "Value": [None, "B"]}, ""),
        ({"vr": "LO"}, ""),
        ({"vr": "IS", "Value": [0]}, "0"),
        ({"vr": "LO", "Value": [" padded\x00 "]}, "padded"),
        ({"vr": "PN", "Value": [{"Alphabetic": "A^B", "Phonetic": "C^D"}]}, "A^B==C^D"),
        ({"vr": "PN", "Value": [{"Ideographic": "山田^太郎"}]}, "=山田^太郎"),
        ({"vr": "PN", "Value": [{}]}, ""),
    ],
)
def test_first_value(element: dict[str, object], text: str) -> None:
    assert first({"00100010": element}, "00100010") == text


def test_first_value_of_nothing() -> None:
    assert first({}, "00100010") == ""


@given(st.text(max_size=600))
def test_a_column_takes_any_length_and_tells_texts_apart(text: str) -> None:
    longer = text + "x" * 300
    assert len(bounded(longer)) <= 256
    assert bounded(longer) == bounded(longer) != bounded(longer + "y")
    assert bounded(text) == text or len(text) > 256


@pytest.mark.parametrize(
    ("value", "expected"),
    [("12", 12), (" -3 ", -3), ("+4", 4), (5, 5), ("1.5", None), ("", None), (None, None), (10**30, None)],
)
def test_number(value: object, expected: int | None) -> None:
    assert number({"00200013": {"vr": "IS", "Value": [value]}}, "00200013") == expected


@given(st.integers(-(10**19), 10**19))
def test_a_number_fits_a_bigint(value: int) -> None:
    found = number({"00200013": {"vr": "IS", "Value": [str(value)]}}, "00200013")
    assert found == (value if abs(value) < 2**63 else None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("101112", "101112"),
        ("10:11:12", "101112"),
        ("101112.500000", "101112.5"),
        ("1011.000", "1011"),
        ("", ""),
    ],
)
def test_time_text(value: str, expected: str) -> None:
    assert time_text(value) == expected


def test_a_patient_is_id_and_issuer_or_else_the_study() -> None:
    keys = {
        patient_key("1", "", "2.25.1"),
        patient_key("1", "A", "2.25.1"),
        patient_key("1A", "", "2.25.1"),
        patient_key("", "", "2.25.1"),
        patient_key("", "", "2.25.2"),
        patient_key("", "A", "2.25.3"),
        patient_key("2.25.1", "", "2.25.1"),
    }
    assert len(keys) == 7
    assert patient_key("1", "A", "2.25.1") == patient_key("1", "A", "2.25.2")


def test_json_keeps_all_but_nul() -> None:
    for value in ({"ü": "山", "n": [1, 0.5, None, True]}, {"text": "a\\u0000b"}):
        assert json.loads(json_text(value)) == value
    assert json_text({"a\x00": ["b\x00", 1, None]}) == '{"a": ["b", 1, null]}'


def test_lock_keys_are_signed_64_bit_and_apart() -> None:
    keys = {lock_key("study", "1"), lock_key("patient", "1"), lock_key("study", "2")}
    assert len(keys) == 3
    assert all(-(2**63) <= key < 2**63 for key in keys)
