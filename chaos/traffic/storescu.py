"""DCMTK's storescu; its operations are read off its log as they happen."""

import re
import subprocess
import time
from collections.abc import Iterator

from chaos.corpus import Sample
from chaos.history import ASSOCIATE, CONFLICT, Operation, Result
from chaos.target import CONNECT_SECONDS, OPERATION_SECONDS, Dicom
from chaos.traffic.programs import Programs
from chaos.traffic.sending import answered, unknown

BATCH = 150  # instances per association
_PATIENCE = ("-to", f"{CONNECT_SECONDS:g}", "-ta", f"{OPERATION_SECONDS:g}", "-td", f"{OPERATION_SECONDS:g}")
_STATUS = {
    "Success": "0000",
    "Warning: CoercionOfDataElements": "B000",
    "Warning: ElementsDiscarded": "B006",
    "Warning: DataSetDoesNotMatchSOPClass": "B007",
    "Refused: OutOfResources": "A700",
    "Error: DataSetDoesNotMatchSOPClass": "A900",
    "Error: CannotUnderstand": CONFLICT,  # DCMTK tells the class of Cxxx only
}


def storescu(programs: Programs, client: str, address: Dicom, batch: list[Sample]) -> Iterator[Operation]:
    """Send a batch over one association."""
    by_path = {str(each.path): each for each in batch}
    # -nh: the next one also after a refusal; -R -xr: propose what the files hold, RLE too
    command = ["storescu", *address.dcmtk("-v", "-nh", "-R", "-xr", *_PATIENCE), *by_path]
    current: Sample | None = None
    invoked = time.monotonic()
    begun, refused = False, False
    with programs.running(command, stdin=subprocess.DEVNULL, errors=subprocess.STDOUT) as program:
        for line in program.stdout or ():
            if sending := re.search(r"I: Sending file: (.*)$", line):
                current, invoked, begun = by_path[sending[1].strip()], time.monotonic(), True
            elif (answer := re.search(r"I: Received Store Response \((.*)\)", line)) and current is not None:
                status = _status(answer[1])
                yield answered(client, "C-STORE", current, invoked, status, address.name)
                current = None
            elif "Association Rejected" in line:
                refused = True
    if current is not None:
        yield unknown(client, "C-STORE", current, invoked, "association lost", address.name)
    elif not begun:
        result = Result.REFUSED if refused else Result.UNKNOWN
        told = "rejected" if refused else "no association"
        yield Operation(client, ASSOCIATE, "", "", invoked, time.monotonic(), result, told, address.name)


def _status(told: str) -> str:
    number = re.search(r"0x([0-9A-Fa-f]{4})", told)
    return number[1].upper() if number else _STATUS.get(told, told)
