"""A client that deletes some of what has been acknowledged, one instance at a time, and looks again and again
whether it stays away.

What has an unknown outcome, or was refused for now, is tried again; that nothing is there any more is an
answer, too. Contested UIDs are left alone: after a deletion the losing rival would rightly be accepted.
"""

import random
import threading
import time
from collections.abc import Mapping

import requests

from chaos.corpus import Instance
from chaos.history import DELETE, History, Operation, Result
from chaos.target import WebSession
from chaos.traffic.reading import Reader

LATEST = 40  # what is deleted is one of the last that were acknowledged
_FINAL = frozenset({"204", "404"})


class Deleter:
    """Deletes at one address, as somebody who may. `instances`: what may be deleted, by SOP Instance UID."""

    def __init__(
        self,
        client: str,
        session: WebSession,
        history: History,
        instances: Mapping[str, Instance],
        seed: int,
    ) -> None:
        self._client = client
        self._session = session
        self._history = history
        self._instances = instances
        self._generator = random.Random(seed)
        self._reader = Reader(client, session, history, seed)
        self._tried: set[str] = set()
        self._deleted: list[str] = []

    def delete(self, rate: float, stop: threading.Event) -> None:
        """Until `stop`, `rate` deletions per second at most; each is looked for at once, and one of the
        earlier ones with it."""
        pending = ""
        while not stop.wait(1 / rate):
            uid = pending or self._choice()
            if not uid:
                continue
            self._tried.add(uid)
            operation = self._attempt(self._instances[uid])
            self._history.add(operation)
            pending = "" if operation.status in _FINAL else uid
            if not pending:
                self._deleted.append(uid)
            if self._deleted:
                for each in {self._deleted[-1], self._generator.choice(self._deleted)}:
                    self._reader.look_up(each)

    def _choice(self) -> str:
        """One that can be deleted; "" if there is none yet."""
        latest = self._history.latest(LATEST)
        free = [uid for uid in latest if uid in self._instances and uid not in self._tried]
        return self._generator.choice(free) if free else ""

    def _attempt(self, instance: Instance) -> Operation:
        path = f"studies/{instance.study}/series/{instance.series}/instances/{instance.uid}"
        invoked = time.monotonic()
        try:
            status = str(self._session.delete(path).status_code)
        except requests.RequestException as error:
            return self._noted(instance, invoked, Result.UNKNOWN, type(error).__name__)
        if status in ("502", "504"):  # a proxy's: the archive may have heard of it
            return self._noted(instance, invoked, Result.UNKNOWN, f"HTTP {status}")
        return self._noted(instance, invoked, Result.OK if status == "204" else Result.REFUSED, status)

    def _noted(self, instance: Instance, invoked: float, result: Result, status: str) -> Operation:
        node, ended = self._session.web.url, time.monotonic()
        return Operation(self._client, DELETE, instance.uid, "", invoked, ended, result, status, node)
