"""A search as a plain value: what C-FIND identifiers and QIDO-RS parameters are turned into.

Matching is PS3.4 section C.2.2.2: single value, list of UID, universal (no match at all), wildcard,
range, sequence, empty value and multiple values; QIDO-RS maps onto the same (PS3.18 section 8.3.4).
`node.domain.matching` makes the matches, a `Searches` adapter evaluates them.
"""

from dataclasses import dataclass, field
from enum import Enum

from node.domain.model import Attributes, Level, Scope


class Kind(Enum):
    """How a key is compared (PS3.4 section C.2.2.2)."""

    SINGLE = "single"
    LIST = "list"  # any of the values
    ALL = "all"  # each of the values (multiple value matching, C.2.2.2.8)
    WILDCARD = "wildcard"  # * and ?; nothing else is special
    RANGE = "range"  # inclusive; an open end is an empty string
    UNIT = "unit"  # one time or date-time, from the first to the last moment that it covers
    EMPTY = "empty"  # absent or without a value (C.2.2.2.7)


@dataclass(frozen=True, slots=True)
class Match:
    """One key. `path` is the tag, or the sequence's tag and the tag inside it: ("00400275", "00400009").

    `values`: one for SINGLE and WILDCARD, any number for LIST and ALL, exactly (low, high) for RANGE and
    UNIT, none for EMPTY. Values are text as DICOM writes them, made comparable: dates YYYYMMDD, times
    HHMMSS[.F…], date-times YYYYMMDDHHMMSS[.F…], names with ^ and =, numbers as decimals. `vr` is the VR
    of the last tag of the path.

    `time`: a time attribute's tag that is compared together with the date of `path` as one moment
    (combined date-time matching, C.2.2.2.5); the range is then of moments.
    """

    path: tuple[str, ...]
    kind: Kind
    values: tuple[str, ...]
    vr: str
    time: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A search at `level` within `scope`: at most `limit` results after the first `offset`.

    `computed`: tags of computed attributes to work out for the results (`COMPUTED`); kept attributes of
    the level and of those above it come always. `fuzzy`: patient names also match by sound
    (PS3.4 section C.2.2.2.1.1). Names never match by case or accents, other text matches exactly.

    Order: patients by when they were first seen; otherwise newest study date first (the last registered
    first within a day) and below that the order of arrival. `after` is a `Hit.cursor`: only what follows
    it in this order. So pages that go on from the last hit neither repeat nor skip anything that was
    there all along, whatever arrives or goes meanwhile.
    """

    level: Level
    scope: Scope = field(default_factory=Scope)
    matches: tuple[Match, ...] = ()
    computed: frozenset[str] = frozenset()
    fuzzy: bool = False
    limit: int = 100
    offset: int = 0
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One result: its attributes in DICOM JSON, and where it stands in the order (opaque)."""

    attributes: Attributes
    cursor: str


@dataclass(frozen=True, slots=True)
class Page:
    """Results, and how many follow them: `remaining`, or at least so many if it is not `exact`."""

    hits: list[Hit]
    remaining: int
    exact: bool


NUMBER_OF_PATIENT_RELATED_STUDIES = "00201200"
NUMBER_OF_PATIENT_RELATED_SERIES = "00201202"
NUMBER_OF_PATIENT_RELATED_INSTANCES = "00201204"
NUMBER_OF_STUDY_RELATED_SERIES = "00201206"
NUMBER_OF_STUDY_RELATED_INSTANCES = "00201208"
NUMBER_OF_SERIES_RELATED_INSTANCES = "00201209"
MODALITIES_IN_STUDY = "00080061"
SOP_CLASSES_IN_STUDY = "00080062"
INSTANCE_AVAILABILITY = "00080056"

# Computed attributes (PS3.4 section C.3.4) by the level from which on they exist. The two lists can be
# matched; counts and the availability are returned only.
COMPUTED: dict[str, Level] = {
    NUMBER_OF_PATIENT_RELATED_STUDIES: Level.PATIENT,
    NUMBER_OF_PATIENT_RELATED_SERIES: Level.PATIENT,
    NUMBER_OF_PATIENT_RELATED_INSTANCES: Level.PATIENT,
    NUMBER_OF_STUDY_RELATED_SERIES: Level.STUDY,
    NUMBER_OF_STUDY_RELATED_INSTANCES: Level.STUDY,
    MODALITIES_IN_STUDY: Level.STUDY,
    SOP_CLASSES_IN_STUDY: Level.STUDY,
    NUMBER_OF_SERIES_RELATED_INSTANCES: Level.SERIES,
    INSTANCE_AVAILABILITY: Level.PATIENT,
}
MATCHABLE_COMPUTED = frozenset({MODALITIES_IN_STUDY, SOP_CLASSES_IN_STUDY})
