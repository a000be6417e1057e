"""The values that cross the API: what is written, what is asked, what comes back.

Frozen, and without behaviour beyond keeping themselves well formed.
"""

import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from vectorkit.codec import Metadata, decode
from vectorkit.errors import DimensionMismatch, InvalidArgument, InvalidRecord

Metric: TypeAlias = Literal["cosine", "dot", "l2"]
Coverage: TypeAlias = Literal["exact", "complete", "short"]
Tenancy: TypeAlias = Literal["collection", "namespace", "filter", "auto"]
FloatArray: TypeAlias = npt.NDArray[np.float32]
Scalar: TypeAlias = str | bool | int | float | datetime
LAYOUT = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_SCALARS: dict[str, Any] = {"str": str, "bool": bool, "int": int, "float": float, "datetime": datetime}
FIELD_TYPES: dict[str, Any] = {
    **_SCALARS,
    **{f"list[{name}]": types.GenericAlias(list, (kind,)) for name, kind in _SCALARS.items()},
}
_FIELD_NAMES: dict[Any, str] = {kind: name for name, kind in FIELD_TYPES.items()}


def _require_int(name: str, value: object, low: int, high: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{name} must be an int, got {value!r}")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"{low} to {high}"
        raise InvalidArgument(f"{name} must be {bounds}, got {value}")
    return value


# --------------------------------------------------------------------------------------------- indexes and spec


@dataclass(frozen=True, slots=True)
class Flat:
    """Exact search over every row."""


@dataclass(frozen=True, slots=True)
class HNSW:
    """A hierarchical navigable small-world graph (Malkov and Yashunin, 2016).

    m: links per node. ef_construction: width of the search while building. full_scan_threshold: with this many
    matching rows or fewer the search is exact. quantization: a code for the stored vectors where the store has it.
    """

    m: int = 16
    ef_construction: int = 200
    full_scan_threshold: int = 10_000
    quantization: Literal["sq8", "fp16", "pq", "rabitq"] | None = None

    def __post_init__(self) -> None:
        _require_int("HNSW.m", self.m, 2, 512)
        _require_int("HNSW.ef_construction", self.ef_construction, 1, 100_000)
        _require_int("HNSW.full_scan_threshold", self.full_scan_threshold, 0)
        if self.quantization not in (None, "sq8", "fp16", "pq", "rabitq"):
            raise InvalidArgument(f"HNSW.quantization must be sq8, fp16, pq, rabitq or None, got {self.quantization!r}")


@dataclass(frozen=True, slots=True)
class IVF:
    """An inverted file: vectors grouped around `lists` centroids, `probes` of them searched. None sizes it to the data."""

    lists: int | None = None
    probes: int | None = None
    full_scan_threshold: int = 10_000
    quantization: Literal["sq8", "fp16", "pq", "rabitq"] | None = None

    def __post_init__(self) -> None:
        for name, value in (("lists", self.lists), ("probes", self.probes)):
            if value is not None:
                _require_int(f"IVF.{name}", value, 1)
        _require_int("IVF.full_scan_threshold", self.full_scan_threshold, 0)
        if self.quantization not in (None, "sq8", "fp16", "pq", "rabitq"):
            raise InvalidArgument(f"IVF.quantization must be sq8, fp16, pq, rabitq or None, got {self.quantization!r}")


Index: TypeAlias = Flat | HNSW | IVF


@dataclass(frozen=True, slots=True)
class Embedding:
    """The fingerprint of what made the vectors: two collections compare only if all three agree."""

    name: str
    revision: str = "1"
    normalized: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidArgument(f"Embedding.name must be a non-empty string, got {self.name!r}")
        if not isinstance(self.revision, str):
            raise InvalidArgument(f"Embedding.revision must be a string, got {self.revision!r}")
        if not isinstance(self.normalized, bool):
            raise InvalidArgument(f"Embedding.normalized must be a bool, got {self.normalized!r}")


@dataclass(frozen=True, slots=True)
class ByField:
    """Tenancy by a metadata field that the data already has."""

    field: str

    def __post_init__(self) -> None:
        if not isinstance(self.field, str) or not self.field:
            raise InvalidArgument(f"ByField.field must be a non-empty string, got {self.field!r}")


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection is. It is stored with the collection, so every process that opens the URL sees the same.

    dimension: length of every vector. metric: "cosine", "dot" or "l2". index: how to search; advice that no store may
    let change a result. fields: metadata fields to index for filtering, name to type (str, bool, int, float, datetime
    or a list of one); the type is enforced on write. text: keep text and make it searchable by keyword. expiry: rows
    may expire. embedding: the fingerprint of the vectors.

    Raises InvalidArgument when a part is malformed.
    """

    name: str
    dimension: int
    metric: Metric = "cosine"
    index: Index = field(default_factory=HNSW)
    tenancy: Tenancy | ByField | None = None
    expiry: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    text: bool = True
    embedding: Embedding | None = None
    generation: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        _require_int("dimension", self.dimension, 1, 65_536)
        if self.metric not in get_args(Metric):
            raise InvalidArgument(f"metric must be one of {', '.join(get_args(Metric))}, got {self.metric!r}")
        if not isinstance(self.index, Flat | HNSW | IVF):
            raise InvalidArgument(f"index must be Flat(), HNSW(…) or IVF(…), got {self.index!r}")
        if not (self.tenancy is None or isinstance(self.tenancy, ByField) or self.tenancy in get_args(Tenancy)):
            raise InvalidArgument(
                f"tenancy must be None, one of {', '.join(get_args(Tenancy))} or ByField(…), got {self.tenancy!r}"
            )
        _require_int("generation", self.generation, 0, 2**31 - 1)
        for name in ("expiry", "text"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidArgument(f"{name} must be a bool, got {getattr(self, name)!r}")
        if self.embedding is not None and not isinstance(self.embedding, Embedding):
            raise InvalidArgument(f"embedding must be an Embedding or None, got {self.embedding!r}")
        if not isinstance(self.fields, Mapping):
            raise InvalidArgument(f"fields must map names to types, got {self.fields!r}")
        fields = {}
        for name, kind in self.fields.items():
            if not isinstance(name, str) or not name or "\0" in name or _has_surrogate(name):
                raise InvalidArgument(
                    f"a field name must be a non-empty string without NUL or surrogates, got {name!r}"
                )
            if name.startswith("_vk_"):
                raise InvalidArgument(f"field {name!r}: the prefix _vk_ is reserved")
            spelled = kind if isinstance(kind, str) else _field_name(kind)
            if spelled not in FIELD_TYPES:
                raise InvalidArgument(f"field {name!r}: the type must be one of {', '.join(FIELD_TYPES)}, got {kind!r}")
            fields[name] = FIELD_TYPES[spelled]
        object.__setattr__(self, "fields", fields)

    @property
    def physical(self) -> str:
        """The name of the stored collection: logical name and generation."""
        return f"{self.name}@{self.generation}"

    def differences(self, asked: "CollectionSpec") -> dict[str, tuple[object, object]]:
        """Where another spec asks for something else in what matters: {part: (here, asked)}; {} when compatible."""
        found: dict[str, tuple[object, object]] = {}
        for name in ("dimension", "metric", "tenancy", "expiry", "embedding"):
            here, there = getattr(self, name), getattr(asked, name)
            if here != there:
                found[name] = (here, there)
        for name in self.fields.keys() & asked.fields.keys():
            if self.fields[name] != asked.fields[name]:
                found[f"fields[{name!r}]"] = (_FIELD_NAMES[self.fields[name]], _FIELD_NAMES[asked.fields[name]])
        return found

    def to_json(self) -> dict[str, Any]:
        """The stored form; `CollectionSpec.from_json` reads it back."""
        kind = {Flat: "flat", HNSW: "hnsw", IVF: "ivf"}[type(self.index)]
        index = {"kind": kind} | {name: getattr(self.index, name) for name in self.index.__dataclass_fields__}
        tenancy: Any = {"by_field": self.tenancy.field} if isinstance(self.tenancy, ByField) else self.tenancy
        embedding = self.embedding and {
            "name": self.embedding.name,
            "revision": self.embedding.revision,
            "normalized": self.embedding.normalized,
        }
        return {
            "layout": LAYOUT,
            "name": self.name,
            "generation": self.generation,
            "physical": self.physical,
            "dimension": self.dimension,
            "metric": self.metric,
            "index": index,
            "tenancy": tenancy,
            "expiry": self.expiry,
            "fields": {name: _FIELD_NAMES[kind] for name, kind in self.fields.items()},
            "text": self.text,
            "embedding": embedding,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "CollectionSpec":
        """Read a stored spec. Raises InvalidArgument for a layout this version does not know."""
        if document.get("layout") != LAYOUT:
            raise InvalidArgument(
                f"the collection was written with layout {document.get('layout')!r}; this version reads layout {LAYOUT}"
            )
        index = dict(document["index"])
        kinds: dict[str, type[Flat | HNSW | IVF]] = {"flat": Flat, "hnsw": HNSW, "ivf": IVF}
        tenancy = document["tenancy"]
        return cls(
            name=document["name"],
            dimension=document["dimension"],
            metric=document["metric"],
            index=kinds[index.pop("kind")](**index),
            tenancy=ByField(tenancy["by_field"]) if isinstance(tenancy, Mapping) else tenancy,
            expiry=document["expiry"],
            fields=document["fields"],
            text=document["text"],
            embedding=Embedding(**document["embedding"]) if document["embedding"] else None,
            generation=document["generation"],
        )


def _field_name(kind: Any) -> str | None:
    try:
        return _FIELD_NAMES.get(kind)
    except TypeError:
        return None


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)


def check_name(name: object) -> str:
    """A collection name: `[A-Za-z0-9][A-Za-z0-9._-]{0,99}`, else InvalidArgument."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidArgument(
            f"a collection name is 1 to 100 of letters, digits, '.', '_', '-' and begins with a letter or digit; got {name!r}"
        )
    return name


