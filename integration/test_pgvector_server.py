"""What only a real PostgreSQL shows: rights, versions, what a verb sends, what it leaves behind, when an index is built."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

import vectorkit as vk
from integration.servers.postgres import PostgresServer
from vectorkit import F
from vectorkit.testing.kit import raises, rec, rows
from vectorkit_pgvector import PgvectorOptions

pytestmark = pytest.mark.own


@pytest.fixture(scope="module")
def logging() -> Iterator[PostgresServer]:
    """A server that writes down every statement."""
    with PostgresServer(log_statements=True) as server:
        yield server


@pytest.fixture
def fresh(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database without the extension."""
    name = f"d{abs(hash(request.node.name)) % 10**9}"
    url = postgres.create_database(name)
    yield url
    postgres.drop_database(name)


def admin(url: str, *statements: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements:
            cursor = conn.execute(statement)
        return cursor.fetchall() if cursor.description else []


# ------------------------------------------------------------------------------------- what is there, and who may


def test_the_extension_is_made_where_the_role_may(fresh: str) -> None:
    vk.connect(fresh).close()
    assert admin(fresh, "SELECT count(*) FROM pg_extension WHERE extname = 'vector'") == [(1,)]
    assert admin(fresh, "SELECT count(*) FROM pg_namespace WHERE nspname = 'vectorkit'") == [(0,)], (
        "nothing is made by looking"
    )


def test_without_the_right_to_make_it_the_error_says_what_to_do(fresh: str, postgres: PostgresServer) -> None:
    admin(fresh, "DROP ROLE IF EXISTS plain", "CREATE ROLE plain LOGIN PASSWORD 'pw-of-plain'")
    as_plain = postgres.url(fresh.rpartition("/")[2], user="plain", password="pw-of-plain")
    with pytest.raises(vk.ConfigError, match="CREATE EXTENSION vector") as caught:
        vk.connect(as_plain)
    assert "pw-of-plain" not in f"{caught.value!r} {caught.value}"
    with raises(vk.ConfigError, "CREATE EXTENSION vector"):
        vk.connect(fresh, read_only=True)
    admin(fresh, "CREATE EXTENSION vector")
    with vk.connect(as_plain) as store:
        assert store.collections() == []
        with raises(vk.ConfigError, "rights"):
            store.create_collection(vk.CollectionSpec("docs", 3))
    with vk.connect(fresh) as store:
        store.create_collection(vk.CollectionSpec("docs", 3)).upsert([rec("a", [1, 0, 0])])
    admin(fresh, "GRANT USAGE ON SCHEMA vectorkit TO plain", "GRANT SELECT ON ALL TABLES IN SCHEMA vectorkit TO plain")
    with vk.connect(as_plain, read_only=True) as store:
        docs = store.collection("docs")
        assert docs.query([1, 0, 0]).ids == ["a"]
        with raises(vk.Unsupported, "read_only"):
            docs.upsert([rec("b", [1, 0, 0])])
    with vk.connect(as_plain) as store, raises(vk.ConfigError, "rights"):
        store.collection("docs").upsert([rec("b", [1, 0, 0])])
    admin(fresh, "DROP OWNED BY plain", "DROP ROLE plain")


def test_what_is_too_old_or_cannot_hold_text_is_refused(fresh: str, postgres: PostgresServer) -> None:
    admin(fresh, "CREATE EXTENSION vector", "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with raises(vk.Unsupported, "0.7.4", "0.8", "ALTER EXTENSION"):
        vk.connect(fresh)
    admin(postgres.url(), "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    with raises(vk.Unsupported, "SQL_ASCII", "UTF8"):
        vk.connect(postgres.url("ascii"))
    admin(postgres.url(), "DROP DATABASE ascii")
    admin(postgres.url(), "CREATE DATABASE letters LOCALE 'C' ENCODING 'UTF8' TEMPLATE template0")
    with vk.connect(postgres.url("letters")) as store:
        with raises(vk.Unsupported, "LC_CTYPE", "text=False"):
            store.create_collection(vk.CollectionSpec("docs", 3))
        store.create_collection(vk.CollectionSpec("docs", 3, text=False)).upsert([rec("a", [1, 0, 0], "École")])
        assert [r.text for r in store.collection("docs").scan()] == ["École"]
    admin(postgres.url(), "DROP DATABASE letters")


def test_what_cannot_be_reached_is_told_apart(postgres: PostgresServer) -> None:
    with raises(vk.ConfigError, "nowhere"):
        vk.connect(postgres.url("nowhere"))
    with raises(vk.Unavailable, retryable=True):
        vk.connect("postgresql://postgres@127.0.0.1:1/postgres")
    with raises(vk.ConfigError, "sslmoda"):
        vk.connect(postgres.url() + "?sslmoda=require")
    with raises(vk.ConfigError, "sslmode"):
        vk.connect(postgres.url() + "?sslmode=foo")
    with raises(vk.Unavailable, "SSL"):
        vk.connect(postgres.url() + "?sslmode=require")


def test_a_wrong_password_is_a_matter_of_configuration() -> None:
    with PostgresServer(password="right") as server:
        vk.connect(server.url()).close()
        url = server.url().replace("right", "s3cret-and-wrong")
        with pytest.raises(vk.ConfigError, match="password") as caught:
            vk.connect(url)
        assert "s3cret" not in f"{caught.value!r} {caught.value}"
        with raises(vk.ConfigError, "password"):
            vk.connect({"url": url, "api_key": "another"})
        with vk.connect({"url": url, "api_key": "right"}) as store:
            assert store.collections() == []
            assert "right" not in f"{store!r} {store.native!r}"


# ------------------------------------------------------------------------------------- what is sent


def test_statements_per_verb(logging: PostgresServer) -> None:
    """One statement a query; what each verb sends, counted in the server's log. Looking whether there is an index comes first."""
    url = logging.create_database("counted")
    with vk.connect(url) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 4, fields={"n": int}))
        docs.upsert(rows(20))
        docs.query([1, 0, 0, 0])
        where = F("n") < 10
        expected: dict[str, tuple[Any, int]] = {
            "query": (lambda: docs.query([1, 0, 0, 0]), 1),
            "query, filtered": (lambda: docs.query([1, 0, 0, 0], where=where), 1),
            "query, narrower than k": (lambda: docs.query([1, 0, 0, 0], where=F("n") == 3), 1),
            "query_many": (lambda: docs.query_many(np.eye(4)), 4),  # sent together: one round trip
            "keyword": (lambda: docs.keyword("common", where=where), 1),
            "get": (lambda: docs.get(["r00001", "nix"]), 1),
            "count": (lambda: docs.count(where), 1),
            "scan": (lambda: list(docs.scan(where)), 1),
            "upsert of 1": (lambda: docs.upsert(rows(1)), 1),
            "upsert of 8": (lambda: docs.upsert(rows(8)), 1),
            "upsert of 9": (lambda: docs.upsert(rows(9)), 5),  # BEGIN, staging table, COPY, one upsert, COMMIT
            "insert": (lambda: docs.insert(rows(2, prefix="i")), 5),
            "delete by ids": (lambda: docs.delete(ids=["r00001"]), 1),
            "delete by filter": (lambda: docs.delete(where=where), 1),
            "update": (
                lambda: docs.update(ids=["r00012", "r00013"], set={"n": 1}),
                5,
            ),  # BEGIN, lock, two rows together, COMMIT
            "collection": (lambda: store.collection("docs"), 1),
        }
        counted = {}
        for verb, (act, _) in expected.items():
            before = len(logging.statements())
            act()
            counted[verb] = len(logging.statements()) - before
        assert counted == {verb: count for verb, (_, count) in expected.items()}


def test_nothing_is_left_on_a_pooled_connection(fresh: str) -> None:
    with vk.connect(fresh, options=PgvectorOptions(pool_size=1)) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 4, index=vk.HNSW(full_scan_threshold=0)))
        settings = (
            "SELECT current_setting('hnsw.ef_search', true), current_setting('hnsw.iterative_scan', true), "
            "current_setting('maintenance_work_mem'), (SELECT count(*) FROM pg_class WHERE relpersistence = 't')"
        )
        with store.native.connection() as conn:
            conn.execute("LOAD 'vector'")
            before = conn.execute(settings).fetchone()
        docs.upsert(rows(50))
        docs.optimize()
        assert docs.stats().indexed == 50
        docs.query([1, 0, 0, 0], ef_search=77)
        docs.query_many(np.eye(4), ef_search=78)
        docs.keyword("common")
        with store.native.connection() as conn:
            assert conn.execute(settings).fetchone() == before
            assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


