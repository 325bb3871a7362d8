"""Random searches over random small catalogs find what a naive reading of the rules finds; whatever the
parameters are, a search ends with results or a refusal."""

import fnmatch
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.adapters.catalog_postgres.catalog import PostgresCatalog
from node.domain.dictionary import tag_of
from node.domain.errors import Reason, Refusal
from node.domain.model import Level, Scope
from node.domain.names import phonetic, search_text
from node.services.search import Search
from tests.contract.catalog_search_records import READER, STORE, element, instance

EXTRA = {Level.STUDY: ("00102150",)}
Study = dict[str, Any]

_NAMES = ["Abe^Jo", "ABE^Joe", "Ábe", "Abel^Jo", "Ba_e^J%", "Øst^Jo", "Abe^Jo=安倍^城", "Kim=金^城=김", ""]
_KEY_TEXTS = ["A*", "A%*", "A_*", "*%", "?_?", '*"*', "*'B"]
_TEXTS = ["A", "AB", "ab", "A B", "A%", "A_B", 'A"B', "A'B", "Ä", "ABC", ""]
_DATES = ["20250101", "20250102", "20251231", "20260101", ""]
_TIMES = ["09", "0900", "090000.5", "120000", "235959.999", ""]

studies = st.lists(
    st.fixed_dictionaries(
        {
            "PatientName": st.sampled_from(_NAMES),
            "OperatorsName": st.lists(st.sampled_from(_NAMES[:-1]), max_size=2),
            "PatientID": st.sampled_from(_TEXTS),
            "AccessionNumber": st.sampled_from(_TEXTS),
            "StudyDate": st.sampled_from(_DATES),
            "StudyTime": st.sampled_from(_TIMES),
            "CountryOfResidence": st.lists(st.sampled_from(_TEXTS[:-1]), max_size=2),
            "Modality": st.sampled_from(["CT", "MR", "SR", ""]),
            "SeriesDate": st.sampled_from(_DATES),
        }
    ),
    min_size=1,
    max_size=6,
)

# Pieces of what is there, with wildcards in between
_key_parts = st.lists(
    st.sampled_from(["*", "?", "A", "b", "B", "a", "%", "_", "Jo", "^", "e", " ", "Abe", "安", "=", "ø"]),
    min_size=1,
    max_size=4,
).map("".join)
_ranges = st.tuples(st.sampled_from(_DATES), st.sampled_from(_DATES)).filter(any).map("-".join)
_time_ranges = st.tuples(st.sampled_from(_TIMES), st.sampled_from(_TIMES)).filter(any).map("-".join)
_keys: dict[str, st.SearchStrategy[str]] = {
    "PatientName": st.one_of(st.sampled_from(_NAMES), _key_parts),
    "OperatorsName": st.one_of(st.sampled_from(_NAMES), _key_parts),
    "PatientID": st.one_of(st.sampled_from(_TEXTS + _KEY_TEXTS), _key_parts),
    "AccessionNumber": st.one_of(st.sampled_from(_TEXTS + _KEY_TEXTS), _key_parts),
    "StudyDate": st.one_of(st.sampled_from(_DATES), _ranges),
    "StudyTime": st.one_of(st.sampled_from(_TIMES), _time_ranges),
    "CountryOfResidence": st.one_of(st.sampled_from(_TEXTS + _KEY_TEXTS), _key_parts),
    "ModalitiesInStudy": st.sampled_from(["CT", "MR", "CT,MR", "CT\\SR", "XA"]),
    "Modality": st.sampled_from(["CT", "C*", "?R", "MR"]),
    "SeriesDate": st.one_of(st.sampled_from(_DATES), _ranges),
}
queries = st.lists(st.sampled_from(sorted(_keys)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: _keys[name] for name in names})
)


# --- The naive reading ---


def like(pattern: str, text: str) -> bool:
    literal = re.sub(r"([\[\]])", r"[\1]", pattern)
    return fnmatch.fnmatchcase(text, literal)


