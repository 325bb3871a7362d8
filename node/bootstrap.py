"""The only place that chooses adapters and wires them to the services."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from node import metrics, workers
from node.adapters.blobs_files import FileBlobs
from node.adapters.blobs_guarded import GuardedBlobs
from node.adapters.catalog_postgres import migrate
from node.adapters.catalog_postgres.catalog import PostgresCatalog
from node.adapters.codecs_process import ProcessCodecs
from node.adapters.passwords_argon2 import Argon2Passwords
from node.adapters.peers_socket import SocketPeers, TLSFiles
from node.adapters.postgres_embedded import EmbeddedPostgres, is_of
from node.config import Settings
from node.domain.header import Limits
from node.domain.model import Level
from node.ports import Blobs
from node.services.access import Access, EntityPolicy
from node.services.archive import Archive
from node.services.check import Check
from node.services.collect import Collect
from node.services.ingest import Ingest
from node.services.metadata import Metadata
from node.services.objects import Objects
from node.services.orphans import Orphans
from node.services.rebuild import Rebuild
from node.services.remove import Remove
from node.services.restore import Restore
from node.services.retrieve import Retrieve
from node.services.search import Search


def extra_tags(settings: Settings) -> dict[Level, tuple[str, ...]]:
    """The further attributes that the site has configured, by level."""
    search = settings.search
    return {
        Level.STUDY: search.study_tags,
        Level.SERIES: search.series_tags,
        Level.IMAGE: search.instance_tags,
    }


def open_blobs(settings: Settings) -> Blobs:
    """The configured store of objects; it takes nothing new while the embedded server lacks room."""
    blobs = _configured_blobs(settings)
    folder = settings.data / "postgres"
    if not is_of(folder, settings.catalog.dsn):
        return blobs
    return GuardedBlobs(blobs, folder, settings.catalog.free_bytes_min)


def _configured_blobs(settings: Settings) -> Blobs:
    objects = settings.objects
    if objects.kind == "files":
        return FileBlobs(objects.path or settings.data / "objects", free_bytes_min=objects.free_bytes_min)
    # python3-rados comes from the distribution and is only needed here
    from node.adapters.blobs_rados import RadosBlobs

    return RadosBlobs(objects.conf, objects.user, objects.pool, operation_seconds=objects.operation_seconds)


def open_catalog(settings: Settings) -> PostgresCatalog:
    """The catalog at `catalog.dsn`."""
    return PostgresCatalog(
        settings.catalog.dsn,
        pool_size=settings.catalog.pool_size,
        connect_seconds=settings.catalog.connect_seconds,
        statement_seconds=settings.catalog.statement_seconds,
        extra_tags=extra_tags(settings),
        max_results=max(settings.search.max_results, settings.search.dimse_max_results),
    )


def build(settings: Settings) -> Archive:
    """The archive of one process; `settings.catalog.dsn` must name a server by now."""
    catalog = open_catalog(settings)
    blobs = open_blobs(settings)
    intake = settings.intake
    # A file takes bytes as they come; for RADOS one operation is better than many.
    spill_bytes = intake.spill_bytes if settings.objects.kind == "rados" else 0
    objects = Objects(blobs, intake.budget_bytes, spill_bytes)
    limits = Limits(
        max_header_bytes=intake.max_header_bytes,
        max_depth=intake.max_depth,
        max_elements=intake.max_elements,
        max_object_bytes=intake.max_object_bytes,
    )
    pixels = settings.pixels
    codecs = ProcessCodecs(pixels.processes, pixels.memory_bytes, pixels.seconds)
    tags = extra_tags(settings)
    return Archive(
        ingest=Ingest(objects, catalog.instances, catalog.audits, limits, tags),
        search=Search(
            catalog.searches,
            max_results=settings.search.max_results,
            dimse_max_results=settings.search.dimse_max_results,
            extra_tags=tags,
        ),
        retrieve=Retrieve(objects, catalog.instances, catalog.audits, codecs),
        metadata=Metadata(catalog.instances),
        remove=Remove(catalog.instances, catalog.surplus, objects),
        access=Access(catalog.accounts, catalog.audits, Argon2Passwords(), settings.http.session_seconds),
        policy=EntityPolicy(catalog.entities, any_calling_ae=settings.dicom.any_calling_ae),
        objects=objects,
        catalog=catalog,
        leases=catalog.leases,
        codecs=codecs,
        peers=SocketPeers(
            settings.ae_title,
            TLSFiles(settings.dicom.tls_certificate, settings.dicom.tls_key, settings.dicom.tls_client_ca),
        ),
    )


def migrate_catalog(settings: Settings) -> list[str]:
    """Bring the schema of `catalog.dsn` up to date; returns the names of what was applied."""
    return migrate.migrate(settings.catalog.dsn, extra_tags(settings))


def open_peers(calling: str) -> SocketPeers:
    """DICOM peers, called under an AE title of ours."""
    return SocketPeers(calling)


def build_restore(archive: Archive) -> Restore:
    """What tells damaged objects and replaces them."""
    catalog = archive.catalog
    return Restore(archive.objects, catalog.instances, catalog.repairs, archive.ingest.limits)


def build_orphans(archive: Archive) -> Orphans:
    """What decides on objects without a row."""
    return Orphans(archive.objects, archive.catalog, archive.ingest, build_restore(archive))


def build_check(settings: Settings, archive: Archive) -> Check:
    """The comparison of catalog and objects."""
    return Check(
        archive.objects,
        archive.catalog,
        archive.ingest,
        build_restore(archive),
        build_orphans(archive),
        settings.intake.grace_seconds,
    )


def build_rebuild(archive: Archive) -> Rebuild:
    """The catalog's restoration from the objects."""
    return Rebuild(build_orphans(archive))


