"""Values to PostgreSQL's binary form and back: what a COPY stream, a bound parameter and a returned row hold.

Pure. A vector as bytes costs 0.3 µs where its text costs 178, and a parameter whose type is fixed here never changes a
statement's plan with its value.
"""

import struct
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from vectorkit.codec import NEVER, decode, encode, from_micros, to_micros
from vectorkit.errors import InvalidRecord
from vectorkit.types import Batch, CollectionSpec, FloatArray, Record
from vectorkit.validate import expiry_micros

MAX_TEXT = 500_000  # bytes of a text that gets keywords: a tsvector ends at 1 MB
MAX_STR = 1_800  # bytes of a declared str: an index entry ends at 2,704
MAX_ELEMENT = 2_600  # bytes of an element of a declared list
MAX_HALF = 65_504.0
SHORT, LONG = 1e-15, 1e15  # norms between which pgvector's float32 arithmetic gives a cosine


class Wire(bytes):
    """A value in binary form; its class says which type PostgreSQL is told it has."""

    __slots__ = ()
    oid = 0  # 0: the statement casts it


class Vector(Wire):
    """Cast in the statement: the type's number differs from database to database."""

    __slots__ = ()


class Bool(Wire):
    __slots__ = ()
    oid = 16


class Int8(Wire):
    __slots__ = ()
    oid = 20


class Text(Wire):
    __slots__ = ()
    oid = 25


class Json(Wire):
    __slots__ = ()
    oid = 114


class Float8(Wire):
    __slots__ = ()
    oid = 701


class BoolArray(Wire):
    __slots__ = ()
    oid = 1_000


class TextArray(Wire):
    __slots__ = ()
    oid = 1_009


class Int8Array(Wire):
    __slots__ = ()
    oid = 1_016


class Float8Array(Wire):
    __slots__ = ()
    oid = 1_022


WIRES: tuple[type[Wire], ...] = (
    Vector, Bool, Int8, Text, Json, Float8, BoolArray, TextArray, Int8Array, Float8Array,
)  # fmt: skip

_int8 = struct.Struct(">q").pack
_float8 = struct.Struct(">d").pack
_length = struct.Struct(">i").pack
_NULL = _length(-1)
_TRUE, _FALSE = b"\1", b"\0"


# --------------------------------------------------------------------------------------------- types of declared fields


def column_type(kind: Any) -> str:
    """The type of a declared field's column."""
    inner = element_kind(kind)
    if inner is not None:
        return _COLUMNS[inner].replace(' COLLATE "C"', "") + "[]" + (' COLLATE "C"' if inner is str else "")
    return _COLUMNS[kind]


def element_kind(kind: Any) -> Any:
    """What a declared list holds, None for a scalar."""
    return kind.__args__[0] if getattr(kind, "__origin__", None) is list else None


_COLUMNS = {int: "bigint", float: "double precision", str: 'text COLLATE "C"', bool: "boolean", datetime: "bigint"}
_SCALARS: dict[Any, type[Wire]] = {int: Int8, float: Float8, str: Text, bool: Bool, datetime: Int8}
_ARRAYS: dict[Any, type[Wire]] = {
    int: Int8Array, float: Float8Array, str: TextArray, bool: BoolArray, datetime: Int8Array,
}  # fmt: skip


def _raw(value: Any, kind: Any) -> bytes:
    if kind is str:
        return str.encode(value)
    if kind is float:
        return _float8(float(value) + 0.0)  # -0.0 as 0.0
    if kind is bool:
        return _TRUE if value else _FALSE
    return _int8(to_micros(value) if kind is datetime else value)


def scalar(value: Any, kind: Any) -> Wire:
    """A parameter of a declared scalar type."""
    return _SCALARS[kind](_raw(value, kind))


def array(values: Sequence[Any], kind: Any) -> Wire:
    """A parameter that is a one-dimensional array of a declared scalar type."""
    return _ARRAYS[kind](_array(values, kind))


