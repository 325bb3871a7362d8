"""The clients of the cluster's benchmark, against the archive that it is compared with."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from chaos.bench import embedded, flood
from chaos.bench.download import download
from chaos.bench.embedded import Embedded

IMAGE = flood.ct(1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    folder = tmp_path_factory.mktemp("bench")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    with embedded.running(folder) as running:
        yield running


def test_what_was_sent_can_be_fetched(archive: Embedded) -> None:
    sent = flood.send(archive.dicom, IMAGE, 2, 5)
    assert (sent.stored, sent.failed) == (10, 0)
    assert sent.seconds > 0
    assert len(set(sent.studies)) == 2
    got = download(archive.web, list(sent.studies))
    assert 10 * len(IMAGE.dataset) < got.size < 10 * len(IMAGE.dataset) + 20_000
    assert got.seconds > 0


def test_it_sends_for_a_while(archive: Embedded) -> None:
    sent = flood.send(archive.dicom, IMAGE, 2, seconds=1.0)
    assert sent.stored > 2
    assert 1.0 <= sent.seconds < 30


def test_what_is_refused_is_counted(archive: Embedded) -> None:
    broken = replace(IMAGE, dataset=IMAGE.dataset[:-2])  # the pixel data's length does not add up
    sent = flood.send(archive.dicom, broken, 2, 3)
    assert (sent.stored, sent.failed) == (0, 6)


def test_who_does_not_answer_and_what_is_not_there_are_errors(archive: Embedded) -> None:
    with pytest.raises(ConnectionError, match="refused"):
        flood.send(replace(archive.dicom, port=1), IMAGE, 2, 1)
    with pytest.raises(ConnectionError, match="WADO-RS: 404"):
        download(archive.web, ["2.25.1"])