def build_collect(settings: Settings, archive: Archive) -> Collect:
    """What removes objects that no row needs."""
    catalog = archive.catalog
    return Collect(
        archive.objects,
        catalog.instances,
        catalog.surplus,
        build_orphans(archive),
        settings.intake.grace_seconds,
    )


def run_workers(settings: Settings, archive: Archive, holder: str, stop: threading.Event) -> None:
    """The worker process's work until `stop` is set."""
    catalog = archive.catalog
    collect = build_collect(settings, archive)

    def seal() -> int:
        sealed = catalog.audits.seal()
        events, age_seconds = catalog.audits.unsealed()
        metrics.AUDIT_UNSEALED.set(events)
        metrics.AUDIT_UNSEALED_SECONDS.set(age_seconds)
        return sealed

    all_workers = [
        workers.Worker("seal", seal, rest_seconds=1.0),
        workers.Worker("settle", lambda: archive.metadata.settle(settings.intake.quiet_seconds, 20), 2.0),
        workers.Worker("surplus", collect.surplus, rest_seconds=5.0),
        workers.Worker("orphans", collect.orphans, rest_seconds=3600.0),
    ]
    workers.run(all_workers, archive.leases, holder, stop)


# --- The embedded server ---


def run_file(settings: Settings) -> Path:
    """Where a running `stele serve` leaves its resolved settings for its processes and for the command
    line (readable by its own user only: it holds the embedded server's password)."""
    return settings.data / "run" / "settings.json"


def resolved(path: Path) -> Settings:
    """Settings from a run file."""
    return Settings.model_validate(json.loads(path.read_text()))


@contextlib.contextmanager
def with_catalog(settings: Settings) -> Iterator[Settings]:
    """Settings whose DSN names a server: the configured one, or the embedded one, which is started for
    the duration unless a `stele serve` on the same data folder has it running."""
    with kept_catalog(settings) as (resolved_settings, _):
        yield resolved_settings


@contextlib.contextmanager
def kept_catalog(settings: Settings) -> Iterator[tuple[Settings, Callable[[], bool]]]:
    """`with_catalog` for those who stay: also a short step to repeat, which starts the embedded server again
    if it has ended and then returns True."""
    if settings.catalog.dsn:
        yield settings, lambda: False
        return
    server = EmbeddedPostgres(settings.data / "postgres")
    dsn = server.start()
    try:
        catalog = settings.catalog.model_copy(update={"dsn": dsn})
        yield settings.model_copy(update={"catalog": catalog}), server.tend
    finally:
        server.stop()
