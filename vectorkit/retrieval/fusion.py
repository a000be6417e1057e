"""Fusing rankings: pure functions on lists of ids, the same on every store.

No adapter fuses: engines that offer it count ranks from elsewhere and weigh them otherwise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import nsmallest
from itertools import chain, islice, repeat
from operator import add, neg
from typing import Protocol

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
        parts: list[dict[str, float]] = []
        for weight, ranking in zip(weights, rankings, strict=True):
            part = dict(zip(ranking, _reciprocals(self.k, weight, len(ranking)), strict=True))
            if len(part) < len(ranking):  # an id twice in a leg: dict() kept its last rank
                distinct = list(dict.fromkeys(ranking))
                part = dict(zip(distinct, _reciprocals(self.k, weight, len(distinct)), strict=True))
            parts.append(part)
        k = min(k, sum(map(len, parts)))
        depth = 4 * k + 64
        while True:
            seen = list(dict.fromkeys(chain.from_iterable(islice(part, depth) for part in parts)))
            totals: Iterable[float] = repeat(0.0, len(seen))
            for part in parts:
                totals = map(add, totals, map(part.get, seen, repeat(0.0)))
            best = [(d, -score) for score, d in nsmallest(k, zip(map(neg, totals), seen, strict=True))]
            # What no leg has among its first `depth` scores at most this; parts fall with rank, so what is deeper cannot win.
            deeper = [weight for weight, part in zip(weights, parts, strict=True) if len(part) > depth]
            if not deeper or (len(best) == k and best[-1][1] > sum(deeper) / (self.k + depth + 1)):
                return best
            depth *= 4


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
