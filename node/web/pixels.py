"""WADO-RS for frames, bulk data, rendered images and thumbnails (PS3.18 sections 10.4.1.1.3 to .6)."""

from collections.abc import Callable, Iterator

import falcon

from node.domain.errors import Reason, Refusal
from node.domain.header import Header
from node.domain.model import Role, Scope, StoredInstance
from node.domain.syntaxes import DEFLATED, OCTET_STREAM
from node.services.archive import Archive
from node.services.retrieve import Rendering, Retrieve
from node.web import accept, caching, multipart, negotiate
from node.web.auth import demand
from node.web.rendering import RENDERED_TYPES, rendering_of
from node.web.responses import scope_of, send_parts, stream, unsigned, wanted
from node.web.status import Problem
from node.web.wado import dataset_range

MAX_FRAMES = 100_000
# Frames are decoded together up to so many bytes, so that an object is not read again for each.
_BATCH_BYTES = 64 << 20
_THUMBNAIL = (128, 128)
_CANDIDATES = 4


def frame_numbers(text: str, count: int) -> list[int]:
    """The frame list of an address, "1,5,7". 400 if malformed, Refusal(NOT_FOUND) beyond `count`."""
    items = text.split(",")
    if len(items) > MAX_FRAMES:
        raise Problem(400, "malformed", f"more than {MAX_FRAMES} frames")
    return [unsigned(item, "frame", count) for item in items]


class Frames:
    """Frames of an instance."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def on_get(
        self, req: falcon.Request, resp: falcon.Response, study: str, series: str, instance: str, frames: str
    ) -> None:
        """Retrieve frames, as stored if the client takes that, otherwise decoded."""
        actor = demand(req, Role.VIEWER)
        stored, header = self._archive.retrieve.one(scope_of(study, series, instance), actor)
        numbers = frame_numbers(frames, stored.number_of_frames)
        send_frames(req, resp, self._archive.retrieve, stored, header, numbers)

    on_head = on_get


def send_frames(
    req: falcon.Request,
    resp: falcon.Response,
    retrieve: Retrieve,
    stored: StoredInstance,
    header: Header,
    numbers: list[int],
) -> None:
    """Answer with frames in the form negotiated."""
    form = negotiate.frames(wanted(req), stored.transfer_syntax_uid, count=len(numbers))
    resp.append_header("Vary", "Accept")
    listed = "-".join(map(str, numbers)) if len(numbers) <= 8 else f"{len(numbers)}.{hash(tuple(numbers)):x}"
    kind = f"{form.syntax}-{'m' if form.multipart else 's'}{'o' if form.media_type == OCTET_STREAM else ''}"
    etag = f"{stored.stored.sha256.hex()[:40]}-{listed}-{kind}"
    # A multipart message has a new boundary each time: only a part on its own is the same bytes again.
    if form.multipart:
        resp.set_header("Cache-Control", caching.IMMUTABLE)
    elif caching.unchanged(req, resp, etag, caching.IMMUTABLE):
        return
    frames = _frames(retrieve, stored, header, numbers, decoded=form.decoded)
    if not form.multipart:
        resp.content_type = form.content_type
        data = b"" if req.method == "HEAD" else next(frames)
        stream(req, resp, iter((data,)), kind="frames", ahead=1)
        if data:
            resp.content_length = len(data)
        return
    headers = (("Content-Type", form.content_type),)
    parts = (multipart.Part(headers, (data,), len(data)) for data in frames)
    send_parts(req, resp, form.media_type, parts, kind="frames", ahead=2)


def _frames(
    retrieve: Retrieve, stored: StoredInstance, header: Header, numbers: list[int], *, decoded: bool
) -> Iterator[bytes]:
    size = _frame_bytes(header)
    batch = max(1, _BATCH_BYTES // size)
    for at in range(0, len(numbers), batch):
        some = numbers[at : at + batch]
        if decoded:
            yield from retrieve.decoded_frames(stored, some)
        else:
            yield from retrieve.stored_frames(stored, header, some)


def _frame_bytes(header: Header) -> int:
    """About how large a decoded frame is."""
    size = 1.0
    for tag, default in ((0x00280010, 1), (0x00280011, 1), (0x00280002, 1), (0x00280100, 8)):
        numbers = header.numbers(tag)
        size *= numbers[0] if numbers else default
    return max(1, int(size) // 8)


class BulkData:
    """The value behind a BulkDataURI."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def on_get(
        self, req: falcon.Request, resp: falcon.Response, study: str, series: str, instance: str, path: str
    ) -> None:
        """Retrieve bulk data; ranges of it if it goes out plain. Compressed pixel data goes out as frames."""
        actor = demand(req, Role.VIEWER)
        stored, header = self._archive.retrieve.one(scope_of(study, series, instance), actor)
        steps = tuple(int(step) if len(step) < 8 and step.isdecimal() else step for step in path.split("/"))
        retrieve = self._archive.retrieve
        pixel = header.pixel
        if pixel is not None and pixel.encapsulated and steps == (f"{pixel.tag:08X}",):
            send_frames(req, resp, retrieve, stored, header, list(range(1, stored.number_of_frames + 1)))
            return
        offset, length = header.bulk(steps)
        multipart_wanted = _bulk_form(wanted(req))
        pieces = self._pieces(stored, offset, length)
        resp.append_header("Vary", "Accept")
        if multipart_wanted:
            resp.set_header("Cache-Control", caching.IMMUTABLE)
            part = multipart.Part((("Content-Type", OCTET_STREAM),), pieces(0, length), length)
            send_parts(req, resp, OCTET_STREAM, [part], kind="bulk", ahead=2)
            return
        etag = f"{stored.stored.sha256.hex()[:40]}-{offset}"
        if caching.unchanged(req, resp, etag, caching.IMMUTABLE):
            return
        resp.content_type = OCTET_STREAM
        first, count = caching.byte_range(req, resp, length, etag) or (0, length)
        resp.content_length = count
        stream(req, resp, pieces(first, count), kind="bulk", ahead=1)

    on_head = on_get

    def _pieces(
        self, stored: StoredInstance, offset: int, length: int
    ) -> Callable[[int, int], Iterator[bytes]]:
        retrieve = self._archive.retrieve

        def pieces(first: int, count: int) -> Iterator[bytes]:
            if stored.transfer_syntax_uid == DEFLATED:  # inflated as a whole, once
                yield retrieve.bulk(stored, offset, length)[first : first + count]
            else:
                yield from dataset_range(retrieve, stored, offset + first, count)

        return pieces


