"""Whether what was asked for can be meant at all: batches, ids, vectors, numbers, checked before the first byte goes out.

A whole batch costs a few vectorised passes; only when one fails is the row at fault looked for.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from vectorkit.codec import NEVER, bad_text, clean_metadata, clean_text, fits_type, kind_of, to_micros
from vectorkit.errors import DimensionMismatch, InvalidArgument, InvalidRecord, Unsupported
from vectorkit.types import Batch, CollectionSpec, FloatArray

MAX_ID_BYTES = 512
_NO_METADATA: dict[str, Any] = {}


# --------------------------------------------------------------------------------------------- ids


def _id_problem(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"an id must be a string, got {type(value).__name__}"
    if not value:
        return "an id must not be empty"
    if problem := bad_text(value):
        return f"the id {problem}"
    if len(value) > MAX_ID_BYTES // 4 and len(value.encode()) > MAX_ID_BYTES:
        return f"the id has {len(value.encode())} bytes of UTF-8; {MAX_ID_BYTES} are allowed"
    return None


def _plain_ids(ids: list[Any]) -> bool:
    """Whether all ids are plainly fine, in a handful of C-speed passes; False says to look at each."""
    try:
        joined = "\0".join(ids)
        joined.encode()
    except (TypeError, UnicodeEncodeError):
        return False
    if joined.count("\0") != len(ids) - 1:
        return False
    lengths = set(map(len, ids))
    return min(lengths) > 0 and max(lengths) <= MAX_ID_BYTES // 4 and set(map(type, ids)) == {str}


def check_ids(ids: Any, what: str = "ids") -> list[str]:
    """Ids of a get, update or delete as a list without repeats. Raises InvalidArgument."""
    if isinstance(ids, str | bytes | Mapping) or not hasattr(ids, "__iter__"):
        raise InvalidArgument(f"{what} must be a list of strings, got {ids!r}")
    given = list(ids)
    if given and not _plain_ids(given):
        for value in given:
            if problem := _id_problem(value):
                raise InvalidArgument(f"{what}: {problem}")
        given = [str.__str__(value) for value in given]
    return list(dict.fromkeys(given))


def _check_batch_ids(ids: Sequence[str]) -> list[str]:
    out = list(ids)
    if not _plain_ids(out):
        for row, value in enumerate(out):
            if problem := _id_problem(value):
                raise InvalidRecord(problem, row=row, field="id")
        out = [str.__str__(value) for value in out]
    if len(set(out)) != len(out):
        seen: dict[str, int] = {}
        for row, value in enumerate(out):
            if value in seen:
                raise InvalidRecord(f"the id {value!r} is also row {seen[value]} of this batch", row=row, field="id")
            seen[value] = row
    return out


# --------------------------------------------------------------------------------------------- batches


def check_batch(spec: CollectionSpec, batch: Batch) -> Batch:
    """The batch with plain values and private metadata, or the error that names its first bad row.

    Raises DimensionMismatch, InvalidRecord.
    """
    ids = _check_batch_ids(batch.ids)
    _check_vectors(spec, batch.vectors)
    texts = batch.texts
    if texts is not None:
        texts = _check_texts(texts)
    metadata: list[dict[str, Any]] | None = None
    if batch.metadata is not None:
        metadata = [_NO_METADATA if m is None else clean_metadata(m, row) for row, m in enumerate(batch.metadata)]
        if spec.fields:
            check_declared(spec, metadata)
    if batch.expires_at is not None:
        _check_expiry(spec, batch.expires_at)
    return Batch(ids, batch.vectors, texts, metadata, batch.expires_at)


def _check_vectors(spec: CollectionSpec, vectors: FloatArray) -> None:
    if vectors.shape[1] != spec.dimension:
        got = vectors.shape[1]
        raise DimensionMismatch(
            f"the vector has {got} numbers; {spec.name!r} holds {spec.dimension}",
            expected=spec.dimension,
            got=got,
            row=0,
        )
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    if not np.isfinite(squares).all():
        row = int(np.flatnonzero(~np.isfinite(squares))[0])
        raise InvalidRecord("the vector holds NaN, Inf, or a number too large for float32", row=row, field="vector")
    if spec.metric == "cosine" and not squares.all():
        row = int(np.flatnonzero(squares == 0.0)[0])
        raise InvalidRecord("the vector is zero, which has no direction under cosine", row=row, field="vector")


def _check_texts(texts: Sequence[Any]) -> list[str | None]:
    out = list(texts)
    try:
        joined = "".join([text for text in out if text is not None])
        joined.encode()
        if "\0" not in joined and set(map(type, out)) <= {str, type(None)}:
            return out
    except (TypeError, UnicodeEncodeError):
        pass
    return [None if text is None else clean_text(text, "the text", "text", row) for row, text in enumerate(out)]


def check_declared(spec: CollectionSpec, rows: Sequence[Mapping[str, Any]]) -> None:
    """Hold declared fields to their type. Raises InvalidRecord naming row and field."""
    for name, kind in spec.fields.items():
        exact = kind if kind in {str, bool, int} else None
        for row, metadata in enumerate(rows):
            if name not in metadata:
                continue
            value = metadata[name]
            if type(value) is not exact and not fits_type(value, kind):
                raise _misfit(name, kind, value, row)


def _misfit(name: str, kind: Any, value: Any, row: int | None) -> InvalidRecord:
    declared = (
        kind.__name__
        if isinstance(kind, type) and not hasattr(kind, "__args__")
        else str(kind).replace("datetime.", "")
    )
    shown = f"{type(value).__name__} {value!r}" if kind_of(value) != "mapping" else "a nested mapping"
    return InvalidRecord(f"field {name!r} is declared {declared}, got {shown}", row=row, field=name)


def _check_expiry(spec: CollectionSpec, expires_at: Sequence[datetime | None]) -> None:
    for row, value in enumerate(expires_at):
        if value is None:
            continue
        if not isinstance(value, datetime) or value.tzinfo is None or value.utcoffset() is None:
            raise InvalidRecord(
                f"expires_at must be a timezone-aware datetime, got {value!r}", row=row, field="expires_at"
            )
        try:
            value.astimezone(UTC)
        except OverflowError:
            raise InvalidRecord(f"expires_at {value} has no UTC form", row=row, field="expires_at") from None
        if not spec.expiry:
            raise InvalidRecord(
                f"expires_at is set, and {spec.name!r} was made with expiry=False", row=row, field="expires_at"
            )


def expiry_micros(batch: Batch) -> list[int]:
    """Each row's expiry in microseconds since 1970; the largest int64 where it never expires."""
    if batch.expires_at is None:
        return [NEVER] * len(batch.ids)
    return [NEVER if value is None else to_micros(value) for value in batch.expires_at]


