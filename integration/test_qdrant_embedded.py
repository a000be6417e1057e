"""Qdrant's engine in this process: that its graph is built and finds enough, and what writes and optimize() keep waiting.

The contract is in test_contract_qdrant.py; here is what a directory of shards alone can get wrong.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.testing.kit import raises
from vectorkit.testing.loop import longest_gap
from vectorkit.types import FloatArray, Index
from vectorkit_qdrant import edge

ROWS, DIMENSION = 20_000, 64


def unit(rows: int, seed: int, dimension: int = DIMENSION) -> FloatArray:
    """Random directions: the hardest that there are for a graph."""
    found: FloatArray = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def records(vectors: FloatArray, start: int = 0) -> list[vk.Record]:
    return [vk.Record(f"r{n:06d}", v, None, {"n": n, "m": n * 7919 % 1_000}) for n, v in enumerate(vectors, start)]


def made(path: Path, index: Index, vectors: FloatArray) -> tuple[vk.Store, vk.Collection]:
    store = vk.connect(f"qdrant://{path}/store")
    spec = vk.CollectionSpec("docs", vectors.shape[1], index=index, fields={"n": int, "m": int})
    docs = store.create_collection(spec)
    for start in range(0, len(vectors), 5_000):
        docs.upsert(records(vectors[start : start + 5_000], start))
    return store, docs


def recall(docs: vk.Collection, queries: FloatArray, **options: Any) -> float:
    """The share of the exact ten that is found."""
    found = docs.query_many(queries, k=10, **options)
    where = {"where": options["where"]} if "where" in options else {}
    exact = docs.query_many(queries, k=10, exact=True, **where)
    assert [len(hits) for hits in found] == [len(hits) for hits in exact]
    return sum(len({*a.ids} & {*b.ids}) for a, b in zip(found, exact, strict=True)) / sum(map(len, exact))


# --------------------------------------------------------------------------------------------- the graph


@pytest.mark.slow
def test_the_graph_is_built_and_finds_enough(tmp_path: Path, say: Callable[[str], None]) -> None:
    """20,000 random rows, the default index: recall of at least 0.95 without a filter and under 1, 10 and 50 %."""
    store, docs = made(tmp_path, vk.HNSW(), unit(ROWS, 0))
    assert docs.stats().indexed == 0
    docs.optimize()
    stats = docs.stats()
    assert (stats.rows, stats.indexed, stats.index) == (ROWS, ROWS, "hnsw")
    queries = unit(100, 1)
    found = {share: recall(docs, queries, where=F("m") < share * 10) for share in (1, 10, 50)}
    found[100] = recall(docs, queries)
    widths = {ef: recall(docs, queries, ef_search=ef) for ef in (10, 64, 512)}
    say(f"\nqdrant embedded, {ROWS} x {DIMENSION}: recall under a filter of so many % {found}, by ef_search {widths}")
    assert min(found.values()) >= 0.95
    assert widths[10] < 0.6 < widths[64] < 0.98 < widths[512]
    store.close()


def test_what_is_written_after_optimize_is_found(tmp_path: Path) -> None:
    """New, changed and deleted rows are exactly there at once, beside the graph, and after a reopen; optimize() takes them in."""
    vectors = unit(3_000, 2)
    store, docs = made(tmp_path, vk.HNSW(full_scan_threshold=0), vectors)
    docs.optimize()
    assert docs.stats().indexed == 3_000
    later = unit(300, 3)
    docs.upsert(records(later[:200], 3_000))
    docs.upsert(records(later[200:], 0))  # other vectors for the first hundred
    assert docs.delete(ids=[f"r{n:06d}" for n in range(100, 400)]) == 300
    docs.update(where=F("n") >= 2_900, set={"m": 5_000})
    for time_ in range(3):
        assert docs.count() == 2_900
        assert docs.count(F("m") == 5_000) == 300
        assert {row.id for row in docs.scan(F("m") == 5_000)} == {f"r{n:06d}" for n in range(2_900, 3_200)}
        for n, vector in enumerate(later):
            assert docs.query(vector, k=1).ids == [f"r{n + 3_000 if n < 200 else n - 200:06d}"]
        gone = {f"r{n:06d}" for n in range(100, 400)}
        for hits in docs.query_many(vectors[100:400:30], k=10):
            assert len(hits) == 10
            assert not gone & {*hits.ids}
        moved = docs.query_many(vectors[:100:10], k=1)
        assert not {hits.ids[0] for hits in moved} & {f"r{n:06d}" for n in range(0, 100, 10)}
        stats = docs.stats()
        assert stats.rows == 2_900
        assert stats.indexed == 2_900
        if time_ == 0:
            docs.optimize()
        else:
            store.close()
            store = vk.connect(f"qdrant://{tmp_path}/store")
            docs = store.collection("docs")
    store.close()


@pytest.mark.parametrize(
    "index", [vk.Flat(), vk.HNSW(full_scan_threshold=5_000), vk.IVF()], ids=["flat", "few rows", "ivf"]
)
def test_exact_where_it_was_asked_for(tmp_path: Path, index: Index) -> None:
    """Without a graph, and with one below `full_scan_threshold` rows, a narrow search is exact. IVF is advice: a graph is built."""
    store, docs = made(tmp_path, index, unit(4_000, 4))
    docs.optimize()
    assert docs.stats().indexed == (0 if isinstance(index, vk.Flat) else 4_000)
    queries = unit(50, 5)
    assert recall(docs, queries, ef_search=10) == 1.0
    assert recall(docs, queries, ef_search=10, where=F("m") < 500) == 1.0
    store.close()


def test_full_scan_threshold_counts_rows(tmp_path: Path) -> None:
    """Of one more row than that, some are missed."""
    store, docs = made(tmp_path, vk.HNSW(m=4, ef_construction=10, full_scan_threshold=1_000), unit(4_000, 6))
    docs.optimize()
    queries = unit(100, 7)
    assert recall(docs, queries, ef_search=10, where=F("n") < 1_000) == 1.0
    assert recall(docs, queries, ef_search=10) < 0.9
    store.close()


def test_vectors_come_back_as_written(tmp_path: Path) -> None:
    """After updates, optimize() and a reopen too, of any norm, to 1e-6."""
    rng = np.random.default_rng(8)
    vectors = (rng.standard_normal((200, 8)) * 10.0 ** rng.integers(-18, 18, (200, 1))).astype(np.float32)
    store, docs = made(tmp_path, vk.HNSW(), vectors)
    for step in range(4):
        if step == 1:
            docs.update(where=F("n") < 150, set={"m": 1})
            docs.update(where=F("n") < 100, set={"m": 2})
        elif step == 2:
            docs.optimize()
        elif step == 3:
            store.close()
            store = vk.connect(f"qdrant://{tmp_path}/store")
            docs = store.collection("docs")
        for row in docs.scan(vectors=True):
            wanted = vectors[row.metadata["n"]]
            assert np.abs(np.asarray(row.vector) - wanted).max() <= 1e-6 * np.abs(wanted).max()
    store.close()


# --------------------------------------------------------------------------------------------- the event loop


@pytest.mark.timed
def test_optimize_leaves_the_loop_alone(tmp_path: Path, say: Callable[[str], None]) -> None:
    """Other tasks go on, other collections answer; verbs of this one wait, and then are right."""

    async def main() -> tuple[float, float]:
        store = await vk.aconnect(f"qdrant://{tmp_path}/store")
        spec = vk.CollectionSpec("docs", DIMENSION, index=vk.HNSW(full_scan_threshold=0), fields={"n": int, "m": int})
        docs = await store.create_collection(spec)
        other = await store.create_collection(vk.CollectionSpec("other", 8))
        await other.upsert([vk.Record("x", [1.0] * 8)])
        vectors = unit(10_000, 9)
        await docs.upsert(records(vectors))
        answers = 0
        built = False

        async def ask() -> None:
            nonlocal answers
            while not built:
                assert (await other.query([1.0] * 8)).ids == ["x"]
                answers += 1
                await asyncio.sleep(0.01)

        async def build() -> None:
            nonlocal built
            await docs.optimize()
            built = True

        async def work() -> None:
            await asyncio.gather(build(), ask(), *[docs.count() for _ in range(20)])

        began = time.perf_counter()
        gap = await longest_gap(work)
        took = time.perf_counter() - began
        assert answers > 20
        assert (await docs.stats()).indexed == 10_000
        assert (await docs.query(vectors[5], k=1)).ids == ["r000005"]
        await store.close()
        return took, gap

    took, gap = asyncio.run(main())
    say(
        f"\nqdrant embedded, optimize() of 10,000 x {DIMENSION}: {took:.2f} s, the event loop waited {gap:.3f} s at most"
    )
    assert took > 0.5
    assert gap < max(0.25, took / 8)  # where it stands it is all of it; opening the shard again is 0.1 to 0.3


@pytest.mark.timed
def test_how_long_a_write_keeps_the_loop(tmp_path: Path, say: Callable[[str], None]) -> None:
    """The engine holds the interpreter's lock: 10,000 rows in one request."""

    async def main(dimension: int) -> float:
        async with await vk.aconnect(f"qdrant://{tmp_path}/{dimension}") as store:
            docs = await store.create_collection(vk.CollectionSpec("docs", dimension, fields={"n": int, "m": int}))
            rows = records(unit(10_000, 10, dimension))
            await docs.upsert(rows[:10])
            return await longest_gap(lambda: docs.upsert(rows))

    gaps = {dimension: round(asyncio.run(main(dimension)), 3) for dimension in (64, 768)}
    say(f"\nqdrant embedded, upsert of 10,000 rows: the event loop waited {gaps} s at most, by dimension")
    assert max(gaps.values()) < 2.0


