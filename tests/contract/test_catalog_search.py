"""Searching a real catalog: what matches, what comes back, in which order, page by page."""

from collections.abc import Iterator
from typing import Any

import pytest

from node.adapters.catalog_postgres.catalog import PostgresCatalog
from node.domain.errors import Reason, Refusal
from node.domain.model import Attributes, Level, Scope
from node.services.search import QidoResult, Search
from tests.contract.catalog_records import rows
from tests.contract.catalog_search_records import CT, READER, SR, STORE, element, instance

EXTRA = {Level.STUDY: ("00102150",), Level.SERIES: ("00180060",), Level.IMAGE: ("00181210", "00189073")}
ANNA = {
    "00100010": element("PN", "Müller^Anna"),
    "00100020": element("LO", "A_1"),
    "00100030": element("DA", "19700101"),
    "00101001": element("PN", "Meier^Anna", "Łukasz^Æbbe"),
}
TARO = {"00100010": element("PN", "Yamada^Tarou=山田^太郎=やまだ^たろう"), "00100020": element("LO", "AB1")}


@pytest.fixture
def dsn(any_postgres_dsn: str) -> str:
    return any_postgres_dsn


@pytest.fixture
def catalog(dsn: str) -> Iterator[PostgresCatalog]:
    catalog = PostgresCatalog(
        dsn, pool_size=4, connect_seconds=5, statement_seconds=30, extra_tags=EXTRA, max_results=1000
    )
    yield catalog
    catalog.close()


@pytest.fixture
def search(catalog: PostgresCatalog) -> Search:
    for record in (
        instance(
            "2.25.1.1.1",
            patient=ANNA,
            study={
                "00080020": element("DA", "20260102"),
                "00080030": element("TM", "101159.5"),
                "00080050": element("SH", "ACC%1"),
                "00081030": element("LO", "Schädel nativ"),
                "00080090": element("PN", "House^Gregory"),
                "00102150": element("LO", "Origin *x*", "Other"),
            },
            series={
                "00080060": element("CS", "CT"),
                "00081050": element("PN", "Łąka^Øyvind"),
                "00180060": element("DS", 120.5),
                "00400275": {
                    "vr": "SQ",
                    "Value": [
                        {"00400009": element("SH", "SPS1"), "00401001": element("SH", "RP1")},
                        {"00400009": element("SH", "SPS2"), "00401001": element("SH", "RP2")},
                    ],
                },
            },
            own={"00080008": element("CS", "ORIGINAL", "PRIMARY", "AXIAL")},
        ),
        instance("2.25.1.1.2", patient=ANNA, own={"00080008": element("CS", "DERIVED", "PRIMARY")}),
        instance("2.25.1.2.1", patient=ANNA, sop_class=SR, series={"00080060": element("CS", "SR")}),
        instance(
            "2.25.2.1.1",
            patient=TARO,
            study={"00080020": element("DA", "20260103"), "00080030": element("TM", "09")},
            series={"00080060": element("CS", "CT")},
        ),
        instance("2.25.3.1.1", study={"00080050": element("SH", "ACCX1")}),
    ):
        catalog.instances.admit(record, STORE)
    return Search(catalog.searches, max_results=100, dimse_max_results=1000, extra_tags=EXTRA)


def qido(search: Search, query: str, level: Level = Level.STUDY, scope: Scope | None = None) -> QidoResult:
    pairs = [part.partition("=") for part in query.split("&")] if query else []
    return search.qido(level, scope or Scope(), [(name, value) for name, _, value in pairs], READER)


def found(search: Search, query: str, level: Level = Level.STUDY) -> list[str]:
    tag = {Level.STUDY: "0020000D", Level.SERIES: "0020000E", Level.IMAGE: "00080018"}[level]
    return [str(result[tag]["Value"][0])[5:] for result in qido(search, query, level).results]


def value(result: Attributes, tag: str) -> Any:
    return result[tag].get("Value")


