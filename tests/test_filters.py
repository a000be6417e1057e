"""What `Filter.matches()` means, by a truth table written by hand: every store is held to `matches()`, and this holds it.

No expected value here is computed by the code under test. Also the forms of a filter: dict, text, and their limits.
"""

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given

import vectorkit as vk
from vectorkit import F
from vectorkit.filters import EVERY_ROW, NO_ROW, And, Not, Or, as_node, fit, fold, leaves, push_not
from vectorkit.testing.effort import effort
from vectorkit.testing.values import FIELDS, OPERATORS, PAYLOADS, filters, leaf_table, table_rows

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(microseconds=1)
KATHMANDU = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))
MISSING = object()

STORED: dict[str, Any] = {
    "missing": MISSING, "null": None, "''": "", "a": "a", "A": "A", "ab": "ab", "'1'": "1", "'true'": "true", "é": "é", "e+´": "e\u0301",
    "ﾮ": "\uffee", "😀": "\U0001f600", "date-text": "2024-01-01T12:00:00.000000Z",
    "true": True, "false": False, "0": 0, "1": 1, "2": 2, "-3": -3, "2^53": 2**53, "2^53+1": 2**53 + 1, "max": 2**63 - 1, "min": -(2**63),
    "0.0": 0.0, "-0.0": -0.0, "1.0": 1.0, "2.5": 2.5, "f53": 2.0**53, "f63": 2.0**63, "1e300": 1e300,
    "noon": NOON, "later": LATER, "kathmandu": KATHMANDU,
    "[]": [], "[a]": ["a"], "[a,ab]": ["a", "ab"], "[1]": [1], "[1.0,2.5]": [1.0, 2.5], "[true]": [True], "['1']": ["1"], "[2^53+1]": [2**53 + 1],
    "[noon]": [NOON], "(a)": ("a",),
    "{}": {}, "{a}": {"a": 1}, "{x}": {"x": 1},
}  # fmt: skip
NUMBERS = "0 1 2 -3 2^53 2^53+1 max min 0.0 -0.0 1.0 2.5 f53 f63 1e300"
STRINGS = "'' a A ab '1' 'true' é e+´ ﾮ 😀 date-text"
LISTS = "[] [a] [a,ab] [1] [1.0,2.5] [true] ['1'] [2^53+1] [noon] (a)"

