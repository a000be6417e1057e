"""FAISS as an `AnnIndex` of the embedded engine, which keeps rows, filters, durability and exact search itself.

`Flat` needs no FAISS: the engine's own matrix search is exact and faster.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from vectorkit.adapter import Backend, Target
from vectorkit.errors import Unsupported
from vectorkit.local.adapter import LocalAdapter, open_local
from vectorkit.local.options import LocalOptions
from vectorkit.runtime import Runtime
from vectorkit.types import HNSW, IVF, CollectionSpec, FloatArray

SINGLE = 8  # up to so many queries are searched by one thread: OpenMP's second costs more than it brings


class FaissHNSW:
    """faiss.IndexHNSWFlat over prepared vectors: inner product, or squared L2."""

    kind = "faiss-hnsw"
    lossy = False
    training = 0
    widths = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)

    def __init__(self, spec: CollectionSpec, index: HNSW) -> None:
        self._spec = spec
        self._parameters = index
        self._index: Any = None

    def build(self, sample: FloatArray, count: int) -> None:
        metric = faiss.METRIC_L2 if self._spec.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self._index = faiss.IndexHNSWFlat(self._spec.dimension, self._parameters.m, metric)
        self._index.hnsw.efConstruction = self._parameters.ef_construction

    def add(self, vectors: FloatArray) -> None:
        self._index.add(np.ascontiguousarray(vectors))

    def search(
        self, queries: FloatArray, k: int, *, allowed: npt.NDArray[np.bool_] | None, width: int
    ) -> npt.NDArray[np.int64]:
        parameters = faiss.SearchParametersHNSW(efSearch=max(min(width, self.size()), k))  # type: ignore[attr-defined]
        if allowed is not None:  # the bitmap must outlive the search: FAISS keeps a bare pointer to it
            bits = np.packbits(allowed, bitorder="little")
            parameters.sel = selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
        threads = faiss.omp_get_max_threads()
        if len(queries) <= SINGLE and threads != 1:
            faiss.omp_set_num_threads(1)
        try:
            _, labels = self._index.search(np.ascontiguousarray(queries), k, params=parameters)
        finally:
            if len(queries) <= SINGLE and threads != 1:
                faiss.omp_set_num_threads(threads)
            if allowed is not None:
                del selector, bits
        return np.asarray(labels, np.int64)

    def save(self, path: Path) -> None:
        faiss.write_index(self._index, str(path))

    def load(self, path: Path) -> None:
        index = faiss.read_index(str(path))
        if not isinstance(index, faiss.IndexHNSWFlat) or index.d != self._spec.dimension:
            raise RuntimeError(
                f"expected an HNSW index of {self._spec.dimension} dimensions, got {type(index).__name__}"
            )
        self._index = index

    def size(self) -> int:
        return int(self._index.ntotal)


def make_index(spec: CollectionSpec) -> FaissHNSW | None:
    """The approximate index of a collection, None for Flat."""
    return FaissHNSW(spec, spec.index) if isinstance(spec.index, HNSW) else None


def check(spec: CollectionSpec) -> None:
    """Refuse an index that this version does not build."""
    if isinstance(spec.index, IVF):
        raise Unsupported("faiss has no IVF index in this version of vectorkit; use HNSW() or Flat()")
    if isinstance(spec.index, HNSW) and spec.index.quantization is not None:
        raise Unsupported(
            f"faiss has no {spec.index.quantization} quantization in this version of vectorkit; leave it None"
        )


async def _open(target: Target, runtime: Runtime) -> LocalAdapter:
    return await open_local(
        target, runtime, store="faiss", indexes=frozenset({"flat", "hnsw"}), make_index=make_index, check=check
    )


BACKEND = Backend(store="faiss", open=_open, place="directory", options=LocalOptions)
