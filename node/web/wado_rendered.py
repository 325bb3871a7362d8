"""WADO-RS rendered images and thumbnails (PS3.18 sections 8.3.5 and 10.4.1.1.3): JPEG or PNG for people.

A study's or series' thumbnail is that of the instance in the middle of the first series with images. Its
rendered resource would be all of its images; it is offered for instances and frames only, and for the
rest refused with 406.
"""

import hashlib
import math

import falcon

from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, Role, StoredInstance
from node.services.archive import Archive
from node.services.retrieve import Rendering
from node.web import accept, caching
from node.web.auth import demand
from node.web.responses import scope_of, stream, wanted
from node.web.status import Problem
from node.web.wado_frames import frame_numbers

OFFERED = ("image/jpeg", "image/png")
THUMBNAIL_PIXELS = 256
MAX_PIXELS = 8192
_FUNCTIONS = ("linear", "linear-exact", "sigmoid")
_IGNORED = ("annotation", "iccprofile")  # nothing is burnt in, and colours are sRGB's
_SERIES_TRIED = 4


def rendering(req: falcon.Request, resp: falcon.Response, media_type: str, *, thumbnail: bool) -> Rendering:
    """The query component's rendering parameters. Problem 400 if one is malformed; a Warning header for
    what has no effect."""
    for name in _IGNORED:
        if req.get_param(name) is not None:
            resp.append_header("Warning", f'299 {req.netloc} "{name} has been ignored"')
    quality = _numbers(req, "quality", 1, 1)
    viewport = _numbers(req, "viewport", 2, 6)
    size = (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS) if thumbnail else None
    region = None
    if viewport:
        if any(value is None or not 1 <= value <= MAX_PIXELS for value in viewport[:2]):
            raise _malformed("viewport")
        size = (int(viewport[0] or 0), int(viewport[1] or 0))
        if len(viewport) == 6 and viewport[4] and viewport[5]:
            region = (viewport[2] or 0.0, viewport[3] or 0.0, viewport[4], viewport[5])
        elif len(viewport) not in (2, 6):
            raise _malformed("viewport")
    if quality and not 1 <= (quality[0] or 0) <= 100:
        raise _malformed("quality")
    return Rendering(media_type, _window(req), size, region, int(quality[0] or 90) if quality else 90)


def _window(req: falcon.Request) -> tuple[float, float, str] | None:
    text = req.get_param("window")
    if text is None:
        return None
    parts = text.split(",")
    function = parts[2].lower() if len(parts) == 3 else "linear"
    centre, width = (_number(part, "window") for part in (*parts[:2], "", "")[:2])
    if len(parts) not in (2, 3) or function not in _FUNCTIONS or centre is None or not width or width < 0:
        raise _malformed("window")
    return centre, width, function


def _numbers(req: falcon.Request, name: str, least: int, most: int) -> list[float | None]:
    text = req.get_param(name)
    if text is None:
        return []
    parts = text.split(",")
    if not least <= len(parts) <= most:
        raise _malformed(name)
    return [_number(part, name) for part in parts]


def _number(text: str, name: str) -> float | None:
    """None for an omitted value."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        raise _malformed(name) from None
    if not math.isfinite(value):
        raise _malformed(name)
    return value


def _malformed(name: str) -> Problem:
    return Problem(400, "malformed", f"the parameter {name} is malformed")


class Rendered:
    """GET …/rendered and …/thumbnail."""

    def __init__(self, archive: Archive, *, thumbnail: bool) -> None:
        self._archive = archive
        self._thumbnail = thumbnail

    def on_get(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        study: str,
        series: str | None = None,
        instance: str | None = None,
        numbers: str = "1",
    ) -> None:
        """One image, for display."""
        actor = demand(req, Role.VIEWER)
        media_type = accept.choose(wanted(req), OFFERED)
        if media_type is None:
            raise Refusal(Reason.NOT_ACCEPTABLE, "offered as image/jpeg and image/png")
        how = rendering(req, resp, media_type, thumbnail=self._thumbnail)
        found = self._find(study, series, instance, actor)
        frames = frame_numbers(numbers, found.number_of_frames)
        if len(frames) != 1:
            raise Refusal(Reason.NOT_ACCEPTABLE, "one frame at a time is rendered")
        told = hashlib.sha256(f"{how}{frames[0]}".encode()).hexdigest()[:16]
        etag = f"{found.stored.sha256.hex()[:32]}-{told}"
        resp.append_header("Vary", "Accept")
        if caching.unchanged(req, resp, etag, caching.REVALIDATE):
            return
        image = self._archive.retrieve.rendered(found, frames[0], how)
        resp.content_type = media_type
        resp.content_length = len(image)
        stream(req, resp, iter((image,)), kind="rendered", ahead=0)

    on_head = on_get

    def _find(self, study: str, series: str | None, instance: str | None, actor: Actor) -> StoredInstance:
        if instance is not None:
            return self._archive.retrieve.one(scope_of(study, series, instance), actor)[0]
        if not self._thumbnail:
            raise Refusal(Reason.NOT_ACCEPTABLE, "rendered one instance or frame at a time")
        rows = self._archive.catalog.instances.select([scope_of(study, series)])
        if not rows:
            raise Refusal(Reason.NOT_FOUND, "nothing stored there")
        by_series: dict[str, list[StoredInstance]] = {}
        for row in rows:
            by_series.setdefault(row.series_uid, []).append(row)
        for some in list(by_series.values())[:_SERIES_TRIED]:
            middle = some[len(some) // 2]
            found, header = self._archive.retrieve.one(
                scope_of(middle.study_uid, middle.series_uid, middle.sop_instance_uid), actor
            )
            if header.pixel is not None:
                return found
        raise Refusal(Reason.NOT_ACCEPTABLE, "no image there")
