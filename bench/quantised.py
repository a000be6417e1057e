"""What each FAISS kind finds, costs and weighs: the table of docs/decisions/0006-which-quantised-kinds.md.

    python bench/quantised.py [--rows 20000] [--dimensions 128,384] [--only faiss-ivf]

Recall is of the true ten nearest, after re-scoring, at the width and spare that `optimize()` would choose.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import faiss as _stubbed
import numpy as np

import vectorkit as vk
from vectorkit.local.ann import calibrate
from vectorkit.types import FloatArray
from vectorkit_faiss.indexes import GraphIndex, InvertedIndex

faiss: Any = _stubbed  # its stubs show other signatures than it has
K = 10


class _Graph(GraphIndex):
    """A graph over codes that are not offered, or with other bits."""

    name: ClassVar[str | None] = None

    def build(self, sample: FloatArray, count: int) -> None:
        if self.name is None:
            super().build(sample, count)
            return
        dimension = self._spec.dimension
        size, bits = {"pq8": (4, 8), "pq4": (2, 4)}[self.name]
        index = faiss.IndexHNSWPQ(dimension, dimension // size, self._parameters.m, bits, self._metric)
        index.hnsw.efConstruction = self._parameters.ef_construction
        product = faiss.downcast_index(index.storage)
        product.do_polysemous_training = False
        product.pq.cp.niter, product.pq.cp.min_points_per_centroid, product.pq.cp.max_points_per_centroid = 10, 1, 64
        index.train(sample)
        self._index = index


class _Inverted(InvertedIndex):
    """An inverted file over codes that are not offered, or with other bits."""

    name: ClassVar[str | None] = None

    def build(self, sample: FloatArray, count: int) -> None:
        super().build(sample, count)
        if self.name == "pq8":
            dimension, lists = self._spec.dimension, self._lists
            flat = faiss.IndexFlat(dimension, self._metric)
            index = faiss.IndexIVFPQ(flat, dimension, lists, dimension // 4, 8, self._metric)
            index.own_fields = True
            flat.this.disown()
            for clustering in (index.cp, index.pq.cp):
                clustering.niter, clustering.min_points_per_centroid, clustering.max_points_per_centroid = 10, 1, 64
            index.train(sample)
            self._index = index


def variants(dimension: int) -> list[tuple[str, Any]]:
    """(what it is called, an index) for each kind, offered or not."""

    def of(index: vk.HNSW | vk.IVF) -> vk.CollectionSpec:
        return vk.CollectionSpec("bench", dimension, index=index)

    made: list[tuple[str, Any]] = []
    scalar: tuple[Literal["fp16", "sq8"] | None, ...] = (None, "fp16", "sq8")
    for codes in scalar:
        index = vk.HNSW(quantization=codes)
        made.append((f"HNSW {codes or 'full'}", GraphIndex(of(index), index)))
    for bits in (1, 2, 4):
        index = vk.HNSW(quantization="rabitq")
        made.append((f"HNSW rabitq, {bits} bit", type("G", (_Graph,), {"bits": bits})(of(index), index)))
    for name in ("pq4", "pq8"):
        index = vk.HNSW(quantization="pq")
        made.append((f"HNSW {name}", type("G", (_Graph,), {"name": name})(of(index), index)))
    offered: tuple[Literal["fp16", "sq8", "pq"] | None, ...] = (*scalar, "pq")
    for chosen in offered:
        file = vk.IVF(quantization=chosen)
        made.append((f"IVF {chosen or 'full'}", InvertedIndex(of(file), file)))
    for bits in (1, 2, 4):
        file = vk.IVF(quantization="rabitq")
        made.append((f"IVF rabitq, {bits} bit", type("I", (_Inverted,), {"bits": bits})(of(file), file)))
    file = vk.IVF(quantization="pq")
    made.append(("IVF pq8", type("I", (_Inverted,), {"name": "pq8"})(of(file), file)))
    return made


def data(kind: str, rows: int, dimension: int) -> tuple[FloatArray, FloatArray]:
    """Unit vectors and 200 queries of the same distribution: normal, or around 200 centres."""
    random = np.random.default_rng(7)
    centres = random.normal(size=(200, dimension))
    made = random.normal(size=(rows + 200, dimension))
    if kind == "clustered":
        made = centres[random.integers(0, 200, rows + 200)] + 0.5 * made
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made[:rows].astype(np.float32), made[rows:].astype(np.float32)


def measured(index: Any, matrix: FloatArray, queries: FloatArray) -> dict[str, Any]:
    """Seconds of training and adding, bytes a row, and recall and microseconds a query at the measured defaults."""
    begun = time.perf_counter()
    picked = np.random.default_rng(0).permutation(len(matrix))[: index.training]
    index.build(matrix[np.sort(picked)], len(matrix))
    trained = time.perf_counter()
    index.add(matrix)
    added = time.perf_counter()
    found = calibrate(index, matrix, "cosine", None)
    width, spare = found or (index.widths[-1], 64)
    truth = np.argpartition(-(queries @ matrix.T), K, axis=1)[:, :K]
    near, times = [], []
    for at, query in enumerate(queries):
        start = time.perf_counter()
        labels = index.search(query[None], min(K * spare + 8, len(matrix)), allowed=None, width=width)[0]
        labels = labels[labels >= 0]
        best = labels[np.argsort(-(matrix[labels] @ query))[:K]]
        times.append(time.perf_counter() - start)
        near.append(len(np.intersect1d(best, truth[at])) / K)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        index.save(path)
        size = path.stat().st_size
    return {
        "train": trained - begun,
        "add": added - trained,
        "bytes": size / len(matrix),
        "width": width,
        "spare": spare,
        "recall": float(np.mean(near)),
        "micros": 1e6 * float(np.median(times)),
        "kept": found is not None,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimensions", default="128,384")
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    print("| data | kind | train s | add s | bytes/row | width | spare | recall@10 | µs/query | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for dimension in map(int, asked.dimensions.split(",")):
        for kind in ("clustered", "random"):
            matrix, queries = data(kind, asked.rows, dimension)
            for name, index in variants(dimension):
                if asked.only not in name:
                    continue
                m = measured(index, matrix, queries)
                told = "" if m["kept"] else "exact instead"
                print(
                    f"| {kind} {asked.rows:,} × {dimension} | {name} | {m['train']:.1f} | {m['add']:.1f} | {m['bytes']:.0f} "
                    f"| {m['width']} | {m['spare']} | {m['recall']:.3f} | {m['micros']:.0f} | {told} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