TRUTH: list[tuple[vk.Filter, str]] = [
    # equality: same kind, same value, exactly
    (F("x") == "a", "a"), (F("x") == "A", "A"), (F("x") == "", "''"), (F("x") == "1", "'1'"), (F("x") == "é", "é"), (F("x") == "e\u0301", "e+´"),
    (F("x") == 1, "1 1.0"), (F("x") == 1.0, "1 1.0"), (F("x") == True, "true"), (F("x") == False, "false"), (F("x") == 0, "0 0.0 -0.0"),  # noqa: E712
    (F("x") == -0.0, "0 0.0 -0.0"), (F("x") == 2, "2"), (F("x") == 2.5, "2.5"), (F("x") == 2**53, "2^53 f53"), (F("x") == 2.0**53, "2^53 f53"),
    (F("x") == 2**53 + 1, "2^53+1"), (F("x") == 2**63, "f63"), (F("x") == 2.0**63, "f63"), (F("x") == 2**63 - 1, "max"), (F("x") == -(2.0**63), "min"),
    (F("x") == 10**300, ""), (F("x") == int(1e300), "1e300"), (F("x") == 10**400, ""), (F("x") == "true", "'true'"),
    (F("x") == NOON, "noon kathmandu"), (F("x") == KATHMANDU, "noon kathmandu"), (F("x") == LATER, "later"), (F("x") == "2024-01-01T12:00:00.000000Z", "date-text"),
    # order: number with number, string with string by code points, instant with instant
    (F("x") > 1, "2 2^53 2^53+1 max 2.5 f53 f63 1e300"), (F("x") >= 1, "1 1.0 2 2^53 2^53+1 max 2.5 f53 f63 1e300"), (F("x") < 1, "0 0.0 -0.0 -3 min"),
    (F("x") <= 1, "0 0.0 -0.0 -3 min 1 1.0"), (F("x") > 2, "2.5 2^53 2^53+1 max f53 f63 1e300"), (F("x") < 2.5, "0 0.0 -0.0 1 1.0 2 -3 min"),
    (F("x") <= 2.5, "0 0.0 -0.0 1 1.0 2 -3 min 2.5"), (F("x") > 2**53, "2^53+1 max f63 1e300"), (F("x") >= 2.0**53 + 2, "max f63 1e300"),
    (F("x") < 2**53 + 1, "0 0.0 -0.0 1 1.0 2 2.5 -3 min 2^53 f53"), (F("x") < 2.0**63, "0 0.0 -0.0 1 1.0 2 2.5 -3 min 2^53 2^53+1 f53 max"),
    (F("x") >= 2**63, "f63 1e300"), (F("x") > 10**400, ""), (F("x") < 10**400, NUMBERS), (F("x") > -(10**400), NUMBERS), (F("x") >= -(2**63), NUMBERS),
    (F("x") > "a", "ab é e+´ ﾮ 😀 'true'"), (F("x") >= "a", "a ab é e+´ ﾮ 😀 'true'"), (F("x") < "a", "'' A '1' date-text"), (F("x") <= "a", "'' A '1' date-text a"),
    (F("x") > "\uffee", "😀"), (F("x") >= "", STRINGS), (F("x") > "", "a A ab '1' 'true' é e+´ ﾮ 😀 date-text"), (F("x") < "", ""), (F("x") < "2", "'' '1'"),
    (F("x") > NOON, "later"), (F("x") >= KATHMANDU, "noon kathmandu later"), (F("x") < LATER, "noon kathmandu"), (F("x") <= NOON, "noon kathmandu"),
    (F("x") < NOON, ""), (F("x") > "2023", "a ab é e+´ ﾮ 😀 'true' A date-text"),
    # membership
    (F("x").in_([]), ""), (F("x").in_(["a", 1, True]), "a 1 1.0 true"), (F("x").in_([1.0]), "1 1.0"), (F("x").in_({"1"}), "'1'"), (F("x").in_((NOON, 2.5)), "noon kathmandu 2.5"),
    (F("x").in_([False]), "false"), (F("x").in_([0]), "0 0.0 -0.0"), (F("x").in_([2**53 + 1]), "2^53+1"),
    # lists: elements by the same rules; a string is no list
    (F("x").contains("a"), "[a] [a,ab] (a)"), (F("x").contains("ab"), "[a,ab]"), (F("x").contains(1), "[1] [1.0,2.5]"), (F("x").contains(1.0), "[1] [1.0,2.5]"),
    (F("x").contains(True), "[true]"), (F("x").contains("1"), "['1']"), (F("x").contains(2**53), ""), (F("x").contains(2**53 + 1), "[2^53+1]"),
    (F("x").contains(KATHMANDU), "[noon]"), (F("x").contains(""), ""),
    (F("x").contains_any(["ab", 1]), "[a,ab] [1] [1.0,2.5]"), (F("x").contains_any([]), ""), (F("x").contains_any(["1", True]), "['1'] [true]"),
    (F("x").contains_all([]), LISTS), (F("x").contains_all(["a"]), "[a] [a,ab] (a)"), (F("x").contains_all(["ab", "a"]), "[a,ab]"), (F("x").contains_all([1, 2.5]), "[1.0,2.5]"),
    (F("x").contains_all(["a", "a"]), "[a] [a,ab] (a)"), (F("x").contains_all(["a", 1]), ""),
    # prefixes: strings only, code point by code point
    (F("x").startswith("a"), "a ab"), (F("x").startswith(""), STRINGS), (F("x").startswith("A"), "A"), (F("x").startswith("e"), "e+´"), (F("x").startswith("é"), "é"),
    (F("x").startswith("1"), "'1'"), (F("x").startswith("2024"), "date-text"), (F("x").startswith("\U0001f600"), "😀"),
    # presence
    (F("x").exists(), " ".join(name for name in STORED if name not in {"missing", "null"})),
    (F("y").exists(), ""), (F("y") == 1, ""), (F("y").contains_all([]), ""), (F("y").startswith(""), ""),
    # constants
    (And(), " ".join(STORED)), (Or(), ""),
]  # fmt: skip


def _matching(where: vk.Filter) -> set[str]:
    return {name for name, value in STORED.items() if where.matches({} if value is MISSING else {"x": value, "z": 1})}


