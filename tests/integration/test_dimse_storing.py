"""Which associations are served without pynetdicom, and that these keep every promise, over the wire."""

import random
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation, UserIdentityNegotiation
from pynetdicom.presentation import build_context, build_role

from node.config import Settings
from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.association import Served
from node.dimse.command import Command
from node.dimse.listener import Listener
from node.dimse.storing import Storing
from node.domain.model import ApplicationEntity
from node.services.archive import Archive
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
from tests.integration.test_dimse_service import certificate, proxied, put, recorded, relational, variant
from tests.support import free_port, wait_until

FIND, GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
PEERS, INSTANCES = 30, 20
STORES = context(1, CT, EXPLICIT), context(3, VERIFICATION, IMPLICIT)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Archive]]:
    with archive_on(tmp_path_factory.mktemp("archive")) as built:
        yield built


@pytest.fixture(scope="module")
def listener(archive: tuple[Settings, Archive]) -> Iterator[Listener]:
    with listening(*archive) as listener:
        yield listener


@pytest.fixture(scope="module")
def port(archive: tuple[Settings, Archive], listener: Listener) -> int:
    return archive[0].dicom.port


def image(study: str, more: bytes = b"") -> tuple[str, bytes]:
    """(SOP Instance UID, dataset in Explicit VR Little Endian) of a CT without pixels; `more` in it."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CT, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = study, f"{study}.1"
    made.PatientID, made.PatientName, made.Modality = "GENERATED", "Generated^Image", "CT"
    made.EncapsulatedDocument = more + bytes(len(more) % 2)
    encoded = encode(made, False, True)
    assert encoded is not None
    return str(made.SOPInstanceUID), encoded


def study_uid() -> str:
    """A new study's UID, short enough to append to."""
    return generate_uid()[:55].rstrip(".")


def open_now(listener: Listener, calling: str) -> list[Served | Storing]:
    """The associations that an AE title has."""
    return [each for each in list(listener._served) if each.caller.request.calling == calling]


# --- Which way ---


def user_identity() -> UserIdentityNegotiation:
    """Who one is, without a proof and a wish for an answer."""
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field = 1, b"somebody"
    return identity


def window() -> AsynchronousOperationsWindowNegotiation:
    """Several operations at once."""
    wanted = AsynchronousOperationsWindowNegotiation()
    wanted.maximum_number_operations_invoked = wanted.maximum_number_operations_performed = 5
    return wanted


@pytest.mark.parametrize(
    ("classes", "negotiation", "kind"),
    [
        ([VERIFICATION], [], Storing),
        ([CT, VERIFICATION, "1.2.3.4.5"], [], Storing),
        ([CT, FIND], [], Served),
        ([FIND], [relational()], Served),
        ([CT], [build_role(CT, scu_role=True, scp_role=True)], Served),
        ([CT], [window()], Served),
        ([CT], [user_identity()], Served),
    ],
)
def test_the_request_decides_who_serves_and_both_store(
    archive: tuple[Settings, Archive],
    listener: Listener,
    classes: list[str],
    negotiation: list[Any],
    kind: type,
) -> None:
    association = AE("EITHER").associate(
        "127.0.0.1",
        archive[0].dicom.port,
        [build_context(each, [EXPLICIT, IMPLICIT]) for each in classes],
        ae_title="STELE",
        ext_neg=negotiation,
    )
    assert association.is_established
    ours = [
        each
        for each in listener._served
        if each.caller.request.calling == "EITHER" and not each.over.is_set()
    ]
    assert [type(each) for each in ours] == [kind]
    if CT in classes:
        made = dcmread(str(get_testdata_file("CT_small.dcm")))
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        assert association.send_c_store(made).Status == 0
        assert archive[1].catalog.instances.find(str(made.SOPInstanceUID)) is not None
    if VERIFICATION in classes:
        assert association.send_c_echo().Status == 0
    association.release()
    assert association.is_released
    wait_until(ours[0].over.is_set, 10, "the association is over")


def test_one_association_stores_queries_and_retrieves(archive: tuple[Settings, Archive], port: int) -> None:
    received = []

    def keep(event: Any) -> int:
        received.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    made = dcmread(str(get_testdata_file("CT_small.dcm")))
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    association = AE("ALL_IN_ONE").associate(
        "127.0.0.1",
        port,
        [build_context(CT, [EXPLICIT]), build_context(FIND), build_context(GET)],
        ae_title="STELE",
        ext_neg=[build_role(CT, scu_role=True, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, keep)],
    )
    assert association.send_c_store(made).Status == 0
    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID = "STUDY", made.StudyInstanceUID
    assert [status.Status for status, _ in association.send_c_find(keys, FIND)] == [0xFF00, 0]
    assert [status.Status for status, _ in association.send_c_get(keys, GET)][-1] == 0
    association.release()
    assert received == [made.SOPInstanceUID]


# --- What holds on it ---


