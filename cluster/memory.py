"""How a host's memory is shared among what runs on it. Pure: figures for 8 GiB, scaled to what there is.

On a host of 8 GiB with every tier and two OSDs: OSDs 2 x 1 GiB, PostgreSQL 1 GiB of shared buffers, the
node's intake 256 MiB in each DIMSE process; the rest is the kernel's file cache, from which PostgreSQL reads,
and what processes take beside their caches.
"""

from dataclasses import dataclass

from cluster.topology import GIB, MIB, Host

OSD_LEAST_BYTES = 896 * MIB  # Ceph takes no smaller osd_memory_target
_LEAST_BYTES = {
    "etcd": 256 * MIB,
    "postgres": 768 * MIB,
    "ceph-mon": 512 * MIB,
    "ceph-mgr": 512 * MIB,
    "node": 1024 * MIB,
    "haproxy": 128 * MIB,
    "monitoring": 256 * MIB,
    "backup": 128 * MIB,
}


@dataclass(frozen=True, slots=True)
class Shares:
    """Bytes for each thing that has a setting for it."""

    osd_memory_target: int
    shared_buffers: int
    effective_cache_size: int
    work_mem: int
    maintenance_work_mem: int
    max_wal_size: int
    intake_budget: int


def least_bytes(host: Host) -> int:
    """What the host's tiers take at the very least."""
    return sum(_LEAST_BYTES.get(tier, 0) for tier in host.tiers) + OSD_LEAST_BYTES * len(host.osd_devices)


def shares(host: Host) -> Shares:
    """The host's shares, in whole MiB."""
    memory = host.memory_bytes
    osds = max(1, len(host.osd_devices))
    return Shares(
        osd_memory_target=_mib(memory // 4 // osds, OSD_LEAST_BYTES, 8 * GIB),
        shared_buffers=_mib(memory // 8, 128 * MIB, 64 * GIB),
        effective_cache_size=_mib(memory * 3 // 8, 256 * MIB, 512 * GIB),
        work_mem=_mib(memory // 1024, 4 * MIB, 64 * MIB),
        maintenance_work_mem=_mib(memory // 32, 64 * MIB, 2 * GIB),
        max_wal_size=_mib(memory // 4, GIB, 32 * GIB),
        intake_budget=_mib(memory // 32, 128 * MIB, 2 * GIB),
    )


def _mib(wanted: int, least: int, most: int) -> int:
    return min(max(wanted, least), most) // MIB * MIB
