"""vectorkit on PostgreSQL against psycopg by hand, as ratios: the same columns, indexes, tsvector, width and memory.

    uv run --group bench python bench/postgresql.py [--rows 20000] [--url postgresql://…]

Without --url it starts a server of its own. The two sides take turns, and medians are compared.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector, register_vector_async
from psycopg.types.json import Json
from psycopg_pool import AsyncConnectionPool

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import vectorkit as vk
from integration.servers.postgres import PostgresServer
from vectorkit import F

D, K = 384, 10
TURN = 25  # calls before the other side's turn: one that is taken for each call measures the caches that the other has emptied
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
CREATE = """
DROP SCHEMA IF EXISTS bare CASCADE; CREATE SCHEMA bare;
CREATE TABLE bare.rows(tenant text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, seq bigserial, expires bigint NOT NULL,
    metadata json, text text, vector vector(384) NOT NULL, norm double precision, f0 bigint, f1 text COLLATE "C",
    words tsvector GENERATED ALWAYS AS (to_tsvector('simple'::regconfig, regexp_replace(coalesce(text, ''),
    '[!-/:-@[-`{-~\\u00A0-\\u00A9\\u00AB-\\u00B1\\u00B4\\u00B6-\\u00B8\\u00BB\\u00BF\\u2000-\\u206F\\u3000-\\u3003\\u3008-\\u3020]+', ' ', 'g'))) STORED,
    PRIMARY KEY (tenant, id));
CREATE INDEX ON bare.rows(f0); CREATE INDEX ON bare.rows(f1); CREATE INDEX ON bare.rows USING gin (words)"""
COPY = "COPY bare.rows(tenant, id, expires, metadata, text, vector, norm, f0, f1) FROM STDIN (FORMAT BINARY)"
TYPES = ["text", "text", "int8", "json", "text", "vector", "float8", "int8", "text"]
INDEX = "CREATE INDEX ON bare.rows USING hnsw (vector vector_cosine_ops) WITH (m = 16, ef_construction = 200)"
SELECT = "SELECT id, text, metadata, vector <=> %s AS d FROM bare.rows {} ORDER BY d LIMIT 10"
SPEC = vk.CollectionSpec("rows", D, fields={"n": int, "kind": str})


def data(rows: int) -> vk.Batch:
    """Clustered vectors, texts of 40 words, two declared fields and one that is not."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, D))
    vectors = (centres[rng.integers(0, 200, rows)] + 0.6 * rng.normal(size=(rows, D))).astype(np.float32)
    words = ["".join(rng.choice(LETTERS, 6)) for _ in range(4_000)]
    texts = [" ".join(words[at] for at in rng.zipf(1.3, 40) % 4_000) for _ in range(rows)]
    metadata = [{"n": n % 1_000, "kind": f"k{n % 7}", "score": n / 7} for n in range(rows)]
    return vk.Batch([f"r{n:07d}" for n in range(rows)], vectors, texts, metadata)


def bare_ingest(url: str, batch: vk.Batch) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(CREATE)
        register_vector(conn)
        with conn.cursor().copy(COPY) as copy:
            copy.set_types(TYPES)
            assert batch.texts is not None
            assert batch.metadata is not None
            for id, vector, text, meta in zip(batch.ids, batch.vectors, batch.texts, batch.metadata, strict=True):  # noqa: A001
                assert meta is not None
                document = Json(meta)
                copy.write_row(("", id, 2**63 - 1, document, text, Vector(vector), None, meta["n"], meta["kind"]))
        conn.execute("SET maintenance_work_mem = '96MB'")
        conn.execute(INDEX)
        conn.execute("ANALYZE bare.rows (id, expires, f0, f1)")


def our_ingest(url: str, batch: vk.Batch) -> None:
    with vk.connect(url) as store:
        if "rows" in store.collections():
            store.drop_collection("rows")
        store.create_collection(SPEC).upsert(batch)


