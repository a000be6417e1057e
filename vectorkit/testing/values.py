"""The values that stores are known to confuse, and filters over them: for tables, and as hypothesis strategies.

Every kind is here with its edges: ints beyond a double, `1`, `1.0`, `True` and `"1"`, instants a microsecond apart.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import Any

from hypothesis import strategies as st

import vectorkit as vk
from vectorkit import F

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
KATHMANDU = timezone(timedelta(hours=5, minutes=45))

STRINGS = [
    "", "a", "A", "ab", "b", "1", "2", "2.5", "true", "None", "2024-01-01T12:00:00Z", " a", "a ", "a%b", "a_b", "a*b",
    "a\\b", "'", '"', "é", "e\u0301", "ﷺ", "\uffee", "\U0001f600", "\U0001f600x", "日本", "日本語", "שלום", "a\nb", "$a", "\x7f",
]  # fmt: skip
BOOLS = [True, False]
INTS = [
    0,
    1,
    2,
    3,
    -1,
    -3,
    2**31,
    2**53 - 1,
    2**53,
    2**53 + 1,
    -(2**53) - 1,
    2**63 - 1,
    2**63 - 2,
    -(2**63),
    -(2**63) + 1,
]
FLOATS = [
    0.0, -0.0, 1.0, 2.0, 2.5, -2.5, 0.1, 0.1 + 0.2, 0.3, 1e16, 1e300, -1e300, 5e-324, 2.0**53, 2.0**63, -(2.0**63), 2.0**1023,
]  # fmt: skip
DATETIMES = [
    NOON, NOON + timedelta(microseconds=1), NOON.astimezone(KATHMANDU) - timedelta(microseconds=1), datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
]  # fmt: skip
LISTS: list[list[Any]] = [
    [], ["a"], ["a", "b"], ["b", "a", "a"], ["A"], ["1"], [""], ["é"], ["a,b"], ['a"b'], [1], [1.0, 2], [2.5, 1], [3, 4, 5],
    [True], [False, True], [2**53 + 1], [2.0**53], [-(2**63), 2**63 - 1], [NOON], [NOON + timedelta(microseconds=1)],
]  # fmt: skip
MAPPINGS: list[dict[str, Any]] = [{}, {"a": 1}, {"a": None}, {"b": {"a": [1, None]}}]
VALUES: list[Any] = [*STRINGS, *BOOLS, *INTS, *FLOATS, *DATETIMES, *LISTS, *MAPPINGS]

FIELDS: dict[str, Any] = {
    "s": str, "b": bool, "i": int, "f": float, "t": datetime,
    "ls": list[str], "lb": list[bool], "li": list[int], "lf": list[float], "lt": list[datetime], "never": int,
}  # fmt: skip
"""The declared fields of the filter table. `u` holds every value undeclared; `absent` and `never` stand in no row."""

_DECLARED = {str: "s", bool: "b", int: "i", float: "f", datetime: "t"}


def _declared(value: Any) -> str | None:
    if isinstance(value, list):
        inner = {_DECLARED[type(item)] for item in value}
        return None if len(inner) != 1 else "l" + inner.pop()
    return _DECLARED.get(type(value))


def table_rows() -> list[vk.Record]:
    """A row a value: undeclared in `u`, and in the declared field of its type; one row with neither."""
    found = [vk.Record("none", [1.0, 0.0], "word none")]
    for n, value in enumerate(VALUES):
        metadata = {"u": value}
        if name := _declared(value):
            metadata[name] = value
        found.append(vk.Record(f"v{n:03d}", [1.0, float(n)], f"word w{n}", metadata))
    found.append(vk.Record("empty", [1.0, -1.0], "word", {name: [] for name in ("ls", "lb", "li", "lf", "lt")}))
    found.append(vk.Record("ints", [1.0, -2.0], "word", {"f": 1, "lf": [1, 2.5], "u": [1, 2.5]}))
    return found


GRID_TESTS: list[vk.Filter] = [
    F("n") >= 1, F("n") == 1, F("n").missing(), F("s") == "x", F("s").in_(["y", "z"]), F("tags").contains("p"), F("tags").contains_all(["q"]),
    F("u") == 1, F("u").exists(),
]  # fmt: skip
"""Tests of declared fields and of one that is not, each true of some rows of the grid and false of others."""


def grid_rows() -> Iterator[vk.Record]:
    """A row for every combination of a few values of `n`, `s`, `tags` and the undeclared `u`, each also absent."""
    axes: dict[str, list[Any]] = {
        "n": [0, 1, 2, None],
        "s": ["x", "y", None],
        "tags": [[], ["p"], ["p", "q"], None],
        "u": [1, None],
    }
    for at, values in enumerate(product(*axes.values())):
        metadata = {name: value for name, value in zip(axes, values, strict=True) if value is not None}
        yield vk.Record(f"g{at:03d}", [1.0, float(at)], None, metadata)


NUMBERS: list[Any] = [
    0, 1, 2, -1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**400,
    1.0, -0.0, 2.5, 2.0**53, 2.0**63, 0.3, 5e-324, 1e300, -1e300, 2**1023,
]  # fmt: skip
OPERANDS: list[Any] = [
    "", "a", "A", "1", "b", "a%b", "é", "e\u0301", "\uffee", "\U0001f600", "2024-01-01T12:00:00Z", True, False, *NUMBERS, NOON,
    DATETIMES[1], NOON.astimezone(KATHMANDU), DATETIMES[5], DATETIMES[6],
]  # fmt: skip
PREFIXES = ["", "a", "A", "1", "é", "e", "a%", "a_", "a*", "a\\", "日", "\U0001f600", "'", "2024", "aa", "$"]
SETS: list[list[Any]] = [
    [], ["a"], ["a", "b"], ["A", "zzz"], [1], [1.0], [True], ["1", 1, True], [2.5, 2], [2**53 + 1], [2.0**53, 2**63], [NOON, "a"], [False, 0],
    ["é", ""], [10**30], [-(2**63), 2**63 - 1], [1, 2], [DATETIMES[1], DATETIMES[5]],
]  # fmt: skip
ALL_FIELDS = ["u", "absent", *FIELDS]


def leaf_table(operator: str) -> Iterator[vk.Filter]:
    """Every filter of one operator over the table's fields and operands."""
    for name in ALL_FIELDS:
        field = F(name)
        if operator in {"exists", "missing"}:
            yield getattr(field, operator)()
        elif operator == "startswith":
            yield from map(field.startswith, PREFIXES)
        elif operator in {"in_", "not_in", "contains_any", "contains_all"}:
            yield from map(getattr(field, operator), SETS)
        elif operator == "contains":
            yield from map(field.contains, OPERANDS)
        else:
            for operand in OPERANDS:
                if operator in {"__eq__", "__ne__"} or not isinstance(operand, bool):
                    yield getattr(field, operator)(operand)