# --------------------------------------------------------------------------------------------- rows going in


def _same(a: object, b: object) -> bool:
    if a is None or b is None:
        return a is b
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One row. `vector=None` is only how a row comes back without its vector; writing it is refused.

    id: 1 to 512 bytes of UTF-8. vector: length `dimension`. expires_at: timezone-aware; only with `expiry=True`.
    """

    id: str
    vector: npt.ArrayLike | None
    text: str | None = None
    metadata: Metadata = field(default_factory=dict)
    expires_at: datetime | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return (
            (self.id, self.text, self.expires_at) == (other.id, other.text, other.expires_at)
            and self.metadata == other.metadata
            and _same(self.vector, other.vector)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Batch:
    """Records in columns: n ids, an (n, d) array held as float32, and lists of n or None.

    Raises InvalidArgument when the columns differ in length, DimensionMismatch or InvalidRecord, naming the row,
    when the vectors make no (n, d) array of numbers.
    """

    ids: list[str]
    vectors: FloatArray
    texts: list[str | None] | None
    metadata: list[Metadata | None] | None
    expires_at: list[datetime | None] | None

    def __init__(
        self,
        ids: Sequence[str],
        vectors: npt.ArrayLike,
        texts: Sequence[str | None] | None = None,
        metadata: Sequence[Metadata | None] | None = None,
        expires_at: Sequence[datetime | None] | None = None,
    ) -> None:
        if isinstance(ids, str):
            raise InvalidArgument("Batch.ids must be a list of strings, not one string")
        rows = list(ids)
        if isinstance(vectors, np.ndarray) and vectors.ndim == 2 and vectors.dtype == np.float32:
            matrix = vectors
        else:
            matrix = _matrix(vectors, len(rows))
        if len(matrix) != len(rows):
            raise InvalidArgument(f"Batch has {len(rows)} ids and {len(matrix)} vectors")
        object.__setattr__(self, "ids", rows)
        object.__setattr__(self, "vectors", np.ascontiguousarray(matrix))
        for name, given in (("texts", texts), ("metadata", metadata), ("expires_at", expires_at)):
            object.__setattr__(self, name, self._column(name, given))

    def _column(self, name: str, given: Sequence[Any] | None) -> list[Any] | None:
        if given is None:
            return None
        if isinstance(given, str | Mapping):
            raise InvalidArgument(f"Batch.{name} must be a list with one entry a row")
        column = list(given)
        if len(column) != len(self.ids):
            raise InvalidArgument(f"Batch has {len(self.ids)} ids and {len(column)} {name}")
        return column if any(value is not None for value in column) else None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, records: Iterable[Record], *, dimension: int | None = None) -> "Batch":
        """Columns from records. Raises InvalidRecord naming the row for anything that is no Record.

        dimension: the length every vector must have; without it that of the first, else DimensionMismatch.
        """
        rows = list(records)
        for row, record in enumerate(rows):
            if not isinstance(record, Record):
                raise InvalidRecord(f"expected a Record, got {type(record).__name__}", row=row)
        return cls(
            [r.id for r in rows],
            _matrix([r.vector for r in rows], len(rows), dimension),
            [r.text for r in rows],
            [r.metadata for r in rows],
            [r.expires_at for r in rows],
        )

    @classmethod
    def from_arrow(cls, table: Any) -> "Batch":
        """Columns from a pyarrow Table or RecordBatch.

        `id` (string) and `vector` (a list or fixed-size list of numbers) are required; `text`, `expires_at`
        (timestamp with a zone) and `metadata` (struct, or JSON text) are taken where present; every other column becomes a metadata
        key. A null is an absent key. Raises InvalidArgument naming a missing column, InvalidRecord naming the row of
        a null id or vector.
        """
        names = list(table.column_names if hasattr(table, "column_names") else table.schema.names)
        for needed in ("id", "vector"):
            if needed not in names:
                raise InvalidArgument(f"the table has no column {needed!r}; it has {', '.join(names) or 'none'}")
        columns: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in names if name != "vector"}
        count = table.num_rows
        metadata: list[dict[str, Any]] = [{} for _ in range(count)]
        for name, values in columns.items():
            if name in {"id", "text", "expires_at"}:
                continue
            for row, value in enumerate(values):
                if value is None:
                    continue
                if name == "metadata":
                    metadata[row] = _arrow_metadata(value, row) | metadata[row]
                else:
                    metadata[row][name] = value
        return cls(
            columns["id"],
            _arrow_vectors(table.column("vector"), count),
            columns.get("text"),
            metadata,
            columns.get("expires_at"),
        )


def take(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some rows of a batch."""

    def column(values: Sequence[Any] | None) -> list[Any] | None:
        return None if values is None else [values[row] for row in rows]

    return Batch(
        [batch.ids[row] for row in rows],
        batch.vectors[list(rows)],
        column(batch.texts),
        column(batch.metadata),
        column(batch.expires_at),
    )


