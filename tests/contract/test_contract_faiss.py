"""The contract on `faiss:///path`, with a Flat, a graph, an inverted file, and the quantised kinds in every collection.

Indexes are built from the first row on (`full_scan_threshold=0`), so that small test collections go through them.
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


class TestFaissIVF(AdapterContract):
    index: ClassVar[Any] = vk.IVF(full_scan_threshold=0)

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"faiss://{tmp_path}/store"


@pytest.mark.slow
class TestFaissHNSWByScalarCodes(AdapterContract):
    index: ClassVar[Any] = vk.HNSW(m=16, ef_construction=100, full_scan_threshold=0, quantization="sq8")

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"faiss://{tmp_path}/store"


@pytest.mark.slow
class TestFaissIVFByProductCodes(AdapterContract):
    index: ClassVar[Any] = vk.IVF(full_scan_threshold=0, quantization="pq")

    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"faiss://{tmp_path}/store"
