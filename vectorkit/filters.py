"""What a filter is and what it means: the nodes, `matches()` which defines every store's answer, the JSON and text forms.

Pure: nothing here knows a store. `!=`, `not_in` and `missing` are `Not` of their positive test, so they are its exact
complement by construction.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar

from vectorkit.codec import Metadata, bad_text, format_datetime, kind_of, to_micros
from vectorkit.errors import InvalidFilter
from vectorkit.types import Scalar

MAX_DEPTH = 32
MAX_TERMS = 10_000
Order: TypeAlias = Literal["gt", "gte", "lt", "lte"]

_ABSENT = object()


class Filter:
    """A condition on metadata. Build with `F`, combine with `&`, `|`, `~`; `matches()` says what it means."""

    __slots__ = ("depth", "terms")
    depth: int
    terms: int

    def matches(self, metadata: Metadata) -> bool:
        """Whether a row with this metadata is meant. This is the definition every store is held to."""
        raise TypeError("use one of the filter nodes")

    def key(self) -> tuple[Any, ...]:
        """A typed identity: `F("x") == 1` and `F("x") == True` differ although 1 == True."""
        raise TypeError("use one of the filter nodes")

    def __and__(self, other: "Filter") -> "Filter":
        return And((self, other)) if isinstance(other, Filter) else NotImplemented

    def __or__(self, other: "Filter") -> "Filter":
        return Or((self, other)) if isinstance(other, Filter) else NotImplemented

    def __invert__(self) -> "Filter":
        return self.child if isinstance(self, Not) else Not(self)

    def __bool__(self) -> NoReturn:
        raise InvalidFilter("a filter is neither true nor false; combine filters with & | ~, not with and, or, not")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.terms == other.terms and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def __repr__(self) -> str:
        return f"Filter({to_text(as_node(self))})"

    def to_json(self) -> dict[str, Any]:
        """The dict form; `Filter.from_json` reads it back to an equal filter. Datetimes are `{"$date": …}`."""
        return _to_json(as_node(self))

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "Filter":
        """A filter from its dict form. Raises InvalidFilter naming field and operator."""
        return _from_json(document, 0)

    @staticmethod
    def parse(text: str) -> "Filter":
        """A filter from its text form, as in `year >= 2024 and tags contains "x"`. Raises InvalidFilter."""
        from vectorkit.filtertext import parse

        return parse(text)


def _init(node: Filter, depth: int, terms: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"the filter is nested deeper than {MAX_DEPTH}")
    if terms > MAX_TERMS:
        raise InvalidFilter(f"the filter has more than {MAX_TERMS} terms")
    object.__setattr__(node, "depth", depth)
    object.__setattr__(node, "terms", terms)


class _Node(Filter):
    """Immutability and identity for the nodes below."""

    __slots__ = ()

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"filters are immutable; cannot set {name}")

    def key(self) -> tuple[Any, ...]:
        slots: tuple[str, ...] = type(self).__slots__
        names = [name for name in slots if not name.startswith("_")]
        return (type(self).__name__, *(_freeze(getattr(self, name)) for name in names))


def _freeze(value: Any) -> Any:
    if isinstance(value, Filter):
        return value.key()
    if isinstance(value, tuple):
        return tuple(_freeze(item) for item in value)
    return (kind_of(value), value)


class And(_Node):
    """Every child holds; no children holds for every row."""

    __slots__ = ("children",)
    children: "tuple[Node, ...]"

    def __init__(self, children: Iterable[Filter] = ()) -> None:
        flat = _flatten(And, children)
        self._set(children=flat)
        _init(self, 1 + max((c.depth for c in flat), default=0), sum(c.terms for c in flat))

    def matches(self, metadata: Metadata) -> bool:
        return all(child.matches(metadata) for child in self.children)


class Or(_Node):
    """Some child holds; no children holds for no row."""

    __slots__ = ("children",)
    children: "tuple[Node, ...]"

    def __init__(self, children: Iterable[Filter] = ()) -> None:
        flat = _flatten(Or, children)
        self._set(children=flat)
        _init(self, 1 + max((c.depth for c in flat), default=0), sum(c.terms for c in flat))

    def matches(self, metadata: Metadata) -> bool:
        return any(child.matches(metadata) for child in self.children)


def _flatten(kind: type[And] | type[Or], children: Iterable[Filter]) -> "tuple[Node, ...]":
    out: list[Node] = []
    for child in children:
        node = as_node(child)
        if isinstance(node, kind):
            out.extend(node.children)
        else:
            out.append(node)
    return tuple(out)


class Not(_Node):
    """The exact complement of its child."""

    __slots__ = ("child",)
    child: "Node"

    def __init__(self, child: Filter) -> None:
        node = as_node(child)
        self._set(child=node)
        _init(self, node.depth + (0 if isinstance(node, Leaf) else 1), node.terms)

    def matches(self, metadata: Metadata) -> bool:
        return not self.child.matches(metadata)


class Leaf(_Node):
    """A positive test of one field; false where the field is missing."""

    __slots__ = ("field",)
    field: str
    operator: str

    def __init__(self, field: str, terms: int = 1) -> None:
        self._set(field=_check_field(field))
        _init(self, 1, terms)

    def key(self) -> tuple[Any, ...]:
        return (*super().key(), self.field)


class Eq(Leaf):
    """The field is a scalar equal to `value`, of the same kind; numbers compare by value."""

    __slots__ = ("value",)
    operator = "$eq"
    value: Scalar

    def __init__(self, field: str, value: Scalar) -> None:
        super().__init__(field)
        self._set(value=_scalar(value, field, self.operator))

    def matches(self, metadata: Metadata) -> bool:
        return _equal(metadata.get(self.field), self.value)


class Compare(Leaf):
    """The field is of the operand's kind (number, string, datetime) and stands in this order to it."""

    __slots__ = ("order", "value")
    order: Order
    value: int | float | str | datetime

    def __init__(self, field: str, order: Order, value: int | float | str | datetime) -> None:
        super().__init__(field)
        operator = f"${order}"
        checked = _scalar(value, field, operator)
        if isinstance(checked, bool):
            raise InvalidFilter(f"{field!r} {operator}: bools have no order", field=field, operator=operator)
        self._set(order=order, value=checked)

    @property
    def operator(self) -> str:  # type: ignore[override]
        return f"${self.order}"

    def matches(self, metadata: Metadata) -> bool:
        stored = metadata.get(self.field)
        if stored is None or isinstance(stored, bool) or kind_of(stored) != kind_of(self.value):
            return False
        match self.order:
            case "gt":
                return bool(stored > self.value)
            case "gte":
                return bool(stored >= self.value)
            case "lt":
                return bool(stored < self.value)
            case "lte":
                return bool(stored <= self.value)


