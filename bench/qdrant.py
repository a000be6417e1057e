"""Qdrant through vectorkit against its bare packages: the engine in this process, the client's local mode, and a server's client.

    uv run --group bench python bench/qdrant.py [--rows 20000] [--parts embedded,local,server] [--ingests 3] [--rounds 15]

Two sides take turns, and medians are compared. The bare engine gets the very points and payloads that vectorkit makes, ready made;
the bare client likewise. The server is the tests' shim, a process of its own: its time is the same for both and no server's, so
what counts there is this process's own CPU time, the requests and the bytes.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import qdrant_edge as qe
from qdrant_client import AsyncQdrantClient, QdrantClient, models

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import vectorkit as vk
from integration.servers.qdrant import QdrantServer
from vectorkit import F
from vectorkit_qdrant import QdrantOptions
from vectorkit_qdrant.convert import as_stored, payloads, point_id
from vectorkit_qdrant.engineobjects import engine_config, engine_indexes

D, K = 384, 10
STEP = 1_000  # rows of a write
TURN = 20  # calls before the other side's turn
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
SHOWN = ["_vk_id", "_vk_meta", "_vk_text"]
FIELDS: dict[str, Any] = {"n": int, "kind": str}
Found = Callable[[Any], list[str]]
Filters = tuple[tuple[str, int | None], ...]


def data(rows: int, dimension: int = D) -> vk.Batch:
    """Clustered vectors, texts of 40 words, two declared fields and one that is not."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, dimension))
    vectors = (centres[rng.integers(0, 200, rows)] + 0.6 * rng.normal(size=(rows, dimension))).astype(np.float32)
    words = ["".join(rng.choice(LETTERS, 6)) for _ in range(4_000)]
    texts = [" ".join(words[at] for at in rng.zipf(1.3, 40) % 4_000) for _ in range(rows)]
    metadata = [{"n": n % 1_000, "kind": f"k{n % 7}", "score": n / 7} for n in range(rows)]
    return vk.Batch([f"r{n:07d}" for n in range(rows)], vectors, texts, metadata)


def part(batch: vk.Batch, start: int, stop: int) -> vk.Batch:
    assert batch.texts is not None
    assert batch.metadata is not None
    return vk.Batch(
        batch.ids[start:stop], batch.vectors[start:stop], batch.texts[start:stop], batch.metadata[start:stop]
    )


def questions(batch: vk.Batch, count: int) -> Any:
    rng = np.random.default_rng(1)
    picked = batch.vectors[rng.integers(0, len(batch), count)]
    return picked + 0.3 * rng.normal(size=picked.shape).astype(np.float32)


def ready(spec: vk.CollectionSpec, batch: vk.Batch) -> tuple[list[str], Any, list[dict[str, Any]]]:
    """The points as vectorkit makes them, for the bare side."""
    vectors, norms = as_stored(spec, batch.vectors)
    return [point_id(id) for id in batch.ids], vectors, payloads(spec, batch, "", range(len(batch)), norms)  # noqa: A001


# --------------------------------------------------------------------------------------------- turns and tables