def _arrow_metadata(value: Any, row: int) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = decode(value)
        except ValueError as error:
            raise InvalidRecord(
                f"the metadata column holds no JSON object: {error}", row=row, field="metadata"
            ) from None
    if not isinstance(value, dict):
        raise InvalidRecord("the metadata column must hold structs or JSON objects", row=row, field="metadata")
    return {key: item for key, item in value.items() if item is not None}


def _arrow_vectors(column: Any, count: int) -> FloatArray:
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    parts = []
    for chunk in chunks:
        if chunk.null_count or not hasattr(chunk.type, "list_size"):
            return _matrix(column.to_pylist(), count)
        flat = chunk.flatten()
        if flat.null_count:
            return _matrix(column.to_pylist(), count)
        with np.errstate(over="ignore"):
            parts.append(
                flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(chunk), chunk.type.list_size)
            )
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _matrix(vectors: Any, rows: int, dimension: int | None = None) -> FloatArray:
    """(n, d) float32 from anything array-like; what does not fit names its row. Overflow is left as inf."""
    if isinstance(vectors, np.ndarray) and vectors.ndim == 2:
        if vectors.dtype.kind not in "fiu":
            raise InvalidRecord(f"vectors must be numbers, got an array of {vectors.dtype}", row=0, field="vector")
        with np.errstate(over="ignore"):
            return vectors.astype(np.float32)
    given = (
        list(vectors) if isinstance(vectors, Iterable) and not isinstance(vectors, str | bytes | Mapping) else [vectors]
    )
    if not given:
        return np.zeros((0, 1), np.float32)
    first = given[0]
    if type(first) is np.ndarray and first.ndim == 1 and first.dtype == np.float32:
        shape = first.shape
        if all(type(v) is np.ndarray and v.shape == shape and v.dtype == np.float32 for v in given):
            return np.concatenate(given).reshape(len(given), -1)
    out = [_vector(v, row) for row, v in enumerate(given)]
    length = len(out[0]) if dimension is None else dimension
    for row, v in enumerate(out):
        if len(v) != length:
            wanted = f"row 0 has {length}" if dimension is None else f"{length} are wanted"
            raise DimensionMismatch(f"the vector has {len(v)} numbers, {wanted}", expected=length, got=len(v), row=row)
    if len(out) != rows:
        raise InvalidArgument(f"{rows} ids and {len(out)} vectors")
    return np.concatenate(out).reshape(len(out), -1)


