"""Debian's Orthanc as a peer, with its DICOMweb plugin and, where a DSN is given, its PostgreSQL plugins.

Debian 12's Orthanc listens on every address whatever its settings say. It is therefore only started where
there is nothing but loopback (`make test` runs the tests in such a network namespace), or the lab's bridge.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from chaos.lab.network import CLIENT_PORT
from tests.support import free_port, require, wait_until

PLUGINS = Path("/usr/share/orthanc/plugins")


@dataclass
class Orthanc:
    """A running Orthanc."""

    dicom_port: int
    http_port: int
    process: subprocess.Popen[bytes]
    title: str = "ORTHANC"

    @property
    def url(self) -> str:
        """Its REST API."""
        return f"http://127.0.0.1:{self.http_port}"

    def get(self, path: str) -> Any:
        """The JSON answer to a GET."""
        answer = requests.get(f"{self.url}{path}", timeout=60)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Any) -> Any:
        """The JSON answer to a POST; bytes are sent as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body)
        answer = requests.post(f"{self.url}{path}", data=data, timeout=300)
        answer.raise_for_status()
        return answer.json()

    def delete(self, path: str) -> None:
        """DELETE a resource."""
        requests.delete(f"{self.url}{path}", timeout=60).raise_for_status()


def isolated() -> bool:
    """Whether this thread's network namespace has nothing but loopback, or is where a lab's clients stand."""
    net = Path("/proc/thread-self/net")  # /sys may still show the namespace it was mounted in
    interfaces = {line.split(":")[0].strip() for line in (net / "dev").read_text().splitlines()[2:]}
    routes = [line.split()[1] for line in (net / "route").read_text().splitlines()[1:]]
    return interfaces == {"lo"} or (interfaces == {"lo", CLIENT_PORT} and "00000000" not in routes)


@contextmanager
def running_orthanc(
    folder: Path,
    *,
    modalities: dict[str, tuple[str, str, int]] | None = None,
    dicomweb: dict[str, str] | None = None,
    postgres: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> Iterator[Orthanc]:
    """Start Orthanc in `folder`. `modalities`: name → (AE title, host, port); `dicomweb`: name → URL
    of servers it may talk to; `postgres`: its PostgreSQL section (index and storage)."""
    require("Orthanc")
    if not isolated():
        reason = "Orthanc listens on all addresses: needs a network namespace of its own (.ci/isolated)"
        if os.environ.get("STELE_TEST_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    dicom_port, http_port = free_port(), free_port()
    plugins = ["libOrthancDicomWeb.so"]
    if postgres:
        plugins += ["libOrthancPostgreSQLIndex.so", "libOrthancPostgreSQLStorage.so"]
    configuration = {
        "Name": "ORTHANC",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "RemoteAccessAllowed": True,
        "AuthenticationEnabled": False,
        "OverwriteInstances": False,
        "Plugins": [str(PLUGINS / plugin) for plugin in plugins],
        "DicomModalities": {
            name: {"AET": title, "Host": host, "Port": port, "AllowTranscoding": False}
            for name, (title, host, port) in (modalities or {}).items()
        },
        "DicomWeb": {
            "Enable": True,
            "Servers": {name: {"Url": url} for name, url in (dicomweb or {}).items()},
        },
        **({"PostgreSQL": postgres} if postgres else {}),
        **(settings or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "orthanc.json"
    file.write_text(json.dumps(configuration))
    environment = {**os.environ, "TCP_NODELAY": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(file)], stdout=log, stderr=log, env=environment)
    orthanc = Orthanc(dicom_port, http_port, process)

    def answers() -> bool:
        try:
            return requests.get(f"{orthanc.url}/system", timeout=2).ok
        except requests.RequestException:
            return process.poll() is not None

    try:
        wait_until(answers, 60, "Orthanc answers")
        assert process.poll() is None, (folder / "log").read_text()[-4000:]
        yield orthanc
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
