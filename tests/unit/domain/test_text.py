"""Character sets, against the examples of PS3.5 annexes H to K and pydicom's files (test_real_files)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.domain.text import character_set


@pytest.mark.parametrize(
    ("terms", "raw", "text"),
    [
        (b"", b"Doe^Jane", "Doe^Jane"),
        (b"ISO_IR 6", b"Doe", "Doe"),
        (b"ISO_IR 100", "Müller^Zoë".encode("latin-1"), "Müller^Zoë"),
        (b"ISO_IR 101", "Łódź".encode("iso8859-2"), "Łódź"),
        (b"ISO_IR 109", "Ĉapelo".encode("iso8859-3"), "Ĉapelo"),
        (b"ISO_IR 110", "Šķēps".encode("iso8859-4"), "Šķēps"),
        (b"ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
        (b"ISO_IR 127", "قباني^لنزار".encode("iso8859-6"), "قباني^لنزار"),
        (b"ISO_IR 126", "Διονυσιος".encode("iso8859-7"), "Διονυσιος"),
        (b"ISO_IR 138", "שרון^דבורה".encode("iso8859-8"), "שרון^דבורה"),
        (b"ISO_IR 148", "Çavuşoğlu".encode("iso8859-9"), "Çavuşoğlu"),
        (b"ISO_IR 203", "Œuvre €".encode("iso8859-15"), "Œuvre €"),
        (b"ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        (b"ISO_IR 166", "นามสกุล".encode("iso8859-11"), "นามสกุล"),
        (b"ISO_IR 192", "Wang^XiaoDong=王^小东".encode(), "Wang^XiaoDong=王^小东"),
        (b"GB18030", "Wang=王^小东".encode("gb18030"), "Wang=王^小东"),
        (b"GBK", "张^三".encode("gbk"), "张^三"),
        (b" iso-ir_100 ", b"M\xfcller", "Müller"),
        (b"UTF-8", "Zoë".encode(), "Zoë"),
        # PS3.5 H.3.1 and H.3.2
        (
            rb"\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            rb"ISO 2022 IR 13\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        ),
        # PS3.5 I.2: the escape comes again in each component, for ^ and = reset it
        (
            rb"\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        # PS3.5 K.2
        (
            rb"\ISO 2022 IR 58",
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
            "Zhang^XiaoDong=张^小东=",
        ),
        (rb"\ISO 2022 IR 159", b"\x1b$(D0w\x1b(B x", b"\x8f\xb0\xf7".decode("euc_jp") + " x"),
        # two single-byte sets and JIS X 0201 by escape
        (rb"ISO 2022 IR 100\ISO 2022 IR 126", b"\xfc \x1b-F\xc4\xe9 x", "ü Δι x"),
        (rb"ISO 2022 IR 6\ISO 2022 IR 13", b"a\x1b)I\xd4\xcf", "aﾔﾏ"),
        (rb"ISO 2022 IR 6\ISO 2022 IR 166", b"\x1b-T\xb9\xd2", "นา"),
    ],
)  # fmt: skip
def test_defined_terms(terms: bytes, raw: bytes, text: str) -> None:
    assert character_set(terms).decode(raw, name=True) == text


def test_a_backslash_inside_a_two_byte_character_is_no_delimiter() -> None:
    """GB18030's second byte and both bytes of JIS X 0208 may be 0x5C."""
    gb = "賊\\乗".encode("gb18030")
    assert gb.count(b"\\") > 1
    assert character_set(b"GB18030").decode(gb).split("\\") == ["賊", "乗"]
    jis = b"\x1b$B" + b"\x25\x5c" + b"\x1b(B"
    assert character_set(rb"\ISO 2022 IR 87").decode(jis + b"\\x").split("\\") == ["ボ", "x"]


def test_delimiters_bring_back_the_first_set() -> None:
    charset = character_set(rb"ISO 2022 IR 100\ISO 2022 IR 126")
    assert charset.decode(b"\x1b-F\xc4\\\xfc") == "Δ\\ü"
    assert charset.decode(b"\x1b-F\xc4\r\n\xfc") == "Δ\r\nü"
    assert charset.decode(b"\x1b-F\xc4^\xfc", name=True) == "Δ^ü"
    assert charset.decode(b"\x1b-F\xc4^\xc4") == "Δ^Δ"  # outside names ^ is a character


def test_unknown_terms_are_read_as_latin_1() -> None:
    assert character_set(b"ISO_IR 999").decode(b"M\xfcller") == "Müller"
    assert character_set(b"\xff\xfe").decode(b"M\xfcller") == "Müller"


@given(
    terms=st.sampled_from(
        [
            b"",
            b"ISO_IR 13",
            b"ISO_IR 166",
            b"ISO_IR 192",
            b"GB18030",
            rb"\ISO 2022 IR 87\ISO 2022 IR 159",
            rb"\ISO 2022 IR 149",
            rb"ISO 2022 IR 13\ISO 2022 IR 58",
        ]
    ),
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=6),
            st.sampled_from(
                [b"\x1b$B", b"\x1b(B", b"\x1b$)C", b"\x1b$)A", b"\x1b)I", b"\x1b$(D", b"\x1b", b"\\", b"^"]
            ),
        ),
        max_size=12,
    ),
    name=st.booleans(),
)
def test_nothing_raises(terms: bytes, pieces: list[bytes], name: bool) -> None:
    assert isinstance(character_set(terms).decode(b"".join(pieces), name), str)
