"""Filters as Pinecone's, on the typed keys of declared fields: pure, and tested without a store.

https://docs.pinecone.io/guides/search/filter-by-metadata. What it does not settle is not relied on: whether `$ne` and `$nin` match a
row without the key is left open by an `$exists` beside them, and what a list does not contain is looked at again.
"""

from typing import Any, Literal, TypeAlias

from vectorkit.adapter import Plan
from vectorkit.filters import (
    AnyLeaf,
    Compare,
    ContainsAll,
    ContainsAny,
    Eq,
    Exists,
    In,
    Node,
    Order,
    StartsWith,
    fold,
)
from vectorkit.keys import element, order_key, scalar
from vectorkit.types import CollectionSpec

Where: TypeAlias = dict[str, Any]
FIELD = "vk_f"
DEEPEST = 32
"""Levels of and/or that are sent; no limit is documented."""
PRECISE = 2**53
"""Pinecone holds numbers as float64, which is exact for integers below this."""

_OPPOSITE: dict[Order, Order] = {"lt": "gte", "lte": "gt", "gt": "lte", "gte": "lt"}


def plan(spec: CollectionSpec, where: Node) -> Plan:
    """The filter and what Pinecone makes of it."""
    position = {name: n for n, name in enumerate(spec.fields)}

    def leaf(found: AnyLeaf, negated: bool) -> tuple[Where, bool] | None:
        n = position.get(found.field)
        return None if n is None else _leaf(found, negated, f"{FIELD}{n}", spec.fields[found.field])

    folded = fold(where, leaf, _join)
    native, exact = folded
    if native is not None and _depth(native) > DEEPEST:
        return Plan(where)
    return Plan(where, native, exact)


def both(*filters: Where | None) -> Where | None:
    """All of those that are given."""
    given = [one for one in filters if one is not None]
    return _join("and", given) if given else None


def alive(now: int | None) -> Where | None:
    """That the row has not expired."""
    return None if now is None else {"vk_expires": {"$gt": now}}


def among(ids: list[str]) -> Where:
    """That it is one of these rows."""
    return {"vk_id": {"$in": ids}}


EVERY: Where = {"vk_seq": {"$gte": 0}}
"""That it is a row of ours: a page of a filter that is empty would be refused."""


def _join(how: Literal["and", "or"], parts: list[Where]) -> Where:
    """Filters joined flat; one alone is itself."""
    if len(parts) == 1:
        return parts[0]
    name = f"${how}"
    return {name: [other for part in parts for other in (part[name] if set(part) == {name} else [part])]}


def _depth(where: Where) -> int:
    inner = [part for parts in where.values() if isinstance(parts, list) for part in parts]
    return 1 + max(map(_depth, inner)) if inner else 0


def _leaf(leaf: AnyLeaf, negated: bool, key: str, kind: Any) -> tuple[Where, bool] | None:
    missing: Where = {key: {"$exists": False}}
    there: Where = {key: {"$exists": True}}
    match leaf:
        case Exists() | ContainsAll(values=()):
            return (missing if negated else there), True
        case Eq(value=value):
            return _equal(key, missing, [value], kind, negated)
        case In(values=values):
            return _equal(key, missing, list(values), kind, negated)
        case Compare(order=order, value=str(value)):
            return _string_range(key, missing, order, value, negated)
        case Compare(order=order, value=value):
            return _range(key, missing, order, scalar(value, kind), negated)
        case StartsWith(prefix=""):
            return (missing if negated else there), True
        case StartsWith(prefix=prefix):
            return _starts(f"{key}p", missing, prefix, negated)
        case ContainsAny(values=values) if negated:  # right if $nin asks of every element, too many rows if of any
            return _join("or", [missing, {key: {"$nin": [element(value, kind) for value in values]}}]), False
        case ContainsAll() if negated:
            return None
        case ContainsAny(values=values):
            return {key: {"$in": [element(value, kind) for value in values]}}, True
        case ContainsAll(values=values):
            return _join("and", [{key: {"$in": [element(value, kind)]}} for value in values]), True


def _equal(key: str, missing: Where, values: list[Any], kind: Any, negated: bool) -> tuple[Where, bool] | None:
    stored = [scalar(value, kind) for value in values]
    exact = kind is float or not any(isinstance(value, int) and abs(value) >= PRECISE for value in stored)
    if negated and not exact:
        return None
    if len(stored) == 1:
        test: Where = {key: {"$ne" if negated else "$eq": _number(stored[0])}}
    else:
        test = {key: {"$nin" if negated else "$in": list(map(_number, stored))}}
    return (_join("or", [missing, test]) if negated else test), exact


def _number(value: Any) -> Any:
    """As Pinecone would round it anyway."""
    return float(value) if isinstance(value, int) and abs(value) >= PRECISE else value


def _range(key: str, missing: Where, order: Order, value: int | float, negated: bool) -> tuple[Where, bool]:
    """Rounding to float64 keeps the order, so that a bound beyond what it holds finds too many, and never too few."""
    sent = _OPPOSITE[order] if negated else order
    exact = isinstance(value, float) or abs(value) < PRECISE
    if not exact:
        sent = "lte" if sent in {"lt", "lte"} else "gte"
    test: Where = {key: {f"${sent}": _number(value)}}
    return (_join("or", [missing, test]) if negated else test), exact


def _string_range(key: str, missing: Where, order: Order, value: str, negated: bool) -> tuple[Where, bool]:
    """Strings by their order keys: those of 5 bytes or less have a key of their own, those of 6 are the first with theirs."""
    length = len(value.encode())
    exact = length <= 6 if order in {"lt", "gte"} else length <= 5
    sent = _OPPOSITE[order] if negated else order
    if not exact:
        sent = "lte" if sent in {"lt", "lte"} else "gte"
    test: Where = {f"{key}p": {f"${sent}": order_key(value)}}
    return (_join("or", [missing, test]) if negated else test), exact


def _starts(key: str, missing: Where, prefix: str, negated: bool) -> tuple[Where, bool] | None:
    raw = prefix.encode()
    low, high = order_key(prefix), int.from_bytes(raw[:6].ljust(6, b"\xff"), "big")
    exact = len(raw) <= 6
    if not negated:
        return {"$and": [{key: {"$gte": low}}, {key: {"$lte": high}}]}, exact
    if not exact:
        return None
    return {"$or": [missing, {key: {"$lt": low}}, {key: {"$gt": high}}]}, True
