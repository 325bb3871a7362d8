"""WADO-RS metadata (PS3.18 section 10.4.1.1.2): a series' is kept ready-made and sent as it is."""

import gzip
import hashlib
import json

import falcon

from node.domain.errors import Reason, Refusal
from node.domain.model import Role, Scope
from node.services.archive import Archive
from node.web import body, caching, dicom_xml
from node.web.auth import demand
from node.web.negotiate import attributes as attributes_form
from node.web.responses import scope_of, send_xml, wanted


class Metadata:
    """GET …/metadata of a study, series or instance."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def on_get(self, req: falcon.Request, resp: falcon.Response, **address: str) -> None:
        """JSON (or XML, one part an instance), with an ETag that changes with the instances."""
        actor = demand(req, Role.VIEWER)
        media_type = attributes_form(wanted(req))
        scope = scope_of(**address)
        self._archive.retrieve.viewed(address["study"], actor)
        version, compressed = self._one(scope) if scope.instance_uid else self._whole(scope)
        as_xml = media_type == dicom_xml.MEDIA_TYPE
        packed = not as_xml and body.accepts_gzip(req)
        etag = f"{version}-{media_type[-4:]}{'-gz' * packed}"
        vary = "Accept, Accept-Encoding"
        if caching.unchanged(req, resp, etag, caching.REVALIDATE, weak=as_xml, vary=vary):
            return
        if as_xml:
            send_xml(req, resp, json.loads(gzip.decompress(compressed)), "metadata")
            return
        resp.content_type = media_type
        if packed:
            resp.set_header("Content-Encoding", "gzip")
        resp.data = compressed if packed else gzip.decompress(compressed)

    on_head = on_get

    def _whole(self, scope: Scope) -> tuple[str, bytes]:
        each = self._archive.metadata.study(scope.study_uid or "", scope.series_uid)
        version = hashlib.sha256("|".join(version for version, _ in each).encode()).hexdigest()[:24]
        if len(each) == 1:
            return version, each[0][1]
        inner = [gzip.decompress(compressed)[1:-1] for _, compressed in each]
        return version, gzip.compress(b"[" + b",".join(part for part in inner if part) + b"]", 1, mtime=0)

    def _one(self, scope: Scope) -> tuple[str, bytes]:
        found = list(self._archive.metadata.instances(scope))
        if not found:
            raise Refusal(Reason.NOT_FOUND, "no such instance")
        data = json.dumps(found, separators=(",", ":")).encode()
        return hashlib.sha256(data).hexdigest()[:24], gzip.compress(data, 1, mtime=0)
