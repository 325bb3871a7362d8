"""C-MOVE and C-GET (PS3.4 sections C.4.2 and C.4.3).

Both select instances by the identifier's unique keys and send them one by one (`node.services.deliver`):
C-MOVE on an association of its own to a configured AE, C-GET on the requestor's own, whose storage contexts
it must have proposed in the SCP role. After each sub-operation a pending response tells the counts.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial

from node.dimse import identifier
from node.dimse.association import Served
from node.dimse.find import level_of, model_of
from node.dimse.messages import Message
from node.dimse.status import (
    CANCELLED,
    PENDING,
    SUBOPERATIONS_FAILED,
    SUBOPERATIONS_PARTLY,
    SUCCESS,
    Service,
    status_of,
)
from node.dimse.transport import ConnectionLost
from node.domain.errors import Reason, Refusal
from node.domain.model import Answer, ApplicationEntity, Attributes, Level, Scope, StoredInstance
from node.domain.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from node.domain.uid import check_uid
from node.services.deliver import Deliver, Progress
from node.services.link import Link, batches

MAX_SCOPES = 10_000
_PATIENT, _ISSUER, _STUDY, _SERIES, _INSTANCE = "00100020", "00100021", "0020000D", "0020000E", "00080018"
_KEYS = {Level.PATIENT: _PATIENT, Level.STUDY: _STUDY, Level.SERIES: _SERIES, Level.IMAGE: _INSTANCE}
_FAILED_LIST = "00080058"
_FALLBACKS = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)  # offered to destinations that take no stored syntax


def scopes(level: Level, attributes: Attributes) -> list[Scope]:
    """What the unique keys of a retrieval name: single values above the level, a list at it; Refusal.

    A unique key above the level may be missing: what is at the level is unique by itself, whether or not
    relational retrieval was agreed on.
    """
    wanted = _values(attributes, _KEYS[level])
    if not wanted:
        raise Refusal(Reason.MISMATCH, "identifier without the unique key of its level")
    if len(wanted) > MAX_SCOPES:
        raise Refusal(Reason.TOO_LARGE, f"more than {MAX_SCOPES} values")
    if level is Level.PATIENT:
        issuer = _single(attributes, _ISSUER)
        return [Scope(patient_id=value, issuer=issuer) for value in wanted]
    for value in wanted:
        check_uid(value)
    study, series = _single(attributes, _STUDY), _single(attributes, _SERIES)
    if level is Level.STUDY:
        return [Scope(study_uid=value) for value in wanted]
    if level is Level.SERIES:
        return [Scope(study_uid=study, series_uid=value) for value in wanted]
    return [Scope(study_uid=study, series_uid=series, instance_uid=value) for value in wanted]


def move(association: Served, message: Message) -> None:
    """Serve a C-MOVE."""
    _serve(association, message, Service.MOVE, _move)


def get(association: Served, message: Message) -> None:
    """Serve a C-GET."""
    _serve(association, message, Service.GET, _get)


_Steps = Generator[None, None, None]
_Sending = Callable[[Served, Message, Sequence[StoredInstance], Progress], _Steps]


def _serve(association: Served, message: Message, service: Service, sending: _Sending) -> None:
    try:
        instances = _select(association, message, service)
        progress = Progress(len(instances))
        cancelled = _report(
            association, message, progress, sending(association, message, instances, progress)
        )
    except ConnectionLost:
        raise
    except Exception as error:  # noqa: BLE001 - the status table knows what to say
        association.audit_refusal("retrieve", error)
        status, comment = status_of(service, error)
        association.reply(message, status, comment)
        return
    if cancelled:
        status = CANCELLED
    elif progress.failed and not progress.completed and not progress.warnings:
        status = SUBOPERATIONS_FAILED
    else:
        status = SUBOPERATIONS_PARTLY if progress.failed or progress.warnings else SUCCESS
    dataset = None
    if status != SUCCESS:
        failed = {_FAILED_LIST: identifier.uids(progress.failed_uids)}
        dataset = identifier.encode(failed, association.syntax(message.context_id))
    association.reply(message, status, dataset=dataset, progress=progress)


def _select(association: Served, message: Message, service: Service) -> list[StoredInstance]:
    model = model_of(association, message, service.value)
    syntax = association.syntax(message.context_id)
    attributes, _ = identifier.decode(message.identifier, syntax)
    level = level_of(model, identifier.level(attributes))
    wanted = scopes(level, attributes)
    if service is Service.MOVE:
        _destination(association, message)  # before the catalog is asked
    return association.edge.archive.retrieve.select(wanted, association.actor)


def _report(association: Served, message: Message, progress: Progress, steps: _Steps) -> bool:
    """Go through the sub-operations; returns whether the peer cancelled them."""
    for _ in steps:
        if progress.remaining and association.messages.cancelled(message.command.message_id):
            steps.close()
            return True
        if progress.remaining:
            association.reply(message, PENDING, progress=progress)
    return False


def _destination(association: Served, message: Message) -> ApplicationEntity:
    entity = association.edge.archive.policy.find(message.command.destination or "")
    if entity is None or not entity.host or not entity.port:
        raise Refusal(Reason.UNKNOWN_DESTINATION, "move destination is not configured")
    return entity


def _move(
    association: Served, message: Message, instances: Sequence[StoredInstance], progress: Progress
) -> _Steps:
    if not instances:
        return
    archive = association.edge.archive
    entity = _destination(association, message)
    originator = (association.caller.request.calling, message.command.message_id or 0)
    deliver = Deliver(archive.retrieve, archive.objects, "c-move")
    parts = batches(instances, lambda each: (each.sop_class_uid, each.transfer_syntax_uid), _FALLBACKS)
    for number, (pairs, batch) in enumerate(parts):
        try:
            link = Link(archive.peers, entity, pairs)
        except Refusal as refusal:
            if refusal.reason is not Reason.UNAVAILABLE:
                raise
            for _, rest in parts[number:]:
                progress.fail(rest)
            return
        try:
            yield from deliver.run(batch, progress, link.accepts, partial(_send_to, link, originator))
        finally:
            link.close()


def _send_to(
    link: Link,
    originator: tuple[str, int],
    instance: StoredInstance,
    syntax_uid: str,
    dataset: Iterable[bytes],
    meanwhile: Callable[[], None],
) -> Answer:
    return link.send(
        instance.sop_class_uid, instance.sop_instance_uid, syntax_uid, dataset, originator, meanwhile
    )


def _get(
    association: Served, _message: Message, instances: Sequence[StoredInstance], progress: Progress
) -> _Steps:
    contexts = association.storable()

    def accepts(class_uid: str) -> list[str]:
        return [syntax for abstract, syntax in contexts if abstract == class_uid]

    def send(
        instance: StoredInstance, syntax_uid: str, dataset: Iterable[bytes], meanwhile: Callable[[], None]
    ) -> Answer:
        context_id = contexts[instance.sop_class_uid, syntax_uid]
        try:
            return Answer(
                association.store_at_peer(
                    context_id, instance.sop_class_uid, instance.sop_instance_uid, dataset, meanwhile
                )
            )
        except Refusal as refusal:
            # Bytes turned out wrong when the first of them had left: only an abort takes them back.
            association.hang_up()
            raise ConnectionLost from refusal

    archive = association.edge.archive
    yield from Deliver(archive.retrieve, archive.objects, "c-get").run(instances, progress, accepts, send)


def _values(attributes: Attributes, tag: str) -> list[str]:
    return [str(value) for value in attributes.get(tag, {}).get("Value", []) if value is not None]


def _single(attributes: Attributes, tag: str) -> str | None:
    values = _values(attributes, tag)
    if len(values) > 1:
        raise Refusal(Reason.MISMATCH, "several values of a unique key above the level")
    return values[0] if values else None
