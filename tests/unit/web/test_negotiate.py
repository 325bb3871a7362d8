"""In which form a client gets instances and frames."""

import pytest

from node.domain.errors import Reason, Refusal
from node.domain.syntaxes import SYNTAXES
from node.web import accept
from node.web.negotiate import attributes, frames, images, instances

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
BASELINE, J2K, HTJ2K = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"
VIDEO, UNKNOWN = "1.2.840.10008.1.2.4.102", "1.2.3.4"
OCTETS = "application/octet-stream"


@pytest.mark.parametrize(
    ("header", "single", "syntaxes", "multipart"),
    [
        ("*/*", False, ("*",), True),
        ("*/*", True, ("*",), True),
        ("application/dicom", True, (EXPLICIT,), False),
        ("application/dicom; transfer-syntax=*", True, ("*",), False),
        ('multipart/related; type="application/dicom"', False, (EXPLICIT,), True),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', False, ("*",), True),
        (
            f'multipart/related; type="application/dicom"; transfer-syntax={J2K}, '
            f'multipart/related; type="application/dicom"; transfer-syntax={BASELINE}; q=0.5',
            False,
            (J2K, BASELINE),
            True,
        ),
        (f"application/dicom; transfer-syntax={J2K}, */*; q=0.1", True, (J2K,), False),
    ],
)
def test_instances(header: str, single: bool, syntaxes: tuple[str, ...], multipart: bool) -> None:
    form = instances(accept.parse(header), single=single)
    assert (form.syntaxes, form.multipart) == (syntaxes, multipart)


@pytest.mark.parametrize(("header", "single"), [("application/dicom", False), ("image/png", True)])
def test_instances_refused(header: str, single: bool) -> None:
    with pytest.raises(Refusal) as caught:
        instances(accept.parse(header), single=single)
    assert caught.value.reason is Reason.NOT_ACCEPTABLE


@pytest.mark.parametrize(
    ("header", "stored", "decoded", "media_type", "syntax", "multipart"),
    [
        # what is stored so comes so
        ("*/*", EXPLICIT, False, OCTETS, EXPLICIT, True),
        ("*/*", IMPLICIT, False, OCTETS, EXPLICIT, True),
        ("*/*", J2K, False, "image/jp2", J2K, True),
        ("*/*", UNKNOWN, False, OCTETS, UNKNOWN, True),
        ("*/*", VIDEO, False, "video/mp4", VIDEO, True),
        ("image/jp2", J2K, False, "image/jp2", J2K, False),
        ("image/*", J2K, False, "image/jp2", J2K, False),
        (f"image/jphc; transfer-syntax={HTJ2K}", HTJ2K, False, "image/jphc", HTJ2K, False),
        (f'multipart/related; type="{OCTETS}"; transfer-syntax=*', J2K, False, OCTETS, J2K, True),
        (f"{OCTETS}; transfer-syntax=*", J2K, False, OCTETS, J2K, False),
        (OCTETS, EXPLICIT, False, OCTETS, EXPLICIT, False),
        # otherwise decoded
        (OCTETS, J2K, True, OCTETS, EXPLICIT, False),
        (
            f'multipart/related; type="{OCTETS}"; transfer-syntax={EXPLICIT}',
            J2K,
            True,
            OCTETS,
            EXPLICIT,
            True,
        ),
        # what the client likes best, if it can be had
        (f'multipart/related; type="image/jls", {OCTETS}; q=0.5', J2K, True, OCTETS, EXPLICIT, False),
    ],
)
def test_frames(
    header: str, stored: str, decoded: bool, media_type: str, syntax: str, multipart: bool
) -> None:
    form = frames(accept.parse(header), stored, count=1)
    found = (form.decoded, form.media_type, form.syntax, form.multipart)
    assert found == (decoded, media_type, syntax, multipart)


@pytest.mark.parametrize(
    ("header", "stored", "count"),
    [
        ("image/jpeg", EXPLICIT, 1),
        ("image/jpeg", J2K, 1),
        (f"image/jp2; transfer-syntax={HTJ2K}", J2K, 1),
        (OCTETS, VIDEO, 1),  # nothing here decodes it
        (OCTETS, EXPLICIT, 2),  # one body cannot hold two
    ],
)
def test_frames_refused(header: str, stored: str, count: int) -> None:
    with pytest.raises(Refusal) as caught:
        frames(accept.parse(header), stored, count=count)
    assert caught.value.reason is Reason.NOT_ACCEPTABLE


@pytest.mark.parametrize("stored", sorted(SYNTAXES))
def test_every_stored_frame_can_be_had_as_it_is(stored: str) -> None:
    form = frames(accept.parse("*/*"), stored, count=3)
    assert not form.decoded
    assert form.media_type == SYNTAXES[stored].media_type


JSON, DICOM_JSON, XML = "application/json", "application/dicom+json", "application/dicom+xml"


@pytest.mark.parametrize(
    ("header", "media_type"),
    [
        ("*/*", DICOM_JSON),
        ("application/*", DICOM_JSON),
        (DICOM_JSON, DICOM_JSON),
        (JSON, JSON),
        (f"{JSON}; q=0.1, {DICOM_JSON}", DICOM_JSON),
        (f'multipart/related; type="{XML}"', XML),
        ("multipart/related", XML),
        (f'multipart/related; type="{XML}"; q=0.1, {JSON}', JSON),
        (f'multipart/related; type="{DICOM_JSON}", {JSON}', JSON),
        (f"{XML}, {JSON}; q=0.1", JSON),
    ],
)
def test_attributes(header: str, media_type: str) -> None:
    assert attributes(accept.parse(header)) == media_type


@pytest.mark.parametrize("header", [XML, "text/html", f'multipart/related; type="{DICOM_JSON}"'])
def test_attributes_refused(header: str) -> None:
    with pytest.raises(Refusal) as caught:
        attributes(accept.parse(header))
    assert caught.value.reason is Reason.NOT_ACCEPTABLE


JPEG, PNG = "image/jpeg", "image/png"


@pytest.mark.parametrize(
    ("header", "single", "count", "form"),
    [
        ("*/*", True, 1, (JPEG, False)),
        ("*/*", False, 1, (JPEG, True)),
        ("*/*", False, 2, (JPEG, True)),
        ("image/*", True, 1, (JPEG, False)),
        (PNG, True, 1, (PNG, False)),
        (PNG, False, 1, (PNG, False)),
        (f'multipart/related; type="{PNG}"', True, 1, (PNG, True)),
        (f'multipart/related; type="{PNG}"', False, 2, (PNG, True)),
        ("multipart/related", False, 2, (JPEG, True)),
        (f'{PNG}, multipart/related; type="{JPEG}"', False, 2, (JPEG, True)),
        (f"{PNG}, */*; q=0.1", False, 2, (JPEG, True)),
    ],
)
def test_images(header: str, single: bool, count: int, form: tuple[str, bool]) -> None:
    assert images(accept.parse(header), single=single, count=count) == form


@pytest.mark.parametrize(
    ("header", "count"),
    [
        ("image/gif", 1),
        (PNG, 2),
        ("image/*", 2),
        (f"{JPEG}, {PNG}", 2),
        ('multipart/related; type="video/mp4"', 2),
    ],
)
def test_images_refused(header: str, count: int) -> None:
    with pytest.raises(Refusal) as caught:
        images(accept.parse(header), single=False, count=count)
    assert caught.value.reason is Reason.NOT_ACCEPTABLE
