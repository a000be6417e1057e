"""The order of answers: by score, larger first, with near-equal scores a tie that the id decides.

One rule for every store, so that rounding in somebody's arithmetic does not show as another order.
"""

from collections.abc import Sequence
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from vectorkit.types import Hit

TIE = 1e-6
_score = attrgetter("score")
_id = attrgetter("id")


def sort_hits(hits: list[Hit]) -> None:
    """Sort in place: scores descending; from the best down, those within 1e-6·max(1, |s|) of a group's first by id."""
    hits.sort(key=_score, reverse=True)
    end = len(hits)
    at = 0
    while at < end - 1:
        first = hits[at].score
        limit = first - TIE * max(1.0, abs(first))
        to = at + 1
        while to < end and hits[to].score >= limit:
            to += 1
        if to - at > 1:
            hits[at:to] = sorted(hits[at:to], key=_id)
        at = to


def tie_floor(score: float) -> float:
    """The lowest score that can share a tie with the row at `score` when that row is the last asked for."""
    return score - TIE * 1.0001 * max(1.0, abs(score))


def top(
    scores: npt.NDArray[np.float64], slots: npt.NDArray[np.int64], ids: Sequence[str], k: int
) -> list[tuple[int, float]]:
    """The first k of (n,) scores by the rule above as (slot, score); `ids[slot]` is a slot's id."""
    count = len(scores)
    if count > k:
        kth = float(np.partition(scores, count - k)[count - k])
        pool = np.flatnonzero(scores >= tie_floor(kth))
        scores, slots = scores[pool], slots[pool]
    order = np.argsort(-scores, kind="stable")
    ranked = list(zip(slots[order].tolist(), scores[order].tolist(), strict=True))
    out: list[tuple[int, float]] = []
    at = 0
    while at < len(ranked) and len(out) < k:
        first = ranked[at][1]
        limit = first - TIE * max(1.0, abs(first))
        to = at + 1
        while to < len(ranked) and ranked[to][1] >= limit:
            to += 1
        out.extend(ranked[at:to] if to - at == 1 else sorted(ranked[at:to], key=lambda pair: ids[pair[0]]))
        at = to
    return out[:k]
