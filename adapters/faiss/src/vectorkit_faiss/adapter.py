"""`faiss:///path`: FAISS indexes in the embedded engine, which keeps rows, filters, durability and exact search itself.

`Flat` needs no FAISS: the engine's own matrix search is exact and faster.
"""

from vectorkit.adapter import Backend, Target
from vectorkit.local.adapter import LocalAdapter, open_local
from vectorkit.local.options import LocalOptions
from vectorkit.runtime import Runtime
from vectorkit_faiss.files import open_file
from vectorkit_faiss.indexes import make_index
from vectorkit_faiss.kinds import check


async def _open(target: Target, runtime: Runtime) -> LocalAdapter:
    return await open_local(
        target,
        runtime,
        store="faiss",
        indexes=frozenset({"flat", "hnsw", "ivf"}),
        make_index=make_index,
        check=check,
        source=open_file,
    )


BACKEND = Backend(store="faiss", open=_open, place="directory", options=LocalOptions)
