"""Real PostgreSQL servers for tests: the embedded one, and Debian's.

Use the fixtures by importing them: `from tests.postgres import *` is not needed, the root conftest or
`pytest_plugins = ["tests.postgres"]` in a conftest makes them known.

* `embedded_dsn`, `debian_dsn`: an empty database on the server of that kind (one server per session).
* `postgres_dsn`: a migrated database of its own on the embedded server.
* `any_postgres_dsn`: the same, once per kind of server.
"""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo, sql

from node.adapters.catalog_postgres.migrate import migrate
from node.adapters.postgres_embedded import EmbeddedPostgres
from tests.support import require

_numbers = itertools.count(1)


def debian_programs() -> Path:
    """Programs of the newest PostgreSQL that Debian installed; skips the test if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        require("Debian's postgresql")
    return found[-1].parent


def empty_database(server_dsn: str) -> str:
    """A new empty database on the server."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return conninfo.make_conninfo(server_dsn, dbname=name)


def migrated_database(server_dsn: str) -> str:
    """A new database with the current schema on the server."""
    dsn = empty_database(server_dsn)
    migrate(dsn)
    return dsn


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[str]:
    """DSN of an embedded server that lives as long as the session."""
    yield from _server(None)


@pytest.fixture(scope="session")
def debian_server() -> Iterator[str]:
    """DSN of a server made with Debian's programs that lives as long as the session."""
    yield from _server(debian_programs())


def _server(programs: Path | None) -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="stele-test-"))
    server = EmbeddedPostgres(folder, programs=programs)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def postgres_dsn(embedded_server: str) -> str:
    """A migrated database of the test's own on the embedded server."""
    return migrated_database(embedded_server)


@pytest.fixture(params=["embedded", pytest.param("debian", marks=pytest.mark.postgres)])
def server_dsn(request: pytest.FixtureRequest) -> str:
    """DSN of the server, once per kind of server."""
    return str(request.getfixturevalue(f"{request.param}_server"))


@pytest.fixture
def any_postgres_dsn(server_dsn: str) -> str:
    """A migrated database of the test's own, once per kind of server."""
    return migrated_database(server_dsn)
