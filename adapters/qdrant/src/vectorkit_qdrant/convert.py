"""Rows to points and back, by section 5 of docs/layout.md: ids, payloads, vectors, scores.

Nothing here knows a client, so all of it is tested without a store.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

import numpy as np

from vectorkit.codec import NEVER, Metadata, decode, encode, from_micros, to_micros
from vectorkit.layout import parts
from vectorkit.types import Batch, CollectionSpec, FloatArray, Metric, Record
from vectorkit.validate import expiry_micros
from vectorkit.words import tokens

NAMESPACE = UUID("202be69f-3422-5a91-ba73-6861f1e968ac")
LARGEST = float(np.finfo(np.float32).max)
DISTANCES: dict[Metric, str] = {"cosine": "Cosine", "dot": "Dot", "l2": "Euclid"}


def point_id(id: str, tenant: str = "") -> str:
    """The UUID of a row: Qdrant's ids are integers or UUIDs."""
    return str(uuid5(NAMESPACE, parts(tenant, id)))


# --------------------------------------------------------------------------------------------- declared fields


def order_key(text: str) -> int:
    """The first 6 bytes of the UTF-8 as an integer below 2^48, which orders as the strings do."""
    return int.from_bytes(text.encode()[:6].ljust(6, b"\0"), "big")


def scalar(value: Any, kind: Any) -> Any:
    """A declared scalar as it is stored and asked for."""
    if kind is bool:
        return int(value)
    if kind is float:
        return float(value) + 0.0
    return to_micros(value) if kind is datetime else value


def element(value: Any, kind: Any) -> str:
    """An element of a declared list as the string that is stored: equal exactly when the elements are."""
    (inner,) = kind.__args__
    stored = scalar(value, inner)
    return f"={stored!r}" if inner is float else f"={stored}"


def field_keys(spec: CollectionSpec, metadata: Metadata) -> dict[str, Any]:
    """The keys that filters use: each declared field's value, where the row has one."""
    keys: dict[str, Any] = {}
    for n, (name, kind) in enumerate(spec.fields.items()):
        value = metadata.get(name)
        if value is None:
            continue
        if getattr(kind, "__origin__", None) is list:
            keys[f"_vk_f{n}"] = list(dict.fromkeys(element(one, kind) for one in value)) or ["-"]
            continue
        keys[f"_vk_f{n}"] = scalar(value, kind)
        if kind is str:
            keys[f"_vk_f{n}p"] = order_key(value)
    return keys


# --------------------------------------------------------------------------------------------- rows


def payloads(
    spec: CollectionSpec, batch: Batch, tenant: str, sequences: Sequence[int], norms: Sequence[float]
) -> list[dict[str, Any]]:
    """What is stored beside each vector."""
    texts = batch.texts or [None] * len(batch)
    documents = batch.metadata or [None] * len(batch)
    found = []
    for n, (id, text, metadata, expires) in enumerate(  # noqa: A001
        zip(batch.ids, texts, documents, expiry_micros(batch), strict=True)
    ):
        payload: dict[str, Any] = {"_vk_id": id, "_vk_seq": sequences[n], "_vk_expires": expires}
        if tenant:
            payload["_vk_tenant"] = tenant
        if metadata:
            payload["_vk_meta"] = encode(metadata)
            payload |= field_keys(spec, metadata)
        if text is not None:
            payload["_vk_text"] = text
            if spec.text and (words := tokens(text)):
                payload["_vk_words"] = " ".join(words)
        if norms:
            payload["_vk_norm"] = norms[n]
        found.append(payload)
    return found


def as_stored(spec: CollectionSpec, vectors: FloatArray) -> tuple[FloatArray, list[float]]:
    """Vectors as sent, under cosine the unit vectors, which Qdrant would make of most but not of the smallest; and their norms."""
    if spec.metric != "cosine":
        return vectors, []
    wide = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return (wide / norms[:, None]).astype(np.float32), norms.tolist()


def vector_of(payload: Mapping[str, Any], stored: Any) -> FloatArray:
    """A stored vector as it was written."""
    norm = payload.get("_vk_norm")
    if norm is None:
        return np.array(stored, np.float32)
    wide = np.clip(np.asarray(stored, np.float64) * norm, -LARGEST, LARGEST)  # the last bit may be beyond
    written: FloatArray = wide.astype(np.float32)
    return written


def metadata_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata from its document. Raises ValueError when that is none."""
    return decode(payload.get("_vk_meta"))


def record_of(payload: Mapping[str, Any], stored: Any) -> Record:
    """A row as it was written; `stored` is its vector, None where none is wanted."""
    expires = int(payload.get("_vk_expires", NEVER))
    return Record(
        payload["_vk_id"],
        None if stored is None else vector_of(payload, stored),
        payload.get("_vk_text"),
        metadata_of(payload),
        None if expires == NEVER else from_micros(expires),
    )


def score(metric: Metric, raw: float | None) -> float:
    """Qdrant's score as ours: it is the distance itself under Euclid. Not finite where float32 could not hold it."""
    if raw is None:
        return math.nan
    return -raw if metric == "l2" else raw


def changed(spec: CollectionSpec, payload: Mapping[str, Any], metadata: Metadata, sequence: int) -> dict[str, Any]:
    """The payload of a row whose metadata was changed."""
    kept = {key: value for key, value in payload.items() if key != "_vk_meta" and not key.startswith("_vk_f")}
    if metadata:
        kept |= {"_vk_meta": encode(metadata), **field_keys(spec, metadata)}
    return {**kept, "_vk_seq": sequence}
