"""Which FAISS indexes are offered, how they are sized, and what a row of each costs; no FAISS needed to know.

The measurements behind it: docs/decisions/0006-which-quantised-kinds.md.
"""

import math

from vectorkit.errors import Unsupported
from vectorkit.types import HNSW, IVF, CollectionSpec, Index

RABITQ_BITS = 2  # a dimension
SAMPLE_ROWS = 262_144
SAMPLE_BYTES = 2**29
LIST_ROWS = 30  # a list holds so many rows on average at least


def parts(dimension: int) -> int:
    """Into how many parts of 2 numbers product codes cut a vector; an odd one is searched with a zero more, which changes nothing."""
    return (dimension + 1) // 2


def sized_lists(count: int) -> int:
    """Lists for so many rows: 4 times the square root, of 30 rows at least."""
    return max(1, min(round(4 * math.sqrt(count)), count // LIST_ROWS))


def check(spec: CollectionSpec) -> None:
    """Refuse an index that is not offered. Raises Unsupported naming one that is."""
    match spec.index:
        case HNSW(quantization="pq"):
            raise Unsupported(
                "faiss: HNSW with pq finds too little (docs/decisions/0006); use HNSW(quantization='sq8') or IVF(quantization='pq')"
            )
        case HNSW(quantization="rabitq") if spec.metric == "dot":
            raise Unsupported("faiss: HNSW with rabitq ranks by distance, not by dot; use HNSW(quantization='sq8')")
        case _:
            pass


def bytes_per_row(index: Index, dimension: int) -> float:
    """Bytes of memory a row takes in a FAISS index, beside the rows themselves. Flat has no index: 0.

    A graph: the code, 4·2m bytes of links on the ground level, 4·m for each level above, of which a row has 1/(m-1) on average,
    and 12 for its level and offset. A list: the code and 8 for the row's number. Centroids, 4·dimension each, are few.
    """
    match index:
        case HNSW(m=m, quantization=codes):
            return code_bytes(codes, dimension, RABITQ_BITS) + 8 * m + 4 * m / (m - 1) + 12
        case IVF(quantization=codes):
            return code_bytes(codes, dimension, RABITQ_BITS) + 8
        case _:
            return 0.0


def code_bytes(codes: str | None, dimension: int, bits: int) -> int:
    """Bytes of one row's code. RaBitQ: the bits, and 8 bytes of factors for one bit, 20 for more."""
    match codes:
        case "sq8":
            return dimension
        case "fp16":
            return 2 * dimension
        case "pq":
            return (parts(dimension) + 1) // 2
        case "rabitq":
            return (dimension + 7) // 8 + (dimension * (bits - 1) + 7) // 8 + (8 if bits == 1 else 20)
        case _:
            return 4 * dimension
