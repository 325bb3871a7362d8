"""etcd's configuration, as Debian's unit reads it. Pure."""

from cluster.places import PLACES
from cluster.render.text import File, endpoint, render
from cluster.topology import Host, Topology


def files(topology: Topology, host: Host, *, joining: bool) -> tuple[File, ...]:
    """The member's environment and the unit's priorities. `joining`: the other members run already."""
    text = render(
        "etcd.default.j2",
        topology=topology,
        ports=topology.ports,
        host=host,
        members=topology.on("etcd"),
        joining=joining,
        places=PLACES,
        endpoint=endpoint,
    )
    drop_in = render("etcd.service.conf.j2")
    return (
        File("/etc/default/etcd", text, "etcd", restarts=("etcd",)),
        File("/etc/systemd/system/etcd.service.d/stele.conf", drop_in, "etcd", restarts=("etcd",)),
    )
