"""Rows to what Chroma holds and back, by section 4 of docs/layout.md: names, keys, vectors, scores.

Nothing here knows the client, so all of it is tested without a store.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorkit.codec import NEVER, Metadata, decode, encode, from_micros, to_micros
from vectorkit.errors import InvalidRecord
from vectorkit.keys import element, order_key
from vectorkit.layout import h26
from vectorkit.types import Batch, CollectionSpec, FloatArray, Metric, Record
from vectorkit.validate import expiry_micros

SPACES: dict[Metric, str] = {"cosine": "cosine", "dot": "ip", "l2": "l2"}
CONTROL = "vk-control"
"""The collection that remembers dropped generations; no native name of ours is like it."""
ADOPTING = "vk-adopting-"
"""How the names of collections begin that are being copied into; no native name of ours is like it."""
MOST_ENTRIES = 5_000
"""Values of declared fields that one row may have: Chroma writes them in one SQL statement, and a row of more than 5,461 makes the
collection unreadable for ever."""
LOWEST, HIGHEST = 1e-15, 1e15  # norms that Chroma's float32 cosine takes as they are


# --------------------------------------------------------------------------------------------- names


def native_name(physical: str) -> str:
    """What Chroma calls a physical collection (`articles@1`)."""
    logical, _, generation = physical.rpartition("@")
    if ".." in logical:  # which Chroma refuses in a name
        return f"vk-{h26(physical)}-h"
    return f"{logical}-g{generation}"


# --------------------------------------------------------------------------------------------- declared fields


def float_key(value: float) -> int:
    """A float as an integer that orders as the floats do: Chroma reads the last digits of a JSON number wrongly, and integers exactly."""
    (bits,) = struct.unpack(">q", struct.pack(">d", value + 0.0))
    return int(bits) if bits >= 0 else int(bits) ^ (2**63 - 1)


def scalar(value: Any, kind: Any) -> Any:
    """A declared scalar as it is stored and asked for."""
    if kind is bool:
        return int(value)
    if kind is float:
        return float_key(float(value))
    return to_micros(value) if kind is datetime else value


def is_list(kind: Any) -> bool:
    """Whether a declared type is a list."""
    return getattr(kind, "__origin__", None) is list


def _elements(values: Sequence[Any], kind: Any) -> list[str]:
    return list(dict.fromkeys(element(value, kind) for value in values)) or ["-"]


def field_keys(spec: CollectionSpec, metadata: Metadata) -> dict[str, Any]:
    """The keys that filters use: each declared field's value, or the mark that it is absent.

    Raises InvalidRecord, which names the longest list, for more values than Chroma can take.
    """
    keys: dict[str, Any] = {}
    entries = 3 * len(spec.fields)
    for n, (name, kind) in enumerate(spec.fields.items()):
        value = metadata.get(name)
        if is_list(kind):
            elements = None if value is None else _elements(value, kind)
            entries += len(elements or ())
            keys[f"_vk_f{n}"] = elements
        else:
            keys[f"_vk_f{n}"] = None if value is None else scalar(value, kind)
            if kind is str:
                keys[f"_vk_f{n}p"] = None if value is None else order_key(value)
        keys[f"_vk_m{n}"] = 1 if value is None else None
    if entries > MOST_ENTRIES:
        longest = max(
            (name for name, kind in spec.fields.items() if is_list(kind)),
            key=lambda name: len(metadata.get(name) or ()),
        )
        raise InvalidRecord(
            f"chroma takes {MOST_ENTRIES} values of declared fields in one row, and this one has {entries}; declare no list as "
            f"long as {longest!r}, or split the row",
            field=longest,
        )
    return keys


def document(metadata: Metadata) -> str | None:
    """The canonical document, None for a row without metadata."""
    return encode(metadata) if metadata else None


# --------------------------------------------------------------------------------------------- rows


def to_chroma(spec: CollectionSpec, batch: Batch, sequence: int) -> tuple[FloatArray, list[dict[str, Any]]]:
    """Vectors and metadata as sent: every key, absent ones as None, because an upsert merges and None removes."""
    vectors, norms = _as_stored(spec, batch.vectors)
    texts = batch.texts or [None] * len(batch)
    documents = batch.metadata or [None] * len(batch)
    rows = []
    for n, (text, metadata, expires) in enumerate(zip(texts, documents, expiry_micros(batch), strict=True)):
        given = metadata or {}
        try:
            keys = field_keys(spec, given)
        except InvalidRecord as error:
            raise InvalidRecord(error.detail, row=n, field=error.field) from None
        row = {
            "_vk_meta": document(given),
            "_vk_text": text,
            "_vk_expires": expires,
            "_vk_seq": sequence + n,
            **keys,
        }
        if spec.metric == "cosine":
            row["_vk_norm"] = norms.get(n)
        rows.append(row)
    return vectors, rows


def _as_stored(spec: CollectionSpec, vectors: FloatArray) -> tuple[FloatArray, dict[int, float]]:
    """Vectors as written, but under cosine the unit vector where the norm leaves what float32 can square; those norms by row."""
    if spec.metric != "cosine":
        return vectors, {}
    wide = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    extreme = np.flatnonzero((wide < LOWEST) | (wide > HIGHEST))
    if not len(extreme):
        return vectors, {}
    stored = vectors.copy()
    stored[extreme] = (vectors[extreme].astype(np.float64) / wide[extreme, None]).astype(np.float32)
    return stored, {int(row): float(wide[row]) for row in extreme}


def to_query(spec: CollectionSpec, vectors: FloatArray) -> FloatArray:
    """(q, d) queries as sent: unit vectors under cosine."""
    if spec.metric != "cosine":
        return vectors
    wide = vectors.astype(np.float64)
    units: FloatArray = (wide / np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]).astype(np.float32)
    return units


def vector_of(row: Mapping[str, Any], stored: Any) -> FloatArray:
    """A stored vector as it was written."""
    norm = row.get("_vk_norm")
    if norm is None:
        return np.array(stored, np.float32)
    written: FloatArray = (np.asarray(stored, np.float64) * norm).astype(np.float32)
    return written


def metadata_of(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """The metadata of a row from its document. Raises ValueError when that is none."""
    return decode(row.get("_vk_meta")) if row else {}


def expires_of(row: Mapping[str, Any] | None) -> int:
    """When a row expires, in microseconds since 1970; the largest int64 for never."""
    return int(row.get("_vk_expires", NEVER)) if row else NEVER


def record_of(id: str, row: Mapping[str, Any] | None, stored: Any) -> Record:
    """A row as it was written; `stored` is its vector, None where none is wanted."""
    given = row or {}
    expires = expires_of(given)
    return Record(
        id,
        None if stored is None else vector_of(given, stored),
        given.get("_vk_text"),
        metadata_of(given),
        None if expires == NEVER else from_micros(expires),
    )


# --------------------------------------------------------------------------------------------- scores


def score(metric: Metric, distance: float | None) -> float:
    """Chroma's distance as a score; not finite where its float32 could not hold it (over HTTP such a number is null).

    Its distances are 1 - cos, 1 - dot and the squared Euclidean distance.
    """
    if distance is None:
        return math.nan
    match metric:
        case "cosine" | "dot":
            return 1.0 - distance
        case "l2":
            return -math.sqrt(max(0.0, distance))


def chunks(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    """The ids in lists of at most `size`."""
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


def matrix(embeddings: Any, dimension: int) -> npt.NDArray[np.float32]:
    """What a client gives for embeddings, as (n, d) float32."""
    return np.asarray(embeddings, np.float32).reshape(-1, dimension)
