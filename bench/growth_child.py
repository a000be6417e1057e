"""What bench/growth.py measures, each act in a fresh process so that its resident set is its own; prints one JSON object.

    python bench/growth_child.py truth|build|bare-build|serve|bare-serve KIND SIZE DIMENSION EF_CONSTRUCTION FOLDER

Linux only: it reads /proc/self/status.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import faiss as _stubbed
import numpy as np

import vectorkit as vk
from vectorkit import F
from vectorkit.types import FloatArray
from vectorkit_faiss.indexes import POINTS, ROUNDS
from vectorkit_faiss.kinds import SAMPLE_ROWS, sized_lists

faiss: Any = _stubbed  # its stubs show other signatures than it has
K = 10
CHUNK = 10_000
PART = 65_536  # the engine hands an index its rows in parts of this size; the bare library gets the same
QUERIES = 200
ROUND = 10  # queries of the one side, then of the other
TIE = 2e-6  # of float32 scores; to vectorkit a difference of 1e-6 is a tie, which the id decides
FEWEST = 30  # queries
BUDGET = 20.0  # seconds a filter, both sides together; fewer queries are asked when they take longer
BELOW = {"all": 1_000, "10 %": 100, "1 %": 10, "0.1 %": 1}  # rows with `n` below this, of 1,000


@dataclass(frozen=True)
class Asked:
    """One cell of the benchmark, and the folder its acts share."""

    kind: str
    size: int
    dimension: int
    ef_construction: int
    folder: Path

    @property
    def url(self) -> str:
        scheme = {"flat": "local", "hnswlib": "hnswlib"}.get(self.kind, "faiss")
        return f"{scheme}://{self.folder}/ours"

    @property
    def spec(self) -> vk.CollectionSpec:
        index: vk.Flat | vk.HNSW | vk.IVF
        match self.kind:
            case "flat":
                index = vk.Flat()
            case "ivf":
                index = vk.IVF()
            case "hnsw-sq8":
                index = vk.HNSW(ef_construction=self.ef_construction, quantization="sq8")
            case _:
                index = vk.HNSW(ef_construction=self.ef_construction)
        return vk.CollectionSpec("growth", dimension=self.dimension, index=index, fields={"n": int}, text=False)

    @property
    def generation(self) -> Path:
        (manifest,) = (self.folder / "ours").rglob("manifest.json")
        return manifest.parent


# ------------------------------------------------------------------------------------------------ the data


@cache
def mixture(dimension: int) -> tuple[FloatArray, FloatArray]:
    """Centres of 1,000 gaussians, and the axes they share: deviations fall as 1/√i, as those of embeddings do."""
    random = np.random.default_rng([7, dimension])
    axes = (
        np.linalg.qr(random.standard_normal((dimension, dimension)))[0] / np.sqrt(np.arange(1, dimension + 1))[:, None]
    )
    return (random.standard_normal((1_000, dimension)) @ axes).astype(np.float32), axes.astype(np.float32)


def draw(count: int, dimension: int, stream: int) -> FloatArray:
    """Unit vectors of the mixture, the same for the same stream."""
    centres, axes = mixture(dimension)
    random = np.random.default_rng([8, dimension, stream])
    vectors = 0.6 * random.standard_normal((count, dimension), np.float32) @ axes
    vectors += centres[random.integers(0, len(centres), count)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors, np.float32)


def chunks(asked: Asked) -> Iterator[tuple[int, FloatArray]]:
    """(first row, vectors), 10,000 rows at a time."""
    for start in range(0, asked.size, CHUNK):
        yield start, draw(min(CHUNK, asked.size - start), asked.dimension, 1 + start // CHUNK)


def truth(asked: Asked) -> dict[str, Any]:
    """The true ten nearest of each query under each filter, into a file."""
    queries = draw(QUERIES, asked.dimension, 0)
    best = {name: np.full((QUERIES, K), -np.inf, np.float32) for name in BELOW}
    rows = {name: np.full((QUERIES, K), -1, np.int64) for name in BELOW}
    for start, vectors in chunks(asked):
        scores = queries @ vectors.T
        labels = np.arange(start, start + len(vectors))
        for name, below in BELOW.items():
            kept = labels % 1_000 < below
            found = scores[:, kept]
            at = np.argpartition(-found, K, axis=1)[:, :K] if found.shape[1] > K else np.arange(found.shape[1])[None]
            both = np.concatenate([best[name], np.take_along_axis(found, at, axis=1)], axis=1)
            which = np.concatenate([rows[name], np.broadcast_to(labels[kept][at], (QUERIES, at.shape[1]))], axis=1)
            order = np.argsort(-both, axis=1)[:, :K]
            best[name], rows[name] = np.take_along_axis(both, order, axis=1), np.take_along_axis(which, order, axis=1)
    np.savez(asked.folder / "truth.npz", **rows)  # type: ignore[arg-type]  # numpy's stub takes the keys for its own options
    return {}


# ------------------------------------------------------------------------------------------------ memory


def memory() -> dict[str, int]:
    """Bytes: the most that was resident, what is now, and how much of that is this process's alone (no mapped files)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text("ascii").splitlines())
    status = {words[0]: int(words[1]) * 1_024 for words in lines if len(words) == 3 and words[2] == "kB"}
    return {"peak": status["VmHWM:"], "now": status["VmRSS:"], "anonymous": status["RssAnon:"]}


