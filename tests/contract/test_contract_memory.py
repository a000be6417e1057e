"""The contract on `memory://`, the store that every other is compared with.

Each test connects to a store of its own: `memory://` without a name is private to its handle.
"""

import pytest

from vectorkit.testing import AdapterContract


class TestMemory(AdapterContract):
    @pytest.fixture
    def target(self) -> str:
        return "memory://"
