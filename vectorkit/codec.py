"""The canonical metadata document: one JSON text per row from which every type comes back exactly.

Also the check that a value can be stored at all, since what is checked is what is encoded.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from typing import Any, TypeAlias

from vectorkit.errors import InvalidRecord

Metadata: TypeAlias = Mapping[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = 2**63 - 1
_MICROSECOND = timedelta(microseconds=1)
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
MAX_DEPTH = 32


def to_micros(value: datetime) -> int:
    """Microseconds since 1970 UTC of an aware datetime, exactly."""
    return (value - EPOCH) // _MICROSECOND


def from_micros(value: int) -> datetime:
    """The UTC datetime of so many microseconds since 1970."""
    return EPOCH + timedelta(microseconds=value)


# --------------------------------------------------------------------------------------------- what may be stored


def bad_text(text: str) -> str | None:
    """Why a text cannot be stored (NUL, lone surrogate), or None."""
    if "\0" in text:
        return "holds a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "holds a lone surrogate"
    return None


def clean_text(value: Any, what: str, field: str, row: int | None) -> str:
    """The text as a plain str, or InvalidRecord."""
    if not isinstance(value, str):
        raise InvalidRecord(f"{what} must be a string, got {type(value).__name__}", row=row, field=field)
    text = value if type(value) is str else str.__str__(value)
    if problem := bad_text(text):
        raise InvalidRecord(f"{what} {problem}", row=row, field=field)
    return text


def clean_metadata(metadata: Any, row: int | None = None) -> dict[str, Any]:
    """A private copy with plain Python types, or InvalidRecord naming row and field.

    Tuples become lists, datetimes UTC, subclasses of str, int and float their base type.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidRecord(f"metadata must be a mapping, got {type(metadata).__name__}", row=row, field="metadata")
    out: dict[str, Any] = {}
    for key, value in metadata.items():
        kind = type(value)
        if type(key) is str and key and key.isascii() and "\0" not in key and key[0] != "_":
            if kind is bool or (kind is int and _INT_MIN <= value <= _INT_MAX):
                out[key] = value
                continue
            if kind is str and value.isascii() and "\0" not in value:
                out[key] = value
                continue
        else:
            key = _key(key, row)  # noqa: PLW2901
            if key.startswith("_vk_"):
                raise InvalidRecord(f"metadata key {key!r}: the prefix _vk_ is reserved", row=row, field=key)
        out[key] = clean_value(value, key, row)
    return out


def _key(key: Any, row: int | None) -> str:
    if not isinstance(key, str) or not key:
        raise InvalidRecord(f"a metadata key must be a non-empty string, got {key!r}", row=row, field="metadata")
    return clean_text(key, "a metadata key", "metadata", row)


def clean_value(value: Any, field: str, row: int | None = None) -> Any:
    """One top-level metadata value as a private copy of plain type, or InvalidRecord."""
    if value is None:
        raise InvalidRecord(f"metadata {field!r} is None; leave the key out instead", row=row, field=field)
    if isinstance(value, list | tuple):
        return _clean_list(value, field, row)
    if isinstance(value, Mapping):
        return _clean_nested(value, field, row, 1)
    return _clean_scalar(value, field, row)


def _clean_scalar(value: Any, field: str, row: int | None) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(value, f"metadata {field!r}", field, row)
    if isinstance(value, int):
        number = int(value)
        if not _INT_MIN <= number <= _INT_MAX:
            raise InvalidRecord(f"metadata {field!r}: {number} is outside -2^63 to 2^63-1", row=row, field=field)
        return number
    if isinstance(value, float):
        real = float(value)
        if real - real != 0.0:
            raise InvalidRecord(f"metadata {field!r} is {real}; only finite numbers are stored", row=row, field=field)
        return real
    if isinstance(value, datetime):
        return _clean_datetime(value, field, row)
    hint = "; use .item()" if type(value).__module__ == "numpy" else ""
    raise InvalidRecord(
        f"metadata {field!r} is a {type(value).__name__}; a value is a str, bool, int, float, datetime, "
        f"a list of one of these, or a nested mapping{hint}",
        row=row,
        field=field,
    )


def _clean_datetime(value: datetime, field: str, row: int | None) -> datetime:
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidRecord(f"metadata {field!r} is a datetime without a timezone", row=row, field=field)
    if getattr(value, "nanosecond", 0):
        raise InvalidRecord(f"metadata {field!r} has nanoseconds; microseconds are stored", row=row, field=field)
    try:
        utc = value.astimezone(UTC)
    except OverflowError:
        raise InvalidRecord(f"metadata {field!r}: {value} has no UTC form", row=row, field=field) from None
    return datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, tzinfo=UTC)


