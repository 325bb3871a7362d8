"""C-FIND (PS3.4 section C.4.1) in the Patient Root, Study Root and Patient/Study Only models.

Answers are streamed: one at a time from the catalog to the peer, who may cancel between any two.
"""

import time

from node import metrics
from node.dimse import contexts, identifier
from node.dimse.association import Served
from node.dimse.messages import Message
from node.dimse.status import CANCELLED, PENDING, PENDING_KEYS_UNSUPPORTED, SUCCESS, Service, status_of
from node.dimse.transport import ConnectionLost
from node.domain.errors import Reason, Refusal
from node.domain.model import Level
from node.services.search import Finding

RETRIEVE_AE_TITLE = "00080054"


def model_of(association: Served, message: Message, operation: str) -> contexts.Model:
    """The information model that a request names; Refusal if it is not its context's."""
    if message.error is not None:
        raise message.error
    if not association.caller.entity.may_retrieve:
        raise Refusal(Reason.NOT_ALLOWED, "this AE may not query or retrieve")
    class_uid = message.command.class_uid
    model = contexts.MODELS.get(class_uid or "")
    if (
        model is None
        or model.operation != operation
        or class_uid != association.abstract_syntax(message.context_id)
    ):
        raise Refusal(Reason.UNSUPPORTED_CLASS, "SOP class is not the presentation context's")
    return model


def level_of(model: contexts.Model, name: str) -> Level:
    """The level of that name in the model; Refusal(MISMATCH)."""
    try:
        level = Level(name)
    except ValueError:
        raise Refusal(Reason.MISMATCH, "unknown Query/Retrieve Level") from None
    if (model.root == "STUDY" and level is Level.PATIENT) or (
        model.study_is_lowest and level in (Level.SERIES, Level.IMAGE)
    ):
        raise Refusal(Reason.MISMATCH, "the model has no such Query/Retrieve Level")
    return level


def find(association: Served, message: Message) -> None:
    """Serve a C-FIND."""
    started = time.perf_counter()
    try:
        model = model_of(association, message, "find")
        syntax = association.syntax(message.context_id)
        attributes, character_set = identifier.decode(message.identifier, syntax)
        level = level_of(model, identifier.level(attributes))
        agreed = association.agreed.get(message.command.class_uid or "", contexts.Agreed())
        finding = association.edge.archive.search.find(
            level,
            attributes,
            root="PATIENT" if model.root == "PATIENT" else "STUDY",
            actor=association.actor,
            relational=agreed.relational,
            fuzzy=agreed.fuzzy,
            combined_datetime=agreed.combined_datetime,
            empty_value=agreed.empty_value,
            multiple_value=agreed.multiple_value,
        )
        try:
            status = _answer(association, message, finding, syntax, character_set)
        finally:
            finding.close()
    except ConnectionLost:
        raise
    except Exception as error:  # noqa: BLE001 - the status table knows what to say
        association.audit_refusal("query", error)
        status, comment = status_of(Service.FIND, error)
        association.reply(message, status, comment)
    else:
        association.reply(message, status)
        metrics.QUERY_SECONDS.labels("dimse", level.value.lower()).observe(time.perf_counter() - started)


def _answer(
    association: Served, message: Message, finding: Finding, syntax: str, character_set: bytes
) -> int:
    """Send what is found; returns the final status."""
    pending = PENDING if finding.all_keys_supported else PENDING_KEYS_UNSUPPORTED
    title = {"vr": "AE", "Value": [association.edge.settings.ae_title]}
    for found in finding:
        if association.messages.cancelled(message.command.message_id):
            return CANCELLED
        answer = identifier.encode({**found, RETRIEVE_AE_TITLE: title}, syntax, character_set)
        association.reply(message, pending, dataset=answer)
    return SUCCESS
