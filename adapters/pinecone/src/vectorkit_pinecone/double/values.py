"""What a request may hold: ids, vectors, metadata. Numbers of metadata are float64, those of vectors float32."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from vectorkit_pinecone.double.errors import bad
from vectorkit_pinecone.double.rows import Dense
from vectorkit_pinecone.double.settings import METADATA_BYTES, SPARSE_VALUES, TEXT_BYTES, TEXT_TOKENS, TOKEN_BYTES
from vectorkit_pinecone.double.text import words

_ASCII = re.compile(r"[\x01-\x7f]{1,512}")
_NUMBERS = frozenset({int, float})
_GREATEST = float(np.finfo(np.float32).max)
_ZERO = 1e-8
"""A vector with no value of at least this size counts as zeros."""


def identifier(raw: Any, what: str) -> str:
    """An id, or the name of a namespace."""
    if not isinstance(raw, str) or not _ASCII.fullmatch(raw):
        raise bad(f"{what} must be a string of 1 to 512 ASCII characters, without NUL.")
    return raw


def identifiers(raw: Any, what: str, most: int) -> list[str]:
    """A list of ids, not empty."""
    if not isinstance(raw, list) or not raw:
        raise bad(f"{what} must be a list of ids that is not empty.")
    if len(raw) > most:
        raise bad(f"{what} holds {len(raw)} ids, more than the maximum of {most}.")
    return [identifier(each, f"An id in {what}") for each in raw]


def number(raw: Any, what: str, least: int, most: int, default: int) -> int:
    """A whole number in bounds, or the default if it was left out."""
    if raw is None:
        return default
    if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
        raise bad(f"{what} must be an integer between {least} and {most}.")
    return raw


def dense(raw: Any, dimension: int, what: str) -> Dense:
    """A dense vector, as the service stores it."""
    if not isinstance(raw, list) or not raw or not _NUMBERS.issuperset(map(type, raw)):
        raise bad(f"{what} must be an array of numbers that is not empty.")
    if len(raw) != dimension:
        raise bad(f"Vector dimension {len(raw)} of {what} does not match the dimension of the index {dimension}.")
    exact = np.array(raw, dtype=np.float64)
    greatest = np.abs(exact).max()
    if greatest > _GREATEST:
        raise bad(f"{what} holds a number that float32 does not hold.")
    if greatest < _ZERO:
        raise bad(f"{what} must contain at least one non-zero value.")
    return exact.astype(np.float32)


def sparse(raw: Any, what: str) -> dict[str, Any]:
    """A sparse vector."""
    if not isinstance(raw, dict) or set(raw) != {"indices", "values"}:
        raise bad(f"{what} must be an object of indices and values.")
    indices, values = raw["indices"], raw["values"]
    if not isinstance(indices, list) or not isinstance(values, list) or len(indices) != len(values):
        raise bad(f"{what} must have as many indices as values.")
    if not 1 <= len(indices) <= SPARSE_VALUES:
        raise bad(f"{what} must have 1 to {SPARSE_VALUES} values.")
    if any(type(each) is not int or not 0 <= each < 2**32 for each in indices):
        raise bad(f"{what} must have indices between 0 and {2**32 - 1}.")
    if len(set(indices)) < len(indices):
        raise bad(f"{what} has an index twice.")
    return {"indices": indices, "values": dense(values, len(values), f"The values of {what}")}


def text(raw: Any, what: str) -> str:
    """The value of a full-text field."""
    if not isinstance(raw, str):
        raise bad(f"{what} must be a string.")
    if len(raw.encode()) > TEXT_BYTES:
        raise bad(f"{what} has more than {TEXT_BYTES} bytes.")
    found = words(raw)
    if len(found) > TEXT_TOKENS:
        raise bad(f"{what} has more than {TEXT_TOKENS} tokens.")
    if any(len(word) > TOKEN_BYTES // 4 and len(word.encode()) > TOKEN_BYTES for word in found):
        raise bad(f"{what} has a token of more than {TOKEN_BYTES} bytes.")
    return raw


def metadata(raw: Any, what: str) -> Any:
    """One value of metadata."""
    if isinstance(raw, str | bool):
        return raw
    if isinstance(raw, int | float):
        return float(raw)
    if isinstance(raw, list) and all(isinstance(each, str) for each in raw):
        return raw
    raise bad(f"{what} must be a boolean, number, string, or array of strings.")


def small(fields: Mapping[str, Any], what: str) -> None:
    """Refuse more metadata than one row holds."""
    size = len(orjson.dumps(fields))
    if size > METADATA_BYTES:
        raise bad(f"Metadata size of {what} is {size} bytes, which exceeds the limit of {METADATA_BYTES} bytes.")
