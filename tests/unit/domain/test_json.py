"""The DICOM JSON model where pydicom's files do not lead (test_real_files compares those)."""

import base64
import struct
from typing import Any

from node.domain.header import read_header
from tests.unit.domain.encoding import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    LIMITS,
    SEQUENCE_END,
    UNDEFINED,
    element,
    implicit,
    item,
)


def one(tag: int, vr: str, value: bytes) -> dict[str, Any]:
    return read_header(element(tag, vr, value), EXPLICIT, LIMITS).attributes()[f"{tag:08X}"]


def test_numbers_as_text_become_numbers_and_bad_ones_stay_text() -> None:
    assert one(0x00200013, "IS", b" 7\\-12\\ ")["Value"] == [7, -12, None]
    assert one(0x00200013, "IS", b"1.5\\1_0\\x ")["Value"] == ["1.5", "1_0", "x"]
    assert one(0x00280030, "DS", b"0.5\\1e-3\\")["Value"] == [0.5, 0.001, None]
    assert one(0x00280030, "DS", b"nan\\inf\\1e999\\1,5")["Value"] == ["nan", "inf", "1e999", "1,5"]


def test_floats_that_json_lacks_are_text() -> None:
    raw = struct.pack("<4d", 1.5, float("nan"), float("inf"), float("-inf"))
    assert one(0x00189999, "FD", raw)["Value"] == [1.5, "NaN", "inf", "-inf"]


def test_names_have_groups() -> None:
    value = one(0x00100010, "PN", "Wang^X=王^小=".encode("latin-1", "ignore") + b"\\\\Doe ")["Value"]
    assert value == [{"Alphabetic": "Wang^X", "Ideographic": "^"}, None, {"Alphabetic": "Doe"}]


def test_empty_values_have_no_value() -> None:
    for vr in ("LO", "PN", "IS", "US", "OB", "SQ", "AT", "UT"):
        assert one(0x00189999, vr, b"") == {"vr": vr}
    assert one(0x00100020, "LO", b"  ") == {"vr": "LO"}


def test_text_of_one_value_keeps_backslashes_and_leading_spaces() -> None:
    assert one(0x00104000, "LT", b"  a\\b ")["Value"] == ["  a\\b"]
    assert one(0x00100020, "LO", b" a \\ b ")["Value"] == ["a", "b"]


def test_tags_and_binary() -> None:
    assert one(0x00209165, "AT", b"\x18\0\x10\x91")["Value"] == ["00189110"]
    assert one(0x00189999, "OB", b"abc")["InlineBinary"] == base64.b64encode(b"abc").decode()


def test_big_endian_words_become_little_endian() -> None:
    encoded = element(0x00281201, "OW", b"\1\2\3\4", order=">") + element(
        0x00289999, "UL", b"\0\0\1\0", order=">"
    )
    attributes = read_header(encoded, BIG_ENDIAN, LIMITS).attributes()
    assert base64.b64decode(attributes["00281201"]["InlineBinary"]) == b"\2\1\4\3"
    assert attributes["00289999"]["Value"] == [256]


def test_group_lengths_and_padding_are_left_out() -> None:
    encoded = (
        element(0x00080000, "UL", bytes(4))
        + element(0x00100020, "LO", b"ID")
        + element(0xFFFCFFFC, "OB", bytes(4))
    )
    assert list(read_header(encoded, EXPLICIT, LIMITS).attributes()) == ["00100020"]


def test_the_character_set_is_that_of_the_item_and_becomes_utf_8() -> None:
    inner = element(0x00080005, "CS", b"ISO_IR 144") + element(0x00081030, "LO", "Люк".encode("iso8859-5"))
    encoded = (
        element(0x00080005, "CS", b"ISO_IR 100")
        + element(0x00081030, "LO", b"\xfc")
        + element(0x00081140, "SQ", item(inner) + item(element(0x00081030, "LO", b"\xfc")))
    )
    attributes = read_header(encoded, EXPLICIT, LIMITS).attributes()
    assert attributes["00080005"]["Value"] == ["ISO_IR 192"]
    assert attributes["00081030"]["Value"] == ["ü"]
    first, second = attributes["00081140"]["Value"]
    assert (first["00080005"]["Value"], first["00081030"]["Value"]) == (["ISO_IR 192"], ["Люк"])
    assert second["00081030"]["Value"] == ["ü"]