def _bulk_form(ranges: list[accept.Wanted]) -> bool:
    """Whether bulk data goes out as a part. `*/*` takes it plain, so that it can be asked for by range."""
    for each in ranges:
        if each.takes(OCTET_STREAM):
            return each.multipart
    raise Refusal(Reason.NOT_ACCEPTABLE, "bulk data is application/octet-stream")


class Rendered:
    """A frame as an image for display."""

    def __init__(self, archive: Archive, *, thumbnail: bool = False) -> None:
        self._archive = archive
        self._thumbnail = thumbnail

    def on_get(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        study: str,
        series: str | None = None,
        instance: str | None = None,
        frames: str = "",
    ) -> None:
        """Render one frame: that of the address, the first of the instance, or a representative one."""
        actor = demand(req, Role.VIEWER)
        scope = scope_of(study, series, instance)
        media_type = accept.choose(wanted(req), RENDERED_TYPES)
        if media_type is None:
            raise Refusal(Reason.NOT_ACCEPTABLE, "images are image/jpeg or image/png")
        how = rendering_of(req, resp, media_type)
        if self._thumbnail:
            how = Rendering(media_type, viewport=how.viewport or _THUMBNAIL, quality=how.quality)
        resp.append_header("Vary", "Accept")
        if instance is None:
            candidates = self._candidates(scope)
            self._archive.retrieve.viewed(study, actor)
            resp.set_header("Cache-Control", caching.REVALIDATE)
            self._send_first(req, resp, candidates, how)
            return
        stored, _ = self._archive.retrieve.one(scope, actor)
        number = self._one_frame(frames, stored)
        etag = f"{stored.stored.sha256.hex()[:40]}-{number}-{_fingerprint(how)}"
        if caching.unchanged(req, resp, etag, caching.IMMUTABLE):
            return
        self._send(req, resp, self._archive.retrieve.rendered(stored, number, how), how)

    on_head = on_get

    def _one_frame(self, frames: str, stored: StoredInstance) -> int:
        if not frames:
            return 1
        numbers = frame_numbers(frames, stored.number_of_frames)
        if len(numbers) != 1:
            raise Refusal(Reason.NOT_ACCEPTABLE, "frames are rendered one by one")
        return numbers[0]

    def _candidates(self, scope: Scope) -> list[StoredInstance]:
        """The middle of each of the first series."""
        rows = self._archive.catalog.instances.select([scope])
        if not rows:
            raise Refusal(Reason.NOT_FOUND, "nothing under this address")
        by_series: dict[str, list[StoredInstance]] = {}
        for row in rows:
            by_series.setdefault(row.series_uid, []).append(row)
        return [some[len(some) // 2] for some in list(by_series.values())[:_CANDIDATES]]

    def _send_first(
        self, req: falcon.Request, resp: falcon.Response, candidates: list[StoredInstance], how: Rendering
    ) -> None:
        for number, stored in enumerate(candidates, 1):
            try:
                image = self._archive.retrieve.rendered(stored, (stored.number_of_frames + 1) // 2, how)
            except Refusal as refusal:
                if refusal.reason is not Reason.NOT_ACCEPTABLE or number == len(candidates):
                    raise
                continue
            self._send(req, resp, image, how)
            return

    @staticmethod
    def _send(req: falcon.Request, resp: falcon.Response, image: bytes, how: Rendering) -> None:
        resp.content_type = how.media_type
        stream(req, resp, iter((image,)), kind="rendered", ahead=1)
        resp.content_length = len(image)


def _fingerprint(how: Rendering) -> str:
    parts = (how.media_type, how.window, how.viewport, how.region, how.quality)
    return "".join(letter if letter.isalnum() or letter in ".," else "_" for letter in repr(parts))
