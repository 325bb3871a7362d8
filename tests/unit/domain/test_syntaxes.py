"""The table of transfer syntaxes against pydicom's own, and what is said to be possible."""

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

from node.domain import syntaxes as ts

# Newer than the dictionary, or hidden there behind "(Retired)".
NEWER = {
    ts.JPEG_XL_LOSSLESS,
    ts.JPEG_XL_RECOMPRESSION,
    ts.JPEG_XL,
    ts.DEFLATED_FRAMES,
}
KNOWN = {uid: entry for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}


def test_every_registered_transfer_syntax_is_there() -> None:
    assert set(KNOWN) - {"1.2.840.10008.1.20"} <= set(ts.SYNTAXES)
    assert set(ts.SYNTAXES) - set(KNOWN) <= NEWER


@pytest.mark.parametrize("uid", sorted(set(KNOWN) & set(ts.SYNTAXES)))
def test_names_and_properties_are_the_registrys(uid: str) -> None:
    syntax, known = ts.SYNTAXES[uid], UID(uid)
    assert syntax.name == known.name.removesuffix(" (Retired)")
    assert syntax.retired == known.is_retired
    if not uid.startswith(("1.2.840.10008.1.2.6", "1.2.840.10008.1.2.7")):
        assert syntax.explicit == (not known.is_implicit_VR)
        assert syntax.big_endian == (not known.is_little_endian)


def test_deflated_and_encapsulated_are_told_apart() -> None:
    assert ts.SYNTAXES[ts.DEFLATED].deflated and not ts.SYNTAXES[ts.DEFLATED].encapsulated
    assert ts.SYNTAXES[ts.DEFLATED_FRAMES].encapsulated and not ts.SYNTAXES[ts.DEFLATED_FRAMES].deflated


def test_native_syntaxes_turn_into_each_other() -> None:
    for source in ts.NATIVE:
        assert ts.can_transcode(source, ts.EXPLICIT_LITTLE)
        assert ts.can_transcode(source, ts.IMPLICIT_LITTLE)


def test_the_same_syntax_is_always_possible_also_an_unknown_one() -> None:
    assert ts.can_transcode("1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.102")
    assert ts.can_transcode("2.25.1", "2.25.1")


@pytest.mark.parametrize("syntax", [syntax for syntax in ts.SYNTAXES.values() if syntax.video])
def test_video_is_never_turned_into_anything(syntax: ts.Syntax) -> None:
    assert not ts.can_decode(syntax.uid)
    assert not any(ts.can_transcode(syntax.uid, target) for target in ts.ENCODABLE)


def test_big_endian_is_not_written() -> None:
    assert not ts.can_transcode(ts.EXPLICIT_LITTLE, ts.EXPLICIT_BIG)


def test_what_is_written_without_loss_is_not_called_lossy() -> None:
    for uid in ts.ENCODABLE - {ts.JPEG_BASELINE}:
        assert ts.SYNTAXES[uid].lossy is not True
        assert ts.lossy_method(uid) is None
    assert all(ts.lossy_method(uid) for uid in ts.DECODABLE if ts.SYNTAXES[uid].lossy)
