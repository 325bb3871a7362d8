"""`python -m chaos.traffic`: send a corpus and read it, until all is answered, time is up, or SIGTERM comes.

The last line on standard output is a JSON object with how it ended. Exit codes: 0; 1 if a client failed by
itself; 2 for wrong options.
"""

import argparse
import json
import math
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from chaos import corpus, options
from chaos.error_pages import ErrorPages
from chaos.history import DELETE, READS, STORES, History, Result
from chaos.recovery import longest_gap
from chaos.traffic.traffic import Load, Targets, Traffic

POLL_SECONDS = 0.2


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m chaos.traffic", description=__doc__)
    options.add(parser)
    parser.add_argument("--read", metavar="URL", action="append", help="read here, too; default: --http")
    parser.add_argument("--race-dicom", metavar="HOST:PORT", action="append", help="default: --dicom")
    parser.add_argument("--race-http", metavar="URL", action="append", help="race here; default: --http")
    parser.add_argument("--history", metavar="FILE", type=Path, required=True, help="appended to")
    parser.add_argument("--seed", type=int, required=True, help="of the corpus: others have other patients")
    parser.add_argument("--count", type=int, help="instances; default: as many as rate and seconds need")
    parser.add_argument("--rate", type=float, help="instances per second; default: as fast as it goes")
    parser.add_argument("--read-rate", type=float, default=5.0, help="reads per second at each address")
    parser.add_argument("--delete-rate", type=float, default=0.0, help="deletions per second; none")
    parser.add_argument("--delete-token-file", metavar="FILE", type=Path, help="of somebody who may delete")
    parser.add_argument("--seconds", type=float, help="end after so long; default: when all is answered")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = arguments()
    given = parser.parse_args(argv)
    if given.count is None:
        if given.rate is None or given.seconds is None:
            parser.error("--count, or both --rate and --seconds")
        given.count = math.ceil(given.rate * given.seconds)
    if given.count < 1 or (given.rate is not None and given.rate <= 0) or given.read_rate <= 0:
        parser.error("--count, --rate and --read-rate have to be more than nothing")
    if given.delete_rate < 0:
        parser.error("--delete-rate cannot be less than nothing")
    try:
        where = options.Addresses(given)
        targets = Targets(
            where.dicom(given.dicom),
            where.web(given.http),
            where.web(given.read or given.http),
            where.dicom(given.race_dicom or given.dicom),
            where.web(given.race_http or given.http),
            where.deleting(given.http[0], given.delete_token_file) if given.delete_rate else None,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _setting(stop))
    history = History(given.history)
    history.describe(given.seed, given.count)
    pages = ErrorPages(given.history.with_name(f"{given.history.name}.pages"))
    traffic = Traffic(targets, history, pages, Load(given.rate, given.read_rate, given.delete_rate))
    with tempfile.TemporaryDirectory(prefix="stele-traffic-") as folder:
        made = corpus.make(Path(folder) / "corpus", given.count, given.seed)
        began = time.monotonic()
        traffic.start(made, given.seed)
        while traffic.sending and not stop.is_set():
            if given.seconds is not None and time.monotonic() - began >= given.seconds:
                break
            stop.wait(POLL_SECONDS)
        finished = not traffic.sending
        traffic.stop()
    print(json.dumps({"finished": finished, **summary(history)}), flush=True)
    for fault in traffic.faults:
        print(f"stele traffic: {fault}", file=sys.stderr)
    return 1 if traffic.faults else 0


def _setting(stop: threading.Event) -> Callable[[int, FrameType | None], None]:
    return lambda _number, _frame: stop.set()


def summary(history: History) -> dict[str, object]:
    """How a run ended: instances acknowledged, stores by result, the longest gap and operation in seconds."""
    operations = history.operations
    gap = longest_gap(operations)
    stores = [each for each in operations if each.kind in STORES]
    return {
        "acknowledged": history.acknowledged,
        "stores": {result.value: sum(each.result is result for each in stores) for result in Result},
        "reads": sum(each.kind in READS for each in operations),
        "deletions": sum(each.kind == DELETE for each in operations),
        "longest_gap_seconds": round(gap.seconds, 3) if gap else None,
        "longest_operation_seconds": round(
            max((each.returned - each.invoked for each in operations), default=0.0), 3
        ),
    }
