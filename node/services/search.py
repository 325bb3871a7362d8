"""Searching: C-FIND (PS3.4 annex C) and QIDO-RS (PS3.18 sections 8.3.4 and 10.6) on one catalog.

Paging keeps no state on any node. A page that was cut tells where it ended (`next_parameters`, which the
web edge hands out as `Link: …; rel="next"`), and the next page goes on behind that place in an order in
which nothing ever moves: newest study date first, below that the order of arrival. Whoever follows the
links sees everything that was there all along exactly once, whatever arrives or is deleted meanwhile.
Plain `offset` paging works too; there a new study with a newer date pushes the rest down, so that a
result may show twice, but none is left out unless something is deleted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from node.domain import dictionary, returns
from node.domain.errors import Reason, Refusal
from node.domain.keys import ORDER, UNIQUE, owners, reaches
from node.domain.matching import (
    MAX_KEYS,
    Rules,
    combine_dates_and_times,
    match_of,
    matches_of,
    selected_items,
    within,
)
from node.domain.model import Actor, Attributes, AuditEvent, Level, Scope
from node.domain.qido import Request, parse
from node.domain.query import COMPUTED, MATCHABLE_COMPUTED, Match, Query
from node.ports import Searches

_LEVEL_TAG = "00080052"
_AVAILABILITY = "00080056"
# In every identifier, but not keys: character set, level, retrieve AE title, time zone
_NOT_KEYS = frozenset({"00080005", _LEVEL_TAG, "00080054", "00080201"})
_PATIENT_NAME = "00100010"
REMAINING_AT_MOST = 100  # counted exactly up to here: counting all is what gets slow

_FUZZY_PARTLY = (
    "The fuzzymatching parameter is supported for PatientName only. "
    "Other person names have been matched literally."
)


class Finding(Iterator[Attributes]):
    """The answers to a C-FIND; `close` ends the search early.

    `all_keys_supported` is False if an optional key of the request was not matched or is not known
    here: then pending responses say FF01 instead of FF00 (PS3.4 section C.4.1.1.4).
    """

    def __init__(self, answers: Iterator[Attributes], all_keys_supported: bool, stop: Callable[[], None]):
        self.all_keys_supported = all_keys_supported
        self._answers = answers
        self._stop = stop

    def __next__(self) -> Attributes:
        return next(self._answers)

    def close(self) -> None:
        """End the search; there are no answers afterwards."""
        self._stop()


@dataclass(frozen=True, slots=True)
class QidoResult:
    """A page of results.

    `warnings`: texts for `Warning: 299 <service>: …` header fields. `next_parameters`: the query of the
    next page (same resource), None on the last one.
    """

    results: list[Attributes]
    warnings: list[str]
    next_parameters: list[tuple[str, str]] | None


class Search:
    """Use case: search."""

    def __init__(
        self,
        searches: Searches,
        *,
        max_results: int,
        dimse_max_results: int,
        extra_tags: Mapping[Level, Sequence[str]],
    ) -> None:
        self._searches = searches
        self._max_results = max_results
        self._dimse_max_results = dimse_max_results
        self._level_of = owners(extra_tags)

    def find(
        self,
        level: Level,
        identifier: Attributes,
        *,
        root: Literal["PATIENT", "STUDY"],
        actor: Actor,
        relational: bool = False,
        fuzzy: bool = False,
        combined_datetime: bool = False,
        empty_value: bool = False,
        multiple_value: bool = False,
    ) -> Finding:
        """Answer a C-FIND identifier (DICOM JSON model) in the Patient Root or Study Root model.

        `relational` to `multiple_value`: what extended negotiation agreed on (PS3.4 section C.5.1.1).

        Answers hold the requested attributes that the archive knows, empty where there is no value, the
        level and the availability; the edge adds Retrieve AE Title and the character set. Refusal:
        MISMATCH if the identifier does not fit the model (PS3.4 section C.4.1.3.1), INVALID_QUERY if a
        key's value cannot be matched. Both are raised here, not by the iterator.
        """
        keys = {tag: key for tag, key in identifier.items() if tag not in _NOT_KEYS and tag[4:] != "0000"}
        if len(keys) > MAX_KEYS:
            raise Refusal(Reason.INVALID_QUERY, f"more than {MAX_KEYS} keys")
        self._check_hierarchy(level, keys, root, relational)
        rules = Rules(combined_datetime, empty_value, multiple_value)
        asked = matches_of(keys, rules)
        matches = [match for match in asked if self._can_match(match.path[0], level)]
        known = {tag: key for tag, key in keys.items() if self._is_known(tag, level)}
        query = Query(
            level,
            matches=self._final(matches, rules),
            computed=frozenset(tag for tag in known if tag in COMPUTED),
            fuzzy=fuzzy,
            limit=self._dimse_max_results,
        )
        hits = self._searches.search(query, _event(query, actor, root=root))
        answers = (_answer(level, known, hit.attributes, matches) for hit in hits)
        supported = len(known) == len(keys) and len(matches) == len(asked)
        return Finding(answers, supported, hits.close)

    def qido(
        self, level: Level, scope: Scope, parameters: Sequence[tuple[str, str]], actor: Actor
    ) -> QidoResult:
        """Answer a QIDO-RS search for the resources at `level` below `scope`.

        `parameters`: the decoded query component, in order, names possibly repeated. Refusal
        INVALID_QUERY for what PS3.18 section 8.3.4 does not allow.
        """
        request = parse(parameters)
        matches, warnings = self._qido_matches(level, request)
        wanted = min(self._max_results if request.limit is None else request.limit, self._max_results)
        tags = self._returned(level, scope, request)
        query = Query(
            level,
            scope,
            matches=self._final(matches, request.rules),
            computed=frozenset(tag for tag in tags if tag in COMPUTED),
            fuzzy=request.fuzzy,
            limit=wanted,
            offset=request.offset,
            after=request.after,
        )
        page = self._searches.page(query, _event(query, actor), REMAINING_AT_MOST)
        following = None
        if page.remaining:
            following = [pair for pair in parameters if pair[0] not in ("offset", "after")]
            following.append(("after", page.hits[-1].cursor))
            some = str(page.remaining) if page.exact else f"at least {page.remaining}"
            warnings.append(f"There are {some} additional results that can be requested")
        required = set(returns.standard(level, scope))
        results = [_result(tags, required, hit.attributes) for hit in page.hits]
        return QidoResult(results, warnings, following)

    def _qido_matches(self, level: Level, request: Request) -> tuple[list[Match], list[str]]:
        matches, warnings = [], []
        for path, values in request.keys.items():
            vr = dictionary.vr_of(int(path[-1], 16))
            match = match_of(path, vr, values, request.rules) if self._can_match(path[0], level) else None
            if match is not None:
                matches.append(match)
            elif not self._can_match(path[0], level) and any(values):
                name = dictionary.keyword_of(int(path[0], 16)) or path[0]
                warnings.append(f"{name} cannot be matched at this level and has been ignored.")
        if request.fuzzy and any(match.vr == "PN" and match.path != (_PATIENT_NAME,) for match in matches):
            warnings.append(_FUZZY_PARTLY)
        return matches, warnings

    def _returned(self, level: Level, scope: Scope, request: Request) -> list[str]:
        """The tags that a result may have, in order."""
        tags = {*returns.standard(level, scope), *returns.if_known(level)}
        wanted = (*request.include, *(path[0] for path in request.keys))
        if request.include_all:
            wanted = (*wanted, *self._level_of)
        tags.update(tag for tag in wanted if self._is_known(tag, level))
        return sorted(tags)

    def _is_known(self, tag: str, level: Level) -> bool:
        owner = self._level_of.get(tag)
        return owner is not None and reaches(level, owner)

    def _can_match(self, tag: str, level: Level) -> bool:
        return self._is_known(tag, level) and (tag not in COMPUTED or tag in MATCHABLE_COMPUTED)

    @staticmethod
    def _final(matches: list[Match], rules: Rules) -> tuple[Match, ...]:
        return combine_dates_and_times(matches) if rules.combined else tuple(matches)

    @staticmethod
    def _check_hierarchy(level: Level, keys: Attributes, root: str, relational: bool) -> None:
        """PS3.4 sections C.4.1.2.1 and C.4.1.2.2: what must be there above the level."""
        if root == "STUDY" and level is Level.PATIENT:
            raise Refusal(Reason.MISMATCH, "no PATIENT level in the Study Root model")
        if relational:
            return
        top = ORDER.index(Level.STUDY if root == "STUDY" else Level.PATIENT)
        for above in ORDER[top : ORDER.index(level)]:
            tag = UNIQUE[above]
            match = match_of((tag,), dictionary.vr_of(int(tag, 16)), _values(keys.get(tag, {})), Rules())
            if match is None or len(match.values) != 1 or set("*?") & set(match.values[0]):
                keyword = dictionary.keyword_of(int(tag, 16))
                raise Refusal(Reason.MISMATCH, f"{keyword} is needed with a single value")


def _values(element: dict[str, Any]) -> list[str]:
    values = element.get("Value", [])
    return [value for value in values if isinstance(value, str)]


def _event(query: Query, actor: Actor, root: str | None = None) -> AuditEvent:
    """Who searched by which keys; the keys' values are left out."""
    detail: dict[str, Any] = {
        "level": query.level.value,
        "keys": [".".join(match.path) for match in query.matches],
    }
    if root:
        detail["root"] = root
    if query.scope.series_uid:
        detail["series"] = query.scope.series_uid
    studies = (query.scope.study_uid,) if query.scope.study_uid else ()
    return AuditEvent("query", actor, study_uids=studies, detail=detail)


def _answer(level: Level, keys: Attributes, found: Attributes, matches: Sequence[Match]) -> Attributes:
    """A C-FIND answer: the keys asked for, with what was found."""
    answer: Attributes = {}
    for tag, key in keys.items():
        vr = dictionary.vr_of(int(tag, 16))
        element = found.get(tag, {"vr": vr})
        if element.get("vr") == "SQ":
            items = key.get("Value") or [{}]
            element = selected_items(element, items[0], within(matches, tag))
        answer[tag] = element
    answer[_AVAILABILITY] = found[_AVAILABILITY]
    answer[_LEVEL_TAG] = {"vr": "CS", "Value": [level.value]}
    return dict(sorted(answer.items()))


def _result(tags: Sequence[str], required: set[str], found: Attributes) -> Attributes:
    """A QIDO-RS result."""
    result: Attributes = {returns.CHARACTER_SET: {"vr": "CS", "Value": ["ISO_IR 192"]}}
    for tag in tags:
        if tag in found:
            result[tag] = found[tag]
        elif tag in required:
            result[tag] = {"vr": dictionary.vr_of(int(tag, 16))}
    return result
