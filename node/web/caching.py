"""Conditional and partial requests (RFC 9110 sections 13 and 14), and what caches are told (RFC 9111).

Stored bytes never change under their UID, so they may be kept for good; metadata is versioned and asked
for again each time. Everything is `private`: no shared cache keeps images of patients.
"""

import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

import falcon

from node.web.status import Problem

IMMUTABLE = "private, max-age=31536000, immutable"
REVALIDATE = "private, no-cache"
NO_STORE = "no-store"

_RANGE = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*", re.ASCII)


def unchanged(
    req: falcon.Request,
    resp: falcon.Response,
    etag: str,
    cache_control: str,
    *,
    weak: bool = False,
    modified: datetime | None = None,
    vary: str = "Accept",
) -> bool:
    """Set what caches go by; True if the client has this version, and then the answer is 304.

    `weak`: the same content may go out in other bytes, as multipart messages do. `modified`: when
    the content came to be; only for what never changes afterwards (see `last_modified`).
    """
    resp.set_header("ETag", f'{"W/" * weak}"{etag}"')
    resp.set_header("Cache-Control", cache_control)
    resp.set_header("Vary", vary)
    if modified is not None:
        last_modified(resp, modified)
    known = req.if_none_match
    if known:  # a date beside it does not count (RFC 9110 section 13.1.3)
        same = any(tag == "*" or str(tag) == etag for tag in known)
    else:
        since = _date(req.get_header("If-Modified-Since"))
        same = modified is not None and since is not None and modified.replace(microsecond=0) <= since
    if same:
        resp.status = falcon.HTTP_304
    return same


def last_modified(resp: falcon.Response, moment: datetime) -> None:
    """Tell when something came to a resource. A client's date is not held against it: what has been
    removed since leaves no later date behind."""
    resp.set_header("Last-Modified", format_datetime(moment.astimezone(UTC), usegmt=True))


def _date(header: str | None) -> datetime | None:
    """An HTTP date; None if there is none, or it is malformed and so ignored."""
    try:
        moment = parsedate_to_datetime(header or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None


def byte_range(req: falcon.Request, resp: falcon.Response, length: int, etag: str) -> tuple[int, int] | None:
    """(first, count) of the part asked for, and the answer's headers set to 206; None for the whole.

    Problem 416 if nothing of it exists or the header is malformed. Several ranges at once are answered
    with the whole (RFC 9110 section 14.2 allows it), as is an If-Range for another version.
    """
    resp.set_header("Accept-Ranges", "bytes")
    header = req.get_header("Range")
    if header is None or req.method != "GET" or not header.strip().lower().startswith("bytes="):
        return None
    condition = req.get_header("If-Range")
    if condition is not None and condition.strip() != f'"{etag}"':
        return None
    if "," in header:
        return None
    match = _RANGE.fullmatch(header.strip().lower())
    first, last = match.groups() if match else ("", "")
    if first:
        start, end = int(first), min(int(last), length - 1) if last else length - 1
    elif last:
        start, end = max(0, length - int(last)), length - 1
    else:
        start, end = 0, -1
    if start > end or start >= length:
        raise Problem(416, "range_not_satisfiable", "", {"Content-Range": f"bytes */{length}"})
    resp.status = falcon.HTTP_206
    resp.set_header("Content-Range", f"bytes {start}-{end}/{length}")
    return start, end - start + 1