class Taken:
    """Seconds of each call, by the clock and of this process."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.cpu: list[float] = []

    def run(self, act: Callable[[], Any], calls: int = 1) -> None:
        before = time.process_time()
        for _ in range(calls):
            start = time.perf_counter()
            act()
            self.clock.append(time.perf_counter() - start)
        self.cpu.append((time.process_time() - before) / calls)

    def medians(self) -> tuple[float, float]:
        return statistics.median(self.clock), statistics.median(self.cpu)


def turns(bare: Callable[[], Any], ours: Callable[[], Any], rounds: int, calls: int = 1) -> tuple[Taken, Taken]:
    """Each in turns of so many calls, after one of each to warm up."""
    bare()
    ours()
    taken = Taken(), Taken()
    for turn in range(rounds):
        order = ((bare, taken[0]), (ours, taken[1]))
        for act, times in order if turn % 2 else reversed(order):
            times.run(act, calls)
    return taken


def cycled(act: Callable[[Any], Any], items: Sequence[Any]) -> Callable[[], Any]:
    """Each call asks the next question, the first again after the last."""
    at = -1

    def call() -> Any:
        nonlocal at
        at = (at + 1) % len(items)
        return act(items[at])

    return call


def head(title: str) -> None:
    print(
        f"\n{title}\n{'':38s}{'bare':>10s}{'vectorkit':>11s}{'ratio':>8s}{'CPU bare':>11s}{'ours':>9s}{'ratio':>8s}   bar"
    )


def show(name: str, taken: tuple[Taken, Taken], bar: str, *, unit: float = 1e6, told: str = "") -> None:
    (bare, bare_cpu), (ours, our_cpu) = taken[0].medians(), taken[1].medians()
    print(
        f"{name:38s}{bare * unit:10.1f}{ours * unit:11.1f}{ours / bare:7.2f}x"
        f"{bare_cpu * unit:11.1f}{our_cpu * unit:9.1f}{our_cpu / max(bare_cpu, 1e-9):7.2f}x   {bar:9s} {told}",
        flush=True,
    )


def quality(batch: vk.Batch, asked: Any, allowed: Any, bare: Found, ours: Found) -> str:
    """Rows and recall of both."""
    unit = batch.vectors / np.linalg.norm(batch.vectors, axis=1, keepdims=True)
    told = []
    for find in (bare, ours):
        shares, counts = [], []
        for query in asked:
            scores = unit @ query
            scores[~allowed] = -np.inf
            best = {batch.ids[at] for at in np.argsort(-scores)[:K]}
            found = find(query)
            shares.append(len(best & set(found)) / K)
            counts.append(len(found))
        told.append(f"{np.mean(counts):g} rows of {K}, recall {np.mean(shares):.3f}")
    return " | ".join(told)


# --------------------------------------------------------------------------------------------- the engine in this process


def spread(batch: vk.Batch) -> tuple[Any, Filters]:
    """Each row's n, and filters that hold for so many of 1,000."""
    return np.arange(len(batch)) % 1_000, (("query", None), ("1 % filter", 10), ("0.1 % filter", 1))


class BareEdge:
    """What one writes with qdrant_edge by hand, over the same columns and indexes."""

    def __init__(self, folder: str, spec: vk.CollectionSpec) -> None:
        Path(folder).mkdir()
        self.shard = qe.EdgeShard.create(folder, engine_config(spec, QdrantOptions()))
        for key, schema in engine_indexes(spec, None):
            self.shard.update(qe.UpdateOperation.create_field_index(key, schema))
        self.shard.flush()

    def put(self, ids: Sequence[str], vectors: Any, rows: Sequence[dict[str, Any]]) -> None:
        points = [qe.Point(id, vector.tolist(), row) for id, vector, row in zip(ids, vectors, rows, strict=True)]  # noqa: A001
        self.shard.update(qe.UpdateOperation.upsert_points(points))
        self.shard.flush()  # as vectorkit does before it says that rows were written

    def query(self, vector: Any, below: int | None) -> list[tuple[str, float, str, Any]]:
        where = None
        if below is not None:
            where = qe.Filter(must=[qe.FieldCondition("_vk_f0", range=qe.RangeFloat(lt=float(below)))])
        request = qe.QueryRequest(
            query=qe.Query.Nearest(vector.tolist()),
            filter=where,
            limit=K,
            with_payload=qe.PayloadSelector.Include(SHOWN),
        )
        rows = [(found.payload or {}, found.score) for found in self.shard.query(request)]
        return [(row["_vk_id"], score, row["_vk_text"], json.loads(row["_vk_meta"])) for row, score in rows]


def embedded(batch: vk.Batch, ingests: int) -> None:
    for text in (False, True):
        spec = vk.CollectionSpec("docs", D, fields=FIELDS, text=text)
        with tempfile.TemporaryDirectory() as folder, vk.connect(f"qdrant://{folder}/ours") as store:
            head(f"embedded, text={text}, {len(batch):,} x {D}, batches of {STEP:,}; µs a row, then µs a call")
            taken = Taken(), Taken()
            for turn in range(ingests + 1):
                bare = BareEdge(f"{folder}/bare-{turn}", spec)
                if turn:
                    store.drop_collection("docs")
                docs = store.create_collection(spec)
                ingest(batch, bare, docs, taken if turn else (Taken(), Taken()))  # the first warms up
                if turn < ingests:
                    bare.shard.close()
            show("ingest, a row", taken, "<= 1.15", unit=1e6 / STEP)
            if text:
                ask_edge(batch, bare, docs, "plain")
                taken = Taken(), Taken()
                taken[0].run(bare.shard.optimize)
                taken[1].run(docs.optimize)
                indexed = f"{bare.shard.info().indexed_vectors_count:,} | {docs.stats().indexed:,} in the graph"
                show("optimize, seconds", taken, "-", unit=1, told=indexed)
                ask_edge(batch, bare, docs, "HNSW")
            bare.shard.close()


