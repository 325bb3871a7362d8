"""Accounts, sessions, application entities, surplus objects and leases on PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from node.adapters.catalog_postgres.catalog import PostgresCatalog
from node.domain.model import Account, Actor, ApplicationEntity, AuditEvent, Lease, Role, Scope
from tests.contract.catalog_records import DELETE, STORE, one, open_catalog, record, rows
from tests.support import wait_until

MANAGE = AuditEvent("manage", Actor("admin", "192.0.2.8", "http"))


@pytest.fixture
def dsn(any_postgres_dsn: str) -> str:
    return any_postgres_dsn


@pytest.fixture
def catalog(dsn: str) -> Iterator[PostgresCatalog]:
    catalog = open_catalog(dsn)
    yield catalog
    catalog.close()


def audited(dsn: str) -> int:
    return int(one(dsn, "SELECT count(*) FROM audit_events"))


# --- Accounts ------------------------------------------------------------------------------------


def test_an_account_has_a_role_and_a_hash(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.accounts.add("anna", "$argon2id$…", Role.TECHNOLOGIST, MANAGE)
    catalog.accounts.add("robot", None, Role.VIEWER, MANAGE)
    assert catalog.accounts.password_hash("anna") == (Account("anna", Role.TECHNOLOGIST), "$argon2id$…")
    assert catalog.accounts.password_hash("robot") == (Account("robot", Role.VIEWER), None)
    assert catalog.accounts.password_hash("nobody") is None
    assert catalog.accounts.password_hash("an\x00na") is None
    assert audited(dsn) == 2


def test_a_session_lives_until_it_is_closed(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.accounts.add("anna", "hash", Role.VIEWER, MANAGE)
    catalog.accounts.open_session("anna", b"token", 3600, MANAGE)
    assert catalog.accounts.session(b"token") == Account("anna", Role.VIEWER)
    assert catalog.accounts.session(b"another") is None
    catalog.accounts.close_session(b"token", MANAGE)
    assert catalog.accounts.session(b"token") is None
    assert audited(dsn) == 3


def test_a_session_ends_by_itself_and_a_token_does_not(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.accounts.add("robot", None, Role.VIEWER, MANAGE)
    catalog.accounts.open_session("robot", b"token", 0, MANAGE)
    catalog.accounts.open_session("robot", b"session", 0.2, MANAGE)
    wait_until(lambda: catalog.accounts.session(b"session") is None, 5, "session ended")
    assert catalog.accounts.session(b"token") == Account("robot", Role.VIEWER)
    catalog.accounts.open_session("robot", b"new", 60, MANAGE)
    assert one(dsn, "SELECT count(*) FROM sessions") == 2, "the ended one was cleared away"


def test_replacing_an_account_ends_its_sessions(catalog: PostgresCatalog) -> None:
    catalog.accounts.add("anna", "old", Role.VIEWER, MANAGE)
    catalog.accounts.add("bert", "hash", Role.VIEWER, MANAGE)
    catalog.accounts.open_session("anna", b"a", 3600, MANAGE)
    catalog.accounts.open_session("bert", b"b", 3600, MANAGE)
    catalog.accounts.add("anna", "new", Role.ADMINISTRATOR, MANAGE)
    assert catalog.accounts.session(b"a") is None
    assert catalog.accounts.session(b"b") == Account("bert", Role.VIEWER)
    assert catalog.accounts.password_hash("anna") == (Account("anna", Role.ADMINISTRATOR), "new")


# --- Application entities ------------------------------------------------------------------------

FULL = ApplicationEntity(
    title="CT1",
    host="192.0.2.9",
    port=104,
    tls=True,
    sources=("192.0.2.0/24", "2001:db8::/32"),
    certificate="ab" * 32,
    may_store=True,
    may_retrieve=False,
    max_associations=3,
    max_instances_per_second=2.5,
    max_object_bytes=1 << 30,
)


def test_entities_are_kept_whole(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.entities.put(FULL, MANAGE)
    catalog.entities.put(ApplicationEntity("A"), MANAGE)
    assert catalog.entities.all() == [ApplicationEntity("A"), FULL]
    moved = ApplicationEntity("CT1", host="192.0.2.10", port=11112)
    catalog.entities.put(moved, MANAGE)
    assert catalog.entities.all() == [ApplicationEntity("A"), moved]
    assert catalog.entities.drop("CT1", MANAGE)
    assert not catalog.entities.drop("CT1", MANAGE)
    assert catalog.entities.all() == [ApplicationEntity("A")]
    assert audited(dsn) == 5


def test_settings_of_a_newer_version_do_not_disturb(catalog: PostgresCatalog, dsn: str) -> None:
    rows(dsn, """INSERT INTO entities VALUES ('NEW', '{"host": "h", "port": 1, "quantum": true}')""")
    assert catalog.entities.all() == [ApplicationEntity("NEW", host="h", port=1)]


# --- Surplus -------------------------------------------------------------------------------------


def test_surplus_names_come_oldest_first_and_stay_until_done(catalog: PostgresCatalog) -> None:
    names = []
    for number in range(3):
        _, row = catalog.instances.admit(record(number), STORE)
        names.append(row.stored.name)
    for number in range(3):
        catalog.instances.remove(Scope(instance_uid=f"2.25.1.1.{number}"), DELETE)
    assert catalog.surplus.take(2) == names[:2]
    assert catalog.surplus.take(10) == names
    catalog.surplus.done([*names[:2], "unknown"])
    assert catalog.surplus.take(10) == names[2:]
    catalog.surplus.done([])


# --- Leases --------------------------------------------------------------------------------------


def test_a_lease_has_one_holder(catalog: PostgresCatalog) -> None:
    mine = catalog.leases.acquire("seal", "a", 60)
    assert mine == Lease("seal", "a", 1)
    assert catalog.leases.acquire("seal", "b", 60) is None
    assert catalog.leases.acquire("collect", "b", 60) == Lease("collect", "b", 1)
    assert catalog.leases.acquire("seal", "a", 60) == mine, "renewed with the same fence"


def test_the_fence_grows_with_each_change_of_holder(catalog: PostgresCatalog) -> None:
    first = catalog.leases.acquire("seal", "a", 0.1)
    assert first is not None
    wait_until(lambda: catalog.leases.acquire("seal", "b", 60), 5, "lease ran out")
    second = catalog.leases.acquire("seal", "b", 60)
    assert second == Lease("seal", "b", 2)
    catalog.leases.release(first)
    assert catalog.leases.acquire("seal", "a", 60) is None, "a lost lease cannot be released"
    catalog.leases.release(second)
    assert catalog.leases.acquire("seal", "a", 60) == Lease("seal", "a", 3)


def test_racing_holders_get_one_lease(catalog: PostgresCatalog) -> None:
    with ThreadPoolExecutor(8) as threads:
        leases = list(threads.map(lambda holder: catalog.leases.acquire("x", holder, 60), "abcdefgh"))
    assert sum(lease is not None for lease in leases) == 1
