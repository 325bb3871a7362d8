"""A person opens the viewer, finds a study and looks at it, in Chromium."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from tests import corpus
from tests.archive import Archive
from tests.browser.viewing import Viewing

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SYNTAX_STUDY = corpus.Study(corpus.Person("PHANTOM^SYNTAX", "PHANTOM-SYNTAX"), description="All syntaxes")


def brain() -> list[FileDataset]:
    """A stretch of the real brain MR, in the viewer's order: the highest slice first."""
    return list(itertools.islice(corpus.mricron_mr(), 96, 136))[::-1]


def in_every_syntax() -> list[FileDataset]:
    """A series of two slices for each transfer syntax, which names the series."""
    made = []
    for number, syntax in enumerate(corpus.TRANSFER_SYNTAXES, 1):
        for ds in corpus.ct_series(2, 256, study=SYNTAX_STUDY, series=number, transfer_syntax=syntax):
            ds.SeriesDescription = syntax
            made.append(ds)
    return made


@pytest.fixture(scope="module")
def slices(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> list[FileDataset]:
    """The brain's slices; they and the other studies are in the archive, sent as a modality would."""
    shown = corpus.available(brain)
    folder = tmp_path_factory.mktemp("send")
    corpus.write([*shown, *in_every_syntax()], folder)
    send(folder, archive)
    return shown


def send(folder: Path, archive: Archive) -> None:
    """Send a folder by C-STORE."""
    command = [sys.executable, "-m", "node.cli", "send", str(folder), f"127.0.0.1:{archive.dicom_port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_study_is_found_in_the_list_and_shown(viewing: Viewing, slices: list[FileDataset]) -> None:
    viewing.open_list()
    row = viewing.page.get_by_role("row").filter(has_text="PHANTOM, BRAIN")
    row.wait_for()
    assert "02-Jan-2024" in row.inner_text() and "MR" in row.inner_text()
    assert row.inner_text().split()[-1] == str(len(slices))
    viewing.screenshot("study-list")
    row.dblclick()
    viewing.wait_for_position(1, len(slices))
    viewing.wait_for_image(slices[0])
    viewing.screenshot("study")
    assert viewing.page.get_by_text("T1 axial").count() > 0
    assert viewing.foreign == []
    assert viewing.complaints == []


def test_scrolling_shows_each_slice_in_its_place(viewing: Viewing, slices: list[FileDataset]) -> None:
    viewing.open_study(slices[0].StudyInstanceUID)
    viewing.wait_for_position(1, len(slices))
    viewing.wait_for_image(slices[0])
    assert viewing.likeness(slices[-1]) < viewing.likeness(slices[0]) - 0.02, "the slices can be told apart"
    viewing.scroll(len(slices) + 2)
    viewing.wait_for_position(len(slices), len(slices))
    viewing.wait_for_image(slices[-1])
    viewing.screenshot("last-slice")
    assert viewing.complaints == []


def test_every_transfer_syntax_is_decoded(viewing: Viewing, slices: list[FileDataset]) -> None:
    """The decoders run in workers under the viewer's content security policy."""
    *_, expected = corpus.ct_series(2, 256, study=SYNTAX_STUDY)
    viewing.open_study(SYNTAX_STUDY.study_uid)
    series = viewing.page.locator("[data-cy=study-browser-thumbnail]")
    series.first.wait_for()
    for syntax in corpus.TRANSFER_SYNTAXES:
        described = viewing.page.get_by_text(syntax, exact=True)
        series.filter(has=described).dblclick()
        overlay = viewing.page.locator("[data-cy=viewport-overlay-top-left]")
        overlay.get_by_text(syntax, exact=True).wait_for()
        viewing.wait_for_position(1, 2)
        viewing.wait_for_image(expected)
    assert series.count() == len(corpus.TRANSFER_SYNTAXES)
    assert viewing.foreign == []
    assert viewing.complaints == []


def test_a_reload_takes_the_distribution_from_the_cache(viewing: Viewing, slices: list[FileDataset]) -> None:
    viewing.open_study(slices[0].StudyInstanceUID)
    viewing.wait_for_image(slices[0])
    viewing.page.reload()
    viewing.wait_for_image(slices[0])
    loaded = viewing.page.evaluate(
        "performance.getEntriesByType('resource').map(entry => [entry.name, entry.transferSize])"
    )
    distribution = {address: size for address, size in loaded if "/viewer/dist-" in address}
    assert len(distribution) > 20
    assert [address for address, size in distribution.items() if size > 0] == []
