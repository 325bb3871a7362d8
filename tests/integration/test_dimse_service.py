"""Policy, cancelling, negotiation, proxies, TLS, stopping and silence of the DIMSE edge."""

import hashlib
import io
import logging
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.presentation import build_context

from node.adapters.peers_socket import SocketPeers
from node.config import Settings
from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from node.domain import proxy
from node.domain.model import Actor, ApplicationEntity, AuditEvent
from node.services.archive import Archive
from node.services.send import send_folder
from tests.integration.dimse_peer import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Peer,
    archive_on,
    context,
    echo,
    listening,
    p_data,
    request,
)
from tests.support import free_port

pytestmark = pytest.mark.quiet

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
ECHO = context(1, VERIFICATION, IMPLICIT)
INSTANCES = 60
NOBODY = Actor("test", "", "node")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Archive]]:
    with archive_on(tmp_path_factory.mktemp("archive")) as built:
        yield built


@pytest.fixture(scope="module")
def port(archive: tuple[Settings, Archive]) -> Iterator[int]:
    settings, stele = archive
    with listening(settings, stele):
        yield settings.dicom.port


@pytest.fixture(scope="module")
def study(archive: tuple[Settings, Archive], port: int, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The UID of a study of INSTANCES instances with a canary's name."""
    folder = tmp_path_factory.mktemp("study")
    image = dcmread(str(get_testdata_file("CT_small.dcm")))
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.PatientName, image.PatientID = "Canary^Yellow", "CANARY-4711"
    for number in range(INSTANCES):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.InstanceNumber = number + 1
        image.save_as(folder / f"{number}.dcm")
    entity = ApplicationEntity("STELE", "127.0.0.1", port)
    assert send_folder(SocketPeers("SENDER"), entity, folder, lambda *_: None).sent == INSTANCES
    return str(image.StudyInstanceUID)


def variant(archive: tuple[Settings, Archive], **dicom: object) -> Settings:
    """The archive's settings with other ones for DICOM, on a port of their own."""
    section = archive[0].dicom.model_copy(update={"port": free_port(), **dicom})
    return archive[0].model_copy(update={"dicom": section})


def put(stele: Archive, entity: ApplicationEntity) -> None:
    """Configure an AE, in force at once."""
    stele.catalog.entities.put(entity, AuditEvent("manage", NOBODY))
    stele.policy._read_at = float("-inf")
    assert stele.policy.find(entity.title) == entity


def images_of(study: str) -> Dataset:
    """A query for a study's images, relational."""
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    keys.StudyInstanceUID, keys.SOPInstanceUID = study, ""
    return keys


def relational() -> SOPClassExtendedNegotiation:
    """Extended negotiation of relational queries."""
    wanted = SOPClassExtendedNegotiation()
    wanted.sop_class_uid, wanted.service_class_application_information = FIND, b"\1\1\1\1\1"
    return wanted


# --- Queries ---


def test_extended_negotiation_decides_on_relational_queries(port: int, study: str) -> None:
    ae = AE("QUERY")
    for wanted, statuses in (([], [0xA900]), ([relational()], [0xFF00] * INSTANCES + [0])):
        association = ae.associate(
            "127.0.0.1", port, [build_context(FIND)], ae_title="STELE", ext_neg=list[Any](wanted)
        )
        found = [status.Status for status, _ in association.send_c_find(images_of(study), FIND)]
        answered = association.acceptor.sop_class_extended
        association.release()
        assert found == statuses
        assert answered == ({FIND: b"\1\1\1\0\0"} if wanted else {})


def test_a_query_is_cancelled_within_one_answer(port: int, study: str) -> None:
    association = AE("QUERY").associate(
        "127.0.0.1", port, [build_context(FIND)], ae_title="STELE", ext_neg=[relational()]
    )
    statuses = []
    for status, _ in association.send_c_find(images_of(study), FIND, msg_id=5):
        statuses.append(status.Status)
        if len(statuses) == 1:
            association.send_c_cancel(5, query_model=FIND)
    association.release()
    # The answers that were on their way when the cancel came are no fault
    assert statuses[-1] in (0xFE00, 0)


def test_a_cancel_that_comes_with_the_query_stops_it_at_once(port: int, study: str) -> None:
    wanted = pdu_item(0x56, FIND, b"\1")
    peer = Peer.connect(port)
    peer.send(request(context(1, FIND, IMPLICIT), more=wanted))
    assert peer.read_pdu()[0] == pdu.ASSOCIATE_AC
    keys = encode(images_of(study), True, True)
    assert keys is not None
    find = Command(commands.C_FIND_RQ, class_uid=FIND, message_id=9, dataset_type=0)
    cancel = Command(commands.C_CANCEL_RQ, responded_id=9)
    peer.send(
        p_data(1, 3, commands.encode(find)) + p_data(1, 2, keys) + p_data(1, 3, commands.encode(cancel))
    )
    answers = 0
    while (answer := peer.read_command()).status == 0xFF00:
        peer.read_pdu()
        answers += 1
    assert answer.status == 0xFE00
    assert answers <= 1


def pdu_item(kind: int, uid: str, information: bytes) -> bytes:
    """A SOP Class Extended Negotiation item."""
    value = struct.pack(">H", len(uid)) + uid.encode() + information
    return struct.pack(">BxH", kind, len(value)) + value


# --- C-MOVE ---


@contextmanager
def destination(stele: Archive, title: str, status_of: dict[int, int] | None = None) -> Iterator[list[str]]:
    """A configured storage SCP that answers its n-th instance with `status_of[n]`, else 0; what it got."""
    received: list[str] = []

    def keep(event: Any) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        origin = (
            event.request.MoveOriginatorApplicationEntityTitle,
            event.request.MoveOriginatorMessageID,
        )
        assert origin == ("MOVER", 3)
        return (status_of or {}).get(len(received), 0)

    ae = AE(title)
    ae.add_supported_context(CT, [EXPLICIT])
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    assert server is not None
    put(stele, ApplicationEntity(title, "127.0.0.1", server.server_address[1]))
    try:
        yield received
    finally:
        server.shutdown()


def move(port: int, study: str, title: str, cancel_after: int = 0) -> list[tuple[Dataset, Dataset | None]]:
    """All answers to a C-MOVE of a study."""
    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID = "STUDY", study
    association = AE("MOVER").associate("127.0.0.1", port, [build_context(MOVE)], ae_title="STELE")
    answers = []
    for status, dataset in association.send_c_move(keys, title, MOVE, msg_id=3):
        answers.append((status, dataset))
        if len(answers) == cancel_after:
            association.send_c_cancel(3, query_model=MOVE)
    association.release()
    return answers


def test_a_move_counts_its_suboperations(archive: tuple[Settings, Archive], port: int, study: str) -> None:
    with destination(archive[1], "COUNTS", {3: 0xA700, 5: 0xB000}) as received:
        answers = move(port, study, "COUNTS")
    first, last = answers[0][0], answers[-1][0]
    assert len(received) == INSTANCES
    assert first.Status == 0xFF00
    assert (first.NumberOfRemainingSuboperations, first.NumberOfCompletedSuboperations) == (INSTANCES - 1, 1)
    assert last.Status == 0xB000
    assert "NumberOfRemainingSuboperations" not in last
    counts = (
        last.NumberOfCompletedSuboperations,
        last.NumberOfFailedSuboperations,
        last.NumberOfWarningSuboperations,
    )
    assert counts == (INSTANCES - 2, 1, 1)
    failed = answers[-1][1]
    assert failed is not None
    assert failed.FailedSOPInstanceUIDList == received[2]


def test_a_move_is_cancelled(archive: tuple[Settings, Archive], port: int, study: str) -> None:
    with destination(archive[1], "CANCELS") as received:
        answers = move(port, study, "CANCELS", cancel_after=3)
    last = answers[-1][0]
    assert last.Status == 0xFE00
    assert last.NumberOfRemainingSuboperations == INSTANCES - last.NumberOfCompletedSuboperations
    assert len(received) == last.NumberOfCompletedSuboperations < INSTANCES


def test_a_destination_that_does_not_answer(archive: tuple[Settings, Archive], port: int, study: str) -> None:
    put(archive[1], ApplicationEntity("AWAY", "127.0.0.1", free_port()))
    ((status, failed),) = move(port, study, "AWAY")
    assert status.Status == 0xA702
    assert status.NumberOfFailedSuboperations == INSTANCES
    assert failed is not None
    assert len(failed.FailedSOPInstanceUIDList) == INSTANCES


# --- Policy ---


def test_an_ae_may_be_kept_from_storing_and_from_asking(archive: tuple[Settings, Archive], port: int) -> None:
    put(archive[1], ApplicationEntity("NEITHER", may_store=False, may_retrieve=False))
    peer = Peer.associated(port, context(1, CT, EXPLICIT), context(3, FIND, IMPLICIT), calling="NEITHER")
    assert peer.store(1, "1.2.3", [bytes(8)]).status == 0x0124
    peer.send_command(3, Command(commands.C_FIND_RQ, class_uid=FIND, message_id=1, dataset_type=0))
    peer.send(p_data(3, 2, b"\x08\0\x52\0\6\0\0\0STUDY "))
    assert peer.read_command().status == 0x0124


def test_an_object_beyond_its_aes_limit(archive: tuple[Settings, Archive], port: int) -> None:
    put(archive[1], ApplicationEntity("SMALL", max_object_bytes=1000))
    peer = Peer.associated(port, context(1, CT, EXPLICIT), calling="SMALL")
    image = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    data = image[image.index(b"\x08\0\5\0CS") :]
    answer = peer.store(1, "1.2.3", [data[:800], data[800:1600], data[1600:]])
    assert answer.status == 0xC002
    assert "1000" in (answer.comment or "")


def test_a_rate_slows_down(archive: tuple[Settings, Archive], port: int) -> None:
    put(archive[1], ApplicationEntity("SLOW", max_instances_per_second=5))
    peer = Peer.associated(port, context(1, CT, EXPLICIT), calling="SLOW")
    began = time.monotonic()
    for _ in range(10):
        peer.store(1, "1.2.3", [bytes(8)])
    assert time.monotonic() - began > 0.8


class Recorder:
    """The audit trail, listening."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def record(self, event: AuditEvent) -> None:
        """Keep it."""
        self.events.append(event)


@contextmanager
def recorded(stele: Archive) -> Iterator[list[AuditEvent]]:
    """The events that are recorded on their own meanwhile."""
    recorder = Recorder()
    audits, stele.catalog.audits = stele.catalog.audits, recorder  # type: ignore[misc, assignment]
    try:
        yield recorder.events
    finally:
        stele.catalog.audits = audits  # type: ignore[misc]


def test_refused_associations_are_audited_but_no_flood(archive: tuple[Settings, Archive], port: int) -> None:
    with recorded(archive[1]) as events:
        for _ in range(50):
            peer = Peer.connect(port)
            peer.send(request(ECHO, called="OTHER", calling="MODALITY"))
            peer.read_pdu()
            peer.close()
    assert 1 <= len(events) < 30
    assert {(event.action, event.outcome, event.actor.name) for event in events} == {
        ("associate", "not_allowed", "MODALITY")
    }


def test_refused_requests_are_audited(archive: tuple[Settings, Archive], port: int) -> None:
    put(archive[1], ApplicationEntity("NEITHER", may_store=False, may_retrieve=False))
    with recorded(archive[1]) as events:
        peer = Peer.associated(port, context(1, CT, EXPLICIT), context(3, FIND, IMPLICIT), calling="NEITHER")
        peer.store(1, "1.2.3", [bytes(8)])
        peer.send_command(3, Command(commands.C_FIND_RQ, class_uid=FIND, message_id=1, dataset_type=0))
        peer.send(p_data(3, 2, b"\x08\0\x52\0\6\0\0\0STUDY "))
        peer.read_command()
    assert [(event.action, event.outcome, event.actor.name) for event in events] == [
        ("store", "not_allowed", "NEITHER"),
        ("query", "not_allowed", "NEITHER"),
    ]


# --- Proxies and TLS ---


def proxied(source: str, command: int = 0x21, fingerprint: str | None = None) -> bytes:
    """A PROXY header; with a fingerprint, that of the certificate which the proxy has checked."""
    addresses = socket.inet_aton(source) + bytes(8)
    if fingerprint is not None:
        addresses += struct.pack(">BH", proxy.CERTIFICATE_TLV, len(fingerprint)) + fingerprint.encode()
    return proxy.SIGNATURE + bytes((command, 0x11)) + struct.pack(">H", len(addresses)) + addresses


def test_a_proxy_tells_who_calls(archive: tuple[Settings, Archive]) -> None:
    put(archive[1], ApplicationEntity("INSIDE", sources=("192.0.2.0/24",)))
    settings = variant(archive, proxies=("127.0.0.0/8",))
    with listening(settings, archive[1]):
        for source, accepted in (("192.0.2.9", True), ("198.51.100.9", False)):
            peer = Peer.connect(settings.dicom.port)
            peer.send(proxied(source) + request(ECHO, calling="INSIDE"))
            kind, body = peer.read_pdu()
            assert (kind == pdu.ASSOCIATE_AC) is accepted, body
        without = Peer.connect(settings.dicom.port)
        without.send(request(ECHO, calling="INSIDE"))
        assert without.read_pdu() == (0, b"")


def test_a_proxy_tells_whose_certificate_it_saw(archive: tuple[Settings, Archive]) -> None:
    put(archive[1], ApplicationEntity("BOUND", certificate="ab" * 32))
    settings = variant(archive, proxies=("127.0.0.0/8",))
    with listening(settings, archive[1]):
        for fingerprint, accepted in (("AB" * 32, True), ("cd" * 32, False), ("", False), (None, False)):
            peer = Peer.connect(settings.dicom.port)
            peer.send(proxied("192.0.2.9", fingerprint=fingerprint) + request(ECHO, calling="BOUND"))
            kind, body = peer.read_pdu()
            assert (kind == pdu.ASSOCIATE_AC) is accepted, (fingerprint, body)


def test_a_header_from_who_is_no_proxy_is_not_believed(archive: tuple[Settings, Archive]) -> None:
    settings = variant(archive, proxies=("10.0.0.0/8",))
    with listening(settings, archive[1]):
        peer = Peer.connect(settings.dicom.port)
        peer.send(proxied("10.1.2.3") + request(ECHO))
        assert peer.read_pdu() == (pdu.ABORT, b"\0\0\2\1")


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", str(paths[0]), "-keyout", str(paths[1])],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return paths


def test_tls_with_client_certificates(archive: tuple[Settings, Archive], tmp_path: Path) -> None:
    server, client, other = (certificate(tmp_path, name) for name in ("server", "client", "other"))
    trusted = tmp_path / "ca.pem"
    trusted.write_text(client[0].read_text() + other[0].read_text())
    settings = variant(
        archive,
        tls_port=free_port(),
        tls_certificate=server[0],
        tls_key=server[1],
        tls_client_ca=trusted,
    )
    der = ssl.PEM_cert_to_DER_cert(client[0].read_text())
    put(archive[1], ApplicationEntity("SECURE", certificate=hashlib.sha256(der).hexdigest()))
    assert settings.dicom.tls_port is not None

    def connect(own: tuple[Path, Path]) -> Peer:
        chosen = ssl.create_default_context(cafile=str(server[0]))
        chosen.load_cert_chain(*own)
        plain = socket.create_connection(("127.0.0.1", settings.dicom.tls_port), timeout=10)
        return Peer(chosen.wrap_socket(plain, server_hostname="127.0.0.1"))

    with listening(settings, archive[1]):
        right = connect(client)
        right.send(request(ECHO, context(3, CT, EXPLICIT), calling="SECURE"))
        assert right.read_pdu()[0] == pdu.ASSOCIATE_AC
        assert echo(right) == 0
        assert right.store(3, "1.2.3", [bytes(100_000)] * 20).status != 0  # no image, but read to its end
        wrong = connect(other)
        wrong.send(request(ECHO, calling="SECURE"))
        assert wrong.read_pdu() == (pdu.ASSOCIATE_RJ, b"\0\1\1\3")


# --- Stopping ---


def test_a_stop_lets_the_message_in_hand_finish_and_releases(archive: tuple[Settings, Archive]) -> None:
    settings = variant(archive)
    with listening(settings, archive[1]) as listener:
        idle = Peer.associated(settings.dicom.port, ECHO)
        busy = Peer.associated(settings.dicom.port, context(1, CT, EXPLICIT))
        assert echo(idle) == 0
        store = Command(commands.C_STORE_RQ, class_uid=CT, message_id=4, dataset_type=0, instance_uid="1.2.3")
        busy.send_command(1, store)
        busy.send(p_data(1, 0, bytes(1000)))
        stopping = threading.Thread(target=listener.stop, args=(10,))
        stopping.start()
        assert idle.read_pdu()[0] == pdu.RELEASE_RQ
        idle.send(b"\6\0\0\0\0\4\0\0\0\0")
        with pytest.raises(ConnectionRefusedError):
            Peer.connect(settings.dicom.port)
        busy.send(p_data(1, 2, bytes(1000)))
        assert busy.read_command().responded_id == 4
        assert busy.read_pdu()[0] == pdu.RELEASE_RQ
        busy.send(b"\6\0\0\0\0\4\0\0\0\0")
        stopping.join(10)
        assert not stopping.is_alive()


def test_a_stop_does_not_wait_for_ever(archive: tuple[Settings, Archive]) -> None:
    settings = variant(archive)
    with listening(settings, archive[1]) as listener:
        busy = Peer.associated(settings.dicom.port, context(1, CT, EXPLICIT))
        store = Command(commands.C_STORE_RQ, class_uid=CT, message_id=4, dataset_type=0, instance_uid="1.2.3")
        busy.send_command(1, store)
        began = time.monotonic()
        listener.stop(1)
        assert time.monotonic() - began < 5
        assert busy.read_pdu()[0] == pdu.ABORT


# --- Silence ---


def test_no_name_gets_into_a_log(
    port: int, study: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        keys = images_of(study)
        keys.PatientName = "Canary^Yellow"
        keys.PatientBirthDate = "CANARY?"
        keys.add_new(0x00100020, "LO", "CANARY-4711")
        association = AE("CANARY_AE").associate(
            "127.0.0.1", port, [build_context(FIND), build_context(CT, [EXPLICIT])], ae_title="STELE"
        )
        list(association.send_c_find(keys, FIND))
        association.release()
        peer = Peer.associated(port, context(1, CT, EXPLICIT))
        peer.store(1, "1.2.3", [b"\x10\0\x10\0PN\x0e\0Canary^Yellow \x10\0\x20\0LO\xff\xffCANARY"])
        peer.store(1, "CANARY-UID", [b"CANARY"])
        garbled = Peer.associated(port, ECHO)
        garbled.send(p_data(1, 3, b"\0\0\0\1\xff\xffCANARY"))
        garbled.read_pdu()
    finally:
        logging.getLogger().removeHandler(handler)
    written = capfd.readouterr()
    everything = stream.getvalue() + caplog.text + written.out + written.err
    assert "canary" not in everything.replace("CANARY_AE", "").lower()
