"""Who may do what: DICOM peers by AE policy, people and machines by account.

Both fail closed, and every "no" (and every login) leaves an audit event.
"""

import hashlib
import ipaddress
import secrets
import threading
import time

from node import metrics
from node.domain.errors import Reason, Refusal
from node.domain.model import Account, Actor, ApplicationEntity, AuditEvent, Role
from node.ports import Accounts, Audits, Entities, Passwords

ENTITY_CACHE_SECONDS = 5.0
_ORDER = (Role.VIEWER, Role.TECHNOLOGIST, Role.ADMINISTRATOR)


def permits(role: Role, needed: Role) -> bool:
    """Whether `role` may do what `needed` may."""
    return _ORDER.index(role) >= _ORDER.index(needed)


def require(actor: Actor, needed: Role) -> None:
    """Refusal(NOT_ALLOWED) unless the actor has at least the role."""
    if not permits(actor.role, needed):
        raise Refusal(Reason.NOT_ALLOWED, f"needs the role {needed.value}")


class EntityPolicy:
    """Decides on associations. Entities are read from the catalog and kept for a few seconds, so that
    a change is in force everywhere within `ENTITY_CACHE_SECONDS`."""

    def __init__(self, entities: Entities, *, any_calling_ae: bool) -> None:
        self._entities = entities
        self._any_calling_ae = any_calling_ae
        self._known: dict[str, ApplicationEntity] = {}
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def admit(self, calling: str, address: str, certificate_sha256: str | None) -> ApplicationEntity:
        """The entity that calls, or Refusal(NOT_ALLOWED) if it may not.

        `certificate_sha256`: hexadecimal fingerprint of the TLS client certificate, None on plain TCP.
        """
        entity = self.find(calling)
        if entity is None:
            if self._any_calling_ae:
                return ApplicationEntity(calling)
            raise Refusal(Reason.NOT_ALLOWED, "calling AE title is not configured")
        if entity.sources and not _within(address, entity.sources):
            raise Refusal(Reason.NOT_ALLOWED, "calling AE title from a foreign address")
        if entity.certificate and entity.certificate.lower() != (certificate_sha256 or "").lower():
            raise Refusal(Reason.NOT_ALLOWED, "calling AE title without its certificate")
        return entity

    def knows(self, title: str) -> bool:
        """Whether the title was configured when last looked at."""
        with self._lock:
            return title in self._known

    def find(self, title: str) -> ApplicationEntity | None:
        """The configured entity of that title."""
        now = time.monotonic()
        with self._lock:
            if now - self._read_at > ENTITY_CACHE_SECONDS:
                self._known = {entity.title: entity for entity in self._entities.all()}
                self._read_at = now
            return self._known.get(title)


def _within(address: str, networks: tuple[str, ...]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return any(ip in ipaddress.ip_network(network, strict=False) for network in networks)


class Access:
    """Logins, sessions and bearer tokens."""

    def __init__(
        self, accounts: Accounts, audits: Audits, passwords: Passwords, session_seconds: float
    ) -> None:
        self._accounts = accounts
        self._audits = audits
        self._passwords = passwords
        self._session_seconds = session_seconds
        # Verified against when there is no such account, so that both answers take as long.
        self._decoy = passwords.hash(secrets.token_hex())

    def login(self, name: str, password: str, address: str) -> tuple[Account, str]:
        """Open a session; returns the account and the session's secret. Refusal(NOT_AUTHENTICATED)."""
        found = self._accounts.password_hash(name)
        right = self._passwords.verify(found[1] if found and found[1] else self._decoy, password)
        if not right or found is None or found[1] is None:
            actor = Actor(name if found else "unknown", address, "http")
            self._audits.record(AuditEvent("login", actor, Reason.NOT_AUTHENTICATED.value))
            metrics.REFUSALS.labels("http", Reason.NOT_AUTHENTICATED.value).inc()
            raise Refusal(Reason.NOT_AUTHENTICATED, "wrong name or password")
        account = found[0]
        secret = secrets.token_urlsafe(32)
        event = AuditEvent("login", Actor(name, address, "http", account.role))
        self._accounts.open_session(name, _digest(secret), self._session_seconds, event)
        return account, secret

    def authenticate(self, secret: str) -> Account:
        """Whose session or bearer token `secret` is. Refusal(NOT_AUTHENTICATED)."""
        account = self._accounts.session(_digest(secret))
        if account is None:
            raise Refusal(Reason.NOT_AUTHENTICATED, "no such session or token")
        return account

    def logout(self, secret: str, actor: Actor) -> None:
        """End a session or revoke a token."""
        self._accounts.close_session(_digest(secret), AuditEvent("logout", actor))

    def add_user(self, name: str, password: str, role: Role, actor: Actor) -> None:
        """Create or replace a person's account."""
        event = AuditEvent("manage", actor, detail={"account": name, "role": role.value})
        self._accounts.add(name, self._passwords.hash(password), role, event)

    def add_machine(self, name: str, role: Role, actor: Actor) -> str:
        """Create or replace a machine's account; returns its bearer token, which is kept as a digest only."""
        event = AuditEvent("manage", actor, detail={"machine": name, "role": role.value})
        self._accounts.add(name, None, role, event)
        secret = secrets.token_urlsafe(32)
        self._accounts.open_session(name, _digest(secret), 0, event)
        return secret


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
