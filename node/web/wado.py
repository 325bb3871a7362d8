"""WADO-RS for whole instances and their metadata (PS3.18 section 10.4), and their deletion."""

import gzip
import hashlib
import json
from collections.abc import Iterator

import falcon

from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, Attributes, Role, Scope, StoredInstance
from node.services.archive import Archive
from node.services.metadata import instance_path
from node.services.retrieve import Retrieve
from node.web import accept, body, caching, dicom_xml, multipart, negotiate
from node.web.auth import demand
from node.web.responses import multipart_type, new_boundary, scope_of, send_parts, stream, wanted

PIECE_BYTES = 4 << 20
# Part's head, file meta information, first bytes out of the store
_PIECES_AHEAD = 3


class Instances:
    """A study, a series or an instance as DICOM files; and its end."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def on_get(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        study: str,
        series: str | None = None,
        instance: str | None = None,
    ) -> None:
        """Retrieve. As stored if the client takes that, otherwise transcoded, otherwise 406."""
        actor = demand(req, Role.VIEWER)
        scope = scope_of(study, series, instance)
        form = negotiate.instances(wanted(req), single=instance is not None)
        found = self._archive.retrieve.select([scope], actor)
        if not found:
            raise Refusal(Reason.NOT_FOUND, "nothing under this address")
        retrieve = self._archive.retrieve
        chosen = [(each, _syntax(retrieve, each, form.syntaxes)) for each in found]
        if form.multipart:
            parts = [_part(retrieve, each, syntax) for each, syntax in chosen]
            send_parts(req, resp, negotiate.DICOM, parts, kind="dicom", ahead=_PIECES_AHEAD)
            return
        self._send_file(req, resp, *chosen[0])

    on_head = on_get

    def on_delete(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        study: str,
        series: str | None = None,
        instance: str | None = None,
    ) -> None:
        """Remove for good. 204; needs an administrator."""
        actor = demand(req, Role.ADMINISTRATOR)
        self._archive.remove.remove(scope_of(study, series, instance), actor)
        resp.status = falcon.HTTP_204

    def _send_file(
        self, req: falcon.Request, resp: falcon.Response, instance: StoredInstance, syntax: str
    ) -> None:
        retrieve = self._archive.retrieve
        etag = f"{instance.stored.sha256.hex()[:40]}-{syntax}"
        resp.append_header("Vary", "Accept")
        if caching.unchanged(req, resp, etag, caching.IMMUTABLE):
            return
        resp.content_type = f"{negotiate.DICOM}; transfer-syntax={syntax}"
        if syntax != instance.transfer_syntax_uid:
            stream(req, resp, retrieve.part10(instance, syntax), kind="dicom", ahead=1)
            return
        length = retrieve.part10_length(instance)
        part = caching.byte_range(req, resp, length, etag)
        if part is None:
            resp.content_length = length
            stream(req, resp, retrieve.part10(instance, syntax), kind="dicom", ahead=2)
        else:
            resp.content_length = part[1]
            stream(req, resp, _range_of(retrieve, instance, *part), kind="dicom", ahead=2)


def _syntax(retrieve: Retrieve, instance: StoredInstance, accepted: tuple[str, ...]) -> str:
    syntax = retrieve.syntax_for(instance, accepted)
    if syntax is None:
        raise Refusal(Reason.NOT_ACCEPTABLE, "not available so; ask with transfer-syntax=*")
    return syntax


def _part(retrieve: Retrieve, instance: StoredInstance, syntax: str) -> multipart.Part:
    headers = (
        ("Content-Type", f"{negotiate.DICOM}; transfer-syntax={syntax}"),
        ("Content-Location", instance_path(instance)),
    )
    as_stored = syntax == instance.transfer_syntax_uid
    length = retrieve.part10_length(instance) if as_stored else None
    return multipart.Part(headers, retrieve.part10(instance, syntax), length)


def _range_of(retrieve: Retrieve, instance: StoredInstance, first: int, count: int) -> Iterator[bytes]:
    """A range of the file as stored: of the file meta information, then of the dataset."""
    prefix = next(retrieve.part10(instance, instance.transfer_syntax_uid))
    head = prefix[first : first + count]
    if head:
        yield head
    yield from dataset_range(retrieve, instance, max(0, first - len(prefix)), count - len(head))


def dataset_range(retrieve: Retrieve, instance: StoredInstance, offset: int, count: int) -> Iterator[bytes]:
    """`count` dataset bytes from `offset`, in bounded pieces, each checked."""
    while count:
        size = min(count, PIECE_BYTES)
        yield retrieve.bulk(instance, offset, size)
        offset, count = offset + size, count - size


class Metadata:
    """All attributes of a study's, series' or instance's instances, bulk data by reference."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def on_get(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        study: str,
        series: str | None = None,
        instance: str | None = None,
    ) -> None:
        """Retrieve metadata (section 10.4.1.1.2)."""
        actor = demand(req, Role.VIEWER)
        scope = scope_of(study, series, instance)
        form = _metadata_form(wanted(req))
        if form != dicom_xml.MEDIA_TYPE:
            resp.content_type = form
            resp.append_header("Vary", "Accept, Accept-Encoding")
        first, header = self._archive.retrieve.one(scope, actor)
        if form == dicom_xml.MEDIA_TYPE:
            self._send_xml(req, resp, scope)
        elif scope.instance_uid is not None:
            etag = f"{first.stored.name}-{'gz' if body.accepts_gzip(req) else 'id'}"
            if not caching.unchanged(req, resp, etag, caching.REVALIDATE):
                del header  # of the object; what goes out is made with its addresses
                value = next(iter(self._archive.metadata.instances(scope)))
                _send_array(req, resp, [gzip.compress(_array([value]), 1, mtime=0)])
        elif scope.series_uid is not None:
            self._send_series(req, resp, [scope.series_uid])
        else:
            self._send_series(req, resp, self._series_of(scope, actor))

    on_head = on_get

    def _series_of(self, scope: Scope, actor: Actor) -> list[str]:
        rows = self._archive.catalog.instances.select([scope])
        del actor  # the look into the study is audited already
        return list(dict.fromkeys(row.series_uid for row in rows))

    def _send_series(self, req: falcon.Request, resp: falcon.Response, series: list[str]) -> None:
        prepared = []
        for uid in series:
            try:
                prepared.append(self._archive.metadata.series(uid))
            except Refusal as refusal:
                if refusal.reason is not Reason.NOT_FOUND:  # removed a moment ago
                    raise
        if not prepared:
            raise Refusal(Reason.NOT_FOUND, "nothing under this address")
        versions = "\n".join(version for version, _ in prepared)
        # A strong ETag is of the bytes as sent, so each coding has its own.
        coding = "gz" if body.accepts_gzip(req) else "id"
        etag = f"{hashlib.sha256(versions.encode()).hexdigest()[:40]}-{coding}"
        if not caching.unchanged(req, resp, etag, caching.REVALIDATE):
            _send_array(req, resp, [array for _, array in prepared])

    def _send_xml(self, req: falcon.Request, resp: falcon.Response, scope: Scope) -> None:
        boundary = new_boundary()
        resp.content_type = multipart_type(dicom_xml.MEDIA_TYPE, boundary)
        resp.append_header("Vary", "Accept")
        resp.set_header("Cache-Control", caching.REVALIDATE)
        headers = (("Content-Type", dicom_xml.MEDIA_TYPE),)
        parts = (
            multipart.Part(headers, (dicom_xml.document(each),))
            for each in self._archive.metadata.instances(scope)
        )
        stream(req, resp, multipart.write(boundary, parts), kind="metadata", ahead=2)


