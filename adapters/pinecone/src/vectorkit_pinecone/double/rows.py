"""What a namespace holds: rows, and for each dense field a matrix that is kept as rows come and go."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vectorkit_pinecone.double.text import TextIndex

Dense = NDArray[np.float32]
_FIRST = 64


class Row(NamedTuple):
    """A document or a record: plain fields (metadata and text), dense vectors and sparse vectors by field."""

    id: str
    fields: Mapping[str, Any]
    dense: Mapping[str, Dense]
    sparse: Mapping[str, Any]


Predicate = Callable[[Row], bool]


class Patch(NamedTuple):
    """What an update sets and removes."""

    fields: Mapping[str, Any]
    dense: Mapping[str, Dense]
    sparse: Mapping[str, Any]
    removed: frozenset[str] = frozenset()

    def apply(self, row: Row) -> Row:
        """The row with this done to it."""
        kept = [{name: each[name] for name in each if name not in self.removed} for each in row[1:]]
        return Row(row.id, kept[0] | {**self.fields}, kept[1] | {**self.dense}, kept[2] | {**self.sparse})


class Matrix:
    """The vectors of one field side by side, as float64 and without gaps, so that a search is one product."""

    def __init__(self, dimension: int) -> None:
        self.rows: list[Row] = []
        self._slots: dict[str, int] = {}
        self._values = np.zeros((_FIRST, dimension))
        self._norms = np.zeros(_FIRST)

    def put(self, row: Row, vector: Dense | None) -> None:
        """What a row now holds; `None`: nothing."""
        if vector is None:
            self.remove(row.id)
            return
        slot = self._slots.get(row.id)
        if slot is None:
            slot = self._slots[row.id] = len(self.rows)
            self.rows.append(row)
            if slot == len(self._values):
                self._values = np.concatenate([self._values, np.zeros_like(self._values)])
                self._norms = np.concatenate([self._norms, np.zeros_like(self._norms)])
        self.rows[slot] = row
        self._values[slot] = vector
        self._norms[slot] = np.linalg.norm(self._values[slot])

    def remove(self, id: str) -> None:
        """Forget a row; the last one takes its place."""
        slot = self._slots.pop(id, None)
        if slot is None:
            return
        last = self.rows.pop()
        if last.id != id:
            self.rows[slot] = last
            self._slots[last.id] = slot
            self._values[slot] = self._values[len(self.rows)]
            self._norms[slot] = self._norms[len(self.rows)]

    def best(self, query: Dense, metric: str, top_k: int, keep: Predicate | None) -> list[tuple[Row, float]]:
        """The best rows with their scores, best first; of equal scores the greater id first."""
        slots = np.arange(len(self.rows))
        if keep is not None:
            slots = np.array([slot for slot, row in enumerate(self.rows) if keep(row)], dtype=np.intp)
        if not len(slots):
            return []
        whole = len(slots) == len(self.rows)
        values = self._values[: len(self.rows)] if whole else self._values[slots]
        norms = self._norms[: len(self.rows)] if whole else self._norms[slots]
        scores = _scores(values, norms, query.astype(np.float64), metric)
        ranks = -scores if metric == "euclidean" else scores
        if top_k < len(ranks):
            slots, scores, ranks = _cut(slots, scores, ranks, top_k)
        found = sorted(
            zip(
                ranks.tolist(),
                (self.rows[slot].id for slot in slots.tolist()),
                slots.tolist(),
                scores.tolist(),
                strict=True,
            ),
            reverse=True,
        )
        return [(self.rows[slot], score) for _, _, slot, score in found[:top_k]]


def _scores(
    values: NDArray[np.float64], norms: NDArray[np.float64], query: NDArray[np.float64], metric: str
) -> NDArray[np.float64]:
    # einsum and not @: BLAS may sum two equal rows in different orders, and what ties must tie
    if metric == "euclidean":
        apart = values - query
        return np.asarray(np.einsum("ij,ij->i", apart, apart))
    products = np.asarray(np.einsum("ij,j->i", values, query))
    if metric == "cosine":
        return np.clip(products / (norms * np.linalg.norm(query)), -1.0, 1.0)
    return products


def _cut(slots: Any, scores: Any, ranks: Any, top_k: int) -> tuple[Any, Any, Any]:
    """Those that can be among the best, ties at the end included."""
    least = np.partition(ranks, len(ranks) - top_k)[len(ranks) - top_k]
    chosen = np.flatnonzero(ranks >= least)
    return slots[chosen], scores[chosen], ranks[chosen]


class View:
    """The rows as one kind of reader sees them, at one sequence number."""

    def __init__(self) -> None:
        self.lsn = 0
        self.rows: dict[str, Row] = {}
        self._ids: list[str] | None = None
        self._matrices: dict[str, Matrix] = {}
        self._texts: dict[str, TextIndex] = {}

    def put(self, row: Row) -> None:
        """Write a row whole."""
        if row.id not in self.rows:
            self._ids = None
        self.rows[row.id] = row
        for name, matrix in self._matrices.items():
            matrix.put(row, row.dense.get(name))
        for name, index in self._texts.items():
            index.put(row.id, row.fields.get(name))

    def remove(self, id: str) -> None:
        """Forget a row, if there is one."""
        if self.rows.pop(id, None) is None:
            return
        self._ids = None
        for matrix in self._matrices.values():
            matrix.remove(id)
        for index in self._texts.values():
            index.put(id, None)

    def clear(self) -> None:
        """Forget every row."""
        self.rows.clear()
        self._ids = None
        self._matrices.clear()
        self._texts.clear()

    def ids(self) -> list[str]:
        """Every id in byte order."""
        if self._ids is None:
            self._ids = sorted(self.rows)
        return self._ids

    def matching(self, keep: Predicate) -> list[Row]:
        """The rows that a filter keeps."""
        return [row for row in self.rows.values() if keep(row)]

    def matrix(self, field: str, dimension: int) -> Matrix:
        """The vectors of a field; made when first asked for."""
        if field not in self._matrices:
            made = self._matrices[field] = Matrix(dimension)
            for row in self.rows.values():
                made.put(row, row.dense.get(field))
        return self._matrices[field]

    def text(self, field: str) -> TextIndex:
        """The words of a field; made when first asked for."""
        if field not in self._texts:
            made = self._texts[field] = TextIndex()
            for row in self.rows.values():
                made.put(row.id, row.fields.get(field))
        return self._texts[field]
