"""Qdrant behind vectorkit's API: `qdrant:///path` in this process, `qdrant+memory://` for trying out, `qdrant://host` as a server."""

from vectorkit.adapter import Adapter, Backend, Target
from vectorkit.runtime import Runtime
from vectorkit_qdrant.options import QdrantOptions

__all__ = ["BACKEND", "MEMORY", "QdrantOptions"]


async def _open(target: Target, runtime: Runtime) -> Adapter:
    from vectorkit_qdrant.adapter import open_qdrant

    return await open_qdrant(target, runtime)


BACKEND = Backend(store="qdrant", open=_open, place="either", options=QdrantOptions)
MEMORY = Backend(store="qdrant", open=_open, place="name", options=QdrantOptions)
