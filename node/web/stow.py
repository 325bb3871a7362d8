"""STOW-RS (PS3.18 section 10.5): instances come in as DICOM files, or as metadata with bulk data.

Each file is streamed out of the request straight into the same intake as a C-STORE; an instance counts as
stored when its row and its object are durable. One bad instance does not hold up the others. When catalog
or store fail, the rest of the request is read but not tried, so that a sender hears of it soon.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import falcon

from node import metrics
from node.domain import part10
from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, Attributes, AuditEvent, Role, StoredInstance
from node.domain.uid import check_uid
from node.services.archive import Archive
from node.services.ingest import Ingest, Intake, Outcome
from node.services.metadata import DICOMWEB_PATH, instance_path
from node.web import accept, body, dicom_xml, multipart, status
from node.web.auth import demand
from node.web.stow_audit import gathering
from node.web.stow_json import MetadataRequest

DICOM = "application/dicom"
_HOPELESS = frozenset({Reason.UNAVAILABLE, Reason.STORE_FULL})
_ANSWERS = (body.DICOM_JSON, body.JSON, dicom_xml.MEDIA_TYPE)
PREAMBLE_REMOVED = "preamble_removed"  # outcome of a file that came with one (CVE-2019-11687)
_ALLOWANCE_BYTES = 1 << 20  # for preamble and file meta information of a single file


@dataclass(frozen=True, slots=True)
class Failed:
    """An instance that was not stored; "" for UIDs that could not be read."""

    refusal: Refusal
    class_uid: str = ""
    instance_uid: str = ""


@dataclass(slots=True)
class Report:
    """What became of a request's instances."""

    stored: list[StoredInstance] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    hopeless: Refusal | None = None  # the refusal after which trying on makes no sense

    def note(self, result: "Outcome | Failed") -> None:
        """Count an instance in."""
        if isinstance(result, Failed):
            self.failed.append(result)
            if self.hopeless is None and result.refusal.reason in _HOPELESS:
                self.hopeless = result.refusal
        else:
            self.stored.append(result.instance)


