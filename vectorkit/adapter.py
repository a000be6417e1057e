"""What a store implements: `Adapter`, values in and values out. Read this first.

Everything hard that is the same for every store (validation, re-checking, refilling, ordering) is in `checked.py`, so an
adapter only says what its store can do, translates, and does one round trip a call.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias

from vectorkit.codec import Metadata
from vectorkit.filters import Node
from vectorkit.runtime import Runtime
from vectorkit.types import Batch, CollectionSpec, Cursor, FloatArray, Hits, Page, Record, Stats

Mode: TypeAlias = Literal["upsert", "insert", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """What one store can do: a frozen value that the runtime, the documentation's table and the contract suite all read.

    The grammar of names: a *bool* says that a verb or promise is there (off: the call raises Unsupported naming the store
    and the way out). A *string* says how a promise is kept. `max_*` is a limit, None for none; going over raises
    Unsupported or InvalidArgument naming it. A *frozenset* lists the accepted kinds. On means proven by the suite.
    """

    store: str
    durable: bool
    """A write that returned survives kill -9 and power loss."""
    exact: bool
    """`exact=True` is answered with the true top k."""
    keyword: bool
    keyword_statistics: Literal["tenant", "shared"] | None
    """Whose documents the keyword scores are computed over."""
    insert: Literal["atomic", "checked", "none"]
    update: Literal["atomic", "read_modify_write", "none"]
    consistency: Literal["read_your_writes", "eventual"]
    expiry: bool
    read_only: bool
    deadline: bool
    ef_search: bool
    """Whether `ef_search=` and `probes=` change the search; where it is off and the search is exact it is accepted and has no effect."""
    indexes: frozenset[str]
    """The index kinds that are built as asked; others are advice."""
    counts: Literal["native", "read"] = "native"
    """Whether a filtered count is the store's own, or reads the ids of the rows that match, up to `residual_limit`."""
    adopt: bool = False
    """Whether `adopt` makes a collection of what somebody else stored."""
    tenancy: frozenset[str] = frozenset()
    pushdown: frozenset[str] = frozenset()
    """Filter operators decided by the store on declared fields; the rest is re-checked."""
    max_k: int | None = None
    max_dimension: int | None = None
    max_rows_per_write: int | None = None
    """Rows that one all-or-nothing request takes; a larger write is several requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a data verb works. Every data verb takes one; there is no unscoped call.

    collection: the physical name (`articles@1`). now: microseconds since 1970 where rows can expire, else None; rows
    whose expiry is `<= now` are absent from every verb, and their ids are free. more: of a write, that further parts of
    the same call follow, so that an index need not be built yet, nor waited for. wait: of an upsert to an eventual store, how many seconds
    it may take until reads see it, None for what the store's options say. most: rows that may be read to answer what the
    store cannot, such as a filtered count; beyond, Unsupported.
    """

    collection: str
    namespace: str = ""
    tenant: str = ""
    now: int | None = None
    more: bool = False
    wait: float | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A filter and what a store makes of it.

    where: the meaning. native: the store's own form, None when the store cannot narrow. exact: the native form keeps
    exactly the rows that `where` means; otherwise at least those, and `Checked` re-checks. Above `Checked` a Plan is
    only its `where`. clauses: per leaf, how it is handled, for `explain`.
    """

    where: Node
    native: Any = None
    exact: bool = False


@dataclass(slots=True, kw_only=True)
class Query:
    """Nearest rows to each of (q, d) float32 vectors. ids: search among these only. vectors_back: return vectors too.

    Not to be changed once made; not frozen either, since a frozen one takes a microsecond longer to make.
    """

    vectors: FloatArray
    k: int
    plan: Plan | None = None
    ids: Sequence[str] | None = None
    vectors_back: bool = False
    exact: bool = False
    ef_search: int | None = None
    probes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeywordQuery:
    """Rows with any of the words, ranked. `words` is `text` cut into words by the core, never empty here."""

    text: str
    words: tuple[str, ...]
    k: int
    plan: Plan | None = None
    ids: Sequence[str] | None = None
    vectors_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Rows to delete: ids, a plan (exact by the time it reaches an adapter), or everything.

    ids and a plan together: those of the ids that `plan.where` still holds for, checked in the same transaction where the
    store has one.
    """

    ids: Sequence[str] | None = None
    plan: Plan | None = None
    everything: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of metadata, atomic per row: keys to set (clean values) and keys to remove.

    where: only rows it holds for, checked together with the change where the store can.
    """

    set: Metadata = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    where: Node | None = None

    def apply(self, metadata: Metadata) -> dict[str, Any]:
        """The metadata after the change; set keys keep their place, new ones go last."""
        gone = frozenset(self.unset)
        return {key: value for key, value in {**metadata, **self.set}.items() if key not in gone}


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReport:
    """What one write did: rows written, rows left alone by mode "skip"."""

    written: int
    skipped: int = 0


class Adapter(Protocol):
    """A store. Bodies are `async def` and run in both colours (see `runtime`); no default bodies, no base class.

    An adapter may trust its arguments: batches are validated, filters are normalised (`Not` on leaves only, operands of
    declared fields in the declared type), ids are distinct. Errors it raises are vectorkit's, with the client's as cause.
    """

    capability: Capability

    @property
    def native(self) -> Any:
        """The store's own client, for what vectorkit does not cover."""

    def plan(self, spec: CollectionSpec, where: Node) -> Plan:
        """Translate a filter; pure."""

    async def create(self, spec: CollectionSpec) -> CollectionSpec:
        """Make the collection and return its spec with the generation filled in. AlreadyExists, Unsupported."""

    async def adopt(self, name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> CollectionSpec:
        """Make a collection of what somebody else stored under a name of the store's own kind, whole or not at all.

        rows: what belongs beside each vector, in the same order, with `vector=None`. Returns the spec with the generation filled in.
        NotFound, AlreadyExists, SpecMismatch, DimensionMismatch, InvalidRecord, InvalidArgument, Corrupt, Unsupported."""

    async def describe(self, name: str) -> CollectionSpec:
        """The current spec of a logical name. NotFound."""

    async def names(self) -> list[str]:
        """Logical names, sorted."""

    async def drop(self, name: str) -> None:
        """Remove the collection and all its rows. NotFound."""

    async def write(self, scope: Scope, batch: Batch, mode: Mode) -> WriteReport:
        """All or nothing. "insert" raises AlreadyExists(ids) when a live id is there; "skip" leaves those alone."""

    async def update(self, scope: Scope, ids: Sequence[str], change: Change) -> int:
        """Change the metadata of the rows that are there; how many."""

    async def get(self, scope: Scope, ids: Sequence[str], *, vectors: bool) -> list[Record]:
        """The rows that are there, in any order."""

    async def query(self, scope: Scope, query: Query) -> list[Hits]:
        """Candidates for each vector, with metadata, in any order; coverage and path set."""

    async def keyword(self, scope: Scope, query: KeywordQuery) -> Hits:
        """Candidates by keyword, in any order."""

    async def delete(self, scope: Scope, selector: Selector) -> int:
        """Delete; how many rows were there."""

    async def count(self, scope: Scope, plan: Plan | None) -> int:
        """Rows under an exact plan, or all."""

    async def page(self, scope: Scope, plan: Plan | None, cursor: Cursor | None, *, limit: int, vectors: bool) -> Page:
        """Up to `limit` rows under the plan's native form from the cursor on; cursor None at the end."""

    async def stats(self, scope: Scope) -> Stats:
        """Rows, index and bytes."""

    async def optimize(self, name: str) -> None:
        """Bring the physical collection's index up to date and free what is deleted."""

    async def close(self) -> None:
        """Release what the adapter opened. Twice is fine."""


# --------------------------------------------------------------------------------------------- the way in


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What `connect` was asked for, parsed: handed to a backend's `open`.

    path is for directories, host and port for servers, parameters the query string. secret is never shown.
    """

    scheme: str
    path: str = ""
    host: str = ""
    port: int | None = None
    user: str = ""
    secret: str = field(default="", repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict)
    options: Any = None
    read_only: bool = False

    @property
    def shown(self) -> str:
        """The URL without secrets, for messages."""
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{self.host}{port}{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What an entry point in the group `vectorkit.adapters` names: how a scheme becomes an adapter.

    options: a frozen dataclass of the store's own knobs (all with defaults), or None. place: whether the URL names a
    "directory", a "server", "either" (a directory where it begins like a path), or a "name". parameters: the query
    parameters the URL may carry.
    """

    store: str
    open: Callable[[Target, Runtime], Awaitable[Adapter]]
    place: Literal["directory", "server", "either", "name"]
    options: type | None = None
    parameters: frozenset[str] = frozenset()


Clock: TypeAlias = Callable[[], datetime]
