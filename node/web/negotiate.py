"""In which form a client gets what it asks for (PS3.18 section 8.7.3), decided on plain values.

Chosen where the standard leaves room: `*/*` means "as stored". `application/dicom` and
`application/octet-stream` without a transfer-syntax parameter mean Explicit VR Little Endian, which is
their default transfer syntax; a compressed media type without one takes whatever syntax of that type is
stored. `application/octet-stream; transfer-syntax=*` gives the stored bytes, whatever they are, and names
their syntax.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from node.domain.errors import Reason, Refusal
from node.domain.syntaxes import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    OCTET_STREAM,
    SYNTAXES,
    can_decode,
)
from node.web import dicom_xml
from node.web.accept import Wanted, choose
from node.web.body import DICOM_JSON, JSON

DICOM = "application/dicom"
ANY_SYNTAX = "*"
IMAGES = ("image/jpeg", "image/png")

# Stored so, frames are handed out as Explicit VR Little Endian without being compressed or decoded.
_PLAIN = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG})


@dataclass(frozen=True, slots=True)
class InstanceForm:
    """How instances go out: the transfer syntaxes accepted (best first, "*" for any), as parts or plain."""

    syntaxes: tuple[str, ...]
    multipart: bool


@dataclass(frozen=True, slots=True)
class FrameForm:
    """How frames go out: decoded or as stored, under which type and syntax, as parts or plain."""

    decoded: bool
    media_type: str
    syntax: str
    multipart: bool

    @property
    def content_type(self) -> str:
        """The Content-Type of a frame."""
        return f"{self.media_type}; transfer-syntax={self.syntax}"


def instances(wanted: Sequence[Wanted], *, single: bool) -> InstanceForm:
    """For application/dicom. `single`: the resource is one instance, which may also go out plain.

    Refusal(NOT_ACCEPTABLE) if no range takes it.
    """
    fitting = [
        each
        for each in wanted
        if each.takes(DICOM) and (each.multipart or single or each.media_type == "*/*")
    ]
    if not fitting:
        raise Refusal(Reason.NOT_ACCEPTABLE, "only application/dicom is offered here")
    plain = not fitting[0].multipart and fitting[0].media_type != "*/*"
    alike = [each for each in fitting if plain != (each.multipart or each.media_type == "*/*")]
    return InstanceForm(tuple(_instance_syntax(each) for each in alike), not plain)


def attributes(wanted: Sequence[Wanted]) -> str:
    """For metadata and search results: a JSON type, or the XML type, of which each dataset is a part.

    Refusal(NOT_ACCEPTABLE).
    """
    for each in wanted:
        if each.multipart:
            if each.takes(dicom_xml.MEDIA_TYPE):
                return dicom_xml.MEDIA_TYPE
        elif chosen := choose([each], (DICOM_JSON, JSON)):
            return chosen
    raise Refusal(Reason.NOT_ACCEPTABLE, "offered as application/dicom+json or multipart XML")


def images(wanted: Sequence[Wanted], *, single: bool, count: int) -> tuple[str, bool]:
    """For `count` rendered images: the type, and whether they go out as parts.

    `single`: the resource is one image, which "*/*" gets plain. Refusal(NOT_ACCEPTABLE).
    """
    for each in wanted:
        multipart = each.multipart or (each.media_type == "*/*" and not single)
        if not multipart and count != 1:
            continue
        for media_type in IMAGES:
            if each.takes(media_type):
                return media_type, multipart
    raise Refusal(Reason.NOT_ACCEPTABLE, "offered as image/jpeg and image/png, several as parts")


def _instance_syntax(wanted: Wanted) -> str:
    if wanted.syntax:
        return wanted.syntax
    return ANY_SYNTAX if wanted.media_type == "*/*" else EXPLICIT_LITTLE


def frames(wanted: Sequence[Wanted], stored: str, *, count: int) -> FrameForm:
    """For `count` frames of an instance stored in a transfer syntax. Refusal(NOT_ACCEPTABLE)."""
    for each in wanted:
        anything = each.media_type == "*/*"
        multipart = each.multipart or anything
        if not multipart and count != 1:
            continue
        form = _frame_form(each, stored, multipart)
        if form is not None:
            return form
    raise Refusal(Reason.NOT_ACCEPTABLE, "the frames are not stored in such a form")


def _frame_form(wanted: Wanted, stored: str, multipart: bool) -> FrameForm | None:
    syntax = SYNTAXES.get(stored)
    media_type = syntax.media_type if syntax else OCTET_STREAM
    label = EXPLICIT_LITTLE if stored in _PLAIN else stored
    as_stored = FrameForm(False, media_type, label, multipart)
    explicit_octets = wanted.media_type == OCTET_STREAM
    if wanted.takes(media_type):
        # Bytes that say nothing of themselves go out undeclared only if they are the default's.
        undeclared = wanted.syntax is None and not (explicit_octets and label != EXPLICIT_LITTLE)
        if undeclared or wanted.syntax in (ANY_SYNTAX, stored, label):
            return as_stored
    if wanted.takes(OCTET_STREAM):
        if explicit_octets and wanted.syntax in (ANY_SYNTAX, stored):
            return FrameForm(False, OCTET_STREAM, label, multipart)
        if wanted.syntax in (None, EXPLICIT_LITTLE) and can_decode(stored):
            return FrameForm(True, OCTET_STREAM, EXPLICIT_LITTLE, multipart)
    return None
