"""The contract on Qdrant: its engine in this process, in a directory and in one that goes away; and as a server, the shim.

Each test has a place of its own: a fresh directory, or the worker's server without anything of vectorkit's.
"""

from pathlib import Path
from typing import ClassVar

import pytest

from vectorkit.testing import AdapterContract


class TestQdrantEmbedded(AdapterContract):
    tabled: ClassVar[bool | str] = "qdrant, embedded"
    # the verbs are the server's, below, which runs whole; what differs is what asks the engine
    areas: ClassVar[frozenset[str] | None] = frozenset(
        {"collections", "writing", "changing", "expiring", "searching", "model"}
    )

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"qdrant://{tmp_path}/store"


class TestQdrantMemory(AdapterContract):
    # the same code on a directory of its own: what differs is that nothing is there at the start and nothing stays
    tabled: ClassVar[bool | str] = False
    areas: ClassVar[frozenset[str] | None] = frozenset({"collections"})

    @pytest.fixture
    def target(self) -> str:
        return "qdrant+memory://"


class TestQdrantServer(AdapterContract):
    tabled: ClassVar[bool | str] = "qdrant, server through the shim"

    @pytest.fixture
    def target(self, qdrant_target: str) -> str:
        return qdrant_target
