"""How an approximate index plugs in, and its generations on disk: a cache that is checked before a loader sees it.

A native loader trusts its file (a flipped byte loads silently, or kills the process), so a manifest with sizes and SHA-256
stands between.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vectorkit.errors import Unavailable
from vectorkit.local.exact import Slots
from vectorkit.local.home import fsync_folder
from vectorkit.types import LAYOUT, CollectionSpec, FloatArray


class AnnIndex(Protocol):
    """An approximate index over prepared rows (unit vectors under cosine); a row's label is its position.

    Six methods. The engine serialises build, add and load against searches, checks files before `load`, and scores what
    `search` returns from the full vectors, so labels matter and scores do not.

    kind: the name of library and index that stands in the manifest. lossy: it ranks by codes, not by the vectors, so the
    engine asks for more than k. training: rows of a sample that `build` wants to be trained on, 0 for none. widths: after
    build or load, the search widths worth trying, ascending: how many candidates a graph keeps, how many lists are probed.
    """

    kind: str
    lossy: bool
    training: int

    @property
    def widths(self) -> Sequence[int]: ...

    def build(self, sample: FloatArray, count: int) -> None:
        """Make an empty index for `count` rows, trained on a (t, d) sample of them (t <= training)."""

    def add(self, vectors: FloatArray) -> None:
        """Append (n, d) rows; their labels go on from `size()`."""

    def search(
        self, queries: FloatArray, k: int, *, allowed: npt.NDArray[np.bool_] | None, width: int
    ) -> npt.NDArray[np.int64]:
        """(q, k) labels of near rows among the allowed ones (a mask over labels), -1 where there are fewer."""

    def save(self, path: Path) -> None:
        """Write one file."""

    def load(self, path: Path) -> None:
        """Read a file that `save` wrote. RuntimeError when it is not one of this kind and dimension."""

    def size(self) -> int:
        """Rows in the index."""


FILES = ("index.bin", "rids.i64", "marks.f32")
IndexMaker = Callable[[CollectionSpec], AnnIndex | None]


@dataclass(slots=True)
class Generation:
    """A built index: labels are the slots 0 to n-1 of the view it belongs to. marks: `marks_of` the rows it was built from.
    width, spare: the defaults found for it: how widely to search, and how many times k to ask for."""

    index: AnnIndex
    rids: npt.NDArray[np.int64]
    marks: FloatArray
    width: int
    spare: int
    path: Path | None = None

    @property
    def bytes(self) -> int:
        """Size on disk."""
        if self.path is None:
            return 0
        with suppress(FileNotFoundError):  # a newer generation, or a drop, has just removed it
            return sum(entry.stat().st_size for entry in self.path.iterdir())
        return 0


def marks_of(matrix: FloatArray) -> FloatArray:
    """A number a row, its product with one fixed random direction: another vector has another mark, all but certainly.

    An index says nothing of which vectors it holds; by their marks it is known again beside the rows.
    """
    direction = np.asarray(np.random.default_rng(20_090_719).standard_normal(matrix.shape[1]), np.float32)
    return np.asarray(matrix @ direction, np.float32)


def same_marks(matrix: FloatArray, rows: npt.NDArray[np.bool_], marks: FloatArray) -> bool:
    """Whether those rows of the matrix have these marks, to rounding."""
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    slack = 1e-4 * norms * matrix.shape[1] ** 0.5 + 1e-30
    return bool((np.abs(marks_of(matrix) - marks)[rows] <= slack[rows]).all())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _expected(spec: CollectionSpec, index: AnnIndex) -> dict[str, Any]:
    parameters = {k: v for k, v in spec.to_json()["index"].items() if k not in {"kind", "full_scan_threshold"}}
    return {
        "layout": LAYOUT,
        "kind": index.kind,
        "parameters": parameters,
        "dimension": spec.dimension,
        "metric": spec.metric,
    }


def save_generation(folder: Path, spec: CollectionSpec, generation: Generation, *, uid: str, seq: int) -> None:
    """Write a generation to a temporary name, fsync, rename; then remove the older ones. Raises Unavailable."""
    number = 1 + max((n for n, _ in _numbered(folder)), default=0)
    beside = folder / f"new-{number}"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        generation.index.save(beside / "index.bin")
        (beside / "rids.i64").write_bytes(generation.rids.astype("<i8").tobytes())
        (beside / "marks.f32").write_bytes(generation.marks.astype("<f4").tobytes())
        files = {}
        for name in FILES:
            _sync(beside / name)
            files[name] = {"size": (beside / name).stat().st_size, "sha256": _digest(beside / name)}
        manifest = {
            **_expected(spec, generation.index),
            "n": generation.index.size(),
            "uid": uid,
            "seq": seq,
            "max_rid": int(generation.rids[-1]) if len(generation.rids) else 0,
            "width": generation.width,
            "spare": generation.spare,
            "files": files,
        }
        (beside / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        _sync(beside / "manifest.json")
        fsync_folder(beside)
        final = folder / str(number)
        beside.rename(final)
        fsync_folder(folder)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise Unavailable(f"the index could not be written: {error}; the rows are safe, optimize() again") from error
    generation.path = final
    for older, path in _numbered(folder):
        if older != number:
            shutil.rmtree(path, ignore_errors=True)


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    return sorted((int(entry.name), entry) for entry in folder.iterdir() if entry.name.isdigit())


def load_generation(
    folder: Path, spec: CollectionSpec, make: IndexMaker, *, uid: str, seq: int, rid: int
) -> Generation | str | None:
    """The newest generation if it is whole and of these rows, else why it cannot be used; None when there is none.

    uid, seq, rid: the identity of the database and how far it has come; an index that knows more is of other rows.
    """
    numbered = _numbered(folder)
    index = make(spec)
    if not numbered or index is None:
        return None
    _, path = numbered[-1]
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        for key, value in _expected(spec, index).items():
            if manifest[key] != value:
                return f"its manifest says {key} {manifest[key]!r}, the collection {value!r}"
        if manifest["uid"] != uid or not manifest["seq"] <= seq or not manifest["max_rid"] <= rid:
            return "it was made from other rows than these"
        for name in FILES:
            wanted = manifest["files"][name]
            if (path / name).stat().st_size != wanted["size"] or _digest(path / name) != wanted["sha256"]:
                return f"{name} is not the file that was written"
        marks = np.frombuffer((path / "marks.f32").read_bytes(), "<f4").astype(np.float32)
        rids = np.frombuffer((path / "rids.i64").read_bytes(), "<i8").astype(np.int64)
        count, width, spare = manifest["n"], manifest["width"], manifest["spare"]
        whole = all(type(value) is int and value >= 1 for value in (count, width, spare))
        if not whole or len(rids) != count or len(marks) != count:
            return "its manifest does not fit its files"
        if count and int(rids[-1]) != manifest["max_rid"]:
            return "its rids do not fit its manifest"
        if count > 1 and not (np.diff(rids) > 0).all():
            return "its rids are not ascending"
        index.load(path / "index.bin")
        if index.size() != count:
            return f"the index holds {index.size()} rows, its manifest says {count}"
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return Generation(index, rids, marks, width, spare, path)


def calibrate(
    index: AnnIndex, matrix: FloatArray, metric: str, norms: npt.NDArray[np.float32] | None
) -> tuple[int, int] | None:
    """The smallest width, then the smallest spare, that find 0.98 of the true ten nearest, measured on 192 sampled queries.

    A third are rows, a third midpoints of pairs of rows; a third are drawn from a normal distribution with the rows' means and
    deviations, as a query from elsewhere would be, and those stop counting in the last third of the widths. None when an index by
    codes finds less than 0.95 even so: it does not earn its place on these vectors.
    """
    count = len(matrix)
    k = min(10, count)
    queries = _sampled(matrix, metric)
    floor = np.empty(len(queries), np.float32)
    for start in range(0, len(queries), 16):  # a few at a time: each costs a float a row
        scores = queries[start : start + 16] @ matrix.T
        if norms is not None:
            scores *= 2
            scores -= norms
        kth = np.partition(scores, count - k, axis=1)[:, count - k]
        floor[start : start + 16] = kth - 1e-5 * np.maximum(1.0, np.abs(kth))

    def shares(width: int, spare: int) -> npt.NDArray[np.float64]:
        labels = index.search(queries, min(k * spare, count), allowed=None, width=max(width, k * spare))
        near = np.empty(labels.shape, np.float32)
        for at, row in enumerate(labels):
            rows = np.maximum(row, 0)
            near[at] = matrix[rows] @ queries[at]
            if norms is not None:
                near[at] = 2 * near[at] - norms[rows]
        found = np.count_nonzero((near >= floor[:, None]) & (labels >= 0), axis=1)
        return np.asarray((np.minimum(found, k) / k).reshape(3, -1).mean(axis=1))

    spares = (2, 4, 8, 16, 32, 64) if index.lossy else (1,)
    widths = list(index.widths)
    found = shares(widths[-1], spares[-1])
    if index.lossy and found[:2].min() < 0.95:
        return None
    width = widths[-1]
    for at, width in enumerate(widths):
        share = shares(width, spares[-1])
        if share[:2].min() >= 0.98 and (share[2] >= 0.98 or 3 * at >= 2 * len(widths)):
            break
    spare = spares[-1]
    wanted = min(0.98, float(shares(width, spare)[:2].min()))
    for spare in spares:
        if shares(width, spare)[:2].min() >= wanted:
            break
    return width, spare


def _sampled(matrix: FloatArray, metric: str) -> FloatArray:
    count = len(matrix)
    random = np.random.default_rng(0)
    rows = matrix[np.sort(random.integers(0, count, 64))]
    mixed = (rows + matrix[np.sort(random.integers(0, count, 64))[random.permutation(64)]]) / 2
    sample = matrix[np.sort(random.integers(0, count, min(count, 1_000)))]
    drawn = random.normal(sample.mean(axis=0), sample.std(axis=0) + 1e-12, (64, matrix.shape[1]))
    queries = np.concatenate([rows, mixed, drawn]).astype(np.float32)
    if metric == "cosine":
        queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
    return queries


__all__ = ["AnnIndex", "Generation", "IndexMaker", "Slots", "calibrate", "load_generation", "save_generation"]
