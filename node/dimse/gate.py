"""The gate: who may associate, decided before anything of a connection reaches pynetdicom.

A connection brings, in this order and within one total deadline that no trickle can stretch: a PROXY
header (from configured proxies only, and there always), a TLS handshake (on the TLS port), and an
A-ASSOCIATE-RQ. The gate reads these itself, bounded, and answers everything that is wrong with them
(PS3.8 sections 9.2 and 9.3). What comes out is a `Caller`: a connected socket and a request that is
well-formed and allowed.

What the peer has proposed decides who serves it: `node.dimse.storing` those who only store,
`node.dimse.association` all others.
"""

import contextlib
import hashlib
import ipaddress
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from node.dimse import pdu
from node.dimse.pdu import Broken, Rejected, Request
from node.domain import proxy
from node.domain.errors import Reason, Refusal
from node.domain.model import ApplicationEntity
from node.services.access import EntityPolicy

FAREWELL_SECONDS = 1.0  # for a refused peer to read its answer and close
FAREWELL_BYTES = 1 << 20

_NOT_CALLED = (1, 1, 7)
_NOT_CALLING = (1, 1, 3)
LOCAL_LIMIT = (2, 3, 2)
_CONGESTION = (2, 3, 1)


class Silent(Exception):
    """The connection ends without an answer; `reason` for metrics and audit, None for neither."""

    def __init__(self, reason: Reason | None, comment: str = "") -> None:
        super().__init__(comment)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Caller:
    """Who was let in."""

    socket: socket.socket
    address: str
    request: Request
    body: bytes
    entity: ApplicationEntity

    def first_pdu(self) -> bytes:
        """The A-ASSOCIATE-RQ, for who serves the association."""
        body = pdu.with_plain_version(self.body)
        return struct.pack(">BxI", pdu.ASSOCIATE_RQ, len(body)) + body


class Arrival:
    """A connection on its way through the gate, used by one thread."""

    def __init__(self, connected: socket.socket, peer: str, seconds: float) -> None:
        self.socket = connected
        self.address = peer
        self.calling = ""
        self.fingerprint: str | None = None
        self._deadline = time.monotonic() + seconds

    def read_proxy(self) -> None:
        """Take the client's address, and its certificate's fingerprint, out of a PROXY header; Silent."""
        header = self._read(proxy.HEADER_BYTES)
        try:
            body = self._read(proxy.body_length(header))
            source = proxy.source(header, body)
            self.fingerprint = proxy.certificate(header, body)
        except proxy.NotProxy as error:
            raise Silent(Reason.NOT_ALLOWED, str(error)) from error
        if source is not None:
            self.address = plain_address(source)

    def shake_hands(self, context: ssl.SSLContext) -> None:
        """TLS; Silent (the alert was sent) if it fails."""
        self.socket.settimeout(self._rest())
        try:
            secured = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
            self.socket = secured
            secured.do_handshake()
        except ssl.SSLError as error:
            raise Silent(Reason.NOT_AUTHENTICATED, "TLS handshake") from error
        except OSError as error:
            raise Silent(None) from error
        certificate = secured.getpeercert(binary_form=True)
        self.fingerprint = hashlib.sha256(certificate).hexdigest() if certificate else None

    def read_request(self) -> tuple[Request, bytes]:
        """The A-ASSOCIATE-RQ and its body; Broken, Rejected, Silent."""
        kind, length = pdu.read_header(self._read(pdu.HEADER_BYTES))
        pdu.check_request_header(kind, length)
        body = self._read(length)
        if kind == pdu.ABORT:
            raise Silent(None)
        with contextlib.suppress(Broken):
            self.calling = pdu.parse_title(body[20:36])
        return pdu.parse_request(body), body

    def _read(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self.socket.settimeout(self._rest())
            try:
                count = self.socket.recv_into(view)
            except TimeoutError as error:
                raise Silent(Reason.TOO_MANY, "no request in time") from error
            except OSError as error:
                raise Silent(None) from error
            if count == 0:
                raise Silent(None)
            view = view[count:]
        return bytes(data)

    def _rest(self) -> float:
        rest = self._deadline - time.monotonic()
        if rest <= 0:
            raise Silent(Reason.TOO_MANY, "no request in time")
        return rest


def farewell(connected: socket.socket, answer: bytes) -> None:
    """Send a last PDU and wait a moment for the peer to read it: closing at once would reset the
    connection under unread bytes and take the answer with it."""
    deadline = time.monotonic() + FAREWELL_SECONDS
    with contextlib.suppress(OSError):
        connected.settimeout(FAREWELL_SECONDS)
        connected.sendall(answer)
        connected.shutdown(socket.SHUT_WR)
        read = 0
        while read < FAREWELL_BYTES and (rest := deadline - time.monotonic()) > 0:
            connected.settimeout(rest)
            count = len(connected.recv(65536))
            if not count:
                return
            read += count


class Gate:
    """Lets connections in, or not. One for all connections of a listener."""

    def __init__(
        self,
        policy: EntityPolicy,
        *,
        own_title: str,
        any_called_ae: bool,
        proxies: Sequence[str],
        request_seconds: float,
    ) -> None:
        self._policy = policy
        self._own_title = own_title
        self._any_called_ae = any_called_ae
        self._proxies = [ipaddress.ip_network(network, strict=False) for network in proxies]
        self._request_seconds = request_seconds

    def arrival(self, connected: socket.socket, peer: str) -> Arrival:
        """A connection begins; its time runs from now."""
        return Arrival(connected, plain_address(peer), self._request_seconds)

    def admit(self, arrival: Arrival, tls: ssl.SSLContext | None) -> Caller:
        """Read up to the request and decide. Silent, Broken, Rejected."""
        if self._is_proxy(arrival.address):
            arrival.read_proxy()
        if tls is not None:
            arrival.shake_hands(tls)
        request, body = arrival.read_request()
        if not self._any_called_ae and request.called != self._own_title:
            raise Rejected(*_NOT_CALLED, "called AE title")
        try:
            entity = self._policy.admit(request.calling, arrival.address, arrival.fingerprint)
        except Refusal as refusal:
            if refusal.reason is Reason.NOT_ALLOWED:
                raise Rejected(*_NOT_CALLING, refusal.comment) from refusal
            raise Rejected(*_CONGESTION, refusal.comment) from refusal
        return Caller(arrival.socket, arrival.address, request, body, entity)

    def _is_proxy(self, address: str) -> bool:
        if not self._proxies:
            return False
        ip = ipaddress.ip_address(address)
        return any(ip in network for network in self._proxies)


def plain_address(address: str) -> str:
    """An IP address as policy and audit write it: IPv4 not mapped into IPv6, without a zone."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return str(ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else str(ip)
