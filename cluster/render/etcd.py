"""etcd's configuration, as Debian's unit reads it. Pure."""

from cluster.places import PLACES
from cluster.render.text import File, endpoint, render
from cluster.topology import Host, Topology

_BOOTSTRAP = ("ETCD_INITIAL_CLUSTER=",)


def files(topology: Topology, host: Host) -> tuple[File, ...]:
    """The member's environment, as of a cluster's first start, and the unit's priorities."""
    text = render(
        "etcd.default.j2",
        topology=topology,
        ports=topology.ports,
        host=host,
        members=topology.on("etcd"),
        places=PLACES,
        endpoint=endpoint,
    )
    drop_in = render("etcd.service.conf.j2")
    return (
        File("/etc/default/etcd", text, "etcd", restarts=("etcd",), bootstrap=_BOOTSTRAP),
        File("/etc/systemd/system/etcd.service.d/stele.conf", drop_in, "etcd", restarts=("etcd",)),
    )
