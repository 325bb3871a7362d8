"""keepalived's configuration: who holds the virtual IP. Pure."""

from cluster.render.text import File, render
from cluster.topology import Host, Topology

_HIGHEST_PRIORITY = 200


def files(topology: Topology, host: Host) -> tuple[File, ...]:
    """One VRRP instance with the hosts that have HAProxy, by unicast; no two have the same priority."""
    members = topology.on("haproxy")
    text = render(
        "keepalived.conf.j2",
        topology=topology,
        ports=topology.ports,
        host=host,
        peers=[each for each in members if each != host],
        priority=_HIGHEST_PRIORITY - members.index(host),
    )
    return (
        File("/etc/keepalived/keepalived.conf", text, "haproxy", mode="0600", reloads=("keepalived",)),
        File("/etc/keepalived/haproxy-alive", render("haproxy-alive.j2"), "haproxy", mode="0755"),
        File(
            "/etc/systemd/system/keepalived.service.d/stele.conf",
            render("keepalived.service.conf.j2"),
            "haproxy",
            restarts=("keepalived",),
        ),
    )
