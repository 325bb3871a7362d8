"""DICOM peers that we call, by pynetdicom as SCU.

Datasets go out as the encoded bytes they are. pynetdicom would decode and encode them and queue all of it
at once; here the fragments are put into a short queue, which its upper layer empties as fast as the peer
takes them.
"""

import queue
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ  # made at run time
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import build_context

from node.domain.errors import Reason, Refusal
from node.domain.model import ApplicationEntity
from node.domain.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.quiet import quiet

MAX_CONTEXTS = 128
MAX_PDU_BYTES = 128 << 10
WAITING_FRAGMENTS = 16
CONNECT_SECONDS = 10.0
NEGOTIATE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """PEM files for calls by TLS: our certificate chain and key (if we have one), and the CAs that the
    peers' certificates must come from (none: the system's)."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


class PynetdicomPeers:
    """Peers called under the AE title `calling`; an answer may take `answer_seconds`."""

    def __init__(self, calling: str, tls: TLSFiles | None = None, *, answer_seconds: float = 120.0) -> None:
        quiet()
        self._calling = calling
        self._tls = tls or TLSFiles()
        self._answer_seconds = answer_seconds

    def connect(self, entity: ApplicationEntity, contexts: Sequence[tuple[str, str]]) -> "PynetdicomDelivery":
        """Associate. Of `contexts` the first 128 are proposed, one presentation context each."""
        if not entity.host or not entity.port:
            raise Refusal(Reason.UNAVAILABLE, "the AE has no address")
        ae = AE(self._calling)
        ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.connection_timeout = CONNECT_SECONDS
        ae.acse_timeout = NEGOTIATE_SECONDS
        ae.dimse_timeout = self._answer_seconds
        ae.network_timeout = None  # an association between two sub-operations may rest
        try:
            association = ae.associate(
                entity.host,
                entity.port,
                [build_context(class_uid, [syntax]) for class_uid, syntax in contexts[:MAX_CONTEXTS]],
                ae_title=entity.title,
                max_pdu=MAX_PDU_BYTES,
                tls_args=(self._tls_context(), entity.host) if entity.tls else None,
            )
        except (OSError, ValueError) as error:
            raise Refusal(Reason.UNAVAILABLE, "the AE cannot be called") from error
        if not association.is_established:
            rejected = association.is_rejected
            raise Refusal(Reason.UNAVAILABLE, "the AE rejects" if rejected else "the AE does not answer")
        return PynetdicomDelivery(association, self._answer_seconds)

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self._tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._tls.certificate is not None:
            context.load_cert_chain(self._tls.certificate, self._tls.key)
        return context


class PynetdicomDelivery:
    """An established association."""

    def __init__(self, association: Association, answer_seconds: float) -> None:
        self._association = association
        self._answer_seconds = answer_seconds
        association.dul.to_provider_queue = queue.Queue(WAITING_FRAGMENTS)
        peer_bytes = association.acceptor.maximum_length or MAX_PDU_BYTES
        self._fragment_bytes = (min(peer_bytes, MAX_PDU_BYTES) - 6) & ~1
        self._contexts: dict[tuple[str, str], int] = {
            (str(each.abstract_syntax), str(each.transfer_syntax[0])): each.context_id or 0
            for each in association.accepted_contexts
            if each.as_scu
        }
        self._message_id = 0

    def accepts(self, sop_class_uid: str) -> tuple[str, ...]:
        """Transfer syntaxes accepted for the SOP class; () once the association is lost."""
        if not self._association.is_established:
            return ()
        return tuple(syntax for class_uid, syntax in self._contexts if class_uid == sop_class_uid)

    def send(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        dataset: Iterable[bytes],
        originator: tuple[str, int] | None = None,
    ) -> int:
        """C-STORE the encoded dataset; returns the peer's status."""
        association = self._association
        context_id = self._contexts[sop_class_uid, transfer_syntax_uid]
        self._message_id = self._message_id % 65535 + 1
        request = C_STORE()
        request.MessageID = self._message_id
        request.Priority = 0
        request.AffectedSOPClassUID = UID(sop_class_uid)
        request.AffectedSOPInstanceUID = UID(sop_instance_uid)
        if originator is not None:
            request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID = originator
        request.DataSet = BytesIO()  # says that one follows
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        # pynetdicom's reactor would take the answer for a request: it pauses while we wait for it
        association._reactor_checkpoint.clear()
        try:
            while not association._is_paused and association.is_alive():
                time.sleep(0.0001)
            for primitive in message.encode_msg(context_id, self._fragment_bytes + 6):
                self._put(primitive)
            for primitive in self._fragments(context_id, dataset):
                self._put(primitive)
            _, answer = association.dimse.get_msg(block=True)
        except BaseException as error:
            association.abort()
            if isinstance(error, (Refusal, OSError)):
                raise Refusal(Reason.UNAVAILABLE, "association lost while sending") from error
            raise
        finally:
            association._reactor_checkpoint.set()
        if not isinstance(answer, C_STORE) or answer.Status is None:
            association.abort()
            raise Refusal(Reason.UNAVAILABLE, "no answer to a C-STORE")
        return int(answer.Status)

    def close(self) -> None:
        """Release the association."""
        if self._association.is_established:
            self._association.release()

    def _put(self, primitive: P_DATA) -> None:
        """Queue a fragment; Refusal(UNAVAILABLE) if the peer takes nothing any more."""
        deadline = time.monotonic() + self._answer_seconds
        while self._association.dul.is_alive() and not self._association.acse.is_aborted():
            try:
                self._association.dul.to_provider_queue.put(primitive, timeout=0.5)
            except queue.Full:
                if time.monotonic() > deadline:
                    break
            else:
                return
        raise Refusal(Reason.UNAVAILABLE, "association lost while sending")

    def _fragments(self, context_id: int, dataset: Iterable[bytes]) -> Iterator[P_DATA]:
        held = memoryview(b"")
        for piece in dataset:
            view = memoryview(piece)
            while view:
                if held:
                    yield _data(context_id, b"\0", held)
                held, view = view[: self._fragment_bytes], view[self._fragment_bytes :]
        yield _data(context_id, b"\2", held)


def _data(context_id: int, control: bytes, value: memoryview) -> P_DATA:
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((context_id, control + bytes(value)))
    return primitive
