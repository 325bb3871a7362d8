"""Datasets to bytes and folders, and what a test does when real images are missing."""

import os
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from pydicom.dataset import FileDataset

from tests.corpus.real import Missing

Images = TypeVar("Images")


def encode(ds: FileDataset) -> bytes:
    """One dataset as a DICOM file (PS3.10 chapter 7)."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write(datasets: Iterable[FileDataset], folder: Path) -> list[Path]:
    """Write each dataset to `folder`/<SOP Instance UID>.dcm; returns the paths in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ds in datasets:
        path = folder / f"{ds.SOPInstanceUID}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def available(source: Callable[[], Iterable[Images]]) -> list[Images]:
    """All that `source` gives, for a test: where it is missing the test is skipped, with the reason.

    With STELE_TEST_REQUIRE_ALL=1 the test fails instead.
    """
    try:
        return list(source())
    except Missing as missing:
        import pytest  # not at the top: `make run` writes its study without the test tools

        if os.environ.get("STELE_TEST_REQUIRE_ALL") == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
