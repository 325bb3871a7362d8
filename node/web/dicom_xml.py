"""The Native DICOM Model (PS3.19 section A.1) of attributes that we have in the DICOM JSON model."""

import re
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from node.domain import dictionary
from node.domain.model import Attributes

MEDIA_TYPE = "application/dicom+xml"
_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
# XML 1.0 has no place for these at all, not even as references.
_IMPOSSIBLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REPRESENTATIONS = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


def document(attributes: Attributes) -> bytes:
    """One dataset as an XML document."""
    parts = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<NativeDicomModel xmlns="{_NAMESPACE}" xml:space="preserve">',
        *_dataset(attributes),
        "</NativeDicomModel>",
    ]
    return "".join(parts).encode()


def _dataset(attributes: Attributes) -> Iterator[str]:
    for tag, element in sorted(attributes.items()):
        keyword = dictionary.keyword_of(int(tag, 16))
        named = f" keyword={quoteattr(keyword)}" if keyword else ""
        yield f"<DicomAttribute tag={quoteattr(tag)} vr={quoteattr(str(element['vr']))}{named}>"
        yield from _content(element)
        yield "</DicomAttribute>"


def _content(element: dict[str, Any]) -> Iterator[str]:
    if "BulkDataURI" in element:
        yield f"<BulkData uri={quoteattr(_clean(element['BulkDataURI']))}/>"
        return
    if "InlineBinary" in element:
        yield f"<InlineBinary>{_text(element['InlineBinary'])}</InlineBinary>"
        return
    for number, value in enumerate(element.get("Value", ()), 1):
        if value is None:
            continue  # its number is left out (PS3.19 section A.1.6)
        if element["vr"] == "SQ":
            yield f'<Item number="{number}">'
            yield from _dataset(value)
            yield "</Item>"
        elif element["vr"] == "PN":
            yield f'<PersonName number="{number}">{"".join(_person(value))}</PersonName>'
        else:
            yield f'<Value number="{number}">{_text(value)}</Value>'


def _person(name: dict[str, str]) -> Iterator[str]:
    for representation in _REPRESENTATIONS:
        if representation in name:
            components = zip(_COMPONENTS, name[representation].split("^"), strict=False)
            inner = "".join(f"<{kind}>{_text(text)}</{kind}>" for kind, text in components if text)
            yield f"<{representation}>{inner}</{representation}>"


def _text(value: object) -> str:
    return escape(_clean(str(value)))


def _clean(text: str) -> str:
    return _IMPOSSIBLE.sub("\ufffd", text)
