"""What the bare library does wrong without a word, or fails on, and the adapter must not: each test fails on plain hnswlib calls."""

import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectorkit as vk
from vectorkit import F
from vectorkit.testing.effort import effort

adapter = pytest.importorskip(
    "vectorkit_hnswlib.adapter", reason="hnswlib is not installed; tests/conftest.py says why"
)


def spec(dimension: int = 8, metric: Any = "l2", index: Any = None) -> vk.CollectionSpec:
    index = index or vk.HNSW(m=8, ef_construction=64, full_scan_threshold=0)
    return vk.CollectionSpec("a", dimension=dimension, metric=metric, index=index)


def built(x: np.ndarray, metric: Any = "l2", index: Any = None, *, count: int | None = None) -> Any:
    made = adapter.make_index(spec(x.shape[1], metric, index))
    made.build(x[:0], len(x) if count is None else count)
    for start in range(0, len(x), 4):  # so few are added by one thread: the same graph each time
        made.add(x[start : start + 4])
    return made


def normal(count: int, dimension: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def distances(x: np.ndarray, query: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(x.astype(np.float64) - query, axis=1))


def island() -> np.ndarray:
    """300 equal rows fill each other's links (4 a row, 8 on the ground level), so that from some of them no way leads out."""
    return np.concatenate([normal(400), np.tile(normal(1, seed=1), (300, 1))])


class Counting:
    """The library's index, counting the answers that it refuses: it leaks the memory of each."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.index, name)

    def knn_query(self, *values: Any, **named: Any) -> Any:
        try:
            return self.index.knn_query(*values, **named)
        except RuntimeError:
            self.refused += 1
            raise


# --------------------------------------------------------------------------------------------- how many rows come back


def test_k_beyond_the_rows_is_padded() -> None:
    x = normal(5)
    labels = built(x).search(x[:2], 9, allowed=None, width=32)
    assert labels.shape == (2, 9)
    assert [row[:5].tolist() for row in labels] == [np.argsort(distances(x, x[at])).tolist() for at in (0, 1)]
    assert (labels[:, 5:] == -1).all()


def test_an_empty_index_and_a_filter_for_nothing_find_nothing() -> None:
    x = normal(5)
    assert (built(x[:0], count=3).search(x, 2, allowed=None, width=9) == -1).all()
    assert (built(x).search(x, 2, allowed=np.zeros(5, np.bool_), width=9) == -1).all()


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.01])
@pytest.mark.parametrize("count", [1, 20])
def test_a_filter_leaves_no_answer_short(share: float, count: int) -> None:
    x = normal(3_000, 16)
    allowed = np.random.default_rng(1).random(3_000) < share
    index = built(x, index=vk.HNSW(m=16, ef_construction=100))
    queries = normal(count, 16, seed=2)
    labels = index.search(queries, 10, allowed=allowed, width=int(64 / share))
    assert allowed[labels].all()
    assert all(len(set(row)) == 10 for row in labels.tolist())
    near = np.flatnonzero(allowed)
    wanted = [set(near[np.argsort(distances(x[near], query))[:10]].tolist()) for query in queries]
    found = sum(len(set(row) & rows) for row, rows in zip(labels.tolist(), wanted, strict=True))
    assert found >= 0.97 * 10 * count


def test_a_filter_for_rows_far_from_the_query_widens_until_they_are_found() -> None:
    x = normal(1_000)
    far = np.argsort(distances(x, x[0]))[-250:]
    allowed = np.zeros(1_000, np.bool_)
    allowed[far] = True
    labels = built(x, index=vk.HNSW(m=16, ef_construction=100)).search(x[:1], 10, allowed=allowed, width=10)
    assert labels[0].tolist() == far[:10].tolist()


def test_rows_that_link_to_each_other_alone_are_no_error() -> None:
    x = island()
    index = built(x, index=vk.HNSW(m=4, ef_construction=100))
    index._index = counting = Counting(index._index)
    for _ in range(3):
        labels = index.search(x, 60, allowed=None, width=64)
    found = (labels >= 0).sum(axis=1)
    assert found.min() < 60, "this graph has no island: the test shows nothing"
    assert found.max() == 60
    assert counting.refused == 1
    for at in (0, 399, 400, 699):  # what was reached is the nearest rows, and each once
        row = labels[at][labels[at] >= 0]
        assert len(set(row.tolist())) == len(row)
        assert distances(x, x[at])[row[0]] == 0
    allowed = np.arange(len(x)) % 2 == 0
    kept = index.search(x, 60, allowed=allowed, width=64)
    assert allowed[kept[kept >= 0]].all()


def test_the_engine_fills_what_an_island_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorkit.local.shelf.BUILD_CHUNK", 4)  # the same graph each time
    x = island()
    with vk.connect(f"hnswlib://{tmp_path}") as store:
        index = vk.HNSW(m=4, ef_construction=100, full_scan_threshold=0)
        docs = store.create_collection(spec(index=index))
        docs.upsert(vk.Batch([str(n) for n in range(len(x))], x))
        docs.optimize()
        short = 0
        for at in range(0, len(x), 20):
            hits = docs.query(x[at], k=350)
            assert len(hits) == len(set(hits.ids)) == 350
            if "exact again where short" in hits.path:
                short += 1
                wanted = np.sort(distances(x, x[at]))[:350]
                assert [-hit.score for hit in hits] == pytest.approx(wanted.tolist(), abs=1e-5)
        assert short


# --------------------------------------------------------------------------------------------- widths


def test_a_width_counts_after_loading_too(tmp_path: Path) -> None:
    """hnswlib saves no `ef`: its default of 10 would be back."""
    x, queries = normal(5_000, 32), normal(100, 32, seed=1)
    index = built(x, index=vk.HNSW(m=8, ef_construction=40))
    index.save(tmp_path / "index.bin")
    loaded = adapter.make_index(spec(32, index=vk.HNSW(m=8, ef_construction=40)))
    loaded.load(tmp_path / "index.bin")
    wanted = [set(np.argsort(distances(x, query))[:10].tolist()) for query in queries]

    def recall(one: Any, width: int) -> float:
        labels = one.search(queries, 10, allowed=None, width=width).tolist()
        return sum(len(set(row) & rows) for row, rows in zip(labels, wanted, strict=True)) / 1_000

    assert recall(index, 10) < 0.6
    assert recall(loaded, 1_000) > 0.95
    assert recall(loaded, 10) == recall(index, 10) < 0.6
    assert recall(loaded, 1_000) == recall(index, 1_000)


def test_searches_of_two_widths_at_once_are_both_wide_enough() -> None:
    """`ef` is one number in the graph: a narrow search that starts second must not narrow the first, nor wait for it."""
    x = normal(4_000, 32)
    index = built(x, index=vk.HNSW(m=8, ef_construction=40))
    queries = normal(4, 32, seed=1)
    alone = index.search(queries, 10, allowed=None, width=2_000)
    stop = threading.Event()

    def narrow() -> None:
        while not stop.is_set():
            index.search(queries[:1], 1, allowed=None, width=1)

    threads = [threading.Thread(target=narrow) for _ in range(3)]
    for thread in threads:
        thread.start()
    together = [index.search(queries, 10, allowed=None, width=2_000) for _ in range(150)]
    stop.set()
    for thread in threads:
        thread.join()
    assert [at for at, labels in enumerate(together) if not np.array_equal(labels, alone)] == []
    assert index._index.ef == 1
    assert index._searching == []


def test_a_wide_search_does_not_hold_up_a_narrow_one() -> None:
    x = normal(2_000, 16)
    index = built(x)
    finished = threading.Event()
    with index._at_least(2_000):  # a wide search is under way

        def narrow() -> None:
            index.search(x[:1], 1, allowed=None, width=1)
            finished.set()

        thread = threading.Thread(target=narrow, daemon=True)
        thread.start()
        assert finished.wait(10)
        assert index._index.ef == 2_000
    thread.join()
    assert index._index.ef == 1


# --------------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("length", [1e3, 1.0, 1e-4, 1e-8])
def test_short_vectors_under_dot_are_told_apart(length: float) -> None:
    """hnswlib's distance is 1 − product in float32: products of 1e-8 and less would all be the same."""
    x, queries = normal(2_000, 16) * np.float32(length), normal(40, 16, seed=1) * np.float32(length)
    index = built(x, "dot", vk.HNSW(m=16, ef_construction=100))
    labels = index.search(queries, 10, allowed=None, width=256).tolist()
    wanted = np.argsort(-(queries.astype(np.float64) @ x.T.astype(np.float64)), axis=1)[:, :10].tolist()
    assert sum(len(set(row) & set(rows)) for row, rows in zip(labels, wanted, strict=True)) >= 390


@pytest.mark.parametrize("length", [1e-12, 1e12])
def test_long_and_short_queries_under_dot(length: float) -> None:
    x = normal(500) * np.float32(1e14)
    query = normal(1, seed=1)
    labels = built(x, "dot").search(query * np.float32(length), 5, allowed=None, width=500)
    assert labels[0].tolist() == np.argsort(-(x.astype(np.float64) @ query[0]))[:5].tolist()
    assert (built(x, "dot").search(query * 0, 5, allowed=None, width=500) >= 0).all()


# --------------------------------------------------------------------------------------------- dimensions, capacity, files


@pytest.mark.parametrize("shape", [(1, 7), (1, 9), (2, 16), (8,)])
def test_another_dimension_is_refused(shape: tuple[int, ...]) -> None:
    index = built(normal(20))
    with pytest.raises(ValueError, match="expected rows of 8 dimensions"):
        index.search(np.ones(shape, np.float32), 1, allowed=None, width=10)
    with pytest.raises(ValueError, match="expected rows of 8 dimensions"):
        index.add(np.ones(shape, np.float32))
    assert index.size() == 20


def test_more_rows_than_announced_are_taken(tmp_path: Path) -> None:
    x = normal(300)
    index = built(x[:10], count=10)
    for start in range(10, 300, 29):
        index.add(x[start : start + 29])
    assert index.size() == 300
    index.save(tmp_path / "index.bin")
    loaded = adapter.make_index(spec())
    loaded.load(tmp_path / "index.bin")
    loaded.add(x)
    assert loaded.size() == 600
    nearest = loaded.search(x, 2, allowed=None, width=600)
    assert [sorted(row) for row in nearest.tolist()] == [[at, at + 300] for at in range(300)]


def test_a_file_of_another_dimension_or_degree_is_refused(tmp_path: Path) -> None:
    """The bare library loads a file of 16 dimensions into an index of 8, and answers with rows of it."""
    path = tmp_path / "index.bin"
    built(normal(50, 16)).save(path)
    for other in (spec(8), spec(32), spec(16, index=vk.HNSW(m=9))):
        with pytest.raises(RuntimeError, match="its header says otherwise"):
            adapter.make_index(other).load(path)
    adapter.make_index(spec(16)).load(path)


@pytest.mark.parametrize("length", [0, 50, 96, 200, -1, -500])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "index.bin"
    built(normal(50)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:length])
    index = adapter.make_index(spec())
    with pytest.raises(RuntimeError):
        index.load(path)
    path.write_bytes(data)
    index.load(path)
    assert index.search(normal(1), 1, allowed=None, width=9).tolist() == [[0]]


