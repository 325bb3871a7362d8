"""The virtual IP and the load balancers behind it."""

import random
import socket
import time

from chaos.deployed import Deployed
from chaos.faults import processes
from chaos.faults.fault import Expect, Fault, Injected, Sign, nothing
from chaos.faults.host import power_off

HAPROXY, KEEPALIVED = "haproxy.service", "keepalived.service"
RELOADS = 3
CONNECT_SECONDS = 0.5


def answers(cluster: Deployed) -> bool:
    """Does somebody take a client's connection at the virtual IP?"""
    entrance = cluster.entrance
    try:
        with cluster.lab.network.entered():
            socket.create_connection((entrance.address, entrance.https_port), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


ANSWERED = Sign("the virtual IP answers", 4.0, answers)


def _link_down(cluster: Deployed, _generator: random.Random) -> Injected:
    holder = cluster.holder()
    made = time.monotonic()
    cluster.lab.network.unplug(holder.name)
    return Injected(holder.name, cluster.lab.network.heal, made=made)


def _holder_off(cluster: Deployed, _generator: random.Random) -> Injected:
    return power_off(cluster.holder())


def _keepalived_killed(cluster: Deployed, _generator: random.Random) -> Injected:
    return processes.kill(cluster.holder(), KEEPALIVED)


def _keepalived_stopped(cluster: Deployed, _generator: random.Random) -> Injected:
    return processes.stop(cluster.holder(), KEEPALIVED)


def _haproxy_killed(cluster: Deployed, _generator: random.Random) -> Injected:
    return processes.kill(cluster.holder(), HAPROXY)


def _haproxies_reloaded(cluster: Deployed, _generator: random.Random) -> Injected:
    for _ in range(RELOADS):  # some of them fall into a C-STORE
        for host in processes.running(cluster, HAPROXY):
            host.run("systemctl", "reload", HAPROXY)
    return Injected("HAProxy on every host", nothing)


# A host that has lost its link or its power has lost all of its tiers: clients are promised a host's
# recovery, and the address moves sooner
FAULTS = (
    Fault("holder-link-down", "VIP", "the virtual IP's holder loses its link", 45, _link_down, sign=ANSWERED),
    Fault("holder-off", "VIP", "the virtual IP's holder loses power", 45, _holder_off, sign=ANSWERED),
    Fault("keepalived-killed", "VIP", "keepalived on the holder: kill -9", 5, _keepalived_killed),
    Fault(
        "keepalived-stopped",
        "VIP",
        "keepalived on the holder: SIGSTOP",
        5,
        _keepalived_stopped,
        hold_seconds=15,
    ),
    Fault("haproxy-killed", "LB", "HAProxy on the virtual IP's holder: kill -9", 3, _haproxy_killed),
    Fault(
        "haproxy-reloaded",
        "LB",
        "every HAProxy, three times, in mid C-STORE",
        3,
        _haproxies_reloaded,
        expects=Expect.UNNOTICED,
        roles_stay=True,
    ),
)
