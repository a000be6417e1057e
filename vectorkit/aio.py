"""The async face: one explicit line a verb. What the verbs do is in `verbs.py`; `store.py` is the other colour of it."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy.typing as npt

from vectorkit.adapter import Capability
from vectorkit.codec import Metadata
from vectorkit.retrieval.fusion import Fusion
from vectorkit.types import Batch, CollectionSpec, Cursor, Explanation, Hits, Record, Stats, WriteResult
from vectorkit.verbs import CollectionVerbs, StoreVerbs, Where

Records: TypeAlias = Iterable[Record] | AsyncIterable[Record] | Batch


class AsyncStore:
    """An open store, made by `aconnect`. Use it as a context manager, or close it."""

    def __init__(self, verbs: StoreVerbs) -> None:
        self._verbs = verbs

    @property
    def capability(self) -> Capability:
        """What this store can do."""
        return self._verbs.capability

    @property
    def native(self) -> Any:
        """The store's own client, for what vectorkit does not cover."""
        return self._verbs.top.native

    async def create_collection(self, spec: CollectionSpec) -> "AsyncCollection":
        """Make a collection. Raises AlreadyExists, Unsupported."""
        return AsyncCollection(await self._verbs.create(spec))

    async def adopt(
        self, name: str, spec: CollectionSpec, *, rows: Iterable[Record] | None = None
    ) -> "AsyncCollection":
        """Make a collection `spec.name` of what somebody else stored. On `faiss://`, name is the path of a FAISS index file, or
        of a folder as LangChain saves one (its `index.faiss` is read, its `index.pkl` never opened).

        Taken are Flat, IVF and HNSW indexes of full vectors, with or without IDMap: an IDMap's ids become decimal text, other rows are
        "0", "1", … in index order (in an IVF the order of its ids). rows: an iterable of Records in that order, with `vector=None`,
        for id (an empty one keeps the index's), text, metadata and expires_at. Under cosine the vectors must have length 1. The file is read
        by a process of its own, so one that would crash this process is refused; then it is needed no more.

        All or nothing. Raises NotFound, AlreadyExists, DimensionMismatch, SpecMismatch for another metric, InvalidRecord naming the
        row of a NaN, zero vector or repeated id, InvalidArgument when `rows` has another length, Corrupt naming the file, Unsupported
        for an index that holds approximations only."""
        return AsyncCollection(await self._verbs.adopt(name, spec, rows))

    async def collection(self, name: str) -> "AsyncCollection":
        """Open a collection. Raises NotFound."""
        return AsyncCollection(await self._verbs.open(name))

    async def ensure_collection(self, spec: CollectionSpec) -> "AsyncCollection":
        """Create or open. Raises SpecMismatch when dimension, metric, tenancy, expiry, embedding or a field's type differs."""
        return AsyncCollection(await self._verbs.ensure(spec))

    async def collections(self) -> list[str]:
        """The names of all collections, sorted."""
        return await self._verbs.names()

    async def drop_collection(self, name: str) -> None:
        """Remove a collection and its rows. Raises NotFound."""
        await self._verbs.drop(name)

    async def close(self) -> None:
        """Release everything; twice is fine. Every later call raises Closed."""
        await self._verbs.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncStore({self._verbs.shown}{', closed' if self._verbs.closed else ''})"


