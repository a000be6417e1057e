"""Chroma through vectorkit against its bare client on the same rows: ingest, queries, narrow filters, get, delete, concurrency.

Run: uv run --group dev python bench/chroma.py [rows] [embedded] [server]. The bare client keeps text in `documents` and the same
metadata natively, which is how it is used; runs alternate, and medians are compared.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from socket import socket
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings
from measure import alternate, once, row

import vectorkit as vk
from vectorkit import F

RANDOM = np.random.default_rng(7)
DIMENSION = 384
BATCH = 5_000
HNSW = {"space": "cosine", "max_neighbors": 16, "ef_construction": 100, "ef_search": 256}
SPEC = vk.CollectionSpec(
    "docs", DIMENSION, index=vk.HNSW(m=16, ef_construction=100), fields={"bucket": int, "rare": int, "lang": str}
)


class Rows:
    """Clustered vectors, as texts make them; a paragraph each; four keys of metadata."""

    def __init__(self, count: int) -> None:
        centres = RANDOM.standard_normal((200, DIMENSION)) * 2
        self.vectors = (centres[np.arange(count) % 200] + RANDOM.standard_normal((count, DIMENSION))).astype(np.float32)
        self.queries = (centres[:50] + RANDOM.standard_normal((50, DIMENSION))).astype(np.float32)
        words = [f"word{n}" for n in range(3_000)]
        self.ids = [f"doc-{n:07d}" for n in range(count)]
        self.texts = [" ".join(RANDOM.choice(words, 60)) for _ in range(count)]
        self.metadata = [
            {"bucket": n % 100, "rare": n % 1_000, "lang": ("en", "de", "fr")[n % 3], "score": n / 7}
            for n in range(count)
        ]
        self.units = self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)

    def batch(self, start: int, stop: int) -> vk.Batch:
        return vk.Batch(
            self.ids[start:stop], self.vectors[start:stop], self.texts[start:stop], self.metadata[start:stop]
        )


def compare(what: str, ours: Callable[[], object], theirs: Callable[[], object], bar: str, rounds: int = 7) -> None:
    """How many times as fast ours is."""
    a, b = alternate(ours, theirs, rounds=rounds)
    row(what, f"{b / a:.2f}x native ({a * 1e3:.1f} against {b * 1e3:.1f} ms)", bar)


def fill(collection: Any, rows: Rows, *, documents: bool = True) -> None:
    for start in range(0, len(rows.ids), BATCH):
        part = slice(start, start + BATCH)
        metadata = rows.metadata[part]
        if not documents:
            metadata = [{**m, "text": text} for m, text in zip(metadata, rows.texts[part], strict=True)]
        collection.upsert(
            ids=rows.ids[part],
            embeddings=rows.vectors[part],
            metadatas=metadata,
            documents=rows.texts[part] if documents else None,
        )


def load(docs: vk.Collection, rows: Rows) -> None:
    for start in range(0, len(rows.ids), BATCH):
        docs.upsert(rows.batch(start, start + BATCH))


def recall(rows: Rows, keep: np.ndarray, answers: list[list[str]]) -> tuple[float, set[int]]:
    found = 0
    chosen = np.flatnonzero(keep)
    for query, ids in zip(rows.queries, answers, strict=True):
        scores = rows.units[chosen] @ (query / np.linalg.norm(query))
        best = {rows.ids[n] for n in chosen[np.argsort(-scores)[:10]]}
        found += len(best & set(ids))
    return found / (10 * len(answers)), {len(ids) for ids in answers}


def measure(kind: str, rows: Rows, store: vk.Store, client: Any, place: Any) -> None:
    count = len(rows.ids)
    made: dict[str, Any] = {}

    def ours() -> None:
        if "docs" in store.collections():
            store.drop_collection("docs")
        made["docs"] = store.create_collection(SPEC)
        load(made["docs"], rows)

    def theirs(name: str, *, documents: bool) -> None:
        if name in made:
            client.delete_collection(name)
        made[name] = client.create_collection(name, configuration={"hnsw": HNSW}, embedding_function=None)
        fill(made[name], rows, documents=documents)

    rounds = 2
    compare(
        f"{kind}: ingest of {count:,} x {DIMENSION}", ours, lambda: theirs("bare", documents=True), ">= 1.5x", rounds
    )
    compare(
        f"{kind}: bare client, text in metadata against text in documents",
        lambda: theirs("bare-metadata", documents=False),
        lambda: theirs("bare", documents=True),
        "-",
        rounds,
    )
    client.delete_collection("bare-metadata")
    docs, bare = made["docs"], made["bare"]
    queries = rows.queries

    def each(ask: Callable[[np.ndarray], object]) -> Callable[[], None]:
        def run() -> None:
            for query in queries:
                ask(query)

        return run

    def natively(where: Any = None) -> Callable[[], None]:
        return each(lambda query: bare.query(query_embeddings=query[None], n_results=10, where=where))

    compare(f"{kind}: query", each(docs.query), natively(), "-")
    for share, where, native, keep in (
        ("1 %", F("bucket") == 3, {"bucket": 3}, np.arange(count) % 100 == 3),
        ("0.1 %", F("rare") == 3, {"rare": 3}, np.arange(count) % 1_000 == 3),
    ):
        compare(f"{kind}: query, {share} filter", each(partial(docs.query, where=where)), natively(native), "-")
        share_found, lengths = recall(rows, keep, [docs.query(query, where=where).ids for query in queries])
        row(f"{kind}: {share} filter, rows and recall", f"{sorted(lengths)} rows, {share_found:.3f}", "10 rows, 0.99")
    unfiltered, _ = recall(rows, np.ones(count, bool), [docs.query(query).ids for query in queries])
    row(f"{kind}: recall without a filter, default settings", f"{unfiltered:.3f}", "0.95")
    some = rows.ids[500:600]
    compare(f"{kind}: get of 100", lambda: docs.get(some), lambda: bare.get(ids=some), "-", 15)
    compare(f"{kind}: 50 queries in one call", lambda: docs.query_many(queries), lambda: bare.query(query_embeddings=queries), "-")  # fmt: skip

    def delete_ours() -> None:
        docs.delete(where=F("bucket") == 7)

    def delete_theirs() -> None:
        bare.delete(where={"bucket": 7})

    again = [n for n in range(count) if n % 100 == 7]
    mine, other = [], []
    for _ in range(5):
        mine.append(once(delete_ours))
        other.append(once(delete_theirs))
        docs.upsert([vk.Record(rows.ids[n], rows.vectors[n], rows.texts[n], rows.metadata[n]) for n in again])
        bare.upsert(
            ids=[rows.ids[n] for n in again],
            embeddings=rows.vectors[again],
            metadatas=[rows.metadata[n] for n in again],
            documents=[rows.texts[n] for n in again],
        )
    a, b = statistics.median(mine), statistics.median(other)
    row(f"{kind}: delete by filter of 1 %", f"{b / a:.2f}x native ({a * 1e3:.1f} against {b * 1e3:.1f} ms)", "-")
    if kind == "server":
        asyncio.run(concurrent(rows, place))


async def concurrent(rows: Rows, place: dict[str, Any]) -> None:
    """64 queries at a time: the sync client in threads, as vectorkit does, against Chroma's own async client."""
    host, port = place["url"].removeprefix("chroma://").split(":")
    store = await vk.aconnect(place)
    docs = await store.collection("docs")
    client = await chromadb.AsyncHttpClient(host=host, port=int(port), settings=Settings(anonymized_telemetry=False))
    bare = await client.get_collection("bare", embedding_function=None)
    turns = 6

    async def ours() -> float:
        begun = time.perf_counter()
        for _ in range(turns):
            await asyncio.gather(*[docs.query(rows.queries[n % 50]) for n in range(64)])
        return time.perf_counter() - begun

    async def theirs() -> float:
        begun = time.perf_counter()
        for _ in range(turns):
            await asyncio.gather(*[bare.query(query_embeddings=rows.queries[n % 50][None], n_results=10) for n in range(64)])  # fmt: skip
        return time.perf_counter() - begun

    await ours()
    await theirs()
    mine, other = [], []
    for _ in range(5):
        mine.append(await ours())
        other.append(await theirs())
    a, b = statistics.median(mine), statistics.median(other)
    rate = 64 * turns / a
    row("server: 64 queries at once", f"{b / a:.2f}x AsyncHttpClient ({rate:.0f} queries/s)", ">= 1.4x")
    await store.close()


@contextmanager
def server(folder: str) -> Any:
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = "from chromadb.cli.cli import app; app()"
    command = [sys.executable, "-c", run, "run", "--path", folder, "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command, env={**os.environ, "ANONYMIZED_TELEMETRY": "False"}, **quiet)  # type: ignore[call-overload]
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/heartbeat"):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        yield port
    finally:
        child.terminate()
        child.wait()


def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdecimal()]
    kinds = [argument for argument in sys.argv[1:] if not argument.isdecimal()] or ["embedded", "server"]
    rows = Rows(numbers[0] if numbers else 20_000)
    quiet = Settings(anonymized_telemetry=False)
    with tempfile.TemporaryDirectory() as folder:
        if "embedded" in kinds:
            place = f"chroma://{folder}/ours"
            with vk.connect(place) as store:
                measure("embedded", rows, store, chromadb.PersistentClient(f"{folder}/bare", settings=quiet), place)
        if "server" in kinds:
            with server(f"{folder}/server") as port:
                target = {"url": f"chroma://127.0.0.1:{port}"}
                with vk.connect(target) as store:
                    measure("server", rows, store, chromadb.HttpClient("127.0.0.1", port, settings=quiet), target)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
