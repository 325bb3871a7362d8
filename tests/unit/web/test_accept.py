"""Accept and Content-Type headers as clients send them, and as nobody should."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.domain.errors import Reason, Refusal
from node.web import accept
from node.web.accept import ANYTHING, Wanted

DICOM, JPEG, PNG = "application/dicom", "image/jpeg", "image/png"
tokens = st.text("abcxyz0189+.-", min_size=1, max_size=8)
syntaxes = st.one_of(st.none(), st.just("*"), st.from_regex(r"1\.2\.[0-9]{1,6}", fullmatch=True))


@st.composite
def ranges(draw: st.DrawFn) -> tuple[str, Wanted]:
    """A media range as text and as what it means."""
    media_type = draw(st.one_of(st.just("*/*"), st.builds("{}/{}".format, tokens, tokens)))
    syntax, multipart = draw(syntaxes), draw(st.booleans())
    thousandths = draw(st.integers(1, 1000))
    text = f'multipart/related; type="{media_type}"' if multipart else media_type
    if syntax is not None:
        text += f";transfer-syntax={syntax}"
    return f"{text}; q={thousandths / 1000:.3f}", Wanted(media_type, multipart, syntax, thousandths / 1000)


@given(st.lists(ranges(), min_size=1, max_size=6))
def test_what_is_written_is_understood_and_the_best_comes_first(given_: list[tuple[str, Wanted]]) -> None:
    found = accept.parse(" ,".join(text for text, _ in given_))
    assert sorted(map(str, found)) == sorted(str(wanted) for _, wanted in given_)
    assert [each.quality for each in found] == sorted((each.quality for each in found), reverse=True)


headers = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            ["a/b", "*/*", "*", ";", ",", "=", '"', "\\", "q=", "q=1", "0.5", " ", "type=", "\t"]
        ),
        max_size=15,
    ).map("".join),
)


@given(headers)
@example('a/b;c="unclosed')
@example("a/b;;;")
@example("a/b;q=nan")
@example("multipart/related;type=\"multipart/related;type='a/b'\"")
def test_any_header_is_understood_or_refused(header: str) -> None:
    try:
        found = accept.parse(header)
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_ACCEPTABLE
    else:
        assert all(0 < each.quality <= 1 and "/" in each.media_type for each in found)


@given(headers)
def test_any_content_type_gives_a_type_or_none(header: str) -> None:
    media_type, parameters = accept.media_type_and_parameters(header)
    assert media_type == media_type.lower()
    assert media_type or not parameters


@pytest.mark.parametrize("header", [None, "", "  "])
def test_no_header_accepts_everything(header: str | None) -> None:
    assert accept.parse(header) == [ANYTHING]


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ('multipart/related; type="application/dicom"; transfer-syntax=*', Wanted(DICOM, True, "*")),
        ("multipart/related; type=application/dicom", Wanted(DICOM, True)),
        ('multipart/related;type="application/dicom; transfer-syntax=1.2"', Wanted(DICOM, True, "1.2")),
        ("multipart/related", Wanted("*/*", True)),
        ("APPLICATION/DICOM;Transfer-Syntax=1.2.3", Wanted(DICOM, False, "1.2.3")),
        ("*", ANYTHING),
        ("image/*;q=0.5", Wanted("image/*", quality=0.5)),
    ],
)
def test_headers_of_known_clients(header: str, wanted: Wanted) -> None:
    assert accept.parse(header) == [wanted]


def test_among_equals_the_more_specific_comes_first() -> None:
    found = accept.parse("*/*, image/*, image/png")
    assert [each.media_type for each in found] == ["image/png", "image/*", "*/*"]


def test_quality_zero_is_left_out() -> None:
    assert accept.parse("image/png;q=0, image/jpeg;q=0.000") == []


@pytest.mark.parametrize(
    "header",
    ["x" * 8193, ", ".join(["a/b"] * 65), "a/b;q=2", "a/b;q=0.1234", "image", "a/b c/d", 'a/b;c="'],
)
def test_refused(header: str) -> None:
    with pytest.raises(Refusal) as caught:
        accept.parse(header)
    assert caught.value.reason is Reason.NOT_ACCEPTABLE


@pytest.mark.parametrize(
    ("header", "multipart", "chosen"),
    [
        ("*/*", False, PNG),
        ("image/*", False, PNG),
        ("image/jpeg, image/png;q=0.9", False, JPEG),
        ("image/tiff", False, None),
        ("multipart/related;type=image/jpeg", False, None),
        ("multipart/related;type=image/jpeg", True, JPEG),
        ("images/*", False, None),
    ],
)
def test_choice(header: str, multipart: bool, chosen: str | None) -> None:
    assert accept.choose(accept.parse(header), [PNG, JPEG], multipart=multipart) == chosen


def test_content_type_parameters() -> None:
    header = 'Multipart/Related; Type="application/dicom"; boundary="a \\"b\\" c"'
    expected = {"type": DICOM, "boundary": 'a "b" c'}
    assert accept.media_type_and_parameters(header) == ("multipart/related", expected)
    assert accept.media_type_and_parameters("a/b; c=d, e/f") == ("", {})
