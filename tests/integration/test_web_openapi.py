"""The OpenAPI description held against the answers by schemathesis."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import corpus
from tests.archive import running_archive

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"


@pytest.mark.slow
def test_what_is_described_is_what_is_answered(tmp_path: Path) -> None:
    with running_archive(tmp_path / "data") as archive:
        corpus.write(corpus.ct_series(2, size=32), tmp_path / "send")
        send = [sys.executable, "-m", "node.cli", "send", str(tmp_path / "send")]
        subprocess.run([*send, f"127.0.0.1:{archive.dicom_port}"], check=True, timeout=60)
        command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
        command += [f"{archive.base_url}/openapi.json", "--checks", CHECKS, "--max-examples", "15"]
        # schemathesis has no DICOM to post; STOW-RS has its own tests
        command += ["--exclude-method", "POST"]
        command += ["--phases", "examples,coverage,fuzzing", "--seed", "1", "--request-timeout", "30"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout[-6000:]
