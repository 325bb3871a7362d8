"""A population of patients and studies: made by SQL in our catalog, and, for other archives, read back from
there and sent as tiny instances. One patient, one study and one series for each number; names out of
syllables of which some are frequent, as with real names; five years of dates."""

import multiprocessing
import random
import struct
import time
from collections.abc import Callable, Iterator

import psycopg

from tests.bench.scu import associate
from tests.bench.servers import Server

DAYS = 5 * 365
SENDERS = 4
# A hundred syllables, the first ones more frequent by far
SYLLABLES = [consonant + vowel for vowel in "aeiou" for consonant in "mrnlstkdbhgjpvfwcyzx"]
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT = "1.2.840.10008.1.2.1"

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
FROM (SELECT n, {_FAMILY} || '^' || {_GIVEN} AS name
      FROM generate_series(%(first)s::bigint, %(last)s) n) named
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
FROM (SELECT n, patient_pk,
        to_char(date '2021-01-01' + (abs(hashint8extended(n, 9)) %% {DAYS})::int, 'YYYYMMDD') AS day
    FROM generate_series(%(first)s::bigint, %(last)s) n JOIN patients ON patient_id = 'P' || n) dated
"""  # noqa: S608
_SERIES = """
INSERT INTO series (series_uid, study_pk, modality, series_number, attributes)
SELECT study_uid || '.1', study_pk, (ARRAY['CT', 'MR', 'CR', 'US'])[1 + n %% 4], 1,
    jsonb_build_object('0020000E',
        jsonb_build_object('vr', 'UI', 'Value', jsonb_build_array(study_uid || '.1')))
FROM generate_series(%(first)s::bigint, %(last)s) n JOIN studies ON study_uid = '2.25.' || n
"""
# Instances like `template`'s
_INSTANCES = """
INSERT INTO instances (sop_instance_uid, series_pk, study_pk, sop_class_uid, transfer_syntax_uid,
    instance_number, number_of_frames, attributes, header, object_name, prefix_length, dataset_length,
    digest, source)
SELECT series_uid || '.' || i, series_pk, study_pk, '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1',
    i, 1, %(attributes)s::jsonb, %(header)b::bytea, md5(series_uid || '.' || i), 344, 526000,
    sha256((series_uid || '.' || i)::bytea), 'GROWTH'
FROM generate_series(%(first)s::bigint, %(last)s) n JOIN series ON series_uid = '2.25.' || n || '.1',
    generate_series(1, %(instances)s) i
"""

_ROWS = """
SELECT patient_id, patients.attributes->'00100010'->'Value'->0->>'Alphabetic', study_date, study_uid,
       accession_number, modality, study_id
FROM generate_series(%s::bigint, %s) n JOIN studies ON study_uid = '2.25.' || n
    JOIN patients USING (patient_pk) JOIN series USING (study_pk) ORDER BY n
"""

Row = tuple[str, str, str, str, str, str, str]
Parameters = list[tuple[str, str]]


def fill(
    dsn: str, first: int, last: int, *, instances: int = 1, attributes: str = "{}", header: bytes = b""
) -> None:
    """Make the rows of the studies with these numbers, with so many instances each; `attributes` and
    `header` as the catalog keeps an instance's."""
    parameters = {"first": first, "last": last, "syllables": SYLLABLES, "instances": instances}
    parameters |= {"attributes": attributes, "header": header}
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in (_PATIENTS, _STUDIES, _SERIES, _INSTANCES):
            connection.execute(statement.encode(), parameters)
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def rows(dsn: str, first: int, last: int) -> list[Row]:
    """What other archives need to know of these studies."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(_ROWS, (first, last)).fetchall()


def send(server: Server, studies: list[Row]) -> None:
    """Send an instance of each study, over some associations at once."""
    context = multiprocessing.get_context("fork")
    senders = [
        context.Process(target=_sender, args=(server, studies[start::SENDERS])) for start in range(SENDERS)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    if any(sender.exitcode for sender in senders):
        raise RuntimeError(f"{server.name} does not take the population")


def _sender(server: Server, studies: list[Row]) -> None:
    association = associate(server.port, server.title, SECONDARY_CAPTURE, EXPLICIT)
    for number, row in enumerate(studies):
        uid = f"{row[3]}.1.1"
        if association.store(number % 65535 + 1, uid, instance(row, uid)) != 0:
            raise SystemExit(1)
    association.release()


def instance(row: Row, uid: str) -> bytes:
    """A tiny dataset of a study, in Explicit VR Little Endian."""
    patient_id, name, day, study_uid, accession, modality, study_id = row
    values = (
        (0x0008, 0x0016, b"UI", SECONDARY_CAPTURE),
        (0x0008, 0x0018, b"UI", uid),
        (0x0008, 0x0020, b"DA", day),
        (0x0008, 0x0030, b"TM", "101112"),
        (0x0008, 0x0050, b"SH", accession),
        (0x0008, 0x0060, b"CS", modality),
        (0x0008, 0x1030, b"LO", "CT Abdomen"),
        (0x0010, 0x0010, b"PN", name),
        (0x0010, 0x0020, b"LO", patient_id),
        (0x0010, 0x0030, b"DA", "19700101"),
        (0x0010, 0x0040, b"CS", "F"),
        (0x0020, 0x000D, b"UI", study_uid),
        (0x0020, 0x000E, b"UI", f"{study_uid}.1"),
        (0x0020, 0x0010, b"SH", study_id),
        (0x0020, 0x0011, b"IS", "1"),
        (0x0020, 0x0013, b"IS", "1"),
    )
    return b"".join(element(*each) for each in values)


def element(group: int, number: int, vr: bytes, value: str) -> bytes:
    """An element with a short length."""
    encoded = value.encode("ascii")
    if len(encoded) % 2:
        encoded += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", group, number, vr, len(encoded)) + encoded


def searches(studies: int, dice: random.Random) -> dict[str, Callable[[], Parameters]]:
    """The searches that are measured, each for another value every time; keyword and value."""

    def number() -> int:
        return dice.randint(1, studies)

    def syllables(count: int) -> str:
        return "".join(SYLLABLES[int(100 * dice.random() ** 2)] for _ in range(count))

    def seven_days() -> str:
        first = 1609459200 + dice.randrange(DAYS - 7) * 86400
        return "-".join(time.strftime("%Y%m%d", time.gmtime(first + day * 86400)) for day in (0, 6))

    return {
        "PatientID": lambda: [("PatientID", f"P{number()}")],
        "StudyInstanceUID": lambda: [("StudyInstanceUID", f"2.25.{number()}")],
        "AccessionNumber": lambda: [("AccessionNumber", f"A{number()}")],
        "seven days": lambda: [("StudyDate", seven_days())],
        "name prefix": lambda: [("PatientName", f"{syllables(3)}*")],
        "name infix": lambda: [("PatientName", f"*{syllables(2)}^{syllables(1)}*")],
        "short name prefix": lambda: [("PatientName", f"{syllables(1)}*")],
        "short name infix": lambda: [("PatientName", f"*{syllables(2)}*")],
        "name and seven days": lambda: [("PatientName", f"{syllables(1)}*"), ("StudyDate", seven_days())],
        "modality and seven days": lambda: [("ModalitiesInStudy", "MR"), ("StudyDate", seven_days())],
    }


def values(studies: int, what: str, seed: int) -> Iterator[Parameters]:
    """Endless parameters of one of `searches`, the same for the same seed."""
    make = searches(studies, random.Random(seed))[what]
    while True:
        yield make()