def test_a_header_that_would_overrun_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.bin"
    built(normal(50)).save(path)
    data = path.read_bytes()
    for at, value in ((8, struct.pack("=Q", 10)), (52, struct.pack("=I", 50))):  # the capacity; where a search begins
        path.write_bytes(data[:at] + value + data[at + len(value) :])
        with pytest.raises(RuntimeError, match="its header says otherwise"):
            adapter.make_index(spec()).load(path)


def test_a_write_that_failed_is_noticed(tmp_path: Path) -> None:
    """The bare library writes what it can and says nothing."""
    index = built(normal(50))
    with pytest.raises(OSError, match=r"index\.bin"):
        index.save(tmp_path / "no such folder" / "index.bin")
    full = Path("/dev/full")
    if full.exists():
        with pytest.raises(RuntimeError, match="hnswlib wrote 0 bytes of"):
            index.save(full)
    (tmp_path / "größer").mkdir()
    index.save(tmp_path / "größer" / "index.bin")
    assert (tmp_path / "größer" / "index.bin").stat().st_size == index._index.index_file_size()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_at_the_index_loses_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vk.connect(f"hnswlib://{tmp_path}") as store:
        docs = store.create_collection(spec())
        x = normal(100)
        docs.upsert(vk.Batch([str(n) for n in range(100)], x))
        monkeypatch.setattr(adapter.os, "fsencode", lambda path: b"/dev/full")
        with pytest.raises(vk.Unavailable, match="the index could not be written"):
            docs.optimize()
        monkeypatch.undo()
        assert docs.query(x[7], k=1).ids == ["7"]
        docs.optimize()
        assert docs.stats().indexed == 100
        assert docs.query(x[7], k=1).ids == ["7"]


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_graph_is_loaded_back_by_the_engine(tmp_path: Path, metric: Any) -> None:
    x = normal(400)
    queries = normal(20, seed=1)
    answers = []
    built = set()
    for reopened in (False, True):
        with vk.connect(f"hnswlib://{tmp_path}") as store:
            if not reopened:
                docs = store.create_collection(spec(metric=metric))
                docs.upsert(vk.Batch([str(n) for n in range(400)], x))
                docs.optimize()
            docs = store.collection("a")
            answers.append([docs.query(query, k=5) for query in queries])
            assert docs.stats().indexed == 400
            assert "HNSW over 400 rows" in answers[-1][0].path
            (found,) = tmp_path.glob("c/a@1/index/*")
            built.add(found.name)
    assert len(built) == 1, "it was built again instead of loaded"
    assert [hits.ids for hits in answers[0]] == [hits.ids for hits in answers[1]]