class FileIntake:
    """One Part 10 file on its way in. Use as: `write` …, then `finish`; `abort` on every other way out."""

    def __init__(self, ingest: Ingest, source: Actor, hopeless: Refusal | None) -> None:
        self._ingest = ingest
        self._source = source
        self._reader = part10.Part10Reader()
        self._intake: Intake | None = None
        self._refusal = hopeless
        self._broken = False

    def write(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if self._broken or (self._refusal is not None and self._reader.meta is not None):
            return
        try:
            dataset = self._reader.feed(data)
        except Refusal as refusal:
            self._refusal, self._broken = self._refusal or refusal, True
            return
        if self._refusal is not None or self._reader.meta is None:
            return
        if self._intake is None:
            self._intake = self._begin(self._reader.meta)
        self._intake.write(dataset)

    def finish(self, study_uid: str | None) -> Outcome | Failed:
        """Make the instance durable, or say why not."""
        try:
            if self._refusal is not None:
                raise self._refusal
            meta = self._reader.finish()
            intake = self._intake or self._begin(meta)
            outcome = intake.finish(study_uid)
        except Refusal as refusal:
            if self._intake is None:
                self._audit(refusal)
            return self._failed(refusal)
        finally:
            self.abort()
        if self._reader.has_preamble:
            detail = {"instance_uid": outcome.instance.sop_instance_uid}
            self._ingest.audits.record(AuditEvent("store", self._source, PREAMBLE_REMOVED, (), detail))
        return outcome

    def cut(self, refusal: Refusal) -> Failed:
        """The request broke off inside this file for a reason that its sender is told."""
        self.abort()
        self._audit(refusal)
        return self._failed(refusal)

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._intake is not None:
            self._intake.abort()

    def _begin(self, meta: part10.Meta) -> Intake:
        self._intake = self._ingest.begin(
            self._source,
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
        )
        return self._intake

    def _failed(self, refusal: Refusal) -> Failed:
        meta = self._reader.meta
        try:
            if meta is not None:
                return Failed(refusal, check_uid(meta.sop_class_uid), check_uid(meta.sop_instance_uid))
        except Refusal:
            pass  # UIDs that are none are not repeated
        return Failed(refusal)

    def _audit(self, refusal: Refusal) -> None:
        """The intake counts and audits its own refusals; this one never reached it."""
        metrics.INSTANCES.labels(self._source.protocol, refusal.reason.value).inc()
        self._ingest.audits.record(
            AuditEvent("store", self._source, refusal.reason.value, (), {"comment": refusal.comment})
        )


class Stow:
    """POST /studies and /studies/{study}."""

    def __init__(self, archive: Archive, *, max_request_bytes: int, max_parts: int) -> None:
        self._archive = archive
        self._max_request_bytes = max_request_bytes
        self._max_parts = max_parts

    def on_post(self, req: falcon.Request, resp: falcon.Response, study: str | None = None) -> None:
        """Store; 200 if all were stored, 202 if some, otherwise 409 or what says more."""
        try:
            self._post(req, resp, study)
        except (Refusal, status.Problem):
            body.drain(req)
            raise
        body.drain(req)  # there is more if the message broke off

    def _post(self, req: falcon.Request, resp: falcon.Response, study: str | None) -> None:
        source = demand(req, Role.TECHNOLOGIST)
        if study is not None:
            check_uid(study)
        answer = accept.choose(accept.parse(req.get_header("Accept")), _ANSWERS)
        if answer is None:
            raise Refusal(Reason.NOT_ACCEPTABLE, "answers are application/dicom+json or +xml")
        media_type, parameters = accept.media_type_and_parameters(req.get_header("Content-Type") or "")
        kind = media_type
        if media_type == accept.MULTIPART:
            kind, _ = accept.media_type_and_parameters(parameters.get("type", ""))
        if media_type == DICOM:
            limit = min(
                self._max_request_bytes, self._archive.ingest.limits.max_object_bytes + _ALLOWANCE_BYTES
            )
            events = _as_single_part(body.chunks(req, limit))
        elif media_type == accept.MULTIPART and kind in (DICOM, body.DICOM_JSON):
            events = self._parts(req, parameters.get("boundary", ""))
        else:
            raise status.Problem(415, "unsupported_media_type", "", {"Accept": f"{DICOM}, {body.DICOM_JSON}"})
        with gathering(self._archive.ingest) as ingest:
            if kind == DICOM:
                report = _store_files(ingest, events, source, study)
            else:
                report = _store_metadata(ingest, events, source, study)
        self._answer(req, resp, report, answer)

    def _parts(self, req: falcon.Request, boundary: str) -> Iterator[multipart.Event]:
        reader = multipart.Reader(boundary, self._max_parts)
        for data in body.chunks(req, self._max_request_bytes):
            yield from reader.feed(data)
        reader.finish()

    def _answer(self, req: falcon.Request, resp: falcon.Response, report: Report, media_type: str) -> None:
        if not report.stored and not report.failed:
            raise Refusal(Reason.NOT_UNDERSTOOD, "no instance in the request")
        code = status_of(report)
        resp.status = falcon.code_to_http_status(code)
        if code == 503:
            resp.set_header("Retry-After", str(status.RETRY_AFTER_SECONDS))
        module = response_module(report, body.base_url(req))
        resp.set_header("Cache-Control", "no-store")
        if media_type == dicom_xml.MEDIA_TYPE:
            resp.content_type = media_type
            resp.data = dicom_xml.document(module)
        else:
            body.send_json(req, resp, module, media_type)


def _store_files(
    ingest: Ingest, events: Iterator[multipart.Event], source: Actor, study: str | None
) -> Report:
    report = Report()
    file: FileIntake | None = None
    try:
        for event in events:
            if isinstance(event, multipart.PartBegins):
                file = FileIntake(ingest, source, _not_dicom(event) or report.hopeless)
            elif file is None:
                continue
            elif isinstance(event, multipart.PartData):
                file.write(event.data)
            else:
                report.note(file.finish(study))
                file = None
    except Refusal as refusal:  # of the message, not of an instance
        if not report.stored:
            raise
        # What is stored stays stored, and its sender has to know.
        report.note(Failed(refusal) if file is None else file.cut(refusal))
    finally:
        if file is not None:
            file.abort()
    return report


def _store_metadata(
    ingest: Ingest, events: Iterator[multipart.Event], source: Actor, study: str | None
) -> Report:
    request = MetadataRequest(
        max_metadata_bytes=ingest.limits.max_header_bytes,
        max_depth=ingest.limits.max_depth,
    )
    report = Report()
    with request:
        request.read(events)
        for encoded in request.instances():
            file = FileIntake(ingest, source, report.hopeless)
            try:
                for piece in encoded:
                    file.write(piece)
                report.note(file.finish(study))
            finally:
                file.abort()
    return report


def status_of(report: Report) -> int:
    """HTTP's status for a request with at least one instance (PS3.18 section 10.5.3.1)."""
    if not report.failed:
        return 200
    if report.stored:
        return 202
    reasons = {each.refusal.reason for each in report.failed}
    if len(reasons) == 1 and reasons <= status.TELLING:
        return status.HTTP_STATUS[reasons.pop()]
    return 409


def response_module(report: Report, base: str) -> Attributes:
    """The Store Instances Response Module (PS3.18 section I.1) in the DICOM JSON model.

    `base`: scheme and authority of the URLs. The study's is left empty unless all that was stored is of
    one study.
    """
    module: Attributes = {}
    studies = {each.study_uid for each in report.stored}
    module["00081190"] = {"vr": "UR"}
    if len(studies) == 1:
        module["00081190"]["Value"] = [f"{base}{DICOMWEB_PATH}/studies/{studies.pop()}"]
    failed = [_failed_item(each) for each in report.failed if each.instance_uid]
    others = [_failed_item(each) for each in report.failed if not each.instance_uid]
    if failed:
        module["00081198"] = {"vr": "SQ", "Value": failed}
    if report.stored:
        module["00081199"] = {"vr": "SQ", "Value": [_stored_item(each, base) for each in report.stored]}
    if others:
        module["0008119A"] = {"vr": "SQ", "Value": others}  # Other Failures Sequence
    return module


def _failed_item(failed: Failed) -> Attributes:
    item: Attributes = {
        "00081197": {"vr": "US", "Value": [status.failure_reason(failed.refusal.reason)]},
    }
    if failed.instance_uid:
        item["00081150"] = {"vr": "UI", "Value": [failed.class_uid]}
        item["00081155"] = {"vr": "UI", "Value": [failed.instance_uid]}
    if failed.refusal.comment:
        item["00000902"] = {"vr": "LO", "Value": [failed.refusal.comment]}
    return dict(sorted(item.items()))


def _stored_item(instance: StoredInstance, base: str) -> Attributes:
    return {
        "00081150": {"vr": "UI", "Value": [instance.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [instance.sop_instance_uid]},
        "00081190": {"vr": "UR", "Value": [base + instance_path(instance)]},
    }


def _not_dicom(part: multipart.PartBegins) -> Refusal | None:
    """Parts without a type are taken for what the message says they are (RFC 2387 section 3.1)."""
    media_type, _ = accept.media_type_and_parameters(part.headers.get("content-type", DICOM))
    if media_type == DICOM:
        return None
    return Refusal(Reason.NOT_UNDERSTOOD, "a part that is not application/dicom")


def _as_single_part(chunks: Iterator[bytes]) -> Iterator[multipart.Event]:
    yield multipart.PartBegins()
    for data in chunks:
        yield multipart.PartData(data)
    yield multipart.PartEnds()