def _metadata_form(ranges: list[accept.Wanted]) -> str:
    for each in ranges:
        if each.multipart and each.media_type == dicom_xml.MEDIA_TYPE:
            return dicom_xml.MEDIA_TYPE
        chosen = accept.choose([each], (body.DICOM_JSON, body.JSON))
        if chosen is not None:
            return chosen
    raise Refusal(Reason.NOT_ACCEPTABLE, "metadata is application/dicom+json or multipart XML")


def _send_array(req: falcon.Request, resp: falcon.Response, arrays: list[bytes]) -> None:
    """Send gzip-compressed JSON arrays as one. A single one goes out as it is to whoever takes gzip."""
    zipped = body.accepts_gzip(req)
    if len(arrays) == 1:
        data = arrays[0] if zipped else gzip.decompress(arrays[0])
    else:
        # Arrays are joined by their insides; no series is without instances.
        inner = b",".join(gzip.decompress(array)[1:-1] for array in arrays)
        data = b"[" + inner + b"]"
        if zipped:
            data = gzip.compress(data, compresslevel=1, mtime=0)
    if zipped:
        resp.set_header("Content-Encoding", "gzip")
    stream(req, resp, iter((data,)), kind="metadata", ahead=1)
    resp.content_length = len(data)


def _array(values: list[Attributes]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()
