"""A collection that somebody else made, as batches of rows to copy into one of ours; it stays as it is.

Named `collection?vector=…&id=…&text=…&metadata=…`: a named vector, and where in the payload the id, the text and the metadata are, as a
path of keys (`meta.title`). LangChain's is `docs?text=page_content&metadata=metadata`, Haystack's `docs?id=id&text=content&metadata=meta`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from vectorkit.errors import DimensionMismatch, InvalidArgument, InvalidRecord, SpecMismatch, Unsupported
from vectorkit.types import Batch, CollectionSpec
from vectorkit.validate import check_batch
from vectorkit_qdrant.convert import DISTANCES
from vectorkit_qdrant.engine import Row

CONTROL = "vk-control"
_METRICS = {distance: metric for metric, distance in DISTANCES.items()}
_TAKEN = ("vector", "id", "text", "metadata")


@dataclass(slots=True)
class Source:
    """Where rows are read from. vector: the name of a named vector, "" for the only one there is."""

    collection: str
    shown: str
    vector: str = ""
    id: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()

    @classmethod
    def parse(cls, name: str, shown: str) -> "Source":
        """Read the name that `adopt` was given. InvalidArgument."""
        collection, _, query = name.partition("?")
        given = dict(parse_qsl(query, keep_blank_values=True))
        if unknown := [key for key in given if key not in _TAKEN]:
            raise InvalidArgument(f"adopt takes {', '.join(_TAKEN)} after the ?, not {unknown[0]!r}")
        if empty := [key for key, value in given.items() if not value]:
            raise InvalidArgument(f"{empty[0]}= names nothing")
        if collection in ("", ".", "..") or "/" in collection:
            raise InvalidArgument(f"{collection!r} is no name of a Qdrant collection")
        path = {key: tuple(given[key].split(".")) for key in ("id", "text", "metadata") if key in given}
        return cls(collection, f"{shown} {collection!r}", given.get("vector", ""), **path)

    @property
    def vectors(self) -> bool | list[str]:
        """What to ask for."""
        return [self.vector] if self.vector else True

    def check(self, told: Any, spec: CollectionSpec) -> None:
        """Refuse what cannot become this collection; find the vector where it was not named.
        InvalidArgument, DimensionMismatch, SpecMismatch, Unsupported."""
        if self.collection == CONTROL or "_vk_spec" in (told.config.metadata or {}):
            raise InvalidArgument(f"{self.shown} is vectorkit's own; open it by its name")
        vectors = told.config.params.vectors or {}
        if isinstance(vectors, Mapping):
            if not self.vector and len(vectors) == 1:
                self.vector = next(iter(vectors))
            if self.vector not in vectors:
                known = ", ".join(map(repr, vectors)) or "none"
                raise InvalidArgument(
                    f"{self.shown} has the vectors {known}; say which, as in {self.collection}?vector=…"
                )
            vectors = vectors[self.vector]
        elif self.vector:
            raise InvalidArgument(f"{self.shown} has one vector without a name; leave vector= out")
        if vectors.multivector_config is not None:
            raise Unsupported(f"{self.shown} has several vectors a row; vectorkit keeps one")
        if vectors.size != spec.dimension:
            raise DimensionMismatch(
                f"{self.shown} holds vectors of {vectors.size} numbers, {spec.name!r} is for {spec.dimension}",
                expected=spec.dimension,
                got=vectors.size,
            )
        metric = _METRICS.get(vectors.distance.value)
        if metric is None:
            raise Unsupported(f"{self.shown} measures by {vectors.distance.value}, which vectorkit does not")
        if metric != spec.metric:
            raise SpecMismatch(
                f"{self.shown} measures by {metric}, {spec.name!r} by {spec.metric}; say metric={metric!r}",
                differences={"metric": (metric, spec.metric)},
            )

    def batch(self, spec: CollectionSpec, rows: Sequence[Row], start: int) -> Batch:
        """Rows as a checked batch. InvalidRecord names the point and its place in the scroll."""
        made = Batch(
            [self._id(row, start + at) for at, row in enumerate(rows)],
            np.array([self._vector(row, start + at) for at, row in enumerate(rows)], np.float32),
            [self._text(row, start + at) for at, row in enumerate(rows)],
            [self._metadata(row, start + at) for at, row in enumerate(rows)],
        )
        try:
            return check_batch(spec, made)
        except InvalidRecord as error:
            at = error.row or 0
            detail = f"{self.shown}, point {rows[at].point}: {error.detail}"
            raise InvalidRecord(detail, row=start + at, field=error.field) from None

    def _id(self, row: Row, at: int) -> str:
        found = _at(row.payload, self.id) if self.id else row.point
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise InvalidRecord(f"{self.shown}, point {row.point}: its id is no string or int", row=at, field="id")
        return str(found)

    def _vector(self, row: Row, at: int) -> Any:
        found = row.vector.get(self.vector) if isinstance(row.vector, Mapping) else row.vector
        if found is None:
            named = f" {self.vector!r}" if self.vector else ""
            raise InvalidRecord(f"{self.shown}, point {row.point}: it has no vector{named}", row=at, field="vector")
        return found

    def _text(self, row: Row, at: int) -> str | None:
        found = _at(row.payload, self.text) if self.text else None
        if found is not None and not isinstance(found, str):
            raise InvalidRecord(f"{self.shown}, point {row.point}: its text is no string", row=at, field="text")
        return found

    def _metadata(self, row: Row, at: int) -> dict[str, Any]:
        found = _at(row.payload, self.metadata) if self.metadata else row.payload
        if found is None:
            return {}
        if not isinstance(found, Mapping):
            raise InvalidRecord(f"{self.shown}, point {row.point}: its metadata is no object", row=at, field="metadata")
        moved = {path[0] for path in (self.id, self.text) if len(path) == 1 and not self.metadata}
        return {key: value for key, value in found.items() if value is not None and key not in moved}


def _at(payload: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = payload
    for key in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found