def test_an_optimize_that_is_cancelled_or_closed(tmp_path: Path) -> None:
    """It ends at once; the collection goes on, and so does its directory."""

    async def main() -> None:
        store = await vk.aconnect(f"qdrant://{tmp_path}/store")
        spec = vk.CollectionSpec("docs", DIMENSION, index=vk.HNSW(full_scan_threshold=0), fields={"n": int, "m": int})
        docs = await store.create_collection(spec)
        vectors = unit(6_000, 11)
        await docs.upsert(records(vectors))
        for delay in (0.0, 0.01, 0.1, 0.3):
            task = asyncio.create_task(docs.optimize())
            await asyncio.sleep(delay)
            task.cancel()
            began = time.perf_counter()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.perf_counter() - began < 1
            assert await docs.count() == 6_000
            assert not list(tmp_path.rglob("segment_builder_*")), "the half of a graph is not left behind"  # noqa: ASYNC240 - a test
            assert (await docs.query(vectors[5], k=1)).ids == ["r000005"]
            await docs.upsert(records(vectors[:10]))
        task = asyncio.create_task(docs.optimize())
        await asyncio.sleep(0.2)
        await store.close()
        with raises(vk.Closed):
            await task
        with raises(vk.Closed):
            await docs.count()
        again = await vk.aconnect({"url": f"qdrant://{tmp_path}/store", "lock_timeout": 0.0})
        docs = await again.collection("docs")
        assert await docs.count() == 6_000
        await docs.optimize()
        assert (await docs.stats()).indexed == 6_000
        await again.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", vk.Unavailable),
        ("print('PanicException: index out of bounds'); raise SystemExit(1)", vk.Corrupt),
        ("print('Exception: No space left on device'); raise SystemExit(1)", vk.Unavailable),
        ("import os; os.abort()", vk.Corrupt),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_optimize_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, error: type[vk.VectorkitError]
) -> None:
    """Whatever becomes of the other process, the error is typed and the collection goes on."""
    store, docs = made(tmp_path, vk.HNSW(), unit(500, 12))
    (tmp_path / "shard.py").write_text(program)
    with monkeypatch.context() as patch:
        patch.setattr(edge, "__file__", str(tmp_path / "edge.py"))
        with raises(error):
            docs.optimize()
    assert docs.count() == 500
    docs.upsert(records(unit(1, 13), 500))
    docs.optimize()
    assert docs.stats().indexed == 501
    store.close()


