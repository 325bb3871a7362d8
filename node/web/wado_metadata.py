"""WADO-RS metadata (PS3.18 section 10.4.1.1.2): a series' is kept ready-made and sent as it is."""

import gzip
import hashlib
import json

import falcon

from node.domain.errors import Reason, Refusal
from node.domain.model import Role
from node.services.archive import Archive
from node.web import accept, body, caching, dicom_xml, multipart
from node.web.auth import demand
from node.web.responses import scope_of, send_parts, wanted


class Metadata:
    """GET …/metadata of a study, series or instance."""

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
        """JSON (or XML, one part an instance), with an ETag that changes with the instances."""
        actor = demand(req, Role.VIEWER)
        media_type = _media_type(req)
        scope = scope_of(study, series, instance)
        self._archive.retrieve.viewed(study, actor)
        if instance is None:
            version, compressed = self._whole(study, series)
        else:
            version, compressed = self._one(scope.instance_uid or "", study, series or "")
        packed = media_type != dicom_xml.MEDIA_TYPE and body.accepts_gzip(req)
        resp.append_header("Vary", "Accept, Accept-Encoding")
        if media_type == dicom_xml.MEDIA_TYPE:
            resp.set_header("Cache-Control", caching.REVALIDATE)
            self._xml(req, resp, compressed)
            return
        if caching.unchanged(req, resp, f"{version}-{media_type[-4:]}{'-gz' * packed}", caching.REVALIDATE):
            return
        resp.content_type = media_type
        if packed:
            resp.set_header("Content-Encoding", "gzip")
        resp.data = compressed if packed else gzip.decompress(compressed)

    on_head = on_get

    def _whole(self, study: str, series: str | None) -> tuple[str, bytes]:
        each = self._archive.metadata.study(study, series)
        version = hashlib.sha256("|".join(version for version, _ in each).encode()).hexdigest()[:24]
        if len(each) == 1:
            return version, each[0][1]
        inner = [gzip.decompress(compressed)[1:-1] for _, compressed in each]
        return version, gzip.compress(b"[" + b",".join(part for part in inner if part) + b"]", 1, mtime=0)

    def _one(self, instance: str, study: str, series: str) -> tuple[str, bytes]:
        found = list(self._archive.metadata.instances(scope_of(study, series, instance)))
        if not found:
            raise Refusal(Reason.NOT_FOUND, "no such instance")
        data = json.dumps(found, separators=(",", ":")).encode()
        return hashlib.sha256(data).hexdigest()[:24], gzip.compress(data, 1, mtime=0)

    @staticmethod
    def _xml(req: falcon.Request, resp: falcon.Response, compressed: bytes) -> None:
        headers = (("Content-Type", dicom_xml.MEDIA_TYPE),)
        instances = json.loads(gzip.decompress(compressed))
        parts = (multipart.Part(headers, (dicom_xml.document(each),)) for each in instances)
        send_parts(req, resp, dicom_xml.MEDIA_TYPE, parts, kind="metadata", ahead=2)


def _media_type(req: falcon.Request) -> str:
    ranges = wanted(req)
    for each in ranges:
        if each.multipart and each.takes(dicom_xml.MEDIA_TYPE):
            return dicom_xml.MEDIA_TYPE
        chosen = accept.choose([each], (body.DICOM_JSON, body.JSON))
        if chosen is not None:
            return chosen
    raise Refusal(Reason.NOT_ACCEPTABLE, "metadata is application/dicom+json or multipart XML")
