"""Text out of datasets: any bytes under any character set become text that can be stored and searched."""

import json

from hypothesis import given
from hypothesis import strategies as st

from node.domain import names
from node.domain.text import character_set
from tests.fuzz.effort import examples

SETS = st.one_of(
    st.lists(
        st.sampled_from(
            ["", "ISO_IR 6", "ISO_IR 100", "ISO_IR 13", "ISO_IR 192", "GB18030", "GBK", "ISO 2022 IR 6",
             "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO 2022 IR 58", "ISO 2022 IR 159", "ISO 2022 IR 166",
             "ISO-IR 100", "UTF-8", "LATIN1", "ISO_IR 9999999999"]
        ),
        max_size=4,
    ).map(lambda terms: "\\".join(terms).encode()),
    st.binary(max_size=20),
)  # fmt: skip
RAW = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.sampled_from(
            [b"\x1b$B", b"\x1b$)C", b"\x1b(B", b"\x1b(J", b"\x1b$(D", b"\x1b)I", b"\x1b-F", b"\x1b$)A",
             b"\x1b",
             b"^", b"=", b"\\", b"\r\n", "山田".encode("iso2022_jp"), "김".encode("euc_kr"), b"\xff\xfe"]
        ),
    ),
    max_size=8,
).map(b"".join)  # fmt: skip


@examples(400)
@given(SETS, RAW, st.booleans())
def test_any_bytes_are_text(charset: bytes, raw: bytes, name: bool) -> None:
    """Never an exception, and text that goes into JSON and back."""
    text = character_set(charset).decode(raw, name)
    assert json.loads(json.dumps(text, ensure_ascii=False).encode()) == text


@examples(400)
@given(
    st.text(max_size=60) | st.tuples(SETS, RAW).map(lambda pair: character_set(pair[0]).decode(pair[1], True))
)
def test_any_text_is_a_name(text: str) -> None:
    """Its search forms are made, and making them again changes nothing."""
    found = names.search_text(text)
    assert names.search_text(found) == found
    assert all(code for code in names.phonetic(text))
    assert len(found) <= 20 * len(text)  # a ligature is taken apart into at most eighteen letters
    names.groups(text)
