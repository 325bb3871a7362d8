"""Options of the suite's programs: wrong ones are refused before anything begins."""

from pathlib import Path

import pytest

from chaos.traffic import cli as traffic


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ([], "--count, or both"),
        (["--rate", "5"], "--count, or both"),
        (["--count", "0"], "more than nothing"),
        (["--count", "1", "--rate", "0"], "more than nothing"),
        (["--count", "1", "--dicom", "nowhere"], "nowhere: not HOST:PORT"),
        (["--count", "1", "--http", "ftp://x"], "ftp://x: not an http or https URL"),
        (["--count", "1", "--read", "x"], "x: not an http or https URL"),
        (["--count", "1", "--token-file", "/nonexistent"], "/nonexistent"),
        (["--count", "1", "--tls-certificate", "x"], "--ca and --tls-key"),
    ],
)
def test_wrong_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], word: str
) -> None:
    history = tmp_path / "history"
    good = [
        "--dicom",
        "127.0.0.1:1",
        "--http",
        "http://127.0.0.1:1",
        "--seed",
        "1",
        "--history",
        str(history),
    ]
    with pytest.raises(SystemExit) as ended:
        traffic.main([*good, *wrong])
    assert ended.value.code == 2
    assert word in capsys.readouterr().err
    assert not history.exists()


def test_a_login_needs_a_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "login"
    file.write_text("person")
    with pytest.raises(SystemExit):
        traffic.main(
            ["--dicom", "h:1", "--http", "http://h", "--seed", "1", "--history", "x", "--count", "1",
             "--login-file", str(file)]
        )  # fmt: skip
    assert "not NAME:PASSWORD" in capsys.readouterr().err