@pytest.mark.parametrize(
    ("index", "use"),
    [
        (vk.IVF(), r"use HNSW\(\) or Flat\(\)"),
        (vk.HNSW(quantization="sq8"), r"no sq8 quantization; use HNSW\(quantization=None\)"),
        (vk.HNSW(quantization="rabitq"), r"no rabitq quantization"),
    ],
)
def test_what_hnswlib_has_not_is_refused_by_name(tmp_path: Path, index: Any, use: str) -> None:
    with vk.connect(f"hnswlib://{tmp_path}") as store:
        with pytest.raises(vk.Unsupported, match=use):
            store.create_collection(vk.CollectionSpec("a", dimension=2, index=index))
        assert store.collections() == []


# --------------------------------------------------------------------------------------------- against brute force


@effort(150)
@given(
    count=st.integers(1, 120),
    dimension=st.integers(1, 12),
    metric=st.sampled_from(["cosine", "dot", "l2"]),
    k=st.integers(1, 130),
    share=st.sampled_from([None, 0.0, 0.05, 0.3, 0.8, 1.0]),
    equal=st.sampled_from([0, 0, 3, 40]),
    queries=st.sampled_from([1, 3, 30]),
    seed=st.integers(0, 10_000),
)
def test_a_search_as_wide_as_the_index_is_brute_force(
    count: int, dimension: int, metric: Any, k: int, share: float | None, equal: int, queries: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    x, q = normal(count, dimension, seed), normal(queries, dimension, seed + 1)
    x[:equal] = x[0]
    if metric == "cosine":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        q /= np.linalg.norm(q, axis=1, keepdims=True)
    allowed = None if share is None else random.random(count) < share
    near = np.arange(count) if allowed is None else np.flatnonzero(allowed)
    index = built(x, metric, vk.HNSW(m=16, ef_construction=100))
    labels = index.search(q, k, allowed=allowed, width=count)
    assert labels.shape == (queries, k)
    for row, query in zip(labels.tolist(), q.astype(np.float64), strict=True):
        found = [label for label in row if label >= 0]
        assert row == found + [-1] * (k - len(found))
        assert len(set(found)) == len(found)
        assert set(found) <= set(near.tolist())
        far = distances(x, query) if metric == "l2" else -(x.astype(np.float64) @ query)
        if not index._islands:
            assert len(found) == min(k, len(near))
            assert far[found].tolist() == pytest.approx(np.sort(far[near])[: len(found)].tolist(), abs=2e-5, rel=2e-5)


@effort(25)
@given(
    count=st.integers(1, 60),
    metric=st.sampled_from(["cosine", "dot", "l2"]),
    k=st.integers(1, 70),
    year=st.integers(0, 10),
    deleted=st.integers(0, 10),
    added=st.integers(0, 10),
    seed=st.integers(0, 10_000),
)
def test_the_engine_over_the_graph_is_brute_force(
    tmp_path_factory: pytest.TempPathFactory,
    count: int, metric: Any, k: int, year: int, deleted: int, added: int, seed: int,
) -> None:  # fmt: skip
    x, queries = normal(count + added, 4, seed), normal(3, 4, seed + 1)
    years = np.arange(count + added) % 10
    made = vk.CollectionSpec("a", 4, metric=metric, index=vk.HNSW(m=4, full_scan_threshold=0), fields={"year": int})
    with vk.connect(f"hnswlib://{tmp_path_factory.mktemp('kb')}") as store:
        docs = store.create_collection(made)

        def put(start: int, end: int) -> None:
            rows = range(start, end)
            docs.upsert(vk.Record(f"{n:03}", x[n], None, {"year": int(years[n])}) for n in rows)

        put(0, count)
        docs.optimize()
        put(count, count + added)
        docs.delete(ids=[f"{n:03}" for n in range(deleted)])
        near = np.flatnonzero((years < year) & (np.arange(count + added) >= min(deleted, count + added)))
        for query in queries.astype(np.float64):
            hits = docs.query(query, k=k, where=F("year") < year, ef_search=count + added)
            rows = x[near].astype(np.float64)
            if metric == "cosine":
                scores = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
            else:
                scores = rows @ query if metric == "dot" else -distances(rows, query)
            assert sorted(hits.ids) == sorted(f"{n:03}" for n in near[np.argsort(-scores)[:k]])
            assert [hit.score for hit in hits] == pytest.approx(np.sort(scores)[::-1][:k].tolist(), abs=1e-5)


def test_a_width_beyond_any_integer_is_all_rows(tmp_path: Path) -> None:
    x = normal(300)
    with vk.connect(f"hnswlib://{tmp_path}") as store:
        docs = store.create_collection(spec(metric="cosine"))
        docs.upsert(vk.Batch([str(n) for n in range(300)], x))
        docs.optimize()
        for width in (2**70, 2**31, 5):
            assert docs.query(x[7], k=1, ef_search=width).ids == ["7"]
