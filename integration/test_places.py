"""Where integration tests find their stores: places are fresh, `$STORES` selects, and a store that is named is never skipped.

docker-compose.yml is what the README points at for servers; it is held to be pinned, checked for health, and local.
"""

import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from integration.servers.chroma import ChromaServer, chroma_request
from integration.servers.keeper import free_port
from integration.servers.live import live_url
from integration.servers.postgres import PostgresServer
from integration.servers.qdrant import QdrantServer, qdrant_request
from integration.servers.qdrantgate import VERSION
from integration.servers.served import Served

ROOT = Path(__file__).parents[1]


@pytest.fixture(params=range(2))
def twice(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_each_test_has_a_schema_that_is_not_there_yet(pgvector_target: dict[str, str], twice: int) -> None:
    schema = pgvector_target["schema"]
    with psycopg.connect(pgvector_target["url"], autocommit=True) as connection:
        (row,) = connection.execute("SELECT to_regnamespace(%s), '[1,2]'::vector::text", [schema]).fetchall()
        assert row == (None, "[1,2]")
        connection.execute(sql.SQL("CREATE SCHEMA {0} CREATE TABLE t ()").format(sql.Identifier(schema)))


def test_each_test_has_a_database_without_the_extension(pgvector_url: str, twice: int) -> None:
    with psycopg.connect(pgvector_url, autocommit=True) as connection:
        assert connection.execute("SELECT extname FROM pg_extension").fetchall() == [("plpgsql",)]
        connection.execute("CREATE EXTENSION vector")


def test_each_test_has_an_empty_chroma(chroma_target: dict[str, str], twice: int) -> None:
    url, database = chroma_target["url"], chroma_target["database"]
    assert chroma_request(url, "GET", f"databases/{database}/collections") == []
    chroma_request(url, "POST", f"databases/{database}/collections", {"name": "something"})
    (made,) = chroma_request(url, "GET", f"databases/{database}/collections")
    assert made["name"] == "something"


def test_each_test_has_a_qdrant_without_anything_of_vectorkits(qdrant_target: str, twice: int) -> None:
    listed = [one["name"] for one in qdrant_request(qdrant_target, "GET", "collections")["collections"]]
    assert not [name for name in listed if name == "vk-control" or name.partition("@")[2].isdigit()]
    for name in ("something@1", "vk-control"):
        qdrant_request(qdrant_target, "PUT", f"collections/{name}", {"vectors": {"size": 1, "distance": "Dot"}})


# ------------------------------------------------------------------------------------- $STORES


def run(stores: str, workers: str = "0", **urls: str) -> tuple[int, str]:
    """A run of this very file as a child; its exit code and what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "VECTORKIT_"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", workers, "-v", __file__]
    done = subprocess.run(
        command, cwd=ROOT, env={**environment, "STORES": stores, **urls}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.own
def test_the_tests_of_the_named_stores_run_against_the_live_servers(
    postgres: PostgresServer, chroma_server: ChromaServer, qdrant_server: QdrantServer
) -> None:
    urls = {
        "VECTORKIT_PGVECTOR_URL": postgres.create_database("live"),
        "VECTORKIT_CHROMA_URL": chroma_server.url,
        "VECTORKIT_QDRANT_URL": qdrant_server.url,
    }
    code, said = run("pgvector, chroma,qdrant", "2", **urls)
    assert code == 0, said
    assert "8 passed" in said
    places = f"pgvector at postgresql://127.0.0.1:{postgres.port}/live, chroma at {chroma_server.url}"
    assert f"STORES: {places}, qdrant at {qdrant_server.url}" in said
    assert f":{postgres.password}@" not in said
    code, said = run("chroma", VECTORKIT_CHROMA_URL=chroma_server.url)
    assert code == 0, said
    assert "2 passed" in said
    assert "test_each_test_has_a_schema" not in said


@pytest.mark.own
@pytest.mark.parametrize(
    ("store", "url", "failing"),
    [
        ("pgvector", "postgresql://u:hidden@127.0.0.1:{port}/x", 4),
        ("chroma", "chroma://127.0.0.1:{port}", 2),
        ("qdrant", "qdrant://:hidden@127.0.0.1:{port}", 2),
    ],
)
def test_a_named_store_that_is_not_there_fails(store: str, url: str, failing: int) -> None:
    code, said = run(store, **{f"VECTORKIT_{store.upper()}_URL": url.format(port=free_port())})
    assert code == 1
    assert f"{failing} errors" in said
    assert "passed" not in said
    assert "skipped" not in said
    assert f"STORES names {store}, and there is none at" in said
    assert "hidden" not in said


@pytest.mark.own
def test_a_store_that_nobody_knows_is_refused() -> None:
    code, said = run("pgvector,weaviate")
    assert code == 4
    assert "STORES names weaviate; there are chroma, pgvector, pinecone, qdrant" in said


# ------------------------------------------------------------------------------------- docker-compose.yml


def services() -> dict[str, dict[str, Any]]:
    """docker-compose.yml as data. PyYAML comes with Chroma's client."""
    loaded = import_module("yaml").safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    found: dict[str, dict[str, Any]] = loaded["services"]
    return found


def test_compose_pins_every_image_checks_its_health_and_listens_here_only() -> None:
    found = services()
    assert sorted(found) == ["chroma", "pgvector", "qdrant"]
    for name, service in found.items():
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+[a-z0-9-]*", service["image"]), name
        assert service["ports"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["healthcheck"]["retries"] >= 10, name


def test_composes_ports_and_password_are_what_stores_falls_back_to() -> None:
    found = services()
    assert found["pgvector"]["ports"] == ["127.0.0.1:5432:5432"]
    assert found["chroma"]["ports"] == ["127.0.0.1:8000:8000"]
    (password,) = re.findall(r":-(\w+)\}", found["pgvector"]["environment"]["POSTGRES_PASSWORD"])
    assert live_url("pgvector") == f"postgresql://postgres:{password}@127.0.0.1:5432/postgres"
    assert live_url("chroma") == "chroma://127.0.0.1:8000"
    assert found["qdrant"]["ports"] == ["127.0.0.1:6333:6333", "127.0.0.1:6334:6334"]
    assert live_url("qdrant") == "qdrant://127.0.0.1:6333"


def test_compose_runs_the_chroma_that_the_tests_ran_with() -> None:
    assert services()["chroma"]["image"] == f"chromadb/chroma:{version('chromadb')}"


def test_compose_runs_the_qdrant_that_its_client_is_made_for() -> None:
    made_for = version("qdrant-client").split(".")[:2]
    assert services()["qdrant"]["image"].split(":v")[1].split(".")[:2] == made_for
    assert VERSION.split(".")[:2] == made_for


@pytest.mark.parametrize(("store", "fixture"), [("chroma", "chroma_server"), ("qdrant", "qdrant_server")])
@pytest.mark.own
def test_composes_question_after_health_tells_a_server_from_none(
    request: pytest.FixtureRequest, store: str, fixture: str
) -> None:
    server: Served = request.getfixturevalue(fixture)
    _, *command = services()[store]["healthcheck"]["test"]
    usual = services()[store]["ports"][0].split(":")[-1]
    for port, healthy in ((server.port, True), (free_port(), False)):
        asked = [part.replace("$$", "$").replace(f"/{usual}", f"/{port}") for part in command]
        assert (subprocess.run(asked, capture_output=True, check=False).returncode == 0) is healthy
