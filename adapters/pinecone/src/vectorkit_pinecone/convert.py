"""Rows to what Pinecone holds and back, by section 7 of docs/layout.md: names, ids, fields, vectors.

Nothing here knows a client, so all of it is tested without a store. Limits are those of
https://docs.pinecone.io/reference/api/database-limits/operation-limits and of the API's specification, version 2026-07.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from vectorkit.codec import NEVER, Metadata, decode, encode, from_micros
from vectorkit.errors import InvalidRecord, Unsupported
from vectorkit.keys import fill, writers
from vectorkit.layout import h26
from vectorkit.types import Batch, CollectionSpec, FloatArray, Metric, Record
from vectorkit.validate import expiry_micros
from vectorkit.words import tokens
from vectorkit_pinecone.filters import FIELD, PRECISE

METRICS: dict[Metric, str] = {"cosine": "cosine", "dot": "dotproduct", "l2": "euclidean"}
VECTOR, TEXT, WORDS = "vk_vector", "vk_text", "vk_words"
SHOWN = ("vk_id", "vk_meta", TEXT, "vk_blank", "vk_norm")
WHOLE = (*SHOWN, "vk_expires", "vk_until")
BODY = 1_900_000
"""Bytes of rows in one request; 2 MB are taken."""
ANSWER = 3_500_000
"""Bytes of rows asked for at once; 4 MB are given."""
FRAME = 64
"""Bytes of a row's JSON beside its id, fields and vector: names, quotes and braces."""
MOST_ROWS = 1_000
MOST_METADATA = 40_000  # bytes of JSON; what is counted against 40 KB is not documented to the byte
MOST_TEXT = 100_000  # bytes of a full-text field, which takes no more words than these either
MOST_WORDS = 10_000
MOST_QUERY = 9_000  # bytes of one clause of words; 10 KB are taken
LONGEST_WORD = 40
LOWEST, HIGHEST = 1e-15, 1e15  # norms of vectors that are kept as written under cosine
FARTHEST = 1e18  # a norm whose square, and that of a distance, float32 still holds
TINY = 1e-8  # a vector without a number this far from 0 is refused as zero
_PLAIN = re.compile(r"[!-~]{1,511}\Z")
_TERM = re.compile(r"[a-z0-9]{1,40}\Z")
_TERMS = re.compile(r"[a-z0-9]{1,40}(?: [a-z0-9]{1,40})*\Z")


@dataclass(frozen=True, slots=True)
class Stored:
    """A row as it is sent: its id there, its fields, its vector as JSON and as numbers, and how many bytes that is."""

    key: str
    fields: dict[str, Any]
    vector: bytes
    values: FloatArray
    size: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it comes back."""

    key: str
    fields: Mapping[str, Any]
    vector: Any = None
    sparse: bool = False


# --------------------------------------------------------------------------------------------- names


def index_name(prefix: str, physical: str) -> str:
    """What Pinecone calls the index of a physical collection (`articles@1`)."""
    return f"{prefix}-{h26(physical)}"


def row_key(id: str) -> str:
    """The id of a row there, where ids are ASCII: the id itself after an `a`, or a hash after an `h`."""
    return f"a{id}" if _PLAIN.match(id) else f"h{h26(id)}"


def term(word: str) -> str:
    """A word as it is indexed: any that Pinecone's analyzer might split, fold or cut is a hash."""
    return word if _TERM.match(word) else f"vk{h26(word)}"


def clauses(text: str) -> list[str]:
    """The distinct words of a query as texts that one clause each takes."""
    found: list[str] = []
    size = MOST_QUERY
    for word in dict.fromkeys(map(term, tokens(text))):
        if size + len(word) + 1 > MOST_QUERY:
            found.append(word)
            size = len(word)
        else:
            found[-1] += f" {word}"
            size += len(word) + 1
    return found


# --------------------------------------------------------------------------------------------- vectors


