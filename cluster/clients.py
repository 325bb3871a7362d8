"""Clients of a cluster's services, made from its topology and this host's certificate."""

import os
from dataclasses import fields

from cluster.etcd import Etcd
from cluster.patroni import Patroni
from cluster.places import Places
from cluster.render.text import endpoint
from cluster.tls import Identity
from cluster.topology import Topology


def places() -> Places:
    """Where things lie on this host. `STELE_CLUSTER_CA` and the like replace single paths."""
    given = {each.name: os.environ.get(f"STELE_CLUSTER_{each.name.upper()}") for each in fields(Places)}
    return Places(**{name: path for name, path in given.items() if path is not None})


class NoCertificate(Exception):
    """This host's certificate cannot be read; the message says which file."""


def identity() -> Identity:
    """This host's certificate; NoCertificate."""
    where = places()
    for path in (where.ca, where.certificate, where.key):
        if not os.access(path, os.R_OK):
            raise NoCertificate(f"{path}: cannot be read; run this on a host of the cluster, as root")
    return Identity(where.ca, where.certificate, where.key)


def etcd_endpoints(topology: Topology) -> dict[str, str]:
    """etcd's addresses by host."""
    port = topology.ports.etcd_client
    return {host.name: f"https://{endpoint(host.address, port)}" for host in topology.on("etcd")}


def etcd_of(topology: Topology) -> Etcd:
    """A client of the cluster's etcd."""
    return Etcd(list(etcd_endpoints(topology).values()), identity().session())


def patroni_of(topology: Topology) -> Patroni:
    """A client of the cluster's Patroni."""
    port = topology.ports.patroni
    urls = {host.name: f"https://{endpoint(host.address, port)}" for host in topology.on("postgres")}
    return Patroni(urls, identity().session())


def internal_url(topology: Topology, address: str, path: str) -> str:
    """A page of a HAProxy's that is for the cluster's hosts only."""
    return f"https://{endpoint(address, topology.ports.haproxy_internal)}{path}"