def ingest(batch: vk.Batch, bare: BareEdge, docs: vk.Collection, taken: tuple[Taken, Taken]) -> None:
    ids, vectors, rows = ready(docs.spec, batch)
    for start in range(0, len(batch), STEP):
        stop = start + STEP
        some = part(batch, start, stop)
        taken[0].run(partial(bare.put, ids[start:stop], vectors[start:stop], rows[start:stop]))
        taken[1].run(partial(docs.upsert, some))


def ask_edge(batch: vk.Batch, bare: BareEdge, docs: vk.Collection, kind: str) -> None:
    asked = questions(batch, 200 if kind == "HNSW" else 60)
    numbers, filters = spread(batch)
    for name, below in filters:
        where = None if below is None else F("n") < below
        taken = turns(
            cycled(lambda query: bare.query(query, below), asked),  # noqa: B023
            cycled(lambda query: docs.query(query, k=K, where=where), asked),  # noqa: B023
            30 if kind == "HNSW" else 8,
            TURN,
        )
        told = quality(
            batch,
            asked,
            numbers < (below or 1_000),
            lambda query: [row[0] for row in bare.query(query, below)],  # noqa: B023
            lambda query: docs.query(query, k=K, where=where).ids,  # noqa: B023
        )
        show(f"{kind}: {name}", taken, "<= 1.15", told=told)


# --------------------------------------------------------------------------------------------- the client's local mode


def local(count: int, dimension: int = 64) -> None:
    """`QdrantClient(":memory:")` is numpy and Python over all rows; `qdrant+memory://` is the engine."""
    batch = data(count, dimension)
    spec = vk.CollectionSpec("docs", dimension, fields=FIELDS)
    head(f"qdrant+memory:// against the client's local mode, {count:,} x {dimension}; µs")
    client = QdrantClient(":memory:")
    config = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config=config)
    with vk.connect("qdrant+memory://") as store:
        docs = store.create_collection(spec)
        taken = Taken(), Taken()
        for start in range(0, count, 1_000):
            some = part(batch, start, start + 1_000)
            ids, vectors, rows = ready(spec, some)
            points = models.Batch(ids=list(ids), vectors=vectors.tolist(), payloads=rows)
            taken[0].run(partial(client.upsert, "docs", points))
            taken[1].run(partial(docs.upsert, some))
        show("ingest, a row", taken, "-", unit=1e3)
        docs.optimize()
        asked = questions(batch, 20)
        numbers, filters = spread(batch)
        for name, below in filters:
            where = None if below is None else F("n") < below
            native = None if below is None else below_filter(below)

            def bare(query: Any, native: Any = native) -> list[str]:
                found = client.query_points("docs", query=query, query_filter=native, limit=K, with_payload=SHOWN)
                return [row.payload["_vk_id"] for row in found.points]  # type: ignore[index]

            def ours(query: Any, where: Any = where) -> list[str]:
                return docs.query(query, k=K, where=where).ids

            taken = turns(cycled(bare, asked), cycled(ours, asked), 3 if below else 5, 2 if below else 10)
            told = quality(batch, asked, numbers < (below or 1_000), bare, ours)
            faster = taken[0].medians()[0] / taken[1].medians()[0]
            bar = ">= 5x" if below is None else ">= 100x"
            show(name, taken, bar, told=f"{faster:.0f}x as fast; {told}")


def below_filter(below: int) -> Any:
    return models.Filter(must=[models.FieldCondition(key="_vk_f0", range=models.Range(lt=below))])


# --------------------------------------------------------------------------------------------- a server's client


