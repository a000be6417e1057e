"""The contract on `local:///path`: the embedded engine with exact search, in a new directory a test.

What holds here holds for the SQLite side of every store the engine carries.
"""

from pathlib import Path

import pytest

from vectorkit.testing import AdapterContract


class TestLocal(AdapterContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"local://{tmp_path}/store"
