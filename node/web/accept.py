"""What the client accepts (RFC 9110 section 12.5.1, PS3.18 section 8.7.5).

DICOMweb asks for one or more resources in a type either on its own (`image/png`) or as parts of a
multipart message (`multipart/related; type="application/dicom"; transfer-syntax=*`). Both come out of
here as a `Wanted`: the type of the parts, whether they are to be parts, and the transfer syntax asked for.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from node.domain.errors import Reason, Refusal

MULTIPART = "multipart/related"
MAX_HEADER_CHARS = 8192
MAX_RANGES = 64

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's token
_RANGE = re.compile(rf"\s*({_TOKEN}/{_TOKEN}|\*)\s*")
_PARAMETER = re.compile(rf';\s*(?:({_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*)?')
_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One media range of an Accept header.

    `media_type`: in lower case, may end in "/*"; of the parts if `multipart`. `syntax`: the
    transfer-syntax parameter, None if not given. `quality` is above 0.
    """

    media_type: str
    multipart: bool = False
    syntax: str | None = None
    quality: float = 1.0

    def takes(self, media_type: str) -> bool:
        """Whether the range covers a media type."""
        kind = self.media_type
        return kind in ("*/*", media_type) or (kind.endswith("/*") and media_type.startswith(kind[:-1]))


ANYTHING = Wanted("*/*")


def parse(header: str | None) -> list[Wanted]:
    """The media ranges, best first (then in the order given). Refusal(NOT_ACCEPTABLE) if malformed.

    No or an empty header accepts everything. Ranges of quality 0 are left out: naming a type only to
    refuse it has no other effect than not asking for it.
    """
    if header is None or not header.strip():
        return [ANYTHING]
    if len(header) > MAX_HEADER_CHARS:
        raise Refusal(Reason.NOT_ACCEPTABLE, "Accept header too long")
    ranges = list(_ranges(header))
    if len(ranges) > MAX_RANGES:
        raise Refusal(Reason.NOT_ACCEPTABLE, "too many media ranges")
    return sorted((each for each in ranges if each.quality > 0), key=_rank)


def media_type_and_parameters(value: str) -> tuple[str, dict[str, str]]:
    """A Content-Type header's media type and parameters, names in lower case; ("", {}) if malformed."""
    match = _RANGE.match(value)
    if not match:
        return "", {}
    try:
        parameters, at = _parameters(value, match.end())
    except Refusal:
        return "", {}
    return (match[1].lower(), parameters) if at == len(value) else ("", {})


def choose(wanted: Sequence[Wanted], offered: Sequence[str], *, multipart: bool = False) -> str | None:
    """The first of `offered` (the server's own preference first) that the best fitting range takes.

    With `multipart`, ranges that want parts count too; else only plain ones.
    """
    for each in wanted:
        if each.multipart and not multipart:
            continue
        for media_type in offered:
            if each.takes(media_type):
                return media_type
    return None


def _rank(wanted: Wanted) -> tuple[float, int]:
    """Higher quality first; among equals the more specific range."""
    vague = 2 if wanted.media_type == "*/*" else 1 if wanted.media_type.endswith("/*") else 0
    return -wanted.quality, vague


def _ranges(header: str) -> Iterator[Wanted]:
    at = 0
    while at < len(header):
        match = _RANGE.match(header, at)
        if not match:
            if header[at] in ", \t":  # an empty list element
                at += 1
                continue
            raise Refusal(Reason.NOT_ACCEPTABLE, "malformed Accept header")
        parameters, at = _parameters(header, match.end())
        yield _wanted("*/*" if match[1] == "*" else match[1].lower(), parameters)
        if at < len(header):
            if header[at] != ",":
                raise Refusal(Reason.NOT_ACCEPTABLE, "malformed Accept header")
            at += 1


def _parameters(header: str, at: int) -> tuple[dict[str, str], int]:
    found: dict[str, str] = {}
    while at < len(header) and header[at] == ";":
        match = _PARAMETER.match(header, at)
        if not match or match.end() == at:
            raise Refusal(Reason.NOT_ACCEPTABLE, "malformed media type parameter")
        if match[1]:
            value = match[2]
            if value.startswith('"'):
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            found[match[1].lower()] = value
        at = match.end()
    return found, at


def _wanted(media_type: str, parameters: dict[str, str]) -> Wanted:
    quality = parameters.get("q", "1")
    if not _QUALITY.fullmatch(quality):
        raise Refusal(Reason.NOT_ACCEPTABLE, "malformed quality value")
    syntax = parameters.get("transfer-syntax")
    if media_type != MULTIPART:
        return Wanted(media_type, False, syntax, float(quality))
    inner, within = media_type_and_parameters(parameters.get("type", "*/*"))
    # Some clients put the transfer syntax inside the quoted type.
    return Wanted(inner or "*/*", True, syntax or within.get("transfer-syntax"), float(quality))
