"""A filter as an SQL condition on the typed columns of declared fields: fixed text, every value bound.

Each translation is exact, so nothing is re-checked; fields that were not declared are left to the core.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

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
    StartsWith,
    fold,
)
from vectorkit.types import CollectionSpec
from vectorkit_pgvector.convert import Wire, array, element_kind, scalar, text

_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


@dataclass(frozen=True, slots=True)
class Condition:
    """SQL with a `%s` for each of its values."""

    sql: str
    values: tuple[Wire, ...]


def plan(spec: CollectionSpec, where: Node) -> Plan:
    """What the store decides of a filter, and whether that is all of it."""
    columns = {name: f"f{at}" for at, name in enumerate(spec.fields)}

    def leaf(found: AnyLeaf, negated: bool) -> tuple[Condition, bool] | None:
        column = columns.get(found.field)
        if column is None:
            return None
        return condition(found, column, spec.fields[found.field], negated=negated), True

    def join(how: Literal["and", "or"], parts: list[Condition]) -> Condition:
        sql = f" {how.upper()} ".join(part.sql for part in parts)
        return Condition(f"({sql})", tuple(value for part in parts for value in part.values))

    folded = fold(where, leaf, join)
    return Plan(where, *folded)


def condition(leaf: AnyLeaf, column: str, kind: Any, *, negated: bool) -> Condition:
    """One leaf on the column of its field. A negation holds where the field is absent, hence IS NOT TRUE."""
    if isinstance(leaf, Exists):
        return Condition(f"{column} IS {'' if negated else 'NOT '}NULL", ())
    found = _positive(leaf, column, kind)
    return Condition(f"({found.sql}) IS NOT TRUE", found.values) if negated else found


def _positive(leaf: Eq | Compare | In | ContainsAll | ContainsAny | StartsWith, column: str, kind: Any) -> Condition:
    of: Callable[..., Condition] = lambda sql, *values: Condition(sql, values)  # noqa: E731
    match leaf:
        case Eq(value=value):
            return of(f"{column} = %s", scalar(value, kind))
        case Compare(order=order, value=value):
            return of(f"{column} {_SIGNS[order]} %s", scalar(value, kind))
        case In(values=values):
            return of(f"{column} = ANY(%s)", array(values, kind))
        case StartsWith(prefix=prefix):
            return of(f"{column} ^@ %s", text(prefix))
        case ContainsAll(values=values):
            return of(f"{column} @> %s", array(values, element_kind(kind)))
        case ContainsAny(values=values):
            return of(f"{column} && %s", array(values, element_kind(kind)))
