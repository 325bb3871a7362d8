"""Patroni's configuration. Pure."""

from cluster import memory, quorum
from cluster.places import PLACES
from cluster.render import node
from cluster.render.text import File, endpoint, render
from cluster.topology import MIB, Host, Topology

TTL_SECONDS = 20  # of the primary's lease
SPARE_CONNECTIONS = 30  # replication, Patroni, operators, and a node that is being replaced


def connections(topology: Topology) -> int:
    """PostgreSQL's max_connections: what all nodes together may open, and some more."""
    each = node.processes(topology) * (node.POOL_SIZE + node.OTHER_CONNECTIONS)
    return each * len(topology.on("node")) + SPARE_CONNECTIONS


def dcs(topology: Topology) -> str:
    """Patroni's configuration that all members share and that lives in etcd, as YAML."""
    standbys = quorum.synchronous_standbys(len(topology.on("postgres")))
    return render("patroni.dcs.yml.j2", ttl=TTL_SECONDS, standbys=standbys, connections=connections(topology))


def files(topology: Topology, host: Host) -> tuple[File, ...]:
    """Files of a PostgreSQL host."""
    backup = topology.on("backup")
    text = render(
        "patroni.yml.j2",
        topology=topology,
        ports=topology.ports,
        host=host,
        members=topology.on("postgres"),
        nodes=topology.on("node"),
        etcd=topology.on("etcd"),
        bits=128 if ":" in host.address else 32,
        listen=endpoint(host.address, topology.ports.postgres),
        dcs=dcs(topology),
        shares=memory.shares(host),
        mib=MIB,
        backup=backup,
        archive_command="pgbackrest --stanza=stele archive-push %p" if backup else "/bin/true",
        places=PLACES,
        endpoint=endpoint,
    )
    drop_in = render("patroni.service.conf.j2", topology=topology)
    fence = render(
        "patroni-fence.j2",
        ports=topology.ports,
        host=host,
        patience=TTL_SECONDS // 2,
        places=PLACES,
        endpoint=endpoint,
    )
    fence_unit = render("patroni-fence.service.j2")
    unit = ("patroni",)
    return (
        File("/etc/patroni/config.yml", text, "postgres", group="postgres", mode="0640", reloads=unit),
        File("/etc/patroni/post-bootstrap", render("patroni.post-bootstrap.j2"), "postgres", mode="0755"),
        File("/etc/systemd/system/patroni.service.d/stele.conf", drop_in, "postgres", restarts=unit),
        File("/etc/patroni/fence", fence, "postgres", mode="0755", restarts=("patroni-fence",)),
        File(
            "/etc/systemd/system/patroni-fence.service", fence_unit, "postgres", restarts=("patroni-fence",)
        ),
    )
