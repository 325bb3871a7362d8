"""etcd: its leader, its quorum, its space, its disk."""

import json
import random

from chaos.deployed import Deployed
from chaos.faults import processes
from chaos.faults.alerts import fires
from chaos.faults.fault import Expect, Fault, Heal, Injected
from chaos.faults.postgres import PATRONI, standbys
from chaos.faults.processes import named, together
from chaos.lab.controllers import Limited, device_of, missing
from chaos.lab.host import Host
from chaos.lab.shell import wait_for

ETCD = "etcd.service"
JUNK = "/chaos/"
QUOTA_MIB = 24
JUNK_BYTES = 1 << 20
WRITES_PER_SECOND = 10
MEMBER_SECONDS = 60.0
DROP_IN = "/run/systemd/system/etcd.service.d/chaos.conf"
SMALL = "/run/chaos-etcd"

_ETCDCTL = """
export ETCDCTL_CACERT=/etc/stele/pki/ca.crt ETCDCTL_CERT=/etc/stele/pki/host.crt
export ETCDCTL_KEY=/etc/stele/pki/host.key ETCDCTL_ENDPOINTS=https://127.0.0.1:2379
"""


def etcdctl(host: Host, script: str, seconds: float = 60) -> str:
    """What a shell script says on a host, in which `etcdctl` asks the member there; LabError."""
    return host.run("bash", "-e", "-c", f"{_ETCDCTL}\n{script}", seconds=seconds).decode()


def members(cluster: Deployed) -> list[Host]:
    """The hosts that vote."""
    return [cluster.lab.hosts[name] for name in cluster.status()["etcd"]]


def _leader_killed(cluster: Deployed, _generator: random.Random) -> Injected:
    return processes.kill(cluster.etcd_leader(), ETCD)


def _majority(cluster: Deployed, generator: random.Random) -> list[Host]:
    voters = members(cluster)
    return generator.sample(voters, len(voters) // 2 + 1)


def _quorum_lost(cluster: Deployed, generator: random.Random) -> Injected:
    return together(*(processes.keep_down(host, ETCD) for host in _majority(cluster, generator)))


def _quorum_and_member_lost(cluster: Deployed, generator: random.Random) -> Injected:
    """Patroni's failsafe needs every member: with one away, the primary may not go on without etcd."""
    quiet = processes.keep_down(generator.choice(standbys(cluster)), PATRONI)
    return together(quiet, _quorum_lost(cluster, generator))


# --- Space ----------------------------------------------------------------------------------------


def _restart(host: Host) -> None:
    host.run("sh", "-c", f"systemctl daemon-reload && systemctl restart {ETCD}")
    wait_for(
        lambda: "is healthy" in etcdctl(host, "etcdctl endpoint health 2>&1 || true"),
        MEMBER_SECONDS,
        f"{host.name}: etcd is not well after its restart",
    )


def _small_quota(cluster: Deployed, _generator: random.Random) -> Heal:
    voters = members(cluster)
    for host in voters:
        lines = f"[Service]\nEnvironmentFile={SMALL}\n"
        host.run("mkdir", "-p", DROP_IN.rpartition("/")[0])
        host.run("tee", DROP_IN, stdin=lines.encode())
        host.run("tee", SMALL, stdin=f"ETCD_QUOTA_BACKEND_BYTES={QUOTA_MIB << 20}\n".encode())
        _restart(host)

    def undo() -> None:
        for host in voters:
            host.run("rm", "-f", DROP_IN, SMALL)
            _restart(host)

    return undo


def _space_used_up(cluster: Deployed, _generator: random.Random) -> Injected:
    host = cluster.etcd_leader()
    # No more than twice the quota: the put that is one too many is refused, and the alarm is raised
    script = f"""
        head -c {JUNK_BYTES} /dev/zero | tr '\\0' x >/run/chaos-junk
        for number in $(seq {2 * QUOTA_MIB}); do
            etcdctl put "{JUNK}$number" </run/chaos-junk >/dev/null 2>&1 || break
        done
        rm /run/chaos-junk
        etcdctl alarm list | grep -q NOSPACE
    """
    etcdctl(host, script, 120)
    return Injected(named(host, "etcd's space"), lambda: _space_freed(cluster))


def _space_freed(cluster: Deployed) -> None:
    """What an operator does (the runbook's EtcdNearlyFull)."""
    hosts = members(cluster)
    etcdctl(hosts[0], f"etcdctl del --prefix {JUNK}")
    [status] = json.loads(etcdctl(hosts[0], "etcdctl endpoint status --write-out json"))
    etcdctl(hosts[0], f"etcdctl compact --physical {status['Status']['header']['revision']}")
    for host in hosts:
        etcdctl(host, "etcdctl defrag")
    etcdctl(hosts[0], "etcdctl alarm disarm")


# --- Disk -----------------------------------------------------------------------------------------


def _disk_slow(cluster: Deployed, _generator: random.Random) -> Injected:
    host = cluster.etcd_leader()
    limit = {"blkio.throttle.write_iops_device": f"{device_of(host.scratch)} {WRITES_PER_SECOND}"}
    group = Limited("blkio", f"{host.name}-slow", limit, host.processes(ETCD))
    return Injected(named(host, "etcd's disk"), group.release)


FAULTS = (
    Fault("etcd-leader-killed", "etcd", "etcd's leader: kill -9", 3, _leader_killed, roles_stay=True),
    # Patroni's failsafe: the primary goes on as long as it reaches every member
    Fault(
        "etcd-quorum-lost",
        "etcd",
        "two members of three: kill -9, and away",
        30,
        _quorum_lost,
        hold_seconds=40,  # beyond the primary's lease
        roles_stay=True,
    ),
    Fault(
        "etcd-quorum-and-member-lost",
        "etcd",
        "the same, and a standby's Patroni",
        30,
        _quorum_and_member_lost,
        expects=Expect.REFUSED,
        settling_seconds=30,  # the lease, and a round of Patroni's
        reads_go_on=False,  # from a primary only
    ),
    Fault(
        "etcd-space-used-up",
        "etcd",
        "the space quota is reached",
        3,
        _space_used_up,
        making_seconds=300,
        roles_stay=True,
        sign=fires("EtcdNearlyFull"),
        prepare=_small_quota,
    ),
    Fault(
        "etcd-disk-slow",
        "etcd",
        f"the leader's disk takes {WRITES_PER_SECOND} writes per second",
        5,
        _disk_slow,
        hold_seconds=30,
        roles_stay=True,
        unavailable=lambda _cluster: missing("blkio"),
    ),
)