# ------------------------------------------------------------------------------------- indexes


def _clustered(count: int, dimension: int, seed: int = 5) -> Any:
    random = np.random.default_rng(seed)
    return (
        random.normal(size=(50, dimension))[random.integers(0, 50, count)] + random.normal(size=(count, dimension))
    ).astype(np.float32)


def test_the_index_is_built_once_at_the_end_of_a_load(logging: PostgresServer) -> None:
    url = logging.create_database("loads")
    vectors = _clustered(12_000, 16)
    with vk.connect(url) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 16, index=vk.HNSW(full_scan_threshold=11_000)))
        before = len(logging.statements())
        docs.upsert(rec(f"r{n:05d}", vector) for n, vector in enumerate(vectors[:10_500]))
        sent = logging.statements()[before:]
        assert not any("USING hnsw" in statement for statement in sent)
        assert docs.stats().indexed == 0
        assert docs.query(vectors[0]).coverage == "exact"
        docs.upsert(vk.Batch([f"s{n:05d}" for n in range(1_500)], vectors[10_500:]))
        sent = logging.statements()[before:]
        assert sum("USING hnsw" in statement for statement in sent) == 1
        assert docs.stats().indexed == 12_000
        assert docs.query(vectors[0]).coverage == "complete"
        with vk.connect(url) as other:  # the width is in the index's comment: another process searches alike
            assert other.collection("docs").query(vectors[0]).coverage == "complete"
            known = [next(iter(s._verbs.top.adapter._known.values())).width for s in (store, other)]  # type: ignore[attr-defined]
            assert known[0] == known[1]


