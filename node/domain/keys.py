"""Which attributes can be asked for, and at which level of the information model (PS3.4 section C.6)."""

from collections.abc import Mapping, Sequence

from node.domain import levels
from node.domain.model import Level
from node.domain.query import COMPUTED

ORDER = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)
UNIQUE = {
    Level.PATIENT: "00100020",
    Level.STUDY: "0020000D",
    Level.SERIES: "0020000E",
    Level.IMAGE: "00080018",
}
_KEPT = {
    Level.PATIENT: levels.PATIENT,
    Level.STUDY: levels.STUDY,
    Level.SERIES: levels.SERIES,
    Level.IMAGE: levels.INSTANCE,
}


def owners(extra_tags: Mapping[Level, Sequence[str]]) -> dict[str, Level]:
    """The level of every attribute that is kept or computed; the upper one if it is kept at two."""
    level_of: dict[str, Level] = {}
    for level in reversed(ORDER):
        level_of.update(dict.fromkeys((*extra_tags.get(level, ()), *_KEPT[level], UNIQUE[level]), level))
    return {**level_of, **COMPUTED}


def reaches(level: Level, owner: Level) -> bool:
    """Whether a search at `level` sees the attributes of `owner`: its own and those above it."""
    return ORDER.index(owner) <= ORDER.index(level)
