"""Identifiers in every transfer syntax and character set that we answer in."""

from io import BytesIO

import pytest
from pydicom import Dataset
from pynetdicom.dsutils import decode as read

from node.dimse import identifier
from node.dimse.contexts import IDENTIFIER_SYNTAXES
from node.domain.errors import Reason, Refusal
from node.domain.model import Attributes
from node.domain.syntaxes import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE

ANSWER: Attributes = {
    "00080052": {"vr": "CS", "Value": ["STUDY"]},
    "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Käthe"}]},
    "00100020": {"vr": "LO"},
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00201208": {"vr": "IS", "Value": [12]},
    "00280010": {"vr": "US", "Value": [512]},
    "00281050": {"vr": "DS", "Value": [0.1234567890123456789, None]},
    "00400275": {"vr": "SQ", "Value": [{"00400009": {"vr": "SH", "Value": ["S-1"]}}]},
}


def decoded(data: bytes, syntax: str) -> Dataset:
    """What pydicom reads."""
    return read(BytesIO(data), syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG, syntax == DEFLATED)


@pytest.mark.parametrize("syntax", IDENTIFIER_SYNTAXES)
def test_pydicom_reads_what_is_written(syntax: str) -> None:
    data = decoded(identifier.encode(ANSWER, syntax, b"ISO_IR 100"), syntax)
    assert data.SpecificCharacterSet == "ISO_IR 100"
    assert str(data.PatientName) == "Müller^Käthe"
    assert data.ModalitiesInStudy == ["CT", "SR"]
    assert data.StudyInstanceUID == "1.2.3"
    assert (data.NumberOfStudyRelatedInstances, data.Rows) == (12, 512)
    assert data.RequestAttributesSequence[0].ScheduledProcedureStepID == "S-1"


@pytest.mark.parametrize("syntax", IDENTIFIER_SYNTAXES)
def test_what_is_written_is_read_back(syntax: str) -> None:
    attributes, _ = identifier.decode(identifier.encode(ANSWER, syntax), syntax)
    assert {tag: attributes[tag] for tag in ("00100010", "00280010", "00400275")} == {
        tag: ANSWER[tag] for tag in ("00100010", "00280010", "00400275")
    }


@pytest.mark.parametrize(
    ("name", "requested", "used"),
    [
        ("Smith^John", b"", None),
        ("Müller^Käthe", b"", "ISO_IR 192"),
        ("Müller^Käthe", b"ISO_IR 100", "ISO_IR 100"),
        ("Люкceмбypг", b"ISO_IR 144", "ISO_IR 144"),
        ("Люкceмбypг", b"ISO_IR 100", "ISO_IR 192"),
        ("王^小东", b"GB18030", "GB18030"),
        ("Müller^Käthe", b"ISO_IR 4711", "ISO_IR 192"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", b"\\ISO 2022 IR 87", ["", "ISO 2022 IR 87"]),
        ("Hong^Gildong=洪^吉洞=홍^길동", b"\\ISO 2022 IR 149", ["", "ISO 2022 IR 149"]),
        ("Müller=山田^太郎", b"\\ISO 2022 IR 87", "ISO_IR 192"),
    ],
)
def test_the_requests_character_set_where_it_will_do(
    name: str, requested: bytes, used: str | list[str] | None
) -> None:
    groups = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False))
    attributes: Attributes = {"00100010": {"vr": "PN", "Value": [groups]}}
    data = decoded(identifier.encode(attributes, EXPLICIT_LITTLE, requested), EXPLICIT_LITTLE)
    assert data.get("SpecificCharacterSet") == used
    data.decode()
    assert str(data.PatientName) == name


def test_a_long_list_of_failures_is_cut_to_what_fits() -> None:
    element = identifier.uids(["1.2.840.10008." + "9" * 50] * 5000)
    data = decoded(identifier.encode({"00080058": element}, EXPLICIT_LITTLE), EXPLICIT_LITTLE)
    assert 900 < len(data.FailedSOPInstanceUIDList) < 5000


def test_an_identifier_without_level_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        identifier.level({})
    assert refused.value.reason is Reason.MISMATCH
