import pytest

from node.domain.dictionary import keyword_of
from node.domain.errors import Reason, Refusal
from node.domain.header import read_header
from node.domain.levels import INSTANCE, PATIENT, SERIES, STUDY, identify, split, split_level
from node.domain.model import Level
from tests.unit.domain.encoding import EXPLICIT, LIMITS, element, item

UIDS = {0x00080016: b"1.2", 0x00080018: b"1.3", 0x0020000D: b"1.4", 0x0020000E: b"1.5\0"}


def test_every_tag_is_known_and_belongs_to_one_level_only() -> None:
    tags = [*PATIENT, *STUDY, *SERIES, *INSTANCE]
    assert all(keyword_of(int(tag, 16)) for tag in tags)
    # Timezone Offset From UTC is asked for at three levels (PS3.18 tables 6.7.1-2 and following)
    assert {tag for tag in tags if tags.count(tag) > 1} == {"00080201"}


def test_split_takes_what_is_there_to_its_level() -> None:
    request = element(0x00400009, "SH", b"STEP") + element(0x00401001, "SH", b"PROC")
    encoded = b"".join(
        (
            element(0x00080016, "UI", b"1.2\0"),
            element(0x00080020, "DA", b"20240102"),
            element(0x00080060, "CS", b"CT"),
            element(0x00091010, "LO", b"private "),
            element(0x00100010, "PN", b"Doe^Jane"),
            element(0x00180050, "DS", b"1.0 "),
            element(0x00280010, "US", b"\0\2"),
            element(0x00400275, "SQ", item(request)),
        )
    )
    header = read_header(encoded, EXPLICIT, LIMITS)
    patient, study, series, instance = split(
        header, {Level.SERIES: ("00180050",), Level.STUDY: ("00189999",)}
    )
    assert patient == {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]}}
    assert study == {"00080020": {"vr": "DA", "Value": ["20240102"]}}
    assert series == {
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00400275": {
            "vr": "SQ",
            "Value": [
                {"00400009": {"vr": "SH", "Value": ["STEP"]}, "00401001": {"vr": "SH", "Value": ["PROC"]}}
            ],
        },
        "00180050": {"vr": "DS", "Value": [1.0]},
    }
    assert instance == {"00080016": {"vr": "UI", "Value": ["1.2"]}, "00280010": {"vr": "US", "Value": [512]}}
    assert split_level(header, Level.IMAGE) == instance


def uids(**changed: bytes | None) -> bytes:
    values = {**UIDS, **{int(tag[1:], 16): value for tag, value in changed.items()}}
    return b"".join(element(tag, "UI", value) for tag, value in values.items() if value is not None)


def test_identify_gives_the_four_uids() -> None:
    assert identify(read_header(uids(), EXPLICIT, LIMITS)) == ("1.2", "1.3", "1.4", "1.5")


@pytest.mark.parametrize("tag", ["t00080016", "t00080018", "t0020000D", "t0020000E"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.MISMATCH),
        (b"", Reason.MISMATCH),
        (b"\0\0", Reason.MISMATCH),
        (b"1.2\\1.3", Reason.MISMATCH),
        (b"../../x", Reason.INVALID_UID),
        (b"1." + b"2" * 64, Reason.INVALID_UID),
    ],
)
def test_identify_refuses_what_does_not_identify(tag: str, value: bytes | None, reason: Reason) -> None:
    header = read_header(uids(**{tag: value}), EXPLICIT, LIMITS)
    with pytest.raises(Refusal) as refusal:
        identify(header)
    assert refusal.value.reason is reason
