"""Fusing rankings: pure functions on lists of ids, the same on every store.

No adapter fuses: engines that offer it count ranks from elsewhere and weigh them otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from vectorkit.errors import InvalidArgument
from vectorkit.types import Coverage, Hit, Hits, make_hit


class Fusion(Protocol):
    """Rankings in, one ranking out."""

    def fuse(self, rankings: Sequence[Sequence[str]], k: int) -> list[tuple[str, float]]:
        """The best k ids with their fused scores, best first, ties by id."""


@lru_cache(maxsize=64)
def _reciprocals(k: float, weight: float, depth: int) -> tuple[float, ...]:
    return tuple([weight / (k + rank) for rank in range(1, depth + 1)])


@dataclass(frozen=True, slots=True)
class RRF:
    """Reciprocal rank fusion: score(d) = Σ over legs of weight / (k + rank of d), rank from 1.

    Cormack, Clarke and Büttcher, SIGIR 2009, where k = 60. weights: one a leg (dense first), None for all 1.
    """

    k: float = 60
    weights: list[float] | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int | float) or not 0 <= self.k < float("inf"):
            raise InvalidArgument(f"RRF.k must be a number of at least 0, got {self.k!r}")
        if self.weights is None:
            return
        if not isinstance(self.weights, list | tuple):
            raise InvalidArgument(f"RRF.weights must be a list of numbers, got {self.weights!r}")
        for weight in self.weights:
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
                raise InvalidArgument(f"RRF.weights must be finite numbers of at least 0, got {weight!r}")
        object.__setattr__(self, "weights", tuple(self.weights))

    def fuse(self, rankings: Sequence[Sequence[str]], k: int) -> list[tuple[str, float]]:
        """The best k ids with their scores. Raises InvalidArgument when weights and legs differ in number.

        A document counts once a leg, at its best rank.
        """
        weights = self.weights or (1.0,) * len(rankings)
        if len(weights) != len(rankings):
            raise InvalidArgument(f"RRF has {len(weights)} weights for {len(rankings)} legs")
        scores: dict[str, float] = {}
        for weight, ranking in zip(weights, rankings, strict=True):
            parts = dict(zip(ranking, _reciprocals(self.k, weight, len(ranking)), strict=True))
            if len(parts) < len(ranking):  # an id twice in a leg: dict() kept its last rank
                distinct = list(dict.fromkeys(ranking))
                parts = dict(zip(distinct, _reciprocals(self.k, weight, len(distinct)), strict=True))
            if scores:
                for shared in scores.keys() & parts.keys():
                    parts[shared] += scores[shared]
                scores.update(parts)
            else:
                scores = parts
        return best(scores, k)


def best(scores: dict[str, float], k: int) -> list[tuple[str, float]]:
    """The k largest of {id: score} as pairs, best first, equal scores by id."""
    values = np.fromiter(scores.values(), np.float64, len(scores))
    if len(values) > k:
        kept = np.flatnonzero(values >= np.partition(values, len(values) - k)[len(values) - k]).tolist()
        ids = list(scores)
        pairs = [(ids[at], scores[ids[at]]) for at in kept]
    else:
        pairs = list(scores.items())
    pairs.sort(key=lambda pair: (-pair[1], pair[0]))
    return pairs[:k]


_EXACT: Coverage = "exact"
_WORST: dict[Coverage, int] = {"exact": 0, "complete": 1, "short": 2}


def fuse_hits(legs: Sequence[Hits], fusion: Fusion, k: int) -> Hits:
    """One answer from the answers of several legs over one collection; coverage is that of the weakest leg."""
    rows: dict[str, Hit] = {}
    for leg in legs:
        for hit in leg:
            rows.setdefault(hit.id, hit)
    fused = fusion.fuse([leg.ids for leg in legs], k)
    coverage: Coverage = max((leg.coverage for leg in legs), key=_WORST.__getitem__, default=_EXACT)
    return Hits(
        [make_hit(d, score, rows[d].text, rows[d].metadata, rows[d].vector) for d, score in fused],
        coverage=coverage,
        path=" + ".join(leg.path for leg in legs),
    )
