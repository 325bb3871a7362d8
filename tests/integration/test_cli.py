"""The command line as its user runs it: words, exit statuses, and what it does to a data folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from pydicom.data import get_testdata_file

from node import bootstrap
from node.config import Settings
from node.domain.part10 import Part10Reader
from tests import corpus
from tests.archive import Archive, running_archive
from tests.integration.test_dimse_roundtrip import get, split
from tests.support import free_port

pytestmark = pytest.mark.slow
GRACE = {"STELE_INTAKE__GRACE_SECONDS": "3600"}


def stele(
    *arguments: object, environment: dict[str, str] | None = None, typed: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `stele` to its end; `typed` is what comes on its standard input."""
    return subprocess.run(
        [sys.executable, "-m", "node.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        input=typed if typed is not None else "",
        timeout=120,
        check=False,
        env={**os.environ, **(environment or {})},
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen instances of thirteen patients, in as many character sets, and a CT series."""
    folder = tmp_path_factory.mktemp("images")
    corpus.write(corpus.character_set_images(), folder)
    corpus.write(corpus.ct_series(4, 64), folder)
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Archive]:
    """A running archive that holds `images`."""
    with running_archive(tmp_path_factory.mktemp("cli") / "data", environment=GRACE) as running:
        sent = stele("send", images, f"127.0.0.1:{running.dicom_port}")
        assert sent.returncode == 0, sent.stderr
        assert sent.stdout.strip() == "17 sent, 0 failed"
        yield running


# --- Settings ---


def test_config_prints_a_settings_file_that_serve_would_take(tmp_path: Path) -> None:
    printed = stele("config")
    assert printed.returncode == 0, printed.stderr
    assert Settings(**tomllib.loads(printed.stdout)) == Settings()
    file = tmp_path / "stele.toml"
    file.write_text(printed.stdout.replace("port = 11112", "port = 99999"))
    refused = stele("serve", "--config", file, "--data", tmp_path / "data")
    assert refused.returncode == 2
    assert "dicom.port = 99999" in refused.stderr


@pytest.mark.parametrize(
    ("toml", "environment", "options", "words"),
    [
        ("[http]\nport = 0\n", {}, [], ("http.port", "0", "greater than or equal to 1")),
        ("[dicom]\nprot = 104\n", {}, [], ("dicom.prot", "104", "not permitted")),
        ("[dicom\n", {}, [], ("stele.toml", "line 1")),
        ("", {"STELE_LOG_LEVEL": "loud"}, [], ("log_level", "'loud'", "'debug'")),
        ("", {"STELE_PIXELS__PROCESSES": "many"}, [], ("pixels.processes", "'many'", "integer")),
        ("", {}, ["--dicom-port", "70000"], ("dicom.port", "70000", "65535")),
        ("", {}, ["everything"], ("role", "'everything'", "dimse, web or worker")),
        ("", {}, ["dimse"], ("catalog.dsn", "''", "PostgreSQL")),
    ],
)
def test_a_wrong_setting_ends_with_status_2_and_its_name_value_and_remedy(
    tmp_path: Path, toml: str, environment: dict[str, str], options: list[str], words: tuple[str, ...]
) -> None:
    file = tmp_path / "stele.toml"
    file.write_text(toml)
    refused = stele("serve", *options, "--config", file, "--data", tmp_path / "data", environment=environment)
    assert refused.returncode == 2, refused.stderr
    assert "Traceback" not in refused.stderr
    for word in words:
        assert word in refused.stderr
    assert not (tmp_path / "data").exists()


# --- AEs and accounts, beside a running archive ---


def test_aes_are_added_listed_replaced_and_removed(archive: Archive) -> None:
    data = ("--data", archive.data)
    added = stele("ae", "add", "WS1", "--address", "192.0.2.7:104", "--source", "192.0.2.0/24", *data)
    assert (added.returncode, added.stdout.strip()) == (0, "AE WS1 configured"), added.stderr
    listed = stele("ae", "list", *data).stdout
    assert re.search(r"WS1.*192\.0\.2\.7:104.*store retrieve.*192\.0\.2\.0/24", listed)
    assert stele("ae", "add", "WS1", "--address", "192.0.2.8:104", "--no-store", *data).returncode == 0
    listed = stele("ae", "list", *data).stdout
    assert "192.0.2.7" not in listed
    assert re.search(r"WS1.*192\.0\.2\.8:104[^a-z]*retrieve.*anywhere", listed)
    assert stele("ae", "remove", "WS1", *data).returncode == 0
    again = stele("ae", "remove", "WS1", *data)
    assert (again.returncode, again.stderr.strip()) == (1, "stele: no AE WS1")
    assert "WS1" not in stele("ae", "list", *data).stdout


def test_a_malformed_ae_is_refused_with_its_fault(archive: Archive) -> None:
    refused = stele("ae", "add", "WS1", "--address", "192.0.2.7", "--data", archive.data)
    assert (refused.returncode, "address = '192.0.2.7': write HOST:PORT" in refused.stderr) == (2, True)


def test_user_add_asks_for_the_password_twice_and_keeps_it_out_of_sight(archive: Archive) -> None:
    password = "correct horse battery"
    added = stele("user", "add", "reader", "--data", archive.data, typed=f"{password}\n{password}\n")
    assert added.returncode == 0, added.stderr
    assert "user reader is viewer" in added.stdout
    assert password not in added.stdout + added.stderr
    short = stele("user", "add", "other", "--data", archive.data, typed="short\nshort\n")
    assert (short.returncode, "at least 12 characters" in short.stderr) == (2, True)
    rows = query(archive, "SELECT role, password_hash FROM accounts WHERE name = 'reader'")
    assert [row["role"] for row in rows] == ["viewer"]
    assert rows[0]["password_hash"].startswith("$argon2id$")
    assert query(archive, "SELECT * FROM accounts WHERE name = 'other'") == []


def test_machine_add_prints_a_token_that_is_not_kept(archive: Archive) -> None:
    added = stele("machine", "add", "ris", "--role", "administrator", "--data", archive.data)
    token = added.stdout.strip()
    assert added.returncode == 0, added.stderr
    assert len(token) >= 32
    (row,) = query(archive, "SELECT * FROM accounts JOIN sessions USING (name) WHERE name = 'ris'")
    assert (row["role"], row["expires_at"], row["password_hash"]) == ("administrator", None, None)
    assert token.encode() not in b"".join(
        value if isinstance(value, bytes) else str(value).encode() for value in row.values()
    )


# --- send ---


def test_send_counts_names_what_failed_and_why_and_ends_with_status_1(
    archive: Archive, tmp_path: Path
) -> None:
    whole = corpus.encode(corpus.small_image(corpus.Study(corpus.Person("PHANTOM^SEND", "SEND"))))
    (tmp_path / "whole.dcm").write_bytes(whole)
    (tmp_path / "cut.dcm").write_bytes(
        corpus.encode(corpus.small_image(corpus.Study(corpus.Person("PHANTOM^SEND", "SEND")), instance=2))[
            :-100
        ]
    )
    (tmp_path / "notes.txt").write_text("no image")
    sent = stele("send", tmp_path, f"127.0.0.1:{archive.dicom_port}")
    assert (sent.returncode, sent.stdout.strip()) == (1, "1 sent, 1 failed")
    told = f"{tmp_path / 'cut.dcm'}: status C000: truncated: data ends at offset"
    assert any(line.startswith(told) for line in sent.stderr.splitlines())
    assert "notes.txt" not in sent.stderr


def test_send_goes_by_the_datasets_uids_and_says_where_they_are_others(
    archive: Archive, tmp_path: Path
) -> None:
    path = Path(str(get_testdata_file("rtplan.dcm")))
    sent = stele("send", path, f"127.0.0.1:{archive.dicom_port}")
    assert (sent.returncode, sent.stdout.strip()) == (0, "1 sent, 0 failed"), sent.stderr
    told = f"{path}: sent under its dataset's SOP UIDs, its meta information has others"
    assert told in sent.stderr.splitlines()


def test_send_says_what_is_wrong_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "image.dcm").write_bytes(corpus.encode(corpus.small_image()))
    assert stele("send", tmp_path, "nowhere").returncode == 2
    nobody = stele("send", tmp_path, f"127.0.0.1:{free_port()}")
    assert nobody.returncode == 1
    assert "Traceback" not in nobody.stderr
    assert nobody.stderr.strip().splitlines()[-1].startswith("stele: unavailable")
    assert stele("send", tmp_path / "none", "127.0.0.1:104").returncode == 2


# --- check, migrate, rebuild ---


def test_check_is_content_with_a_healthy_archive_while_it_runs(archive: Archive) -> None:
    checked = stele("check", "--data", archive.data)
    assert (checked.returncode, checked.stdout.strip()) == (
        0,
        "catalog, objects and audit trail agree",
    ), checked.stderr


def test_migrate_has_nothing_to_do_the_second_time(tmp_path: Path) -> None:
    first = stele("migrate", "--data", tmp_path)
    assert first.returncode == 0, first.stderr
    assert "applied 0001_catalog" in first.stdout
    second = stele("migrate", "--data", tmp_path)
    assert (second.returncode, second.stdout) == (0, "")


def test_check_finds_each_damage_and_rebuild_makes_an_equal_catalog(tmp_path: Path, images: Path) -> None:
    data = tmp_path / "data"
    with running_archive(data, environment=GRACE) as running:
        assert stele("send", images, f"127.0.0.1:{running.dicom_port}").returncode == 0
        before = rows_of(running)
        objects = {row["sop_instance_uid"]: row["object_name"] for row in query(running, OBJECTS)}
    checked = stele("check", "--data", data)
    assert checked.returncode == 0, checked.stderr + checked.stdout

    (data / "postgres").rename(tmp_path / "lost catalog")
    rebuilt = stele("rebuild", "--data", data)
    assert (rebuilt.returncode, rebuilt.stdout.strip()) == (0, "17 stored"), rebuilt.stderr
    assert stele("rebuild", "--data", data).stdout.strip() == "nothing to rebuild"
    with running_archive(data, environment=GRACE) as running:
        assert rows_of(running) == before
        assert retrieved(running, images) == sent_bytes(images)

    missing, corrupt = sorted(objects)[:2]
    file_of(data, objects[missing]).unlink()
    flipped = file_of(data, objects[corrupt])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 0x10
    flipped.chmod(0o600)
    flipped.write_bytes(content)
    flipped.chmod(0o400)
    orphan = orphan_of(data, objects[sorted(objects)[2]])
    checked = stele("check", "--data", data, environment=GRACE)
    assert checked.returncode == 1
    damage = [f"missing: {missing}", f"corrupt: {corrupt}", f"orphan: {orphan} (spare)"]
    assert sorted(checked.stdout.splitlines()) == sorted([*damage, "3 wrong, 0 mended"])
    as_json = stele("check", "--data", data, "--json", "--quick", environment=GRACE)
    assert as_json.returncode == 1
    assert [json.loads(line)["kind"] for line in as_json.stdout.splitlines()] == ["missing", "orphan"]

    misused = stele("check", "--data", data, "--from", images)
    assert (misused.returncode, "--from: only together with --repair" in misused.stderr) == (2, True)
    repaired = stele("check", "--data", data, "--repair", environment=GRACE)
    assert repaired.returncode == 1
    assert sorted(repaired.stdout.splitlines()) == sorted(
        [*damage[:2], f"orphan: {orphan} (spare, mended)", "2 wrong, 1 mended"]
    )
    from_files = stele("check", "--data", data, "--repair", "--from", images, "--json", environment=GRACE)
    assert from_files.returncode == 0, from_files.stdout
    assert {
        (line["name"], line["kind"], line["mended"])
        for line in map(json.loads, from_files.stdout.splitlines())
    } == {
        (missing, "missing", True),
        (corrupt, "corrupt", True),
    }
    again = stele("check", "--data", data, environment=GRACE)
    assert (again.returncode, again.stdout.strip()) == (0, "catalog, objects and audit trail agree")


OBJECTS = "SELECT sop_instance_uid, object_name FROM instances"
# All columns but keys and times; rows are told apart by what they mean
ROWS = {
    "patients": "SELECT to_jsonb(patients) - '{patient_pk,created_at}'::text[] AS row FROM patients",
    "studies": "SELECT to_jsonb(studies) - '{study_pk,patient_pk,created_at}'::text[]"
    " || jsonb_build_object('patient', patient_key) AS row FROM studies JOIN patients USING (patient_pk)",
    "series": "SELECT to_jsonb(series) - '{series_pk,study_pk,created_at,prepared}'::text[]"
    " || jsonb_build_object('study', study_uid) AS row FROM series JOIN studies USING (study_pk)",
    "instances": "SELECT to_jsonb(instances)"
    " - '{instance_pk,series_pk,study_pk,received_at,received_again_at}'::text[]"
    " || jsonb_build_object('study', study_uid, 'series', series_uid) AS row"
    " FROM instances JOIN series USING (series_pk) JOIN studies ON studies.study_pk = instances.study_pk",
}


def query(archive: Archive, sql: str) -> list[dict[str, Any]]:
    """Rows out of a running archive's catalog."""
    settings = bootstrap.resolved(bootstrap.run_file(Settings(data=archive.data)))
    with psycopg.connect(settings.catalog.dsn, row_factory=dict_row) as connection:
        return connection.execute(sql.encode()).fetchall()


def rows_of(archive: Archive) -> dict[str, list[str]]:
    """Every row of the catalog's four levels, without keys and times."""
    return {
        table: sorted(json.dumps(row["row"], sort_keys=True) for row in query(archive, sql))
        for table, sql in ROWS.items()
    }


def sent_bytes(images: Path) -> dict[str, bytes]:
    """Dataset bytes by SOP Instance UID."""
    return {path.stem: bytes(Part10Reader().feed(path.read_bytes())) for path in images.iterdir()}


def retrieved(archive: Archive, images: Path) -> dict[str, bytes]:
    """The same, by C-GET."""
    metas = [found[0] for path in images.iterdir() if (found := split(path)) is not None]
    received, status = get(archive.dicom_port, metas)
    assert status.Status == 0
    return received


def file_of(data: Path, name: str) -> Path:
    """An object's file."""
    (found,) = (data / "objects").rglob(name)
    return found


def orphan_of(data: Path, name: str) -> str:
    """A copy of an object that no row knows, two hours old; its name."""
    file = file_of(data, name)
    orphan = file.parent / (name[:2] + "0" * 30)
    shutil.copy(file, orphan)  # and its mode: an object is read-only
    past = time.time() - 7200
    os.utime(orphan, (past, past))
    return orphan.name
