"""Two clients at a time send the same UID with different bytes: one by C-STORE, one by STOW-RS.

With several addresses the two of a pair go to different ones, so that they meet in the catalog only.
"""

import threading
import time
from collections.abc import Callable, Sequence

from chaos.corpus import Sample
from chaos.history import Operation
from chaos.target import OPERATION_SECONDS, Dicom, WebSession
from chaos.traffic.association import Association
from chaos.traffic.sending import Sender, answered, rotated, unknown
from chaos.traffic.stow import stow

CLIENTS = "racer-dicom", "racer-stow"


class Racers:
    """`guarded(name, job)` runs a job so that its own faults are noticed."""

    def __init__(
        self,
        sender: Sender,
        dicom: Sequence[Dicom],
        web: Sequence[WebSession],
        guarded: Callable[[str, Callable[[], None]], None],
    ) -> None:
        self._sender = sender
        self._dicom = dicom
        self._web = web
        self._guarded = guarded

    def race(self, originals: Sequence[Sample], rivals: Sequence[Sample], rate: float | None) -> None:
        """One pair after the other, `rate` pairs per second."""
        began = time.monotonic()
        for number, (original, rival) in enumerate(zip(originals, rivals, strict=True)):
            if rate is not None:
                self._sender.stop.wait(max(0.0, began + number / rate - time.monotonic()))
            if self._sender.stop.is_set():
                return
            self._pair(number, original, rival)

    def _pair(self, number: int, original: Sample, rival: Sample) -> None:
        start = threading.Barrier(2)
        dicom = rotated(self._dicom, number)
        web = rotated(self._web, number + 1)
        other = threading.Thread(
            target=self._guarded, args=(CLIENTS[0], lambda: self._c_store(original, dicom, start))
        )
        other.start()
        start.wait(2 * OPERATION_SECONDS)
        self._sender.send([rival], web, lambda session, left: stow(session, CLIENTS[1], left), batch=1)
        other.join()

    def _c_store(self, sample: Sample, addresses: Sequence[Dicom], start: threading.Barrier) -> None:
        # Associated before the start, so that the race is between the stores
        ready: Association | None = None
        try:
            ready = Association(addresses[0], sample.sop_class, sample.syntax)
        except OSError:
            pass  # no association yet: the attempt makes one
        start.wait(2 * OPERATION_SECONDS)

        def attempt(address: Dicom, _left: list[Sample]) -> list[Operation]:
            nonlocal ready
            invoked = time.monotonic()
            association, ready = ready, None
            try:
                association = association or Association(address, sample.sop_class, sample.syntax)
                status = association.store(1, sample.uid, sample.dataset())
            except OSError as error:
                told = type(error).__name__
                return [unknown(CLIENTS[0], "C-STORE", sample, invoked, told, address.name)]
            finally:
                if association is not None:
                    _release(association)
            return [answered(CLIENTS[0], "C-STORE", sample, invoked, f"{status:04X}", address.name)]

        self._sender.send([sample], addresses, attempt, batch=1)


def _release(association: Association) -> None:
    try:
        association.release()
    except OSError:
        association.close()  # it is over anyway
