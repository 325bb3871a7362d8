"""Between attributes and columns: what is matched and sorted by gets a plain column of its own.

Values are kept as DICOM writes them, except names and descriptions, which are normalised for matching
(`node.domain.names`). A missing value is an empty string, so that no query has to think of NULL. A value
far beyond its VR's length is stored, but what an index holds of it is its beginning and a digest: an index
of PostgreSQL takes no entry over a third of a page.
"""

import hashlib
import json
import re
from typing import Any

from node.domain.model import Attributes, InstanceRecord, StoredInstance, StoredObject
from node.domain.names import normalise, phonetic, search_text

_NUL = "\x00"  # PostgreSQL's text cannot hold it; DICOM's may not, but does
_COMPONENT_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_LARGEST_NUMBER = 2**63 - 1
_MOST_FRAMES = 2**31 - 1
_MOST_CHARACTERS = 256  # of a column; a PN of three full groups has 194
_BEGINNING = _MOST_CHARACTERS - 64
# The columns that `stored_instance` reads, in its order; table names as used in every query here.
INSTANCE_COLUMNS = """
    instances.sop_class_uid, instances.sop_instance_uid, instances.transfer_syntax_uid,
    studies.study_uid, series.series_uid, instances.object_name, instances.prefix_length,
    instances.dataset_length, instances.digest, instances.received_at, instances.number_of_frames
"""


def stored_instance(row: tuple[Any, ...]) -> StoredInstance:
    """A row of INSTANCE_COLUMNS as a value."""
    return StoredInstance(
        sop_class_uid=row[0],
        sop_instance_uid=row[1],
        transfer_syntax_uid=row[2],
        study_uid=row[3],
        series_uid=row[4],
        stored=StoredObject(name=row[5], prefix_length=row[6], dataset_length=row[7], digest=bytes(row[8])),
        received_at=row[9],
        number_of_frames=row[10],
    )


def patient_columns(record: InstanceRecord) -> dict[str, Any]:
    """The columns of `patients` but for `attributes`."""
    patient = record.patient
    name = first(patient, "00100010")
    return {
        "patient_key": patient_key(first(patient, "00100020"), first(patient, "00100021"), record.study_uid),
        "patient_id": first(patient, "00100020"),
        "issuer": first(patient, "00100021"),
        "name": bounded(search_text(name)),
        "name_sounds": [bounded(sound) for sound in phonetic(name)],
        "birth_date": first(patient, "00100030"),
        "sex": first(patient, "00100040"),
    }


def study_columns(record: InstanceRecord) -> dict[str, Any]:
    """The columns of `studies` but for `attributes` and the patient."""
    study = record.study
    return {
        "study_uid": record.study_uid,
        "study_date": first(study, "00080020"),
        "study_time": time_text(first(study, "00080030")),
        "accession_number": first(study, "00080050"),
        "study_id": first(study, "00200010"),
        "description": bounded(normalise(first(study, "00081030"))),
        "referring_physician": bounded(search_text(first(study, "00080090"))),
    }


def series_columns(record: InstanceRecord) -> dict[str, Any]:
    """The columns of `series` but for `attributes` and the study."""
    return {
        "series_uid": record.series_uid,
        "modality": first(record.series, "00080060"),
        "series_number": number(record.series, "00200011"),
    }


def instance_columns(record: InstanceRecord) -> dict[str, Any]:
    """What an instance's row and the search for the rows above it take."""
    stored = record.stored
    frames = number(record.instance, "00280008") or 1
    return {
        "patient_key": patient_key(
            first(record.patient, "00100020"), first(record.patient, "00100021"), record.study_uid
        ),
        "study_uid": record.study_uid,
        "series_uid": record.series_uid,
        "sop_instance_uid": record.sop_instance_uid,
        "sop_class_uid": record.sop_class_uid,
        "transfer_syntax_uid": record.transfer_syntax_uid,
        "instance_number": number(record.instance, "00200013"),
        "number_of_frames": min(max(frames, 1), _MOST_FRAMES),
        "instance": json_text(record.instance),
        "header": record.header,
        "object_name": stored.name,
        "prefix_length": stored.prefix_length,
        "dataset_length": stored.dataset_length,
        "digest": stored.digest,
        "source": record.source.name.replace(_NUL, ""),
    }


def patient_key(patient_id: str, issuer: str, study_uid: str) -> str:
    """What makes a patient the same: ID and issuer; without an ID, each study has a patient of its own.

    The separator cannot occur in an LO (PS3.5 section 6.2), so the parts cannot run into each other.
    """
    return f"{patient_id}\\{issuer}" if patient_id else f"\\\\{study_uid}"


def first(attributes: Attributes, tag: str) -> str:
    """The first value as text, "" if there is none; a person name with its groups joined by "="."""
    values = attributes.get(tag, {}).get("Value") or [""]
    value = values[0]
    if isinstance(value, dict):
        groups = [str(value.get(group, "")) for group in _COMPONENT_GROUPS]
        value = "=".join(groups).rstrip("=")
    return "" if value is None else bounded(str(value).replace(_NUL, "").strip(" "))


def bounded(text: str) -> str:
    """The text, or of one that no index takes its beginning and SHA-256: still the same for the same text."""
    if len(text) <= _MOST_CHARACTERS:
        return text
    return text[:_BEGINNING] + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def number(attributes: Attributes, tag: str) -> int | None:
    """The first value as an integer, None if it is none that a bigint holds."""
    text = first(attributes, tag)
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
        return None
    value = int(text)
    return value if abs(value) <= _LARGEST_NUMBER else None


def time_text(value: str) -> str:
    """A TM value without colons (ACR-NEMA) and without a fraction's trailing zeros."""
    text = value.replace(":", "")
    return text.rstrip("0").rstrip(".") if "." in text else text


def json_text(value: Any) -> str:
    """JSON for a jsonb column, which refuses U+0000: it is taken out."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(_without_nul(value)) if "\\u0000" in text else text


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(_NUL, "")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nul(item) for item in value]
    return value
