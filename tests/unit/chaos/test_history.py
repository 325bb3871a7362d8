"""The clients' log on disk."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.history import Follower, History, Operation, Result, content_of, read

STORED = Operation("client", "C-STORE", "1.2", "1.2.840 aa", 1.0, 2.5, Result.OK, "0000", "10.0.0.1:104")
READ = Operation("reader", "QIDO-RS", "1.2", "", 3.0, 4.0, Result.UNKNOWN, "ReadTimeout", "https://a")


def test_what_was_added_is_read_again_from_all_files(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    first, second = map(History, paths)
    first.describe(7, 100)
    first.add(STORED)
    second.add(READ)
    History(paths[1]).add(STORED)  # another run, or another process
    recorded = read(paths)
    assert recorded.operations == [STORED, READ, STORED]
    assert [run for run in recorded.runs if run] == [[STORED], [READ, STORED]]
    assert recorded.corpora == [(7, 100)]
    assert Operation.from_line(STORED.line()) == STORED


def test_a_new_corpus_begins_a_new_run(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    history.describe(1, 10)
    history.add(STORED)
    history.describe(2, 10)
    history.add(READ)
    assert [run for run in read([tmp_path / "history"]).runs if run] == [[STORED], [READ]]


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text(f"{STORED.line()}\n{READ.line()[:40]}")
    assert read([path]).operations == [STORED]


def test_a_follower_reads_what_has_been_added(tmp_path: Path) -> None:
    path = tmp_path / "history"
    follower = Follower(path)
    assert follower.operations() == []
    path.write_text(f"{STORED.line()}\n{READ.line()[:40]}")
    assert follower.operations() == follower.operations() == [STORED]
    with path.open("a") as file:
        file.write(f'{READ.line()[40:]}\n{{"corpus": [1, 10]}}\n{STORED.line()}\n')
    assert follower.operations() == [STORED, READ, STORED] == read([path]).operations


@pytest.mark.parametrize("line", ["", "{", "[]", '{"client": "x"}', '{"corpus": 1}'])
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history"
    path.write_text(f"{STORED.line()}\n{line}\n")
    with pytest.raises(ValueError, match="history, line 2"):
        read([path])


def test_instances_count_as_acknowledged_once_and_the_latest_are_last() -> None:
    history = History()
    for uid, result in (("1", Result.OK), ("2", Result.REFUSED), ("3", Result.OK), ("1", Result.OK)):
        history.add(Operation("client", "STOW-RS", uid, "", 1.0, 2.0, result, ""))
    history.add(READ)
    assert history.acknowledged == 2
    assert history.latest(5) == ["1", "3"]
    assert history.latest(1) == ["3"]


def test_the_transfer_syntax_is_part_of_what_was_sent() -> None:
    assert content_of("1.2", b"bytes") != content_of("1.3", b"bytes")
    assert content_of("1.2", b"bytes") != content_of("1.2", b"bytez")


def test_the_clock_is_the_same_in_every_process() -> None:
    before = time.monotonic()
    asked = [sys.executable, "-c", "import time; print(time.monotonic())"]
    meanwhile = float(subprocess.run(asked, capture_output=True, check=True, text=True).stdout)
    assert before < meanwhile < time.monotonic()
