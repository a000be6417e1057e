"""Where integration tests find their stores: servers that they start themselves, or live ones that `$STORES` names.

`STORES=pgvector,chroma,qdrant pytest integration` runs the tests of those stores alone, against $VECTORKIT_PGVECTOR_URL,
$VECTORKIT_CHROMA_URL and $VECTORKIT_QDRANT_URL, or the ports of docker-compose.yml; a store that is named and cannot be
reached fails its tests. Qdrant has no databases: on a live one each test drops ALL that vectorkit made there, which is the
collections `<name>@<digits>` and `vk-control`, before and after itself. Name no server whose collections you want to keep. Of Pinecone each
test deletes the indexes that vectorkit made under the prefix of $VECTORKIT_PINECONE_URL (`vkc`), and needs $PINECONE_API_KEY.
"""

import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

import vectorkit as vk
from integration.servers.chroma import ChromaServer, chroma_request
from integration.servers.keeper import ServerError
from integration.servers.live import URLS, live_url, named, shown
from integration.servers.pinecone import PineconeServer, pinecone_sweep
from integration.servers.postgres import PostgresServer
from integration.servers.qdrant import QdrantServer, qdrant_request, qdrant_sweep

_PLACES = {
    "pgvector_target": "pgvector",
    "pgvector_url": "pgvector",
    "chroma_url": "chroma",
    "chroma_target": "chroma",
    "qdrant_url": "qdrant",
    "qdrant_target": "qdrant",
    "pinecone_target": "pinecone",
}
_OWN = frozenset(["postgres", "chroma_server", "qdrant_server", "pinecone_server"])
_MARKERS = (
    "store(name): a test of this store, which $STORES selects; fixtures that give a place in a store say so too",
    "own: starts, kills or freezes servers of its own, and is not run against live ones",
)


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if unknown := [name for name in named() if name not in URLS]:
        raise pytest.UsageError(f"STORES names {', '.join(unknown)}; there are {', '.join(sorted(URLS))}")


