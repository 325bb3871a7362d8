"""C-ECHO and C-STORE over the wire."""

import os
from collections.abc import Callable, Iterator
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


def send(settings: Settings, source: Path) -> tuple[str, bytes]:
    """C-STORE a file, which must be acknowledged; returns its SOP Instance UID and its dataset's bytes."""
    entity = ApplicationEntity("STELE", "127.0.0.1", settings.dicom.port)
    result = send_folder(SocketPeers("SENDER"), entity, source, lambda *_: None)
    assert (result.sent, result.failed) == (1, [])
    reader = Part10Reader()
    dataset = bytes(reader.feed(source.read_bytes()))
    return reader.finish().sop_instance_uid, dataset


def test_a_file_is_stored_byte_for_byte(archive: tuple[Settings, Archive]) -> None:
    settings, stele = archive
    uid, dataset = send(settings, Path(str(get_testdata_file("CT_small.dcm"))))
    stored = stele.catalog.instances.find(uid)
    assert stored is not None
    assert stele.objects.read(stored.stored) == dataset


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)
    file.chmod(0o400)


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, flip_a_bit, lambda file: os.truncate(file, 1000)],
    ids=["lost", "flipped bit", "cut off"],
)
def test_a_retry_takes_the_place_of_what_is_damaged(
    archive: tuple[Settings, Archive], damage: Callable[[Path], None]
) -> None:
    """Acknowledging it without looking would leave the sender with nothing to send again."""
    settings, stele = archive
    source = Path(str(get_testdata_file("MR_small.dcm")))
    uid, dataset = send(settings, source)
    before = stele.catalog.instances.find(uid)
    assert before is not None
    name = before.stored.name
    damage(settings.data / "objects" / name[:2] / name)
    send(settings, source)
    after = stele.catalog.instances.find(uid)
    assert after is not None
    assert after.stored.name != name
    assert stele.objects.read(after.stored) == dataset
    send(settings, source)
    assert stele.catalog.instances.find(uid) == after
