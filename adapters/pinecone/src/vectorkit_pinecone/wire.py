"""What the adapter asks of an index, in one request each; `documents.py` and `vectors.py` are the two kinds of index that answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vectorkit.types import FloatArray
from vectorkit_pinecone.convert import Row, Stored
from vectorkit_pinecone.filters import Where


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace of an index."""

    host: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Written:
    """What a write was answered: its number in the namespace's log, and how many rows a filter of it matched; None unsaid."""

    lsn: int | None
    matched: int | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """A row as it was read, and the fields to set and to remove."""

    row: Row
    given: dict[str, Any]
    gone: list[str]

    def after(self) -> dict[str, Any]:
        """All its fields then."""
        return {name: value for name, value in self.row.fields.items() if name not in self.gone} | self.given


@dataclass(frozen=True, slots=True)
class Found:
    """Rows with their scores, best first, and how far the log was that they were found in; None unsaid."""

    rows: list[Row]
    scores: list[float | None]
    lsn: int | None


class Wire(Protocol):
    """One kind of index. A namespace that is not there raises NotFound, or answers as one without rows."""

    words: bool
    """Whether it has a keyword leg."""

    def schema(self, dimension: int, metric: str) -> dict[str, Any]:
        """What an index is made with."""

    async def upsert(self, at: Place, rows: Sequence[Stored]) -> Written:
        """Rows whole, over what was there. All or nothing."""

    def size(self, patch: Patch) -> int:
        """Bytes that a patch is in a request."""

    async def patch(self, at: Place, patches: Sequence[Patch]) -> Written:
        """Fields set and removed."""

    async def fetch(self, at: Place, keys: Sequence[str], fields: Sequence[str], *, vectors: bool) -> list[Row]:
        """Those of the rows that are there, in any order."""

    async def page(
        self, at: Place, where: Where, limit: int, token: str | None, fields: Sequence[str], *, vectors: bool
    ) -> tuple[list[Row], str | None]:
        """Rows that match, and what to ask for the next with; None at the end."""

    async def search(
        self, at: Place, vector: FloatArray, k: int, where: Where | None, fields: Sequence[str], *, vectors: bool
    ) -> Found:
        """The nearest rows; without fields and vectors, their ids."""

    async def keyword(
        self, at: Place, words: Sequence[str], k: int, where: Where | None, fields: Sequence[str], *, vectors: bool
    ) -> Found:
        """The rows with any of the words, best first."""

    async def delete(self, at: Place, keys: Sequence[str]) -> Written:
        """Rows by id."""

    async def delete_where(self, at: Place, where: Where) -> Written:
        """Rows that match."""

    async def clear(self, at: Place) -> Written:
        """All rows."""
