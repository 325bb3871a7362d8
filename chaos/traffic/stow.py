"""STOW-RS (PS3.18 section 10.5) as a client that sends some instances in one request."""

import json
import time
from typing import Any

import requests

from chaos.corpus import Sample
from chaos.history import Operation
from chaos.multipart import CONTENT_TYPE, body_of
from chaos.target import WebSession
from chaos.traffic.sending import answered, unknown

BATCH = 20  # instances per request
# A proxy says so of an archive that it has sent the request to: what became of it there nobody knows
_UNKNOWN = frozenset({502, 504})


def stow(session: WebSession, client: str, batch: list[Sample]) -> list[Operation]:
    """Send a batch in one request."""
    node = session.web.url
    body = body_of(each.file() for each in batch)
    invoked = time.monotonic()
    try:
        answer = session.store(body, CONTENT_TYPE)
    except requests.RequestException as error:
        return [unknown(client, "STOW-RS", each, invoked, type(error).__name__, node) for each in batch]
    if answer.status_code in _UNKNOWN:
        told = f"HTTP {answer.status_code}"
        return [unknown(client, "STOW-RS", each, invoked, told, node) for each in batch]
    statuses = statuses_of(answer.content)
    otherwise = f"HTTP {answer.status_code}"
    return [
        answered(client, "STOW-RS", each, invoked, statuses.get(each.uid, otherwise), node) for each in batch
    ]


def statuses_of(body: bytes) -> dict[str, str]:
    """Statuses by SOP Instance UID, in DIMSE's terms, out of a Store Instances Response Module
    (PS3.18 section I.2); empty if the body is none."""
    try:
        module: Any = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(module, dict):
        return {}
    told = {_uid(item): "0000" for item in module.get("00081199", {}).get("Value", [])}
    for item in module.get("00081198", {}).get("Value", []):
        told[_uid(item)] = f"{item['00081197']['Value'][0]:04X}"
    return told


def _uid(item: dict[str, Any]) -> str:
    return str(item["00081155"]["Value"][0])
