"""Filters as Qdrant's conditions, on the typed keys of declared fields: pure, and tested without a store.

A condition is what its REST API takes (https://qdrant.tech/documentation/concepts/filtering/), as a dict; `edge.py` makes the
engine's own objects of it. Negations are `must_not` of the positive form, which keeps rows without the key.
"""

import math
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

Condition: TypeAlias = dict[str, Any]
DEEPEST = 32
"""Levels of and/or that are sent: the engine and the JSON of a request end at 128."""
PRECISE = 2**53
"""Qdrant compares ranges as float64, which keeps the order of integers up to here."""

_OPPOSITE: dict[Order, Order] = {"lt": "gte", "lte": "gt", "gt": "lte", "gte": "lt"}


def plan(spec: CollectionSpec, where: Node) -> Plan:
    """The filter and what Qdrant makes of it."""
    position = {name: n for n, name in enumerate(spec.fields)}

    def leaf(found: AnyLeaf, negated: bool) -> tuple[Condition, bool] | None:
        n = position.get(found.field)
        return None if n is None else _leaf(found, negated, f"_vk_f{n}", spec.fields[found.field])

    folded = fold(where, leaf, _join)
    native, exact = folded
    if native is not None and _depth(native) > DEEPEST:
        return Plan(where)
    return Plan(where, native, exact)


def both(*conditions: Condition | None) -> Condition | None:
    """All of those that are given."""
    given = [condition for condition in conditions if condition is not None]
    return _join("and", given) if given else None


def alive(now: int | None) -> Condition | None:
    """That the row has not expired."""
    return None if now is None else {"key": "_vk_expires", "range": {"gt": now}}


def past(now: int | None) -> Condition:
    """That it has."""
    return {"key": "_vk_expires", "range": {"lte": now}}


def among(points: list[str]) -> Condition:
    """That it is one of these points."""
    return {"has_id": points}


def as_filter(condition: Condition) -> Condition:
    """A condition at the top, where Qdrant takes a filter."""
    return condition if _is_filter(condition) else {"must": [condition]}


def _is_filter(condition: Condition) -> bool:
    return "must" in condition or "should" in condition or "must_not" in condition


def _join(how: Literal["and", "or"], parts: list[Condition]) -> Condition:
    """Conditions joined flat; one alone is itself."""
    if len(parts) == 1:
        return parts[0]
    if how == "or":
        return {
            "should": [other for part in parts for other in (part["should"] if set(part) == {"should"} else [part])]
        }
    must: list[Condition] = []
    must_not: list[Condition] = []
    for part in parts:
        if _is_filter(part) and "should" not in part:
            must += part.get("must", [])
            must_not += part.get("must_not", [])
        else:
            must.append(part)
    joined = {"must": must, "must_not": must_not}
    return {name: conditions for name, conditions in joined.items() if conditions}


def _depth(condition: Condition) -> int:
    if not _is_filter(condition):
        return 0
    return 1 + max(map(_depth, [part for parts in condition.values() for part in parts]))


def _not(condition: Condition) -> Condition:
    return {"must_not": [condition]}


def _leaf(leaf: AnyLeaf, negated: bool, key: str, kind: Any) -> tuple[Condition, bool] | None:
    missing: Condition = {"is_empty": {"key": key}}
    found: Condition
    match leaf:
        case Exists() | ContainsAll(values=()):
            return (missing if negated else _not(missing)), True
        case Eq(value=value):
            found = _equal(key, value, kind)
        case In(values=values) if kind is float:
            found = _join("or", [_equal(key, value, kind) for value in values])
        case In(values=values):
            found = {"key": key, "match": {"any": [scalar(value, kind) for value in values]}}
        case Compare(order=order, value=str(value)):
            return _string_range(key, missing, order, value, negated)
        case Compare(order=order, value=value) if kind is float:
            found = {"key": key, "range": {order: value}}
        case Compare(order=order, value=value):
            return _whole_range(key, missing, order, scalar(value, kind), negated)
        case StartsWith(prefix=prefix):
            found = {"key": key, "match": {"prefix": prefix}} if prefix else _not(missing)
        case ContainsAny(values=values):
            found = {"key": key, "match": {"any": [element(value, kind) for value in values]}}
        case ContainsAll(values=values):
            found = _join("and", [{"key": key, "match": {"value": element(value, kind)}} for value in values])
    return (_not(found) if negated else found), True


def _equal(key: str, value: Any, kind: Any) -> Condition:
    if kind is float:  # Qdrant's equality knows no floats
        return {"key": key, "range": {"gte": scalar(value, kind), "lte": scalar(value, kind)}}
    return {"key": key, "match": {"value": scalar(value, kind)}}


def _whole_range(key: str, missing: Condition, order: Order, value: int, negated: bool) -> tuple[Condition, bool]:
    """Integers and datetimes; a bound that float64 may not tell from its neighbours is widened, and the row looked at again."""
    if abs(value) < PRECISE:
        test: Condition = {"key": key, "range": {order: value}}
        return (_not(test) if negated else test), True
    sent = _OPPOSITE[order] if negated else order
    upward = sent in {"lt", "lte"}
    bound = math.nextafter(float(value), math.inf if upward else -math.inf)
    test = {"key": key, "range": {"lte" if upward else "gte": bound}}
    return (_join("or", [test, missing]) if negated else test), False


def _string_range(key: str, missing: Condition, order: Order, value: str, negated: bool) -> tuple[Condition, bool]:
    """Strings by their order keys: those of 5 bytes or less have a key of their own, those of 6 are the first with theirs."""
    length = len(value.encode())
    exact = length <= 6 if order in {"lt", "gte"} else length <= 5
    if exact:
        test: Condition = {"key": f"{key}p", "range": {order: order_key(value)}}
        return (_not(test) if negated else test), True
    sent = _OPPOSITE[order] if negated else order
    test = {"key": f"{key}p", "range": {"lte" if sent in {"lt", "lte"} else "gte": order_key(value)}}
    return (_join("or", [test, missing]) if negated else test), False
