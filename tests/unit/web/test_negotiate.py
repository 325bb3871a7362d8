"""In which form a client gets instances and frames."""

import pytest

from node.domain.errors import Reason, Refusal
from node.domain.syntaxes import SYNTAXES
from node.web import accept
from node.web.negotiate import frames, instances

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
