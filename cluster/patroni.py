"""A small client of Patroni's REST API (mutual TLS): who is primary, how far the others are, switchover."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests

SECONDS = (1.0, 3.0)
SWITCHOVER_SECONDS = (1.0, 60.0)


class PatroniUnavailable(Exception):
    """No member answered."""


class PatroniRefused(Exception):
    """Patroni understood and said no; the message is its own."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member as the cluster sees it. `lag`: bytes of WAL behind, None if unknown."""

    name: str
    role: str
    state: str
    timeline: int | None
    lag: int | None

    @property
    def leads(self) -> bool:
        """Whether it is the primary."""
        return self.role == "leader"

    @property
    def follows(self) -> bool:
        """Whether it is a standby that commits may count on."""
        return self.role in ("quorum_standby", "sync_standby") and self.state in ("streaming", "running")


class Patroni:
    """A client of all members. `urls` like https://192.0.2.1:8008, by member."""

    def __init__(self, urls: Mapping[str, str], session: requests.Session) -> None:
        self._urls = dict(urls)
        self._session = session

    def members(self) -> tuple[Member, ...]:
        """All members, as the first one that answers sees them; PatroniUnavailable."""
        for url in self._urls.values():
            try:
                answer = self._session.get(f"{url}/cluster", timeout=SECONDS)
                answer.raise_for_status()
                told = answer.json()["members"]
                return tuple(sorted((_member(each) for each in told), key=lambda member: member.name))
            except (requests.exceptions.RequestException, ValueError, KeyError):
                continue
        raise PatroniUnavailable("no member answers")

    def version(self, name: str) -> str:
        """The PostgreSQL version of a member, like 170005; PatroniUnavailable."""
        try:
            told = self._session.get(f"{self._urls[name]}/patroni", timeout=SECONDS).json()
            return str(told.get("server_version", ""))
        except (requests.exceptions.RequestException, ValueError) as error:
            raise PatroniUnavailable(f"{name}: {type(error).__name__}") from error

    def switchover(self, leader: str, candidate: str | None) -> str:
        """Make a standby the primary, by name or the best one, and wait for it; what Patroni says."""
        request = {"leader": leader} | ({"candidate": candidate} if candidate else {})
        return self._tell("POST", "switchover", leader, request)

    def configure(self, settings: Mapping[str, Any]) -> bool:
        """Merge settings into those that all members share; False if they are among them already."""
        for name in self._urls:
            try:
                if _includes(self._settings(name), settings):
                    return False
                self._tell("PATCH", "config", name, settings)
                return True
            except PatroniUnavailable:
                continue
        raise PatroniUnavailable("no member answers")

    def _settings(self, name: str) -> Any:
        try:
            answer = self._session.get(f"{self._urls[name]}/config", timeout=SECONDS)
            answer.raise_for_status()
            return answer.json()
        except (requests.exceptions.RequestException, ValueError) as error:
            raise PatroniUnavailable(f"{name}: {type(error).__name__}") from error

    def _tell(self, method: str, path: str, name: str, request: Mapping[str, Any]) -> str:
        try:
            answer = self._session.request(
                method, f"{self._urls[name]}/{path}", json=request, timeout=SWITCHOVER_SECONDS
            )
        except requests.exceptions.RequestException as error:
            raise PatroniUnavailable(f"{name}: {type(error).__name__}") from error
        if answer.status_code != requests.codes.ok:
            raise PatroniRefused(answer.text.strip())
        return answer.text.strip()


def _includes(whole: Any, part: Any) -> bool:
    """Whether merging `part` into `whole` would change nothing."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(
            key in whole and _includes(whole[key], value) for key, value in part.items()
        )
    return bool(whole == part)


def _member(told: Mapping[str, Any]) -> Member:
    lag = told.get("lag", told.get("receive_lag"))
    return Member(
        name=str(told["name"]),
        role=str(told["role"]),
        state=str(told["state"]),
        timeline=told.get("timeline"),
        lag=lag if isinstance(lag, int) else None,
    )
