"""A fixture for pytest: `pytest_plugins = ["vectorkit_pinecone.double.fixtures"]`."""

from collections.abc import Iterator

import pytest

from vectorkit_pinecone.double import PineconeDouble


@pytest.fixture(scope="session")
def pinecone_double_server() -> Iterator[PineconeDouble]:
    """One server for the whole session."""
    with PineconeDouble() as double:
        yield double


@pytest.fixture
def pinecone_double(pinecone_double_server: PineconeDouble) -> PineconeDouble:
    """That server, with nothing left of the test before."""
    pinecone_double_server.reset()
    return pinecone_double_server
