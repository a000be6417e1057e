"""Search beyond float32: pgvector sums in float32, so products above 1e38 and differences above 1e19 come out infinite.

The rows that qualify are read a page at a time and scored here in float64. It is slow, and only asked when an answer was not finite.
"""

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np

from vectorkit.types import FloatArray, Metric, Record


def scores(metric: Metric, queries: FloatArray, vectors: FloatArray) -> Any:
    """(q, n) scores in float64."""
    q, x = queries.astype(np.float64), vectors.astype(np.float64)
    match metric:
        case "dot":
            return q @ x.T
        case "cosine":
            return (q / np.linalg.norm(q, axis=1)[:, None]) @ (x / np.linalg.norm(x, axis=1)[:, None]).T
        case "l2":
            return -np.stack([np.linalg.norm(x - one, axis=1) for one in q])


def keep(
    found: list[list[tuple[float, Record]]], metric: Metric, queries: FloatArray, k: int, records: Sequence[Record]
) -> None:
    """Merge a page's records into each query's k best, as (score, record)."""
    if not records:
        return
    vectors = np.stack([np.asarray(record.vector, np.float32) for record in records])
    for at, row in enumerate(scores(metric, queries, vectors)):
        pairs = [*found[at], *zip(row.tolist(), records, strict=True)]
        found[at] = heapq.nsmallest(k, pairs, key=lambda pair: (-pair[0], pair[1].id))