@pytest.mark.parametrize(
    ("query", "studies"),
    [
        ("", ["2", "1", "3"]),  # newest first, without a date last
        ("PatientName=MULLER^anna", ["1"]),
        ("PatientName=müller*", ["1"]),
        ("PatientName=*ANN*", ["1"]),
        ("PatientName=Muller^Ann", []),
        ("PatientName=YAMADA^TARO", []),
        ("PatientName=Yamada^Tarou", ["2"]),
        ("PatientName=山田*", ["2"]),
        ("PatientName=やまだ^たろう", ["2"]),
        ("PatientName=Yamada^Tarou=山田^太郎", ["2"]),
        ("PatientName=*=山田*", ["2"]),
        ("PatientName=Yamada^Tarou=山下^太郎", []),
        ("PatientName=Yamada*郎", []),  # wildcards do not reach into the next component group
        ("PatientName=Yamada^Taro?", ["2"]),
        ("PatientName=*", ["2", "1", "3"]),
        ("PatientName=**", ["2", "1", "3"]),
        ("PatientName=%", []),
        ("PatientName=Mahler^Hanna", []),
        ("PatientName=Moller^Ana&fuzzymatching=true", ["1"]),
        ("PatientName=Ana^Moller&fuzzymatching=true", ["1"]),
        ("PatientName=Moller^Petra&fuzzymatching=true", []),
        ("PatientID=A_1", ["1"]),
        ("PatientID=a_1", []),
        ("PatientID=A?1", ["2", "1"]),
        ("PatientID=A*", ["2", "1"]),
        ("PatientID=AB%31", []),
        ("PatientBirthDate=1970.01.01", ["1"]),
        ("OtherPatientNames=lukasz^*", ["1"]),
        ("OtherPatientNames=LUKASZ^ÆBBE", ["1"]),
        ("OtherPatientNames=lukas^*", []),
        ("AccessionNumber=ACC%1", ["1"]),
        ("AccessionNumber=ACC%*", ["1"]),
        ("AccessionNumber=ACC*", ["1", "3"]),
        ("AccessionNumber=' OR 1=1 --", []),
        ("StudyDescription=*schadel*", ["1"]),
        ("ReferringPhysicianName=house*", ["1"]),
        ("StudyDate=20260102", ["1"]),
        ("StudyDate=20260102-20260103", ["2", "1"]),
        ("StudyDate=-20260102", ["1"]),
        ("StudyDate=20260103-", ["2"]),
        ("StudyTime=101159", ["1"]),
        ("StudyTime=10:11", ["1"]),
        ("StudyTime=101158-101159", ["1"]),
        ("StudyTime=-0900", ["2"]),
        ("StudyTime=0901-1011", ["1"]),
        ("StudyTime=0901-101158", []),
        # Combined: from the 2nd at noon to the 3rd at ten
        ("StudyDate=20260102-20260103&StudyTime=12-10", ["2"]),
        ("StudyDate=20260102-&StudyTime=1011-", ["2", "1"]),
        ("StudyInstanceUID=2.25.1,2.25.3", ["1", "3"]),
        ("ModalitiesInStudy=SR", ["1"]),
        ("ModalitiesInStudy=CT,SR", ["2", "1"]),
        ("ModalitiesInStudy=CT\\SR&multiplevaluematching=true", ["1"]),
        ("ModalitiesInStudy=XA", []),
        (f"SOPClassesInStudy={SR}", ["1"]),
        ('PatientID=""&emptyvaluematching=true', ["3"]),
        ('PatientID=""', []),
        ('ModalitiesInStudy=""&emptyvaluematching=true', ["3"]),
        ('OtherPatientNames=""&emptyvaluematching=true', ["2", "3"]),
        ("00102150=Other", ["1"]),
        ("00102150=Oth", []),
        ("00102150=*th*", ["1"]),
    ],
)
def test_studies_by(search: Search, query: str, studies: list[str]) -> None:
    assert found(search, query) == studies


