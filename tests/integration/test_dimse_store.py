"""C-ECHO and C-STORE over the wire."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from pynetdicom import AE
from pynetdicom.presentation import build_context

from node.adapters.peers_socket import SocketPeers
from node.config import Settings
from node.domain.model import ApplicationEntity
from node.domain.part10 import Part10Reader
from node.services.archive import Archive
from node.services.send import send_folder
from tests.integration.dimse_peer import VERIFICATION, archive_on, listening


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Archive]]:
    with archive_on(tmp_path_factory.mktemp("archive")) as built:
        settings, stele = built
        with listening(settings, stele):
            yield built


def test_echo(archive: tuple[Settings, Archive]) -> None:
    ae = AE("ECHO")
    association = ae.associate(
        "127.0.0.1", archive[0].dicom.port, [build_context(VERIFICATION)], ae_title="STELE"
    )
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()
    assert association.is_released


def test_a_file_is_stored_byte_for_byte(archive: tuple[Settings, Archive], tmp_path: Path) -> None:
    settings, stele = archive
    source = Path(str(get_testdata_file("CT_small.dcm")))
    entity = ApplicationEntity("STELE", "127.0.0.1", settings.dicom.port)
    result = send_folder(SocketPeers("SENDER"), entity, source, lambda *_: None)
    assert (result.sent, result.failed) == (1, [])
    reader = Part10Reader()
    dataset = bytes(reader.feed(source.read_bytes()))
    stored = stele.catalog.instances.find(reader.finish().sop_instance_uid)
    assert stored is not None
    assert stele.objects.read(stored.stored) == dataset