class In(Leaf):
    """The field equals one of the values; no values holds for no row."""

    __slots__ = ("_members", "values")
    _members: frozenset[Any]
    operator = "$in"
    values: tuple[Scalar, ...]

    def __init__(self, field: str, values: Iterable[Scalar]) -> None:
        checked = _scalars(values, field, self.operator)
        super().__init__(field, max(1, len(checked)))
        self._set(values=checked, _members=_members(checked))

    def matches(self, metadata: Metadata) -> bool:
        stored = metadata.get(self.field)
        return not isinstance(stored, list | tuple | Mapping) and (kind_of(stored), stored) in self._members


class ContainsAll(Leaf):
    """The field is a list that holds every one of the values; no values holds for any list."""

    __slots__ = ("_members", "values")
    _members: frozenset[Any]
    operator = "$contains_all"
    values: tuple[Scalar, ...]

    def __init__(self, field: str, values: Iterable[Scalar]) -> None:
        checked = _scalars(values, field, self.operator)
        super().__init__(field, max(1, len(checked)))
        self._set(values=checked, _members=_members(checked))

    def matches(self, metadata: Metadata) -> bool:
        stored = metadata.get(self.field)
        return isinstance(stored, list | tuple) and self._members <= _members(stored)


class ContainsAny(Leaf):
    """The field is a list that holds one of the values; no values holds for no row."""

    __slots__ = ("_members", "values")
    _members: frozenset[Any]
    operator = "$contains_any"
    values: tuple[Scalar, ...]

    def __init__(self, field: str, values: Iterable[Scalar]) -> None:
        checked = _scalars(values, field, self.operator)
        super().__init__(field, max(1, len(checked)))
        self._set(values=checked, _members=_members(checked))

    def matches(self, metadata: Metadata) -> bool:
        stored = metadata.get(self.field)
        return isinstance(stored, list | tuple) and not self._members.isdisjoint(_members(stored))


