"""The Native DICOM Model, read back by Python's own XML parser."""

import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from node.web import dicom_xml

NS = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"


def parsed(attributes: dict[str, Any]) -> dict[str, ET.Element]:
    """The attributes of the document by tag."""
    root = ET.fromstring(dicom_xml.document(attributes))  # noqa: S314 - of our own making
    assert root.tag == f"{NS}NativeDicomModel"
    assert all(child.tag == f"{NS}DicomAttribute" for child in root)
    return {child.attrib["tag"]: child for child in root}


def test_elements_say_what_they_are_in_the_order_of_their_tags() -> None:
    found = parsed(
        {
            "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
            "00080060": {"vr": "CS", "Value": ["CT"]},
            "00091001": {"vr": "UN", "InlineBinary": "AAE="},
        }
    )
    assert list(found) == ["00080060", "00091001", "0020000D"]
    assert found["0020000D"].attrib == {"tag": "0020000D", "vr": "UI", "keyword": "StudyInstanceUID"}
    assert "keyword" not in found["00091001"].attrib
    assert found["00091001"].findtext(f"{NS}InlineBinary") == "AAE="


def test_empty_values_keep_their_place() -> None:
    values = parsed({"00080008": {"vr": "CS", "Value": ["A", None, "C"]}})["00080008"]
    assert [(each.attrib["number"], each.text) for each in values] == [("1", "A"), ("3", "C")]
    assert len(parsed({"00080008": {"vr": "CS"}})["00080008"]) == 0


def test_person_names_come_in_components() -> None:
    name = {"Ideographic": "\u5c71\u7530^\u592a\u90ce", "Alphabetic": "Yamada^Tarou^^Dr"}
    person = parsed({"00100010": {"vr": "PN", "Value": [name]}})["00100010"][0]
    assert person.attrib == {"number": "1"}
    assert [part.tag for part in person] == [f"{NS}Alphabetic", f"{NS}Ideographic"]
    assert {part.tag.removeprefix(NS): part.text for part in person[0]} == {
        "FamilyName": "Yamada",
        "GivenName": "Tarou",
        "NamePrefix": "Dr",
    }


def test_sequences_nest() -> None:
    inner = {"00081155": {"vr": "UI", "Value": ["1.2"]}}
    sequence = parsed({"00081199": {"vr": "SQ", "Value": [inner, {}]}})["00081199"]
    assert [(item.tag, item.attrib["number"]) for item in sequence] == [
        (f"{NS}Item", "1"),
        (f"{NS}Item", "2"),
    ]
    assert sequence[0][0].attrib["keyword"] == "ReferencedSOPInstanceUID"
    assert len(sequence[1]) == 0


def test_bulk_data_is_named() -> None:
    bulk = parsed({"7FE00010": {"vr": "OW", "BulkDataURI": "/a?b=1&c='\"<"}})["7FE00010"][0]
    assert (bulk.tag, bulk.attrib) == (f"{NS}BulkData", {"uri": "/a?b=1&c='\"<"})


@given(st.text(max_size=40))
@example("<script>alert(1)</script>")
@example("]]>&amp;")
@example("nul \0, escape \x1b, half a pair \ud800")
def test_any_text_makes_a_document(text: str) -> None:
    found = parsed(
        {
            "00081030": {"vr": "LO", "Value": [text]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": text}]},
            "7FE00010": {"vr": "OW", "BulkDataURI": text},
        }
    )
    read = found["00081030"].findtext(f"{NS}Value") or ""
    expected = "".join("\ufffd" if each < " " and each not in "\t\n\r" else each for each in text)
    expected = "".join(
        "\ufffd" if each in "\ufffe\uffff" or "\ud800" <= each < "\ue000" else each for each in expected
    )
    # XML's parsers make one line feed of every line break.
    assert read == expected.replace("\r\n", "\n").replace("\r", "\n")
    assert len(found["00081030"]) == len(found["7FE00010"]) == 1
