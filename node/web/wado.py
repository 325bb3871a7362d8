"""WADO-RS instances (PS3.18 section 10.4): studies, series and instances as DICOM files; and their removal.

What cannot be had in an accepted transfer syntax is found out before the first byte goes out; each piece
of an object has passed its digest before it is sent. A failure in the midst of an answer breaks the
connection off, so that half an answer never looks like a whole one.
"""

import hashlib

import falcon

from node.domain.errors import Reason, Refusal
from node.domain.model import Role, StoredInstance
from node.services.archive import Archive
from node.services.metadata import instance_path
from node.services.retrieve import Part10
from node.web import caching, multipart
from node.web.auth import demand
from node.web.negotiate import DICOM, InstanceForm, instances
from node.web.responses import scope_of, send_parts, stream, wanted

_AHEAD = 3  # a part's headers, the file's own, and the first bytes out of the store


class Instances:
    """GET and DELETE of a study, series or instance."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def on_get(self, req: falcon.Request, resp: falcon.Response, **address: str) -> None:
        """All instances of the resource, as parts or, where it is one instance, plain."""
        actor = demand(req, Role.VIEWER)
        form = instances(wanted(req), single="instance" in address)
        found = self._archive.retrieve.select([scope_of(**address)], actor)
        if not found:
            raise Refusal(Reason.NOT_FOUND, "nothing stored there")
        chosen = [(each, self._syntax(each, form)) for each in found]
        if form.multipart:
            self._parts(req, resp, chosen, single="instance" in address)
        else:
            self._plain(req, resp, *chosen[0])

    on_head = on_get

    def on_delete(self, req: falcon.Request, resp: falcon.Response, **address: str) -> None:
        """Remove for good; 204 when nobody finds it any more."""
        actor = demand(req, Role.ADMINISTRATOR)
        self._archive.remove.remove(scope_of(**address), actor)
        resp.status = falcon.HTTP_204

    def _syntax(self, instance: StoredInstance, form: InstanceForm) -> str:
        syntax = self._archive.retrieve.syntax_for(instance, form.syntaxes)
        if syntax is None:
            raise Refusal(Reason.NOT_ACCEPTABLE, "cannot be sent in an accepted transfer syntax")
        return syntax

    def _parts(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        chosen: list[tuple[StoredInstance, str]],
        *,
        single: bool,
    ) -> None:
        told = hashlib.sha256()
        for instance, syntax in chosen:
            told.update(f"{instance.sop_instance_uid} {syntax} ".encode() + instance.stored.digest)
        newest = max(instance.received_at for instance, _ in chosen)
        caching.last_modified(resp, newest)
        etag = told.hexdigest()[:48]
        if caching.unchanged(
            req, resp, etag, caching.REVALIDATE, weak=True, modified=newest if single else None
        ):
            return
        files = self._archive.retrieve.part10_each(chosen)
        parts = [
            _part(instance, syntax, file) for (instance, syntax), file in zip(chosen, files, strict=True)
        ]
        send_parts(req, resp, DICOM, parts, kind="instances", ahead=_AHEAD)

    def _plain(
        self, req: falcon.Request, resp: falcon.Response, instance: StoredInstance, syntax: str
    ) -> None:
        etag = f"{instance.stored.digest.hex()[:32]}-{syntax}"
        if caching.unchanged(req, resp, etag, caching.IMMUTABLE, modified=instance.received_at):
            return
        resp.content_type = f"{DICOM}; transfer-syntax={syntax}"
        pieces = self._archive.retrieve.part10(instance, syntax)
        if syntax == instance.transfer_syntax_uid:
            length = self._archive.retrieve.part10_length(instance)
            part = caching.byte_range(req, resp, length, etag)
            if part is not None:
                pieces = self._archive.retrieve.part10_range(instance, *part)
            resp.content_length = part[1] if part else length
        stream(req, resp, pieces, kind="instances", ahead=_AHEAD - 1)


def _part(instance: StoredInstance, syntax: str, file: Part10) -> multipart.Part:
    headers = (
        ("Content-Type", f"{DICOM}; transfer-syntax={syntax}"),
        ("Content-Location", instance_path(instance)),
    )
    return multipart.Part(headers, file.content, file.length)
