"""A small client of etcd's v3 API, over its JSON gateway (HTTP, mutual TLS, several endpoints).

Each request goes to the endpoint that answered last, and to the others after it if that one does not answer
or has no leader: every call ends within `len(endpoints) * (CONNECT + ANSWER)` seconds. Reads are
linearizable, so an endpoint cut off from the majority is passed over and never answers with something old. A
call that ends in `Unavailable` may have taken effect; all that is written here may be written again.
"""

import base64
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 3.0
MOST_KEYS = 10_000


class Unavailable(Exception):
    """No endpoint answered in time, or none has a leader. What was asked for may have happened."""


class Refused(Exception):
    """etcd understood and said no."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was under a prefix: text by key, and the revision at which it was so."""

    values: Mapping[str, str]
    revision: int


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """How a member sees itself. `leader`: whether it leads; sizes in bytes."""

    name: str
    version: str
    leader: bool
    size: int
    errors: tuple[str, ...]


class Etcd:
    """A client for one thread. `endpoints` like https://192.0.2.1:2379."""

    def __init__(self, endpoints: Sequence[str], session: requests.Session) -> None:
        if not endpoints:
            raise ValueError("no endpoints")
        self._endpoints = tuple(endpoints)
        self._last = 0
        self._session = session

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def prefix(self, prefix: str) -> Snapshot:
        """Everything whose key begins with `prefix`."""
        answer = self._ask("/v3/kv/range", {**_range(prefix), "limit": MOST_KEYS})
        values = {_text(each["key"]): _text(each.get("value", "")) for each in answer.get("kvs", ())}
        return Snapshot(values, int(answer["header"]["revision"]))

    def get(self, key: str) -> str | None:
        """The value of one key, None if there is none."""
        found = self._ask("/v3/kv/range", {"key": _base64(key)}).get("kvs", ())
        return _text(found[0].get("value", "")) if found else None

    def put(self, key: str, value: str, lease: int = 0) -> None:
        """Write a value; with a lease, it goes when that ends. Refused if there is no such lease."""
        self._ask("/v3/kv/put", _put(key, value, lease))

    def put_if_unchanged(self, key: str, value: str, since: Snapshot, prefix: str) -> bool:
        """Write a value unless anything under `prefix` was written after `since`; whether it was written."""
        unchanged = {
            **_range(prefix),
            "target": "MOD",
            "result": "LESS",
            "mod_revision": str(since.revision + 1),
        }
        request = {"compare": [unchanged], "success": [{"request_put": _put(key, value, 0)}]}
        return bool(self._ask("/v3/kv/txn", request).get("succeeded", False))

    def delete(self, key: str) -> bool:
        """Remove a key; whether it was there."""
        return int(self._ask("/v3/kv/deleterange", {"key": _base64(key)}).get("deleted", 0)) > 0

    def grant(self, seconds: int) -> int:
        """A new lease, which ends after so long without `keep_alive`."""
        return int(self._ask("/v3/lease/grant", {"TTL": str(seconds)})["ID"])

    def keep_alive(self, lease: int) -> bool:
        """Begin a lease's time anew; False if it has ended."""
        answer = self._ask("/v3/lease/keepalive", {"ID": str(lease)})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def revoke(self, lease: int) -> None:
        """End a lease now; what was written with it goes. Nothing happens if it has ended already."""
        with contextlib.suppress(Refused):
            self._ask("/v3/lease/revoke", {"ID": str(lease)})

    def watch(self, prefix: str, after: Snapshot, seconds: float) -> bool:
        """Wait until something under `prefix` is written after the snapshot; False if nothing was in time.

        False says little: an endpoint without the others hears of nothing. Ask with `prefix` then.
        """
        create = {**_range(prefix), "start_revision": str(after.revision + 1)}
        endpoint = self._endpoints[self._last]
        try:
            with self._session.post(
                f"{endpoint}/v3/watch",
                json={"create_request": create},
                stream=True,
                timeout=(CONNECT_SECONDS, seconds),
            ) as response:
                for line in filter(None, response.iter_lines(chunk_size=None)):
                    told = json.loads(line).get("result", {})
                    if told.get("events") or told.get("canceled"):  # canceled: that revision is forgotten
                        return True
        except requests.exceptions.ConnectTimeout:
            pass
        except requests.exceptions.ConnectionError as error:
            if _is_read_timeout(error):
                return False
        except requests.exceptions.ReadTimeout:
            return False
        except (requests.exceptions.RequestException, ValueError):
            pass
        self._last = (self._last + 1) % len(self._endpoints)
        raise Unavailable(f"{endpoint} ended the watch")

    def member_status(self, endpoint: str) -> MemberStatus:
        """What the member at one of the endpoints says of itself; Unavailable if it does not."""
        told = self._ask_one(endpoint, "/v3/maintenance/status", {})
        members = self._ask_one(endpoint, "/v3/cluster/member/list", {}).get("members", ())
        own = told["header"]["member_id"]
        names = {each["ID"]: each.get("name", "") for each in members}
        return MemberStatus(
            name=names.get(own, ""),
            version=told["version"],
            leader=told.get("leader") == own,
            size=int(told.get("dbSize", 0)),
            errors=tuple(told.get("errors", ())),
        )

    def _ask(self, path: str, request: Mapping[str, Any]) -> Any:
        told: list[str] = []
        for _ in self._endpoints:
            try:
                return self._ask_one(self._endpoints[self._last], path, request)
            except Unavailable as error:
                told.append(str(error))
                self._last = (self._last + 1) % len(self._endpoints)
        raise Unavailable("; ".join(told))

    def _ask_one(self, endpoint: str, path: str, request: Mapping[str, Any]) -> Any:
        try:
            response = self._session.post(
                f"{endpoint}{path}", json=request, timeout=(CONNECT_SECONDS, ANSWER_SECONDS)
            )
            answer = response.json()
        except (requests.exceptions.RequestException, ValueError) as error:
            raise Unavailable(f"{endpoint}: {type(error).__name__}") from error
        if response.status_code == requests.codes.ok:
            return answer
        message = str(answer.get("message") or answer.get("error") or response.status_code)
        if response.status_code >= 500:  # no leader, request timed out, leader changed, stopped
            raise Unavailable(f"{endpoint}: {message}")
        raise Refused(message)


def _is_read_timeout(error: requests.exceptions.ConnectionError) -> bool:
    """Whether silence ended a stream: requests wraps what urllib3 raises in the middle of a body."""
    return "Read timed out" in str(error)


def _put(key: str, value: str, lease: int) -> dict[str, str]:
    return {"key": _base64(key), "value": _base64(value), "lease": str(lease)}


def _range(prefix: str) -> dict[str, str]:
    """Keys from the prefix to the first that does not have it: its last byte, one more."""
    raw = prefix.encode()
    end = raw[:-1] + bytes([raw[-1] + 1])
    return {"key": _base64(prefix), "range_end": base64.b64encode(end).decode()}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")
