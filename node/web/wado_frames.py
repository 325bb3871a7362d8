"""WADO-RS frames and bulk data (PS3.18 sections 10.4.1.1.5 and 10.4.1.1.6), read by range, sent in pieces."""

from collections.abc import Iterator

import falcon

from node.domain.errors import Reason, Refusal
from node.domain.header import Header
from node.domain.model import Role, StoredInstance
from node.domain.syntaxes import EXPLICIT_BIG, OCTET_STREAM
from node.services.archive import Archive
from node.services.retrieve import Retrieve
from node.web import caching, multipart
from node.web.auth import demand
from node.web.negotiate import frames
from node.web.responses import scope_of, send_bytes, send_parts, stream, unsigned, wanted

MAX_FRAMES_ASKED = 10_000
# Frames are decoded together up to about so many bytes: an object is not read anew for each, and yet a
# long answer stays small in memory.
_BATCH_BYTES = 32 << 20
# Number of Rows, Columns, Samples per Pixel, Bits Allocated, and what they are if unknown
_SIZE = ((0x00280010, 1), (0x00280011, 1), (0x00280002, 1), (0x00280100, 8))


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

    def on_get(self, req: falcon.Request, resp: falcon.Response, numbers: str, **address: str) -> None:
        """Frames as stored if the client takes that, else decoded."""
        actor = demand(req, Role.VIEWER)
        found, header = self._archive.retrieve.one(scope_of(**address), actor)
        if header.pixel is None:
            raise Refusal(Reason.NOT_FOUND, "the instance has no pixel data")
        asked = frame_numbers(numbers, found.number_of_frames)
        send_frames(req, resp, self._archive.retrieve, found, header, asked)

    on_head = on_get


def send_frames(
    req: falcon.Request,
    resp: falcon.Response,
    retrieve: Retrieve,
    found: StoredInstance,
    header: Header,
    numbers: list[int],
) -> None:
    """Answer with frames in the form negotiated."""
    form = frames(wanted(req), found.transfer_syntax_uid, count=len(numbers))
    pixels = _pixels(retrieve, found, header, numbers, decoded=form.decoded)
    if form.multipart:
        # No ETag: a multipart message has another boundary each time.
        resp.set_header("Cache-Control", caching.IMMUTABLE)
        headers = (("Content-Type", form.content_type),)
        parts: Iterator[multipart.Part] | list[multipart.Part]
        parts = (multipart.Part(headers, (each,), len(each)) for each in pixels)
        if len(numbers) == 1:
            parts = list(parts)  # whose length is then known: no chunks, which would be copies
        send_parts(req, resp, form.media_type, parts, kind="frames", ahead=2)
        return
    etag = f"{found.stored.digest.hex()[:32]}-{form.syntax}-{form.media_type.replace('/', '-')}"
    if caching.unchanged(req, resp, etag, caching.IMMUTABLE, modified=found.received_at):
        return
    send_bytes(req, resp, form.content_type, next(pixels), "frames")


def _pixels(
    retrieve: Retrieve, found: StoredInstance, header: Header, numbers: list[int], *, decoded: bool
) -> Iterator[bytes]:
    batch = max(1, _BATCH_BYTES // _frame_bytes(header))
    for at in range(0, len(numbers), batch):
        some = numbers[at : at + batch]
        if decoded:
            yield from retrieve.decoded_frames(found, some)
        else:
            yield from retrieve.stored_frames(found, header, some)


def _frame_bytes(header: Header) -> int:
    """About how large a decoded frame is."""
    bits = 1.0
    for tag, default in _SIZE:
        numbers = header.numbers(tag)
        bits *= numbers[0] if numbers else default
    return max(1, int(bits) // 8)


class Bulk:
    """GET …/bulkdata/{path}: a value by its path of tags and item numbers."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def on_get(self, req: falcon.Request, resp: falcon.Response, path: str, **address: str) -> None:
        """The value's bytes as stored; ranges of it where the client takes it plain.

        Compressed pixel data has no value of its own, and big endian one is not sent as it is: the frames
        are sent (section 10.4.1.1.5).
        """
        actor = demand(req, Role.VIEWER)
        retrieve = self._archive.retrieve
        found, header = retrieve.one(scope_of(**address), actor)
        steps = _steps(path)
        pixel = header.pixel
        if (
            pixel is not None
            and steps == (f"{pixel.tag:08X}",)
            and (pixel.encapsulated or found.transfer_syntax_uid == EXPLICIT_BIG)
        ):
            send_frames(req, resp, retrieve, found, header, list(range(1, found.number_of_frames + 1)))
            return
        offset, length = header.bulk(steps)
        form = next((each for each in wanted(req) if each.takes(OCTET_STREAM)), None)
        if form is None:
            raise Refusal(Reason.NOT_ACCEPTABLE, "bulk data is application/octet-stream")
        if form.multipart:
            resp.set_header("Cache-Control", caching.IMMUTABLE)
            headers = (("Content-Type", OCTET_STREAM), ("Content-Location", req.path))
            part = multipart.Part(headers, retrieve.bulk(found, offset, length), length)
            send_parts(req, resp, OCTET_STREAM, [part], kind="bulk", ahead=2)
            return
        etag = f"{found.stored.digest.hex()[:32]}-{offset}-{length}"
        if caching.unchanged(req, resp, etag, caching.IMMUTABLE, modified=found.received_at):
            return
        start, count = caching.byte_range(req, resp, length, etag) or (0, length)
        resp.content_type = OCTET_STREAM
        resp.content_length = count
        stream(req, resp, retrieve.bulk(found, offset + start, count), kind="bulk", ahead=1)

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