@pytest.mark.parametrize(
    "index", [vk.HNSW(m=8, ef_construction=64), vk.IVF(), vk.HNSW(quantization="fp16")], ids=["hnsw", "ivf", "fp16"]
)
def test_recall_and_rows_at_default_settings(index: Any, pgvector_target: Any) -> None:
    vectors = _clustered(12_000, 32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    with vk.connect(pgvector_target) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 32, index=index, fields={"n": int}))
        docs.upsert(
            vk.Batch(
                [f"{n:05d}" for n in range(12_000)],
                vectors,
                metadata=[{"n": n % 1_000, "free": n % 97} for n in range(12_000)],
            )
        )
        assert docs.stats().indexed == 12_000
        numbers = np.arange(12_000)
        queries = _clustered(40, 32, seed=5)[:40] + 0.1
        for where, allowed in (
            (None, numbers >= 0), (F("n") < 10, numbers % 1_000 < 10), (F("n") == 7, numbers % 1_000 == 7), (F("n") < 500, numbers % 1_000 < 500),
            (F("n") >= 3, numbers % 1_000 >= 3), (F("free") == 5, numbers % 97 == 5),
        ):  # fmt: skip
            found = wanted = 0
            for query in queries:
                scores = unit @ query
                scores[~allowed] = -9
                best = {f"{at:05d}" for at in np.argsort(-scores)[: min(10, int(allowed.sum()))]}
                hits = docs.query(query, k=10, where=where)
                assert len(hits) == len(best), where
                found += len(best & set(hits.ids))
                wanted += len(best)
            assert found / wanted >= 0.95, where
        assert docs.query(queries[0], exact=True).coverage == "exact"