@pytest.mark.parametrize(("where", "names"), TRUTH, ids=[repr(where)[:60] for where, _ in TRUTH])
def test_truth(where: vk.Filter, names: str) -> None:
    expected = set(names.split())
    assert expected <= STORED.keys()
    assert _matching(where) == expected
    assert _matching(~where) == STORED.keys() - expected
    assert _matching(~~where) == expected
    assert _matching(where & where) == expected
    assert _matching(where | where) == expected
    assert _matching(where & ~where) == set()
    assert _matching(where | ~where) == STORED.keys()
    assert _matching(vk.Filter.from_json(where.to_json())) == expected


def test_complements() -> None:
    everything = set(STORED)
    assert _matching(F("x") != 1) == everything - {"1", "1.0"}
    assert _matching(F("x") != "a") == everything - {"a"}
    assert _matching(F("x").not_in([])) == everything
    assert _matching(F("x").not_in(["a", True])) == everything - {"a", "true"}
    assert _matching(F("x").missing()) == {"missing", "null"}
    assert _matching(F("y") != 1) == everything
    assert _matching(~(F("x") > 1) & F("x").exists() & ~(F("x") <= 1)) == everything - {
        "missing",
        "null",
        *NUMBERS.split(),
    }


def test_joins() -> None:
    both = F("x").in_(["a", "A", 1]) & F("x").in_(["A", 1, 2])
    assert _matching(both) == {"A", "1", "1.0"}
    assert _matching(both | (F("x") == 2)) == {"A", "1", "1.0", "2"}
    assert _matching(~both & F("x").in_(["a", "A"])) == {"a"}
    assert _matching((F("z") == 1) & (F("x") == "a")) == {"a"}


def test_the_table_covers_every_operator() -> None:
    seen = {leaf.operator for where, _ in TRUTH for leaf, _ in leaves(push_not(as_node(where)))}
    assert seen == {
        "$eq",
        "$gt",
        "$gte",
        "$lt",
        "$lte",
        "$in",
        "$contains_any",
        "$contains_all",
        "$startswith",
        "$exists",
    }


# --------------------------------------------------------------------------------------------- forms


@effort(100)
@given(filters())
def test_json_form_round_trips(where: vk.Filter) -> None:
    document = where.to_json()
    assert vk.Filter.from_json(document) == where
    assert vk.Filter.from_json(json.loads(json.dumps(document))) == where
    assert vk.Filter.from_json(document).to_json() == document


@effort(100)
@given(filters())
def test_text_form_round_trips(where: vk.Filter) -> None:
    text = repr(where).removeprefix("Filter(").removesuffix(")")
    assert vk.Filter.parse(text) == where
    assert vk.Filter.parse(json.dumps(where.to_json())) == where


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_leaf_round_trips(operator: str) -> None:
    for where in leaf_table(operator):
        assert vk.Filter.from_json(where.to_json()) == where
        assert vk.Filter.parse(repr(where)[7:-1]) == where


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_names_and_values_round_trip(payload: str) -> None:
    for where in (
        F(payload) == payload,
        ~F(payload).startswith(payload),
        F(payload).in_([payload, 1]),
        F(payload).contains(payload),
    ):
        assert vk.Filter.from_json(where.to_json()) == where
        assert vk.Filter.parse(repr(where)[7:-1]) == where


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('year >= 2024 and tags contains "x"', (F("year") >= 2024) & F("tags").contains("x")),
        ("a = 1 or b == 2 and not c", None),
        ("a == 1 or b == 2 and c != 'x'", (F("a") == 1) | ((F("b") == 2) & (F("c") != "x"))),
        ("not (a exists or b missing)", ~(F("a").exists() | F("b").missing())),
        ('lang in ["en", "de"] and lang not in ("fr")', F("lang").in_(["en", "de"]) & F("lang").not_in(["fr"])),
        ('a.b-c startswith "x"', F("a.b-c").startswith("x")),
        ("`and` == true", F("and") == True),  # noqa: E712
        ('t < date "2024-01-01T12:00:00Z"', F("t") < NOON),
        ('t < date "2024-01-01T17:45:00+05:45"', F("t") < NOON),
        ("x == -2.5e-3", F("x") == -0.0025),
        ("tags contains_any [1, 2] | tags contains_all []", F("tags").contains_any([1, 2]) | F("tags").contains_all([])),
        ("~a exists & b exists", ~F("a").exists() & F("b").exists()),
        ('s == "quote \\" and \\\\ and \\u00e9"', F("s") == 'quote " and \\ and é'),
        ("s == 'single \\' and \"'", F("s") == "single ' and \""),
        ('{"a": {"$gt": 1}}', F("a") > 1),
        ("true", And()),
        ("false", Or()),
        ("", None), ("a", None), ("a ==", None), ("== 1", None), ("a == 1 b == 2", None), ("a == b", None), ("(a == 1", None), ("a == 1)", None),
        ("a in 1", None), ("a in [1", None), ("a contains", None), ("a == 'x", None), ("a like 'x'", None), ("a == None", None), ("a == null", None),
        ("a > true", None), ("a == 1e999", None), ("a == date 'x'", None), ('a == date "2024-01-01T00:00:00"', None), ("a not contains 1", None),
        ("_vk_a == 1", None), ("`` == 1", None), ("a == 1 and", None), ("and a == 1", None), ("a == 1;", None), ('{"a"', None), ('a == "\\x"', None),
    ],
)  # fmt: skip
def test_text_form(text: str, where: vk.Filter | None) -> None:
    if where is None:
        with pytest.raises(vk.InvalidFilter):
            vk.Filter.parse(text)
    else:
        assert vk.Filter.parse(text) == where