@pytest.mark.parametrize(
    ("query", "level", "expected"),
    [
        ("Modality=SR", Level.SERIES, ["1.2"]),
        ("SeriesNumber=01", Level.SERIES, ["2.1", "1.1", "3.1"]),
        ("SeriesNumber=1.5", Level.SERIES, []),
        ("PatientID=A_1&Modality=CT", Level.SERIES, ["1.1"]),
        ("PerformingPhysicianName=laka^oyvind", Level.SERIES, ["1.1"]),
        ("PerformingPhysicianName=LAKA*", Level.SERIES, ["1.1"]),
        ("PerformingPhysicianName=?AKA^*", Level.SERIES, ["1.1"]),
        ("PerformingPhysicianName=AKA*", Level.SERIES, []),
        ("KVP=120.50", Level.SERIES, ["1.1"]),
        ("KVP=120", Level.SERIES, []),
        ("RequestAttributesSequence.ScheduledProcedureStepID=SPS2", Level.SERIES, ["1.1"]),
        ("00400275.00400009=SPS?&00400275.00401001=RP1", Level.SERIES, ["1.1"]),
        ("00400275.00400009=SPS1&00400275.00401001=RP2", Level.SERIES, []),  # both in one item
        ("ImageType=PRIMARY", Level.IMAGE, ["1.1.1", "1.1.2"]),
        ("ImageType=AXIAL\\PRIMARY&multiplevaluematching=true", Level.IMAGE, ["1.1.1"]),
        ("SOPClassUID=" + CT, Level.IMAGE, ["2.1.1", "1.1.1", "1.1.2", "3.1.1"]),
        ("StudyDate=20260102&InstanceNumber=1", Level.IMAGE, ["1.1.1", "1.2.1"]),
        ("SOPInstanceUID=2.25.1.1.2", Level.IMAGE, ["1.1.2"]),
    ],
)
def test_series_and_instances_by(search: Search, query: str, level: Level, expected: list[str]) -> None:
    assert found(search, query, level) == expected


def test_a_study_has_its_standard_attributes_and_counts(search: Search) -> None:
    (result,) = qido(search, "PatientID=A_1&includefield=SOPClassesInStudy").results
    assert value(result, "00201206") == [2]
    assert value(result, "00201208") == [3]
    assert value(result, "00080061") == ["CT", "SR"]
    assert value(result, "00080062") == [CT, SR]
    assert value(result, "00080056") == ["ONLINE"]
    assert value(result, "00080005") == ["ISO_IR 192"]
    assert value(result, "00100010") == [{"Alphabetic": "Müller^Anna"}]
    assert result["00100040"] == {"vr": "CS"}  # required, but unknown
    assert list(result) == sorted(result)
    assert "00101001" not in result and "00201200" not in result


def test_includefield_adds_what_is_known_and_no_lower_levels(search: Search) -> None:
    query = "PatientID=A_1&includefield=00101001,Modality&includefield=StudyComments"
    (result,) = qido(search, query).results
    assert len(value(result, "00101001")) == 2
    assert "00080060" not in result and "00324000" not in result
    (everything,) = qido(search, "PatientID=A_1&includefield=all").results
    assert value(everything, "00102150") == ["Origin *x*", "Other"]
    assert value(everything, "00201200") == [1] and value(everything, "00201204") == [3]
    assert "00080060" not in everything


def test_a_search_within_a_study_leaves_the_studys_attributes_out(search: Search) -> None:
    scope = Scope(study_uid="2.25.1")
    result = qido(search, "", Level.SERIES, scope).results[0]
    assert value(result, "0020000D") == ["2.25.1"] and "00100010" not in result
    assert value(result, "00201209") == [2]
    result = qido(search, "includefield=PatientID", Level.SERIES, scope).results[0]
    assert value(result, "00100020") == ["A_1"]
    result = qido(search, "", Level.SERIES).results[0]
    assert value(result, "00100010") and value(result, "00201208")
    instances = qido(search, "", Level.IMAGE, Scope("2.25.1", "2.25.1.1")).results
    assert [value(one, "00080018") for one in instances] == [["2.25.1.1.1"], ["2.25.1.1.2"]]
    assert qido(search, "", Level.SERIES, Scope(study_uid="2.25.9")).results == []