def kind_of(value: Any) -> str:
    """ "bool", "number", "string", "datetime", "list", "mapping" or "null": the disjoint kinds of section values."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, datetime):
        return "datetime"
    if isinstance(value, list | tuple):
        return "list"
    return "null" if value is None else "mapping"


def _clean_list(value: Sequence[Any], field: str, row: int | None) -> list[Any]:
    out = []
    for item in value:
        if item is None or isinstance(item, list | tuple | Mapping):
            raise InvalidRecord(
                f"metadata {field!r}: a list holds strings, bools, numbers or datetimes, not {type(item).__name__}",
                row=row,
                field=field,
            )
        out.append(_clean_scalar(item, field, row))
    kinds = {kind_of(item) for item in out}
    if len(kinds) > 1:
        raise InvalidRecord(
            f"metadata {field!r}: a list holds one type, got {', '.join(sorted(kinds))}", row=row, field=field
        )
    return out


def _clean_nested(value: Mapping[Any, Any], field: str, row: int | None, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise InvalidRecord(f"metadata {field!r} is nested deeper than {MAX_DEPTH}", row=row, field=field)
    out: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidRecord(f"metadata {field!r}: nested keys are strings, got {key!r}", row=row, field=field)
        out[clean_text(key, "a nested key", field, row)] = _clean_inner(item, field, row, depth)
    return out


def _clean_inner(item: Any, field: str, row: int | None, depth: int) -> Any:
    if item is None:
        return None
    if isinstance(item, Mapping):
        return _clean_nested(item, field, row, depth + 1)
    if isinstance(item, list | tuple):
        if depth >= MAX_DEPTH:
            raise InvalidRecord(f"metadata {field!r} is nested deeper than {MAX_DEPTH}", row=row, field=field)
        return [_clean_inner(inner, field, row, depth + 1) for inner in item]
    return _clean_scalar(item, field, row)


# --------------------------------------------------------------------------------------------- declared fields


def fits_type(value: Any, kind: Any) -> bool:
    """Whether a clean value may stand in a field declared as `kind`.

    A float field takes an int that float64 holds exactly, since both are numbers and compare by value.
    """
    if kind is int:
        return type(value) is int
    if kind is float:
        return type(value) is float or (type(value) is int and _exact_float(value))
    if kind in {str, bool, datetime}:
        return type(value) is kind
    inner = kind.__args__[0]
    return type(value) is list and all(fits_type(item, inner) for item in value)


def _exact_float(value: int) -> bool:
    return -(2**53) <= value <= 2**53 or int(float(value)) == value


# --------------------------------------------------------------------------------------------- the document


def _plain_encoder() -> Callable[[Any], str]:
    """Compact JSON text. json.JSONEncoder.encode makes its C encoder anew at every call, which is most of its cost."""
    if c_make_encoder is None:  # an interpreter without the C accelerator
        return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False).encode
    write = c_make_encoder(None, _refuse, encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(write(value, 0))


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON")


_encode_plain = _plain_encoder()


def encode(metadata: Metadata) -> str:
    """The canonical document of clean metadata: compact JSON, datetimes as {"$date": …}, `$` keys with one more `$`."""
    for key, value in metadata.items():
        kind = type(value)
        if key[0] == "$" or kind is datetime or kind is dict or (kind is list and value and type(value[0]) is datetime):
            return _encode_plain(_tag(metadata))
    return _encode_plain(metadata)


def _tag(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"$date": format_datetime(value)}
    if isinstance(value, Mapping):
        return {("$" + key if key[:1] == "$" else key): _tag(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tag(item) for item in value]
    return value


def format_datetime(value: datetime) -> str:
    """RFC 3339 in UTC with six fractional digits, so that texts order as instants do."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # what decode() calls between two searches for white space, which we never write


def decode(document: str | None) -> dict[str, Any]:
    """Metadata from its document. Raises ValueError when it is none."""
    if not document:
        return {}
    try:
        value, end = _scan(document, 0)
    except StopIteration:
        end = -1
    if end != len(document):
        value = json.loads(
            document
        )  # white space around it, which is somebody else's; or no JSON, which this raises for
    if '"$' in document:
        value = _untag(value)
    if type(value) is not dict:
        raise ValueError("a metadata document is a JSON object")
    return value


def _untag(value: Any) -> Any:
    if type(value) is dict:
        if len(value) == 1 and "$date" in value:
            return datetime.fromisoformat(value["$date"])
        return {(key[1:] if key[:1] == "$" else key): _untag(item) for key, item in value.items()}
    if type(value) is list:
        return [_untag(item) for item in value]
    return value


def copy_metadata(metadata: Metadata) -> dict[str, Any]:
    """A deep copy of clean metadata: what is returned shares nothing with what is kept."""
    return {
        key: (value if type(value) is not list and type(value) is not dict else _copy(value))
        for key, value in metadata.items()
    }


def _copy(value: Any) -> Any:
    if type(value) is dict:
        return {key: _copy(item) for key, item in value.items()}
    if type(value) is list:
        return [_copy(item) for item in value]
    return value
