"""Rows to points and back, by section 5 of docs/layout.md: ids, payloads, vectors, scores.

Nothing here knows a client, so all of it is tested without a store.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np

from vectorkit.codec import NEVER, Metadata, decode, encode, from_micros
from vectorkit.keys import fill, writers
from vectorkit.layout import parts
from vectorkit.types import Batch, CollectionSpec, FloatArray, Metric, Record
from vectorkit.validate import expiry_micros
from vectorkit.words import tokens

FIELD = "_vk_f"
NAMESPACE = UUID("202be69f-3422-5a91-ba73-6861f1e968ac")
LARGEST = float(np.finfo(np.float32).max)
DISTANCES: dict[Metric, str] = {"cosine": "Cosine", "dot": "Dot", "l2": "Euclid"}


def point_id(id: str, tenant: str = "") -> str:
    """The UUID of a row: Qdrant's ids are integers or UUIDs."""
    return point_ids((id,), tenant)[0]


def point_ids(ids: Sequence[str], tenant: str = "") -> list[str]:
    """`str(uuid5(NAMESPACE, parts(tenant, id)))` of each, at a third of the cost."""
    hashed = hashlib.sha1(NAMESPACE.bytes + parts(tenant).encode(), usedforsecurity=False)
    found = []
    for id in ids:  # noqa: A001
        name = id.encode()
        digest = hashed.copy()
        digest.update(b"%d:%b" % (len(name), name))
        text = digest.hexdigest()
        found.append(f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}")
    return found


_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


# --------------------------------------------------------------------------------------------- rows


def field_keys(spec: CollectionSpec, metadata: Metadata) -> dict[str, Any]:
    """The keys that filters use: each declared field's value, where the row has one."""
    keys: dict[str, Any] = {}
    fill(keys, writers(spec, FIELD), metadata)
    return keys


def payloads(
    spec: CollectionSpec, batch: Batch, tenant: str, sequences: Sequence[int], norms: Sequence[float]
) -> list[dict[str, Any]]:
    """What is stored beside each vector."""
    texts = batch.texts or [None] * len(batch)
    documents = batch.metadata or [None] * len(batch)
    made = writers(spec, FIELD)
    found = []
    for n, (id, sequence, text, metadata, expires) in enumerate(  # noqa: A001
        zip(batch.ids, sequences, texts, documents, expiry_micros(batch), strict=True)
    ):
        payload: dict[str, Any] = {"_vk_id": id, "_vk_seq": sequence, "_vk_expires": expires}
        if tenant:
            payload["_vk_tenant"] = tenant
        if metadata:
            payload["_vk_meta"] = encode(metadata)
            fill(payload, made, metadata)
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
    wide /= norms[:, None]
    return wide.astype(np.float32), norms.tolist()


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


def named(payload: Mapping[str, Any]) -> tuple[str, str | None]:
    """The id and the text. Raises KeyError or ValueError where they are none."""
    id, text = payload["_vk_id"], payload.get("_vk_text")  # noqa: A001
    if type(id) is not str or not (text is None or type(text) is str):
        raise ValueError("its id or its text is no string")
    return id, text


def record_of(payload: Mapping[str, Any], stored: Any) -> Record:
    """A row as it was written; `stored` is its vector, None where none is wanted."""
    expires = int(payload.get("_vk_expires", NEVER))
    id, text = named(payload)  # noqa: A001
    return Record(
        id,
        None if stored is None else vector_of(payload, stored),
        text,
        metadata_of(payload),
        None if expires == NEVER else from_micros(expires),
    )


def score(metric: Metric, raw: float | None) -> float:
    """Qdrant's score as ours: it is the distance itself under Euclid. Not finite where float32 could not hold it."""
    if raw is None:
        return math.nan
    return -raw if metric == "l2" else raw


def scores(metric: Metric, raw: Sequence[float | None]) -> list[float]:
    """`score` of each."""
    return [math.nan if one is None else -one if metric == "l2" else one for one in raw]


def changed(spec: CollectionSpec, payload: Mapping[str, Any], metadata: Metadata, sequence: int) -> dict[str, Any]:
    """The payload of a row whose metadata was changed."""
    kept = {key: value for key, value in payload.items() if key != "_vk_meta" and not key.startswith("_vk_f")}
    if metadata:
        kept |= {"_vk_meta": encode(metadata), **field_keys(spec, metadata)}
    return {**kept, "_vk_seq": sequence}
