"""The contract on a real PostgreSQL with pgvector: exact search, a graph, 16-bit graphs and an inverted file.

Indexes are built from the first row on (`full_scan_threshold=0`), so that small test collections go through them.
"""

from typing import Any, ClassVar

import pytest

import vectorkit as vk
from vectorkit.testing import AdapterContract

QUERIES = frozenset({"scores", "filtering", "searching"})  # what another index can change


class TestPgvector(AdapterContract):
    areas: ClassVar[frozenset[str] | None] = QUERIES  # the whole suite runs with a graph, below

    @pytest.fixture
    def target(self, pgvector_target: Any) -> Any:
        return pgvector_target


class TestPgvectorHNSW(AdapterContract):
    index: ClassVar[Any] = vk.HNSW(m=16, ef_construction=100, full_scan_threshold=0)

    @pytest.fixture
    def target(self, pgvector_target: Any) -> Any:
        return pgvector_target


_HALF = "never: a halfvec holds numbers up to 65504 (https://github.com/pgvector/pgvector#half-precision-indexing); larger ones are refused"


@pytest.mark.slow
class TestPgvectorHalfHNSW(AdapterContract):
    areas: ClassVar[frozenset[str] | None] = QUERIES
    index: ClassVar[Any] = vk.HNSW(m=16, ef_construction=100, full_scan_threshold=0, quantization="fp16")
    deviations: ClassVar[dict[str, str]] = {
        "test_huge_numbers_under_dot_and_l2": _HALF,
        "test_near_ties_are_ordered_by_id": _HALF,
    }

    @pytest.fixture
    def target(self, pgvector_target: Any) -> Any:
        return pgvector_target


@pytest.mark.slow
class TestPgvectorIVF(AdapterContract):
    areas: ClassVar[frozenset[str] | None] = QUERIES
    index: ClassVar[Any] = vk.IVF(full_scan_threshold=0)

    @pytest.fixture
    def target(self, pgvector_target: Any) -> Any:
        return pgvector_target