def _array(values: Sequence[Any], kind: Any) -> bytes:
    oid = _SCALARS[kind].oid
    if not values:
        return struct.pack(">iii", 0, 0, oid)
    parts = [struct.pack(">iiiii", 1, 0, oid, len(values), 1)]
    for value in values:
        raw = _raw(value, kind)
        parts.append(_length(len(raw)))
        parts.append(raw)
    return b"".join(parts)


def texts(values: Sequence[str]) -> Wire:
    """A parameter that is an array of texts."""
    return array(values, str)


def text(value: str) -> Wire:
    """A text parameter."""
    return Text(value.encode())


def bigint(value: int) -> Wire:
    """A bigint parameter."""
    return Int8(_int8(value))


def vector(values: FloatArray) -> Wire:
    """A vector parameter of (d,) float32."""
    return Vector(struct.pack(">HH", len(values), 0) + values.astype(">f4").tobytes())


def query_vector(values: FloatArray, metric: str) -> Wire:
    """(d,) float32 as it is searched for: a unit vector under cosine."""
    if metric == "cosine":
        wide = values.astype(np.float64)
        values = (wide / np.sqrt(wide.dot(wide))).astype(np.float32)
    return vector(values)


def read_vector(raw: bytes) -> FloatArray:
    """(d,) float32 from what a row returns."""
    return np.frombuffer(raw, ">f4", offset=4).astype(np.float32)


# --------------------------------------------------------------------------------------------- rows going in


def fits_half(vectors: FloatArray) -> bool:
    """Whether all numbers are within what a 16-bit float holds."""
    return bool(np.abs(vectors).max(initial=0.0) <= MAX_HALF)


def check_limits(spec: CollectionSpec, batch: Batch, *, half: bool) -> None:
    """Refuse what an index cannot hold; half: its numbers have 16 bits. Raises InvalidRecord naming row and field."""
    if half and spec.metric != "cosine" and not fits_half(batch.vectors):
        raise InvalidRecord(
            f"the vector holds a number beyond ±{MAX_HALF:.0f}, which pgvector's index of 16-bit floats cannot; "
            "make the collection with Flat(), or scale the vectors",
            row=int(np.flatnonzero(np.abs(batch.vectors).max(axis=1) > MAX_HALF)[0]),
            field="vector",
        )
    if spec.text and batch.texts is not None:
        for row, value in enumerate(batch.texts):
            if value is not None and len(value) > MAX_TEXT // 4 and len(value.encode()) > MAX_TEXT:
                raise InvalidRecord(
                    f"the text has more than {MAX_TEXT} bytes of UTF-8, which pgvector's keyword index cannot hold; "
                    "cut it up, or make the collection with text=False",
                    row=row,
                    field="text",
                )
    for name, kind in spec.fields.items():
        if batch.metadata is not None and (kind is str or element_kind(kind) is str):
            for row, metadata in enumerate(batch.metadata):
                check_indexed(name, None if metadata is None else metadata.get(name), row)


def check_indexed(name: str, value: Any, row: int | None) -> None:
    """Refuse a declared string, or an element of a list of them, that is too long to index. Raises InvalidRecord."""
    limit = MAX_STR if isinstance(value, str) else MAX_ELEMENT
    for item in [value] if isinstance(value, str) else value or ():
        if len(item) > limit // 4 and len(item.encode()) > limit:
            raise InvalidRecord(
                f"field {name!r} is declared, so pgvector indexes it, and holds at most {limit} bytes of UTF-8; "
                "got more. Leave it out of CollectionSpec(fields=…) to store longer ones",
                row=row,
                field=name,
            )


