"""`make run`: an archive with a real study in it, until Ctrl-C.

The archive keeps its data in `.stele` beside the Makefile, so that it is still there the next time. A
brain MR out of Debian's mricron-data is turned into DICOM and sent by C-STORE like any modality would.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from tests.support import wait_until

TOP = Path(__file__).parent.parent
DATA = TOP / ".stele"
DICOM_PORT = int(os.environ.get("DICOM_PORT", "11112"))
HTTP_PORT = int(os.environ.get("HTTP_PORT", "8042"))
WEB = f"http://127.0.0.1:{HTTP_PORT}"


def main() -> int:
    """Serve, load, say where to look, wait."""
    stele = [sys.executable, "-m", "node.cli"]
    ports = ["--dicom-port", str(DICOM_PORT), "--http-port", str(HTTP_PORT)]
    DATA.mkdir(exist_ok=True)
    with (DATA / "log").open("ab") as log:
        archive = subprocess.Popen([*stele, "serve", "--demo", "--data", str(DATA), *ports], stderr=log)
    signal.signal(signal.SIGTERM, lambda _number, _frame: archive.terminate())
    try:
        wait_until(lambda: ready() or archive.poll() is not None, 60, f"archive ready; see {DATA / 'log'}")
        if archive.poll() is not None:
            print(f"The archive did not start; see {DATA / 'log'}", file=sys.stderr)
            return 1
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "tests.corpus", "demo", folder], check=True)
            subprocess.run([*stele, "send", folder, f"127.0.0.1:{DICOM_PORT}"], check=True)
        print(where_to_look(), flush=True)
        return archive.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        archive.terminate()
        archive.wait()


def ready() -> bool:
    """Whether the archive serves."""
    try:
        with urllib.request.urlopen(f"{WEB}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def where_to_look() -> str:
    """The addresses, with the study that was loaded."""
    with urllib.request.urlopen(f"{WEB}/dicom-web/studies", timeout=30) as answer:
        studies = json.load(answer)
    lines = ["", "The archive is running. Studies in it:"]
    for study in studies:
        uid = study["0020000D"]["Value"][0]
        lines.append(f"  {WEB}/viewer/viewer?StudyInstanceUIDs={uid}")
    lines += [
        f"All studies:  {WEB}/viewer/",
        f"DICOMweb:     {WEB}/dicom-web",
        f"DICOM:        findscu -S -aec STELE -k QueryRetrieveLevel=STUDY -k StudyInstanceUID -k PatientName "
        f"127.0.0.1 {DICOM_PORT}",
        "Stop with Ctrl-C; the data stays in .stele",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
