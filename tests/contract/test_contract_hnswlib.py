"""The contract on `hnswlib:///path`: every collection through the graph from the first row on (`full_scan_threshold=0`).

`Flat` is not run again: no line of hnswlib's adapter takes part in it, and `faiss://` runs the engine's own.
"""

from pathlib import Path
from typing import Any, ClassVar

import pytest

import vectorkit as vk
from vectorkit.testing import AdapterContract

pytest.importorskip("vectorkit_hnswlib", reason="hnswlib is not installed; tests/conftest.py says why")


class TestHnswlibHNSW(AdapterContract):
    index: ClassVar[Any] = vk.HNSW(m=16, ef_construction=100, full_scan_threshold=0)

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"hnswlib://{tmp_path}/store"
