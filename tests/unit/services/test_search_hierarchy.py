"""Which C-FIND identifiers fit the information models (PS3.4 section C.4.1.2), and what is asked of the
catalog. Results are tested on a real catalog (tests/contract/test_catalog_search.py)."""

from collections.abc import Generator
from typing import Any, Literal

import pytest

from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, AuditEvent, Level, Scope
from node.domain.query import Hit, Kind, Page, Query
from node.services.search import Search

READER = Actor("READER", "192.0.2.9", "dimse")
Root = Literal["PATIENT", "STUDY"]


class Recorder:
    """Searches that finds nothing and keeps what it was asked."""

    def __init__(self) -> None:
        self.queries: list[Query] = []

    def search(self, query: Query, event: AuditEvent) -> Generator[Hit, None, None]:
        self.queries.append(query)
        yield from ()

    def page(self, query: Query, event: AuditEvent, count_at_most: int) -> Page:
        self.queries.append(query)
        return Page([], 0, exact=True)


@pytest.fixture
def asked() -> Recorder:
    return Recorder()


@pytest.fixture
def search(asked: Recorder) -> Search:
    return Search(
        asked,
        max_results=100,
        dimse_max_results=2000,
        extra_tags={Level.STUDY: ("00102150",), Level.IMAGE: ()},
    )


def ui(*values: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": list(values)} if values else {"vr": "UI"}


PATIENT = {"00100020": {"vr": "LO", "Value": ["P1"]}}
STUDY, SERIES, IMAGE = {"0020000D": ui("1.2")}, {"0020000E": ui("1.3")}, {"00080018": ui("1.4")}


@pytest.mark.parametrize(
    ("root", "level", "identifier"),
    [
        ("PATIENT", Level.PATIENT, {"00100020": {"vr": "LO"}}),
        ("PATIENT", Level.STUDY, {**PATIENT, "0020000D": ui()}),
        ("PATIENT", Level.SERIES, {**PATIENT, **STUDY, "0020000E": ui()}),
        ("PATIENT", Level.IMAGE, {**PATIENT, **STUDY, **SERIES, "00080018": ui("1.4", "1.5")}),
        ("STUDY", Level.STUDY, {}),
        ("STUDY", Level.STUDY, {"0020000D": ui("1.2", "1.3")}),
        ("STUDY", Level.SERIES, STUDY),
        ("STUDY", Level.IMAGE, {**STUDY, **SERIES}),
    ],
)
def test_identifiers_with_the_unique_keys_above_fit(
    search: Search, root: Root, level: Level, identifier: dict[str, Any]
) -> None:
    assert list(search.find(level, identifier, root=root, actor=READER)) == []


@pytest.mark.parametrize(
    ("root", "level", "identifier"),
    [
        ("STUDY", Level.PATIENT, PATIENT),
        ("PATIENT", Level.STUDY, STUDY),
        ("PATIENT", Level.STUDY, {"00100020": {"vr": "LO", "Value": ["P*"]}}),
        ("PATIENT", Level.STUDY, {"00100020": {"vr": "LO"}}),
        ("STUDY", Level.SERIES, SERIES),
        ("STUDY", Level.SERIES, {"0020000D": ui("1.2", "1.3")}),
        ("STUDY", Level.IMAGE, {**STUDY, **IMAGE}),
        ("STUDY", Level.IMAGE, SERIES),
    ],
)
def test_identifiers_without_them_are_refused_unless_relational(
    search: Search, root: Root, level: Level, identifier: dict[str, Any]
) -> None:
    with pytest.raises(Refusal) as refused:
        search.find(level, identifier, root=root, actor=READER)
    assert refused.value.reason is Reason.MISMATCH
    if level is not Level.PATIENT:
        assert list(search.find(level, identifier, root=root, actor=READER, relational=True)) == []


def test_the_catalog_is_asked_for_what_counts_only(search: Search, asked: Recorder) -> None:
    identifier = {
        **STUDY,
        "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]},
        "00080054": {"vr": "AE", "Value": ["X"]},
        "00100000": {"vr": "UL", "Value": [1]},
        "00102150": {"vr": "LO", "Value": ["AQ"]},
        "00201206": {"vr": "IS"},
        "00080060": {"vr": "CS", "Value": ["CT"]},  # a level below
    }
    finding = search.find(Level.STUDY, identifier, root="STUDY", actor=READER, fuzzy=True)
    assert not finding.all_keys_supported and list(finding) == []
    (query,) = asked.queries
    assert [match.path for match in query.matches] == [("0020000D",), ("00102150",)]
    assert (query.computed, query.fuzzy, query.limit) == (frozenset({"00201206"}), True, 2000)


def test_a_page_never_asks_beyond_the_cap(search: Search, asked: Recorder) -> None:
    for limit, expected in (("10", 10), ("100000", 100), ("0", 0)):
        search.qido(Level.STUDY, Scope(), [("limit", limit)], READER)
        assert asked.queries[-1].limit == expected
    search.qido(Level.SERIES, Scope("1.2"), [("Modality", "C*"), ("StudyDate", "")], READER)
    query = asked.queries[-1]
    assert query.scope == Scope("1.2") and query.limit == 100
    assert [(match.path, match.kind) for match in query.matches] == [(("00080060",), Kind.WILDCARD)]


def test_a_wrong_value_is_refused_before_anything_is_read(search: Search, asked: Recorder) -> None:
    with pytest.raises(Refusal):
        search.qido(Level.STUDY, Scope(), [("StudyDate", "yesterday")], READER)
    with pytest.raises(Refusal):
        search.find(Level.STUDY, {"00080020": {"vr": "DA", "Value": ["x"]}}, root="STUDY", actor=READER)
    with pytest.raises(Refusal):
        search.find(
            Level.STUDY, {f"0009{n:04X}": {"vr": "LO"} for n in range(1, 102)}, root="STUDY", actor=READER
        )
    assert asked.queries == []