def test_signed_by_pixel_representation_in_implicit_vr() -> None:
    for signed, expected in ((0, 0xFFFF), (1, -1)):
        encoded = implicit(0x00280103, struct.pack("<H", signed)) + implicit(0x00280106, b"\xff\xff")
        attribute = read_header(encoded, IMPLICIT, LIMITS).attributes()["00280106"]
        assert attribute == {"vr": "SS" if signed else "US", "Value": [expected]}


def test_known_attributes_written_as_un_get_their_vr() -> None:
    assert one(0x00100010, "UN", b"Doe^Jane") == {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}
    assert one(0x00090010, "UN", b"ACME") == {"vr": "LO", "Value": ["ACME"]}
    assert one(0x00280010, "UN", b"\0\2") == {"vr": "US", "Value": [512]}
    assert one(0x00280010, "UN", b"") == {"vr": "US"}
    assert one(0x00186018, "UN", b"abc")["vr"] == "UN"  # no multiple of an unsigned long


def test_sequences_written_as_un_are_read_in_implicit_vr() -> None:
    expected = [{"00280106": {"vr": "US", "Value": [7]}, "00100020": {"vr": "LO", "Value": ["ID"]}}]
    content = implicit(0x00100020, b"ID") + implicit(0x00280106, b"\7\0")
    open_ended = element(0x00081140, "UN", item(content + ITEM_END, UNDEFINED) + SEQUENCE_END, UNDEFINED)
    for encoded in (element(0x00081140, "UN", item(content)), open_ended):
        header = read_header(encoded, EXPLICIT, LIMITS)
        assert header.attributes()["00081140"] == {"vr": "SQ", "Value": expected}
        assert header.values(0x00081140) == []
    swapped = element(0x00081140, "UN", item(content + ITEM_END, UNDEFINED) + SEQUENCE_END, UNDEFINED, ">")
    assert read_header(swapped, BIG_ENDIAN, LIMITS).attributes()["00081140"]["Value"] == expected
    assert one(0x00081140, "UN", b"not items") == {
        "vr": "UN",
        "InlineBinary": base64.b64encode(b"not items").decode(),
    }


def test_cut_values_get_an_address_where_one_is_offered() -> None:
    encoded = element(0x00091010, "OB", bytes(5000)) + element(
        0x00081140, "SQ", item(element(0x00091010, "OB", bytes(5000)))
    )
    header = read_header(encoded, EXPLICIT, LIMITS)
    assert header.attributes()["00091010"] == {"vr": "OB"}
    attributes = header.attributes(lambda path, offset, length: "/".join(map(str, (*path, offset, length))))
    assert attributes["00091010"] == {"vr": "OB", "BulkDataURI": "00091010/12/5000"}
    inner = attributes["00081140"]["Value"][0]["00091010"]
    assert inner == {"vr": "OB", "BulkDataURI": "00081140/0/00091010/5044/5000"}
    assert header.bulk(("00081140", 0, "00091010")) == (5044, 5000)


def test_asking_single_attributes() -> None:
    encoded = (
        element(0x00100010, "PN", b"Doe^Jane=X")
        + element(0x00200013, "IS", b" 7")
        + element(0x00280010, "US", b"\0\2")
    )
    header = read_header(encoded, EXPLICIT, LIMITS)
    assert header.text(0x00100010) == "Doe^Jane=X"
    assert (header.values(0x00200013), header.numbers(0x00200013)) == (["7"], [7])
    assert (header.values(0x00280010), header.numbers(0x00280010)) == (["512"], [512])
    assert header.get(0x00280010) == b"\0\2"
    assert (
        header.text(0x00100020) == "" and header.get(0x00100020) is None and header.numbers(0x00100020) == []
    )
    assert header.attribute(0x00100020) is None
    assert 0x00100010 in header and 0x00100020 not in header
    assert header.vr(0x00100010) == "PN" and header.vr(0x00100020) is None
