"""The topology: which hosts there are, what runs on each, and the few choices a site makes.

One plain frozen value. All configuration text, every operator command and `--explain` begin with it.
`cluster.parse` makes it from a mapping and refuses what is malformed; `cluster.rules` refuses what no cluster
should be built as. Both say what is wrong and what to do.
"""

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30

TIERS = ("etcd", "postgres", "ceph-mon", "ceph-mgr", "ceph-osd", "node", "haproxy", "monitoring", "backup")
DEFAULT_TIERS = tuple(tier for tier in TIERS if tier != "backup")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a topology: where, why, and what would be right."""

    where: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}; {self.remedy}"


class WrongTopology(Exception):
    """A topology that nothing is built from. `problems` has all that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Host:
    """One machine. `tiers` of TIERS; `osd_devices` are paths of disks, one OSD each."""

    name: str
    address: str
    tiers: frozenset[str]
    interface: str
    memory_bytes: int
    osd_devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports. The first four are what clients see on the virtual IP; 0 turns DICOM TLS off."""

    dicom: int = 104
    dicom_tls: int = 2762  # PS3.8 section 9.1.4 names 104; IANA has 2762 for DICOM ISCL/TLS
    https: int = 443
    http: int = 80
    node_dicom: int = 11112
    node_http: int = 8042
    etcd_client: int = 2379
    etcd_peer: int = 2380
    postgres: int = 5432
    patroni: int = 8008
    backup: int = 8432
    haproxy_internal: int = 8404
    haproxy_alive: int = 8405
    agent: int = 9551
    register: int = 9552
    prometheus: int = 9090
    alertmanager: int = 9093


@dataclass(frozen=True, slots=True)
class Erasure:
    """How an object is cut up: k data and m coding shards, `shards_per_host` on each chosen host.

    Reads and writes go on while `min_size` shards of each placement group are there.
    """

    k: int
    m: int
    min_size: int
    shards_per_host: int

    @property
    def hosts(self) -> int:
        """OSD hosts that one placement group uses."""
        return (self.k + self.m) // self.shards_per_host

    @property
    def name(self) -> str:
        """As a site writes it."""
        return f"{self.k}+{self.m}"


ERASURES = {
    "3+3": Erasure(k=3, m=3, min_size=4, shards_per_host=2),
    "4+2": Erasure(k=4, m=2, min_size=5, shards_per_host=1),
}
WIDE_HOSTS = 6  # from here on 4+2 over hosts is both safe and cheaper


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole cluster."""

    cluster: str
    version: str
    hosts: tuple[Host, ...]
    virtual_ip: str
    virtual_prefix: int
    virtual_router_id: int
    server_name: str
    ae_title: str
    erasure: Erasure
    ceph_fsid: str
    ports: Ports = Ports()
    any_calling_ae: bool = False
    dimse_workers: int = 2
    connections: int = 4000  # of clients at once, for each of DICOM, DICOM TLS and the web
    watchdog: bool = False
    backup_path: str = "/var/lib/pgbackrest"
    backup_weeks: int = 2  # that backups are kept at least; one full backup a week
    alert_webhook: str = ""
    ceph_options: tuple[tuple[str, str], ...] = ()

    def on(self, tier: str) -> tuple[Host, ...]:
        """The hosts that run a tier, by name."""
        return tuple(host for host in self.hosts if tier in host.tiers)

    def host(self, name: str) -> Host:
        """The host of that name; KeyError."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)
