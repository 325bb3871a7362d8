"""A pynetdicom SCU in a process of its own, which it keeps busy.

It reads batches from standard input, one JSON object a line ({"address", "batch": [[class, UID, syntax,
content, path], …]}), and answers each with its operations, a line each, and an empty line. SIGTERM ends it
after the operation that has begun.
"""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pynetdicom import AE, _config
from pynetdicom.presentation import build_context

from chaos.corpus import Sample
from chaos.history import ASSOCIATE, Operation, Result
from chaos.target import Dicom
from chaos.traffic.programs import Programs
from chaos.traffic.sending import ACKNOWLEDGED

BATCH = 100  # instances per association
# Now and then pynetdicom's SCU overlooks that a connection is lost (against its own SCP, too) and waits out
# its time-out: shorter than the others', so that this is not taken for the archive's silence.
OPERATION_SECONDS = 10


# --- The client's side -------------------------------------------------------------------------------


def started(programs: Programs, client: str) -> AbstractContextManager["subprocess.Popen[str]"]:
    """The process, for `send`."""
    command = [sys.executable, "-m", "chaos.traffic.pynetdicom_scu", client]
    return programs.running(command, stdin=subprocess.PIPE)


def send(process: "subprocess.Popen[str]", address: Dicom, batch: list[Sample]) -> Iterator[Operation]:
    """Send a batch over one association. RuntimeError if the process has ended by itself."""
    jobs = [(each.sop_class, each.uid, each.syntax, each.content, str(each.path)) for each in batch]
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("pynetdicom's process has no pipes")
    try:
        process.stdin.write(json.dumps({"address": address.fields(), "batch": jobs}) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # no lines will come either
    for line in process.stdout:
        if line == "\n":
            return
        yield Operation.from_line(line)
    if process.wait() not in (0, -signal.SIGTERM):
        raise RuntimeError(f"pynetdicom's process ended: {process.returncode}")


# --- Its own side ------------------------------------------------------------------------------------


class _Scu:
    def __init__(self, client: str) -> None:
        self._client = client
        self._stopped = False
        self._sending = False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells all processes; the traffic decides

    def _stop(self, _number: int, _frame: Any) -> None:
        self._stopped = True
        if not self._sending:
            sys.exit(0)

    def run(self) -> None:
        _config.STORE_SEND_CHUNKED_DATASET = True  # the file's own bytes, not decoded and encoded again
        for line in sys.stdin:
            asked = json.loads(line)
            self._sending = True
            for operation in self._associated(Dicom.from_fields(asked["address"]), asked["batch"]):
                print(operation.line(), flush=True)
            self._sending = False
            if self._stopped:
                return
            print(flush=True)

    def _associated(self, address: Dicom, jobs: list[list[str]]) -> Iterator[Operation]:
        invoked = time.monotonic()
        contexts = [build_context(*pair) for pair in sorted({(job[0], job[2]) for job in jobs})]
        association = associate(address, OPERATION_SECONDS, contexts)
        if not association.is_established:
            result = Result.REFUSED if association.is_rejected else Result.UNKNOWN
            told = "rejected" if association.is_rejected else "no association"
            yield Operation(
                self._client, ASSOCIATE, "", "", invoked, time.monotonic(), result, told, address.name
            )
            return
        for _sop_class, uid, _syntax, content, path in jobs:
            if self._stopped:
                break
            operation = self._store(association, address, uid, content, path)
            yield operation
            if operation.result is Result.UNKNOWN:
                break
        if association.is_established:
            association.release()

    def _store(self, association: Any, address: Dicom, uid: str, content: str, path: str) -> Operation:
        invoked = time.monotonic()
        try:
            status = association.send_c_store(Path(path))
            answer = f"{status.Status:04X}" if "Status" in status else ""
        except (RuntimeError, ValueError):  # the association has ended
            answer = ""
        result = Result.OK if answer in ACKNOWLEDGED else Result.REFUSED if answer else Result.UNKNOWN
        told = answer or "association lost"
        ended = time.monotonic()
        return Operation(self._client, "C-STORE", uid, content, invoked, ended, result, told, address.name)


def associate(address: Dicom, seconds: float, contexts: list[Any], **options: Any) -> Any:
    """An association, established or not, that waits `seconds` for every answer."""
    ae = AE(address.calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = seconds
    context = address.context()
    tls = (context, address.tls.server_name) if context and address.tls else None
    association: Any = ae.associate(
        address.host, address.port, contexts, ae_title=address.called, tls_args=tls, **options
    )
    if association.is_established:
        _leave_answers_to_who_waits(association)
        # Command and dataset go in two writes, between which the kernel would wait for 40 ms
        association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return association


def _leave_answers_to_who_waits(association: Any) -> None:
    """pynetdicom's reactor looks for requests of the peer until it is paused for a `send_…`, and now and then
    once more: then it takes away the answer, or the word that none will come. An SCU is asked nothing but
    while it waits."""
    get = association.dimse.get_msg
    association.dimse.get_msg = lambda block=False: get(block=True) if block else (None, None)


if __name__ == "__main__":
    _Scu(sys.argv[1]).run()
