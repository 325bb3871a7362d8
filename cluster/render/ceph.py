"""Ceph's configuration, and the pool that objects lie in. Pure."""

from cluster import memory
from cluster.render.text import File, endpoint, render
from cluster.topology import Host, Topology

POOL = "stele.objects"
RULE_ID = 42  # of the CRUSH rule; Ceph's own begin at 0
_BOOTSTRAP = ("mon_initial_members", "mon_host")  # running daemons hear of monitors from the monitors
_TIERS = ("ceph-mon", "ceph-mgr", "ceph-osd")  # in the order in which to change them
_GROUPS_PER_OSD = 100  # shards of placement groups, as Ceph's documentation advises


def placement_groups(topology: Topology) -> int:
    """The pool's placement groups: a power of two that gives each OSD about a hundred shards."""
    osds = sum(len(host.osd_devices) for host in topology.on("ceph-osd"))
    wanted = osds * _GROUPS_PER_OSD / (topology.erasure.k + topology.erasure.m)
    return max(16, 1 << (int(wanted).bit_length() - 1))


def _rule_name(topology: Topology) -> str:
    return f"stele_{topology.erasure.k}_{topology.erasure.m}"


def crush_rule(topology: Topology) -> str:
    """The CRUSH rule as crushtool compiles it: which OSDs an object's shards lie on."""
    return render("crush-rule.j2", erasure=topology.erasure, pool_rule=_rule_name(topology), rule_id=RULE_ID)


def files(topology: Topology, host: Host) -> tuple[File, ...]:
    """ceph.conf, for daemons and for the node; on monitors the pool's script, too."""
    text = render(
        "ceph.conf.j2",
        topology=topology,
        host=host,
        mons=topology.on("ceph-mon"),
        shares=memory.shares(host),
        endpoint=endpoint,
    )
    daemons = tuple(f"{tier}@*" for tier in _TIERS if tier in host.tiers)
    found = [File("/etc/ceph/ceph.conf", text, "ceph", restarts=daemons, bootstrap=_BOOTSTRAP)]
    if "ceph-mon" in host.tiers:
        script = render(
            "ceph-pool.j2",
            erasure=topology.erasure,
            profile=_rule_name(topology),
            pool_rule=_rule_name(topology),
            rule=crush_rule(topology),
            pool=POOL,
            placement_groups=placement_groups(topology),
        )
        found.append(File("/etc/ceph/stele-pool", script, "ceph", mode="0755"))
    return tuple(found)