def _stores_of(item: pytest.Item) -> set[str]:
    fixtures = getattr(item, "fixturenames", ())
    return {_PLACES[name] for name in fixtures if name in _PLACES} | {
        str(marker.args[0]) for marker in item.iter_markers("store")
    }


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With $STORES, the tests of those stores and no others. The long ones first, so that none is left to one worker at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    wanted = set(named())
    if not wanted:
        return
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        own = item.get_closest_marker("own") is not None or _OWN.intersection(getattr(item, "fixturenames", ()))
        stores = _stores_of(item)
        (kept if stores and stores <= wanted and not own else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was selected, and what tests said with `say`: a worker of xdist cannot print."""
    for report in [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]:
        for name, text in getattr(report, "user_properties", ()):
            if name == "say":
                terminalreporter.write_line(str(text))
    if names := named():
        places = ", ".join(f"{name} at {shown(live_url(name))}" for name in names)
        terminalreporter.write_line(
            f"STORES: {places}; deselected: tests of other stores, and those that start, kill or freeze servers of their own"
        )


def _unreachable(store: str, url: str, error: Exception) -> None:
    pytest.fail(
        f"STORES names {store}, and there is none at {shown(url)}: {type(error).__name__}: {error}", pytrace=False
    )


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Print a line at the end of the run."""
    return lambda text: record_property("say", text)


# ------------------------------------------------------------------------------------- PostgreSQL


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server of our own, one a worker."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def pgvector_server(request: pytest.FixtureRequest) -> str:
    """The URL of a database that has the extension, shared by all tests of a worker."""
    if "pgvector" in named():
        url = live_url("pgvector")
        try:
            with psycopg.connect(url, connect_timeout=5) as connection:
                connection.execute("SELECT pg_advisory_xact_lock(7)")  # other workers make it at the same moment
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as error:
            _unreachable("pgvector", url, error)
        return url
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.create_database("shared")
    server.execute("CREATE EXTENSION vector", "shared")
    return url


@pytest.fixture
def pgvector_target(pgvector_server: str) -> Iterator[dict[str, str]]:
    """A fresh schema, as `connect` takes it: 5 ms."""
    schema = f"vk_{uuid.uuid4().hex}"
    yield {"url": pgvector_server, "schema": schema}
    with psycopg.connect(pgvector_server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


@pytest.fixture
def pgvector_url(pgvector_server: str) -> Iterator[str]:
    """A fresh database without the extension, as a URL: 100 ms."""
    name = f"vk_{uuid.uuid4().hex}"
    with psycopg.connect(pgvector_server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        yield urlsplit(pgvector_server)._replace(path=f"/{name}").geturl()
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


# ------------------------------------------------------------------------------------- Chroma


@pytest.fixture(scope="session")
def chroma_server() -> Iterator[ChromaServer]:
    """A server of our own, one a worker."""
    with ChromaServer() as server:
        yield server


@pytest.fixture(scope="session")
def chroma_url(request: pytest.FixtureRequest) -> str:
    """The URL of the server that all tests of a worker share; what a test makes in its default database it drops."""
    if "chroma" in named():
        url = live_url("chroma")
        try:
            chroma_request(url, "GET", "databases")
        except (OSError, HTTPException, ServerError) as error:
            _unreachable("chroma", url, error)
        return url
    server: ChromaServer = request.getfixturevalue("chroma_server")
    return server.url


@pytest.fixture
def chroma_target(chroma_url: str) -> Iterator[dict[str, str]]:
    """A fresh database of the server, as `connect` takes it: 10 ms."""
    name = f"vk_{uuid.uuid4().hex}"
    chroma_request(chroma_url, "POST", "databases", {"name": name})
    yield {"url": chroma_url, "database": name}
    for attempt in range(5):  # Chroma answers 500, "database is locked", where two drop at once
        try:
            chroma_request(chroma_url, "DELETE", f"databases/{name}")
        except ServerError:
            if attempt == 4:
                raise
            time.sleep(0.1 * 2**attempt)
        else:
            return


# ------------------------------------------------------------------------------------- Qdrant


@pytest.fixture(scope="session")
def qdrant_server() -> Iterator[QdrantServer]:
    """A shim of our own, one a worker."""
    with QdrantServer() as server:
        yield server


@pytest.fixture(scope="session")
def qdrant_url(request: pytest.FixtureRequest) -> str:
    """The URL of the server that all tests of a worker share; what a test makes there it drops."""
    if "qdrant" in named():
        url = live_url("qdrant")
        try:
            qdrant_request(url, "GET", "collections")
        except (OSError, HTTPException, ServerError) as error:
            _unreachable("qdrant", url, error)
        return url
    server: QdrantServer = request.getfixturevalue("qdrant_server")
    return server.url


@pytest.fixture
def qdrant_target(qdrant_url: str) -> Iterator[str]:
    """The server without anything of vectorkit's, as `connect` takes it. A live one is one test's at a time."""
    if "qdrant" not in named():
        yield qdrant_url
        qdrant_sweep(qdrant_url)
        return
    with (Path(tempfile.gettempdir()) / "vectorkit-live-qdrant").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        qdrant_sweep(qdrant_url)
        yield qdrant_url
        qdrant_sweep(qdrant_url)


# ------------------------------------------------------------------------------------- Pinecone


@pytest.fixture(scope="session")
def pinecone_server() -> Iterator[PineconeServer]:
    """A double of our own, one a worker."""
    with PineconeServer() as server:
        yield server


@pytest.fixture
def pinecone_target(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The double without an index, or the service without an index of ours, as `connect` takes it: a write is back when reads see it."""
    if "pinecone" not in named():
        server: PineconeServer = request.getfixturevalue("pinecone_server")
        server.control.reset()
        yield {"url": server.url, "api_key": "of-a-test", "wait": 30.0}
        server.control.reset()
        return
    url = live_url("pinecone")
    target = {"url": url, "wait": float(os.environ.get("VECTORKIT_PINECONE_WAIT", "120"))}
    with (Path(tempfile.gettempdir()) / "vectorkit-live-pinecone").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        try:
            with vk.connect(target) as store:
                pinecone_sweep(store.native, url)
                yield target
                pinecone_sweep(store.native, url)
        except vk.ConfigError as error:
            _unreachable("pinecone", url, error)
