"""The contract on Pinecone: through its official client, against the double of its API, which is not the service.

Documents and classic vectors, at once visible and 300 ms late. Each test has the worker's double without an index in it.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from integration.servers.pinecone import PineconeServer
from vectorkit.testing import AdapterContract

LARGE = "never: Pinecone takes 40 KB of metadata a row, its text included; more is InvalidRecord"
FAR = "never: Pinecone measures squared distances in float32, so norms above 1e18 are refused under l2"
TOO_LARGE = {"test_a_long_text": LARGE, "test_wide_rows": LARGE, "test_huge_numbers_under_dot_and_l2": FAR}


class TestPinecone(AdapterContract):
    deviations: ClassVar[dict[str, str]] = TOO_LARGE
    tabled: ClassVar[bool | str] = "pinecone, against a double"

    @pytest.fixture
    def target(self, pinecone_target: dict[str, Any]) -> dict[str, Any]:
        return pinecone_target


class TestPineconeLate(AdapterContract):
    """Every write is visible 300 ms after it was taken, to searches and to fetches. `.ci/run` runs all of it, ten at once."""

    deviations: ClassVar[dict[str, str]] = TOO_LARGE
    tabled: ClassVar[bool | str] = False
    areas: ClassVar[frozenset[str] | None] = frozenset({"writing", "changing", "expiring", "collections"})

    @pytest.fixture
    def target(self, pinecone_target: dict[str, Any], pinecone_server: PineconeServer) -> Iterator[dict[str, Any]]:
        pinecone_server.control.delay = 0.3
        yield pinecone_target
        pinecone_server.control.delay = 0.0


class TestPineconeVectors(AdapterContract):
    deviations: ClassVar[dict[str, str]] = TOO_LARGE
    tabled: ClassVar[bool | str] = "pinecone, classic, against a double"
    areas: ClassVar[frozenset[str] | None] = frozenset({"writing", "changing", "filtering", "searching", "model"})

    @pytest.fixture
    def target(self, pinecone_target: dict[str, Any]) -> dict[str, Any]:
        return {**pinecone_target, "api": "vectors"}
