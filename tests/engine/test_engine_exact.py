"""The exact kernels against a plain float64 sort: any metric, scale, offset, subset and batch."""

import numpy as np
import pytest

from vectorkit.local.exact import Space, prepare, squares
from vectorkit.ranking import TIE
from vectorkit.types import Metric


def brute(
    x: np.ndarray, q: np.ndarray, metric: Metric, slots: np.ndarray, ids: list[str], k: int
) -> list[tuple[int, float]]:
    x64, q64 = x[slots].astype(np.float64), q.astype(np.float64)
    if metric == "cosine":
        scores = (x64 @ q64) / np.linalg.norm(x64, axis=1) / np.linalg.norm(q64)
    elif metric == "dot":
        scores = x64 @ q64
    else:
        scores = -np.linalg.norm(x64 - q64, axis=1)
    left = sorted(zip(scores.tolist(), slots.tolist(), strict=True), key=lambda pair: -pair[0])
    out: list[tuple[int, float]] = []
    while len(out) < min(k, len(left)):
        first = left[len(out)][0]
        tied = [pair for pair in left[len(out) :] if pair[0] >= first - TIE * max(1.0, abs(first))]
        out += [(slot, score) for score, slot in sorted(tied, key=lambda pair: ids[pair[1]])]
    return out[:k]


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.0, 1e4), (1e-12, 0.0), (1e12, 0.0), (1e30, 0.0)])
@pytest.mark.parametrize("count", [1, 7, 300, 10_000])
def test_exact(metric: Metric, scale: float, offset: float, count: int) -> None:
    random = np.random.default_rng(count)
    x = (random.standard_normal((count, 12)) * scale + offset).astype(np.float32)
    x[count // 2 :: 7] = x[0]  # many rows tie exactly
    queries = np.concatenate([(random.standard_normal((5, 12)) * scale + offset).astype(np.float32), x[:1]])
    ids = [f"{n % 10}-{n}" for n in range(count)]
    matrix, prepared = prepare(x, metric), prepare(queries, metric)
    sizes = squares(x)
    with np.errstate(over="ignore"):
        norms = sizes.astype(np.float32) if metric == "l2" else None
    largest = 1.0 if metric == "cosine" else float(sizes.max())
    for share in (1.0, 0.5, 0.02) if count > 1 else (1.0,):
        slots = np.flatnonzero(random.random(count) < share) if share < 1 else None
        every = np.arange(count) if slots is None else slots
        split = int(random.integers(0, count + 1))  # mapped rows, then newer ones: where they part must not show
        space = Space(metric, matrix[:split], matrix[split:], norms, largest, ids)
        many = space.search(prepared, 10, slots)
        for at, query in enumerate(queries):
            wanted = brute(x, query, metric, every, ids, 10)
            (one,) = space.search(prepared[at : at + 1], 10, slots)
            for found in (one, many[at]):
                reach = (
                    1.0
                    if metric == "cosine"
                    else float(np.sqrt(largest))
                    * (float(np.linalg.norm(query.astype(np.float64))) if metric == "dot" else 1.0)
                )
                assert [s for _, s in found] == pytest.approx(
                    [s for _, s in wanted], rel=1e-6, abs=1e-6 * max(1.0, reach * 1e-3)
                )
                if scale == 1.0 and offset == 0.0:
                    assert [slot for slot, _ in found] == [slot for slot, _ in wanted]


def test_equal_vectors_score_equally() -> None:
    random = np.random.default_rng(3)
    x = random.standard_normal((5_000, 33)).astype(np.float32)
    x[::2] = x[0]
    matrix = prepare(x, "cosine")
    space = Space("cosine", matrix[:1_700], matrix[1_700:], None, 1.0, [str(n) for n in range(5_000)])
    (found,) = space.search(prepare(x[:1], "cosine"), 50, None)
    assert len({score for _, score in found}) == 1
    assert [slot for slot, _ in found] == sorted(range(0, 5_000, 2), key=str)[:50]
