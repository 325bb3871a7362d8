"""Sending to a peer over as many associations as it takes: the one way out, for C-MOVE and `stele send`.

An association has 128 presentation contexts, so what is to be sent is parted by SOP class. One that is
lost is opened again, and the instance whose answer was lost with it is sent once more: a peer that has it
already says so, and its outcome is known. What fails twice counts as failed, and so does the rest when
`MAX_LOSSES` associations in a row have brought nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from node.domain.errors import Reason, Refusal
from node.domain.model import Answer, ApplicationEntity
from node.ports import Delivery, Peers

MAX_CONTEXTS = 128  # of an association: their IDs are the odd numbers of a byte (PS3.8 section 9.3.2.2)
MAX_LOSSES = 3
ATTEMPTS = 2  # for one instance

Pair = tuple[str, str]  # SOP class, transfer syntax
_Sent = TypeVar("_Sent")


def batches(
    items: Iterable[_Sent], pair_of: Callable[[_Sent], Pair], fallbacks: Sequence[str] = ()
) -> list[tuple[list[Pair], list[_Sent]]]:
    """Part `items` into batches that one association is enough for: (pairs to propose, items in order).

    All of a SOP class are in one batch: its pairs are those that occur, then those with `fallbacks`
    (transfer syntaxes).
    """
    by_class: dict[str, tuple[dict[Pair, None], list[_Sent]]] = {}
    for item in items:
        pair = pair_of(item)
        pairs, members = by_class.setdefault(pair[0], ({}, []))
        pairs[pair] = None
        members.append(item)
    found: list[tuple[list[Pair], list[_Sent]]] = []
    for class_uid, (pairs, members) in by_class.items():
        wanted = list(pairs | {(class_uid, syntax): None for syntax in fallbacks})
        if not found or len(found[-1][0]) + len(wanted) > MAX_CONTEXTS:
            found.append(([], []))
        found[-1][0].extend(wanted[:MAX_CONTEXTS])
        found[-1][1].extend(members)
    return found


class Link:
    """An association to `entity` for `pairs`, opened again if it is lost; used by one thread.

    Refusal(UNAVAILABLE) if it cannot be opened at first.
    """

    def __init__(self, peers: Peers, entity: ApplicationEntity, pairs: Sequence[Pair]) -> None:
        self._peers = peers
        self._entity = entity
        self._pairs = pairs
        self._losses = 0  # since something was last answered
        self._delivery: Delivery | None = self._peers.connect(self._entity, self._pairs)

    def accepts(self, sop_class_uid: str) -> Sequence[str]:
        """Transfer syntaxes that the peer accepts for a SOP class; () if there is no association and none
        to be had any more."""
        delivery = self._opened()
        return delivery.accepts(sop_class_uid) if delivery is not None else ()

    def send(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        dataset: Iterable[bytes],
        originator: tuple[str, int] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Answer:
        """C-STORE a dataset, which must give its pieces anew each time that it is gone through. `meanwhile`
        is called while the peer works, each time.

        Refusal(UNAVAILABLE) if the association is lost over it time and again; what the dataset raises.
        """
        for attempt in range(1, ATTEMPTS + 1):
            delivery = self._opened()
            if delivery is None or transfer_syntax_uid not in delivery.accepts(sop_class_uid):
                break
            try:
                answer = delivery.send(
                    sop_class_uid, sop_instance_uid, transfer_syntax_uid, dataset, originator, meanwhile
                )
            except Refusal as refusal:
                self._losses += 1
                self._delivery = None
                if refusal.reason is not Reason.UNAVAILABLE or attempt == ATTEMPTS:
                    raise
            except BaseException:
                self._losses += 1
                self._delivery = None
                raise
            else:
                self._losses = 0
                return answer
        raise Refusal(Reason.UNAVAILABLE, "association lost")

    def close(self) -> None:
        """Release the association; the link is not used afterwards."""
        if self._delivery is not None:
            self._delivery.close()
        self._delivery = None
        self._losses = MAX_LOSSES

    def _opened(self) -> Delivery | None:
        if self._delivery is None and self._losses < MAX_LOSSES:
            try:
                self._delivery = self._peers.connect(self._entity, self._pairs)
            except Refusal:
                self._losses = MAX_LOSSES  # it was there a moment ago, and is not any more
        return self._delivery