@pytest.mark.parametrize("value", [None, 5, b"a == 1", ["a"]])
def test_text_form_is_a_string(value: Any) -> None:
    with pytest.raises(vk.InvalidFilter):
        vk.Filter.parse(value)


# --------------------------------------------------------------------------------------------- limits and refusals


def _deep(levels: int) -> vk.Filter:
    where: vk.Filter = F("x") == 1
    for level in range(levels - 1):
        where = (where & (F("y") == 1)) if level % 2 else (where | (F("y") == 1))
    return where


def test_depth() -> None:
    assert _deep(32).depth == 32
    with pytest.raises(vk.InvalidFilter, match="32"):
        _deep(33)
    with pytest.raises(vk.InvalidFilter):
        vk.Filter.parse("(" * 5_000 + "a == 1" + ")" * 5_000)
    document: dict[str, Any] = {"a": 1}
    for _ in range(5_000):
        document = {"$not": {"$and": [document]}}
    with pytest.raises(vk.InvalidFilter, match="32"):
        vk.Filter.from_json(document)
    negated: vk.Filter = F("x") == 1
    for _ in range(1_000):
        negated = ~negated
    assert negated == (F("x") == 1)
    assert vk.Filter.parse("not " * 1_000 + "x == 1") == (F("x") == 1)


def test_terms() -> None:
    assert F("x").in_(range_list(10_000)).terms == 10_000
    with pytest.raises(vk.InvalidFilter, match="terms"):
        F("x").in_(range_list(10_001))
    with pytest.raises(vk.InvalidFilter, match="terms"):
        _ = F("x").in_(range_list(9_999)) & (F("x") == 1) & (F("x") == 2)
    assert (F("x").in_([1, 2, 3]) & (F("y") == 1) & F("z").contains_all(["a", "b"]) & F("x").in_([])).terms == 7


@pytest.mark.parametrize("count", [200, 2_000])
def test_chains_are_flat(count: int) -> None:
    any_of: vk.Filter = F("x") == 0
    all_of: vk.Filter = F("x") != 0
    for n in range(1, count):
        any_of |= F("x") == n
        all_of &= F("x") != n
    assert (any_of.depth, all_of.depth) == (2, 2)
    assert any_of.matches({"x": count - 1})
    assert not all_of.matches({"x": count - 1})
    assert vk.Filter.from_json(any_of.to_json()) == any_of
    assert vk.Filter.parse(repr(all_of)[7:-1]) == all_of


@pytest.mark.parametrize("operand", [math.nan, math.inf, -math.inf, None, b"x", NOON.replace(tzinfo=None), "\ud800", "a\0", object(), 1j, [1], {"a": 1}, (1,), NOON.date()])  # fmt: skip
def test_operands_that_mean_nothing(operand: Any) -> None:
    tests: dict[str, Callable[[], Any]] = {
        "$eq": lambda: F("x") == operand,
        "$gt": lambda: F("x") > operand,
        "$in": lambda: F("x").in_([operand]),
        "$contains": lambda: F("x").contains(operand),
        "$contains_any": lambda: F("x").contains_any([operand]),
        "$contains_all": lambda: F("x").contains_all([operand]),
        "$startswith": lambda: F("x").startswith(operand),
    }
    for operator, make in tests.items():
        with pytest.raises(vk.InvalidFilter) as caught:
            make()
        assert (caught.value.field, caught.value.operator) == ("x", operator)
        assert "'x'" in str(caught.value)