def test_long_vectors_use_half_floats_and_longer_ones_no_index(pgvector_target: Any) -> None:
    with vk.connect(pgvector_target) as store:
        for dimension, indexed in ((2_001, 60), (4_001, 0)):
            docs = store.create_collection(
                vk.CollectionSpec(f"d{dimension}", dimension, index=vk.HNSW(full_scan_threshold=0))
            )
            docs.upsert(rows(60, dimension))
            docs.optimize()
            assert docs.stats().indexed == indexed
            for record in rows(60, dimension)[:5]:
                hits = docs.query(record.vector, k=3, vectors=True)  # type: ignore[arg-type]
                assert hits[0].id == record.id
                assert hits[0].score == pytest.approx(1, abs=1e-6)
                assert np.asarray(hits[0].vector).tobytes() == np.asarray(record.vector, np.float32).tobytes()
        with raises(vk.Unsupported, "16000"):
            store.create_collection(vk.CollectionSpec("too-long", 16_001))
        for index in (
            vk.HNSW(quantization="sq8"),
            vk.IVF(quantization="pq"),
            vk.HNSW(m=101),
            vk.HNSW(ef_construction=1_001),
        ):
            with raises(vk.Unsupported, "pgvector"):
                store.create_collection(vk.CollectionSpec("refused", 4, index=index))


def test_deleted_rows_do_not_starve_a_query(pgvector_target: Any) -> None:
    """Dead rows take places in the graph's answer until VACUUM; k rows come back all the same, and `optimize` removes them."""
    vectors = _clustered(3_000, 8)
    with vk.connect(pgvector_target) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 8, index=vk.HNSW(full_scan_threshold=0)))
        docs.upsert(vk.Batch([f"{n:04d}" for n in range(3_000)], vectors))
        near = np.argsort(-(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ vectors[0])
        docs.delete(ids=[f"{n:04d}" for n in near[:1_500]])
        hits = docs.query(vectors[0], k=20)
        assert set(hits.ids) <= {f"{n:04d}" for n in near[1_500:]}
        assert len(hits) == 20
        docs.optimize()
        told = docs.explain(vectors[0], k=20)
        assert (told.returned, told.round_trips) == (20, 1), "the graph alone finds them again"


def test_a_dropped_name_made_again_is_another_collection(pgvector_target: Any) -> None:
    with vk.connect(pgvector_target) as one, vk.connect(pgvector_target) as other:
        docs = one.create_collection(vk.CollectionSpec("docs", 3))
        docs.upsert([rec("a", [1, 0, 0])])
        other.drop_collection("docs")
        made = other.create_collection(vk.CollectionSpec("docs", 2))
        assert made.spec.generation > docs.spec.generation
        made.upsert([rec("b", [1, 0])])
        with raises(vk.DimensionMismatch):
            docs.query([1, 0, 0])
        assert [r.id for r in docs.scan()] == ["b"], "the name is looked up again, and means what it means now"


def test_sums_that_overflow_on_their_way_are_not_lost(pgvector_target: Any) -> None:
    """pgvector sums in float32: 6e38 − 5.7e38 is infinite, or no number, which it puts last."""
    with vk.connect(pgvector_target) as store, vk.connect("memory://") as oracle:
        for at in (store, oracle):
            docs = at.create_collection(vk.CollectionSpec("docs", 2, metric="dot"))
            docs.upsert(
                [rec("best", [3e38, -3e38]), rec("worst", [-3e38, 2e38]), *(rec(f"r{n}", [n, 1]) for n in range(5))]
            )
        one, two = (at.collection("docs").query([2, 1.9], k=3) for at in (store, oracle))
        assert one.ids == two.ids == ["best", "r4", "r3"]
        assert one[0].score == pytest.approx(two[0].score, rel=1e-5)
