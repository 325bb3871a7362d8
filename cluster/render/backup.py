"""pgBackRest's configuration: the host that keeps the backups, and the members whose log it keeps. Pure.

The secret that the repository is encrypted with is no part of it: the deployment puts it beside, into
/etc/pgbackrest/conf.d of the host with the repository, which tells it to the members over TLS.
"""

from cluster import memory
from cluster.places import PLACES
from cluster.render.text import File, render
from cluster.topology import GIB, Host, Topology

_QUEUE_LEAST_GIB = 4
_BACKUPS = {"full": "Sun 02:00", "diff": "Mon..Sat 02:00"}


def queue_bytes(host: Host) -> int:
    """How much of the log a member keeps while the repository is away; beyond it the log is dropped."""
    return max(_QUEUE_LEAST_GIB, memory.shares(host).max_wal_size * 4 // GIB) * GIB


def files(topology: Topology, host: Host) -> tuple[File, ...]:
    """Files of a PostgreSQL host and of the one that keeps the backups; none without that."""
    backups = topology.on("backup")
    if not backups:
        return ()
    backup = backups[0]
    on_backup = host == backup
    members = topology.on("postgres")
    text = render(
        "pgbackrest.conf.j2",
        topology=topology,
        ports=topology.ports,
        host=host,
        backup=backup,
        on_backup=on_backup,
        # What runs beside PostgreSQL works on the first one that is named
        members=sorted(members, key=lambda each: each != host),
        may_call=[each.name for each in members if each != host] if on_backup else [backup.name],
        queue_gib=queue_bytes(host) // GIB,
        places=PLACES,
    )
    server = ("pgbackrest",)
    watch = "stele-backups-watch"
    found = [
        File("/etc/pgbackrest.conf", text, "backup", group="postgres", mode="0640", restarts=server),
        _unit(f"{watch}.service", host=host, places=PLACES),
        _unit(f"{watch}.timer", timer=True),
        File("/etc/tmpfiles.d/stele-backups.conf", render("stele-backups.tmpfiles.j2"), "backup"),
    ]
    if on_backup:
        for kind, when in _BACKUPS.items():
            found.append(_unit(f"stele-backup-{kind}.service", "stele-backup.service.j2", kind=kind))
            found.append(
                _unit(f"stele-backup-{kind}.timer", "stele-backup.timer.j2", timer=True, kind=kind, when=when)
            )
    return tuple(found)


def _unit(name: str, template: str = "", *, timer: bool = False, **values: object) -> File:
    text = render(template or f"{name}.j2", **values)
    return File(f"/etc/systemd/system/{name}", text, "backup", restarts=(name,) if timer else ())
