"""Which nodes HAProxy is given, from what is registered and what it has now. Pure.

A registry that is empty never empties the backends. That nobody is registered says only that no lease was
kept alive lately: all nodes may have died, but far more likely etcd lost its data, was restored, or no
registrar reached it. Health checks know better than a registry that knows nothing: with the last nodes kept,
those that really are dead get no traffic, and those that live go on serving. For the same reason a registry
in which every node drains drains none. In both cases the next registration that says otherwise is believed.
"""

from collections.abc import Sequence
from dataclasses import replace

from cluster.registry import Node


def serving(registered: Sequence[Node], last: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes for HAProxy: those registered, or the last ones if nobody is."""
    nodes = sorted(registered or last, key=lambda node: node.name)
    if all(node.draining for node in nodes):
        nodes = [replace(node, draining=False) for node in nodes]
    return tuple(nodes)