def check_ttl(ttl: Any) -> timedelta | None:
    """A time to live: a timedelta or seconds, positive. Raises InvalidArgument."""
    if ttl is None:
        return None
    if isinstance(ttl, int | float) and not isinstance(ttl, bool):
        try:
            ttl = timedelta(seconds=ttl)
        except (OverflowError, ValueError):
            raise InvalidArgument(f"ttl must be a positive timedelta or number of seconds, got {ttl!r}") from None
    if not isinstance(ttl, timedelta) or ttl <= timedelta(0):
        raise InvalidArgument(f"ttl must be a positive timedelta or number of seconds, got {ttl!r}")
    return ttl


# --------------------------------------------------------------------------------------------- questions


def check_k(k: Any, store: str, max_k: int | None, name: str = "k") -> int:
    """How many rows are asked for. Raises InvalidArgument, or Unsupported above the store's maximum."""
    if type(k) is not int:
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise InvalidArgument(f"{name} must be an int, got {k!r}")
        return check_k(int(k), store, max_k, name)
    if k < 1:
        raise InvalidArgument(f"{name} must be at least 1, got {k}")
    if max_k is not None and k > max_k:
        raise Unsupported(f"{store} returns at most {max_k} rows a query ({name}={k}); ask for fewer, or scan()")
    checked: int = k
    return checked


def as_queries(vectors: Any, *, one: bool) -> FloatArray:
    """(q, d) float32 from one vector or many. Raises InvalidArgument."""
    if type(vectors) is np.ndarray and vectors.dtype == np.float32:
        array = vectors
    else:
        try:
            with np.errstate(over="ignore"):
                raw = np.asarray(vectors)
                if raw.dtype.kind not in "fiu":
                    raise InvalidArgument(
                        f"a query vector holds numbers, got {raw.dtype} from {type(vectors).__name__}"
                    )
                array = raw.astype(np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, InvalidArgument):
                raise
            raise InvalidArgument(f"the query is no array of numbers: {error}") from None
    if one:
        if array.ndim != 1:
            raise InvalidArgument(f"a query is one vector, got an array of shape {array.shape}; see query_many")
        return array.reshape(1, -1)
    if array.ndim == 1 and not array.size:
        return np.zeros((0, 1), np.float32)
    if array.ndim != 2:
        raise InvalidArgument(f"queries are a (q, d) array, got shape {array.shape}")
    return array


def check_queries(spec: CollectionSpec, vectors: FloatArray) -> None:
    """Dimension, finiteness and direction of (q, d) queries. Raises DimensionMismatch, InvalidArgument."""
    if vectors.shape[1] != spec.dimension:
        got = vectors.shape[1]
        raise DimensionMismatch(
            f"the query has {got} numbers; {spec.name!r} holds {spec.dimension}", expected=spec.dimension, got=got
        )
    if len(vectors) == 1:
        wide = vectors[0].astype(np.float64)
        if 0.0 < wide.dot(wide) < math.inf:
            return
    if len(vectors):
        squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
        if not np.isfinite(squares).all():
            raise InvalidArgument("the query holds NaN, Inf, or a number too large for float32")
        if spec.metric == "cosine" and not squares.all():
            raise InvalidArgument("the query is the zero vector, which has no direction under cosine")


def check_header(what: str, value: str) -> None:
    """Raises InvalidArgument, without the value, for what an HTTP header cannot carry: it would be quoted in another's message."""
    if not (value.isascii() and value.isprintable() and value == value.strip()) and value:
        raise InvalidArgument(
            f"{what} must be printable ASCII without blanks around it; one that was read from a file may end in a newline"
        )
