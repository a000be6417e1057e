"""How an approximate index plugs into the engine, and how its default search width is found."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vectorkit.types import CollectionSpec, FloatArray


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


IndexMaker = Callable[[CollectionSpec], AnnIndex | None]


def calibrate(
    index: AnnIndex, matrix: FloatArray, metric: str, norms: npt.NDArray[np.float32] | None
) -> tuple[int, int] | None:
    """The smallest width, then the smallest spare, that find 0.98 of the true ten nearest, measured on 192 sampled queries.

    A third are rows, a third midpoints of pairs of rows; a third are drawn from a normal distribution with the rows' means and
    deviations, as a query from elsewhere would be, and those stop counting in the last third of the widths. None when an index
    finds less than 0.95 even so: it does not earn its place on these vectors.
    """
    count = len(matrix)
    k = min(10, count)
    queries = _sampled(matrix, metric)
    floor = np.empty(len(queries), np.float32)
    step = max(1, min(16, 2**22 // count))  # a few at a time: each costs a float a row
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ matrix.T
        if norms is not None:
            scores *= 2
            scores -= norms
        kth = np.partition(scores, count - k, axis=1)[:, count - k]
        floor[start : start + step] = kth - 1e-5 * np.maximum(scores.max(axis=1), -scores.min(axis=1))

    def shares(width: int, spare: int) -> npt.NDArray[np.float64]:
        labels = index.search(queries, min(k * spare, count), allowed=None, width=width)
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
    own = len(widths) == 1  # the caller's choice, whatever it finds
    if not own and shares(widths[-1], spares[-1])[:2].min() < 0.95:
        return None
    width = widths[-1]
    for at, width in enumerate(widths):
        share = shares(width, spares[-1])
        if share[:2].min() >= 0.98 and (share[2] >= 0.98 or 3 * at >= 2 * len(widths)):
            break
    spare = spares[-1]
    wanted = np.minimum(0.98, shares(width, spare))
    for spare in spares:
        if (shares(width, spare) >= wanted - 1e-9).all():
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
