"""How searching grows with the catalog: `python -m tests.search_growth 1000 100000 1000000`.

For each number of studies a catalog is made by SQL (a patient, a series and two instances per study,
names out of syllables of which some are frequent, five years of dates), searched through the service as
QIDO-RS does it (audit row and its commit included, first 50 results), and dropped. `--server DSN` uses
that server instead of an embedded one; it must allow creating databases.
"""

import argparse
import gc
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import conninfo, sql

from node.adapters.catalog_postgres.catalog import PostgresCatalog
from node.adapters.catalog_postgres.migrate import migrate
from node.adapters.postgres_embedded import EmbeddedPostgres
from node.domain.model import Actor, Level, Scope
from node.services.search import Search

ROUNDS = 200
WARM_UP = 20
INSTANCES = 2
DAYS = 5 * 365
READER = Actor("GROWTH", "127.0.0.1", "http")
# A hundred syllables, the first ones more frequent by far, as with real names
SYLLABLES = [consonant + vowel for vowel in "aeiou" for consonant in "mrnlstkdbhgjpvfwcyzx"]
Parameters = list[tuple[str, str]]

_DICE = "(abs(hashint8extended(n, {seed})) %% 10000)::float / 10000"
_SYLLABLE = f"(%(syllables)s::text[])[1 + floor(100 * ({_DICE}) ^ 2)::int]"
_FAMILY = " || ".join(_SYLLABLE.format(seed=seed) for seed in (1, 2, 3))
_GIVEN = " || ".join(_SYLLABLE.format(seed=seed) for seed in (4, 5))

_PATIENTS = f"""
INSERT INTO patients (patient_key, patient_id, issuer, name, name_sounds, birth_date, sex, attributes)
SELECT 'P' || n || '\\', 'P' || n, '', name, ARRAY[upper(left(name, 1)) || '500'], '19700101', 'F',
    jsonb_build_object(
        '00100010', jsonb_build_object('vr', 'PN', 'Value', jsonb_build_array(
            jsonb_build_object('Alphabetic', initcap(name)))),
        '00100020', jsonb_build_object('vr', 'LO', 'Value', jsonb_build_array('P' || n)),
        '00100030', '{{"vr": "DA", "Value": ["19700101"]}}'::jsonb,
        '00100040', '{{"vr": "CS", "Value": ["F"]}}'::jsonb)
FROM (SELECT n, {_FAMILY} || '^' || {_GIVEN} AS name FROM generate_series(1, %(studies)s) n) named
"""  # noqa: S608
_STUDIES = f"""
INSERT INTO studies (study_uid, patient_pk, study_date, study_time, accession_number, study_id,
    description, referring_physician, attributes)
SELECT '2.25.' || n, patient_pk, day, '101112', 'A' || n, n::text, 'ct abdomen', '',
    jsonb_build_object(
        '00080020', jsonb_build_object('vr', 'DA', 'Value', jsonb_build_array(day)),
        '00080030', '{{"vr": "TM", "Value": ["101112"]}}'::jsonb,
        '00080050', jsonb_build_object('vr', 'SH', 'Value', jsonb_build_array('A' || n)),
        '00081030', '{{"vr": "LO", "Value": ["CT Abdomen"]}}'::jsonb,
        '0020000D', jsonb_build_object('vr', 'UI', 'Value', jsonb_build_array('2.25.' || n)))
FROM (SELECT substr(patient_id, 2)::bigint AS n, patient_pk,
        to_char(date '2021-01-01' + (abs(hashint8extended(patient_pk, 9)) %% {DAYS})::int, 'YYYYMMDD') AS day
    FROM patients) dated
"""  # noqa: S608
_SERIES = """
INSERT INTO series (series_uid, study_pk, modality, series_number, attributes)
SELECT study_uid || '.1', study_pk, (ARRAY['CT', 'MR', 'CR', 'US'])[1 + study_pk %% 4], 1,
    jsonb_build_object('0020000E',
        jsonb_build_object('vr', 'UI', 'Value', jsonb_build_array(study_uid || '.1')))
FROM studies
"""
_INSTANCES = f"""
INSERT INTO instances (sop_instance_uid, series_pk, study_pk, sop_class_uid, transfer_syntax_uid,
    instance_number, number_of_frames, attributes, header, object_name, prefix_length, dataset_length,
    sha256, source)
SELECT series_uid || '.' || n, series_pk, study_pk, '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1',
    n, 1, '{{}}', '', md5(series_uid || '.' || n), 344, 1000, '', 'GROWTH'
FROM series, generate_series(1, {INSTANCES}) n
"""  # noqa: S608


