"""QIDO-RS parameters (PS3.18 section 8.3.4)."""

import pytest

from node.domain.errors import Reason, Refusal
from node.domain.matching import Rules
from node.domain.qido import parse


def test_attributes_by_keyword_tag_and_path() -> None:
    request = parse(
        [
            ("PatientName", "A,B*"),
            ("0020000d", "1.2,1.3"),
            ("RequestAttributesSequence.ScheduledProcedureStepID", "S1"),
            ("00400275.00401001", ""),
            ("ModalitiesInStudy", "CT,MR"),
            ("ImageType", "ORIGINAL\\PRIMARY"),
            ("StudyInstanceUID", "1.4"),
        ]
    )
    assert request.keys == {
        ("00100010",): ["A,B*"],
        ("0020000D",): ["1.2", "1.3", "1.4"],
        ("00400275", "00400009"): ["S1"],
        ("00400275", "00401001"): [""],
        ("00080061",): ["CT", "MR"],
        ("00080008",): ["ORIGINAL", "PRIMARY"],
    }
    assert request.rules == Rules(combined=True)
    assert (request.limit, request.offset, request.after, request.fuzzy) == (None, 0, None, False)


def test_options() -> None:
    request = parse(
        [
            ("", ""),
            ("includefield", "PatientID,00081030"),
            ("includefield", "RequestAttributesSequence.ScheduledProcedureStepID,all"),
            ("fuzzymatching", "true"),
            ("emptyvaluematching", "true"),
            ("multiplevaluematching", "false"),
            ("limit", "0"),
            ("offset", "20"),
            ("after", "7.0.20260101"),
        ]
    )
    assert request.include == ["00100020", "00081030", "00400275"] and request.include_all
    assert request.fuzzy and request.rules == Rules(combined=True, empty=True)
    assert (request.limit, request.offset, request.after) == (0, 20, "7.0.20260101")


@pytest.mark.parametrize(
    "parameters",
    [
        [("limit", "-1")],
        [("limit", "+1")],
        [("limit", "1.0")],
        [("limit", "")],
        [("limit", "١")],
        [("limit", "99999999999")],
        [("limit", "1"), ("limit", "2")],
        [("offset", "abc")],
        [("offset", "10000001")],
        [("after", "9" * 1000)],
        [("fuzzymatching", "yes")],
        [("fuzzymatching", "TRUE")],
        [("includefield", "NoSuchKeyword")],
        [("includefield", "PatientID.PatientName")],
        [("nonsense", "1")],
        [("patientname", "x")],  # keywords are case-sensitive
        [("", "x")],
        [("0010001", "x")],
        [("PatientName.PatientID", "x")],  # not a sequence
        [("00400275.00400275.00400275.00400275.00400009", "x")],
        [("PatientID", "a"), ("00100020", "b")],
        [("StudyInstanceUID", "1.2,,1.3")],
        [("StudyInstanceUID", ",".join(["1.2"] * 1001))],
        [("PatientID", "x")] * 101,
    ],
)
def test_what_the_standard_does_not_allow_is_refused(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(Refusal) as refused:
        parse(parameters)
    assert refused.value.reason is Reason.INVALID_QUERY
    assert refused.value.comment
