"""Where clients send to and read from, and how they prove who they are."""

import socket
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter

OPERATION_SECONDS = 60.0  # a client's patience: who waits for longer has found the archive not alive
CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Tls:
    """DICOM TLS (PS3.15 section B.9): PEM files, and the name in the archive's certificate."""

    ca: str
    certificate: str
    key: str
    server_name: str


@dataclass(frozen=True, slots=True)
class Dicom:
    """An address that takes associations, and the AE titles of both sides."""

    host: str
    port: int
    called: str = "STELE"
    calling: str = "CHAOS"
    tls: Tls | None = None
    source: str = ""  # the client's own address, where it has several

    @property
    def name(self) -> str:
        """As the history has it."""
        return f"{self.host}:{self.port}"

    def fields(self) -> dict[str, Any]:
        """For another process; see `from_fields`."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Dicom":
        """The inverse of `fields`."""
        tls = fields["tls"]
        return cls(**{**fields, "tls": None if tls is None else Tls(**tls)})

    def dcmtk(self, *options: str) -> list[str]:
        """The arguments of DCMTK's clients: options, titles, TLS, address; more may follow."""
        titles = ["-aet", self.calling, "-aec", self.called]
        tls = [] if self.tls is None else ["+tls", self.tls.key, self.tls.certificate, "+cf", self.tls.ca]
        return [*options, *titles, *tls, self.host, str(self.port)]

    def context(self) -> ssl.SSLContext | None:
        """For clients in Python; None without TLS."""
        if self.tls is None:
            return None
        context = ssl.create_default_context(cafile=self.tls.ca)
        context.load_cert_chain(self.tls.certificate, self.tls.key)
        return context

    def connect(self, seconds: float = OPERATION_SECONDS) -> socket.socket:
        """A connection that sends at once; `seconds` for each of its reads and writes. OSError."""
        connection = socket.create_connection(
            (self.host, self.port), CONNECT_SECONDS, (self.source, 0) if self.source else None
        )
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            context = self.context()
            if context is not None and self.tls is not None:
                connection = context.wrap_socket(connection, server_hostname=self.tls.server_name)
            connection.settimeout(seconds)
        except BaseException:
            connection.close()
            raise
        return connection


@dataclass(frozen=True, slots=True)
class Web:
    """An archive's web server: its address without a trailing slash, its CA file, and who we are there.

    `token`: a machine's bearer token. `login`: (name, password) of a person, who gets a session. With
    `server_name` the certificate has to be of that name, whatever the address is.
    """

    url: str
    ca: str = ""
    token: str = ""
    login: tuple[str, str] | None = None
    server_name: str = ""


class WebSession:
    """Requests of one client to one address. `pages` gets the body of every error answer."""

    def __init__(self, web: Web, pages: Callable[[str], None]) -> None:
        self.web = web
        self._pages = pages
        self.requests = requests.Session()
        self.requests.trust_env = False  # no proxies of the machine
        self.requests.verify = web.ca or True
        if web.token:
            self.requests.headers["Authorization"] = f"Bearer {web.token}"
        origin = web.url
        if web.server_name:
            self.requests.mount("https://", _Named(web.server_name))
            self.requests.headers["Host"] = web.server_name
            origin = f"https://{web.server_name}"
        if web.login:
            self.requests.headers["Origin"] = origin  # of what a session changes, the archive demands it

    def get(self, path: str, accept: str, seconds: float = OPERATION_SECONDS) -> requests.Response:
        """GET below /dicom-web/. requests.RequestException if there is no answer."""
        return self._call("GET", f"/dicom-web/{path}", {"Accept": accept}, None, seconds)

    def store(self, body: bytes, content_type: str) -> requests.Response:
        """STOW-RS. requests.RequestException if there is no answer."""
        headers = {"Content-Type": content_type, "Accept": "application/dicom+json"}
        return self._call("POST", "/dicom-web/studies", headers, body, OPERATION_SECONDS)

    def delete(self, path: str) -> requests.Response:
        """DELETE below /dicom-web/, which is none of DICOM's own. requests.RequestException if there is no
        answer."""
        return self._call("DELETE", f"/dicom-web/{path}", {}, None, OPERATION_SECONDS)

    def close(self) -> None:
        """Close the connections."""
        self.requests.close()

    def _call(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, seconds: float
    ) -> requests.Response:
        if self.web.login and not self.requests.cookies:
            self._log_in(*self.web.login)
        answer = self.requests.request(
            method,
            f"{self.web.url}{path}",
            headers=headers,
            data=body,
            timeout=(CONNECT_SECONDS, seconds),
        )
        if answer.status_code >= 400:
            self._pages(answer.text)
        if answer.status_code == 401:
            self.requests.cookies.clear()  # the session has ended: log in again next time
        return answer

    def _log_in(self, name: str, password: str) -> None:
        answer = self.requests.post(
            f"{self.web.url}/login",
            data={"name": name, "password": password},
            timeout=(CONNECT_SECONDS, OPERATION_SECONDS),
            allow_redirects=False,
        )
        if answer.status_code != 303:
            self._pages(answer.text)
            raise requests.HTTPError(f"login: {answer.status_code}")


class _Named(HTTPAdapter):
    """Demands a certificate of a name that is not the address's."""

    def __init__(self, server_name: str) -> None:
        self._server_name = server_name
        super().__init__()

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """Passed on to urllib3."""
        names = {"server_hostname": self._server_name, "assert_hostname": self._server_name}
        super().init_poolmanager(connections, maxsize, block, **options, **names)
