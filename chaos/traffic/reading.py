"""A reader that finds and retrieves what has just been acknowledged to somebody else.

It notes a row that is missing, and a retrieval that does not succeed, as an operation like all others;
whether that breaks a promise is for `chaos.checks`.
"""

import random
import threading
import time

import requests

from chaos.history import History, Operation, Result
from chaos.multipart import AS_RECEIVED, parts_of
from chaos.target import WebSession

LATEST = 40
_NO_ANSWER = frozenset({502, 504})  # a proxy's


class Reader:
    """Reads at one address."""

    def __init__(self, client: str, session: WebSession, history: History, seed: int) -> None:
        self._client = client
        self._session = session
        self._history = history
        self._generator = random.Random(seed)

    def read(self, rate: float, stop: threading.Event) -> None:
        """Until `stop`, `rate` instances per second at most."""
        while not stop.wait(1 / rate):
            latest = self._history.latest(LATEST)
            if not latest:
                continue
            # Every other time the very last one, which is the likeliest to be missed
            uid = self._generator.choice((latest[-1], self._generator.choice(latest)))
            self.look_up(uid)

    def look_up(self, uid: str) -> None:
        """Find an instance and, if it is there, retrieve it; both are noted."""
        operation, path = self._find(uid)
        self._history.add(operation)
        if path:
            self._history.add(self._fetch(uid, path))

    def _find(self, uid: str) -> tuple[Operation, str]:
        """Find an instance's row; also the path to retrieve it from, "" if it was not found."""
        invoked = time.monotonic()
        answer = self._get(f"instances?SOPInstanceUID={uid}", "application/dicom+json")
        if isinstance(answer, str):
            return self._noted("QIDO-RS", uid, "", invoked, Result.UNKNOWN, answer), ""
        if answer.status_code not in (200, 204):
            return self._noted("QIDO-RS", uid, "", invoked, Result.REFUSED, str(answer.status_code)), ""
        rows = answer.json() if answer.content else []
        if len(rows) != 1:
            return self._noted("QIDO-RS", uid, "", invoked, Result.REFUSED, f"{len(rows)} rows"), ""
        study, series = (rows[0][tag]["Value"][0] for tag in ("0020000D", "0020000E"))
        path = f"studies/{study}/series/{series}/instances/{uid}"
        return self._noted("QIDO-RS", uid, "", invoked, Result.OK, "200"), path

    def _fetch(self, uid: str, path: str) -> Operation:
        """Retrieve it."""
        invoked = time.monotonic()
        answer = self._get(path, AS_RECEIVED)
        if isinstance(answer, str):
            return self._noted("WADO-RS", uid, "", invoked, Result.UNKNOWN, answer)
        if answer.status_code != 200:
            return self._noted("WADO-RS", uid, "", invoked, Result.REFUSED, str(answer.status_code))
        content = parts_of(answer).get(uid, "another instance")
        return self._noted("WADO-RS", uid, content, invoked, Result.OK, "200")

    def _noted(
        self, kind: str, uid: str, content: str, invoked: float, result: Result, status: str
    ) -> Operation:
        node = self._session.web.url
        return Operation(self._client, kind, uid, content, invoked, time.monotonic(), result, status, node)

    def _get(self, path: str, accept: str) -> requests.Response | str:
        """The answer, or what happened instead of one."""
        try:
            answer = self._session.get(path, accept)
        except requests.RequestException as error:
            return type(error).__name__
        return f"HTTP {answer.status_code}" if answer.status_code in _NO_ANSWER else answer
