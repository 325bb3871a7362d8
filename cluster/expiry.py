"""When the certificates end that the cluster's servers present, as a metric of every agent.

Presented, not lying on the disk: a server that was never told of its new certificate is what goes wrong.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import structlog
from prometheus_client import Gauge

from cluster import observe
from cluster.clients import NoCertificate
from cluster.topology import Topology

LOOK_SECONDS = 600.0
_MOST_THREADS = 4

ENDS = Gauge(
    "stele_certificate_end_timestamp_seconds",
    "When what a server of the cluster presents ends; without those that do not answer",
    ["server", "service"],
)

log = structlog.get_logger()


def run(topology: Topology, stop: threading.Event) -> None:
    """Look at every server again and again until `stop` is set."""
    while not stop.is_set():
        try:
            look(topology)
        except (OSError, NoCertificate) as error:  # our own is just being replaced
            log.warning("certificates not looked at", error=str(error))
        stop.wait(LOOK_SECONDS)


def look(topology: Topology) -> None:
    """Look at every TLS server once, and tell."""
    with ThreadPoolExecutor(_MOST_THREADS) as pool:
        seen = list(pool.map(lambda each: observe.certificate(*each), observe.tls_servers(topology)))
    for each in seen:
        if each.ends is None:
            ENDS.remove(each.host, each.service)
        else:
            ENDS.labels(each.host, each.service).set(each.ends.timestamp())
