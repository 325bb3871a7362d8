"""QIDO-RS and WADO-RS at one address."""

from collections.abc import Iterable
from typing import Any

import requests

from chaos.corpus import Instance
from chaos.model import Listing, Row
from chaos.multipart import AS_RECEIVED, parts_of
from chaos.readback import READ_SECONDS, Contents, Unreadable, gathered
from chaos.target import WebSession

PAGE = 1000
_OUT_OF_SERVICE = frozenset({401, 403, 429, 502, 503, 504})


def qido(session: WebSession, patients: str = "") -> Listing:
    """All that is listed of the patients whose ID begins so. Unreadable."""
    own = f"&PatientID={patients}*" if patients else ""
    studies = _pages(session, f"studies?includefield=00201208{own}")
    series = _pages(session, f"series?includefield=00201209{own}")
    instances = _pages(session, f"instances?includefield=00100020{own}")
    return Listing(
        studies=[(_value(row, "0020000D"), int(_value(row, "00201208"))) for row in studies],
        series=[(_value(row, "0020000E"), int(_value(row, "00201209"))) for row in series],
        instances=[
            Row(*(_value(row, tag) for tag in ("00100020", "0020000D", "0020000E", "00080018")))
            for row in instances
        ],
    )


def wado(session: WebSession, instances: Iterable[Instance]) -> Contents:
    """Content by SOP Instance UID, of their studies, as received. A study whose answer is refused or broken
    off, because of one instance, is asked for one by one."""
    studies: dict[str, list[Instance]] = {}
    for each in instances:
        studies.setdefault(each.study, []).append(each)

    def read(study: str) -> Contents:
        whole = _wado(session, f"studies/{study}")
        return wado_each(session, studies[study]) if whole is None else whole

    return gathered(read, studies)


def wado_each(session: WebSession, instances: Iterable[Instance]) -> Contents:
    """Content by SOP Instance UID, each instance asked for on its own; refused ones are missing."""
    paths = [f"studies/{each.study}/series/{each.series}/instances/{each.uid}" for each in instances]
    return gathered(lambda path: _wado(session, path) or {}, paths)


def _wado(session: WebSession, path: str) -> Contents | None:
    """None if it is refused, or the answer breaks off; Unreadable if that has nothing to do with what was
    asked for."""
    try:
        answer = session.get(path, AS_RECEIVED, READ_SECONDS)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise Unreadable(f"{path}: {type(error).__name__}") from error
    except requests.RequestException:
        return None
    if answer.status_code in _OUT_OF_SERVICE:
        raise Unreadable(f"{path}: {answer.status_code}")
    return parts_of(answer) if answer.status_code == 200 else None


def _pages(session: WebSession, query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        page = f"{query}&limit={PAGE}&offset={len(rows)}"
        try:
            answer = session.get(page, "application/dicom+json", READ_SECONDS)
        except requests.RequestException as error:
            raise Unreadable(f"{query}: {type(error).__name__}") from error
        if answer.status_code not in (200, 204):
            raise Unreadable(f"{query}: {answer.status_code}")
        more = answer.json() if answer.content else []
        rows += more
        if len(more) < PAGE:
            return rows


def _value(row: dict[str, Any], tag: str) -> str:
    return str(row[tag]["Value"][0])
