"""Presentation contexts: what is accepted, in which transfer syntax, and what extended negotiation says.

Storage: every storage SOP class of the dictionary (retired ones too; not the classes without a patient)
in every transfer syntax that has an encoding of datasets. Of the syntaxes proposed for a context the
requestor's first that we know is taken: it knows best in which its objects are. Storage contexts are
accepted in either role, so that a C-GET finds its way back.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom._uid_dict import UID_dictionary
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import _NON_PATIENT_OBJECT_CLASSES, _STORAGE_CLASSES

from node.domain import syntaxes

VERIFICATION = "1.2.840.10008.1.1"
_QR = "1.2.840.10008.5.1.4.1.2."
_STORAGE_PREFIX = "1.2.840.10008.5.1.4.1.1."
_NO_DATASET_ENCODING = frozenset({"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2"})  # MIME, XML

# What identifiers may be encoded in
IDENTIFIER_SYNTAXES = (
    syntaxes.EXPLICIT_LITTLE,
    syntaxes.IMPLICIT_LITTLE,
    syntaxes.DEFLATED,
    syntaxes.EXPLICIT_BIG,
)
STORAGE_SYNTAXES = tuple(uid for uid in syntaxes.SYNTAXES if uid not in _NO_DATASET_ENCODING)


@dataclass(frozen=True, slots=True)
class Model:
    """A query/retrieve information model's SOP class (PS3.4 section C.6)."""

    operation: str  # "find", "move" or "get"
    root: str  # "PATIENT" or "STUDY"
    study_is_lowest: bool = False  # Patient/Study Only, retired


MODELS = {
    f"{_QR}{root}.{number}": Model(operation, name, only)
    for root, name, only in (("1", "PATIENT", False), ("2", "STUDY", False), ("3", "PATIENT", True))
    for number, operation in (("1", "find"), ("2", "move"), ("3", "get"))
}


@dataclass(frozen=True, slots=True)
class Agreed:
    """What extended negotiation has agreed on for one SOP class (PS3.4 section C.5)."""

    relational: bool = False
    combined_datetime: bool = False
    fuzzy: bool = False
    empty_value: bool = False
    multiple_value: bool = False


# Bytes of the service class application information of C-FIND classes (PS3.4 table C.5-1): ours say yes
# to relational queries, combined date-time matching, fuzzy names, empty and multiple values, and no to
# the adjustment of time zones and the conversion of enhanced multi-frame images.
_FIND_ANSWERS = bytes((1, 1, 1, 0, 0, 1, 1))
_RETRIEVE_ANSWERS = bytes((1, 0))  # relational retrieval; no conversion (PS3.4 tables C.5-3, C.5-5)


def storage_classes(extra: Iterable[str] = ()) -> frozenset[str]:
    """UIDs of the storage SOP classes that are taken."""
    without_patient = set(_NON_PATIENT_OBJECT_CLASSES.values())
    dictionary = {
        uid
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class" and "Storage" in name and uid.startswith(_STORAGE_PREFIX)
    }
    return frozenset((dictionary | set(_STORAGE_CLASSES.values())) - without_patient) | frozenset(extra)


def supported(extra_sop_classes: Iterable[str] = ()) -> list[PresentationContext]:
    """All that this archive accepts, as pynetdicom's negotiation wants it."""
    contexts = [build_context(VERIFICATION, list(IDENTIFIER_SYNTAXES))]
    contexts += [build_context(uid, list(IDENTIFIER_SYNTAXES)) for uid in MODELS]
    for uid in sorted(storage_classes(extra_sop_classes)):
        context = build_context(uid, list(STORAGE_SYNTAXES))
        context.scu_role = context.scp_role = True
        contexts.append(context)
    return contexts


def narrow(proposed: Iterable[PresentationContext], known: dict[str, PresentationContext]) -> None:
    """Leave each proposed context only the first of its transfer syntaxes that we know.

    pynetdicom would choose by the acceptor's order, not the requestor's.
    """
    for context in proposed:
        ours = known.get(str(context.abstract_syntax))
        if ours is None:
            continue
        chosen = next((uid for uid in context.transfer_syntax if uid in ours.transfer_syntax), None)
        if chosen is not None:
            context.transfer_syntax = [chosen]


def answer(asked: dict[str, bytes]) -> dict[str, bytes]:
    """Service class application information by SOP class: what of that asked is agreed to."""
    agreed = {}
    for uid, wanted in asked.items():
        model = MODELS.get(uid)
        if model is not None:
            answers = _FIND_ANSWERS if model.operation == "find" else _RETRIEVE_ANSWERS
            agreed[uid] = bytes(int(want == 1) & can for want, can in zip(wanted, answers, strict=False))
    return {uid: value for uid, value in agreed.items() if value}


def agreed(information: bytes) -> Agreed:
    """The meaning of an answer for a C-FIND class, or the first byte's of a C-MOVE or C-GET class."""
    flags = [bool(value) for value in information.ljust(len(_FIND_ANSWERS), b"\0")]
    return Agreed(flags[0], flags[1], flags[2], flags[5], flags[6])