def test_following_pages_sees_everything_once_while_studies_come_and_go(
    search: Search, catalog: PostgresCatalog
) -> None:
    for number in range(10, 20):
        catalog.instances.admit(
            instance(f"2.25.{number}.1.1", study={"00080020": element("DA", f"202601{number}")}), STORE
        )
    parameters: list[tuple[str, str]] | None = [("limit", "3"), ("StudyDate", "20260110-")]
    seen: list[str] = []
    added = 30
    while parameters is not None:
        page = search.qido(Level.STUDY, Scope(), parameters, READER)
        seen += [str(value(result, "0020000D")[0]) for result in page.results]
        parameters = page.next_parameters
        if parameters:
            assert page.warnings and "additional results that can be requested" in page.warnings[0]
            catalog.instances.admit(
                instance(f"2.25.{added}.1.1", study={"00080020": element("DA", f"202602{added - 10}")}), STORE
            )
            catalog.instances.remove(Scope(study_uid=seen[-1]), STORE)
            added += 1
    assert seen == [f"2.25.{number}" for number in range(19, 9, -1)]


@pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES, Level.IMAGE])
def test_pages_of_one_together_are_the_whole(search: Search, level: Level) -> None:
    tag = {Level.STUDY: "0020000D", Level.SERIES: "0020000E", Level.IMAGE: "00080018"}[level]
    whole = [value(result, tag) for result in qido(search, "", level).results]
    assert len(whole) > 2
    parameters: list[tuple[str, str]] | None = [("limit", "1")]
    pages = []
    while parameters is not None:
        page = search.qido(level, Scope(), parameters, READER)
        pages += [value(result, tag) for result in page.results]
        parameters = page.next_parameters
    assert pages == whole
    by_offset = [qido(search, f"limit=1&offset={offset}", level).results for offset in range(len(whole) + 1)]
    assert [value(page[0], tag) for page in by_offset[:-1]] == whole and by_offset[-1] == []


def test_the_number_of_remaining_results_is_told(search: Search) -> None:
    assert qido(search, "limit=1").warnings == ["There are 2 additional results that can be requested"]
    assert qido(search, "limit=3").warnings == []
    assert qido(search, "limit=3").next_parameters is None
    nothing = qido(search, "limit=0")
    assert nothing.results == [] and nothing.next_parameters is None


def test_keys_that_cannot_be_matched_are_told(search: Search) -> None:
    result = qido(search, "Modality=CT&NumberOfStudyRelatedSeries=2")
    assert len(result.results) == 3
    assert [warning.partition(" ")[0] for warning in result.warnings] == [
        "Modality",
        "NumberOfStudyRelatedSeries",
    ]
    assert "PatientName only" in qido(search, "ReferringPhysicianName=x&fuzzymatching=true").warnings[0]


def test_a_place_that_is_none_is_refused(search: Search) -> None:
    for after in ("", "x", "1.2", "1.x.20260101", "-1.0.20260101", "9" * 30 + ".0.", "1.0.\0", "²." * 2):
        with pytest.raises(Refusal) as refused:
            search.qido(Level.STUDY, Scope(), [("after", after)], READER)
        assert refused.value.reason is Reason.INVALID_QUERY


# --- C-FIND ---


def test_an_answer_has_the_keys_asked_for_and_no_others(search: Search) -> None:
    identifier = {
        "00080005": element("CS", "ISO_IR 100"),
        "00080052": element("CS", "STUDY"),
        "00100010": element("PN", "MULLER^*"),
        "00100040": element("CS"),
        "00080061": element("CS"),
        "00201208": element("IS"),
        "0020000D": element("UI"),
    }
    finding = search.find(Level.STUDY, identifier, root="STUDY", actor=READER)
    assert finding.all_keys_supported
    (answer,) = finding
    assert answer == {
        "00080052": element("CS", "STUDY"),
        "00080056": element("CS", "ONLINE"),
        "00080061": element("CS", "CT", "SR"),
        "00100010": element("PN", "Müller^Anna"),
        "00100040": element("CS"),
        "0020000D": element("UI", "2.25.1"),
        "00201208": element("IS", 3),
    }


def test_matching_items_come_back_with_the_attributes_asked_for(search: Search) -> None:
    wanted = {"00400009": element("SH", "SPS2")}
    identifier = {"0020000D": element("UI", "2.25.1"), "00400275": {"vr": "SQ", "Value": [wanted]}}
    (answer,) = search.find(Level.SERIES, identifier, root="STUDY", actor=READER)
    assert answer["00400275"] == {"vr": "SQ", "Value": [wanted]}
    identifier["00400275"] = {"vr": "SQ"}
    first, _ = search.find(Level.SERIES, identifier, root="STUDY", actor=READER)
    assert len(first["00400275"]["Value"]) == 2 and len(first["00400275"]["Value"][0]) == 2