class StartsWith(Leaf):
    """The field is a string that begins with the prefix, code point by code point."""

    __slots__ = ("prefix",)
    operator = "$startswith"
    prefix: str

    def __init__(self, field: str, prefix: str) -> None:
        super().__init__(field)
        if not isinstance(prefix, str):
            raise InvalidFilter(
                f"{field!r} $startswith takes a string, got {prefix!r}", field=field, operator="$startswith"
            )
        self._set(prefix=_scalar(prefix, field, self.operator))

    def matches(self, metadata: Metadata) -> bool:
        stored = metadata.get(self.field)
        return isinstance(stored, str) and stored.startswith(self.prefix)


class Exists(Leaf):
    """The field is there, whatever its kind."""

    __slots__ = ()
    operator = "$exists"

    def matches(self, metadata: Metadata) -> bool:
        return metadata.get(self.field) is not None


AnyLeaf: TypeAlias = Eq | Compare | In | ContainsAll | ContainsAny | StartsWith | Exists
Node: TypeAlias = And | Or | Not | AnyLeaf
EVERY_ROW: Node = And()
NO_ROW: Node = Or()


def as_node(value: Filter) -> Node:
    """The filter as one of the closed set of nodes, which a `match` can cover."""
    if isinstance(value, And | Or | Not | Eq | Compare | In | ContainsAll | ContainsAny | StartsWith | Exists):
        return value
    raise InvalidFilter(f"expected a filter, got {value!r}")


class F:
    """A metadata field in a filter: `F("year") >= 2024`, `F("tags").contains("x")`. The name is literal: a dot is a dot.

    Raises InvalidFilter for an empty or reserved name and for operands that no rule gives a meaning.
    """

    __slots__ = ("field",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, field: str) -> None:
        self.field = _check_field(field)

    def __eq__(self, value: object) -> Filter:  # type: ignore[override]
        return Eq(self.field, value)  # type: ignore[arg-type]

    def __ne__(self, value: object) -> Filter:  # type: ignore[override]
        return Not(Eq(self.field, value))  # type: ignore[arg-type]

    def __gt__(self, value: int | float | str | datetime) -> Filter:
        return Compare(self.field, "gt", value)

    def __ge__(self, value: int | float | str | datetime) -> Filter:
        return Compare(self.field, "gte", value)

    def __lt__(self, value: int | float | str | datetime) -> Filter:
        return Compare(self.field, "lt", value)

    def __le__(self, value: int | float | str | datetime) -> Filter:
        return Compare(self.field, "lte", value)

    def in_(self, values: Iterable[Scalar]) -> Filter:
        """Equals one of the values."""
        return In(self.field, values)

    def not_in(self, values: Iterable[Scalar]) -> Filter:
        """The complement of `in_`: also holds where the field is missing."""
        return Not(In(self.field, values))

    def contains(self, value: Scalar) -> Filter:
        """A list field that holds the value."""
        if isinstance(value, list | tuple | set | frozenset):  # type: ignore[unreachable]
            raise InvalidFilter(
                f"{self.field!r} contains takes one value; use contains_any or contains_all",
                field=self.field,
                operator="$contains",
            )
        return ContainsAny(self.field, (_scalar(value, self.field, "$contains"),))

    def contains_any(self, values: Iterable[Scalar]) -> Filter:
        """A list field that holds one of the values."""
        return ContainsAny(self.field, values)

    def contains_all(self, values: Iterable[Scalar]) -> Filter:
        """A list field that holds every one of the values."""
        return ContainsAll(self.field, values)

    def startswith(self, prefix: str) -> Filter:
        """A string field that begins with the prefix."""
        return StartsWith(self.field, prefix)

    def exists(self) -> Filter:
        """The field is there."""
        return Exists(self.field)

    def missing(self) -> Filter:
        """The field is not there."""
        return Not(Exists(self.field))

    def __bool__(self) -> NoReturn:
        raise InvalidFilter(f"F({self.field!r}) is a field, not a condition; compare it with something")

    def __repr__(self) -> str:
        return f"F({self.field!r})"


# --------------------------------------------------------------------------------------------- operands


