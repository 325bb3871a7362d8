"""Which attributes a QIDO-RS search returns unasked (PS3.18 section 10.6.3.3)."""

from node.domain.model import Level, Scope

_PATIENT = ("00100010", "00100020", "00100030", "00100040")
_STUDY = (
    "00080020",
    "00080030",
    "00080050",
    "00080056",
    "00080061",
    "00080090",
    *_PATIENT,
    "0020000D",
    "00200010",
    "00201206",
    "00201208",
)
_SERIES = (
    "00080060",
    "0008103E",
    "0020000E",
    "00200011",
    "00201209",
    "00400244",
    "00400245",
    "00400275",
)
_INSTANCE = (
    "00080016",
    "00080018",
    "00080056",
    "00200013",
    "00280008",
    "00280010",
    "00280011",
    "00280100",
)
# Returned where they have a value, but not as empty attributes
_IF_KNOWN = ("00080201", "00081030")
_UIDS = {Level.PATIENT: (), Level.STUDY: ("0020000D",), Level.SERIES: ("0020000D", "0020000E")}

CHARACTER_SET = "00080005"


def standard(level: Level, scope: Scope) -> tuple[str, ...]:
    """Tags returned with an empty value if there is none.

    A search that does not fix the study (series) returns the study's (series') attributes as well. The
    UIDs above the level come always, since clients address results by them.
    """
    if level is Level.PATIENT:
        return _PATIENT
    study = _STUDY if level is Level.STUDY or scope.study_uid is None else ()
    if level is Level.STUDY:
        return study
    if level is Level.SERIES:
        return (*_UIDS[level], *study, *_SERIES)
    series = _SERIES if scope.series_uid is None else ()
    return (*_UIDS[Level.SERIES], *study, *series, *_INSTANCE)


def if_known(level: Level) -> tuple[str, ...]:
    """Tags returned only where they have a value."""
    return () if level is Level.PATIENT else _IF_KNOWN
