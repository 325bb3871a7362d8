"""Request bodies, read in pieces, and answers that several resources send alike."""

import gzip
import itertools
import json
from collections.abc import Iterator
from typing import Any

import falcon
from gunicorn.http.errors import ParseException

from node.domain.errors import Reason, Refusal
from node.web.status import Problem

READ_BYTES = 256 << 10
DRAIN_BYTES = 8 << 20
COMPRESS_FROM_BYTES = 2048

DICOM_JSON = "application/dicom+json"
JSON = "application/json"


def chunks(req: falcon.Request, max_bytes: int) -> Iterator[bytes]:
    """The request's body in pieces.

    Refusal(TOO_LARGE) beyond `max_bytes`; Problem 415 if it is compressed, 501 if it is on the way
    (RFC 9112 section 6.1), 400 if it ends too early; TimeoutError if it does not come in time.
    """
    if req.get_header("Transfer-Encoding", default="chunked").strip().lower() != "chunked":
        raise Problem(501, "unsupported_transfer_coding", "chunked is the only one")
    encoding = req.get_header("Content-Encoding", default="identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Problem(415, "unsupported_encoding", "compressed bodies are not taken", {"Accept-Encoding": ""})
    expected = req.content_length
    if expected is not None and expected > max_bytes:
        raise Refusal(Reason.TOO_LARGE, f"request larger than {max_bytes} bytes")
    received = 0
    for data in _pieces(req):
        received += len(data)
        if received > max_bytes:
            raise Refusal(Reason.TOO_LARGE, f"request larger than {max_bytes} bytes")
        yield data
    if expected is not None and received != expected:
        raise Problem(400, "truncated", "the body is shorter than its Content-Length")


def whole(req: falcon.Request, max_bytes: int) -> bytes:
    """The request's whole body; see `chunks`."""
    return b"".join(chunks(req, max_bytes))


def drain(req: falcon.Request) -> None:
    """Read on a little after a refusal, so that a client still sending gets to see the answer."""
    try:
        for data in itertools.islice(_pieces(req), DRAIN_BYTES // READ_BYTES):
            del data
    except (OSError, Problem):
        return


def _pieces(req: falcon.Request) -> Iterator[bytes]:
    chunked = "chunked" in req.get_header("Transfer-Encoding", default="").lower()
    stream = req.stream if chunked else req.bounded_stream
    while True:
        try:
            data = stream.read(READ_BYTES)
        except TimeoutError:
            raise  # the connection's limits (`node.web.worker`)
        except (OSError, ParseException):
            raise Problem(400, "truncated", "the body ends too early or is malformed") from None
        if not data:
            return
        yield data


def accepts_gzip(req: falcon.Request) -> bool:
    """Whether the client takes `Content-Encoding: gzip` (RFC 9110 section 12.5.3)."""
    for item in req.get_header("Accept-Encoding", default="").lower().split(","):
        name, _, parameter = item.partition(";")
        if name.strip() in ("gzip", "x-gzip", "*"):
            quality = parameter.strip().removeprefix("q=").strip()
            return quality.strip("0.") != "" or not quality
    return False


def send_json(req: falcon.Request, resp: falcon.Response, value: Any, media_type: str = DICOM_JSON) -> None:
    """Answer with JSON, compressed if it is worth it and the client takes it."""
    data = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    resp.content_type = media_type
    resp.set_header("Vary", "Accept, Accept-Encoding")
    if len(data) >= COMPRESS_FROM_BYTES and accepts_gzip(req):
        data = gzip.compress(data, compresslevel=1, mtime=0)
        resp.set_header("Content-Encoding", "gzip")
    resp.data = data


def base_url(req: falcon.Request) -> str:
    """Scheme and authority that the client addressed, for absolute URLs in answers."""
    return f"{req.scheme}://{req.netloc}"


def primed(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """`pieces`, of which the first `count` have been made already.

    What can be refused is refused while the status line has not gone out yet. Later a failure can only
    break the connection off, which is what an exception out of a streamed body does.
    """
    head = list(itertools.islice(pieces, count))
    return itertools.chain(head, pieces)