def turns(first: Callable[[], Any], second: Callable[[], Any], rounds: int, calls: int = 1) -> tuple[float, float]:
    """Median seconds of a call of each, taken in turns of so many."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for act, taken in zip((first, second), times, strict=True):
            for _ in range(calls):
                start = time.perf_counter()
                act()
                taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def show(name: str, bare: float, ours: float, bar: str, unit: float = 1e6, told: str = "") -> None:
    print(f"{name:34s} {bare * unit:10.1f} {ours * unit:10.1f} {ours / bare:7.2f}x   {bar:10s} {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--url")
    parser.add_argument("--ingests", type=int, default=3)
    asked = parser.parse_args()
    with ExitStack() as stack:
        url = asked.url
        if url is None:
            server = stack.enter_context(PostgresServer(settings={"shared_buffers": "512MB"}))
            url = server.create_database("bench")
            server.execute("CREATE EXTENSION vector", "bench")
        run(url, data(asked.rows), asked.ingests)


def run(url: str, batch: vk.Batch, ingests: int) -> None:
    rows = len(batch)
    print(f"{rows:,} rows x {D}, PostgreSQL {psycopg.connect(url).info.server_version}; µs, and seconds for ingest")
    print(f"{'':34s} {'psycopg':>10s} {'vectorkit':>10s} {'ratio':>8s}   bar")
    bare, ours = turns(lambda: bare_ingest(url, batch), lambda: our_ingest(url, batch), ingests)
    show("ingest, index included", bare, ours, "<= 1.05", 1)

    conn = psycopg.connect(url, autocommit=True)
    register_vector(conn)
    store = vk.connect(url)
    docs = store.collection("rows")
    docs.query(batch.vectors[0])
    adapter: Any = store._verbs.top.adapter
    width = adapter._known[next(iter(adapter._known))].width  # what the build measured, for both
    conn.execute(f"SET hnsw.ef_search = {width}")
    conn.execute("SET hnsw.iterative_scan = relaxed_order")
    rng = np.random.default_rng(1)
    asked = batch.vectors[rng.integers(0, rows, 300)] + 0.3 * rng.normal(size=(300, D)).astype(np.float32)
    unit = batch.vectors / np.linalg.norm(batch.vectors, axis=1, keepdims=True)
    numbers = np.arange(rows) % 1_000

    def recall(found: list[list[str]], allowed: Any) -> tuple[float, float]:
        shares, count = [], []
        for query, ids in zip(asked, found, strict=True):
            scores = unit @ query
            scores[~allowed] = -9e9
            best = {batch.ids[at] for at in np.argsort(-scores)[: min(K, int(allowed.sum()))]}
            shares.append(len(best & set(ids)) / len(best))
            count.append(len(ids))
        return float(np.mean(shares)), float(np.mean(count))

    for name, below, bar in (
        ("query", 1_000, "<= 1.10"),
        ("1 % filter", 10, "<= 1.15"),
        ("0.1 % filter", 1, "<= 1.15"),
    ):
        filtered = below < 1_000
        sql = SELECT.format("WHERE f0 < %s" if filtered else "")
        where = F("n") < below if filtered else None
        taken: tuple[list[float], list[float]] = ([], [])
        found: tuple[list[list[str]], list[list[str]]] = ([], [])
        for at in range(0, len(asked), TURN):
            for query in asked[at : at + TURN]:
                start = time.perf_counter()
                values = (Vector(query), below) if filtered else (Vector(query),)
                answer = conn.execute(sql, values, binary=True).fetchall()
                taken[0].append(time.perf_counter() - start)
                found[0].append([row[0] for row in answer])
            for query in asked[at : at + TURN]:
                start = time.perf_counter()
                hits = docs.query(query, k=K, where=where)
                taken[1].append(time.perf_counter() - start)
                found[1].append(hits.ids)
        (r0, n0), (r1, n1) = recall(found[0], numbers < below), recall(found[1], numbers < below)
        show(
            name, statistics.median(taken[0]), statistics.median(taken[1]), bar,
            told=f"rows {n0:.2f} | {n1:.2f}, recall {r0:.3f} | {r1:.3f}, ef_search {width}",
        )  # fmt: skip

    ids = batch.ids[: 100 * (rows // 100) : rows // 100]
    one, two = turns(
        lambda: conn.execute("SELECT id, text, metadata FROM bare.rows WHERE tenant = '' AND id = ANY(%s)", (ids,), binary=True).fetchall(),
        lambda: docs.get(ids),
        10,
        TURN,
    )  # fmt: skip
    show("get 100", one, two, "")
    asyncio.run(many(url, asked, width))
    one, two = turns(
        lambda: conn.execute("SELECT count(*) FROM bare.rows WHERE f0 < %s", (10,), binary=True).fetchall(),
        lambda: docs.count(F("n") < 10),
        10,
        TURN,
    )
    show("count, 1 %", one, two, "")
    theirs, others = iter(range(20, 60)), iter(range(20, 60))
    one, two = turns(
        lambda: conn.execute("DELETE FROM bare.rows WHERE f0 = %s", (next(theirs),)),
        lambda: docs.delete(where=F("n") == next(others)),
        20,
    )
    show("delete by filter, 0.1 %", one, two, "")
    store.close()
    conn.close()
    second_load(url, batch)


async def many(url: str, asked: Any, width: int) -> None:
    """64 tasks at once over a pool of eight connections."""

    async def set_up(conn: Any) -> None:
        await register_vector_async(conn)
        await conn.execute(f"SET hnsw.ef_search = {width}")

    async with AsyncConnectionPool(
        url, min_size=8, max_size=8, kwargs={"autocommit": True}, configure=set_up, open=False
    ) as pool:

        async def bare(query: Any) -> None:
            async with pool.connection() as conn:
                await (await conn.execute(SELECT.format(""), (Vector(query),), binary=True)).fetchall()

        store = await vk.aconnect(url)
        docs = await store.collection("rows")

        async def ours(query: Any) -> None:
            await docs.query(query, k=K)

        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(7):
            for act, times in zip((bare, ours), taken, strict=True):
                start = time.perf_counter()
                for at in range(0, 256, 64):
                    await asyncio.gather(*[act(query) for query in asked[at : at + 64]])
                times.append((time.perf_counter() - start) / 256)
        await store.close()
    show("64 at once, async, a query", statistics.median(taken[0]), statistics.median(taken[1]), "<= 1.11")


def second_load(url: str, batch: vk.Batch) -> None:
    """As many rows again, into what has an index: put in one by one, or the index made anew."""
    more = vk.Batch([f"s{id}" for id in batch.ids], batch.vectors + np.float32(0.01), batch.texts, batch.metadata)  # noqa: A001
    with vk.connect(url) as store:
        docs = store.collection("rows")
        start = time.perf_counter()
        docs.upsert(more)
        taken = time.perf_counter() - start
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("SET maintenance_work_mem = '256MB'")
        (name,) = conn.execute("SELECT relation FROM vectorkit.vk_catalogue WHERE name = 'rows'").fetchone()  # type: ignore[misc]
        start = time.perf_counter()
        conn.execute(f'REINDEX INDEX vectorkit."{name}:v"')
        again = time.perf_counter() - start
    print(
        json.dumps(
            {"second load of as many rows, s": round(taken, 2), "building the index over both, s": round(again, 2)}
        )
    )


if __name__ == "__main__":
    main()
