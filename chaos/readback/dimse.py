"""C-FIND and C-GET at one address, by DCMTK; by pynetdicom what DCMTK's getscu cannot do."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pynetdicom import build_context, build_role, evt

from chaos.corpus import IMPLICIT, RLE, Instance
from chaos.history import content_of
from chaos.model import Listing, Row
from chaos.multipart import identity_of
from chaos.readback import READ_SECONDS, Contents, Unreadable, gathered
from chaos.target import Dicom
from chaos.traffic.pynetdicom_scu import associate

STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
Series = tuple[str, str, str, str]  # study, series, SOP class, transfer syntax


def c_find(address: Dicom, patients: str = "") -> Listing:
    """All that is listed of the patients whose ID begins so, level by level. Unreadable."""
    own = f"{patients}*" if patients else ""
    listing = Listing()
    listing.patients = [row["PatientID"] for row in _findscu(address, "-P", "PATIENT", PatientID=own)]
    counted = {"NumberOfStudyRelatedInstances": ""}
    for study in _findscu(address, "-S", "STUDY", StudyInstanceUID="", PatientID=own, **counted):
        uid = study["StudyInstanceUID"]
        listing.studies.append((uid, int(study["NumberOfStudyRelatedInstances"])))
        counted = {"NumberOfSeriesRelatedInstances": ""}
        keys = {"StudyInstanceUID": uid, "SeriesInstanceUID": ""}
        for series in _findscu(address, "-S", "SERIES", **keys, **counted):
            series_uid = series["SeriesInstanceUID"]
            keys = {"StudyInstanceUID": uid, "SeriesInstanceUID": series_uid}
            listing.series.append((series_uid, int(series["NumberOfSeriesRelatedInstances"])))
            rows = _findscu(address, "-S", "IMAGE", SOPInstanceUID="", **keys)
            listing.instances += [
                Row(study["PatientID"], uid, series_uid, row["SOPInstanceUID"]) for row in rows
            ]
    return listing


def c_get(address: Dicom, instances: Iterable[Instance]) -> Contents:
    """Content by SOP Instance UID, of their series, each in the transfer syntax it was sent in."""
    series = sorted({(each.study, each.series, each.sop_class, each.syntax) for each in instances})
    # getscu proposes no Implicit VR for what comes back, whatever it is told, and knows no TLS
    by_getscu = [each for each in series if each[3] != IMPLICIT and address.tls is None]
    found = gathered(partial(_getscu, address), by_getscu)
    for each in series:
        if each not in by_getscu:
            found.update(_pynetdicom_get(address, each))
    return found


def _findscu(address: Dicom, model: str, level: str, **keys: str) -> list[dict[str, str]]:
    """The rows that DCMTK's findscu prints, by keyword."""
    command = ["findscu", *address.dcmtk("-v", model, "-td", f"{READ_SECONDS:g}")]
    for name, value in {"QueryRetrieveLevel": level, **keys}.items():
        command += ["-k", f"{name}={value}"]
    done = subprocess.run(
        command,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    if done.returncode != 0 or "Received Final Find Response (Success)" not in done.stdout:
        raise Unreadable(f"{level}: {done.stdout[-500:]}")
    _, *answers = re.split(r"Find Response: \d+ \(Pending\)", done.stdout)
    printed = re.compile(r"^I: \(....,....\) .. \[(.*?)[ \0]*\] *#.* (\w+)$", re.MULTILINE)
    return [{name: value for value, name in printed.findall(answer)} for answer in answers]


def _getscu(address: Dicom, wanted: Series) -> Contents:
    study, series, _, syntax = wanted
    with tempfile.TemporaryDirectory(prefix="stele-readback-") as folder:
        options = ["+B", "-S", "+xr" if syntax == RLE else "+xe", "-od", folder, "-td", f"{READ_SECONDS:g}"]
        command = ["getscu", *address.dcmtk(*options)]
        for key in ("QueryRetrieveLevel=SERIES", f"StudyInstanceUID={study}", f"SeriesInstanceUID={series}"):
            command += ["-k", key]
        done = subprocess.run(
            command, check=False, capture_output=True, env={**os.environ, "TCP_NODELAY": "1"}
        )
        found = dict(identity_of(path.read_bytes()) for path in Path(folder).iterdir())
    if done.returncode != 0 and not found:
        raise Unreadable(f"{series}: {done.stderr.decode(errors='replace')[-500:]}")
    return found


def _pynetdicom_get(address: Dicom, wanted: Series) -> Contents:
    study, series, sop_class, syntax = wanted
    received: Contents = {}

    def keep(event: Any) -> int:
        content = content_of(event.context.transfer_syntax, event.request.DataSet.getvalue())
        received[str(event.request.AffectedSOPInstanceUID)] = content
        return 0

    association = associate(
        address,
        READ_SECONDS,
        [build_context(STUDY_GET), build_context(sop_class, [syntax])],
        ext_neg=[build_role(sop_class, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )
    if not association.is_established:
        raise Unreadable("no association")
    keys = Dataset()
    keys.QueryRetrieveLevel = "SERIES"
    keys.StudyInstanceUID, keys.SeriesInstanceUID = study, series
    list(association.send_c_get(keys, STUDY_GET))
    association.release()
    return received
