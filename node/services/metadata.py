"""Metadata for viewers, without reading a single object.

A series' metadata is a JSON array made from the packed headers in the catalog, kept gzip-compressed
under a version that changes with every instance added or removed. A worker makes it when a series has
become quiet; a reader who comes earlier makes it then and there. So a viewer opens a 1,000-slice CT with
two small reads.

Bulk data is named by path-absolute BulkDataURIs (RFC 3986 section 4.2), which hold behind any host name.
"""

import gzip
import json
from collections.abc import Iterator, Sequence

from node.domain.errors import Reason, Refusal
from node.domain.header import Header
from node.domain.model import Attributes, Scope, StoredInstance
from node.ports import Instances

DICOMWEB_PATH = "/dicom-web"


def instance_path(instance: StoredInstance) -> str:
    """The instance's resource path below the server's root."""
    return (
        f"{DICOMWEB_PATH}/studies/{instance.study_uid}/series/{instance.series_uid}"
        f"/instances/{instance.sop_instance_uid}"
    )


def attributes_of(instance: StoredInstance, header: Header) -> Attributes:
    """An instance's full attributes in the DICOM JSON model, bulk data by URI."""
    base = instance_path(instance)

    def bulk_uri(path: tuple[str | int, ...], _offset: int, _length: int) -> str:
        return f"{base}/bulkdata/{'/'.join(str(step) for step in path)}"

    attributes = header.attributes(bulk_uri)
    attributes["00083002"] = {"vr": "UI", "Value": [instance.transfer_syntax_uid]}
    return attributes


class Metadata:
    """Prepares and serves metadata."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances

    def series(self, series_uid: str) -> tuple[str, bytes]:
        """(version, gzip-compressed JSON array) of a series as it is now. Refusal(NOT_FOUND)."""
        current = self._instances.series_version(series_uid)
        if current is None:
            raise Refusal(Reason.NOT_FOUND, "no such series")
        prepared = self._instances.prepared(series_uid)
        if prepared is not None and prepared[0] == current[0]:
            return prepared
        return current[0], self._prepare(series_uid, current[0])

    def study(self, study_uid: str, series_uid: str | None = None) -> list[tuple[str, bytes]]:
        """`series` for every series of a study, or for one of them. Refusal(NOT_FOUND)."""
        wanted = self._instances.series_of(study_uid)
        if series_uid is not None:
            wanted = [series_uid] if series_uid in wanted else []
        if not wanted:
            raise Refusal(Reason.NOT_FOUND, "no such study or series")
        return [self.series(each) for each in wanted]

    def instances(self, scope: Scope) -> Iterator[Attributes]:
        """Attributes of each instance in scope; nothing if there is none."""
        for instance, packed in self._instances.headers(scope):
            yield attributes_of(instance, Header.unpack(packed))

    def settle(self, quiet_seconds: float, limit: int) -> int:
        """Prepare series that have become quiet (the worker's step); returns how many."""
        waiting = self._instances.unprepared(quiet_seconds, limit)
        for series_uid in waiting:
            try:
                self.series(series_uid)
            except Refusal as refusal:
                if refusal.reason is not Reason.NOT_FOUND:  # removed meanwhile
                    raise
        return len(waiting)

    def _prepare(self, series_uid: str, version: str) -> bytes:
        """Make the metadata and keep it, unless the series changed while it was made."""
        parts = [
            json.dumps(each, separators=(",", ":")) for each in self.instances(Scope(series_uid=series_uid))
        ]
        metadata = gzip.compress(_array(parts), compresslevel=5, mtime=0)
        current = self._instances.series_version(series_uid)
        if current is not None and current[0] == version:
            self._instances.prepare(series_uid, version, metadata)
        return metadata


def _array(parts: Sequence[str]) -> bytes:
    return b"[" + ",".join(parts).encode() + b"]"
