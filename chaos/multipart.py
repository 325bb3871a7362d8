"""Instances as parts of a STOW-RS request or of a WADO-RS answer (PS3.18 section 8.6, RFC 2387)."""

from collections.abc import Iterable

import requests

from chaos.history import content_of
from chaos.part10 import parse

MEDIA_TYPE = 'multipart/related; type="application/dicom"'
AS_RECEIVED = f"{MEDIA_TYPE}; transfer-syntax=*"  # for Accept
CONTENT_TYPE = f"{MEDIA_TYPE}; boundary=part"  # of `body_of`


def body_of(files: Iterable[bytes]) -> bytes:
    """A request's body out of Part 10 files."""
    parts = (b"--part\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files)
    return b"".join(parts) + b"--part--\r\n"


def identity_of(file: bytes) -> tuple[str, str]:
    """A Part 10 file's (SOP Instance UID, content); ("", "") if it is none."""
    parts = parse(file)
    return ("", "") if parts is None else (parts.uid, content_of(parts.syntax, parts.dataset))


def parts_of(answer: requests.Response) -> dict[str, str]:
    """Content by SOP Instance UID of each part; "" is what is no DICOM file."""
    boundary = answer.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
    parts = answer.content.split(b"--" + boundary)[1:-1]
    return dict(identity_of(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")) for part in parts)
