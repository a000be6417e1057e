"""The contract on Chroma: embedded in a directory, as a server, and as a server with a keyword side-car.

Each test has a place of its own: a fresh directory, or a fresh database of one server.
"""

from pathlib import Path
from typing import ClassVar

import pytest

from vectorkit.testing import AdapterContract


class TestChromaEmbedded(AdapterContract):
    tabled: ClassVar[bool | str] = "chroma, embedded"
    areas: ClassVar[frozenset[str] | None] = frozenset(
        {"collections", "writing", "changing", "expiring", "searching", "metadata", "model"}
    )

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"chroma://{tmp_path}/store"


class TestChromaServer(AdapterContract):
    tabled: ClassVar[bool | str] = "chroma, server"
    areas: ClassVar[frozenset[str] | None] = frozenset({"searching", "collections"})  # whole with the side-car, below

    @pytest.fixture
    def target(self, chroma_target: dict[str, str]) -> dict[str, str]:
        return chroma_target


class TestChromaServerWithSidecar(AdapterContract):
    tabled: ClassVar[bool | str] = "chroma, server and side-car"

    @pytest.fixture
    def target(self, chroma_target: dict[str, str], tmp_path: Path) -> dict[str, str]:
        return {**chroma_target, "sidecar": str(tmp_path / "words.db")}
