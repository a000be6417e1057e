"""The order of answers: by score, larger first, with near-equal scores a tie that the id decides.

One rule for every store, so that rounding in somebody's arithmetic does not show as another order.
"""

import sys
from collections.abc import Sequence
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from vectorkit.types import Hit

TIE = 1e-6
MAX = sys.float_info.max
_score = attrgetter("score")
_id = attrgetter("id")


def sort_hits(hits: list[Hit]) -> None:
    """Sort in place: scores descending; from the best down, those within 1e-6·max(1, |s|) of a group's first by id."""
    before = MAX
    for hit in hits:
        at = hit.score
        if before - at <= TIE + TIE * abs(before):  # out of order, or maybe a tie
            break
        before = at
    else:
        return
    hits.sort(key=_score, reverse=True)
    end = len(hits)
    start = 0
    while start < end - 1:
        first = hits[start].score
        limit = first - TIE * max(1.0, abs(first))
        stop = start + 1
        while stop < end and hits[stop].score >= limit:
            stop += 1
        if stop - start > 1:
            hits[start:stop] = sorted(hits[start:stop], key=_id)
        start = stop


def tie_floor(score: float) -> float:
    """The lowest score that can share a tie with the row at `score` when that row is the last asked for."""
    return score - TIE * 1.0001 * max(1.0, abs(score))


def top(
    scores: npt.NDArray[np.float64], slots: npt.NDArray[np.int64], ids: Sequence[str], k: int
) -> list[tuple[int, float]]:
    """The first k of (n,) scores by the rule above as (slot, score); `ids[slot]` is a slot's id."""
    count = len(scores)
    if count > k and count > 4 * k + 64:
        kth = float(np.partition(scores, count - k)[count - k])
        pool = np.flatnonzero(scores >= tie_floor(kth))
        scores, slots = scores[pool], slots[pool]
    ranked = sorted(zip(scores.tolist(), slots.tolist(), strict=True), reverse=True)
    before = MAX
    for score, _ in ranked[: k + 1]:
        if before - score <= TIE + TIE * abs(before):  # maybe a tie
            break
        before = score
    else:
        return [(slot, score) for score, slot in ranked[:k]]
    out: list[tuple[int, float]] = []
    end = len(ranked)
    start = 0
    while start < end and len(out) < k:
        first, slot = ranked[start]
        limit = first - TIE * max(1.0, abs(first))
        stop = start + 1
        while stop < end and ranked[stop][0] >= limit:
            stop += 1
        if stop - start == 1:
            out.append((slot, first))
        else:
            out.extend((tied, value) for value, tied in sorted(ranked[start:stop], key=lambda pair: ids[pair[1]]))
        start = stop
    return out[:k]