def test_patients_are_found_in_the_patient_root(search: Search) -> None:
    identifier = {"00100020": element("LO", "A*"), "00201200": element("IS"), "00201204": element("IS")}
    first, second = search.find(Level.PATIENT, identifier, root="PATIENT", actor=READER)
    assert (value(first, "00100020"), value(first, "00201204")) == (["A_1"], [3])
    assert (value(second, "00100020"), value(second, "00201200")) == (["AB1"], [1])


def test_keys_that_are_not_supported_are_flagged_and_not_matched(search: Search) -> None:
    for tag, key in {
        "00080060": element("CS", "MR"),  # a level below
        "00201208": element("IS", 99),  # returned, not matched
        "00324000": element("LT", ""),  # not kept
        "00091001": element("LO", "private"),
    }.items():
        identifier = {"0020000D": element("UI", "2.25.1"), tag: key}
        finding = search.find(Level.STUDY, identifier, root="STUDY", actor=READER)
        assert not finding.all_keys_supported
        (answer,) = finding
        assert value(answer, "0020000D") == ["2.25.1"]
        assert (tag in answer) == (tag == "00201208")


def test_dates_and_times_are_combined_only_where_negotiated(search: Search) -> None:
    identifier = {
        "0020000D": element("UI"),
        "00080020": element("DA", "20260102-20260103"),
        "00080030": element("TM", "0800-0930"),
    }
    apart = list(search.find(Level.STUDY, identifier, root="STUDY", actor=READER))
    assert [value(answer, "0020000D") for answer in apart] == [["2.25.2"]]
    joined = list(search.find(Level.STUDY, identifier, root="STUDY", actor=READER, combined_datetime=True))
    assert [value(answer, "0020000D") for answer in joined] == [["2.25.2"], ["2.25.1"]]


def test_closing_ends_the_search(search: Search) -> None:
    keys = {"00080018": element("UI")}
    finding = search.find(Level.IMAGE, keys, root="STUDY", actor=READER, relational=True)
    next(finding)
    finding.close()
    assert list(finding) == []


def test_many_answers_come_in_batches_and_are_capped(search: Search, catalog: PostgresCatalog) -> None:
    for number in range(250):
        catalog.instances.admit(instance(f"2.25.50.1.{number + 1}"), STORE)
    identifier = {"0020000D": element("UI", "2.25.50"), "00080018": element("UI")}
    answers = list(search.find(Level.IMAGE, identifier, root="STUDY", actor=READER, relational=True))
    assert [value(answer, "00080018") for answer in answers] == [
        [f"2.25.50.1.{number + 1}"] for number in range(250)
    ]
    capped = Search(catalog.searches, max_results=10, dimse_max_results=120, extra_tags=EXTRA)
    assert len(list(capped.find(Level.IMAGE, identifier, root="STUDY", actor=READER, relational=True))) == 120
    page = capped.qido(Level.IMAGE, Scope("2.25.50"), [("limit", "5000")], READER)
    assert len(page.results) == 10 and "at least 100 additional" in page.warnings[0]


# --- Audit ---


def test_a_search_leaves_an_audit_row_without_the_keys_values(search: Search, dsn: str) -> None:
    qido(search, "PatientName=Müller*&PatientID=A_1", Level.SERIES, Scope(study_uid="2.25.1"))
    list(search.find(Level.STUDY, {"0020000D": element("UI", "2.25.1")}, root="STUDY", actor=READER))
    events = rows(
        dsn, "SELECT actor, study_uids, detail FROM audit_events WHERE action = 'query' ORDER BY event_id"
    )
    assert events == [
        ("READER", ["2.25.1"], {"level": "SERIES", "keys": ["00100010", "00100020"]}),
        ("READER", [], {"level": "STUDY", "keys": ["0020000D"], "root": "STUDY"}),
    ]
    qido(search, "limit=0")
    assert rows(dsn, "SELECT count(*) FROM audit_events WHERE action = 'query'") == [(3,)]
