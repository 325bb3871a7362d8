"""WADO-RS rendered images and thumbnails (PS3.18 sections 8.3.5 and 10.4.1.1.3): JPEG or PNG for people.

A study or series is rendered as all of its images, each a single-frame image of the instance's first frame
in a part of its own, made one at a time while the former ones are on their way; a list of frames likewise,
in its order. Instances that are no images, or cannot be decoded, are left out; listed frames are not. A
study's or series' thumbnail is that of the instance in the middle of the first series with images.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator

import falcon

from node.domain.errors import Reason, Refusal
from node.domain.model import Role, StoredInstance
from node.services.archive import Archive
from node.services.metadata import instance_path
from node.services.retrieve import Rendering, Retrieve
from node.web import caching, multipart
from node.web.auth import demand
from node.web.negotiate import images
from node.web.responses import scope_of, send_bytes, send_parts, wanted
from node.web.status import Problem
from node.web.wado_frames import frame_numbers

MAX_IMAGES = 1000  # of a study, series or frame list, rendered in one answer
THUMBNAIL_PIXELS = 256
MAX_PIXELS = 8192
_FUNCTIONS = ("linear", "linear-exact", "sigmoid")
_IGNORED = ("annotation", "iccprofile")  # nothing is burnt in, and colours are sRGB's


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
    """GET …/rendered of a study, series, instance or frame."""

    def __init__(self, archive: Archive) -> None:
        self._retrieve = archive.retrieve

    def on_get(self, req: falcon.Request, resp: falcon.Response, numbers: str = "1", **address: str) -> None:
        """One image, or those of a study, series or frame list as parts."""
        actor = demand(req, Role.VIEWER)
        if "instance" in address:
            found, _ = self._retrieve.one(scope_of(**address), actor)
            frames = frame_numbers(numbers, found.number_of_frames)
            if len(frames) > 1:
                self._send_frames(req, resp, found, frames)
            else:
                _send_one(req, resp, self._retrieve, found, frames[0], thumbnail=False)
            return
        rows = self._retrieve.select([scope_of(**address)], actor)
        if not rows:
            raise Refusal(Reason.NOT_FOUND, "nothing stored there")
        _check_number(len(rows))
        pictured = self._retrieve.pictured(rows)
        first = list(itertools.islice(pictured, 2))
        if not first:
            raise Refusal(Reason.NOT_ACCEPTABLE, "no image there")
        media_type, as_parts = images(wanted(req), single=False, count=len(first))
        if not as_parts:
            _send_one(req, resp, self._retrieve, first[0], 1, thumbnail=False)
            return
        how = rendering(req, resp, media_type, thumbnail=False)
        etag = _etag(how, *rows)
        if caching.unchanged(req, resp, etag, caching.REVALIDATE, weak=True):
            return
        parts = self._parts(itertools.chain(first, pictured), how)
        send_parts(req, resp, media_type, parts, kind="rendered", ahead=2)

    on_head = on_get

    def _send_frames(
        self, req: falcon.Request, resp: falcon.Response, found: StoredInstance, frames: list[int]
    ) -> None:
        """Answer with several frames, each a part, in the order asked for. One that cannot be decoded ends
        the answer: what was named is not left out in silence."""
        _check_number(len(frames))
        media_type, _ = images(wanted(req), single=False, count=len(frames))
        how = rendering(req, resp, media_type, thumbnail=False)
        etag = f"{_etag(how, found)}-{hashlib.sha256(repr(frames).encode()).hexdigest()[:16]}"
        if caching.unchanged(req, resp, etag, caching.REVALIDATE, weak=True):
            return
        below = f"{instance_path(found)}/frames"
        parts = (
            _part(how, f"{below}/{number}/rendered", self._retrieve.rendered(found, number, how))
            for number in frames
        )
        send_parts(req, resp, media_type, parts, kind="rendered", ahead=2)

    def _parts(self, instances: Iterator[StoredInstance], how: Rendering) -> Iterator[multipart.Part]:
        """A part for each image that could be made. Refusal(NOT_ACCEPTABLE) if there is none."""
        made = 0
        for instance, image in self._retrieve.all_rendered(instances, how):
            yield _part(how, f"{instance_path(instance)}/rendered", image)
            made += 1
        if not made:
            raise Refusal(Reason.NOT_ACCEPTABLE, "not one image can be decoded")


class Thumbnail:
    """GET …/thumbnail of a study, series, instance or frame."""

    def __init__(self, archive: Archive) -> None:
        self._retrieve = archive.retrieve

    def on_get(self, req: falcon.Request, resp: falcon.Response, numbers: str = "1", **address: str) -> None:
        """One small image, whatever it is of."""
        actor = demand(req, Role.VIEWER)
        scope = scope_of(**address)
        found = (
            self._retrieve.one(scope, actor)[0]
            if scope.instance_uid
            else self._retrieve.typical(scope, actor)
        )
        frames = frame_numbers(numbers, found.number_of_frames)
        if len(frames) != 1:
            raise Refusal(Reason.NOT_ACCEPTABLE, "a thumbnail is of one frame")
        _send_one(req, resp, self._retrieve, found, frames[0], thumbnail=True)

    on_head = on_get


def _send_one(
    req: falcon.Request,
    resp: falcon.Response,
    retrieve: Retrieve,
    found: StoredInstance,
    frame: int,
    *,
    thumbnail: bool,
) -> None:
    """Answer with a frame of an instance, plain or as the only part."""
    media_type, as_part = images(wanted(req), single=True, count=1)
    how = rendering(req, resp, media_type, thumbnail=thumbnail)
    etag = f"{_etag(how, found)}-{frame}{'-part' * as_part}"
    if caching.unchanged(req, resp, etag, caching.REVALIDATE, weak=as_part):
        return
    image = retrieve.rendered(found, frame, how)
    if as_part:
        part = multipart.Part((("Content-Type", media_type),), (image,), len(image))
        send_parts(req, resp, media_type, [part], kind="rendered", ahead=0)
        return
    send_bytes(req, resp, media_type, image, "rendered")


def _part(how: Rendering, location: str, image: bytes) -> multipart.Part:
    headers = (("Content-Type", how.media_type), ("Content-Location", location))
    return multipart.Part(headers, (image,), len(image))


def _check_number(count: int) -> None:
    if count > MAX_IMAGES:
        raise Refusal(Reason.TOO_LARGE, f"over {MAX_IMAGES} images at once; ask for fewer")


def _etag(how: Rendering, *instances: StoredInstance) -> str:
    told = hashlib.sha256(repr(how).encode())
    for instance in instances:
        told.update(instance.stored.digest)
    return told.hexdigest()[:48]
