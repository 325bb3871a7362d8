"""The lab's network: a bridge in a namespace of its own, a port for each host and one for the clients.

The bridge is where cables are cut: frames are dropped between two ports, in one direction or both, by rules
of nftables that the hosts can neither see nor touch. Both namespaces have no route to anything else.
"""

import ctypes
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chaos.lab.shell import LabError, attempt, run

SUBNET = "198.18.0"  # RFC 2544: for benchmarks of devices, routed nowhere
PREFIX_LENGTH = 24
CLIENT = "client"
CLIENT_PORT = "host0"  # the clients' end of their cable, as a host calls its own
CLIENT_ADDRESS = f"{SUBNET}.100"
BRIDGE = "bridge"
RATE_LATENCY_MS = 400
CLONE_NEWNET = 0x40000000  # setns(2)

# Frames between two ports: the pair in `cut` is dropped, others run through the loss chain of either port.
_RULES = """
table bridge lab {
  set cut { type ifname . ifname; }
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname . oifname @cut drop
  }
}
"""


class Network:
    """Network of the lab `name`; `hosts` are the names of those that may be plugged in."""

    def __init__(self, name: str, hosts: Sequence[str]) -> None:
        self.bridge_namespace = f"stele-{name}"
        self.client_namespace = f"stele-{name}-client"
        self._members = [*hosts, CLIENT]

    # --- Life ------------------------------------------------------------------------------------

    def make(self) -> None:
        """Make both namespaces, the bridge, the client's port and the rules."""
        for namespace in (self.bridge_namespace, self.client_namespace):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        self._ip("link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
        self._ip("link", "set", BRIDGE, "up")
        peer = ("peer", "name", CLIENT_PORT, "netns", self.client_namespace)
        self._ip("link", "add", port(CLIENT), "type", "veth", *peer)
        run(
            "ip",
            "-n",
            self.client_namespace,
            "addr",
            "add",
            f"{CLIENT_ADDRESS}/{PREFIX_LENGTH}",
            "dev",
            CLIENT_PORT,
        )
        run("ip", "-n", self.client_namespace, "link", "set", CLIENT_PORT, "up")
        self.plug(CLIENT)
        self._nft(_RULES)
        for member in self._members:
            self.admit(member)

    def admit(self, member: str) -> None:
        """Make the rules that a member's faults need; for one that comes later, too."""
        rules = [f"add chain bridge lab {_loss_chain(member)}"]
        for direction in ("iifname", "oifname"):
            rules.append(
                f'add rule bridge lab forward {direction} "{port(member)}" jump {_loss_chain(member)}'
            )
        self._nft("\n".join(rules))

    def plug(self, member: str) -> bool:
        """Join a host's port to the bridge; False if the port is not there (yet)."""
        command = ("ip", "-n", self.bridge_namespace, "link", "set", port(member), "master", BRIDGE, "up")
        return attempt(command, seconds=10).returncode == 0

    def unplug(self, member: str) -> None:
        """Pull a host's cable: its own end has no carrier any more. `heal` plugs it in again."""
        self._checked({(member, member)})
        self._ip("link", "set", port(member), "down")

    def plugged(self, member: str) -> bool:
        """Is the port there? It goes with the host's power."""
        command = ("ip", "-n", self.bridge_namespace, "link", "show", port(member))
        return attempt(command, seconds=10).returncode == 0

    def remove(self) -> None:
        """End what still runs in the namespaces and remove them, as far as they are there."""
        present = namespaces()
        for namespace in (self.client_namespace, self.bridge_namespace):
            if namespace in present:
                for process in run("ip", "netns", "pids", namespace).split():
                    attempt(("kill", "-KILL", process.decode()), seconds=10)
                run("ip", "netns", "delete", namespace)

    # --- The clients' side -----------------------------------------------------------------------

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread, and the threads and programs it starts, where clients stand. LabError."""
        here, there = Path("/proc/thread-self/ns/net"), Path("/run/netns", self.client_namespace)
        with here.open() as former, there.open() as ours:
            _enter(ours.fileno())
            try:
                yield
            finally:
                _enter(former.fileno())

    # --- Faults ----------------------------------------------------------------------------------

    def cut(self, source: str, target: str, *, one_way: bool = False) -> None:
        """Drop every frame from `source` to `target`, and back unless `one_way`."""
        self._change("add", self._pairs(source, target, one_way))

    def mend(self, source: str, target: str, *, one_way: bool = False) -> None:
        """Undo `cut` for this pair."""
        self._change("delete", self._pairs(source, target, one_way) & self.cuts())

    def partition(self, *sides: Iterable[str]) -> None:
        """Cut every cable between members of different sides; who is on no side keeps all of theirs."""
        groups = [tuple(side) for side in sides]
        pairs = {
            (source, target)
            for group in groups
            for other in groups
            if group is not other
            for source in group
            for target in other
        }
        self._change("add", self._checked(pairs))

    def isolate(self, member: str) -> None:
        """Cut a host from all others and the clients."""
        self.partition([member], [other for other in self._members if other != member])

    def cuts(self) -> set[tuple[str, str]]:
        """Pairs (source, target) that are cut."""
        listed = json.loads(self._nft("", "-j", "list", "set", "bridge", "lab", "cut"))
        [found] = [item["set"] for item in listed["nftables"] if "set" in item]
        return {
            (_member(source), _member(target))
            for source, target in (item["concat"] for item in found.get("elem", ()))
        }

    def lose(self, member: str, fraction: float) -> None:
        """Drop this share (0 to 1) of the frames to and from a host, at random; 0 ends it."""
        self._checked({(member, member)})
        chain = f"bridge lab {_loss_chain(member)}"
        parts = round(fraction * 1000)
        rule = f"add rule {chain} numgen random mod 1000 < {parts} drop" if parts else ""
        self._nft(f"flush chain {chain}\n{rule}")

    def limit(self, member: str, kbit_per_second: int | None) -> None:
        """Let a host receive no faster than this, with a queue; None ends it. Ends with the host's power."""
        device = ("tc", "-n", self.bridge_namespace, "qdisc")
        if kbit_per_second is None:
            attempt((*device, "delete", "dev", port(member), "root"), seconds=10)
            return
        shape = ("rate", f"{kbit_per_second}kbit", "burst", "16kb", "latency", f"{RATE_LATENCY_MS}ms")
        run(*device, "replace", "dev", port(member), "root", "tbf", *shape)

    def heal(self) -> None:
        """End all faults of the network."""
        chains = "\n".join(f"flush chain bridge lab {_loss_chain(member)}" for member in self._members)
        self._nft(f"flush set bridge lab cut\n{chains}")
        for member in self._members:
            self.limit(member, None)
            self.plug(member)  # one that is off has no port

    # --- Inside ----------------------------------------------------------------------------------

    def _pairs(self, source: str, target: str, one_way: bool) -> set[tuple[str, str]]:
        pairs = {(source, target)} if one_way else {(source, target), (target, source)}
        return self._checked(pairs)

    def _checked(self, pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
        for member in {member for pair in pairs for member in pair}:
            if member not in self._members:
                raise LabError(f"no host {member!r} here; there are {', '.join(self._members)}")
        return pairs

    def _change(self, verb: str, pairs: set[tuple[str, str]]) -> None:
        if pairs:
            elements = ", ".join(f'"{port(source)}" . "{port(target)}"' for source, target in sorted(pairs))
            self._nft(f"{verb} element bridge lab cut {{ {elements} }}")

    def _ip(self, *arguments: str) -> None:
        run("ip", "-n", self.bridge_namespace, *arguments)

    def _nft(self, rules: str, *command: str) -> bytes:
        arguments = command or ("-f", "-")
        return run("ip", "netns", "exec", self.bridge_namespace, "nft", *arguments, stdin=rules.encode())


def port(member: str) -> str:
    """Name of the bridge's end of a host's cable."""
    return f"port-{member}"


def namespaces() -> set[str]:
    """Names of the network namespaces on this machine."""
    return {line.split()[0].decode() for line in run("ip", "netns", "list").splitlines() if line.strip()}


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # Python 3.12 has os.setns
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise LabError(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")


def _member(port_name: str) -> str:
    return port_name.removeprefix("port-")


def _loss_chain(member: str) -> str:
    return f"loss_{member}"
