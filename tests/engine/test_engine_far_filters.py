"""Filters that keep rows which lie elsewhere than the query: a graph that is led by such a filter finds a third of the true answers."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F

ROWS, DIMENSION, CLUSTERS, QUERIES = 60_000, 32, 100, 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "index"),
    [
        ("faiss", vk.HNSW(ef_construction=60)),
        ("faiss", vk.HNSW(ef_construction=60, quantization="sq8")),
        ("faiss", vk.IVF()),
        ("hnswlib", vk.HNSW(ef_construction=60)),
    ],
    ids=["faiss-hnsw", "faiss-hnsw-sq8", "faiss-ivf", "hnswlib"],
)
def test_recall_where_the_kept_rows_are_far(scheme: str, index: Any, tmp_path: Path) -> None:
    if scheme == "hnswlib" and importlib.util.find_spec("hnswlib") is None:
        pytest.skip("hnswlib is not installed; tests/conftest.py says why")
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLUSTERS, DIMENSION))
    cluster = random.integers(0, CLUSTERS, ROWS)
    vectors = (centres[cluster] + random.normal(size=(ROWS, DIMENSION)) * 0.6).astype(np.float32)
    asked = centres[random.integers(60, CLUSTERS, QUERIES)] + random.normal(size=(QUERIES, DIMENSION)) * 0.6
    spec = vk.CollectionSpec(
        "a", dimension=DIMENSION, metric="l2", index=index, fields={"cluster": int, "n": int}, text=False
    )
    with vk.connect(f"{scheme}://{tmp_path}") as store:
        docs = store.create_collection(spec)
        docs.upsert(
            vk.Batch(
                [str(n) for n in range(ROWS)],
                vectors,
                None,
                [{"cluster": int(c), "n": n % 100} for n, c in enumerate(cluster)],
            )
        )
        docs.optimize()
        assert docs.stats().indexed == ROWS
        for where in (F("cluster") < 22, F("cluster") < 52, F("cluster") < 70, F("n") < 25, F("n") < 55):
            shares = []
            for query in asked:
                found, true = (docs.query(query, k=10, where=where, exact=exact) for exact in (False, True))
                assert len(found) == 10
                shares.append(len({*found.ids} & {*true.ids}) / 10)
            assert float(np.mean(shares)) >= 0.95, where


@pytest.mark.parametrize("scheme", ["faiss", "hnswlib"])
def test_newer_rows_do_not_hide_what_the_graph_missed(scheme: str, tmp_path: Path) -> None:
    """The filter drops all that the graph finds; rows newer than it are enough to fill k, and farther than what it holds."""
    if scheme == "hnswlib" and importlib.util.find_spec("hnswlib") is None:
        pytest.skip("hnswlib is not installed; tests/conftest.py says why")
    random = np.random.default_rng(1)
    noise = random.normal(size=(1_020, 8)).astype(np.float32) * 0.01
    noise[:, 0] += np.repeat([0, 5, 50], [700, 300, 20])  # dropped and near, kept, kept but newer and far
    kept = [{"kept": int(n >= 700)} for n in range(1_020)]
    ids = [str(n) for n in range(1_020)]
    spec = vk.CollectionSpec("a", dimension=8, metric="l2", index=vk.HNSW(full_scan_threshold=0), fields={"kept": int})
    with vk.connect(f"{scheme}://{tmp_path}") as store:
        docs = store.create_collection(spec)
        docs.upsert(vk.Batch(ids[:1_000], noise[:1_000], None, kept[:1_000]))
        docs.optimize()
        docs.upsert(vk.Batch(ids[1_000:], noise[1_000:], None, kept[1_000:]))
        found, true = (docs.query([0.0] * 8, k=10, where=F("kept") == 1, exact=exact) for exact in (False, True))
        assert docs.stats().indexed == 1_000
        assert found.ids == true.ids
        assert all(700 <= int(id) < 1_000 for id in found.ids)  # noqa: A001
