"""The contract on Qdrant: its engine in this process, in a directory."""

from pathlib import Path

import pytest

from vectorkit.testing import AdapterContract


class TestQdrantEmbedded(AdapterContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"qdrant://{tmp_path}/store"
