"""What the tests on Chroma share: an empty place on a server for each, and rows to put there."""

import uuid
from typing import Any

import numpy as np

import vectorkit as vk
from integration.servers.chroma import ChromaServer, chroma_request


def database(server: ChromaServer) -> dict[str, Any]:
    """A new and empty database of the server, as `vectorkit.connect` takes it."""
    name = f"vk_{uuid.uuid4().hex}"
    chroma_request(server.url, "POST", "databases", {"name": name})
    return {"url": server.url, "database": name}


def numbered(start: int, stop: int, dimension: int = 8) -> list[vk.Record]:
    """Rows whose vector, text and metadata follow from their number."""
    found = []
    for n in range(start, stop):
        vector = np.random.default_rng(n).normal(size=dimension).astype(np.float32)
        found.append(vk.Record(f"r{n:06d}", vector, f"word{n % 7} common", {"n": n}))
    return found
