import pytest

from node.domain.names import groups, normalise, phonetic, search_text


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("Müller", "MULLER"),
        ("Straße", "STRASSE"),
        ("Łódź", "lodz"),
        ("Ørsted", "Orsted"),
        ("  Anna \t Lena ", "anna lena"),
        ("Ｗａｎｇ", "wang"),  # full width
        ("İnönü", "inonu"),
        ("ΔΙΟΝΎΣΙΟΣ", "διονυσιος"),
        ("Zoë", "Zoe\u0308"),  # composed and decomposed
        ("홍길동", "홍길동"),
    ],
)
def test_what_a_searcher_types_meets_what_is_stored(written: str, asked: str) -> None:
    assert normalise(written) == normalise(asked)


@pytest.mark.parametrize(("one", "other"), [("か", "が"), ("山田", "太郎"), ("김", "기")])
def test_other_letters_stay_other_letters(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_a_syllable_stays_one_character_for_wildcards() -> None:
    assert [len(normalise(text)) for text in ("홍", "が", "é")] == [1, 1, 1]


def test_normalising_twice_changes_nothing() -> None:
    for text in ("Łódź", "İ", "ǅ", "ﬁ", "ẞ", "Å", "か\u3099"):
        assert normalise(normalise(text)) == normalise(text)


def test_search_text_keeps_components_and_groups() -> None:
    assert search_text("Yamada^Tarō^^^=山田^太郎=やまだ^たろう") == "yamada^taro=山田^太郎=やまだ^たろう"
    assert search_text("DOE^JANE^^^") == search_text("Doe ^ Jane") == "doe^jane"
    assert search_text("") == search_text("^^=") == ""
    assert search_text("=山田") == "=山田"
    assert groups("A^B=C") == [["A", "B"], ["C"]]


@pytest.mark.parametrize(
    ("name", "code"),
    [  # the US National Archives' examples
        ("Washington", "W252"), ("Lee", "L000"), ("Gutierrez", "G362"), ("Pfister", "P236"),
        ("Jackson", "J250"), ("Tymczak", "T522"), ("Ashcraft", "A261"), ("Müller", "M460"),
    ],
)  # fmt: skip
def test_soundex(name: str, code: str) -> None:
    assert phonetic(name) == [code]


def test_phonetic_codes_each_part_once() -> None:
    assert phonetic("Meyer-Maier^Jon^^Dr") == ["M600", "J500", "D600"]
    assert phonetic("Yamada=山田") == ["Y530", "山田"]
    assert phonetic("") == []
