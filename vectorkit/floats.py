"""float32 as numbers of few digits, for stores that are sent vectors as JSON. Pure."""

import math
from typing import Any

import numpy as np

from vectorkit.types import FloatArray


def _scale(exponent: int) -> float:
    """A power of ten by which numbers with this exponent (as float32 stores it) keep all that tells them from their neighbours:
    what rounding takes is less than half of the half of the gap to the next, also below a power of two."""
    digits = math.ceil((25.2 - (exponent - 126)) * math.log10(2))
    return 10.0 ** min(max(digits, 0), 22)  # beyond which a power of ten is no float64


_SCALES = np.array([_scale(exponent) for exponent in range(256)])
_SMALLEST = next(n for n in range(256) if _SCALES[n] < 10.0**22)


def shortened(vectors: FloatArray) -> Any:
    """float32 as the float64 of few digits that become the same float32 again: 13 characters of JSON instead of 21."""
    exponents = (np.ascontiguousarray(vectors, np.float32).view(np.uint32) >> 23) & 255
    scales = _SCALES[exponents]
    wide = vectors.astype(np.float64)
    short = np.rint(wide * scales)
    short /= scales
    if (tiny := exponents < _SMALLEST).any():
        short[tiny] = wide[tiny]
    return short