def _vector(value: Any, row: int) -> FloatArray:
    if value is None:
        raise InvalidRecord("the vector is None; a row is written with its vector", row=row, field="vector")
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(value)
            if array.dtype.kind not in "fiu":
                raise InvalidRecord(f"the vector holds {array.dtype}, not numbers", row=row, field="vector")
            array = array.astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InvalidRecord):
            raise
        raise InvalidRecord(f"the vector is no list of numbers: {error}", row=row, field="vector") from None
    if array.ndim != 1:
        raise InvalidRecord(
            f"the vector has shape {array.shape}; it must be one list of numbers", row=row, field="vector"
        )
    if not len(array):
        raise InvalidRecord("the vector is empty", row=row, field="vector")
    return array


# --------------------------------------------------------------------------------------------- rows coming back


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """One answer. score: larger is better (cosine similarity, inner product, or minus the Euclidean distance)."""

    id: str
    score: float
    text: str | None = None
    metadata: Metadata = field(default_factory=dict)
    vector: FloatArray | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hit):
            return NotImplemented
        return (
            (self.id, self.score, self.text) == (other.id, other.score, other.text)
            and self.metadata == other.metadata
            and _same(self.vector, other.vector)
        )

    __hash__ = None  # type: ignore[assignment]


_new = object.__new__
_set_id, _set_score, _set_text, _set_metadata, _set_vector = (
    Hit.__dict__[name].__set__ for name in ("id", "score", "text", "metadata", "vector")
)