class BareClient:
    """The same requests by the official client, over the same kind of collection, as one would read what comes back."""

    def __init__(self, client: QdrantClient, name: str) -> None:
        self.client = client
        self.name = name

    def put(self, ids: list[str], vectors: Any, rows: list[Any]) -> None:
        batch = models.Batch(ids=ids, vectors=vectors.tolist(), payloads=rows)  # type: ignore[arg-type]
        self.client.upsert(self.name, batch, wait=True)

    def query(self, vector: Any, below: int | None) -> list[Any]:
        where = None if below is None else below_filter(below)
        found = self.client.query_points(
            self.name, query=vector.tolist(), query_filter=where, limit=K, with_payload=SHOWN
        )
        return shown(found.points)

    def many(self, vectors: Any) -> list[Any]:
        requests = [models.QueryRequest(query=vector, limit=K, with_payload=SHOWN) for vector in vectors.tolist()]
        return [shown(answer.points) for answer in self.client.query_batch_points(self.name, requests)]

    def get(self, points: list[str]) -> list[Any]:
        found = self.client.retrieve(self.name, points, with_payload=[*SHOWN, "_vk_expires", "_vk_norm"])
        return [(row.payload["_vk_id"], row.payload["_vk_text"], json.loads(row.payload["_vk_meta"])) for row in found]  # type: ignore[index]


def shown(points: Sequence[Any]) -> list[Any]:
    return [
        (row.payload["_vk_id"], row.score, row.payload["_vk_text"], json.loads(row.payload["_vk_meta"]))
        for row in points
    ]


def server(batch: vk.Batch, rounds: int) -> None:
    with QdrantServer() as shim:
        for grpc in (False, True):
            face = "gRPC" if grpc else "REST"
            options = QdrantOptions(grpc=grpc, grpc_port=shim.grpc_port)
            with vk.connect(shim.url, options=options) as store:
                names = [name for name in ("docs", "bare") if name in store.collections()]
                for name in names:
                    store.drop_collection(name)
                spec = vk.CollectionSpec("docs", D, fields=FIELDS)
                docs = store.create_collection(spec)
                physical = store.create_collection(vk.CollectionSpec("bare", D, fields=FIELDS))
                client = QdrantClient(
                    url=f"http://{shim.host}:{shim.port}",
                    grpc_port=shim.grpc_port,
                    prefer_grpc=grpc,
                    timeout=60,
                    check_compatibility=False,
                    limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
                )
                bare = BareClient(client, physical.spec.physical)
                head(f"server, {face}, {len(batch):,} x {D}; µs a call by the clock, and CPU of this process")
                ask_server(batch, spec, docs, bare, rounds)
                wire(shim, batch, docs, face)
                client.close()
            asyncio.run(at_once(shim, batch, options, bare.name, rounds))


