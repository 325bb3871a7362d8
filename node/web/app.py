"""The web application: which resource answers which address."""

from collections.abc import Callable
from typing import Any

import falcon

from node.config import Settings
from node.domain.errors import Reason, Refusal
from node.domain.model import Level
from node.services.archive import Archive
from node.services.metadata import DICOMWEB_PATH
from node.viewer.files import ViewerFiles
from node.web import openapi, status
from node.web.auth import Authentication
from node.web.health import Live, Metrics, Ready
from node.web.observe import Gate, Observed
from node.web.pages import Front, Login, Viewer
from node.web.qido import Qido
from node.web.refused import RefusedRequests
from node.web.stow import Stow
from node.web.wado import Instances
from node.web.wado_frames import Bulk, Frames
from node.web.wado_metadata import Metadata
from node.web.wado_rendered import Rendered, Thumbnail

WAITING = 12  # requests that may wait for their turn, each in a thread
SPARE_THREADS = WAITING + 4  # beyond those that work: health and metrics are answered while all are busy
WAIT_SECONDS = 10.0


class _Routes:
    """Falcon middleware: no address leads upwards, no content is guessed at; tells the observer which route
    answers."""

    def process_request(self, req: falcon.Request, _resp: Any) -> None:
        """Before anything is looked up, or anybody."""
        if any(segment in (".", "..") for segment in req.path.split("/")):
            raise Refusal(Reason.NOT_FOUND, "no such address")

    def process_resource(self, req: falcon.Request, _resp: Any, _resource: Any, _params: Any) -> None:
        """Once the route is known."""
        req.env["stele.route"] = req.uri_template

    def process_response(
        self, _req: falcon.Request, resp: falcon.Response, _resource: Any, _succeeded: bool
    ) -> None:
        """No answer is to be taken for a page because of what a dataset in it looks like."""
        resp.set_header("X-Content-Type-Options", "nosniff")


class _Studies:
    """/studies: searched with GET, stored into with POST."""

    def __init__(self, search: Qido, store: Stow) -> None:
        self.on_get = search.on_get
        self.on_head = search.on_get
        self.on_post = store.on_post


class _Study:
    """/studies/{study}: retrieved, removed, stored into."""

    def __init__(self, instances: Instances, store: Stow) -> None:
        self.on_get = instances.on_get
        self.on_head = instances.on_get
        self.on_delete = instances.on_delete
        self.on_post = store.on_post


def create_app(settings: Settings, archive: Archive, *, with_dimse: bool) -> Callable[..., Any]:
    """The WSGI application; `with_dimse`: of a node that is ready only while its DICOM port is open."""
    app: Any = falcon.App()
    app.add_middleware([_Routes(), Authentication(archive.access, demo=settings.demo)])
    app.req_options.strip_url_path_trailing_slash = False
    app.req_options.auto_parse_qs_csv = False
    status.Errors(RefusedRequests(archive.catalog.audits).note).install(app)
    _dicomweb(app, settings, archive)
    app.add_route("/health/live", Live())
    app.add_route("/health/ready", Ready(archive, settings.dicom if with_dimse else None))
    app.add_route("/metrics", Metrics())
    app.add_route("/openapi.json", openapi.Description())
    login = Login(
        archive.access, session_seconds=settings.http.session_seconds, secure=settings.http.secure_cookies
    )
    app.add_route("/login", login)
    app.add_route("/logout", login, suffix="logout")
    app.add_route("/", Front(viewer=settings.viewer.path is not None))
    if settings.viewer.path is not None:
        app.add_sink(Viewer(ViewerFiles(settings.viewer.path)), "/viewer(?:/|$)")
    return Observed(Gate(app, at_once=settings.http.threads, waiting=WAITING, wait_seconds=WAIT_SECONDS))


def _dicomweb(app: Any, settings: Settings, archive: Archive) -> None:
    search = archive.search
    store = Stow(
        archive, max_request_bytes=settings.http.max_request_bytes, max_parts=settings.http.max_parts
    )
    instances, metadata = Instances(archive), Metadata(archive)
    rendered, thumbnail = Rendered(archive), Thumbnail(archive)
    study = f"{DICOMWEB_PATH}/studies/{{study}}"
    series = f"{study}/series/{{series}}"
    instance = f"{series}/instances/{{instance}}"
    app.add_route(f"{DICOMWEB_PATH}/studies", _Studies(Qido(search, Level.STUDY), store))
    for name, level in (("patients", Level.PATIENT), ("series", Level.SERIES), ("instances", Level.IMAGE)):
        app.add_route(f"{DICOMWEB_PATH}/{name}", Qido(search, level))
    app.add_route(study, _Study(instances, store))
    app.add_route(f"{study}/series", Qido(search, Level.SERIES))
    app.add_route(f"{study}/instances", Qido(search, Level.IMAGE))
    app.add_route(f"{series}/instances", Qido(search, Level.IMAGE))
    app.add_route(series, instances)
    app.add_route(instance, instances)
    for resource in (study, series, instance):
        app.add_route(f"{resource}/metadata", metadata)
        app.add_route(f"{resource}/thumbnail", thumbnail)
        app.add_route(f"{resource}/rendered", rendered)
    app.add_route(f"{instance}/frames/{{numbers}}", Frames(archive))
    app.add_route(f"{instance}/frames/{{numbers}}/rendered", rendered)
    app.add_route(f"{instance}/frames/{{numbers}}/thumbnail", thumbnail)
    app.add_route(f"{instance}/bulkdata/{{path:path}}", Bulk(archive))
