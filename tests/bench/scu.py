"""The files of the benchmark's corpus, for `chaos.bench.flood` to send them.

python -m tests.bench.scu PORT AE FILE COUNT ASSOCIATIONS   → JSON {"seconds", "ok", "failed"}
"""

import json
import sys
from pathlib import Path

import pydicom

from chaos.bench import flood
from chaos.bench.flood import Image
from chaos.target import Dicom
from chaos.traffic.association import Association


def prepare(path: Path) -> Image:
    """Read a Part 10 file; its UIDs should be 64 characters long, as the corpus makes them."""
    dataset = pydicom.dcmread(path)
    raw = path.read_bytes()
    start = 132 + 12 + int(dataset.file_meta.FileMetaInformationGroupLength)
    return Image(
        str(dataset.SOPClassUID),
        str(dataset.file_meta.TransferSyntaxUID),
        raw[start:],
        str(dataset.SOPInstanceUID).encode(),
        str(dataset.StudyInstanceUID).encode(),
        str(dataset.SeriesInstanceUID).encode(),
    )


def associate(port: int, called: str, sop_class: str, syntax: str) -> Association:
    """An association with a server on loopback."""
    return Association(_address(port, called), sop_class, syntax, seconds=flood.RESPONSE_SECONDS)


def run(port: int, called: str, path: Path, count: int, associations: int) -> dict[str, float]:
    """Send `count` instances over each of `associations` at once: seconds, ok, failed."""
    sent = flood.send(_address(port, called), prepare(path), associations, count)
    return {"seconds": sent.seconds, "ok": sent.stored, "failed": sent.failed}


def _address(port: int, called: str) -> Dicom:
    return Dicom("127.0.0.1", port, called, "BENCH")


if __name__ == "__main__":
    port, called, path, count, associations = sys.argv[1:]
    print(json.dumps(run(int(port), called, Path(path), int(count), int(associations))))
