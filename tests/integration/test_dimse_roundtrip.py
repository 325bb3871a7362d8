"""All of pydicom's bundled images: in byte for byte by C-STORE, and out again by C-GET."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import build_context

from node.adapters.peers_socket import SocketPeers
from node.config import Settings
from node.domain.errors import Refusal
from node.domain.model import ApplicationEntity
from node.domain.part10 import Meta
from node.services.archive import Archive
from node.services.send import identified, send_folder
from tests.integration.dimse_peer import archive_on, listening

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
# Why a file may be refused, as a DIMSE status or in the sender's words; anything else is a failure
EXPECTED = (
    "status A900",  # SOP UIDs missing
    "status C000",  # truncated or malformed
    "status C111",  # the same image as another file, in another transfer syntax
    "the AE does not take its SOP class",  # not an instance, or of no patient
    "file without SOP UIDs",
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Archive]]:
    with archive_on(tmp_path_factory.mktemp("archive")) as built:
        settings, stele = built
        with listening(settings, stele):
            yield built


def split(path: Path) -> tuple[Meta, bytes] | None:
    """A file's UIDs, as they are sent, and its dataset; None if it is no DICOM file."""
    try:
        file = identified(path)
        return Meta(file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid), b"".join(file)
    except Refusal:
        return None


def get(port: int, metas: list[Meta]) -> tuple[dict[str, bytes], Dataset]:
    """C-GET of instances: (dataset bytes by UID, final status)."""
    received: dict[str, bytes] = {}

    def keep(event: Any) -> int:
        received[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        return 0

    ae = AE("GETTER")
    pairs = sorted({(meta.sop_class_uid, meta.transfer_syntax_uid) for meta in metas})
    contexts = [build_context(GET), *(build_context(uid, [syntax]) for uid, syntax in pairs)]
    roles: list[Any] = []
    for uid in sorted({uid for uid, _ in pairs}):
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = uid, False, True
        roles.append(role)
    association = ae.associate(
        "127.0.0.1", port, contexts, ae_title="STELE", ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    assert association.is_established
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    keys.SOPInstanceUID = [meta.sop_instance_uid for meta in metas]
    status = [status for status, _ in association.send_c_get(keys, GET)][-1]
    association.release()
    return received, status


def test_every_bundled_file_comes_back_or_was_refused_for_a_reason(archive: tuple[Settings, Archive]) -> None:
    settings, stele = archive
    entity = ApplicationEntity("STELE", "127.0.0.1", settings.dicom.port)
    result = send_folder(SocketPeers("SENDER"), entity, FILES, lambda *_: None)
    assert [(path.name, why) for path, why in result.failed if not why.startswith(EXPECTED)] == []
    refused = {path for path, _ in result.failed}
    sent = {}
    for path in FILES.rglob("*"):
        found = split(path) if path.is_file() and path not in refused else None
        if found and found[0].sop_class_uid and path.name != "DICOMDIR":
            sent[found[0].sop_instance_uid] = found
    assert len(sent) > 60
    for uid, (meta, data) in list(sent.items()):
        stored = stele.catalog.instances.find(uid)
        if stored is None:
            assert meta.sop_class_uid == "1.2.840.10008.1.3.10", uid  # a DICOMDIR under another name
            del sent[uid]
            continue
        assert stele.objects.read(stored.stored) == data
    received, status = get(settings.dicom.port, [meta for meta, _ in sent.values()])
    assert status.Status == 0
    assert status.NumberOfCompletedSuboperations == len(sent)
    assert received == {uid: data for uid, (_, data) in sent.items()}


def test_who_cannot_take_the_stored_syntax_gets_another_or_none(archive: tuple[Settings, Archive]) -> None:
    settings, _ = archive
    found = split(FILES / "MR_small_RLE.dcm") or split(FILES / "MR_small.dcm")
    assert found is not None
    stored = archive[1].catalog.instances.find(found[0].sop_instance_uid)
    assert stored is not None
    native = Meta(found[0].sop_class_uid, found[0].sop_instance_uid, "1.2.840.10008.1.2.1")
    received, status = get(settings.dicom.port, [native])
    assert status.Status == 0
    assert list(received) == [native.sop_instance_uid]
    other = Meta("1.2.840.10008.5.1.4.1.1.7", found[0].sop_instance_uid, "1.2.840.10008.1.2.1")
    received, status = get(settings.dicom.port, [other])
    assert status.Status == 0xA702
    assert status.NumberOfFailedSuboperations == 1
    assert received == {}


def test_corrupt_bytes_are_never_sent(archive: tuple[Settings, Archive]) -> None:
    settings, stele = archive
    first, second = (split(FILES / name) for name in ("CT_small.dcm", "MR_small.dcm"))
    assert first is not None
    assert second is not None
    stored = stele.catalog.instances.find(first[0].sop_instance_uid)
    assert stored is not None
    (file,) = (settings.data / "objects").rglob(stored.stored.name)
    content = bytearray(file.read_bytes())
    content[stored.stored.prefix_length + 5000] ^= 1
    file.write_bytes(content)
    received, status = get(settings.dicom.port, [first[0], second[0]])
    assert status.Status == 0xB000
    assert (status.NumberOfFailedSuboperations, status.NumberOfCompletedSuboperations) == (1, 1)
    assert list(received) == [second[0].sop_instance_uid]
