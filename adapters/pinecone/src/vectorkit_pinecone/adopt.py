"""An index that somebody else made, of either kind, as batches of rows to copy into one of ours; it stays as it is.

Named `index?namespace=…&text=…`: where its rows are, and which field of theirs is the text. LangChain's is `docs?text=text`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from vectorkit.codec import fits_type
from vectorkit.errors import DimensionMismatch, InvalidArgument, InvalidRecord, NotFound, SpecMismatch, Unsupported
from vectorkit.types import Batch, CollectionSpec
from vectorkit.validate import check_batch
from vectorkit_pinecone.client import Client
from vectorkit_pinecone.convert import METRICS, Row
from vectorkit_pinecone.documents import Documents
from vectorkit_pinecone.vectors import Vectors
from vectorkit_pinecone.wire import Place

_METRICS = {theirs: ours for ours, theirs in METRICS.items()}
_TAKEN = ("namespace", "text")
CLASSIC = "_values"


@dataclass(slots=True)
class Source:
    """Where rows are read from. vector: the dense field, `_values` in a classic index."""

    index: str
    shown: str
    namespace: str = "__default__"
    text: str = ""
    vector: str = CLASSIC
    host: str = ""
    _texts: int = 0

    @classmethod
    def parse(cls, name: str, shown: str) -> "Source":
        """Read the name that `adopt` was given. InvalidArgument."""
        index, _, query = name.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        given = dict(pairs)
        if len(given) < len(pairs):
            raise InvalidArgument(f"{name!r} gives something twice after the ?")
        if unknown := [key for key in given if key not in _TAKEN]:
            raise InvalidArgument(f"adopt takes {', '.join(_TAKEN)} after the ?, not {unknown[0]!r}")
        if empty := [key for key, value in given.items() if not value]:
            raise InvalidArgument(f"{empty[0]}= names nothing")
        if not index or "/" in index:
            raise InvalidArgument(f"{index!r} is no name of a Pinecone index")
        return cls(index, f"{shown} {index!r}", given.get("namespace", "__default__"), given.get("text", ""))

    def check(self, model: Any, spec: CollectionSpec, *, private: bool) -> None:
        """Refuse what cannot become this collection. InvalidArgument, DimensionMismatch, SpecMismatch, Unsupported."""
        if "vk_layout" in (model.tags or {}):
            raise InvalidArgument(f"{self.shown} is vectorkit's own; open it by its name")
        dense = {
            name: field for name, field in model.schema.fields.items() if type(field).__name__ == "DenseVectorField"
        }
        if len(dense) != 1:
            raise Unsupported(
                f"{self.shown} has {len(dense)} fields of dense vectors that are its own; vectorkit keeps one"
            )
        ((self.vector, field),) = dense.items()
        self.host = (model.private_host if private else model.host) or ""
        if field.dimension != spec.dimension:
            raise DimensionMismatch(
                f"{self.shown} holds vectors of {field.dimension} numbers, {spec.name!r} is for {spec.dimension}",
                expected=spec.dimension,
                got=field.dimension,
            )
        metric = _METRICS.get(str(field.metric))
        if metric != spec.metric:
            raise SpecMismatch(
                f"{self.shown} measures by {metric}, {spec.name!r} by {spec.metric}; say metric={metric!r}",
                differences={"metric": (metric, spec.metric)},
            )

    @property
    def documents(self) -> bool:
        """Whether it is an index of documents."""
        return self.vector != CLASSIC

    async def ids(self, client: Client) -> list[str]:
        """The ids of all its rows. NotFound where there are none: what was meant is in another namespace."""
        found = await client.ids(self.host, namespace=self.namespace, documents=self.documents)
        if not found:
            raise NotFound(
                f"{self.shown} has no rows in the namespace {self.namespace!r}; name another with ?namespace="
            )
        return found

    def finish(self) -> None:
        """After the last row. InvalidArgument where none had a text under the name that was given."""
        if self.text and not self._texts:
            raise InvalidArgument(f"{self.shown}: no row has a field {self.text!r} for its text")

    async def rows(self, client: Client, ids: Sequence[str]) -> list[Row]:
        """Some of its rows, whole."""
        at = Place(self.host, self.namespace)
        wire = Documents(client) if self.documents else Vectors(client)
        return await wire.fetch(at, ids, ("*",), vectors=not self.documents)

    def batch(self, spec: CollectionSpec, rows: Sequence[Row], start: int) -> Batch:
        """Rows as a checked batch. InvalidRecord names the row and its place in the listing."""
        made = Batch(
            [row.key for row in rows],
            np.array([self._vector(row, start + at) for at, row in enumerate(rows)], np.float32),
            [self._text(row, start + at) for at, row in enumerate(rows)],
            [self._metadata(spec, row) for row in rows],
        )
        try:
            return check_batch(spec, made)
        except InvalidRecord as error:
            at = error.row or 0
            raise InvalidRecord(
                f"{self.shown}, row {rows[at].key!r}: {error.detail}", row=start + at, field=error.field
            ) from None

    def _vector(self, row: Row, at: int) -> Any:
        if row.sparse:
            raise InvalidRecord(
                f"{self.shown}, row {row.key!r}: it has sparse values, which vectorkit does not keep", row=at
            )
        found = row.fields.get(self.vector) if self.documents else row.vector
        if found is None or not len(found):
            raise InvalidRecord(f"{self.shown}, row {row.key!r}: it has no dense vector", row=at, field="vector")
        return found

    def _text(self, row: Row, at: int) -> str | None:
        found = row.fields.get(self.text) if self.text else None
        if found is not None and not isinstance(found, str):
            raise InvalidRecord(f"{self.shown}, row {row.key!r}: its text is no string", row=at, field="text")
        self._texts += found is not None
        return found

    def _metadata(self, spec: CollectionSpec, row: Row) -> dict[str, Any]:
        """Its fields but the id, the text and vectors. Pinecone has one kind of number: what is declared int comes as int."""
        own = {"_id", "_score", self.vector} if self.documents else set()  # in a classic index names like any other
        found = {
            name: value
            for name, value in row.fields.items()
            if name not in own and name != self.text and value is not None
        }
        for name, kind in spec.fields.items():
            value = found.get(name)
            if kind is int and isinstance(value, float) and value.is_integer() and not fits_type(value, kind):
                found[name] = int(value)
        return found
