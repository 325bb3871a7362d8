"""What the cluster keeps in etcd about its nodes: names of keys, and the values under them. Pure.

    /stele/CLUSTER/nodes/NAME    a node's registration, under a lease that its registrar keeps alive
    /stele/CLUSTER/drains/NAME   an operator's wish that the node takes no new work; stays until withdrawn

What comes out of etcd ends up in HAProxy's configuration, so a registration that is not exactly as it should
be is none.
"""

import ipaddress
import json
import re
from dataclasses import asdict, dataclass

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~-]{0,39}")


class NotANode(Exception):
    """A value that is no registration."""


@dataclass(frozen=True, slots=True)
class Node:
    """A registered node: where HAProxy reaches it, what it runs, and whether it takes new work."""

    name: str
    address: str
    dicom_port: int
    http_port: int
    version: str
    draining: bool = False


def nodes_prefix(cluster: str) -> str:
    """Where the registrations are."""
    return f"/stele/{cluster}/nodes/"


def drain_key(cluster: str, name: str) -> str:
    """Where an operator's wish about a node is."""
    return f"/stele/{cluster}/drains/{name}"


def encode(node: Node) -> str:
    """A registration as etcd keeps it: JSON."""
    return json.dumps(asdict(node), sort_keys=True)


def decode(key: str, value: str) -> Node:
    """The node that a registration describes; NotANode if it is malformed or under another's name."""
    try:
        values = json.loads(value)
        node = Node(**values)
        ipaddress.ip_address(node.address)
    except (ValueError, TypeError) as error:
        raise NotANode(f"{key}: {error}") from None
    whole = all(type(port) is int and 1 <= port <= 65535 for port in (node.dicom_port, node.http_port))
    names = isinstance(node.name, str) and _NAME.fullmatch(node.name) and key.rpartition("/")[2] == node.name
    version = isinstance(node.version, str) and _VERSION.fullmatch(node.version)
    if not (whole and names and version and isinstance(node.draining, bool)):
        raise NotANode(f"{key}: a name, port, version or flag is malformed")
    return node