def name_matches(key: str, name: str, fuzzy: bool) -> bool:
    groups = [*search_text(name).split("="), "", ""]
    keys = search_text(key).split("=")[:3]
    wild = "*" in key or "?" in key

    def same(pattern: str, group: str) -> bool:
        return bool(group) and (like(pattern, group) if wild else pattern == group)

    if "=" not in key:
        literally = any(same(keys[0], group) for group in groups[:3])
    else:
        literally = all(
            not pattern.strip("*") or same(pattern, group)
            for pattern, group in zip(keys, groups, strict=False)
        )
    sounds = phonetic(re.sub("[*?]", "", key))
    return literally or (fuzzy and bool(sounds) and set(sounds) <= set(phonetic(name)))


def padded(time: str, last: bool) -> str:
    digits, _, fraction = time.partition(".")
    if last:
        return (digits + "235959"[len(digits) :]) + "." + fraction.ljust(6, "9")
    return (digits + "000000"[len(digits) :]) + "." + fraction.ljust(6, "0")


def ends(key: str) -> tuple[str, str]:
    low, dash, high = key.partition("-")
    return (low, high) if dash else (key, key)


def time_matches(key: str, time: str) -> bool:
    low, high = ends(key)
    moment = padded(time, last=False)
    return (
        bool(time)
        and (not low or moment >= padded(low, last=False))
        and (not high or moment <= padded(high, last=True))
    )


def date_matches(key: str, date: str) -> bool:
    low, high = ends(key)
    return bool(date) and (not low or date >= low) and (not high or date <= high)


def moments_match(dates: str, times: str, study: Study) -> bool:
    low, high = zip(ends(dates), ends(times), strict=True)
    moment = study["StudyDate"] + padded(study["StudyTime"], last=False)
    return (
        bool(study["StudyDate"])
        and (not low[0] or moment >= low[0] + padded(low[1], last=False))
        and (not high[0] or moment <= high[0] + padded(high[1], last=True))
    )


def combined(query: dict[str, str]) -> bool:
    dates, times = query.get("StudyDate", ""), query.get("StudyTime", "")
    if "-" not in dates or "-" not in times:
        return False
    return [bool(end) for end in ends(dates)] == [bool(end) for end in ends(times)]


def text_matches(key: str, text: str) -> bool:
    return bool(text) and (like(key, text) if "*" in key or "?" in key else key == text)


def naive(study: Study, query: dict[str, str], fuzzy: bool) -> bool:
    if combined(query) and not moments_match(query["StudyDate"], query["StudyTime"], study):
        return False
    for name, key in query.items():
        key = key.strip(" ")
        value = study["Modality" if name == "ModalitiesInStudy" else name]
        values = value if isinstance(value, list) else [value]
        if not key.strip("*"):
            continue
        if name in ("StudyDate", "StudyTime") and combined(query):
            continue
        if name in ("PatientName", "OperatorsName"):
            sounds = fuzzy and name == "PatientName"
            matched = any(name_matches(key, one, sounds) for one in values)
        elif name in ("StudyDate", "SeriesDate"):
            matched = date_matches(key, value)
        elif name == "StudyTime":
            matched = time_matches(key, value)
        elif name == "ModalitiesInStudy":
            matched = value in re.split(r"[,\\]", key)
        else:
            matched = any(text_matches(key, one.strip(" ")) for one in values)
        if not matched:
            return False
    return True


# --- The real one ---


@pytest.fixture(scope="module")
def catalog(embedded_server: str) -> Iterator[PostgresCatalog]:
    from tests.postgres import migrated_database

    catalog = PostgresCatalog(
        migrated_database(embedded_server),
        pool_size=4,
        connect_seconds=5,
        statement_seconds=30,
        extra_tags=EXTRA,
        max_results=1000,
    )
    yield catalog
    catalog.close()


