"""C-ECHO and C-STORE (PS3.4 annexes A and B), for either kind of association.

A C-STORE's intake begins with its command, and takes the dataset as it comes; this is also where a peer
over its rate has to wait, so that it is TCP that slows it down. When the dataset has come to its end it is
finished: the answer 0000 leaves only after `Intake.finish` has returned.
"""

from typing import TYPE_CHECKING, Protocol

from node.dimse.messages import Message
from node.dimse.status import SUCCESS, Service, status_of
from node.domain.errors import Reason, Refusal
from node.domain.model import Actor

if TYPE_CHECKING:
    from node.dimse.association import Edge
    from node.dimse.gate import Caller


class Storer(Protocol):
    """An association with somebody who stores."""

    edge: "Edge"
    caller: "Caller"

    @property
    def actor(self) -> Actor:
        """The peer, for policy and audit."""

    def syntax(self, context_id: int) -> str:
        """The transfer syntax that a context was accepted with."""

    def abstract_syntax(self, context_id: int) -> str:
        """The SOP class that a context was accepted for."""

    def reply(self, message: Message, status: int, comment: str = "") -> None:
        """Answer a request. ConnectionLost."""

    def audit_refusal(self, action: str, error: Exception) -> None:
        """Leave an audit event of a request that was refused before any service could."""


def echo(association: Storer, message: Message) -> None:
    """Answer a C-ECHO."""
    association.reply(message, SUCCESS)


def begin(association: Storer, message: Message) -> None:
    """Give a C-STORE request its intake, or the refusal that `store` answers with."""
    edge, entity, command = association.edge, association.caller.entity, message.command
    rate = entity.max_instances_per_second or edge.settings.dicom.max_instances_per_second
    edge.stopping.wait(edge.rates.wait_seconds(entity.title, rate))
    abstract = association.abstract_syntax(message.context_id)
    try:
        if not entity.may_store:
            raise Refusal(Reason.NOT_ALLOWED, "this AE may not store")
        if command.class_uid != abstract or not edge.contexts[abstract].scu_role:
            raise Refusal(Reason.UNSUPPORTED_CLASS, "SOP class is not the presentation context's")
        message.intake = edge.archive.ingest.begin(
            association.actor,
            sop_class_uid=command.class_uid,
            sop_instance_uid=command.instance_uid or "",
            transfer_syntax_uid=association.syntax(message.context_id),
            max_object_bytes=entity.max_object_bytes,
        )
    except Exception as error:  # noqa: BLE001 - answered when the message is complete
        message.error = error


def store(association: Storer, message: Message) -> None:
    """Finish an instance and acknowledge it, or say why not."""
    try:
        if message.error is not None:
            raise message.error
        assert message.intake is not None  # noqa: S101 - `begin` gave it an intake or an error
        message.intake.finish()
    except Exception as error:  # noqa: BLE001 - the status table knows what to say
        if message.intake is None:  # otherwise the intake has told
            association.audit_refusal("store", error)
        status, comment = status_of(Service.STORE, error)
        association.reply(message, status, comment)
    else:
        association.reply(message, SUCCESS)