def _check_field(field: Any) -> str:
    if not isinstance(field, str) or not field:
        raise InvalidFilter(f"a field is a non-empty string, got {field!r}")
    if problem := bad_text(field):
        raise InvalidFilter(f"the field {field!r} {problem}", field=field)
    if field.startswith("_vk_"):
        raise InvalidFilter(f"the field {field!r}: the prefix _vk_ is reserved", field=field)
    return field if type(field) is str else str.__str__(field)


def _scalar(value: Any, field: str, operator: str) -> Any:
    problem = None
    match value:
        case bool():
            return value
        case str():
            problem = bad_text(value)
            if problem is None:
                return value if type(value) is str else str.__str__(value)
        case int():
            return int(value)
        case float():
            if math.isfinite(value):
                return float(value)
            problem = "is not finite"
        case datetime():
            if value.tzinfo is not None and value.utcoffset() is not None:
                try:
                    return value.astimezone(UTC)
                except OverflowError:
                    problem = "has no UTC form"
            else:
                problem = "has no timezone"
        case _:
            problem = "is no bool, number, string or datetime"
    raise InvalidFilter(f"{field!r} {operator}: the operand {value!r} {problem}", field=field, operator=operator)


def _scalars(values: Any, field: str, operator: str) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple | set | frozenset):
        raise InvalidFilter(
            f"{field!r} {operator} takes a list, tuple or set, got {values!r}", field=field, operator=operator
        )
    if len(values) > MAX_TERMS:
        raise InvalidFilter(f"{field!r} {operator}: more than {MAX_TERMS} terms", field=field, operator=operator)
    checked = [_scalar(value, field, operator) for value in values]
    if isinstance(values, set | frozenset):
        checked.sort(key=lambda v: (kind_of(v), v))
    return tuple(checked)


def _equal(stored: Any, value: Scalar) -> bool:
    """Same kind and equal. Python compares an int with a float exactly, so 2^53+1 is not 2^53."""
    return stored is not None and kind_of(stored) == kind_of(value) and bool(stored == value)


def _members(values: Iterable[Any]) -> frozenset[Any]:
    """Scalars as a set in which kinds stay apart; numbers of either type that are equal hash alike."""
    return frozenset([(kind_of(value), value) for value in values])


def coerce(where: Filter | Mapping[str, Any] | None) -> Node | None:
    """What a caller gave as `where=`: None, a filter or its dict form. Raises InvalidFilter for anything else."""
    if where is None:
        return None
    if isinstance(where, Filter):
        return as_node(where)
    if isinstance(where, Mapping):
        return as_node(Filter.from_json(where))
    if isinstance(where, F):  # type: ignore[unreachable]
        raise InvalidFilter(f"{where!r} is a field, not a condition; compare it with something", field=where.field)
    raise InvalidFilter(f"where takes a Filter, a dict or None, got {type(where).__name__}")


# --------------------------------------------------------------------------------------------- JSON form


def _json_value(value: Scalar) -> Any:
    return {"$date": format_datetime(value)} if isinstance(value, datetime) else value


def _json_field(field: str) -> str:
    return "$" + field if field.startswith("$") else field


def _to_json(node: Node) -> dict[str, Any]:
    match node:
        case And(children=children):
            return {"$and": [_to_json(child) for child in children]}
        case Or(children=children):
            return {"$or": [_to_json(child) for child in children]}
        case Not(child=Eq(field=field, value=value)):
            return {_json_field(field): {"$ne": _json_value(value)}}
        case Not(child=In(field=field, values=values)):
            return {_json_field(field): {"$nin": [_json_value(v) for v in values]}}
        case Not(child=Exists(field=field)):
            return {_json_field(field): {"$exists": False}}
        case Not(child=child):
            return {"$not": _to_json(child)}
        case Eq(field=field, value=value) | Compare(field=field, value=value):
            return {_json_field(field): {node.operator: _json_value(value)}}
        case ContainsAny(field=field, values=(value,)):
            return {_json_field(field): {"$contains": _json_value(value)}}
        case (
            In(field=field, values=values)
            | ContainsAll(field=field, values=values)
            | ContainsAny(field=field, values=values)
        ):
            return {_json_field(field): {node.operator: [_json_value(v) for v in values]}}
        case StartsWith(field=field, prefix=prefix):
            return {_json_field(field): {"$startswith": prefix}}
        case Exists(field=field):
            return {_json_field(field): {"$exists": True}}