def make_hit(id: str, score: float, text: str | None, metadata: Metadata, vector: FloatArray | None) -> Hit:
    """Hit(…) at a third of the cost: the frozen dataclass's own __init__ sets each slot through object.__setattr__."""
    hit = _new(Hit)
    _set_id(hit, id)
    _set_score(hit, score)
    _set_text(hit, text)
    _set_metadata(hit, metadata)
    _set_vector(hit, vector)
    return hit


class Hits(list[Hit]):
    """Answers, best first, ties by id.

    coverage: "exact" (the true top k), "complete" (approximate, but min(k, matching) rows) or "short" (fewer rows than
    match). path: how the store found them, in words, for `explain`.
    """

    __slots__ = ("coverage", "path")

    def __init__(self, hits: Iterable[Hit] = (), *, coverage: Coverage = "exact", path: str = "") -> None:
        list.__init__(self, hits)
        self.coverage: Coverage = coverage
        self.path = path

    @property
    def ids(self) -> list[str]:
        """The ids, in order."""
        return [hit.id for hit in self]


@dataclass(frozen=True, slots=True)
class WriteResult:
    """written: rows now in the store by this call. skipped: rows left alone because their id existed."""

    written: int
    skipped: int = 0

    def __add__(self, other: Self) -> "WriteResult":
        return WriteResult(self.written + other.written, self.skipped + other.skipped)


@dataclass(frozen=True, slots=True)
class Page:
    """Some records of a scan, and the cursor for the next page (None at the end)."""

    records: Sequence[Record]
    cursor: "Cursor | None"

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a scan goes on. Opaque, and good only under the scope and filter it came from."""

    scope: Any
    position: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a collection holds now.

    rows: live rows. index: what searches it. indexed: rows in the approximate index. tombstones: share of what
    is held in memory and index that is deleted (0 to 1). bytes: size by part, on disk or in memory as the key says.
    """

    rows: int
    index: str
    indexed: int = 0
    tombstones: float = 0.0
    bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause of a filter and where it was decided: by the store exactly, by it as a superset, or by re-checking."""

    text: str
    handling: Literal["pushed", "superset", "residual"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How a query was answered. rows_fetched and round_trips count what the store was asked for."""

    clauses: Sequence[Clause]
    path: str
    rows_fetched: int
    round_trips: int
    coverage: Coverage
    returned: int


def utc(value: datetime) -> datetime:
    """The same instant in UTC, as a plain datetime. Raises OverflowError beyond year 1 to 9999."""
    return value.astimezone(UTC)
