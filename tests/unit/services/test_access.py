"""AE policy and roles."""

from collections.abc import Iterator

import pytest

from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, ApplicationEntity, AuditEvent, Role
from node.services import access
from node.services.access import EntityPolicy, permits, require


class KnownEntities:
    """Entities in a list."""

    def __init__(self, *known: ApplicationEntity) -> None:
        self.known = list(known)

    def all(self) -> list[ApplicationEntity]:
        return self.known

    def get(self, title: str) -> ApplicationEntity | None:
        return next((entity for entity in self.known if entity.title == title), None)

    def put(self, entity: ApplicationEntity, event: AuditEvent) -> None:
        self.known.append(entity)

    def drop(self, title: str, event: AuditEvent) -> bool:
        raise AssertionError("not part of the policy")


def policy(*known: ApplicationEntity, any_calling_ae: bool = False) -> EntityPolicy:
    return EntityPolicy(KnownEntities(*known), any_calling_ae=any_calling_ae)


def refused(policy: EntityPolicy, title: str, address: str, certificate: str | None = None) -> bool:
    try:
        policy.admit(title, address, certificate)
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_ALLOWED
        return True
    return False


def test_who_is_not_configured_may_not_call() -> None:
    assert refused(policy(), "CT1", "192.0.2.1")
    assert not refused(policy(any_calling_ae=True), "CT1", "192.0.2.1")


@pytest.mark.parametrize(
    ("address", "right"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("192.0.3.7", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("", False),
        ("not an address", False),
    ],
)
def test_an_ae_calls_from_its_networks_only(address: str, right: bool) -> None:
    known = ApplicationEntity("CT1", sources=("192.0.2.0/24", "2001:db8::/32"))
    assert refused(policy(known, any_calling_ae=True), "CT1", address) is not right


def test_an_ae_with_a_certificate_needs_just_that_one() -> None:
    known = policy(ApplicationEntity("CT1", certificate="ab" * 32))
    assert refused(known, "CT1", "192.0.2.1")
    assert refused(known, "CT1", "192.0.2.1", "cd" * 32)
    assert not refused(known, "CT1", "192.0.2.1", "AB" * 32)


def test_a_change_is_in_force_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("node.services.access.time.monotonic", lambda: now[0])
    entities = KnownEntities()
    asked = EntityPolicy(entities, any_calling_ae=False)
    assert refused(asked, "CT1", "192.0.2.1")
    entities.known.append(ApplicationEntity("CT1"))
    now[0] += access.ENTITY_CACHE_SECONDS + 0.1
    assert not refused(asked, "CT1", "192.0.2.1")


def roles() -> Iterator[tuple[Role, Role, bool]]:
    order = [Role.VIEWER, Role.TECHNOLOGIST, Role.ADMINISTRATOR]
    for has in range(3):
        for needs in range(3):
            yield order[has], order[needs], has >= needs


@pytest.mark.parametrize(("has", "needs", "may"), list(roles()))
def test_each_role_may_do_what_the_lesser_ones_may(has: Role, needs: Role, may: bool) -> None:
    assert permits(has, needs) is may
    actor = Actor("somebody", "192.0.2.1", "http", has)
    if may:
        require(actor, needs)
    else:
        with pytest.raises(Refusal):
            require(actor, needs)
