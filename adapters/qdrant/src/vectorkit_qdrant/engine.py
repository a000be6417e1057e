"""What the adapter asks of Qdrant, whether it is a server or the engine in this process: one call, one request.

Conditions are those of `filters.py`. A collection that is not there raises NotFound.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from vectorkit.types import CollectionSpec, FloatArray
from vectorkit_qdrant.filters import Condition


@dataclass(slots=True)
class Row:
    """A point as read. vector: None where it was not asked for. score: Qdrant's own, None outside a search."""

    point: str
    payload: dict[str, Any]
    vector: Any = None
    score: float | None = None


@dataclass(slots=True, kw_only=True)
class Search:
    """One search. vector or text: what is asked. keys: the payload's keys that come back, None for all."""

    vector: FloatArray | None = None
    text: str | None = None
    where: Condition | None = None
    limit: int
    vectors: bool = False
    exact: bool = False
    ef: int | None = None
    oversampling: float = 2.0
    keys: Sequence[str] | None = None


@dataclass(slots=True)
class Size:
    """Points of a collection, and how many of them the graph holds."""

    rows: int
    indexed: int
    bytes: dict[str, int] = field(default_factory=dict)


class Engine(Protocol):
    """Qdrant. Names are physical names, but for those of `describe` and `drop`."""

    shown: str
    shared: bool
    """Whether somebody else may write between two of our requests."""

    @property
    def native(self) -> Any:
        """The official client of a server, or the engine's open shards by physical name."""

    async def names(self) -> list[str]:
        """The logical names of the published collections of ours, sorted."""

    async def describe(self, name: str, *, read_only: bool) -> CollectionSpec:
        """The published collection of a logical name, of the highest generation. NotFound."""

    async def create(self, spec: CollectionSpec, *, hidden: bool = False) -> CollectionSpec:
        """Make it with its payload indexes, and return its spec with the generation filled in. AlreadyExists."""

    async def publish(self, spec: CollectionSpec) -> None:
        """Let a hidden collection be found."""

    async def discard(self, spec: CollectionSpec) -> None:
        """Remove a hidden collection."""

    async def foreign(self, name: str) -> Any:
        """What is told of a collection that somebody else made. NotFound; Unsupported where there are none."""

    async def foreign_page(
        self, name: str, limit: int, start: str | int | None, *, vectors: bool | Sequence[str]
    ) -> tuple[list[Row], str | int | None]:
        """Points of such a collection, and where the next page begins."""

    async def drop(self, name: str) -> None:
        """Remove every generation of a logical name. NotFound."""

    def changing(self, name: str) -> AbstractAsyncContextManager[Any]:
        """Held while rows are read in order to be written, where the store itself cannot compare and write."""

    async def upsert(
        self,
        name: str,
        points: Sequence[str],
        vectors: FloatArray,
        payloads: Sequence[Mapping[str, Any]],
        *,
        fresh: bool,
    ) -> None:
        """Write points whole; fresh: leave alone those that are there. PartialFailure when a write of several requests stops."""

    async def overwrite(self, name: str, payloads: Mapping[str, Mapping[str, Any]], seen: Mapping[str, int]) -> None:
        """Replace payloads, each where its sequence number is still the one seen."""

    async def retrieve(
        self, name: str, points: Sequence[str], *, vectors: bool = False, keys: Sequence[str] | None = None
    ) -> list[Row]:
        """The points that are there, in any order."""

    async def search(self, name: str, searches: Sequence[Search]) -> list[list[Row]]:
        """The best of each."""

    async def scroll(
        self,
        name: str,
        where: Condition | None,
        limit: int,
        start: str | int | None,
        *,
        vectors: bool,
        keys: Sequence[str] | None = None,
    ) -> tuple[list[Row], str | int | None]:
        """Points in the order of their ids, and where the next page begins."""

    async def count(self, name: str, where: Condition | None) -> int:
        """Exactly."""

    async def delete(self, name: str, where: Condition) -> None:
        """Those under a condition."""

    async def size(self, name: str) -> Size:
        """How large it is."""

    async def optimize(self, name: str) -> None:
        """Build and clean now what would be built and cleaned some time."""

    async def close(self) -> None:
        """Release what was opened."""