def as_stored(spec: CollectionSpec, vectors: FloatArray) -> tuple[FloatArray, dict[int, float]]:
    """Vectors as sent, and by row the norms of those that are sent as others: unit vectors under cosine where the norm leaves
    what float32 can square, and for what Pinecone takes for zero the shortest of the same direction that it does not.
    InvalidRecord where its squared distances, of float32, would overflow."""
    wide = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    small = np.abs(vectors).max(axis=1) < 2 * TINY
    odd = small | ((wide < LOWEST) | (wide > HIGHEST)) if spec.metric == "cosine" else small
    if spec.metric == "l2" and (far := np.flatnonzero(wide > FARTHEST)).size:
        raise InvalidRecord(
            f"the vector has the norm {wide[far[0]]:.3g}; pinecone measures squared distances in float32, which end at {FARTHEST:g}",
            row=int(far[0]),
            field="vector",
        )
    if not odd.any():
        return vectors, {}
    stored = vectors.copy()
    for row in np.flatnonzero(odd):
        unit = _unit(vectors[row], wide[row])
        stored[row] = unit if spec.metric == "cosine" else _shortest(unit)
    return stored, {int(row): float(wide[row]) for row in np.flatnonzero(odd)}


def _unit(vector: FloatArray, norm: float) -> FloatArray:
    if norm:
        unit: FloatArray = (vector.astype(np.float64) / norm).astype(np.float32)
        return unit
    first: FloatArray = np.zeros_like(vector)
    first[0] = 1.0
    return first


def _shortest(unit: FloatArray) -> FloatArray:
    shortest: FloatArray = unit * np.float32(2 * TINY / np.abs(unit).max())
    return shortest


def vectors_of(rows: Sequence[Row]) -> FloatArray:
    """The vectors of some rows as they were written."""
    written = np.array([row.vector for row in rows], np.float32)
    for at, row in enumerate(rows):
        if row.fields.get("vk_norm") is not None:
            written[at] = vector_of(row.fields, row.vector)
    return written


def vector_of(fields: Mapping[str, Any], stored: Any) -> FloatArray:
    """A stored vector as it was written."""
    vector = np.asarray(stored, np.float64)
    norm = fields.get("vk_norm")
    if norm is not None:
        vector = vector * (float(norm) / np.sqrt(vector.dot(vector)))
    written: FloatArray = vector.astype(np.float32)
    return written


# --------------------------------------------------------------------------------------------- rows


def rows(spec: CollectionSpec, batch: Batch, sequence: int) -> list[Stored]:
    """A batch as it is sent. InvalidRecord names the row that Pinecone would refuse."""
    vectors, norms = as_stored(spec, np.ascontiguousarray(batch.vectors, np.float32))
    texts = batch.texts or [None] * len(batch)
    documents = batch.metadata or [None] * len(batch)
    made = writers(spec, FIELD)
    found = []
    for n, (id, text, metadata, expires) in enumerate(  # noqa: A001
        zip(batch.ids, texts, documents, expiry_micros(batch), strict=True)
    ):
        fields: dict[str, Any] = {"vk_id": id, "vk_seq": sequence + n, "vk_expires": expires}
        if abs(expires) >= PRECISE:
            fields["vk_expires"] = float(expires)
            if expires != NEVER:
                fields["vk_until"] = str(expires)
        if metadata:
            fields["vk_meta"] = encode(metadata)
            fill(fields, made, metadata)
        if n in norms:
            fields["vk_norm"] = norms[n]
        _add_text(spec, fields, text, n)
        size = _check_size(fields, n)
        vector = orjson.dumps(vectors[n], option=orjson.OPT_SERIALIZE_NUMPY)
        key = row_key(id)
        found.append(Stored(key, fields, vector, vectors[n], size + len(vector) + len(key) + FRAME))
    return found


def _add_text(spec: CollectionSpec, fields: dict[str, Any], text: str | None, row: int) -> None:
    if text is None:
        return
    if not text:
        fields["vk_blank"] = 1
        return
    fields[TEXT] = text
    if not spec.text:
        return
    words = tokens(text)
    joined = " ".join(words)
    if not _TERMS.match(joined):
        joined = " ".join(map(term, words))
    if len(joined) > MOST_TEXT or joined.count(" ") >= MOST_WORDS:
        raise InvalidRecord(
            f"the text has {joined.count(' ') + 1} words; pinecone takes {MOST_WORDS} and {MOST_TEXT} bytes of them in a "
            "searchable text: chunk it, or create the collection with text=False",
            row=row,
            field="text",
        )
    if joined:
        fields[WORDS] = joined