def rows_of(spec: CollectionSpec, batch: Batch, tenant: str) -> list[list[bytes | None]]:
    """Each row's columns in binary: tenant, id, expires, metadata, text, vector, norm, then the declared fields."""
    count = len(batch)
    vectors, norms = _vectors(spec, batch.vectors)
    width = 4 * spec.dimension
    head = struct.pack(">HH", spec.dimension, 0)
    flat = vectors.astype(">f4").tobytes()
    owner = tenant.encode()
    never = _int8(NEVER)
    expires = expiry_micros(batch) if batch.expires_at is not None else None
    rows: list[list[bytes | None]] = []
    declared = list(spec.fields.items())
    for at in range(count):
        metadata = batch.metadata[at] if batch.metadata is not None else None
        said = batch.texts[at] if batch.texts is not None else None
        row: list[bytes | None] = [
            owner,
            batch.ids[at].encode(),
            never if expires is None else _int8(expires[at]),
            encode(metadata).encode() if metadata else None,
            None if said is None else said.encode(),
            head + flat[at * width : (at + 1) * width],
            None if norms is None or norms[at] is None else _float8(norms[at]),
        ]
        row.extend(field_values(declared, metadata or {}))
        rows.append(row)
    return rows


def field_values(declared: Sequence[tuple[str, Any]], metadata: Any) -> list[bytes | None]:
    """The declared fields of one row in binary, None where absent."""
    out: list[bytes | None] = []
    for name, kind in declared:
        value = metadata.get(name)
        if value is None:
            out.append(None)
        elif (inner := element_kind(kind)) is not None:
            out.append(_array(value, inner))
        else:
            out.append(_raw(value, kind))
    return out


def field_wires(declared: Sequence[tuple[str, Any]], metadata: Any) -> list[Wire | None]:
    """The declared fields of one row as bound parameters."""
    raw = field_values(declared, metadata)
    return [None if value is None else _wire(kind)(value) for value, (_, kind) in zip(raw, declared, strict=True)]


def _wire(kind: Any) -> type[Wire]:
    inner = element_kind(kind)
    return _SCALARS[kind] if inner is None else _ARRAYS[inner]


def _vectors(spec: CollectionSpec, vectors: FloatArray) -> tuple[FloatArray, list[float | None] | None]:
    """As written, or the unit vector and its norm where float32 arithmetic would lose the direction."""
    if spec.metric != "cosine":
        return vectors, None
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    extreme = (norms < SHORT) | (norms > LONG)
    if not extreme.any():
        return vectors, None
    kept = vectors.copy()
    kept[extreme] = vectors[extreme].astype(np.float64) / norms[extreme, None]
    return kept, [float(norm) if out else None for norm, out in zip(norms, extreme, strict=True)]


HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)


def copy_stream(rows: Sequence[Sequence[bytes | None]], block: int = 512) -> Iterator[bytes]:
    """The rows as a binary COPY stream (PostgreSQL's documentation, "COPY", Binary Format), in pieces of `block` rows."""
    columns = struct.pack(">h", len(rows[0]))
    yield HEADER
    for start in range(0, len(rows), block):
        parts = []
        for row in rows[start : start + block]:
            parts.append(columns)
            for value in row:
                if value is None:
                    parts.append(_NULL)
                else:
                    parts.append(_length(len(value)))
                    parts.append(value)
        yield b"".join(parts)
    yield TRAILER


def row_wires(spec: CollectionSpec, row: Sequence[bytes | None]) -> list[Wire | None]:
    """One row as bound parameters."""
    kinds: list[type[Wire]] = [Text, Text, Int8, Json, Text, Vector, Float8]
    kinds.extend(map(_wire, spec.fields.values()))
    return [None if value is None else kind(value) for kind, value in zip(kinds, row, strict=True)]


# --------------------------------------------------------------------------------------------- rows coming back


def stored_vector(raw: bytes, norm: float | None) -> FloatArray:
    """The vector as it was written."""
    found = read_vector(raw)
    return found if norm is None else (found.astype(np.float64) * norm).astype(np.float32)


def record(row: Sequence[Any]) -> Record:
    """A record of id, text, metadata, expires and, where they were asked for, vector and norm."""
    vector = stored_vector(row[4], row[5]) if len(row) > 4 else None
    expires = None if row[3] == NEVER else from_micros(row[3])
    return Record(row[0], vector, row[1], decode(row[2]), expires)
