"""Synthetic studies for the search tests."""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from node.domain.model import Actor, Attributes, AuditEvent, InstanceRecord, StoredObject

READER = Actor("READER", "192.0.2.9", "dimse")
STORE = AuditEvent("store", Actor("MODALITY", "192.0.2.7", "dimse"))
CT = "1.2.840.10008.5.1.4.1.1.2"
SR = "1.2.840.10008.5.1.4.1.1.88.11"


def element(vr: str, *values: Any) -> dict[str, Any]:
    """An attribute in DICOM JSON; a name may be given as text with "="."""
    if vr == "PN":
        groups = ("Alphabetic", "Ideographic", "Phonetic")
        values = tuple(
            {group: part for group, part in zip(groups, value.split("="), strict=False) if part}
            for value in values
        )
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def instance(
    uid: str,
    *,
    sop_class: str = CT,
    patient: Mapping[str, dict[str, Any]] | None = None,
    study: Mapping[str, dict[str, Any]] | None = None,
    series: Mapping[str, dict[str, Any]] | None = None,
    own: Mapping[str, dict[str, Any]] | None = None,
) -> InstanceRecord:
    """An instance whose UID says where it belongs: study.series.instance, "2.25.1.1.1"."""
    series_uid, _, number = uid.rpartition(".")
    study_uid, _, series_number = series_uid.rpartition(".")
    levels: list[Attributes] = [dict(level or {}) for level in (patient, study, series, own)]
    levels[1]["0020000D"] = element("UI", study_uid)
    levels[2]["0020000E"] = element("UI", series_uid)
    levels[2].setdefault("00200011", element("IS", int(series_number)))
    levels[3]["00080016"] = element("UI", sop_class)
    levels[3]["00080018"] = element("UI", uid)
    levels[3].setdefault("00200013", element("IS", int(number)))
    return InstanceRecord(
        sop_class_uid=sop_class,
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_uid=study_uid,
        series_uid=series_uid,
        patient=levels[0],
        study=levels[1],
        series=levels[2],
        instance=levels[3],
        header=b"",
        stored=StoredObject(uuid.uuid4().hex, 344, 7, hashlib.sha256(b"dataset").digest()),
        source=STORE.actor,
    )
