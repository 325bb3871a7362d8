"""Alerts as signs of a fault: what operators have to be told, and how soon."""

import json

from chaos.deployed import Deployed
from chaos.faults.fault import Sign
from chaos.lab.shell import LabError

ALERT_SECONDS = 60.0
PORT = 9090  # Prometheus's
# Prometheus lets the hosts only ask, and a host has Python, not curl
_ASK = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
"""


def firing(cluster: Deployed) -> set[str]:
    """Names of the alerts that fire, as any Prometheus says; LabError if none answers."""
    told = "no host watches"
    for host in cluster.lab.hosts.values():
        url = f"http://{host.address}:{PORT}/api/v1/alerts"
        try:
            return names(host.run("python3", "-c", _ASK, url, seconds=10).decode())
        except LabError as error:
            told = str(error)
    raise LabError(told)


def names(answer: str) -> set[str]:
    """Names of the alerts that fire, out of the answer of Prometheus's API."""
    alerts = json.loads(answer)["data"]["alerts"]
    return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}


def fires(name: str, seconds: float = ALERT_SECONDS) -> Sign:
    """The sign that an alert fires."""
    return Sign(f"the alert {name}", seconds, lambda cluster: name in firing(cluster))