def test_a_frozen_application_optimizes_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There `sys.executable` is the application, which must not be started a second time."""
    store, docs = made(tmp_path, vk.HNSW(), unit(500, 12))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    docs.optimize()
    assert docs.stats().indexed == 500
    store.close()


# --------------------------------------------------------------------------------------------- writes


def test_an_insert_has_one_winner(tmp_path: Path) -> None:
    """Of eight threads that insert the same ids."""
    store, docs = made(tmp_path, vk.HNSW(), unit(1, 14, 8))
    for round_ in range(20):
        barrier = threading.Barrier(8)

        def insert(n: int, round_: int = round_, barrier: threading.Barrier = barrier) -> int:
            barrier.wait()
            rows = [vk.Record(f"x{round_}-{i}", [float(n + 1)] * 8, f"by{n}", {"n": n}) for i in range(20)]
            try:
                return n if docs.insert(rows).written == 20 else -1
            except vk.AlreadyExists:
                return -2

        with ThreadPoolExecutor(8) as pool:
            winners = [n for n in pool.map(insert, range(8)) if n != -2]
        assert len(winners) == 1
        found = docs.get([f"x{round_}-{i}" for i in range(20)])
        assert {(row.text, row.metadata["n"]) for row in found if row is not None} == {(f"by{winners[0]}", winners[0])}
    store.close()


def test_updates_and_upserts_at_once_tear_no_row(tmp_path: Path) -> None:
    """A row's vector, text and metadata are always of one write, whatever updates run beside it."""
    store, docs = made(tmp_path, vk.HNSW(), unit(1, 15, 8))
    ids = [f"x{i}" for i in range(50)]
    end = time.monotonic() + 1.5
    wrong: list[str] = []

    def upsert(n: int) -> None:
        version = n
        while time.monotonic() < end:
            version += 10
            docs.upsert([vk.Record(id_, [float(version)] * 8, f"v{version}", {"n": version, "m": 0}) for id_ in ids])

    def update(_: int) -> None:
        while time.monotonic() < end:
            docs.update(ids=ids, set={"m": 1})

    def torn(row: vk.Record) -> bool:
        n = int(row.metadata["n"])
        return row.text != f"v{n}" or not np.allclose(np.asarray(row.vector), n, rtol=1e-5)

    def check(_: int) -> None:
        while time.monotonic() < end:
            wrong.extend(str(row) for row in docs.get(ids, vectors=True) if row is not None and torn(row))

    docs.upsert([vk.Record(id_, [1.0] * 8, "v1", {"n": 1, "m": 0}) for id_ in ids])
    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(job, n) for n, job in enumerate((upsert, upsert, update, update, check))]
    for job in jobs:
        job.result()
    assert not wrong, wrong[:3]
    store.close()