def fill(dsn: str, studies: int) -> None:
    """Make the rows of so many studies."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        parameters = {"studies": studies, "syllables": SYLLABLES}
        for statement in (_PATIENTS, _STUDIES, _SERIES, _INSTANCES):
            connection.execute(statement.encode(), parameters)
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def kinds(studies: int, dice: random.Random) -> dict[str, Callable[[], Parameters]]:
    """The searches that are measured, each with another value every time."""

    def number() -> int:
        return dice.randint(1, studies)

    def syllables(count: int) -> str:
        return "".join(SYLLABLES[int(100 * dice.random() ** 2)] for _ in range(count))

    def seven_days() -> str:
        first = time.strftime("%Y%m%d", time.gmtime(1609459200 + dice.randrange(DAYS - 7) * 86400))
        last = time.strftime("%Y%m%d", time.gmtime(time.mktime(time.strptime(first, "%Y%m%d")) + 6 * 86400))
        return f"{first}-{last}"

    return {
        "PatientID": lambda: [("PatientID", f"P{number()}")],
        "StudyInstanceUID": lambda: [("StudyInstanceUID", f"2.25.{number()}")],
        "AccessionNumber": lambda: [("AccessionNumber", f"A{number()}")],
        "seven days": lambda: [("StudyDate", seven_days())],
        "newest": lambda: [],
        "name": lambda: [("PatientName", f"{syllables(3)}^{syllables(2)}")],
        "name prefix, 6 letters": lambda: [("PatientName", f"{syllables(3)}*")],
        "name prefix, 4 letters": lambda: [("PatientName", f"{syllables(2)}*")],
        "name prefix, 2 letters": lambda: [("PatientName", f"{syllables(1)}*")],
        "name infix, 7 letters": lambda: [("PatientName", f"*{syllables(2)}^{syllables(1)}*")],
        "name infix, 4 letters": lambda: [("PatientName", f"*{syllables(2)}*")],
        "name and seven days": lambda: [("PatientName", f"{syllables(1)}*"), ("StudyDate", seven_days())],
        "modality and seven days": lambda: [("ModalitiesInStudy", "MR"), ("StudyDate", seven_days())],
    }


def measure(dsn: str, studies: int, rounds: int) -> dict[str, tuple[float, float, float]]:
    """Milliseconds of each kind of search (median and 99th percentile), and results on average."""
    catalog = PostgresCatalog(
        dsn, pool_size=2, connect_seconds=5, statement_seconds=60, extra_tags={}, max_results=1000
    )
    search = Search(catalog.searches, max_results=1000, dimse_max_results=1000, extra_tags={})
    gc.collect()
    gc.freeze()  # as a server does once it has started: no full collections over what never goes away
    measured = {}
    for name, parameters in kinds(studies, random.Random(7)).items():
        took, found = [], 0
        for turn in range(-WARM_UP, rounds):
            query = [*parameters(), ("limit", "50")]
            begin = time.perf_counter()
            result = search.qido(Level.STUDY, Scope(), query, READER)
            if turn >= 0:
                took.append((time.perf_counter() - begin) * 1000)
                found += len(result.results)
        took.sort()
        measured[name] = (statistics.median(took), took[int(len(took) * 0.99) - 1], found / rounds)
    catalog.close()
    return measured


@contextmanager
def database(server: str, name: str) -> Iterator[str]:
    """A database for the duration."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield conninfo.make_conninfo(server, dbname=name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def grow(server: str, sizes: list[int], rounds: int) -> None:
    """Measure at each size and print the table."""
    table = {}
    for size in sizes:
        with database(server, f"growth_{os.getpid()}_{size}") as dsn:
            migrate(dsn)
            begin = time.monotonic()
            fill(dsn, size)
            print(f"{size:,} studies made in {time.monotonic() - begin:.0f} s", flush=True)
            table[size] = measure(dsn, size, rounds)
    load = os.getloadavg()[0]
    print(f"\np50 / p99 in ms, first 50 results, {rounds} searches each; load {load:.1f}\n")
    print("| search | " + " | ".join(f"{size:,}" for size in sizes) + " | p99 grew |")
    print("|---|" + "---|" * (len(sizes) + 1))
    for name in table[sizes[0]]:
        cells = [f"{table[size][name][0]:.1f} / {table[size][name][1]:.1f}" for size in sizes]
        grew = table[sizes[-1]][name][1] / table[sizes[0]][name][1]
        print(f"| {name} | " + " | ".join(cells) + f" | {grew:.1f} × |")


def main() -> None:
    """Read the arguments and measure."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("studies", type=int, nargs="+", help="catalog sizes")
    arguments.add_argument("--server", help="DSN of a server; without it an embedded one is started")
    arguments.add_argument("--rounds", type=int, default=ROUNDS, help="searches of each kind")
    given = arguments.parse_args()
    if given.server:
        grow(given.server, given.studies, given.rounds)
        return
    folder = Path(tempfile.mkdtemp(prefix="stele-growth-"))
    server = EmbeddedPostgres(folder)
    try:
        grow(server.start(), given.studies, given.rounds)
    finally:
        server.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