def ask_server(batch: vk.Batch, spec: vk.CollectionSpec, docs: vk.Collection, bare: BareClient, rounds: int) -> None:
    for size in (256, 1_000):
        some = part(batch, 0, size)
        given = ready(spec, some)
        taken = turns(lambda: bare.put(*given), lambda: docs.upsert(some), rounds)  # noqa: B023
        show(f"upsert of {size:,}", taken, "-")
        show(f"upsert of {size:,}, a row", taken, "-", unit=1e6 / size)
    for start in range(0, len(batch), 1_000):
        docs.upsert(part(batch, start, start + 1_000))
        bare.put(*ready(spec, part(batch, start, start + 1_000)))
    asked = questions(batch, 50)
    numbers, filters = spread(batch)
    for name, below in filters:
        where = None if below is None else F("n") < below
        taken = turns(
            cycled(lambda query: bare.query(query, below), asked),  # noqa: B023
            cycled(lambda query: docs.query(query, k=K, where=where), asked),  # noqa: B023
            rounds,
            TURN,
        )
        told = quality(
            batch,
            asked[:20],
            numbers < (below or 1_000),
            lambda query: [row[0] for row in bare.query(query, below)],  # noqa: B023
            lambda query: docs.query(query, k=K, where=where).ids,  # noqa: B023
        )
        show(name, taken, "-", told=told)
    show("query_many of 50", turns(lambda: bare.many(asked), lambda: docs.query_many(asked, k=K), rounds), "-")
    ids = batch.ids[: 100 * (len(batch) // 100) : len(batch) // 100]
    points = [point_id(id) for id in ids]  # noqa: A001
    show("get of 100", turns(lambda: bare.get(points), lambda: docs.get(ids), rounds, 5), "-")


def wire(shim: QdrantServer, batch: vk.Batch, docs: vk.Collection, face: str) -> None:
    """Requests and bytes of each verb."""
    asked = questions(batch, 50)
    ids = batch.ids[:100]
    assert batch.texts is not None
    words = " ".join((batch.texts[0] or "").split()[:2])
    verbs: list[tuple[str, Callable[[], Any], int]] = [
        ("upsert of 256", lambda: docs.upsert(part(batch, 0, 256)), 256),
        ("upsert of 1,000", lambda: docs.upsert(part(batch, 0, 1_000)), 1_000),
        ("insert of 100 that are there, skip", lambda: docs.insert(part(batch, 0, 100), on_conflict="skip"), 100),
        ("query", lambda: docs.query(asked[0]), 1),
        ("query, filtered", lambda: docs.query(asked[0], where=F("n") < 10), 1),
        ("query, exact", lambda: docs.query(asked[0], exact=True), 1),
        ("query_many of 50", lambda: docs.query_many(asked), 50),
        ("keyword", lambda: docs.keyword(words), 1),
        ("get of 100", lambda: docs.get(ids), 100),
        ("count", lambda: docs.count(F("n") < 10), 1),
        ("update of 10 by id", lambda: docs.update(ids=ids[:10], set={"score": 1.0}), 10),
        ("delete of 10 by id", lambda: docs.delete(ids=ids[:10]), 10),
        ("delete by filter, 0.1 %", lambda: docs.delete(where=F("n") == 999), 1),
    ]
    print(f"\n{face}: what a verb sends{'':17s}{'requests':>9s}{'bytes sent':>12s}{'back':>10s}{'sent a row':>12s}")
    for name, act, rows in verbs:
        shim.forget()
        act()
        seen = shim.traffic()
        requests, came, went = (sum(one[key] for one in seen.values()) for key in ("requests", "bytes_in", "bytes_out"))
        paths = ", ".join(path.rpartition("{name}")[2].rpartition("/qdrant.")[2] for path in seen)
        print(f"{name:38s}{requests:9d}{came:12,d}{went:10,d}{came / rows:12.0f}   {paths}", flush=True)


async def at_once(shim: QdrantServer, batch: vk.Batch, options: QdrantOptions, name: str, rounds: int) -> None:
    """64 tasks at a time over one client."""
    asked = questions(batch, 64)
    store = await vk.aconnect(shim.url, options=options)
    docs = await store.collection("docs")
    client = AsyncQdrantClient(
        url=f"http://{shim.host}:{shim.port}",
        grpc_port=shim.grpc_port,
        prefer_grpc=options.grpc,
        timeout=60,
        check_compatibility=False,
        limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
    )

    async def bare(query: Any) -> None:
        found = await client.query_points(name, query=query.tolist(), limit=K, with_payload=SHOWN)
        shown(found.points)

    async def ours(query: Any) -> None:
        await docs.query(query, k=K)

    taken = Taken(), Taken()
    for turn in range(rounds + 1):
        for act, times in zip((bare, ours), taken, strict=True):
            before, start = time.process_time(), time.perf_counter()
            await asyncio.gather(*[act(query) for query in asked])
            if turn:
                times.clock.append((time.perf_counter() - start) / len(asked))
                times.cpu.append((time.process_time() - before) / len(asked))
    await client.close()
    await store.close()
    head(f"server, {'gRPC' if options.grpc else 'REST'}, async; µs a query")
    show("64 tasks at once", taken, "-")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--server-rows", type=int, default=10_000)
    parser.add_argument("--parts", default="embedded,local,server")
    parser.add_argument("--ingests", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    parts = asked.parts.split(",")
    if "embedded" in parts:
        embedded(data(asked.rows), asked.ingests)
    if "local" in parts:
        local(asked.rows)
    if "server" in parts:
        server(data(asked.server_rows), asked.rounds)


if __name__ == "__main__":
    main()