def fill(catalog: PostgresCatalog, studies: list[Study]) -> None:
    with catalog.pool.transaction() as connection:
        connection.execute("TRUNCATE patients, studies, series, instances")
    for number, study in enumerate(studies):

        def given(name: str, vr: str) -> dict[str, Any]:
            value = study[name]  # noqa: B023
            values = [value] if isinstance(value, str) else value
            return element(vr, *(one for one in values if one))

        # A patient of their own each: the issuer is never searched for
        issuer = element("LO", f"I{number}")
        catalog.instances.admit(
            instance(
                f"2.25.{number + 1}.1.1",
                patient={
                    "00100010": given("PatientName", "PN"),
                    "00100020": given("PatientID", "LO"),
                    "00100021": issuer,
                },
                study={
                    "00080020": given("StudyDate", "DA"),
                    "00080030": given("StudyTime", "TM"),
                    "00080050": given("AccessionNumber", "SH"),
                    "00102150": given("CountryOfResidence", "LO"),
                },
                series={
                    "00080060": given("Modality", "CS"),
                    "00080021": given("SeriesDate", "DA"),
                    "00081070": given("OperatorsName", "PN"),
                },
            ),
            STORE,
        )


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(studies=studies, asked=st.lists(queries, min_size=4, max_size=8), fuzzy=st.booleans())
def test_the_catalog_finds_what_the_rules_say(
    catalog: PostgresCatalog, studies: list[Study], asked: list[dict[str, str]], fuzzy: bool
) -> None:
    fill(catalog, studies)
    search = Search(catalog.searches, max_results=100, dimse_max_results=100, extra_tags=EXTRA)
    for query in asked:
        parameters = [*query.items(), ("fuzzymatching", "true" if fuzzy else "false")]
        answer = search.qido(Level.SERIES, Scope(), parameters, READER)
        found = {int(str(result["0020000D"]["Value"][0])[5:]) for result in answer.results}
        expected = {number for number, study in enumerate(studies, 1) if naive(study, query, fuzzy)}
        assert found == expected, query


_names = st.one_of(
    st.sampled_from(
        [
            "limit",
            "offset",
            "after",
            "includefield",
            "fuzzymatching",
            "emptyvaluematching",
            "00100010",
            "all",
            "00091010",
            "KVP",
            "StudyInstanceUID",
            "SeriesNumber",
            "PixelData",
            "RequestAttributesSequence",
            "ImageType",
            "ContentDate",
            "RequestAttributesSequence.ScheduledProcedureStepID",
            "00400275.00400275.00400275",
            "InstanceCreationTime",
            "AcquisitionDateTime",
            "FrameOfReferenceUID",
        ]
    ),
    st.sampled_from(sorted(_keys)),
    st.just(""),
    st.text(max_size=12),
)
_values = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["-1", "0", "1", "true", "2026-", "20260102-", "-", "\\", "*", '""', "1.2.3", "\0", "NaN"]
    ),
    st.from_regex(r"[0-9.\-:+eE*?\\,\"']{0,16}", fullmatch=True),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parameters=st.lists(st.tuples(_names, _values), max_size=5),
    level=st.sampled_from([Level.STUDY, Level.SERIES, Level.IMAGE]),
)
def test_any_parameters_end_with_results_or_a_refusal(
    catalog: PostgresCatalog, parameters: list[tuple[str, str]], level: Level
) -> None:
    search = Search(catalog.searches, max_results=10, dimse_max_results=10, extra_tags=EXTRA)
    try:
        search.qido(level, Scope(), parameters, READER)
    except Refusal as refusal:
        assert refusal.reason is Reason.INVALID_QUERY


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.dictionaries(_names.map(lambda name: f"{tag_of(name) or 0x00100020:08X}"), _values, max_size=4),
    vr=st.sampled_from(["LO", "PN", "DA", "TM", "DT", "IS", "DS", "UI", "AT", "UN", "CS"]),
    flags=st.tuples(*[st.booleans()] * 5),
)
def test_any_identifier_ends_with_answers_or_a_refusal(
    catalog: PostgresCatalog, keys: dict[str, str], vr: str, flags: tuple[bool, ...]
) -> None:
    search = Search(catalog.searches, max_results=10, dimse_max_results=10, extra_tags=EXTRA)
    identifier = {tag: element(vr, *value.split("\\")) for tag, value in keys.items()}
    relational, fuzzy, combine, empty, multiple = flags
    try:
        finding = search.find(
            Level.IMAGE,
            identifier,
            root="STUDY",
            actor=READER,
            relational=relational,
            fuzzy=fuzzy,
            combined_datetime=combine,
            empty_value=empty,
            multiple_value=multiple,
        )
        list(finding)
    except Refusal as refusal:
        assert refusal.reason in (Reason.INVALID_QUERY, Reason.MISMATCH)
