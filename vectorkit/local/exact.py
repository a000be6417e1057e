"""Exact top-k over a float32 matrix: BLAS finds a small pool that must hold the answer, float64 scores decide in it.

BLAS rounds differently with the shape of its operands, and loses digits under l2; the pool is widened by a bound on that
error, and the final scores are summed row by row, so equal vectors score equally.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vectorkit.ranking import TIE, top
from vectorkit.types import FloatArray, Metric

Slots = npt.NDArray[np.int64]
BLOCK = 8_192
_CACHED = 49_152  # float32s that are gathered at a time: what stays in a core's cache until they are multiplied
_EPS = float(np.finfo(np.float32).eps)


def prepare(vectors: FloatArray, metric: Metric) -> FloatArray:
    """What the matrix holds: unit vectors under cosine, the vectors themselves otherwise."""
    if metric != "cosine":
        return vectors
    if len(vectors) == 1:
        row = vectors[0]
        size = _size(row)
        if abs(size - 1.0) < 3e-7:  # as near to a unit vector as float32 comes
            return vectors
        return np.asarray(vectors.astype(np.float64) / math.sqrt(size), np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return np.asarray(vectors / norms[:, None], np.float32)


def squares(vectors: FloatArray) -> npt.NDArray[np.float64]:
    """‖x‖² of each row."""
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))


def score(rows: FloatArray, query: FloatArray, metric: Metric) -> npt.NDArray[np.float64]:
    """True scores of (n, d) prepared rows against one prepared query, in float64."""
    x = rows.astype(np.float64)
    q = query.astype(np.float64)
    if metric == "l2":
        x -= q
        return np.asarray(-np.sqrt(np.einsum("ij,ij->i", x, x)))
    return np.asarray(np.einsum("ij,j->i", x, q))


def _size(query: FloatArray) -> float:
    wide = query.astype(np.float64)
    return float(np.dot(wide, wide))


def overflows(query: FloatArray, metric: Metric, largest: float) -> bool:
    """Whether float32 arithmetic might leave its range, so that BLAS cannot be asked."""
    return metric != "cosine" and not (math.sqrt(_size(query)) + math.sqrt(largest)) ** 2 < 1e37


def _slack(query: FloatArray, metric: Metric, largest: float) -> float:
    """A bound on how far BLAS may be off, in the units of its scores, given the largest ‖x‖²."""
    unit = _EPS * (8.0 + math.sqrt(len(query)))
    match metric:
        case "cosine":
            return unit
        case "dot":
            return unit * math.sqrt(_size(query) * largest)
        case "l2":
            reach = math.sqrt(_size(query)) + math.sqrt(largest)
            return 2.0 * unit * reach * reach


def _floor(kth: float, slack: float, query: FloatArray, metric: Metric) -> float:
    """The lowest BLAS score that may belong to a row of the answer, ties with its last row included."""
    if metric == "l2":  # BLAS scores are 2x·q - ‖x‖² = ‖q‖² - distance²
        size = _size(query)
        distance = math.sqrt(max(0.0, size - kth + slack))
        return size - (distance + 1.0001 * TIE * max(1.0, distance)) ** 2 - slack
    return kth - 2.0 * slack - 1.0001 * TIE * max(1.0, abs(kth))


def _kth_bound(scores: npt.NDArray[np.float32], k: int) -> float:
    """A lower bound on the k-th largest score, from the largest of each of a few hundred runs: one pass, no sorting."""
    count = len(scores)
    runs = min(count, max(8 * k, 256))
    width = count // runs
    if width < 4:
        return float(np.partition(scores, count - k)[count - k])
    heads = scores[: runs * width].reshape(runs, width).max(axis=1)
    return float(np.partition(heads, runs - k)[runs - k])


def _pool(scores: npt.NDArray[np.float32], k: int, slack: float, query: FloatArray, metric: Metric) -> Slots:
    if len(scores) <= k:
        return np.arange(len(scores))
    pool = (scores >= _floor(_kth_bound(scores, k), slack, query, metric)).nonzero()[0]
    if len(pool) > 4 * k + 64:  # the bound was loose: once more, among the pool
        kth = float(np.partition(scores[pool], len(pool) - k)[len(pool) - k])
        pool = pool[scores[pool] >= _floor(kth, slack, query, metric)]
    return pool


@dataclass(frozen=True, slots=True)
class Space:
    """Prepared vectors by slot, in two arrays: `base`, which may be mapped from a file, then `tail`.

    norms: ‖x‖² of every slot, under l2. largest: the largest of them. ids: by slot.
    """

    metric: Metric
    base: FloatArray
    tail: FloatArray
    norms: npt.NDArray[np.float32] | None
    largest: float
    ids: list[str]

    @property
    def rows(self) -> int:
        """How many slots there are."""
        return len(self.base) + len(self.tail)

    def gather(self, slots: Slots) -> FloatArray:
        """(n, d) vectors of n slots, copied."""
        split = len(self.base)
        if not split:
            return self.tail.take(slots, 0)
        if not len(self.tail):
            return self.base.take(slots, 0)
        inside = slots < split
        if inside.all():
            return self.base.take(slots, 0)
        out = np.empty((len(slots), self.tail.shape[1]), np.float32)
        out[inside] = self.base[slots[inside]]
        out[~inside] = self.tail[slots[~inside] - split]
        return out

    def run(self, start: int, stop: int) -> FloatArray:
        """(n, d) vectors of the slots from start to stop, not to be written to."""
        split = len(self.base)
        if stop <= split:
            return self.base[start:stop]
        if start >= split:
            return self.tail[start - split : stop - split]
        return np.concatenate([self.base[start:], self.tail[: stop - split]])

    def overflows(self, queries: FloatArray) -> bool:
        """Whether float32 arithmetic might leave its range for one of (q, d) queries, so that BLAS cannot be asked."""
        return self.metric != "cosine" and any(overflows(query, self.metric, self.largest) for query in queries)

    def scores(self, slots: Slots, query: FloatArray) -> npt.NDArray[np.float64]:
        """True scores of some slots, in float64."""
        if len(slots) <= BLOCK:
            return score(self.gather(slots), query, self.metric)
        parts = [score(self.gather(slots[at : at + BLOCK]), query, self.metric) for at in range(0, len(slots), BLOCK)]
        return np.concatenate(parts)

    def search(self, queries: FloatArray, k: int, slots: Slots | None) -> list[list[tuple[int, float]]]:
        """The first k (slot, score) of each of (q, d) prepared queries over all slots, or over some, ascending."""
        if len(queries) < 4 or self.overflows(queries):
            return [self._one(query, k, slots) for query in queries]
        return self._many(queries, k, slots)

    def _one(self, query: FloatArray, k: int, slots: Slots | None) -> list[tuple[int, float]]:
        metric = self.metric
        if metric != "cosine" and overflows(query, metric, self.largest):
            every = np.arange(self.rows) if slots is None else slots
            return top(self.scores(every, query), every, self.ids, k)
        if slots is None or len(slots) > max(k, self.rows // 8):  # scoring all is cheaper than gathering most
            rough = self._products(query)
            if slots is not None:
                rough = rough[slots]
        elif len(slots) <= 64 and len(slots) <= 4 * k:
            return top(self.scores(slots, query), slots, self.ids, k)
        else:
            rough = np.empty(len(slots), np.float32)
            step = max(16, _CACHED // len(query))
            for at in range(0, len(slots), step):
                np.dot(self.gather(slots[at : at + step]), query, out=rough[at : at + step])
            if self.norms is not None:
                rough *= 2
                rough -= self.norms[slots]
        pool = _pool(rough, k, _slack(query, metric, self.largest), query, metric)
        chosen = pool if slots is None else slots[pool]
        return top(self.scores(chosen, query), chosen, self.ids, k)

    def _products(self, query: FloatArray) -> FloatArray:
        """What BLAS makes of all slots: x·q, or 2x·q - ‖x‖² under l2."""
        if not len(self.base):
            rough = self.tail @ query
        elif not len(self.tail):
            rough = self.base @ query
        else:
            rough = np.empty(self.rows, np.float32)
            np.dot(self.base, query, out=rough[: len(self.base)])
            np.dot(self.tail, query, out=rough[len(self.base) :])
        if self.norms is not None:
            rough *= 2
            rough -= self.norms
        return rough

    def _many(self, queries: FloatArray, k: int, slots: Slots | None) -> list[list[tuple[int, float]]]:
        """By one matrix product a block of rows."""
        metric, norms, largest = self.metric, self.norms, self.largest
        count = self.rows if slots is None else len(slots)
        if not count:
            return [[] for _ in queries]
        slack = np.array([_slack(query, metric, largest) for query in queries])
        best = np.full((len(queries), k), -np.inf, np.float32)
        found_rows: list[Slots] = []
        found_queries: list[Slots] = []
        found_scores: list[npt.NDArray[np.float32]] = []
        limit = np.full(len(queries), -np.inf, np.float32)
        for start in range(0, count, BLOCK):
            part = slice(start, min(count, start + BLOCK))
            rows = self.run(start, part.stop) if slots is None else self.gather(slots[part])
            scores = queries @ rows.T
            if metric == "l2":
                assert norms is not None
                scores *= 2
                scores -= norms[part] if slots is None else norms[slots[part]]
            if np.isneginf(limit).any():  # k rows have not been seen yet: the block's own best give the first limits
                keep = min(k, scores.shape[1])
                best = _merge(
                    best, np.partition(scores, scores.shape[1] - keep, axis=1)[:, scores.shape[1] - keep :], k
                )
                limit = _limits(best, slack, queries, metric)
                at = np.flatnonzero(scores >= limit[:, None])
                which, row = np.divmod(at, scores.shape[1])
                values = scores.ravel()[at]
            else:
                at = np.flatnonzero(scores >= limit[:, None])
                which, row = np.divmod(at, scores.shape[1])
                values = scores.ravel()[at]
                if len(at):
                    best = _merge(best, _heads(which, values, len(queries), k), k)
                    limit = _limits(best, slack, queries, metric)
            found_queries.append(which)
            found_rows.append(row + start)
            found_scores.append(values)
        which = np.concatenate(found_queries)
        row = np.concatenate(found_rows)
        kept = np.concatenate(found_scores) >= limit[which]
        which, row = which[kept], row[kept]
        order = np.argsort(which, kind="stable")
        which, row = which[order], row[order]
        edges = np.searchsorted(which, np.arange(len(queries) + 1))
        out = []
        for number, query in enumerate(queries):
            pool = row[edges[number] : edges[number + 1]]
            chosen = pool if slots is None else slots[pool]
            out.append(top(self.scores(chosen, query), chosen, self.ids, k))
        return out


def _limits(
    best: npt.NDArray[np.float32], slack: npt.NDArray[np.float64], queries: FloatArray, metric: Metric
) -> npt.NDArray[np.float32]:
    kth = best.min(axis=1)
    return np.array(
        [
            -np.inf if np.isneginf(kth[at]) else _floor(float(kth[at]), float(slack[at]), queries[at], metric)
            for at in range(len(queries))
        ],
        np.float32,
    )


def _heads(which: Slots, values: npt.NDArray[np.float32], queries: int, k: int) -> npt.NDArray[np.float32]:
    """The k largest values of each query, padded with -inf."""
    order = np.lexsort((-values, which))
    which, values = which[order], values[order]
    rank = np.arange(len(which)) - np.searchsorted(which, which)
    out = np.full((queries, k), -np.inf, np.float32)
    inside = rank < k
    out[which[inside], rank[inside]] = values[inside]
    return out


def _merge(best: npt.NDArray[np.float32], more: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float32]:
    both = np.concatenate([best, more], axis=1)
    return np.partition(both, both.shape[1] - k, axis=1)[:, both.shape[1] - k :]
