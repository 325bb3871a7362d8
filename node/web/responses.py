"""How DICOMweb answers are put together: negotiated types, addresses, multipart bodies."""

from collections.abc import Iterable, Iterator, Sequence
from secrets import token_hex

import falcon

from node import metrics
from node.domain.errors import Reason, Refusal
from node.domain.model import Attributes, Scope
from node.domain.uid import check_uid
from node.web import accept, dicom_xml, multipart
from node.web.body import primed
from node.web.status import Problem

_COUNTED_BYTES = 8 << 20  # at a time, of a long answer


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
    # Drawn for each answer: no stored object can have been made to contain it.
    boundary = f"stele-{token_hex(16)}"
    resp.content_type = f'{accept.MULTIPART}; type="{media_type}"; boundary={boundary}'
    resp.set_header("Vary", "Accept")
    if isinstance(parts, Sequence):
        length = multipart.length(boundary, parts)
        if length is not None:
            resp.content_length = length
    stream(req, resp, multipart.write(boundary, parts), kind=kind, ahead=ahead)


def send_xml(req: falcon.Request, resp: falcon.Response, datasets: Iterable[Attributes], kind: str) -> None:
    """Answer with datasets in the Native DICOM Model, each a part."""
    headers = (("Content-Type", dicom_xml.MEDIA_TYPE),)
    parts = (multipart.Part(headers, (dicom_xml.document(each),)) for each in datasets)
    send_parts(req, resp, dicom_xml.MEDIA_TYPE, parts, kind=kind, ahead=2)


def send_bytes(req: falcon.Request, resp: falcon.Response, media_type: str, data: bytes, kind: str) -> None:
    """Answer with what is there already."""
    resp.content_type = media_type
    resp.content_length = len(data)
    stream(req, resp, iter((data,)), kind=kind, ahead=0)


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
    uncounted = 0
    with metrics.RETRIEVE_SECONDS.labels("http", kind).time():
        try:
            for piece in pieces:
                uncounted += len(piece)
                if uncounted >= _COUNTED_BYTES:
                    counter.inc(uncounted)
                    uncounted = 0
                yield piece
        finally:
            counter.inc(uncounted)


def unsigned(text: str, name: str, most: int) -> int:
    """A positive decimal number up to `most`; Problem 400 if it is none, Refusal(NOT_FOUND) beyond."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) < 1:
        raise Problem(400, "malformed", f"{name} is a positive number")
    if int(text) > most:
        raise Refusal(Reason.NOT_FOUND, f"{name} outside 1 to {most}")
    return int(text)