OPERATORS = [
    "__eq__", "__ne__", "__gt__", "__ge__", "__lt__", "__le__", "in_", "not_in", "contains", "contains_any", "contains_all", "startswith",
    "exists", "missing",
]  # fmt: skip


def _leaf(name: str) -> st.SearchStrategy[vk.Filter]:
    field = F(name)
    ordered = [operand for operand in OPERANDS if not isinstance(operand, bool)]
    scalars = st.sampled_from(OPERANDS)
    several = st.lists(scalars, max_size=4)
    return st.one_of(
        scalars.map(field.__eq__),
        scalars.map(field.__ne__),
        *(st.sampled_from(ordered).map(getattr(field, name)) for name in ("__gt__", "__ge__", "__lt__", "__le__")),
        several.map(field.in_),
        several.map(field.not_in),
        scalars.map(field.contains),
        several.map(field.contains_any),
        several.map(field.contains_all),
        st.sampled_from(PREFIXES).map(field.startswith),
        st.just(field.exists()),
        st.just(field.missing()),
    )


def filters(max_leaves: int = 10) -> st.SearchStrategy[vk.Filter]:
    """Nested filters over the table's fields: leaves joined by `&`, `|` and `~`."""
    return st.recursive(
        st.sampled_from(ALL_FIELDS).flatmap(_leaf),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
            st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
            inner.map(lambda child: ~child),
        ),
        max_leaves=max_leaves,
    )


PAYLOADS = [
    "'", '"', "''", "\\", "%", "_", "`", ";", "--", "/* */", "') OR 1=1 --", "'; DROP TABLE rows; --", '"; DELETE FROM rows; --',
    "x' UNION SELECT * FROM sqlite_master --", "${HOME}", "{{7*7}}", "$where", "$ne", "a.b", "a[0]", "a b", " lead", "trail ", "\t\n", "NULL",
    "null", "None", "true", "NEAR(", "NEAR(a b, 2)", "a*", "^a", "AND", "OR NOT", "a AND OR NOT b", '"unbalanced', "c++", "foo-bar", "a:b",
    "text:", "-text", "+a", "(a", "a)", "{a b}:c", "rowid", "*", "^", ":", "日本語", "日本", "한국어", "😀", "👩‍👩‍👧", "שלום", "مرحبا", "e\u0301", "é",
    "ﬁ", "İstanbul", "ß", "\u202eabc", "\ufeffx", "\u200b", "\x01\x1f", "\u2028", "a\r\nb", "../../etc/passwd", "C:\\x", "x" * 512, "é" * 256,
    "😀" * 128,
]  # fmt: skip
"""Strings that some store or parser has read as something else than themselves. None is longer than an id may be."""
