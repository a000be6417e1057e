"""FAISS indexes as `AnnIndex`: graphs (HNSW) and inverted files (IVF), over full vectors or over codes of them.

Which combinations are offered, and what each costs, is in `kinds.py`. Whatever FAISS raises leaves as RuntimeError.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss as _stubbed
import numpy as np
import numpy.typing as npt

from vectorkit.local.ann import AnnIndex
from vectorkit.types import HNSW, IVF, CollectionSpec, FloatArray
from vectorkit_faiss.kinds import RABITQ_BITS, SAMPLE_BYTES, SAMPLE_ROWS, parts, sized_lists

faiss: Any = _stubbed  # its stubs show other signatures than it has
SINGLE = 8  # up to so many queries are searched by one thread: OpenMP's second costs more than it brings
ROUNDS = 6  # of k-means: more bring nothing that recall shows
POINTS = 40  # a centroid is trained on so many rows at most; FAISS wants 39


@contextmanager
def _errors() -> Iterator[None]:
    """FAISS raises AssertionError, TypeError, MemoryError and RuntimeError alike."""
    try:
        yield
    except RuntimeError:
        raise
    except Exception as error:
        raise RuntimeError(f"FAISS: {type(error).__name__}: {error}") from error


def _metric(spec: CollectionSpec) -> int:
    """RaBitQ graphs know L2 alone, which orders unit vectors as their inner product does."""
    if spec.metric == "l2" or (spec.metric == "cosine" and _codes(spec) == "rabitq"):
        return int(faiss.METRIC_L2)
    return int(faiss.METRIC_INNER_PRODUCT)


def _codes(spec: CollectionSpec) -> str | None:
    return getattr(spec.index, "quantization", None)


def _scalar(codes: str) -> int:
    quantizer = faiss.ScalarQuantizer
    return int(quantizer.QT_8bit if codes == "sq8" else quantizer.QT_fp16)


class _Index(ABC):
    """What graphs and inverted files share. `_index` is the FAISS index, None before `build` and `load`."""

    kind: str
    training: int
    bits = RABITQ_BITS

    def __init__(self, spec: CollectionSpec) -> None:
        self._spec = spec
        self._codes = _codes(spec)
        self._metric = _metric(spec)
        self._index: Any = None
        self.lossy = self._codes is not None
        self._width = spec.dimension + (spec.dimension % 2 if self._codes == "pq" else 0)

    def add(self, vectors: FloatArray) -> None:
        with _errors():
            self._index.add(self._rows(vectors))

    def _rows(self, vectors: FloatArray) -> FloatArray:
        """As FAISS wants them, with a zero more where the codes need an even dimension."""
        rows = np.ascontiguousarray(vectors, np.float32)
        short = self._width - self._spec.dimension
        return np.pad(rows, ((0, 0), (0, short))) if short else rows

    def _search(
        self, queries: FloatArray, k: int, allowed: npt.NDArray[np.bool_] | None, parameters: Any
    ) -> npt.NDArray[np.int64]:
        if allowed is not None:  # the bitmap must outlive the search: FAISS keeps a bare pointer to it
            bits = np.packbits(allowed, bitorder="little")
            parameters.sel = selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bits))
        # The number of threads is the calling thread's own in libgomp and libomp. Where a runtime shares it, another thread's
        # search may run on one thread too: only ever what was found above 1 is put back, so it cannot stay at 1.
        threads = faiss.omp_get_max_threads() if len(queries) <= SINGLE else 1
        if threads != 1:
            faiss.omp_set_num_threads(1)
        try:
            _, labels = self._index.search(self._rows(queries), k, params=parameters)
        except RuntimeError:
            raise
        except Exception as error:
            raise RuntimeError(f"FAISS: {type(error).__name__}: {error}") from error
        finally:
            if threads != 1:
                faiss.omp_set_num_threads(threads)
            if allowed is not None:
                del selector, bits
        return np.asarray(labels, np.int64)

    def save(self, path: Path) -> None:
        with _errors():
            faiss.write_index(self._index, str(path))

    def load(self, path: Path) -> None:
        with _errors():
            index = faiss.read_index(str(path))
        if index.d != self._width:
            raise RuntimeError(f"expected {self._width} dimensions, the index has {index.d}")
        if index.metric_type != self._metric:
            raise RuntimeError(f"expected FAISS metric {self._metric}, the index has {index.metric_type}")
        if (told := self._mismatch(index)) is not None:
            raise RuntimeError(f"expected {self.kind}, got {type(index).__name__}: {told}")
        self._index = index

    @abstractmethod
    def _mismatch(self, index: Any) -> str | None:
        """Why a loaded index is not of this kind; None when it is."""

    def size(self) -> int:
        return int(self._index.ntotal)


def _sample(rows: FloatArray, needed: int) -> FloatArray:
    """At least so many rows: k-means refuses fewer than it has centroids, so few rows are taken more than once."""
    return rows if len(rows) >= needed else np.resize(rows, (needed, rows.shape[1]))


def _gently(clustering: Any) -> None:
    """K-means on what there is, without warnings on standard error, in bounded time."""
    clustering.niter = ROUNDS
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = POINTS
    clustering.seed = 1_234


class GraphIndex(_Index):
    """HNSW over full vectors (IndexHNSWFlat), scalar codes (IndexHNSWSQ) or RaBitQ codes (IndexHNSWRaBitQ)."""

    widths = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)

    def __init__(self, spec: CollectionSpec, index: HNSW) -> None:
        super().__init__(spec)
        self._parameters = index
        self.training = min(SAMPLE_ROWS, 65_536) if self.lossy else 0
        self.kind = "faiss-hnsw" + ("" if self._codes is None else f"-{self._codes}")
        if self._codes == "rabitq":
            self.kind += str(self.bits)

    def build(self, sample: FloatArray, count: int) -> None:
        dimension, m = self._spec.dimension, self._parameters.m
        with _errors():
            match self._codes:
                case "sq8" | "fp16":
                    index = faiss.IndexHNSWSQ(dimension, _scalar(self._codes), m, self._metric)
                case "rabitq":
                    index = faiss.index_factory(dimension, f"HNSW{m}_RaBitQ{self.bits}", self._metric)
                case _:
                    index = faiss.IndexHNSWFlat(dimension, m, self._metric)
            index.hnsw.efConstruction = self._parameters.ef_construction
            if not index.is_trained:
                index.train(np.ascontiguousarray(sample, np.float32))
        self._index = index

    def search(
        self, queries: FloatArray, k: int, *, allowed: npt.NDArray[np.bool_] | None, width: int
    ) -> npt.NDArray[np.int64]:
        kept = max(min(width, self.size()), k)
        return self._search(queries, k, allowed, faiss.SearchParametersHNSW(efSearch=kept))

    def _mismatch(self, index: Any) -> str | None:
        match self._codes:
            case "sq8" | "fp16":
                wanted = faiss.IndexHNSWSQ
            case "rabitq":
                wanted = faiss.IndexHNSWRaBitQ
            case _:
                wanted = faiss.IndexHNSWFlat
        if type(index) is not wanted:
            return "another type of index"
        storage = faiss.downcast_index(index.storage)
        if storage.ntotal != index.ntotal or index.hnsw.levels.size() != index.ntotal:
            return "links and vectors are not of the same rows"
        return _codec_mismatch(self._codes, storage, self.bits)


class InvertedIndex(_Index):
    """IVF over full vectors (IndexIVFFlat), scalar codes (IndexIVFScalarQuantizer), product codes (IndexIVFPQFastScan) or
    RaBitQ codes (IndexIVFRaBitQ)."""

    def __init__(self, spec: CollectionSpec, index: IVF) -> None:
        super().__init__(spec)
        self._parameters = index
        wanted = SAMPLE_ROWS if index.lists is None else max(POINTS * index.lists, 16_384)
        self.training = min(SAMPLE_ROWS, wanted, max(1_024, SAMPLE_BYTES // (4 * spec.dimension)))
        self.kind = "faiss-ivf" + ("" if self._codes is None else f"-{self._codes}")
        if self._codes == "pq":
            self.kind += f"4x{parts(spec.dimension)}"
        if self._codes == "rabitq":
            self.kind += str(self.bits)

    @property
    def widths(self) -> tuple[int, ...]:
        if self._parameters.probes is not None:
            return (min(self._parameters.probes, self._lists),)
        return ladder(self._lists)

    @property
    def _lists(self) -> int:
        return 1 if self._index is None else int(self._index.nlist)

    def build(self, sample: FloatArray, count: int) -> None:
        dimension = self._width
        lists = min(self._parameters.lists or sized_lists(count), max(1, len(sample)))
        with _errors():
            flat = faiss.IndexFlat(dimension, self._metric)
            match self._codes:
                case "sq8" | "fp16":
                    index = faiss.IndexIVFScalarQuantizer(flat, dimension, lists, _scalar(self._codes), self._metric)
                case "pq":
                    index = faiss.IndexIVFPQFastScan(flat, dimension, lists, parts(dimension), 4, self._metric)
                    index.by_residual = self._spec.metric != "dot"
                    _gently(index.pq.cp)
                case "rabitq":
                    index = faiss.IndexIVFRaBitQ(flat, dimension, lists, self._metric, True, self.bits)
                case _:
                    index = faiss.IndexIVFFlat(flat, dimension, lists, self._metric)
            index.own_fields = True
            flat.this.disown()
            _gently(index.cp)
            index.train(_sample(self._rows(sample), max(lists, 16)))
        self._index = index

    def search(
        self, queries: FloatArray, k: int, *, allowed: npt.NDArray[np.bool_] | None, width: int
    ) -> npt.NDArray[np.int64]:
        probes = max(1, min(width, self._lists))
        make: Callable[..., Any] = (
            faiss.IVFRaBitQSearchParameters if self._codes == "rabitq" else faiss.SearchParametersIVF
        )
        return self._search(queries, k, allowed, make(nprobe=probes))

    def _mismatch(self, index: Any) -> str | None:
        match self._codes:
            case "sq8" | "fp16":
                wanted = faiss.IndexIVFScalarQuantizer
            case "pq":
                wanted = faiss.IndexIVFPQFastScan
            case "rabitq":
                wanted = faiss.IndexIVFRaBitQ
            case _:
                wanted = faiss.IndexIVFFlat
        if type(index) is not wanted:
            return "another type of index"
        if index.quantizer.ntotal != index.nlist or index.invlists.nlist != index.nlist:
            return "its lists and centroids are not as many"
        if self._parameters.lists is not None and index.nlist > self._parameters.lists:
            return f"it has {index.nlist} lists"
        return _codec_mismatch(self._codes, index, self.bits)


def _codec_mismatch(codes: str | None, holder: Any, bits: int) -> str | None:
    """Why the codes of an index (or of a graph's storage) are not the ones asked for."""
    match codes:
        case "sq8" | "fp16" if holder.sq.qtype != _scalar(codes):
            return f"its scalar codes are of FAISS type {holder.sq.qtype}"
        case "pq" if (holder.pq.M, holder.pq.nbits) != (parts(holder.d), 4):
            return f"its product codes are {holder.pq.M} times {holder.pq.nbits} bits"
        case "rabitq" if holder.rabitq.nb_bits != bits:
            return f"its RaBitQ codes have {holder.rabitq.nb_bits} bits a dimension"
        case _:
            return None


def ladder(lists: int) -> tuple[int, ...]:
    """The numbers of lists worth trying: 1, 2, 3, 4, 6, 8, 12, 16, 24 … and all of them."""
    steps = {1, lists}
    for power in range(math.ceil(math.log2(lists)) + 1 if lists > 1 else 0):
        steps |= {2**power, 3 * 2**power // 2}
    return tuple(sorted(step for step in steps if 1 <= step <= lists))


def make_index(spec: CollectionSpec) -> AnnIndex | None:
    """The approximate index of a collection, None for Flat."""
    match spec.index:
        case HNSW() as index:
            return GraphIndex(spec, index)
        case IVF() as index:
            return InvertedIndex(spec, index)
        case _:
            return None
