"""A pynetdicom SCU that sends what it is told on standard input, with retries, and reports each operation.

python -m tests.kills.pynetdicom_scu PORT NAME   < [[class, uid, syntax, content, path], …]
"""

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from pynetdicom import AE, _config
from pynetdicom.presentation import build_context

from tests.kills.log import Operation, Result

BATCH = 100  # per association
# Of a hundred connections that are lost, pynetdicom's SCU overlooks about one (against its own SCP, too) and
# waits out its time-out: shorter than the others', so that this is not taken for the archive's silence.
OPERATION_SECONDS = 10
PAUSE_SECONDS = 0.2
Job = tuple[str, str, str, str, str]


def main(port: int, name: str, jobs: list[Job]) -> None:
    """Send until everything has a final answer."""
    _config.STORE_SEND_CHUNKED_DATASET = True  # the file's own bytes, not decoded and encoded again
    left = {job[1]: job for job in jobs}
    while left:
        before = len(left)
        for operation in attempt(port, name, list(left.values())[:BATCH]):
            print(operation.line(), flush=True)
            if operation.result is Result.OK or operation.status.startswith("C"):
                left.pop(operation.uid)
        if len(left) == before:
            time.sleep(PAUSE_SECONDS)  # a modality's pause before it tries again


def attempt(port: int, name: str, jobs: list[Job]) -> list[Operation]:
    """One association."""
    ae = AE(name.upper())
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = OPERATION_SECONDS
    pairs = sorted({(job[0], job[2]) for job in jobs})
    contexts = [build_context(sop_class, [syntax]) for sop_class, syntax in pairs]
    association = ae.associate("127.0.0.1", port, contexts, ae_title="STELE")
    done: list[Operation] = []
    if not association.is_established:
        return done
    without_delay(association)
    for _sop_class, uid, _syntax, content, path in jobs:
        invoked = time.monotonic()
        try:
            status = association.send_c_store(Path(path))
            answer = f"{status.Status:04X}" if "Status" in status else ""
        except (RuntimeError, ValueError):  # the association has ended
            answer = ""
        result = {"0000": Result.OK, "": Result.UNKNOWN}.get(answer, Result.REFUSED)
        what = answer or "association lost"
        done.append(Operation(name, "C-STORE", uid, content, invoked, time.monotonic(), result, what))
        if result is Result.UNKNOWN:
            break
    if association.is_established:
        association.release()
    return done


def without_delay(association: Any) -> None:
    """Command and dataset go in two writes, between which the kernel would wait for 40 ms."""
    association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], [tuple(job) for job in json.load(sys.stdin)])
