"""The rendering parameters of an address (PS3.18 section 8.3.5)."""

import math
from collections.abc import Sequence

import falcon

from node.domain.errors import Reason, Refusal
from node.services.retrieve import Rendering

RENDERED_TYPES = ("image/jpeg", "image/png")
MAX_VIEWPORT = 8192
_FUNCTIONS = ("linear", "linear-exact", "sigmoid")
# Understood, but of no effect here: no demographics are burnt in, and output is sRGB.
_IGNORED = ("annotation", "iccprofile")


def rendering_of(req: falcon.Request, resp: falcon.Response, media_type: str) -> Rendering:
    """What the query asks for. Refusal(INVALID_QUERY); a Warning header for what has no effect."""
    for name in _IGNORED:
        if req.get_param(name) is not None:
            resp.append_header("Warning", f'299 {req.netloc} "{name} has been ignored"')
    viewport, region = _viewport(req.get_param("viewport"))
    return Rendering(
        media_type,
        window=_window(req.get_param("window")),
        viewport=viewport,
        region=region,
        quality=_quality(req.get_param("quality")),
    )


def _window(text: str | None) -> tuple[float, float, str] | None:
    if text is None:
        return None
    values = text.split(",")
    function = values[2].strip().lower() if len(values) == 3 else "linear"
    if len(values) not in (2, 3) or function not in _FUNCTIONS:
        raise _wrong("window", "centre,width,function")
    center, width = _numbers("window", values[:2])
    if width <= 0 or (function == "linear" and width < 1):
        raise _wrong("window", "width too small")
    return center, width, function


def _viewport(
    text: str | None,
) -> tuple[tuple[int, int] | None, tuple[float, float, float, float] | None]:
    if text is None:
        return None, None
    values = text.split(",")
    if len(values) not in (2, 6):
        raise _wrong("viewport", "width,height or width,height,x,y,w,h")
    width, height = _numbers("viewport", values[:2])
    if not (1 <= width <= MAX_VIEWPORT and 1 <= height <= MAX_VIEWPORT):
        raise _wrong("viewport", f"1 to {MAX_VIEWPORT} pixels")
    if len(values) == 2:
        return (int(width), int(height)), None
    # Left out, the region's corner is 0,0.
    left, top, across, down = _numbers("viewport", [value or "0" for value in values[2:]])
    if left < 0 or top < 0 or across <= 0 or down <= 0:
        raise _wrong("viewport", "a region inside the image")
    return (int(width), int(height)), (left, top, across, down)


def _quality(text: str | None) -> int:
    if text is None:
        return 90
    if not (text.isascii() and text.isdigit()) or len(text) > 3 or not 1 <= int(text) <= 100:
        raise _wrong("quality", "1 to 100")
    return int(text)


def _numbers(name: str, texts: Sequence[str]) -> list[float]:
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        raise _wrong(name, "not a number") from None
    if not all(math.isfinite(number) and abs(number) < 1e9 for number in numbers):
        raise _wrong(name, "not a number")
    return numbers


def _wrong(name: str, what: str) -> Refusal:
    return Refusal(Reason.INVALID_QUERY, f"{name}: {what}")
