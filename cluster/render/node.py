"""The node's settings and units. Pure; what each setting means is in the node's own `stele config`."""

from cluster import memory
from cluster.places import PKI_GROUP, PLACES
from cluster.render import ceph
from cluster.render.haproxy import ASSOCIATIONS_PER_WORKER
from cluster.render.text import File, render
from cluster.topology import Host, Topology

POOL_SIZE = 8  # catalog connections of each process
OTHER_CONNECTIONS = 2  # of each process, beside its pool

_UNITS = {
    "stele-dimse@": ("DICOM process %i", "dimse", "dimse-%i"),
    "stele-web": ("DICOMweb and viewer", "web --with-dimse", "web"),
    "stele-worker": ("background work", "worker", "worker"),
}


def processes(topology: Topology) -> int:
    """Processes of one node that have catalog connections: DIMSE, web, worker."""
    return topology.dimse_workers + 2


def dsn(topology: Topology) -> str:
    """libpq's connection string: every PostgreSQL host, of which the one that takes writes is chosen.

    A peer that has vanished without a word is given up after 15 s (tcp_user_timeout), idle or not.
    """
    hosts = topology.on("postgres")
    values = {
        "host": ",".join(host.address for host in hosts),
        "port": str(topology.ports.postgres),
        "dbname": "stele",
        "user": "stele",
        "target_session_attrs": "read-write",
        "connect_timeout": "2",
        "tcp_user_timeout": "15000",
        "keepalives_idle": "5",
        "keepalives_interval": "3",
        "keepalives_count": "3",
        "sslmode": "verify-full",
        "sslrootcert": PLACES.ca,
        "sslcert": PLACES.certificate,
        "sslkey": PLACES.key,
    }
    return " ".join(f"{name}={value}" for name, value in values.items())


def proxies(topology: Topology) -> list[str]:
    """Networks from which the node demands PROXY protocol: the HAProxies' own addresses."""
    addresses = [host.address for host in topology.on("haproxy")]
    return [f"{address}/{128 if ':' in address else 32}" for address in addresses]


def files(topology: Topology, host: Host) -> tuple[File, ...]:
    """Settings and units of a node."""
    units = tuple(f"{name}*" if name.endswith("@") else name for name in _UNITS)
    settings = render(
        "stele.toml.j2",
        topology=topology,
        ports=topology.ports,
        anywhere="::" if ":" in host.address else "0.0.0.0",  # noqa: S104 - a server
        proxies=", ".join(f'"{network}"' for network in proxies(topology)),
        associations=ASSOCIATIONS_PER_WORKER,
        dsn=dsn(topology),
        pool_size=POOL_SIZE,
        pool=ceph.POOL,
        shares=memory.shares(host),
    )
    found = [File(PLACES.node_settings, settings, "node", group="stele", mode="0640", restarts=units)]
    for name, (description, arguments, instance) in _UNITS.items():
        text = render(
            "stele-node.service.j2",
            description=description,
            arguments=arguments,
            instance=instance,
            places=PLACES,
            pki_group=PKI_GROUP,
        )
        path = f"/etc/systemd/system/{name}.service"
        found.append(File(path, text, "node", restarts=(f"{name}*" if name.endswith("@") else name,)))
    register = render("stele-register.service.j2", host=host, places=PLACES, pki_group=PKI_GROUP)
    target = render("stele.target.j2", topology=topology)
    found += [
        File("/etc/systemd/system/stele-register.service", register, "node", restarts=("stele-register",)),
        File("/etc/systemd/system/stele.target", target, "node"),
        File("/etc/tmpfiles.d/stele.conf", render("stele.tmpfiles.j2"), "node"),
    ]
    return tuple(found)
