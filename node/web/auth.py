"""Who is asking: bearer tokens for machines, session cookies for people, everybody in a demonstration.

The middleware leaves `req.context.actor` for the resources; what needs no login is listed here and
nowhere else. A cookie alone never changes anything from another site: it is SameSite=Strict, and unsafe
methods that rely on it must come from our own origin. A secret in an address would end up in logs, so it
is refused whatever else the request carries. The demonstration answers under loopback names only: another
name for 127.0.0.1 belongs to a web site that wants to reach it through somebody's browser.
"""

import threading
import time
from collections import OrderedDict
from urllib.parse import parse_qsl, quote

import falcon

from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, Role
from node.services.access import Access, require
from node.web.status import Problem

COOKIE = "stele_session"
OPEN_PATHS = ("/health/live", "/health/ready", "/metrics", "/login", "/openapi.json")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MAX_SECRET_CHARS = 512
SECRET_PARAMETERS = frozenset({"token", "access_token", "id_token", "bearer", "bearer_token", "jwt"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

LOGIN_TRIES = 10
LOGIN_TRIES_PER_ADDRESS = 100
LOGIN_WINDOW_SECONDS = 300.0
LOGIN_KEYS_KEPT = 10_000


class Authentication:
    """Falcon middleware; `demo` lets everybody in as an administrator."""

    def __init__(self, access: Access, *, demo: bool) -> None:
        self._access = access
        self._demo = demo

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Set `req.context.actor`, redirect a browser to the login page, or refuse."""
        address = req.remote_addr or ""
        if self._demo:
            _check_loopback_name(req)
            if req.method not in SAFE_METHODS:
                check_origin(req)
            req.context.actor = Actor("demo", address, "http", Role.ADMINISTRATOR)
            req.env["stele.actor"] = "demo"
            return
        if req.path in OPEN_PATHS:
            req.context.actor = None
            return
        names = {name.lower() for name, _ in parse_qsl(req.query_string, keep_blank_values=True)}
        if names & SECRET_PARAMETERS:
            raise Refusal(Reason.NOT_AUTHENTICATED, "a secret does not belong into an address")
        try:
            account = self._access.authenticate(self._secret(req))
        except Refusal as refusal:
            if refusal.reason is Reason.NOT_AUTHENTICATED and wants_page(req):
                raise falcon.HTTPSeeOther(f"/login?next={quote(req.relative_uri, safe='')}") from None
            raise
        req.context.actor = Actor(account.name, address, "http", account.role)
        req.env["stele.actor"] = account.name

    @staticmethod
    def _secret(req: falcon.Request) -> str:
        header = req.get_header("Authorization")
        if header is not None:
            scheme, _, secret = header.partition(" ")
            secret = secret.strip()
            if scheme.lower() != "bearer" or not 0 < len(secret) <= MAX_SECRET_CHARS:
                raise Refusal(Reason.NOT_AUTHENTICATED, "send a bearer token or log in")
            return secret
        cookies = req.get_cookie_values(COOKIE)
        if not cookies or len(cookies[0]) > MAX_SECRET_CHARS:
            raise Refusal(Reason.NOT_AUTHENTICATED, "send a bearer token or log in")
        if req.method not in SAFE_METHODS:
            check_origin(req, told=True)
        return str(cookies[0])


def demand(req: falcon.Request, needed: Role) -> Actor:
    """The request's actor, if it has at least the role. Refusal(NOT_ALLOWED)."""
    actor: Actor = req.context.actor
    require(actor, needed)
    return actor


def _check_loopback_name(req: falcon.Request) -> None:
    host = req.get_header("Host", default="").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name not in LOOPBACK_NAMES:
        raise Problem(421, "misdirected_request", "the demonstration answers under loopback names only")


def check_origin(req: falcon.Request, *, told: bool = False) -> None:
    """Problem 403 for a browser's request that another site made.

    Programs send neither header; with `told` one of them is demanded.
    """
    site = req.get_header("Sec-Fetch-Site")
    origin = req.get_header("Origin")
    if told and site is None and origin is None:
        raise Problem(403, "foreign_origin", "the request does not say which site made it")
    if site not in (None, "same-origin", "none"):
        raise Problem(403, "foreign_origin", "the request comes from another site")
    if origin is not None and origin.partition("://")[2] != req.netloc:
        raise Problem(403, "foreign_origin", "the request comes from another site")


def wants_page(req: falcon.Request) -> bool:
    """Whether a browser asks for a page (and not a program, or a page's script, for data)."""
    if req.method != "GET" or req.path.startswith("/dicom-web"):
        return False
    if req.get_header("Sec-Fetch-Mode", default="navigate") != "navigate":
        return False
    return "text/html" in req.get_header("Accept", default="")


class LoginThrottle:
    """At most LOGIN_TRIES failed logins per address and name in LOGIN_WINDOW_SECONDS, and at most
    LOGIN_TRIES_PER_ADDRESS for all names together."""

    def __init__(self) -> None:
        self._failures: OrderedDict[tuple[str, str | None], list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, address: str, name: str) -> None:
        """Refusal(TOO_MANY) if there have been too many failures."""
        with self._lock:
            named, any_name = self._recent((address, name)), self._recent((address, None))
            if len(named) >= LOGIN_TRIES or len(any_name) >= LOGIN_TRIES_PER_ADDRESS:
                raise Refusal(Reason.TOO_MANY, "too many failed logins; wait some minutes")

    def failed(self, address: str, name: str) -> None:
        """Count a failure."""
        with self._lock:
            for key in ((address, name), (address, None)):
                self._failures[key] = [*self._recent(key), time.monotonic()]
                self._failures.move_to_end(key)
            while len(self._failures) > LOGIN_KEYS_KEPT:
                self._failures.popitem(last=False)

    def _recent(self, key: tuple[str, str | None]) -> list[float]:
        since = time.monotonic() - LOGIN_WINDOW_SECONDS
        return [at for at in self._failures.get(key, []) if at > since]