def test_a_request_byte_by_byte(archive: tuple[Settings, Archive], port: int) -> None:
    peer = Peer.connect(port)
    peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request(*STORES):
        peer.send(bytes([byte]))
    assert peer.read_pdu()[0] == pdu.ASSOCIATE_AC
    assert echo(peer, 3) == 0
    uid, data = image(study_uid())
    assert peer.store(1, uid, [data[at : at + 1] for at in range(len(data))]).status == 0
    stored = archive[1].catalog.instances.find(uid)
    assert stored is not None
    assert archive[1].objects.read(stored.stored) == data
    peer.release()


def test_an_ae_that_may_not_store_is_told_and_audited(archive: tuple[Settings, Archive], port: int) -> None:
    put(archive[1], ApplicationEntity("READS", may_store=False))
    with recorded(archive[1]) as events:
        peer = Peer.associated(port, *STORES, calling="READS")
        uid, data = image(study_uid())
        assert peer.store(1, uid, [data]).status == 0x0124
        assert echo(peer, 3) == 0
        peer.release()
    assert [(event.action, event.outcome, event.actor.name) for event in events] == [
        ("store", "not_allowed", "READS")
    ]
    assert archive[1].catalog.instances.find(uid) is None


def test_a_peer_that_goes_away_in_mid_dataset_leaves_nothing(
    archive: tuple[Settings, Archive], listener: Listener, port: int
) -> None:
    objects = len(list(archive[1].objects.names()))
    uid, data = image(study_uid(), bytes(8000))
    store = Command(commands.C_STORE_RQ, class_uid=CT, message_id=1, dataset_type=0, instance_uid=uid)
    for sent in (b"", p_data(1, 0, data[:-2]), p_data(1, 0, data), p_data(1, 2, data)[:-1]):
        peer = Peer.associated(port, *STORES, calling="GOES")
        peer.send_command(1, store)
        peer.send(sent)
        peer.close()
    wait_until(lambda: not open_now(listener, "GOES"), 10, "no association is left")
    assert archive[1].catalog.instances.find(uid) is None
    assert len(list(archive[1].objects.names())) == objects


def test_tls_and_a_proxy_before_it(archive: tuple[Settings, Archive], tmp_path: Path) -> None:
    own, key = certificate(tmp_path, "server")
    tls_port = free_port()
    settings = variant(archive, tls_port=tls_port, tls_certificate=own, tls_key=key, proxies=("127.0.0.0/8",))
    put(archive[1], ApplicationEntity("BEHIND", sources=("192.0.2.0/24",)))
    uid, data = image(study_uid(), random.Random(3).randbytes(200_000))
    with listening(settings, archive[1]) as secure:
        plain = socket.create_connection(("127.0.0.1", tls_port), timeout=20)
        plain.sendall(proxied("192.0.2.7"))
        chosen = ssl.create_default_context(cafile=str(own))
        peer = Peer(chosen.wrap_socket(plain, server_hostname="127.0.0.1"))
        peer.send(request(*STORES, calling="BEHIND"))
        assert peer.read_pdu()[0] == pdu.ASSOCIATE_AC
        (ours,) = secure._served
        assert isinstance(ours, Storing)
        assert ours.actor.address == "192.0.2.7"
        assert peer.store(1, uid, [data[at : at + 5000] for at in range(0, len(data), 5000)]).status == 0
        assert echo(peer, 3) == 0
        stopping = threading.Thread(target=secure.stop, args=(10,))
        stopping.start()
        assert peer.read_pdu()[0] == pdu.RELEASE_RQ
        peer.send(pdu.release(pdu.RELEASE_RP))
        stopping.join(20)
        assert not stopping.is_alive()
    stored = archive[1].catalog.instances.find(uid)
    assert stored is not None
    assert archive[1].objects.read(stored.stored) == data


def test_many_associations_at_once_mix_nothing_up(archive: tuple[Settings, Archive], port: int) -> None:
    """Each sends its own bytes in pieces of its own, some refused, and every one of them is answered."""

    def one(number: int) -> dict[str, bytes]:
        chance, study, sent = random.Random(number), study_uid(), {}
        peer = Peer.associated(port, *STORES, calling=f"PEER{number}")
        for message_id in range(1, INSTANCES + 1):
            uid, data = image(study, chance.randbytes(chance.randint(0, 2000)))
            is_whole = message_id % 7 != 0
            part = data if is_whole else data[:-1]
            size = chance.choice([7, 100, 1000, 100_000])
            pieces = [part[at : at + size] for at in range(0, len(part), size)]
            answer = peer.store(1, uid, pieces, message_id=message_id)
            assert (answer.responded_id, answer.instance_uid) == (message_id, uid)
            assert answer.status == (0 if is_whole else 0xC000)
            if is_whole:
                sent[uid] = data
            if message_id % 5 == 0:
                assert echo(peer, 3) == 0
        peer.release()
        return sent

    with ThreadPoolExecutor(PEERS) as pool:
        sent = {uid: data for each in pool.map(one, range(PEERS)) for uid, data in each.items()}
    assert len(sent) == PEERS * (INSTANCES - INSTANCES // 7)
    for uid, data in sent.items():
        stored = archive[1].catalog.instances.find(uid)
        assert stored is not None
        assert archive[1].objects.read(stored.stored) == data
