"""hnswlib as an `AnnIndex` of the embedded engine, which keeps rows, filters, durability and exact search itself.

The library checks little (dimensions, its file, what it could write) and fails where a graph gives fewer rows than asked; it is
checked here. Rows are never deleted in it: the engine masks them.
"""

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import numpy.typing as npt

from vectorkit.adapter import Backend, Target
from vectorkit.errors import Unsupported
from vectorkit.local.adapter import LocalAdapter, open_local
from vectorkit.local.options import LocalOptions
from vectorkit.runtime import Runtime
from vectorkit.types import HNSW, IVF, CollectionSpec, FloatArray

SINGLE = 8  # up to so many queries are searched by one thread: starting another costs more than it brings
WIDEST = 1_024  # a filter widens the search to this, or a 16th of the rows; what is then short the engine finds exactly, sooner
CELLS = 2**22  # labels held at a time
HEADER = struct.Struct("=6QiI3QdQ")  # the members of hnswlib's graph as a 64-bit machine has them in memory
LENGTH = 8_192.0  # of queries under dot, and what rows are multiplied by: see `_scaled`


class HnswlibHNSW:
    """hnswlib.Index over prepared vectors: inner product, or squared L2."""

    kind = "hnswlib-hnsw"
    lossy = False
    training = 0
    widths = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)

    def __init__(self, spec: CollectionSpec, index: HNSW) -> None:
        self._spec = spec
        self._parameters = index
        self._index: Any = None
        self._islands = False
        self._searching: list[int] = []
        self._lock = threading.Lock()

    def _new(self) -> Any:
        return hnswlib.Index("l2" if self._spec.metric == "l2" else "ip", self._spec.dimension)

    def build(self, sample: FloatArray, count: int) -> None:
        self._index, self._islands = self._new(), False
        self._index.init_index(max(count, 1), M=self._parameters.m, ef_construction=self._parameters.ef_construction)

    def add(self, vectors: FloatArray) -> None:
        start, rows = self.size(), self._checked(vectors)
        if not len(rows):
            return
        room = self._index.get_max_elements()
        if start + len(rows) > room:
            self._index.resize_index(max(start + len(rows), room + room // 2))
        self._index.add_items(rows * np.float32(LENGTH) if self._dot else rows, np.arange(start, start + len(rows)))

    def search(
        self, queries: FloatArray, k: int, *, allowed: npt.NDArray[np.bool_] | None, width: int
    ) -> npt.NDArray[np.int64]:
        rows, count = self._scaled(self._checked(queries)), self.size()
        out = np.full((len(rows), k), -1, np.int64)
        room = count if allowed is None else int(np.count_nonzero(allowed))
        wanted = min(k, room)
        if not wanted:
            return out
        if allowed is None:
            out[:, :wanted] = self._nearest(rows, wanted, width)
            return out
        # More than are wanted, and the filter afterwards: hnswlib would call Python for each row it passes, holding the GIL.
        fetch = min(count, 8 + int(1.5 * wanted * count / room))
        widest = min(count, max(WIDEST, count // 16, fetch))
        pending = np.arange(len(rows))
        while True:
            short = []
            for start in range(0, len(pending), step := max(1, CELLS // fetch)):
                part = pending[start : start + step]
                labels = self._nearest(rows[part], fetch, width)
                keep = allowed[labels] & (labels >= 0)
                best = np.argsort(~keep, axis=1, kind="stable")[:, :wanted]
                out[part, :wanted] = np.take_along_axis(np.where(keep, labels, -1), best, axis=1)
                more = labels[:, -1] >= 0  # else the search came to the end of what it can reach
                short.append(part[more & (np.count_nonzero(keep, axis=1) < wanted)])
            pending = np.concatenate(short)
            if not len(pending) or fetch == widest:
                return out
            fetch = min(4 * fetch, widest)

    def _nearest(self, rows: FloatArray, k: int, width: int) -> npt.NDArray[np.int64]:
        """The k rows of the graph nearest to each query, -1 where the search reaches fewer."""
        with self._at_least(max(k, width)):
            if not self._islands:
                try:
                    labels, _ = self._index.knn_query(rows, k, num_threads=1 if len(rows) <= SINGLE else -1)
                    return np.asarray(labels, np.int64)
                except RuntimeError as error:
                    if "contiguous 2D array" not in str(error):
                        raise
                    # Some rows, often many equal ones, link to each other alone. hnswlib loses the memory of the answer with
                    # each such failure, so from now on what can be reached is counted first.
                    self._islands = True
            out = np.full((len(rows), k), -1, np.int64)
            for at, row in enumerate(rows):
                passed: set[int] = set()
                self._index.knn_query(row, 1, num_threads=1, filter=_into(passed))
                reached = min(k, len(passed))
                out[at, :reached] = self._index.knn_query(row, reached, num_threads=1)[0]
            return out

    @contextmanager
    def _at_least(self, width: int) -> Iterator[None]:
        """Hold the graph's `ef` at this width or above: it is one number for all threads, and not saved in the file.

        It is the widest of the searches under way, so that none is narrower than it asked for and none waits for another.
        """
        width = min(width, max(1, self.size()))  # beyond what a C integer holds, set_ef raises
        with self._lock:
            self._searching.append(width)
            self._index.set_ef(max(self._searching))
        try:
            yield
        finally:
            with self._lock:
                self._searching.remove(width)
                self._index.set_ef(max(self._searching, default=1))

    @property
    def _dot(self) -> bool:
        return self._spec.metric == "dot"

    def _scaled(self, queries: FloatArray) -> FloatArray:
        """hnswlib ranks by 1 − product in float32, where the products of short vectors are all 1: they are made long first."""
        if not self._dot:
            return queries
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
        return np.asarray(queries * (LENGTH / np.maximum(lengths, 1e-300)), np.float32)

    def _checked(self, vectors: FloatArray) -> FloatArray:
        if vectors.ndim != 2 or vectors.shape[1] != self._spec.dimension:
            raise ValueError(f"expected rows of {self._spec.dimension} dimensions, got {vectors.shape}")
        return np.ascontiguousarray(vectors, np.float32)

    def save(self, path: Path) -> None:
        self._index.save_index(os.fsencode(path))
        size, whole = path.stat().st_size, self._index.index_file_size()
        if size != whole:  # hnswlib does not look whether its writes succeed
            raise RuntimeError(f"the disk is full or failing: hnswlib wrote {size} bytes of {whole}")

    def load(self, path: Path) -> None:
        m, d = self._parameters.m, self._spec.dimension
        with path.open("rb") as file:
            head = file.read(HEADER.size)
        if len(head) < HEADER.size:
            raise RuntimeError("the file of the graph is too short")
        first, capacity, count, row, label, data, _, entry, links, links0, *_ = HEADER.unpack(head)
        sizes = (0, 8 * m + 4 * d + 12, 8 * m + 4 * d + 4, 8 * m + 4, m, 2 * m)
        if (first, row, label, data, links, links0) != sizes or not entry < count <= capacity:
            raise RuntimeError(f"expected an HNSW graph of {d} dimensions and {m} links, its header says otherwise")
        index = self._new()
        index.load_index(os.fsencode(path))
        self._index, self._islands = index, False

    def size(self) -> int:
        return int(self._index.get_current_count())


def _into(passed: set[int]) -> Callable[[int], bool]:
    """A filter that lets every row through and keeps its label."""

    def allow(label: int) -> bool:
        passed.add(label)
        return True

    return allow


def make_index(spec: CollectionSpec) -> HnswlibHNSW | None:
    """The approximate index of a collection, None for Flat."""
    return HnswlibHNSW(spec, spec.index) if isinstance(spec.index, HNSW) else None


def check(spec: CollectionSpec) -> None:
    """Refuse an index that hnswlib does not have."""
    if isinstance(spec.index, IVF):
        raise Unsupported("hnswlib has no IVF index; use HNSW() or Flat()")
    if isinstance(spec.index, HNSW) and spec.index.quantization is not None:
        raise Unsupported(
            f"hnswlib has no {spec.index.quantization} quantization; use HNSW(quantization=None) or Flat()"
        )


async def _open(target: Target, runtime: Runtime) -> LocalAdapter:
    return await open_local(
        target, runtime, store="hnswlib", indexes=frozenset({"flat", "hnsw"}), make_index=make_index, check=check
    )


BACKEND = Backend(store="hnswlib", open=_open, place="directory", options=LocalOptions)
