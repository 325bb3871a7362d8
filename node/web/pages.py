"""Pages for people: the login form, the way to the viewer, and the viewer's files."""

import threading
from html import escape
from typing import Any

import falcon

from node.domain.errors import Reason, Refusal
from node.services.access import Access
from node.viewer.files import ViewerFiles
from node.web.auth import COOKIE, LoginThrottle, check_origin
from node.web.body import accepts_gzip, whole

MAX_FORM_BYTES = 4096
# A password's hash takes tens of megabytes while it is worked out.
LOGINS_AT_ONCE = 4
LOGIN_WAIT_SECONDS = 10.0

_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
_STYLE = (
    "body{font:1rem system-ui,sans-serif;background:#0b1a2b;color:#e8eef5;display:grid;"
    "place-items:center;min-height:100vh;margin:0}form{display:grid;gap:.75rem;width:min(20rem,90vw)}"
    "input,button{font:inherit;padding:.6rem;border-radius:.3rem;border:1px solid #45607d}"
    "button{background:#3b82f6;color:#fff;border:0}.wrong{color:#fca5a5}h1{margin:0}"
)


def secure_headers(resp: falcon.Response, policy: str) -> None:
    """What every page and file is sent with."""
    resp.set_header("Content-Security-Policy", policy)
    resp.set_header("X-Content-Type-Options", "nosniff")
    resp.set_header("Referrer-Policy", "same-origin")


def local_path(target: str) -> str:
    """`target` if it is a path on this server, else the front page: never a redirect to elsewhere."""
    harmless = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if harmless and target.isprintable() and "\\" not in target else "/"


class Login:
    """GET, POST /login and POST /logout."""

    def __init__(self, access: Access, *, session_seconds: int, secure: bool) -> None:
        self._access = access
        self._session_seconds = session_seconds
        self._secure = secure
        self._throttle = LoginThrottle()
        self._turns = threading.BoundedSemaphore(LOGINS_AT_ONCE)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The form."""
        self._form(resp, local_path(req.get_param("next") or "/"), "")

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Name and password as a form; the answer sets the session cookie and goes on to `next`."""
        check_origin(req)
        text = whole(req, MAX_FORM_BYTES).decode("utf-8", "replace")
        form = falcon.uri.parse_query_string(text, keep_blank=True, csv=False)
        values = {key: value[0] if isinstance(value, list) else value for key, value in form.items()}
        name, target = values.get("name", ""), local_path(values.get("next", "/"))
        address = req.remote_addr or ""
        self._throttle.check(address, name)
        if not self._turns.acquire(timeout=LOGIN_WAIT_SECONDS):
            raise Refusal(Reason.TOO_MANY, "too many logins at once")
        try:
            _, secret = self._access.login(name, values.get("password", ""), address)
        except Refusal as refusal:
            if refusal.reason is not Reason.NOT_AUTHENTICATED:
                raise
            self._throttle.failed(address, name)
            resp.status = falcon.HTTP_401
            self._form(resp, target, "Name or password is wrong.")
            return
        finally:
            self._turns.release()
        resp.set_cookie(
            COOKIE, secret, max_age=self._session_seconds, path="/", secure=self._secure,
            http_only=True, same_site="Strict",
        )  # fmt: skip
        resp.status = falcon.HTTP_303
        resp.location = target

    def on_post_logout(self, req: falcon.Request, resp: falcon.Response) -> None:
        """End the session."""
        cookies = req.get_cookie_values(COOKIE)
        if cookies:
            self._access.logout(cookies[0], req.context.actor)
        resp.unset_cookie(COOKIE, path="/")
        resp.status = falcon.HTTP_303
        resp.location = "/login"

    @staticmethod
    def _form(resp: falcon.Response, target: str, wrong: str) -> None:
        secure_headers(resp, _PAGE_POLICY)
        resp.set_header("Cache-Control", "no-store")
        resp.content_type = "text/html; charset=utf-8"
        resp.text = (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>Stele: log in</title>"
            f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
            f"<form method=post action=/login><h1>Stele</h1>"
            f"<p class=wrong role=alert>{escape(wrong)}</p>"
            f"<input type=hidden name=next value='{escape(target, quote=True)}'>"
            f"<label>Name <input name=name autocomplete=username required autofocus></label>"
            f"<label>Password <input name=password type=password autocomplete=current-password required>"
            f"</label><button>Log in</button></form></html>"
        )


class Front:
    """GET /: on to the viewer, or a line of text where there is none."""

    def __init__(self, *, viewer: bool) -> None:
        self._viewer = viewer

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Redirect to the viewer."""
        if self._viewer:
            raise falcon.HTTPFound("/viewer/")
        resp.content_type = "text/plain; charset=utf-8"
        resp.text = "Stele. DICOMweb lies under /dicom-web, its description at /openapi.json.\n"


class Viewer:
    """GET /viewer/…: the prepared viewer's files."""

    def __init__(self, files: ViewerFiles) -> None:
        self._files = files

    def __call__(self, req: falcon.Request, resp: falcon.Response, **_params: Any) -> None:
        """Serve a file; used as a falcon sink, since paths inside the application are the viewer's."""
        if req.method not in ("GET", "HEAD"):
            raise falcon.HTTPMethodNotAllowed(["GET", "HEAD"])
        if req.path == "/viewer":
            raise falcon.HTTPMovedPermanently(
                "/viewer/" + (f"?{req.query_string}" if req.query_string else "")
            )
        found = self._files.find(req.path.removeprefix("/viewer"), accepts_gzip(req))
        if found is None:
            raise Refusal(Reason.NOT_FOUND, "no such file")
        secure_headers(resp, found.content_security_policy)
        resp.set_header("Cache-Control", found.cache_control)
        resp.set_header("Vary", "Accept-Encoding")
        resp.set_header("ETag", found.etag)
        known = req.if_none_match
        if known and any(tag == "*" or f'"{tag}"' == found.etag for tag in known):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = found.content_type
        if found.encoding:
            resp.set_header("Content-Encoding", found.encoding)
        resp.data = found.path.read_bytes()
