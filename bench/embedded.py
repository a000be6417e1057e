"""The embedded engine against the bare library doing the same: overhead per query, ingest per row, batches, narrow filters.

Run: uv run --group bench python bench/embedded.py
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable

import faiss
import numpy as np
from measure import alternate, row

import vectorkit as vk
from vectorkit import F

RANDOM = np.random.default_rng(7)


def unit(count: int, dimension: int) -> np.ndarray:
    x = RANDOM.standard_normal((count, dimension)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def median_us(call: Callable[[], object], rounds: int) -> float:
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return statistics.median(found) * 1e6


def opened(scheme: str, folder: str) -> vk.Store:
    return vk.connect("memory://" if scheme == "memory" else f"{scheme}://{folder}/{scheme}{time.time_ns()}")


def overhead(folder: str) -> None:
    """What a query costs beyond the bare numpy search: the product, the partition, the sort."""
    count, dimension = 1_000, 64
    x = unit(count, dimension)
    ids = [f"r{n}" for n in range(count)]
    texts = [f"text number {n} about things" for n in range(count)]
    metadata = [{"year": 2000 + n % 25, "lang": "en"} for n in range(count)]
    query = x[0]

    def bare() -> object:
        scores = x @ query
        best = np.argpartition(scores, count - 10)[-10:]
        return [ids[n] for n in best[np.argsort(-scores[best])]]

    for what, batch, bar in (
        ("ids only", vk.Batch(ids, x), "15 us"),
        ("with text and metadata", vk.Batch(ids, x, texts, metadata), "70 us"),
    ):
        with opened("local", folder) as store:
            docs = store.create_collection(vk.CollectionSpec("a", dimension=dimension))
            docs.upsert(batch)
            docs.query(query)
            found = [(median_us(lambda: docs.query(query), 500), median_us(bare, 500)) for _ in range(9)]  # noqa: B023
            over = statistics.median(a - b for a, b in found)
            row(f"overhead per query, {what}", f"{over:.0f} us", bar)


def ingest(folder: str) -> None:
    count, dimension = 10_000, 384
    x = unit(count, dimension)
    ids = [f"r{n}" for n in range(count)]
    texts = [f"text number {n} of a corpus about {n % 97} and {n % 89}" for n in range(count)]
    metadata = [{"year": 2000 + n % 25, "lang": "en"} for n in range(count)]
    batch = vk.Batch(ids, x, texts, metadata)

    def ours(scheme: str) -> Callable[[], object]:
        def run() -> None:
            with opened(scheme, folder) as store:
                store.create_collection(vk.CollectionSpec("a", dimension=dimension, fields={"year": int})).upsert(batch)

        return run

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from langchain_community.vectorstores import FAISS
        from langchain_community.vectorstores.utils import DistanceStrategy
        from langchain_core.embeddings import Embeddings

    class NoEmbeddings(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise AssertionError

        def embed_query(self, text: str) -> list[float]:
            return [0.0] * dimension

    rows = list(zip(texts, x.tolist(), strict=True))

    def langchain() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FAISS.from_embeddings(
                rows, NoEmbeddings(), metadatas=metadata, ids=ids, distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT
            )

    for scheme, bar in (("local", ">= 1.0x"), ("memory", ">= 6x")):
        a, b = alternate(ours(scheme), langchain, rounds=7)
        name = "durable commit and keyword index" if scheme == "local" else "memory://"
        row(
            f"ingest, {name}, rows/s against LangChain FAISS in RAM",
            f"{b / a:.2f}x  ({a / count * 1e6:.1f} against {b / count * 1e6:.1f} us/row)",
            bar,
        )


def search(folder: str) -> None:
    count, dimension = 100_000, 384
    x = unit(count, dimension)
    queries = unit(256, dimension)
    flat = faiss.IndexFlatIP(dimension)
    flat.add(x)
    with opened("faiss", folder) as store:
        docs = store.create_collection(
            vk.CollectionSpec("a", dimension=dimension, index=vk.Flat(), fields={"n": int}, text=False)
        )
        docs.upsert(vk.Batch([f"r{n}" for n in range(count)], x, None, [{"n": n % 1000} for n in range(count)]))
        docs.query(queries[0])
        a, b = alternate(lambda: docs.query_many(queries, k=10), lambda: flat.search(queries, 10), rounds=5)
        row(
            "batch of 256, exact, 100,000 x 384, against FAISS flat",
            f"{b / a:.2f}x faster  ({a * 1e3:.0f} against {b * 1e3:.0f} ms)",
            ">= 4x",
        )
        a, b = alternate(lambda: docs.query(queries[0]), lambda: flat.search(queries[:1], 10), rounds=31)
        row(
            "one query, exact, 100,000 x 384, against FAISS flat",
            f"{b / a:.2f}x faster  ({a * 1e3:.2f} against {b * 1e3:.2f} ms)",
            "-",
        )
        for share, where in ((1, F("n") < 10), (0.1, F("n") == 3)):
            took = median_us(lambda: docs.query(queries[0], where=where), 101)  # noqa: B023
            hits = docs.query(queries[0], where=where)
            row(
                f"{share} % filter at 100,000 x 384, {len(hits)} rows, {hits.coverage}",
                f"{took / 1000:.2f} ms",
                "0.35 ms" if share == 1 else "-",
            )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        overhead(folder)
        ingest(folder)
        search(folder)
