"""Which attributes belong to which level of the information model, and taking them out of a header.

The tags are the required, unique and common optional keys of PS3.4 tables C.6-1 to C.6-5, and the
attributes of PS3.18 tables 6.7.1-2 to 6.7.1-2b, that an instance carries itself.
"""

from collections.abc import Collection, Mapping

from node.domain.errors import Reason, Refusal
from node.domain.header import Header
from node.domain.model import Attributes, Level
from node.domain.uid import check_uid

PATIENT = (
    "00100010", "00100020", "00100021", "00100022", "00100024", "00100026", "00100030", "00100032",
    "00100040", "00101001", "00101002", "00101100", "00102160", "00102201", "00102202", "00102292",
    "00102297", "00104000", "00120062",
)  # fmt: skip
STUDY = (
    "00080020", "00080030", "00080050", "00080051", "00080080", "00080082", "00080090", "00080096",
    "0008009C", "00081030", "00081032", "00081048", "00081049", "00081060", "00081062", "00081080",
    "00081084", "00081110", "00081120", "00080201", "00101010", "00101020", "00101021", "00101030",
    "00102180", "001021B0", "00102203", "0020000D", "00200010", "00321032", "00321033", "00321060",
    "00321064", "00380010", "00380060",
)  # fmt: skip
SERIES = (
    "00080021", "00080031", "00080060", "00080068", "00080070", "00080201", "00081010", "0008103E",
    "0008103F", "00081040", "00081050", "00081070", "00081072", "00081090", "00081111", "00081250",
    "00180015", "00181000", "00181020", "00181030", "00185100", "0020000E", "00200011", "00200052",
    "00200060", "00280108", "00280109", "00400244", "00400245", "00400250", "00400251", "00400253",
    "00400254", "00400260", "00400275", "00400280", "00401012",
)  # fmt: skip
INSTANCE = (
    "00080008", "00080012", "00080013", "00080016", "00080018", "00080022", "00080023", "0008002A",
    "00080032", "00080033", "00080201", "00200012", "00200013", "00200062", "00280004", "00280008",
    "00280010", "00280011", "00280100", "0040A032", "0040A043", "0040A372", "0040A491", "0040A493",
    "0040A496", "0040A504", "00400512", "00420010", "00420012", "00420014", "00700080", "00700081",
    "00700082", "00700083", "00700084", "00700086",
)  # fmt: skip

_TAGS = {Level.PATIENT: PATIENT, Level.STUDY: STUDY, Level.SERIES: SERIES, Level.IMAGE: INSTANCE}
_PAIRS = {level: [(int(name, 16), name) for name in names] for level, names in _TAGS.items()}

_UIDS = (
    (0x00080016, "SOP Class UID"),
    (0x00080018, "SOP Instance UID"),
    (0x0020000D, "Study Instance UID"),
    (0x0020000E, "Series Instance UID"),
)


def split_level(header: Header, level: Level, extra: Collection[str] = ()) -> Attributes:
    """The level's attributes, and `extra` tags (eight hexadecimal digits), that the header has."""
    pairs = _PAIRS[level]
    if extra:
        pairs = [*pairs, *((int(name, 16), name) for name in extra)]
    return header.select(pairs)


def split(
    header: Header, extra: Mapping[Level, Collection[str]]
) -> tuple[Attributes, Attributes, Attributes, Attributes]:
    """`split_level` for patient, study, series and instance."""
    return (
        split_level(header, Level.PATIENT, extra.get(Level.PATIENT, ())),
        split_level(header, Level.STUDY, extra.get(Level.STUDY, ())),
        split_level(header, Level.SERIES, extra.get(Level.SERIES, ())),
        split_level(header, Level.IMAGE, extra.get(Level.IMAGE, ())),
    )


def identify(header: Header) -> tuple[str, str, str, str]:
    """(SOP class, SOP instance, study, series) UIDs.

    Refusal(MISMATCH) if one is missing or not single, Refusal(INVALID_UID) if it is malformed.
    """
    found = []
    for tag, name in _UIDS:
        values = header.values(tag)
        if len(values) != 1 or not values[0]:
            raise Refusal(Reason.MISMATCH, f"no {name}" if not any(values) else f"more than one {name}")
        found.append(check_uid(values[0]))
    sop_class, sop_instance, study, series = found
    return sop_class, sop_instance, study, series
