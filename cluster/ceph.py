"""A small client of Ceph: the `ceph` command's JSON, on a host that has an administrator's key."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONNECT_SECONDS = 5
ANSWER_SECONDS = 10.0


class CephUnavailable(Exception):
    """Ceph did not answer; the message says why."""


@dataclass(frozen=True, slots=True)
class CephStatus:
    """`health` is HEALTH_OK, HEALTH_WARN or HEALTH_ERR; `checks` are its reasons; `used` a part of 1."""

    health: str
    checks: tuple[str, ...]
    monitors_up: tuple[str, ...]
    manager: str
    osds: int
    osds_up: int
    osds_in: int
    groups: int
    groups_clean: int
    used: float

    @property
    def clean(self) -> bool:
        """Whether every placement group has all its shards where they belong."""
        return self.groups > 0 and self.groups == self.groups_clean


def status() -> CephStatus:
    """The cluster's state, CephUnavailable within twice ANSWER_SECONDS otherwise."""
    try:
        return parse(_ask("status"), _ask("mgr", "stat"))
    except KeyError as error:
        raise CephUnavailable(f"not understood: {error}") from error


def _ask(*question: str) -> Any:
    command = ["ceph", "--connect-timeout", str(CONNECT_SECONDS), "--format", "json", *question]
    try:
        done = subprocess.run(  # noqa: S603
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        return json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise CephUnavailable(said[-1] if said else f"status {error.returncode}") from error
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise CephUnavailable(str(error)) from error


def parse(told: Mapping[str, Any], manager: Mapping[str, Any]) -> CephStatus:
    """What `ceph status` and `ceph mgr stat` say; KeyError if it is something else."""
    osds, groups = told["osdmap"], told["pgmap"]
    total = groups.get("bytes_total", 0)
    return CephStatus(
        health=told["health"]["status"],
        checks=tuple(each["summary"]["message"] for each in told["health"].get("checks", {}).values()),
        monitors_up=tuple(told.get("quorum_names", ())),
        manager=manager["active_name"],
        osds=osds["num_osds"],
        osds_up=osds["num_up_osds"],
        osds_in=osds["num_in_osds"],
        groups=groups["num_pgs"],
        groups_clean=sum(
            each["count"] for each in groups.get("pgs_by_state", ()) if "active+clean" in each["state_name"]
        ),
        used=groups.get("bytes_used", 0) / total if total else 0.0,
    )
