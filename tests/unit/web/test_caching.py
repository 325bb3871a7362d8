"""Conditional and partial requests (RFC 9110 sections 13 and 14)."""

from datetime import datetime, timedelta, timezone

import falcon
import pytest
from falcon import testing
from hypothesis import example, given
from hypothesis import strategies as st

from node.web import caching
from node.web.status import Problem

LENGTH = 1000
ETAG = "abc"


def ask(length: int = LENGTH, method: str = "GET", **headers: str) -> tuple[tuple[int, int] | None, str]:
    """What is to be sent, and the answer's status and Content-Range."""
    req = falcon.Request(
        testing.create_environ(
            method=method, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
    )
    resp = falcon.Response()
    found = caching.byte_range(req, resp, length, ETAG)
    assert resp.get_header("Accept-Ranges") == "bytes"
    return found, f"{str(resp.status)[:3]} {resp.get_header('Content-Range') or ''}".strip()


@pytest.mark.parametrize(
    ("header", "sent", "told"),
    [
        ("bytes=0-0", (0, 1), "206 bytes 0-0/1000"),
        ("bytes=10-19", (10, 10), "206 bytes 10-19/1000"),
        ("bytes=990-", (990, 10), "206 bytes 990-999/1000"),
        ("bytes=990-5000", (990, 10), "206 bytes 990-999/1000"),
        ("bytes=-10", (990, 10), "206 bytes 990-999/1000"),
        ("bytes=-5000", (0, 1000), "206 bytes 0-999/1000"),
        ("Bytes= 1-2 ", (1, 2), "206 bytes 1-2/1000"),
        ("bytes=0-1,5-6", None, "200"),
        ("lines=1-2", None, "200"),
    ],
)
def test_ranges(header: str, sent: tuple[int, int] | None, told: str) -> None:
    assert ask(Range=header) == (sent, told)


@pytest.mark.parametrize(
    "header", ["bytes=1000-", "bytes=5-4", "bytes=-0", "bytes=-", "bytes=", "bytes=x-y", "bytes=--1"]
)
def test_ranges_that_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(Problem) as caught:
        ask(Range=header)
    assert caught.value.status_code == 416
    assert dict(caught.value.headers or {}) == {"Content-Range": "bytes */1000"}


def test_nothing_of_an_empty_resource_can_be_asked_for() -> None:
    with pytest.raises(Problem):
        ask(length=0, Range="bytes=0-")


def test_only_get_has_ranges() -> None:
    assert ask(method="HEAD", Range="bytes=1-2") == (None, "200")


@pytest.mark.parametrize(("condition", "sent"), [('"abc"', (1, 2)), ('"old"', None), ('W/"abc"', None)])
def test_a_range_of_another_version_gets_the_whole(condition: str, sent: tuple[int, int] | None) -> None:
    assert ask(Range="bytes=1-2", If_Range=condition)[0] == sent


@given(st.integers(0, 5000), st.text("bytes=-,0123456789 ", max_size=30).map("bytes={}".format))
@example(5, "bytes=00000000000000000000000000-1")
def test_what_is_sent_always_exists(length: int, header: str) -> None:
    try:
        found, _ = ask(length, Range=header)
    except Problem as problem:
        assert problem.status_code == 416
    else:
        if found is not None:
            first, count = found
            assert count >= 1
            assert 0 <= first < first + count <= length


@pytest.mark.parametrize(
    ("known", "same"),
    [(None, False), ('"abc"', True), ('W/"abc"', True), ('"x", "abc"', True), ("*", True), ('"abcd"', False)],
)
def test_versions_that_the_client_has(known: str | None, same: bool) -> None:
    headers = {"If-None-Match": known} if known else {}
    req, resp = falcon.Request(testing.create_environ(headers=headers)), falcon.Response()
    assert caching.unchanged(req, resp, ETAG, caching.REVALIDATE) is same
    assert (str(resp.status)[:3] == "304") is same
    assert resp.get_header("ETag") == '"abc"'
    assert resp.get_header("Cache-Control") == "private, no-cache"
    assert resp.get_header("Vary") == "Accept"


RECEIVED = datetime(2024, 2, 29, 12, 30, 15, 999_999, timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("since", "same"),
    [
        ("Thu, 29 Feb 2024 10:30:15 GMT", True),
        ("Thu, 29 Feb 2024 10:30:14 GMT", False),
        ("Fri, 01 Mar 2024 00:00:00 GMT", True),
        ("Thursday, 29-Feb-24 10:30:15 GMT", True),  # RFC 850's form (RFC 9110 section 5.6.7)
        ("Thu, 29 Feb 2024 10:30:15 -0000", False),
        ("yesterday", False),
        ("", False),
        ("Thu, 99 Feb 2024 10:30:15 GMT", False),
        ("Thu, 29 Feb 999999999999 10:30:15 GMT", False),
    ],
)
def test_dates_that_the_client_has(since: str, same: bool) -> None:
    req = falcon.Request(testing.create_environ(headers={"If-Modified-Since": since}))
    resp = falcon.Response()
    assert caching.unchanged(req, resp, ETAG, caching.IMMUTABLE, modified=RECEIVED) is same
    assert (str(resp.status)[:3] == "304") is same
    assert resp.get_header("Last-Modified") == "Thu, 29 Feb 2024 10:30:15 GMT"


def test_a_version_outweighs_a_date() -> None:
    headers = {"If-Modified-Since": "Fri, 01 Mar 2030 00:00:00 GMT", "If-None-Match": '"old"'}
    req, resp = falcon.Request(testing.create_environ(headers=headers)), falcon.Response()
    assert not caching.unchanged(req, resp, ETAG, caching.IMMUTABLE, modified=RECEIVED)


def test_a_date_is_held_against_nothing_that_may_lose_a_part() -> None:
    headers = {"If-Modified-Since": "Fri, 01 Mar 2030 00:00:00 GMT"}
    req, resp = falcon.Request(testing.create_environ(headers=headers)), falcon.Response()
    caching.last_modified(resp, RECEIVED)
    assert not caching.unchanged(req, resp, ETAG, caching.REVALIDATE, weak=True)
    assert resp.get_header("ETag") == 'W/"abc"'
    assert resp.get_header("Last-Modified") == "Thu, 29 Feb 2024 10:30:15 GMT"