def _from_json(document: Any, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"the filter is nested deeper than {MAX_DEPTH}")
    if not isinstance(document, Mapping):
        raise InvalidFilter(f"a filter node is a dict, got {document!r}")
    parts: list[Node] = []
    for key, value in document.items():
        if not isinstance(key, str):
            raise InvalidFilter(f"a filter key is a string, got {key!r}")
        match key:
            case "$and" | "$or":
                if not isinstance(value, list | tuple):
                    raise InvalidFilter(f"{key} takes a list of nodes, got {value!r}", operator=key)
                children = [_from_json(child, depth + 1) for child in value]
                parts.append(And(children) if key == "$and" else Or(children))
            case "$not":
                parts.append(as_node(~_from_json(value, depth + 1)))
            case _ if key.startswith("$$"):
                parts.extend(_field_from_json(key[1:], value))
            case _ if key.startswith("$"):
                raise InvalidFilter(
                    f"unknown operator {key!r} (write a field that begins with $ with a second $)", operator=key
                )
            case _:
                parts.extend(_field_from_json(key, value))
    return parts[0] if len(parts) == 1 else And(parts)


def _date_value(value: Any, field: str, operator: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    text = value.get("$date")
    if len(value) != 1 or not isinstance(text, str):
        raise InvalidFilter(f"{field!r} {operator}: the operand {value!r} is no scalar", field=field, operator=operator)
    return parse_date(text, field, operator)


def parse_date(text: str, field: str, operator: str) -> datetime:
    """An RFC 3339 instant, or InvalidFilter."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidFilter(
            f"{field!r} {operator}: {text!r} is no RFC 3339 date", field=field, operator=operator
        ) from None


def _field_from_json(field: str, value: Any) -> list[Node]:
    if not isinstance(value, Mapping) or "$date" in value:
        return [Eq(field, _date_value(value, field, "$eq"))]
    if not value:
        raise InvalidFilter(f"{field!r} has no operator", field=field)
    return [_operator_from_json(field, operator, operand) for operator, operand in value.items()]


def _operator_from_json(field: str, operator: Any, operand: Any) -> Node:
    def one() -> Any:
        return _date_value(operand, field, operator)

    def many() -> Any:
        if not isinstance(operand, list | tuple | set | frozenset):
            raise InvalidFilter(f"{field!r} {operator} takes a list, got {operand!r}", field=field, operator=operator)
        if isinstance(operand, set | frozenset):
            return operand
        return [_date_value(item, field, operator) for item in operand]

    match operator:
        case "$eq":
            return Eq(field, one())
        case "$ne":
            return Not(Eq(field, one()))
        case "$gt" | "$gte" | "$lt" | "$lte":
            order: dict[str, Order] = {"$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
            return Compare(field, order[operator], one())
        case "$in":
            return In(field, many())
        case "$nin":
            return Not(In(field, many()))
        case "$contains":
            return ContainsAny(field, (_scalar(one(), field, "$contains"),))
        case "$contains_any":
            return ContainsAny(field, many())
        case "$contains_all":
            return ContainsAll(field, many())
        case "$startswith":
            return StartsWith(field, operand)
        case "$exists":
            if not isinstance(operand, bool):
                raise InvalidFilter(
                    f"{field!r} $exists takes true or false, got {operand!r}", field=field, operator=operator
                )
            return Exists(field) if operand else Not(Exists(field))
        case _:
            raise InvalidFilter(f"{field!r}: unknown operator {operator!r}", field=field, operator=str(operator))


# --------------------------------------------------------------------------------------------- text, for people

_WORDS = {"$eq": "==", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def text_field(field: str) -> str:
    """A field as the text form writes it: bare where it is a plain name, else in back quotes."""
    from vectorkit.filtertext import is_bare

    return field if is_bare(field) else "`" + field.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _text_value(value: Scalar) -> str:
    if isinstance(value, datetime):
        return f'date "{format_datetime(value)}"'
    return json.dumps(value, ensure_ascii=False)


def to_text(node: Node) -> str:
    """The text form; `Filter.parse` reads it back to an equal filter."""
    match node:
        case And(children=()):
            return "true"
        case Or(children=()):
            return "false"
        case And(children=children):
            return (
                " and ".join(_wrap(child) for child in children)
                if len(children) > 1
                else f"all({to_text(children[0])})"
            )
        case Or(children=children):
            return (
                " or ".join(_wrap(child) for child in children) if len(children) > 1 else f"any({to_text(children[0])})"
            )
        case Not(child=Eq(field=field, value=value)):
            return f"{text_field(field)} != {_text_value(value)}"
        case Not(child=In(field=field, values=values)):
            return f"{text_field(field)} not in [{', '.join(map(_text_value, values))}]"
        case Not(child=Exists(field=field)):
            return f"{text_field(field)} missing"
        case Not(child=child):
            return f"not ({to_text(child)})"
        case Eq(field=field, value=value) | Compare(field=field, value=value):
            return f"{text_field(field)} {_WORDS[node.operator]} {_text_value(value)}"
        case ContainsAny(field=field, values=(value,)):
            return f"{text_field(field)} contains {_text_value(value)}"
        case (
            In(field=field, values=values)
            | ContainsAll(field=field, values=values)
            | ContainsAny(field=field, values=values)
        ):
            return f"{text_field(field)} {node.operator[1:]} [{', '.join(map(_text_value, values))}]"
        case StartsWith(field=field, prefix=prefix):
            return f"{text_field(field)} startswith {_text_value(prefix)}"
        case Exists(field=field):
            return f"{text_field(field)} exists"


def _wrap(node: Node) -> str:
    return f"({to_text(node)})" if isinstance(node, And | Or) and node.children else to_text(node)


# --------------------------------------------------------------------------------------------- for stores


def push_not(node: Node) -> Node:
    """The same filter with `Not` only on leaves (De Morgan), which is what an adapter translates."""
    match node:
        case And(children=children):
            return And([push_not(child) for child in children])
        case Or(children=children):
            return Or([push_not(child) for child in children])
        case Not(child=And(children=children)):
            return Or([push_not(as_node(~child)) for child in children])
        case Not(child=Or(children=children)):
            return And([push_not(as_node(~child)) for child in children])
        case Not(child=Not(child=child)):
            return push_not(child)
        case _:
            return node


def fit(node: Node, fields: Mapping[str, Any]) -> Node:
    """The same filter with the operands of declared fields in the declared type, and what is decided by types decided.

    A declared type is enforced on write, so `F("year") == "x"` on an int field holds for no row, `F("year") > 2.5` is
    `>= 3`. Constants are folded: the result is EVERY_ROW, NO_ROW, or holds no constants. Takes and gives `Not` on leaves only.
    """
    match node:
        case And(children=children):
            kept = [fitted for child in children if (fitted := fit(child, fields)) != EVERY_ROW]
            if any(child == NO_ROW for child in kept):
                return NO_ROW
            return kept[0] if len(kept) == 1 else And(kept)
        case Or(children=children):
            kept = [fitted for child in children if (fitted := fit(child, fields)) != NO_ROW]
            if any(child == EVERY_ROW for child in kept):
                return EVERY_ROW
            return kept[0] if len(kept) == 1 else Or(kept)
        case Not(child=child) if isinstance(child, Leaf):
            return push_not(as_node(~_fit_leaf(child, fields.get(child.field))))
        case Not():
            return fit(push_not(node), fields)
        case _:
            return _fit_leaf(node, fields.get(node.field))


def _fit_leaf(leaf: AnyLeaf, kind: Any) -> Node:
    match leaf:
        case In(values=()) | ContainsAny(values=()):
            return NO_ROW
        case _ if kind is None:
            return leaf
        case Exists():
            return leaf
        case Eq(field=field, value=value):
            fitted = _fit_value(value, kind)
            return NO_ROW if fitted is _ABSENT else Eq(field, fitted)
        case In(field=field, values=values):
            kept = [fitted for v in values if (fitted := _fit_value(v, kind)) is not _ABSENT]
            return In(field, kept) if kept else NO_ROW
        case Compare(field=field, order=order, value=value):
            return _fit_order(field, order, value, kind)
        case StartsWith():
            return leaf if kind is str else NO_ROW
        case ContainsAny(field=field, values=values):
            if getattr(kind, "__origin__", None) is not list:
                return NO_ROW
            kept = [fitted for v in values if (fitted := _fit_value(v, kind.__args__[0])) is not _ABSENT]
            return ContainsAny(field, kept) if kept else NO_ROW
        case ContainsAll(field=field, values=values):
            if getattr(kind, "__origin__", None) is not list:
                return NO_ROW
            all_fitted = [_fit_value(v, kind.__args__[0]) for v in values]
            return NO_ROW if any(v is _ABSENT for v in all_fitted) else ContainsAll(field, all_fitted)


def _fit_value(value: Any, kind: Any) -> Any:
    """The operand in the declared scalar type, or _ABSENT where no stored value can equal it."""
    if getattr(kind, "__origin__", None) is list or kind_of(value) != _KIND_OF_TYPE[kind]:
        return _ABSENT
    if kind is int:
        if isinstance(value, float):
            if not value.is_integer():
                return _ABSENT
            value = int(value)
        return value if -(2**63) <= value < 2**63 else _ABSENT
    if kind is float:
        try:
            near = float(value)
        except OverflowError:
            return _ABSENT
        return near if near == value else _ABSENT
    return value


_KIND_OF_TYPE: dict[Any, str] = {str: "string", bool: "bool", int: "number", float: "number", datetime: "datetime"}


def _fit_order(field: str, order: Order, value: Any, kind: Any) -> Node:
    if getattr(kind, "__origin__", None) is list or kind is bool or kind_of(value) != _KIND_OF_TYPE[kind]:
        return NO_ROW
    if kind is int:
        below = order in {"lt", "lte"}
        if isinstance(value, float) and not value.is_integer():
            value = math.floor(value) if below else math.ceil(value)
            order = "lte" if below else "gte"
        value = int(value)
        if value >= 2**63:
            return Exists(field) if below else NO_ROW
        if value < -(2**63):
            return NO_ROW if below else Exists(field)
    elif kind is float and isinstance(value, int):
        try:
            near = float(value)
        except OverflowError:
            return Exists(field) if (value > 0) == (order in {"lt", "lte"}) else NO_ROW
        if near > value:  # the operand lies between two floats: no stored float equals it
            order = "lt" if order in {"lt", "lte"} else "gte"
        elif near < value:
            order = "lte" if order in {"lt", "lte"} else "gt"
        value = near
    return Compare(field, order, value)


T = TypeVar("T")


def fold(
    node: Node,
    leaf: Callable[[AnyLeaf, bool], tuple[T, bool] | None],
    join: Callable[[Literal["and", "or"], list[T]], T],
) -> tuple[T | None, bool]:
    """Build a store's own filter: (native or None for every row, whether it is exact).

    `leaf(leaf, negated)` gives (native, exact) or None where the store cannot narrow by it. A conjunction drops what
    cannot be translated; a disjunction with such a part cannot narrow at all. Both then are supersets.
    """

    def walk(node: Node) -> tuple[T | None, bool]:
        match node:
            case And(children=children) | Or(children=children):
                done = [walk(child) for child in children]
                parts = [native for native, _ in done if native is not None]
                exact = all(ok for _, ok in done)
                if isinstance(node, Or) and len(parts) < len(done):
                    return None, False
                if not parts:
                    return None, exact and isinstance(node, And)
                how: Literal["and", "or"] = "and" if isinstance(node, And) else "or"
                return (parts[0] if len(parts) == 1 else join(how, parts)), exact
            case Not(child=child) if isinstance(child, Leaf):
                translated = leaf(child, True)
            case Not():
                return walk(push_not(node))
            case _:
                translated = leaf(node, False)
        return (None, False) if translated is None else translated

    return walk(node)


def leaves(node: Node) -> list[tuple[AnyLeaf, bool]]:
    """The leaves of a filter with `Not` on leaves only, each with whether it is negated."""
    match node:
        case And(children=children) | Or(children=children):
            return [found for child in children for found in leaves(child)]
        case Not(child=child) if isinstance(child, Leaf):
            return [(child, True)]
        case Not():
            return leaves(push_not(node))
        case _:
            return [(node, False)]


def operand_key(value: Scalar) -> Any:
    """A declared operand as a column holds it: a datetime as microseconds, anything else as it is."""
    return to_micros(value) if isinstance(value, datetime) else value
