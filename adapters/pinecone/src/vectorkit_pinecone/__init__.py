"""Pinecone behind vectorkit's API: `pinecone://prefix?cloud=aws&region=us-east-1`. Its client waits for the first store."""

from vectorkit.adapter import Adapter, Backend, Target
from vectorkit.runtime import Runtime
from vectorkit_pinecone.options import PineconeOptions

__all__ = ["BACKEND", "PineconeOptions"]


async def _open(target: Target, runtime: Runtime) -> Adapter:
    from vectorkit_pinecone.adapter import open_pinecone

    return await open_pinecone(target, runtime)


BACKEND = Backend(
    store="pinecone",
    open=_open,
    place="name",
    options=PineconeOptions,
    parameters=frozenset({"cloud", "region", "host"}),
)
