"""The contract on `faiss:///path`, once with a Flat and once with an HNSW index in every collection.

The graph is built from the first row on (`full_scan_threshold=0`), so that small test collections go through it.
"""

from pathlib import Path
from typing import Any, ClassVar

import pytest

import vectorkit as vk
from vectorkit.testing import AdapterContract


class TestFaissFlat(AdapterContract):
    index: ClassVar[Any] = vk.Flat()

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"faiss://{tmp_path}/store"


class TestFaissHNSW(AdapterContract):
    index: ClassVar[Any] = vk.HNSW(m=16, ef_construction=100, full_scan_threshold=0)

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"faiss://{tmp_path}/store"
