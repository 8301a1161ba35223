"""Fixtures on real servers: one private PostgreSQL and Redis per test run, one fresh database per module."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
import structlog
from hypothesis import settings
from sqlalchemy import Engine

from embedded.postgres import EmbeddedPostgres
from embedded.redis import EmbeddedRedis
from operation_agent.kit.ids import new_id
from operation_agent.store.engine import connect
from tests.shopify_peer.peer import Peer, peer
from tests.shopify_peer.peer import why_not as shopify_peer_lacks

TEMPLATE = "opagent_template"

# plain tracebacks: structlog's own, drawn with every local variable, take minutes where many events fail
structlog.configure(processors=[structlog.processors.format_exc_info, structlog.dev.ConsoleRenderer(colors=False)])

# no deadline: a first call may import scipy, and machines are shared
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture(scope="session")
def servers_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="opagent-test-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(servers_dir: Path) -> Iterator[EmbeddedPostgres]:
    """The server, with a migrated template database."""
    from migrations.run import upgrade

    server = EmbeddedPostgres(servers_dir, durable=False)
    try:
        server.start()
        with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {TEMPLATE} OWNER opagent")
        upgrade(server.url.replace("/opagent?", f"/{TEMPLATE}?"))
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def redis_server(servers_dir: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(servers_dir)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A fresh, migrated database for one test module; the URL logs in as the application's role."""
    name = f"t{new_id().hex}"
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER opagent")
    yield postgres.url.replace("/opagent?", f"/{name}?")
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def shop_id(engine: Engine) -> UUID:
    """A new sandbox shop, in dollars."""
    from operation_agent.store.shops import create_shop

    return create_shop(
        engine, slug=f"s-{new_id().hex[-12:]}", name="Test shop", currency="USD", sandbox=True, seed="test"
    ).id


@pytest.fixture(scope="session")
def _shopify_peer_process() -> Iterator[Peer]:
    missing = shopify_peer_lacks()
    if missing:
        pytest.skip(missing)
    with peer() as running:
        yield running


@pytest.fixture
def shopify_peer(_shopify_peer_process: Peer) -> Peer:
    """A shop's Admin API, empty: one process for the whole run, reset for each test."""
    _shopify_peer_process.reset()
    return _shopify_peer_process
