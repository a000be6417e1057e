"""A table that somebody else made, as batches of rows to copy into a collection of ours; the table itself is left as it is.

Named `schema.table?id=…&vector=…&text=…&metadata=…`; what is left out is found: the primary key, the only vector column, a
text column called text, content or document, a json column called metadata. Declared fields that are columns come from those.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import psycopg

from vectorkit.errors import DimensionMismatch, InvalidArgument, InvalidRecord, NotFound
from vectorkit.runtime import Runtime
from vectorkit.types import Batch, CollectionSpec
from vectorkit.validate import check_batch
from vectorkit_pgvector.convert import read_vector, text
from vectorkit_pgvector.tables import quoted

PAGE = 2_000
_TEXTS = ("text", "content", "document")
_COLUMNS = """SELECT a.attname, t.typname, a.attnum = ANY(coalesce((SELECT i.indkey::int2[] FROM pg_index i
        WHERE i.indrelid = c.oid AND i.indisprimary AND i.indnkeyatts = 1), '{}'))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped"""


@dataclass(frozen=True, slots=True)
class Source:
    """The table and what is read from it."""

    shown: str
    select: str
    fields: Sequence[str]

    async def open(self, conn: Any, call: Runtime) -> None:
        """Begin to read; in a transaction of the caller's."""
        await call.call(conn.execute, f"DECLARE vk_adopted BINARY NO SCROLL CURSOR FOR {self.select}")

    async def batch(self, conn: Any, call: Runtime, spec: CollectionSpec, start: int) -> Batch | None:
        """The next rows, checked; None at the end. Raises InvalidRecord and DimensionMismatch with the row's number in the table."""
        cursor = await call.call(conn.execute, f"FETCH {PAGE} FROM vk_adopted", (), binary=True)
        try:
            rows = await call.call(cursor.fetchall)
        except psycopg.DataError as error:
            raise InvalidRecord(f"{self.shown}: a value past row {start} cannot be kept: {error}", row=start) from error
        if not rows:
            return None
        for at, row in enumerate(rows):
            for what, value in (("id", row[0]), ("vector", row[1])):
                if value is None:
                    raise InvalidRecord(f"{self.shown}: the {what} is NULL", row=start + at, field=what)
        vectors = [read_vector(row[1]) for row in rows]
        for at, vector in enumerate(vectors):
            if len(vector) != spec.dimension:
                raise DimensionMismatch(
                    f"{self.shown} holds vectors of {len(vector)} numbers, the spec says {spec.dimension}",
                    expected=spec.dimension,
                    got=len(vector),
                    row=start + at,
                )
        try:
            metadata = [self._metadata(row) for row in rows]
            return check_batch(spec, Batch([r[0] for r in rows], np.stack(vectors), [r[2] for r in rows], metadata))
        except InvalidRecord as error:
            row = None if error.row is None else error.row + start
            raise InvalidRecord(f"{self.shown}: {error.detail}", row=row, field=error.field) from None

    def _metadata(self, row: Sequence[Any]) -> dict[str, Any]:
        try:
            document = {} if row[3] is None else json.loads(row[3])
        except RecursionError:
            raise InvalidRecord("the metadata is nested too deep", field="metadata") from None
        if not isinstance(document, dict):
            raise InvalidRecord("the metadata column holds no JSON object", field="metadata")
        found = {key: value for key, value in document.items() if value is not None}
        found.update((name, value) for name, value in zip(self.fields, row[4:], strict=True) if value is not None)
        return found


async def source(conn: Any, call: Runtime, name: str, spec: CollectionSpec, extension: str) -> Source:
    """What to read of a table. Raises NotFound, InvalidArgument naming what is not clear."""
    place, _, asked = name.partition("?")
    schema, _, relation = place.rpartition(".")
    schema = schema or "public"
    shown = f"{schema}.{relation}"
    cursor = await call.call(conn.execute, _COLUMNS, (text(schema), text(relation)), binary=True)
    columns = {column: (kind, key) for column, kind, key in await call.call(cursor.fetchall)}
    if not columns:
        raise NotFound(f"there is no table {shown!r}; write schema.table as PostgreSQL spells it")
    given: dict[str, str] = {}
    for part, column in parse_qsl(asked, keep_blank_values=True):
        if part not in {"id", "vector", "text", "metadata"}:
            raise InvalidArgument(f"{shown}: {part!r} is none of id, vector, text, metadata")
        if column not in columns:
            raise InvalidArgument(f"{shown} has no column {column!r}; it has {', '.join(sorted(columns))}")
        given[part] = column
    key = given.get("id") or _only(
        shown, "id", [c for c, (_, is_key) in columns.items() if is_key], "a primary key of one column"
    )
    vectors = [c for c, (kind, _) in columns.items() if kind in {"vector", "halfvec"}]
    vector = given.get("vector") or _only(shown, "vector", vectors, "one column of type vector")
    if columns[vector][0] not in {"vector", "halfvec"}:
        raise InvalidArgument(f"{shown}: the column {vector!r} is of type {columns[vector][0]}, not vector or halfvec")
    said = given.get("text") or next((c for c in _TEXTS if c in columns), None)
    document = given.get("metadata") or ("metadata" if columns.get("metadata", ("",))[0] in {"json", "jsonb"} else None)
    if document is not None and columns[document][0] not in {"json", "jsonb"}:
        raise InvalidArgument(f"{shown}: the column {document!r} is of type {columns[document][0]}, not json or jsonb")
    fields = [field for field in spec.fields if field in columns]
    listed = [
        f"{quoted(key)}::text",
        f"{quoted(vector)}::{quoted(extension)}.vector",
        f"{quoted(said)}::text" if said else "NULL::text",
        f"{quoted(document)}::text" if document else "NULL::text",
        *map(quoted, fields),
    ]
    return Source(shown, f"SELECT {', '.join(listed)} FROM {quoted(schema)}.{quoted(relation)}", fields)


def _only(shown: str, part: str, found: list[str], wanted: str) -> str:
    if len(found) != 1:
        raise InvalidArgument(f"{shown} has not {wanted}; name the column, as in {shown}?{part}=…")
    return found[0]
