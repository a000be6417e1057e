"""One Python API over the vector stores that people already run: same rows, same scores, same filters, same tenant walls.

Names are loaded when first used, so importing vectorkit costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

from vectorkit.connect import aconnect as aconnect
from vectorkit.connect import connect as connect

__distribution__ = "vectorkit-core"
__version__ = "0.1.0"

if TYPE_CHECKING:
    from vectorkit.adapter import Capability as Capability
    from vectorkit.aio import AsyncCollection as AsyncCollection
    from vectorkit.aio import AsyncStore as AsyncStore
    from vectorkit.errors import *  # noqa: F403
    from vectorkit.filters import F as F
    from vectorkit.filters import Filter as Filter
    from vectorkit.ingest.embed import HashEmbedder as HashEmbedder
    from vectorkit.local.options import LocalOptions as LocalOptions
    from vectorkit.retrieval.fusion import RRF as RRF
    from vectorkit.store import Collection as Collection
    from vectorkit.store import Store as Store
    from vectorkit.types import HNSW as HNSW
    from vectorkit.types import IVF as IVF
    from vectorkit.types import Batch as Batch
    from vectorkit.types import ByField as ByField
    from vectorkit.types import CollectionSpec as CollectionSpec
    from vectorkit.types import Embedding as Embedding
    from vectorkit.types import Explanation as Explanation
    from vectorkit.types import Flat as Flat
    from vectorkit.types import Hit as Hit
    from vectorkit.types import Hits as Hits
    from vectorkit.types import Record as Record
    from vectorkit.types import Stats as Stats
    from vectorkit.types import WriteResult as WriteResult

_HOME = {
    "vectorkit.adapter": ("Capability",),
    "vectorkit.aio": ("AsyncCollection", "AsyncStore"),
    "vectorkit.errors": (
        "AlreadyExists", "Ambiguous", "Closed", "ConfigError", "Corrupt", "DeadlineExceeded", "DimensionMismatch",
        "FingerprintMismatch", "InvalidArgument", "InvalidFilter", "InvalidRecord", "Locked", "NotFound", "PartialFailure",
        "RateLimited", "SpecMismatch", "TenantLeak", "TenantRequired", "Unavailable", "Unsupported", "VectorkitError",
    ),
    "vectorkit.filters": ("F", "Filter"),
    "vectorkit.ingest.embed": ("HashEmbedder",),
    "vectorkit.local.options": ("LocalOptions",),
    "vectorkit.retrieval.fusion": ("RRF",),
    "vectorkit.store": ("Collection", "Store"),
    "vectorkit.types": (
        "HNSW", "IVF", "Batch", "ByField", "CollectionSpec", "Embedding", "Explanation", "Flat", "Hit", "Hits", "Record",
        "Stats", "WriteResult",
    ),
}  # fmt: skip
_WHERE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted([*_WHERE, "aconnect", "connect"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'vectorkit' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__distribution__", "__version__"]
