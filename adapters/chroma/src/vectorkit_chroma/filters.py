"""Filters as Chroma's `where`, on the typed keys of declared fields: pure, and tested without a store.

Chroma has no test for existence, no null, no `$not` and no order on strings (https://docs.trychroma.com/docs/querying-collections/metadata-filtering);
rows without a key satisfy its `$ne`, `$nin` and `$not_contains`, which is what a negation means here.
"""

from collections.abc import Sequence
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
from vectorkit.keys import element, order_key
from vectorkit.types import CollectionSpec
from vectorkit_chroma.convert import scalar

Where: TypeAlias = dict[str, Any]
MAX_CLAUSES = 256
"""Clauses that are sent; SQLite refuses an expression of 1,000, and 10,000 end Chroma's process with a stack overflow."""

_OPPOSITE: dict[Order, Order] = {"lt": "gte", "lte": "gt", "gt": "lte", "gte": "lt"}
_TOP = 2**48 - 1


def plan(spec: CollectionSpec, where: Node) -> Plan:
    """The filter and what Chroma makes of it."""
    position = {name: n for n, name in enumerate(spec.fields)}

    def leaf(found: AnyLeaf, negated: bool) -> tuple[Where, bool] | None:
        n = position.get(found.field)
        return None if n is None else _leaf(found, negated, n, spec.fields[found.field])

    folded = fold(where, leaf, _join)
    native, exact = folded
    if native is not None and _clauses(native) > MAX_CLAUSES:
        return Plan(where)
    return Plan(where, native, exact)


def alive(where: Where | None, now: int | None) -> Where | None:
    """A clause, or None, and that the row has not expired."""
    if now is None:
        return where
    unexpired = {"_vk_expires": {"$gt": now}}
    return unexpired if where is None else _join("and", [where, unexpired])


def _join(how: Literal["and", "or"], parts: list[Where]) -> Where:
    """Clauses joined flat; one alone is itself, since Chroma refuses `$and` and `$or` of one."""
    operator = f"${how}"
    flat: list[Where] = []
    for part in parts:
        flat += part.get(operator, [part])
    return flat[0] if len(flat) == 1 else {operator: flat}


def _clauses(where: Where) -> int:
    joined = where.get("$and") or where.get("$or")
    return 1 if joined is None else sum(map(_clauses, joined))


def _leaf(leaf: AnyLeaf, negated: bool, n: int, kind: Any) -> tuple[Where, bool] | None:
    key, missing, exists = f"_vk_f{n}", {f"_vk_m{n}": {"$eq": 1}}, {f"_vk_m{n}": {"$ne": 1}}
    match leaf:
        case Exists():
            return (missing if negated else exists), True
        case Eq(value=value):
            return {key: {"$ne" if negated else "$eq": scalar(value, kind)}}, True
        case In(values=values):
            return {key: {"$nin" if negated else "$in": [scalar(value, kind) for value in values]}}, True
        case Compare(order=order, value=str(value)):
            return _string_range(key, missing, _OPPOSITE[order] if negated else order, value, negated)
        case Compare(order=order, value=value):
            test = {key: {f"${_OPPOSITE[order] if negated else order}": scalar(value, kind)}}
            return (_join("or", [test, missing]) if negated else test), True
        case StartsWith(prefix=prefix):
            return _prefix(key, missing, prefix, negated)
        case ContainsAny(values=values):
            return _contains(key, values, kind, "and" if negated else "or", negated), True
        case ContainsAll(values=()):
            return (missing if negated else exists), True
        case ContainsAll(values=values):
            return _contains(key, values, kind, "or" if negated else "and", negated), True


def _contains(key: str, values: Sequence[Any], kind: Any, how: Literal["and", "or"], negated: bool) -> Where:
    operator = "$not_contains" if negated else "$contains"
    return _join(how, [{key: {operator: element(value, kind)}} for value in values])


def _string_range(key: str, missing: Where, order: Order, value: str, negated: bool) -> tuple[Where, bool]:
    """Strings by their order keys. Those of 5 bytes or less have a key of their own, those of 6 are the first with theirs."""
    length = len(value.encode())
    match order:
        case "lt" | "gte":
            exact = length <= 6
        case "lte" | "gt":
            exact = length <= 5
    sent: Order = order
    if not exact:
        sent = "lte" if order in {"lt", "lte"} else "gte"
    test = {f"{key}p": {f"${sent}": order_key(value)}}
    return (_join("or", [test, missing]) if negated else test), exact


def _prefix(key: str, missing: Where, prefix: str, negated: bool) -> tuple[Where, bool] | None:
    raw = prefix.encode()
    low = order_key(prefix)
    high = int.from_bytes(raw[:6].ljust(6, b"\xff"), "big") if raw else _TOP
    if not negated:
        return {"$and": [{f"{key}p": {"$gte": low}}, {f"{key}p": {"$lte": high}}]}, len(raw) <= 6
    if len(raw) > 6:
        return None
    return {"$or": [{f"{key}p": {"$lt": low}}, {f"{key}p": {"$gt": high}}, missing]}, True
