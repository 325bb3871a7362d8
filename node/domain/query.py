"""A search as a plain value: what C-FIND identifiers and QIDO-RS parameters are turned into.

Matching is PS3.4 section C.2.2.2: single value, list of UID, universal (no match at all), wildcard,
range, sequence; QIDO-RS maps onto the same (PS3.18 section 8.3.4).
"""

from dataclasses import dataclass
from enum import Enum

from node.domain.model import Level, Scope


class Kind(Enum):
    """How a key is compared (PS3.4 section C.2.2.2)."""

    SINGLE = "single"
    LIST = "list"  # any of the values
    WILDCARD = "wildcard"  # * and ?; nothing else is special
    RANGE = "range"  # inclusive; an open end is an empty string


@dataclass(frozen=True, slots=True)
class Match:
    """One key. `path` is the tag, or the sequence's tag and the tag inside it: ("00400275", "00400009").

    `values`: one for SINGLE and WILDCARD, any number for LIST, exactly (low, high) for RANGE. Values
    are text as DICOM writes them (dates YYYYMMDD, times HHMMSS.FFFFFF, names with ^ and =).
    """

    path: tuple[str, ...]
    kind: Kind
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """A search at `level` within `scope`.

    `include`: tags to return beyond the level's standard ones (`("ALL",)` for everything kept).
    `fuzzy`: person names also match by sound (PS3.18 section 8.3.4.2). `case_sensitive` is never
    asked for person names (PS3.4 section C.2.2.2.1). Results are ordered by newest study first, then
    by UID, and `after` continues a page by the last result's cursor. `offset` and `limit` count
    results; the adapter caps `limit` at the configured maximum.
    """

    level: Level
    scope: Scope = Scope()
    matches: tuple[Match, ...] = ()
    include: tuple[str, ...] = ()
    fuzzy: bool = False
    limit: int = 0
    offset: int = 0
    # Rows received after this moment (PostgreSQL snapshot marker as the catalog hands it out) stay out
    # of later pages, so that paging is stable while images arrive.
    as_of: str | None = None