class AsyncCollection:
    """A collection: the data verbs. Rows, scores and filters mean the same on every store."""

    def __init__(self, verbs: CollectionVerbs) -> None:
        self._verbs = verbs

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._verbs.spec.name

    @property
    def spec(self) -> CollectionSpec:
        """The spec as it was stored when this handle was opened."""
        return self._verbs.spec

    async def upsert(
        self, records: Records, *, ttl: timedelta | float | None = None, wait: float | None = None
    ) -> WriteResult:
        """Write rows, replacing whole records whose id exists.

        records: any iterable of Record (a generator of ten million is read in chunks of 10,000), or one Batch. A list or
        Batch is sent whole or refused whole. ttl: a timedelta or seconds, for rows without their own `expires_at`.
        wait: seconds to wait until later reads see the rows, on stores that do not promise it (`capability.consistency`).

        Raises InvalidRecord, DimensionMismatch (naming the row; nothing of the batch was written), PartialFailure when an
        iterator fails after some chunks were committed, DeadlineExceeded with `landed` when the rows were not seen in time."""
        return await self._verbs.upsert(records, ttl=ttl, wait=wait)

    async def insert(self, records: Records, *, on_conflict: Literal["fail", "skip"] = "fail") -> WriteResult:
        """Write rows without ever overwriting one.

        on_conflict: "fail" raises AlreadyExists(ids) and writes nothing of that batch; "skip" leaves existing rows alone
        and counts them. Otherwise as `upsert`."""
        return await self._verbs.insert(records, on_conflict=on_conflict)

    async def get(self, ids: Sequence[str], *, vectors: bool = False) -> list[Record | None]:
        """The rows with these ids, in the order asked, None where there is none."""
        return await self._verbs.get(ids, vectors=vectors)

    async def query(
        self,
        vector: npt.ArrayLike,
        *,
        k: int = 10,
        where: Where = None,
        vectors: bool = False,
        exact: bool = False,
        ef_search: int | None = None,
        probes: int | None = None,
    ) -> Hits:
        """The min(k, matching) nearest rows to a vector of `dimension` numbers, best first.

        where: a filter (`F("year") >= 2024`) or its dict form. vectors: return them too. exact: search every row.
        ef_search: candidates a graph search keeps; probes: lists an inverted file searches. Each has effect where the
        index is of that kind; by default what was measured for the index.

        Raises DimensionMismatch, InvalidFilter, InvalidArgument, Unsupported."""
        return await self._verbs.query(
            vector, k=k, where=where, vectors=vectors, exact=exact, ef_search=ef_search, probes=probes
        )

    async def query_many(
        self,
        queries: npt.ArrayLike,
        /,
        *,
        k: int = 10,
        where: Where = None,
        vectors: bool = False,
        exact: bool = False,
        ef_search: int | None = None,
        probes: int | None = None,
    ) -> list[Hits]:
        """`query` for each row of a (q, d) array, in one request."""
        return await self._verbs.query_many(
            queries, k=k, where=where, return_vectors=vectors, exact=exact, ef_search=ef_search, probes=probes
        )

    async def keyword(self, text: str, *, k: int = 10, where: Where = None, vectors: bool = False) -> Hits:
        """Rows whose text has any of the words, ranked (BM25 in the embedded engine); [] when the text has no word.

        The text is words, never syntax. Raises Unsupported where the store or the collection has no keyword index."""
        return await self._verbs.keyword(text, k=k, where=where, vectors=vectors)

    async def hybrid(
        self,
        text: str,
        vector: npt.ArrayLike,
        *,
        k: int = 10,
        where: Where = None,
        fusion: Fusion | None = None,
        candidates: int | None = None,
        vectors: bool = False,
    ) -> Hits:
        """`query` and `keyword` fused, by reciprocal rank unless told otherwise: Σ 1/(60 + rank), rank from 1.

        fusion: `vk.RRF(k=60, weights=None)`. candidates: rows taken from each leg, max(k, 100) when None. A hit's score is
        the fused one."""
        return await self._verbs.hybrid(
            text, vector, k=k, where=where, fusion=fusion, candidates=candidates, vectors=vectors
        )

    async def update(
        self,
        *,
        ids: Sequence[str] | None = None,
        where: Where = None,
        set: Metadata | None = None,
        unset: Sequence[str] | None = None,
    ) -> int:
        """Change metadata only, atomically per row; how many rows were touched. Takes exactly one of ids and where.

        set: keys to set. unset: keys to remove. Raises InvalidRecord, InvalidArgument, InvalidFilter."""
        return await self._verbs.update(ids=ids, where=where, set=set, unset=unset)

    async def delete(self, *, ids: Sequence[str] | None = None, where: Where = None, everything: bool = False) -> int:
        """Delete rows; how many there were. Takes exactly one selector; an empty filter (`{}`) is refused, say everything=True."""
        return await self._verbs.delete(ids=ids, where=where, everything=everything)

    async def count(self, where: Where = None) -> int:
        """How many rows there are, or how many match, exactly."""
        return await self._verbs.count(where)

    async def stats(self) -> Stats:
        """Rows, index, tombstones and bytes."""
        return await self._verbs.stats()

    async def optimize(self) -> None:
        """Bring the index up to date with the rows and free what deleted ones took."""
        await self._verbs.optimize()

    async def explain(
        self,
        vector: npt.ArrayLike,
        *,
        k: int = 10,
        where: Where = None,
        exact: bool = False,
        ef_search: int | None = None,
        probes: int | None = None,
    ) -> Explanation:
        """Run a query and tell how it was answered: clause by clause, path, rows fetched, round trips, coverage."""
        return await self._verbs.explain(vector, k=k, where=where, exact=exact, ef_search=ef_search, probes=probes)

    async def scan(self, where: Where = None, *, vectors: bool = False) -> AsyncIterator[Record]:
        """Every row that matches, each id once, read page by page as it is consumed: `async for record in docs.scan()`."""
        cursor: Cursor | None = None
        while True:
            page = await self._verbs.page(where, cursor, vectors=vectors)
            for record in page.records:
                yield record
            cursor = page.cursor
            if cursor is None:
                return

    def tenant(self, tenant: str) -> Any:
        """The same verbs walled in to one tenant. Raises Unsupported: no store has tenancy in this version."""
        raise self._verbs.no_tenancy()

    async def tenants(self) -> dict[str, int]:
        """Tenants and their rows. Raises Unsupported: no store has tenancy in this version."""
        raise self._verbs.no_tenancy()

    async def drop_tenant(self, tenant: str) -> int:
        """Remove a tenant's rows. Raises Unsupported: no store has tenancy in this version."""
        raise self._verbs.no_tenancy()

    def __repr__(self) -> str:
        return f"AsyncCollection({self.name!r} in {self._verbs.store.shown})"
