"""How DICOMweb answers are put together: negotiated types, addresses, multipart bodies."""

from collections.abc import Iterator, Sequence
from secrets import token_hex

import falcon

from node import metrics
from node.domain.errors import Reason, Refusal
from node.domain.model import Scope
from node.domain.uid import check_uid
from node.web import accept, multipart
from node.web.body import primed
from node.web.status import Problem


def new_boundary() -> str:
    """Drawn for each answer: no stored object can have been made to contain it."""
    return f"stele-{token_hex(16)}"


def wanted(req: falcon.Request) -> list[accept.Wanted]:
    """What the client accepts; the query parameter `accept` comes first (PS3.18 section 8.3.3.1)."""
    header = req.get_header("Accept")
    parameter = req.get_param("accept")
    if parameter is None:
        return accept.parse(header)
    # In a query component "+" may have been meant literally, as in application/dicom+json.
    return accept.parse(parameter.replace("dicom ", "dicom+"))


def scope_of(study: str | None = None, series: str | None = None, instance: str | None = None) -> Scope:
    """The scope of an address. Refusal(INVALID_UID)."""
    uids = [None if uid is None else check_uid(uid) for uid in (study, series, instance)]
    return Scope(*uids)


def multipart_type(media_type: str, boundary: str) -> str:
    """The Content-Type of a multipart answer whose parts are of a type."""
    return f'{accept.MULTIPART}; type="{media_type}"; boundary={boundary}'


def send_parts(
    req: falcon.Request,
    resp: falcon.Response,
    media_type: str,
    parts: Sequence[multipart.Part] | Iterator[multipart.Part],
    *,
    kind: str,
    ahead: int,
) -> None:
    """Answer with a multipart message; `ahead` pieces of it are made before the status goes out."""
    boundary = new_boundary()
    resp.content_type = multipart_type(media_type, boundary)
    resp.append_header("Vary", "Accept")
    if isinstance(parts, Sequence):
        length = multipart.length(boundary, parts)
        if length is not None:
            resp.content_length = length
    stream(req, resp, multipart.write(boundary, parts), kind=kind, ahead=ahead)


def stream(
    req: falcon.Request, resp: falcon.Response, pieces: Iterator[bytes], *, kind: str, ahead: int
) -> None:
    """Answer with pieces; an exception in the midst of them breaks the connection off."""
    if req.method == "HEAD":
        resp.stream = iter(())
        return
    counted = _counted(pieces, kind)
    resp.stream = primed(counted, ahead)


def _counted(pieces: Iterator[bytes], kind: str) -> Iterator[bytes]:
    counter = metrics.RETRIEVED_BYTES.labels("http", kind)
    with metrics.RETRIEVE_SECONDS.labels("http", kind).time():
        for piece in pieces:
            counter.inc(len(piece))
            yield piece


def unsigned(text: str, name: str, most: int) -> int:
    """A positive decimal number up to `most`; Problem 400 if it is none, Refusal(NOT_FOUND) beyond."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) < 1:
        raise Problem(400, "malformed", f"{name} is a positive number")
    if int(text) > most:
        raise Refusal(Reason.NOT_FOUND, f"{name} outside 1 to {most}")
    return int(text)