# ------------------------------------------------------------------------------------------------ ours


def build(asked: Asked) -> dict[str, Any]:
    """Ingest and optimize()."""
    started = memory()["now"]
    took = []
    with vk.connect(asked.url) as store:
        docs = store.create_collection(asked.spec)
        for start, vectors in chunks(asked):
            here = range(start, start + len(vectors))
            batch = vk.Batch([f"r{n}" for n in here], vectors, None, [{"n": n % 1_000} for n in here])
            begun = time.perf_counter()
            docs.upsert(batch)
            took.append(time.perf_counter() - begun)
        ingested = memory()["peak"]
        begun = time.perf_counter()
        docs.optimize()
        built = time.perf_counter() - begun
        begun = time.perf_counter()
    return {
        "ingest_s": sum(took),
        "ingest_slowest_chunk_s": max(took),
        "build_s": built,
        "close_s": time.perf_counter() - begun,
        "peak_ingest": ingested,
        "peak": memory()["peak"],
        "imports": started,
    }


# ------------------------------------------------------------------------------------------------ the bare library


class Bare:
    """The library alone, the column as a numpy array, the ids as a list; with what `serve` needs of it."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self.index: Any = None
        self.column = np.empty(0, np.int64)
        self.ids: list[str] = []
        self._matrix: FloatArray | None = None
        self.width = self.spare = 1

    def build(self) -> dict[str, Any]:
        """Gather, build, write: what a program without vectorkit would do. Nothing of it outlives a crash on the way."""
        asked = self._asked
        started = memory()["now"]
        gathered = 0.0
        matrix = np.empty((asked.size, asked.dimension), np.float32)
        self.column = np.empty(asked.size, np.int64)
        for start, vectors in chunks(asked):
            here = range(start, start + len(vectors))
            ids, metadata = [f"r{n}" for n in here], [{"n": n % 1_000} for n in here]
            begun = time.perf_counter()
            matrix[start : here.stop] = vectors
            self.column[start : here.stop] = [m["n"] for m in metadata]
            self.ids.extend(ids)
            gathered += time.perf_counter() - begun
        ingested = memory()["peak"]
        begun = time.perf_counter()
        self._build(matrix)
        built = time.perf_counter() - begun
        begun = time.perf_counter()
        folder = asked.folder / "bare"
        folder.mkdir()
        path = folder / "index"
        if asked.kind == "hnswlib":
            self.index.save_index(str(path))
        else:
            faiss.write_index(self.index, str(path))
        return {
            "ingest_s": gathered,
            "build_s": built,
            "save_s": time.perf_counter() - begun,
            "peak_ingest": ingested,
            "peak": memory()["peak"],
            "imports": started,
        }

    def _build(self, matrix: FloatArray) -> None:
        size, dimension = matrix.shape
        metric = faiss.METRIC_INNER_PRODUCT
        match self._asked.kind:
            case "flat":
                self.index = faiss.IndexFlatIP(dimension)
            case "hnsw" | "hnswlib":
                if self._asked.kind == "hnswlib":
                    self.index = self._hnswlib()
                    self.index.init_index(size, M=16, ef_construction=self._asked.ef_construction)
                else:
                    self.index = faiss.IndexHNSWFlat(dimension, 16, metric)
            case "hnsw-sq8":
                self.index = faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_8bit, 16, metric)
                self.index.train(matrix[: min(SAMPLE_ROWS, 65_536)])
            case "ivf":
                flat = faiss.IndexFlatIP(dimension)
                self.index = faiss.IndexIVFFlat(flat, dimension, sized_lists(size), metric)
                self.index.own_fields = True
                flat.this.disown()
                self.index.cp.niter, self.index.cp.max_points_per_centroid = ROUNDS, POINTS
                self.index.train(matrix[:SAMPLE_ROWS])
        if self._asked.kind.startswith("hnsw-") or self._asked.kind == "hnsw":
            self.index.hnsw.efConstruction = self._asked.ef_construction
        for start in range(0, size, PART):
            rows = matrix[start : start + PART]
            if self._asked.kind == "hnswlib":
                self.index.add_items(rows, np.arange(start, start + len(rows)))
            else:
                self.index.add(rows)

    def _hnswlib(self) -> Any:
        import hnswlib

        return hnswlib.Index("ip", self._asked.dimension)

    def open(self) -> None:
        """The very index that vectorkit built (FAISS's and hnswlib's own file), its width, the column, the ids."""
        asked = self._asked
        generation = asked.generation
        manifest = json.loads((generation / "manifest.json").read_text("utf-8"))
        path = generation / "index.bin"
        if asked.kind == "flat" or not path.exists():
            path = asked.folder / "bare" / "index"
        if asked.kind == "hnswlib":
            self.index = self._hnswlib()
            self.index.load_index(str(path))
        else:
            self.index = faiss.read_index(str(path))
        faiss.omp_set_num_threads(1)
        self.width, self.spare = max(1, manifest["width"]), max(1, manifest["spare"])
        self.column = np.load(asked.folder / "column.npy")
        self.ids = json.loads((asked.folder / "ids.json").read_text("utf-8"))
        if asked.kind == "hnsw-sq8":  # ranked by codes: more are taken, and ordered by the vectors
            self._matrix = np.memmap(generation / "vectors.f32", "<f4", "r", shape=(asked.size, asked.dimension))

    def query(self, vector: FloatArray, below: int) -> list[tuple[str, float, dict[str, int]]]:
        """Ten (id, score, metadata), or what is found of them."""
        if self._asked.kind == "hnswlib":
            return self._query_hnswlib(vector, below)
        selector = bits = None
        if below < 1_000:
            bits = np.packbits(self.column < below, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(self.column), faiss.swig_ptr(bits))
        match self._asked.kind:
            case "flat":
                parameters = faiss.SearchParameters()
            case "ivf":
                parameters = faiss.SearchParametersIVF(nprobe=self.width)
            case _:
                parameters = faiss.SearchParametersHNSW(efSearch=max(self.width, K * self.spare))
        if selector is not None:
            parameters.sel = selector
        k = K if self._matrix is None else K * self.spare + 8
        scores, labels = self.index.search(vector[None], k, params=parameters)
        found, values = labels[0], scores[0]
        values, found = values[found >= 0], found[found >= 0]
        if self._matrix is not None:
            values = self._matrix[found] @ vector
            order = np.argsort(-values)[:K]
            values, found = values[order], found[order]
        return self._told(found.tolist(), values.tolist())

    def _query_hnswlib(self, vector: FloatArray, below: int) -> list[tuple[str, float, dict[str, int]]]:
        self.index.set_ef(max(self.width, K))
        column = self.column
        passes = None if below == 1_000 else (lambda label: bool(column[label] < below))
        try:
            labels, distances = self.index.knn_query(vector, K, num_threads=1, filter=passes)
        except RuntimeError:  # it found fewer than ten, and gives none
            return []
        return self._told(labels[0].tolist(), (1 - distances[0]).tolist())

    def _told(self, rows: list[int], scores: list[float]) -> list[tuple[str, float, dict[str, int]]]:
        ids, column = self.ids, self.column
        return [(ids[row], score, {"n": int(column[row])}) for row, score in zip(rows, scores, strict=True)]


def columns(asked: Asked) -> None:
    """The columns of the bare library, on disk."""
    if not (asked.folder / "column.npy").exists():
        np.save(asked.folder / "column.npy", np.arange(asked.size) % 1_000)
        (asked.folder / "ids.json").write_text(json.dumps([f"r{n}" for n in range(asked.size)]), "utf-8")


# ------------------------------------------------------------------------------------------------ serving


def bare_serve(asked: Asked) -> dict[str, Any]:
    """Open time and resident set of the bare library alone."""
    columns(asked)
    queries = draw(QUERIES, asked.dimension, 0)
    started = memory()["now"]
    begun = time.perf_counter()
    bare = Bare(asked)
    bare.open()
    bare.query(queries[0], 1_000)
    opened = time.perf_counter() - begun
    for below in BELOW.values():
        for query in queries[:5]:
            bare.query(query, below)
    return {"open_s": opened, "serving": memory(), "imports": started}


def serve(asked: Asked) -> dict[str, Any]:
    """Open time and resident set of ours alone; then both, in turn."""
    columns(asked)
    queries = draw(QUERIES, asked.dimension, 0)
    with np.load(asked.folder / "truth.npz") as archive:
        nearest = {name: archive[name] for name in BELOW}
    started = memory()["now"]
    begun = time.perf_counter()
    store = vk.connect(asked.url)
    docs = store.collection("growth")
    docs.query(queries[0], k=K)
    opened = time.perf_counter() - begun
    wheres = {name: None if below == 1_000 else F("n") < below for name, below in BELOW.items()}
    for where in wheres.values():
        for query in queries[:20]:
            docs.query(query, k=K, where=where)
    serving = memory()
    stats = docs.stats()
    bare = Bare(asked)
    bare.open()
    answers: dict[str, Any] = {}
    for name, below in BELOW.items():
        where = wheres[name]
        ours: list[float] = []
        theirs: list[float] = []
        found: list[list[list[str]]] = [[], []]
        until = time.perf_counter() + BUDGET
        for first in range(0, QUERIES, ROUND):
            if first >= FEWEST and time.perf_counter() > until:
                break
            for at in range(first, first + ROUND):
                begun = time.perf_counter()
                hits = docs.query(queries[at], k=K, where=where)
                ours.append(time.perf_counter() - begun)
                found[0].append(hits.ids)
            for at in range(first, first + ROUND):
                begun = time.perf_counter()
                answer = bare.query(queries[at], below)
                theirs.append(time.perf_counter() - begun)
                found[1].append([id for id, _, _ in answer])  # noqa: A001
        answers[name] = {
            "queries": len(ours),
            "coverage": hits.coverage,
            "path": hits.path,
            "ours": figures(asked, ours, found[0], queries, nearest[name]),
            "bare": figures(asked, theirs, found[1], queries, nearest[name]),
        }
    store.close()
    return {
        "open_s": opened,
        "serving": serving,
        "imports": started,
        "index": stats.index,
        "rows": stats.rows,
        "bytes": dict(stats.bytes),
        "width": bare.width,
        "spare": bare.spare,
        "answers": answers,
    }


def figures(
    asked: Asked, took: list[float], found: list[list[str]], queries: FloatArray, nearest: Any
) -> dict[str, float]:
    """Of the queries of one side: p50 and p99 in milliseconds, mean recall, mean rows."""
    near = [recall(asked, query, ids, true) for query, ids, true in zip(queries, found, nearest, strict=False)]
    return {
        "p50_ms": 1e3 * statistics.median(took),
        "p99_ms": 1e3 * float(np.percentile(took, 99)),
        "recall": statistics.fmean(near),
        "rows": statistics.fmean(map(len, found)),
    }


def recall(asked: Asked, query: FloatArray, ids: list[str], nearest: Any) -> float:
    """The share of the true rows that was found; one in a tie with the last of them is as good."""
    true = {f"r{row}" for row in nearest.tolist() if row >= 0}
    good = len(true.intersection(ids))
    if good < len(true) and (others := [n for n in ids if n not in true]):
        least = vector(asked, int(nearest[len(true) - 1])) @ query - TIE
        good += sum(bool(vector(asked, int(other[1:])) @ query >= least) for other in others)
    return min(good, len(true)) / len(true)


def vector(asked: Asked, row: int) -> FloatArray:
    """A row, made again."""
    number = row // CHUNK
    rows = chunk(number, min(CHUNK, asked.size - number * CHUNK), asked.dimension)
    return np.asarray(rows[row % CHUNK])


@lru_cache(maxsize=16)
def chunk(number: int, count: int, dimension: int) -> FloatArray:
    """Ten thousand rows."""
    return draw(count, dimension, 1 + number)


def main() -> None:
    """Do one act."""
    act, kind, size, dimension, ef_construction, folder = sys.argv[1:]
    asked = Asked(kind, int(size), int(dimension), int(ef_construction), Path(folder))
    acts = {
        "truth": truth,
        "build": build,
        "bare-build": lambda asked: Bare(asked).build(),
        "serve": serve,
        "bare-serve": bare_serve,
    }
    print(json.dumps(acts[act](asked)))


if __name__ == "__main__":
    main()