def _check_size(fields: dict[str, Any], row: int | None) -> int:
    """Bytes of all fields as JSON. InvalidRecord where those that count as metadata are over Pinecone's limit: all but the words."""
    size = len(orjson.dumps(fields))
    counted = size - len(fields.get(WORDS, ""))
    if counted > MOST_METADATA:
        text = len(orjson.dumps(fields.get(TEXT, "")))
        raise InvalidRecord(
            f"metadata and text with their keys are {counted} bytes of JSON, {text} of them the text; pinecone takes "
            f"{MOST_METADATA} a row",
            row=row,
            field="text" if 2 * text > counted else "metadata",
        )
    return size


def changed(
    spec: CollectionSpec, fields: Mapping[str, Any], metadata: Metadata, sequence: int
) -> tuple[dict[str, Any], list[str]]:
    """Fields to set and to remove of a row whose metadata was changed, whatever another may have written of them meanwhile.
    InvalidRecord where it has grown too large."""
    keys: dict[str, Any] = {"vk_seq": sequence}
    if metadata:
        keys["vk_meta"] = encode(metadata)
        fill(keys, writers(spec, FIELD), metadata)
    _check_size({**{name: fields[name] for name in fields if not _of_metadata(name)}, **keys}, None)
    declared = [
        f"{FIELD}{n}{end}" for n, kind in enumerate(spec.fields.values()) for end in ("", "p")[: 1 + (kind is str)]
    ]
    return keys, [name for name in ("vk_meta", *declared) if name not in keys]


def _of_metadata(name: str) -> bool:
    return name == "vk_meta" or name.startswith(FIELD)


def expires_of(fields: Mapping[str, Any]) -> int:
    """When a row expires, in microseconds since 1970; the largest int64 for never. ValueError where that is not readable."""
    if (exact := fields.get("vk_until")) is not None:
        return int(exact)
    found = fields.get("vk_expires", NEVER)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError("vk_expires is no number")  # noqa: TRY004 - damage, whatever its kind
    return int(found) if found < PRECISE else NEVER


def text_of(fields: Mapping[str, Any]) -> str | None:
    """The text. ValueError where it is none."""
    text = fields.get(TEXT)
    if text is None:
        return "" if fields.get("vk_blank") else None
    if type(text) is not str:
        raise ValueError("its text is no string")
    return text


def id_of(fields: Mapping[str, Any]) -> str:
    """The id. ValueError where it is none."""
    id = fields.get("vk_id")  # noqa: A001
    if type(id) is not str or not id:
        raise ValueError("it has no vk_id")
    return id


def metadata_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata from its document. ValueError when that is none."""
    return decode(fields.get("vk_meta"))


def record_of(row: Row, *, vectors: bool) -> Record:
    """A row as it was written. ValueError where it is damaged."""
    fields = row.fields
    expires = expires_of(fields)
    return Record(
        id_of(fields),
        vector_of(fields, row.vector) if vectors else None,
        text_of(fields),
        metadata_of(fields),
        None if expires == NEVER else from_micros(expires),
    )


def queries(metric: Metric, vectors: FloatArray) -> FloatArray:
    """(q, d) queries as sent. Under cosine and dot only the direction decides who is nearest: unit vectors, under dot a thousandth
    of them, so that no product leaves float32; under l2 what Pinecone would take for zero becomes the shortest that it does not.
    Unsupported where squared distances would overflow."""
    wide = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if metric != "l2":
        units = np.array([_unit(one, norm) for one, norm in zip(vectors, wide, strict=True)], np.float32)
        return units if metric == "cosine" else units * np.float32(1e-3)
    if (wide > FARTHEST).any():
        raise Unsupported(
            f"pinecone measures squared distances in float32: a query of norm above {FARTHEST:g} has none"
        )
    small = np.flatnonzero(np.abs(vectors).max(axis=1) < 2 * TINY)
    if not small.size:
        return vectors
    sent = vectors.copy()
    for row in small:
        sent[row] = _shortest(_unit(vectors[row], wide[row]))
    return sent


def per_answer(dimension: int, *, vectors: bool) -> int:
    """Rows to ask for at once, reckoned with texts and metadata of a thousand bytes. What is larger is refused, and asked for in parts."""
    return max(1, min(MOST_ROWS, ANSWER // (1_000 + (21 * dimension if vectors else 0))))
