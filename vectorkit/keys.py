"""Declared fields as the typed keys that a store with a payload filters by: docs/layout.md, section 1.5. Pure."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

from vectorkit.codec import Metadata, to_micros
from vectorkit.types import CollectionSpec

Writer: TypeAlias = tuple[str, str, Callable[[Any], Any] | None, str | None]


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


def writers(spec: CollectionSpec, prefix: str) -> list[Writer]:
    """Of each declared field its name, its key, what makes the stored value of it, and the key that it is ordered by."""
    found: list[Writer] = []
    for n, (name, kind) in enumerate(spec.fields.items()):
        key = f"{prefix}{n}"
        if getattr(kind, "__origin__", None) is list:
            found.append((name, key, partial(_elements, kind=kind), None))
        elif kind is str:
            found.append((name, key, None, f"{key}p"))
        else:
            found.append((name, key, None if kind is int else partial(scalar, kind=kind), None))
    return found


def _elements(values: Any, kind: Any) -> list[str]:
    return list(dict.fromkeys(element(one, kind) for one in values)) or ["-"]


def fill(keys: dict[str, Any], made: Sequence[Writer], metadata: Metadata) -> None:
    """Add the keys of the fields that a row has."""
    for name, key, value_of, ordered in made:
        value = metadata.get(name)
        if value is None:
            continue
        keys[key] = value if value_of is None else value_of(value)
        if ordered is not None:
            keys[ordered] = order_key(value)
