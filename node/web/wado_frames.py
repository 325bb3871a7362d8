"""WADO-RS frames and bulk data (PS3.18 sections 10.4.1.1.5 and 10.4.1.1.6), read by range."""

import falcon

from node.domain.errors import Reason, Refusal
from node.domain.model import Role
from node.domain.syntaxes import OCTET_STREAM
from node.services.archive import Archive
from node.web import caching, multipart
from node.web.auth import demand
from node.web.negotiate import frames
from node.web.responses import scope_of, send_parts, stream, unsigned, wanted

MAX_FRAMES_ASKED = 1000


def frame_numbers(text: str, count: int) -> list[int]:
    """The numbers of a comma-separated frame list. Problem 400; Refusal(NOT_FOUND) beyond `count`."""
    parts = text.split(",")
    if len(parts) > MAX_FRAMES_ASKED:
        raise Refusal(Reason.TOO_LARGE, f"more than {MAX_FRAMES_ASKED} frames at once")
    return [unsigned(part.strip(), "a frame number", count) for part in parts]


class Frames:
    """GET …/frames/{list}."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def on_get(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        study: str,
        series: str,
        instance: str,
        numbers: str,
    ) -> None:
        """Frames as stored if the client takes that, else decoded."""
        actor = demand(req, Role.VIEWER)
        retrieve = self._archive.retrieve
        found, header = retrieve.one(scope_of(study, series, instance), actor)
        wanted_frames = frame_numbers(numbers, found.number_of_frames)
        form = frames(wanted(req), found.transfer_syntax_uid, count=len(wanted_frames))
        if header.pixel is None:
            raise Refusal(Reason.NOT_FOUND, "the instance has no pixel data")
        etag = f"{found.stored.sha256.hex()[:32]}-{form.syntax}-{form.media_type.replace('/', '-')}"
        resp.append_header("Vary", "Accept")
        if caching.unchanged(req, resp, etag, caching.IMMUTABLE):
            return
        if form.decoded:
            pixels = retrieve.decoded_frames(found, wanted_frames)
        else:
            pixels = retrieve.stored_frames(found, header, wanted_frames)
        if form.multipart:
            headers = (("Content-Type", form.content_type),)
            parts = [multipart.Part(headers, (each,), len(each)) for each in pixels]
            send_parts(req, resp, form.media_type, parts, kind="frames", ahead=0)
        else:
            resp.content_type = form.content_type
            resp.content_length = len(pixels[0])
            stream(req, resp, iter(pixels), kind="frames", ahead=0)

    on_head = on_get


class Bulk:
    """GET …/bulkdata/{path}: a value by its path of tags and item numbers."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def on_get(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        study: str,
        series: str,
        instance: str,
        path: str,
    ) -> None:
        """The value's bytes as stored; ranges of it where the client takes it plain."""
        actor = demand(req, Role.VIEWER)
        retrieve = self._archive.retrieve
        found, header = retrieve.one(scope_of(study, series, instance), actor)
        offset, length = header.bulk(_steps(path))
        form = next((each for each in wanted(req) if each.takes(OCTET_STREAM)), None)
        if form is None:
            raise Refusal(Reason.NOT_ACCEPTABLE, "bulk data is application/octet-stream")
        etag = f"{found.stored.sha256.hex()[:32]}-{offset}-{length}"
        resp.append_header("Vary", "Accept")
        if caching.unchanged(req, resp, etag, caching.IMMUTABLE):
            return
        if form.multipart:
            data = retrieve.bulk(found, offset, length)
            headers = (("Content-Type", OCTET_STREAM), ("Content-Location", req.relative_uri))
            part = multipart.Part(headers, (data,), len(data))
            send_parts(req, resp, OCTET_STREAM, [part], kind="bulk", ahead=0)
            return
        part_asked = caching.byte_range(req, resp, length, etag)
        start, count = part_asked or (0, length)
        data = retrieve.bulk(found, offset + start, count)
        resp.content_type = OCTET_STREAM
        resp.content_length = len(data)
        stream(req, resp, iter((data,)), kind="bulk", ahead=0)

    on_head = on_get


def _steps(path: str) -> tuple[str | int, ...]:
    """A BulkDataURI's path: tags as eight hexadecimal digits, item numbers in between."""
    steps: list[str | int] = []
    for number, step in enumerate(path.split("/")):
        if number % 2 == 0:
            steps.append(step.upper())
        elif step.isascii() and step.isdigit() and len(step) < 10:
            steps.append(int(step))
        else:
            raise Refusal(Reason.NOT_FOUND, "no bulk data there")
    return tuple(steps)