def test_shapes_that_mean_nothing() -> None:
    for make in (
        lambda: F("x") > True,
        lambda: F("x") <= False,
        lambda: F("x").startswith(1),  # type: ignore[arg-type]
        lambda: F("x").in_("abc"),
        lambda: F("x").in_(1),  # type: ignore[arg-type]
        lambda: F("x").not_in(None),  # type: ignore[arg-type]
        lambda: F("x").contains_any("a"),
        lambda: F("x").contains_all(iter(["a"])),
        lambda: F("x").contains(["a"]),  # type: ignore[arg-type]
        lambda: F(""),
        lambda: F("_vk_id"),
        lambda: F("a\0"),
        lambda: F("\udfff"),
        lambda: F(1),  # type: ignore[arg-type]
        lambda: bool(F("x") == 1),
        lambda: bool(F("x")),
        lambda: (F("x") == 1) and (F("y") == 1),
        lambda: not F("x").exists(),
        lambda: 1 if F("x") > 1 else 2,
        lambda: And([1]),  # type: ignore[list-item]
        lambda: Not(F("x")),  # type: ignore[arg-type]
    ):
        with pytest.raises(vk.InvalidFilter):
            make()
    for join in (lambda: (F("x") == 1) & 1, lambda: (F("x") == 1) | None, lambda: (F("x") == 1) & {"x": 1}):  # type: ignore[operator]
        with pytest.raises(TypeError):
            join()


def test_filters_are_values() -> None:
    where = F("x") == 1
    assert where == (F("x") == 1.0)
    assert where != (F("x") == True)  # noqa: E712
    assert where != (F("x") == "1")
    assert where != (F("y") == 1)
    assert len({where, F("x") == 1, F("x") == True, ~where, where & where}) == 4  # noqa: E712
    assert F("x").in_({3, 1, 2}) == F("x").in_([1, 2, 3])
    assert F("x").in_([1, 2]) != F("x").contains_any([1, 2])
    with pytest.raises(AttributeError):
        where.field = "y"  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        hash(F("x"))


# --------------------------------------------------------------------------------------------- what stores are given


@effort(100)
@given(filters())
def test_push_not_and_fit_keep_the_meaning(where: vk.Filter) -> None:
    pushed = push_not(as_node(where))
    fitted = fit(pushed, FIELDS)
    for record in table_rows():
        expected = where.matches(record.metadata)
        assert pushed.matches(record.metadata) == expected
        assert fitted.matches(record.metadata) == expected, record.metadata
    assert "Not" not in {type(child).__name__ for child, _ in leaves(pushed)}


@pytest.mark.parametrize("operator", OPERATORS)
def test_fit_keeps_the_meaning_of_every_leaf(operator: str) -> None:
    rows = table_rows()
    for where in leaf_table(operator):
        fitted = fit(push_not(as_node(where)), FIELDS)
        for record in rows:
            assert fitted.matches(record.metadata) == where.matches(record.metadata), (where, fitted, record.metadata)


@effort(100)
@given(filters())
def test_fold_gives_exact_or_superset(where: vk.Filter) -> None:
    pushed = push_not(as_node(where))

    def leaf(node: Any, negated: bool) -> tuple[vk.Filter, bool] | None:
        match node.operator:
            case "$eq" | "$in" | "$exists":
                return (Not(node) if negated else node), True
            case "$gt" | "$gte" | "$contains_all" if not negated:
                return F(node.field).exists(), False
            case _:
                return None

    def join(kind: str, parts: Sequence[vk.Filter]) -> vk.Filter:
        return And(parts) if kind == "and" else Or(parts)

    folded = fold(pushed, leaf, join)
    native, exact = folded
    for record in table_rows():
        meant = where.matches(record.metadata)
        kept = True if native is None else native.matches(record.metadata)
        assert kept == meant if exact else kept >= meant


def test_constants() -> None:
    assert EVERY_ROW.matches({})
    assert not NO_ROW.matches({})
    assert vk.Filter.from_json({}) == EVERY_ROW
    assert vk.Filter.from_json({"$or": []}) == NO_ROW


def range_list(count: int) -> list[int]:
    return list(range(count))
