"""Record associations: clients talk to an archive that says yes, through a relay that keeps their bytes."""

import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE
from pynetdicom.presentation import build_context

from node.config import Settings
from node.dimse import serve
from tests.corpus.associations import FOLDER
from tests.corpus.generated import many_studies
from tests.integration.dimse_peer import CT, VERIFICATION
from tests.orthanc import running_orthanc
from tests.support import free_port
from tests.unit.dimse.conversations import Ingest, archive_keeping

CLIENTS: dict[str, list[str]] = {
    "dcmtk-echoscu": ["echoscu", "--repeat", "3"],
    "dcmtk-echoscu-many": ["echoscu", "--propose-ts", "38", "--propose-pc", "20"],
    "dcmtk-echoscu-abort": ["echoscu", "--abort"],
    "dcmtk-storescu": ["storescu", "-R"],
    "dcmtk-storescu-all-classes": ["storescu"],
    "dcmtk-storescu-combined": ["storescu", "+C", "-R"],
    "dcmtk-storescu-implicit": ["storescu", "-R", "-xi"],
    "dcmtk-storescu-big-endian": ["storescu", "-R", "-xb", "+C"],
    "dcmtk-storescu-lossless": ["storescu", "-R", "-xs"],
    "dcmtk-storescu-jpeg-2000": ["storescu", "-R", "-xv"],
    "dcmtk-storescu-deflated": ["storescu", "-R", "-xd"],
    "dcmtk-storescu-rle": ["storescu", "-R", "-xr"],
    "dcmtk-storescu-repeat": ["storescu", "-R", "--repeat", "4"],
    "dcmtk-storescu-abort": ["storescu", "-R", "--abort"],
    "dcmtk-dcmsend": ["dcmsend", "+sd"],
}


SMALL_PDU_BYTES = 512


class Relay:
    """Passes bytes on both ways between clients, one after the other, and a DICOM port."""

    def __init__(self) -> None:
        self.to_port = 0
        self._sent = bytearray()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])

    def record(self, name: str, client: Callable[[], object]) -> None:
        """Let a client talk once and keep what it says."""
        self._sent.clear()
        relaying = threading.Thread(target=self._relay)
        relaying.start()
        client()
        relaying.join(30)
        assert not relaying.is_alive(), name
        (FOLDER / f"{name}.bin").write_bytes(self._sent)
        sys.stdout.write(f"{name}: {len(self._sent)} bytes\n")

    def _relay(self) -> None:
        client, _ = self._listening.accept()
        with client, socket.create_connection(("127.0.0.1", self.to_port)) as server:
            back = threading.Thread(target=_pass_on, args=(server, client))
            back.start()
            while data := client.recv(65536):
                self._sent += data
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            back.join()


def _pass_on(source: socket.socket, to: socket.socket) -> None:
    while data := source.recv(65536):
        to.sendall(data)
    to.shutdown(socket.SHUT_WR)


@contextmanager
def keeping_nothing(**dicom: object) -> Iterator[int]:
    """The port of an archive that says yes; `dicom`: settings other than the defaults, in any range."""
    settings = Settings.model_validate({"data": "/nonexistent", "catalog": {"dsn": "none"}})
    port = free_port()
    section = settings.dicom.model_copy(update={"host": "127.0.0.1", "port": port, **dicom})
    listener = serve.listener(settings.model_copy(update={"dicom": section}), archive_keeping(Ingest()))
    listener.start()
    try:
        yield port
    finally:
        listener.stop(5)


def images(folder: Path) -> list[Path]:
    """A few generated images of two studies, as small as images are."""
    paths = []
    for number, image in enumerate(many_studies(1, 2)):
        image.Rows, image.Columns, image.PixelData = 4, 4, bytes(range(32))
        paths.append(folder / f"{number}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


def with_dcmtk(command: list[str], port: int, files: list[Path]) -> None:
    """One of its clients; some of them say that they have failed, which is theirs to say."""
    if command[0] == "echoscu":
        files = []
    elif command[-1] == "+sd":
        files = [files[0].parent]
    arguments = [command[0], "-aec", "STELE", *command[1:], "127.0.0.1", str(port), *map(str, files)]
    subprocess.run(arguments, check=False)


def with_pynetdicom(port: int, files: list[Path]) -> None:
    """Propose known and unknown classes, echo, store, and release."""
    asked = [build_context(SecondaryCaptureImageStorage), build_context(VERIFICATION)]
    asked += [build_context(CT, [ExplicitVRBigEndian, ImplicitVRLittleEndian]), build_context("1.2.3.4.5")]
    association = AE("PYNETDICOM").associate("127.0.0.1", port, asked, ae_title="STELE")
    assert association.is_established
    association.send_c_echo()
    for path in files:
        association.send_c_store(path)
    association.release()


def with_orthanc(relay: Relay, folder: Path, files: list[Path]) -> None:
    """Store all images; it releases when it has been idle for a while."""
    with running_orthanc(folder, modalities={"archive": ("STELE", "127.0.0.1", relay.port)}) as orthanc:
        for path in files:
            orthanc.post("/instances", path.read_bytes())
        instances = orthanc.get("/instances")
        relay.record("orthanc-store", lambda: orthanc.post("/modalities/archive/store", instances))


def main() -> None:
    """Record all of them."""
    relay = Relay()
    with tempfile.TemporaryDirectory() as work:
        files = images(Path(work))
        with keeping_nothing() as relay.to_port:
            for name, command in CLIENTS.items():
                relay.record(name, partial(with_dcmtk, command, relay.port, files))
            relay.record("pynetdicom", partial(with_pynetdicom, relay.port, files))
            with_orthanc(relay, Path(work) / "orthanc", files)
        with keeping_nothing(max_pdu_bytes=SMALL_PDU_BYTES) as relay.to_port:
            relay.record("pynetdicom-small-pdus", partial(with_pynetdicom, relay.port, files))
            command = ["storescu", "-R"]
            relay.record("dcmtk-storescu-small-pdus", partial(with_dcmtk, command, relay.port, files))


if __name__ == "__main__":
    main()
