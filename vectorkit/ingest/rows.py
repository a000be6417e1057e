"""One row of a table as a Record: which columns mean something, and what a text in a typed column stands for.

Formats differ in how they hold values, not in what the columns are called; so this is written once, without a file.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any

import numpy as np

from vectorkit.codec import decode
from vectorkit.errors import InvalidRecord
from vectorkit.types import Record

_INT = re.compile(r"[+-]?\d+\Z", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z", re.ASCII)
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Row:
    """A record on its way in, and where it came from. `record.vector` is None until its text is embedded.

    place: "people.csv, line 17", for messages.
    """

    record: Record
    place: str


class BadValue(ValueError):
    """A value that cannot stand in a row; whoever knows the place turns it into an InvalidRecord."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

    def at(self, place: str) -> InvalidRecord:
        """The error for a user."""
        return InvalidRecord(f"{place}: {self}", field=self.field)


def stable_id(source: str, record: Record) -> str:
    """The id of a row that brings none: 32 hex digits over source, text, metadata and vector.

    The same row of the same source gets the same id in every run, so loading a file twice changes nothing; two equal rows of a
    source are one row.
    """
    vector = b"" if record.vector is None else np.asarray(record.vector, np.float32).tobytes()
    metadata = json.dumps(record.metadata, sort_keys=True, default=str)
    digest = blake2b(digest_size=16)
    for part in (
        source.encode(errors="surrogatepass"),
        (record.text or "").encode(errors="surrogatepass"),
        metadata.encode(),
        vector,
    ):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def record_of(values: Mapping[str, Any], *, source: str, fields: Mapping[str, Any]) -> Record:
    """A Record from a row's columns. `id`, `vector`, `text`, `metadata` and `expires_at` are taken as such, every other column is
    a metadata key, a None is an absent one.

    fields: declared types; text in a column declared datetime is read as RFC 3339. Raises BadValue.
    """
    metadata = _metadata(values.get("metadata"))
    for key, value in values.items():
        if key in {"id", "vector", "text", "metadata", "expires_at"} or value is None:
            continue
        if key in metadata:
            raise BadValue(f"{key!r} is both a column and a key of the metadata column", key)
        metadata[key] = value
    for key, kind in fields.items():
        if key in metadata and (kind is datetime or kind == list[datetime]):
            metadata[key] = _dates(metadata[key], key)
    text = values.get("text")
    if text is not None and not isinstance(text, str):
        raise BadValue(f"text must be a string, got {type(text).__name__}", "text")
    record = Record("", _vector(values.get("vector")), text, metadata, _expiry(values.get("expires_at")))
    id = _id(values.get("id")) or stable_id(source, record)  # noqa: A001
    return Record(id, record.vector, record.text, record.metadata, record.expires_at)


def cell(text: str, field: str, kind: Any) -> Any:
    """A CSV cell in the type its field is declared with; a str where it is declared none. Raises BadValue.

    bool: true, false, 1, 0 in any case. datetime: RFC 3339. A list: a JSON array.
    """
    if kind is None or kind is str:
        return text
    if kind is int and _INT.match(text):
        return int(text)
    if kind is float and _FLOAT.match(text):
        return float(text)
    if kind is bool and text.lower() in _BOOLS:
        return _BOOLS[text.lower()]
    if kind is datetime:
        return instant(text, field)
    if kind in {int, float, bool}:
        raise BadValue(f"field {field!r} is declared {kind.__name__}, got {text!r}", field)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise BadValue(f"field {field!r} is declared a list and takes a JSON array, got {text!r}", field)
    return value


def instant(text: str, field: str) -> datetime:
    """An RFC 3339 instant. Raises BadValue when it is none, or has no timezone."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise BadValue(f"{field!r} takes a date like 2024-05-01T12:00:00Z, got {text!r}", field) from None
    if value.tzinfo is None:
        raise BadValue(f"{field!r} takes a date with a timezone, as in 2024-05-01T12:00:00Z, got {text!r}", field)
    return value


def json_list(text: str, field: str) -> list[Any]:
    """A JSON array in a text, as a vector stands in a CSV cell. Raises BadValue."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{field} is no JSON array: {error}", field) from None
    if not isinstance(value, list):
        raise BadValue(f"{field} must be a JSON array of numbers, got {text[:40]!r}", field)
    return value


def json_object(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object, `{"$date": …}` read as a datetime. Raises BadValue."""
    try:
        return decode(text.decode() if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        raise BadValue(f"{what} is not UTF-8: {error.reason}") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadValue(f"{what} is no JSON object: {error}") from None
    except (ValueError, TypeError):
        raise BadValue(f"{what} is no JSON object, or holds a $date that is none") from None


def _metadata(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, str):
        value = json_object(value, "the metadata column")
    if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value):  # how Arrow gives a map
        value = dict(value)
    if not isinstance(value, Mapping):
        raise BadValue(f"metadata must be an object, got {type(value).__name__}", "metadata")
    return {key: item for key, item in value.items() if item is not None}


def _dates(value: Any, field: str) -> Any:
    if isinstance(value, str):
        return instant(value, field)
    if isinstance(value, list):
        return [instant(item, field) if isinstance(item, str) else item for item in value]
    return value


def _expiry(value: Any) -> datetime | None:
    if isinstance(value, str):
        return instant(value, "expires_at")
    if value is None or isinstance(value, datetime):
        return value
    raise BadValue(f"expires_at takes a date like 2024-05-01T12:00:00Z, got {value!r}", "expires_at")


def _id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, str):
        return value or ""
    raise BadValue(f"id must be a string or an integer, got {type(value).__name__}", "id")


def _vector(value: Any) -> Any:
    if value is None or isinstance(value, np.ndarray):
        return value
    if not isinstance(value, list) or not value:
        raise BadValue(f"vector must be a list of numbers, got {value!r:.40}", "vector")
    try:
        array = np.asarray(value)
        if array.ndim == 1 and array.dtype.kind in "fiu":
            with np.errstate(over="ignore"):
                return array.astype(np.float32)
    except (TypeError, ValueError, OverflowError):
        pass
    raise BadValue("vector must be a list of numbers", "vector")
