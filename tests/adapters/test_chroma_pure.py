"""Chroma's names, keys, vectors and filters without Chroma: what docs/layout.md, section 4, says, and filters against `matches()`.

Filters are evaluated by a small model of Chroma's `where`, as measured: rows without a key satisfy $ne, $nin and $not_contains.
"""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectorkit as vk
from vectorkit import F
from vectorkit import keys as typed
from vectorkit.adapter import Target
from vectorkit.codec import NEVER
from vectorkit.filters import EVERY_ROW, NO_ROW, as_node, fit, leaves, push_not
from vectorkit.layout import h26
from vectorkit.testing.values import FIELDS, OPERATORS, STRINGS, filters, leaf_table, table_rows
from vectorkit_chroma import ChromaOptions, convert
from vectorkit_chroma.filters import MAX_CLAUSES, alive, plan

SPEC = vk.CollectionSpec("docs", 2, fields=FIELDS, metric="l2")
TABLE = table_rows()


def stored(spec: vk.CollectionSpec, *records: vk.Record) -> list[dict[str, Any]]:
    """What Chroma then holds: None removes a key."""
    _, rows = convert.to_chroma(spec, vk.Batch.of(records), 1)
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


ROWS = list(zip([record.metadata for record in TABLE], stored(SPEC, *TABLE), strict=True))


# --------------------------------------------------------------------------------------------- a model of where


def holds(where: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether Chroma returns this row; what it refuses to be asked fails here too."""
    ((key, test),) = where.items()
    if key in {"$and", "$or"}:
        assert len(test) >= 2, "Chroma refuses $and and $or of fewer than two"
        return (all if key == "$and" else any)([holds(part, row) for part in test])
    ((operator, operand),) = test.items()
    value = row.get(key)
    match operator:
        case "$eq":
            return value is not None and type(value) is type(operand) and bool(value == operand)
        case "$ne":
            return not holds({key: {"$eq": operand}}, row)
        case "$in":
            assert operand, "Chroma refuses an empty list"
            assert len({type(item) for item in operand}) == 1, "and one of several types"
            return any(holds({key: {"$eq": item}}, row) for item in operand)
        case "$nin":
            return not holds({key: {"$in": operand}}, row)
        case "$contains":
            return isinstance(value, list) and operand in value
        case "$not_contains":
            return not holds({key: {"$contains": operand}}, row)
        case "$gt" | "$gte" | "$lt" | "$lte":
            assert type(operand) in {int, float}, "Chroma compares numbers only"
            if type(value) not in {int, float}:
                return False
            return bool(
                {"$gt": value > operand, "$gte": value >= operand, "$lt": value < operand}.get(
                    operator, value <= operand
                )
            )
        case _:
            raise AssertionError(f"Chroma has no {operator}")


def check(where: vk.Filter, spec: vk.CollectionSpec = SPEC, rows: list[Any] | None = None) -> bool | None:
    """Hold the translation to the meaning; whether it is exact, None where the core needs no request."""
    fitted = fit(push_not(as_node(where)), spec.fields)
    if fitted in {EVERY_ROW, NO_ROW}:
        return None
    made = plan(spec, fitted)
    if made.native is None:
        assert not made.exact
        return False
    json.dumps(made.native, allow_nan=False)
    for metadata, row in ROWS if rows is None else rows:
        given, wanted = holds(made.native, row), where.matches(metadata)
        assert given == wanted if made.exact else given or not wanted, (where, made.native, metadata)
    return made.exact


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_on_every_value(operator: str) -> None:
    answers = [check(sign) for where in leaf_table(operator) for sign in (where, ~where)]
    assert answers.count(True) > 0


@settings(max_examples=300, deadline=None)
@given(filters())
def test_generated_filters(where: vk.Filter) -> None:
    check(where)


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=9), st.lists(st.text(max_size=9), max_size=12), st.sampled_from(["lt", "le", "gt", "ge", "starts"])
)
def test_strings_by_their_order_keys(operand: str, values: list[str], how: str) -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"s": str}, metric="l2")
    texts = [text for text in [*values, operand, operand + "a", operand[:-1], *STRINGS] if _storable(text)]
    if not _storable(operand):
        return
    records = [vk.Record(str(n), [0, 1], None, {"s": text}) for n, text in enumerate(texts)]
    rows = list(zip([record.metadata for record in records], stored(spec, *records), strict=True))
    field = F("s")
    where = field.startswith(operand) if how == "starts" else getattr(field, f"__{how}__")(operand)
    length = len(operand.encode())
    assert check(where, spec, rows) is (length <= (6 if how in {"lt", "ge", "starts"} else 5))
    negated = check(~where, spec, rows)
    if how == "starts":
        assert negated is (length <= 6)


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def test_where_is_what_the_layout_says() -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"n": int, "tags": list[str], "s": str, "t": datetime})
    cases: list[tuple[vk.Filter, Any]] = [
        (F("n") == 2024, {"_vk_f0": {"$eq": 2024}}),
        (F("n") != 2024, {"_vk_f0": {"$ne": 2024}}),
        (F("n").missing(), {"_vk_m0": {"$eq": 1}}),
        (F("n").exists(), {"_vk_m0": {"$ne": 1}}),
        (~(F("n") > 5), {"$or": [{"_vk_f0": {"$lte": 5}}, {"_vk_m0": {"$eq": 1}}]}),
        (F("n").in_([1, 2]), {"_vk_f0": {"$in": [1, 2]}}),
        (F("n").not_in([1, 2]), {"_vk_f0": {"$nin": [1, 2]}}),
        (F("tags").contains("x"), {"_vk_f1": {"$contains": "=x"}}),
        (~F("tags").contains("x"), {"_vk_f1": {"$not_contains": "=x"}}),
        (F("tags").contains_any(["x", "y"]), {"$or": [{"_vk_f1": {"$contains": "=x"}}, {"_vk_f1": {"$contains": "=y"}}]}),
        (F("tags").contains_all(["x", "y"]), {"$and": [{"_vk_f1": {"$contains": "=x"}}, {"_vk_f1": {"$contains": "=y"}}]}),
        (F("s") >= "abcdefgh", {"_vk_f2p": {"$gte": 0x616263646566}}),
        (F("t") == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), {"_vk_f3": {"$eq": 1_000_000}}),
        ((F("n") == 1) & (F("free") == 1), {"_vk_f0": {"$eq": 1}}),
        ((F("n") == 1) | (F("free") == 1), None),
        (F("free") == 1, None),
    ]  # fmt: skip
    for where, native in cases:
        assert plan(spec, fit(push_not(as_node(where)), spec.fields)).native == native, where
    assert alive(None, 5) == {"_vk_expires": {"$gt": 5}}
    assert alive({"_vk_f0": {"$eq": 1}}, 5) == {"$and": [{"_vk_f0": {"$eq": 1}}, {"_vk_expires": {"$gt": 5}}]}
    assert alive({"_vk_f0": {"$eq": 1}}, None) == {"_vk_f0": {"$eq": 1}}


def test_more_clauses_than_sqlite_takes_are_not_sent() -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"n": int, "tags": list[str]})
    for count, sent in ((MAX_CLAUSES, True), (MAX_CLAUSES + 1, False)):
        where: vk.Filter = F("n") == 0
        for n in range(1, count):
            where |= F("n") == n
        made = plan(spec, fit(push_not(as_node(where)), spec.fields))
        assert len(leaves(made.where)) == count
        assert (made.native is not None, made.exact) == (sent, sent)
        tags = plan(spec, as_node(F("tags").contains_any([str(n) for n in range(count)])))
        assert (tags.native is not None) is sent
    assert plan(spec, as_node(F("n").in_(list(range(10_000))))).exact


# --------------------------------------------------------------------------------------------- names and rows


def test_names() -> None:
    assert convert.native_name("articles@1") == "articles-g1"
    assert convert.native_name("a-g2@31") == "a-g2-g31"
    assert convert.native_name("a..b@7") == f"vk-{h26('a..b@7')}-h"
    names = ["a", "a-g1", "vk-control", "vk-", "a..b", "a..b-g1", "A", "x" * 100]
    natives = [convert.native_name(f"{name}@{g}") for name in names for g in (1, 11, 2**31 - 1)]
    assert len(set(natives)) == len(natives)
    assert convert.CONTROL not in natives


def test_a_row_is_stored_as_the_layout_says() -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"year": int, "tags": list[str], "s": str})
    batch = vk.Batch.of([vk.Record("a", [3, 4], "", {"year": 2024, "tags": []}), vk.Record("b", [1e20, 0])])
    vectors, rows = convert.to_chroma(spec, batch, 1_793_404_800_000_000)
    assert rows[0] == {
        "_vk_meta": '{"year":2024,"tags":[]}', "_vk_text": "", "_vk_expires": NEVER, "_vk_seq": 1_793_404_800_000_000,
        "_vk_norm": None, "_vk_f0": 2024, "_vk_m0": None, "_vk_f1": ["-"], "_vk_m1": None, "_vk_f2": None, "_vk_f2p": None, "_vk_m2": 1,
    }  # fmt: skip
    assert (rows[1]["_vk_meta"], rows[1]["_vk_text"], rows[1]["_vk_m0"], rows[1]["_vk_seq"]) == (
        None,
        None,
        1,
        1_793_404_800_000_001,
    )
    assert vectors.tolist() == [[3, 4], [1, 0]]
    assert rows[1]["_vk_norm"] == pytest.approx(1e20)
    assert convert.vector_of(rows[1], vectors[1]).tolist() == [float(np.float32(1e20)), 0]
    flat = convert.to_chroma(vk.CollectionSpec("docs", 2, metric="l2"), batch, 1)
    assert "_vk_norm" not in flat[1][1]
    assert flat[0].tolist() == batch.vectors.tolist()


def test_elements_and_order_keys() -> None:
    at = datetime(1970, 1, 1, 0, 0, 0, 7, tzinfo=UTC)
    values: list[tuple[Any, Any, str]] = [
        ("x", list[str], "=x"),
        ("", list[str], "="),
        (5, list[int], "=5"),
        (True, list[bool], "=1"),
        (-0.0, list[float], "=0.0"),
        (2, list[float], "=2.0"),
        (at, list[datetime], "=7"),
    ]
    assert [typed.element(value, kind) for value, kind, _ in values] == [text for _, _, text in values]
    assert typed.order_key("") == 0
    assert typed.order_key("a") == 0x610000000000
    assert typed.order_key("abcdefgh") == typed.order_key("abcdef") == 0x616263646566
    assert typed.order_key("\U0010ffff" * 3) < 2**48
    floats = vk.CollectionSpec("docs", 2, fields={"lf": list[float], "f": float})
    keys = convert.field_keys(floats, {"lf": [1, 1.0, 2], "f": -0.0})
    assert keys["_vk_f0"] == ["=1.0", "=2.0"]
    assert math.copysign(1, keys["_vk_f1"]) == 1


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TABLE), st.sampled_from([None, "", "text"]), st.integers(-(10**15), 10**15) | st.none())
def test_a_row_comes_back_as_it_was_written(record: vk.Record, text: str | None, micros: int | None) -> None:
    spec = vk.CollectionSpec("docs", 2, fields=FIELDS, expiry=True)
    expires = None if micros is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    written = vk.Record(record.id, record.vector, text, record.metadata, expires)
    vectors, rows = convert.to_chroma(spec, vk.Batch.of([written]), 1)
    kept = {key: value for key, value in rows[0].items() if value is not None}
    assert convert.record_of(record.id, kept, vectors[0]) == written
    bare = convert.record_of("x", None, None)
    assert (bare.vector, bare.text, bare.metadata, bare.expires_at) == (None, None, {}, None)


def test_scores() -> None:
    assert convert.score("cosine", 0.25) == 0.75
    assert convert.score("dot", -2.0) == 3.0
    assert convert.score("l2", 25.0) == -5.0
    assert convert.score("l2", -1e-9) == 0.0
    assert not math.isfinite(convert.score("l2", math.inf))
    assert not math.isfinite(convert.score("dot", None))
    asked = convert.to_query(vk.CollectionSpec("docs", 2), np.array([[1e30, 1e30]], np.float32))
    assert asked[0] == pytest.approx([math.sqrt(0.5)] * 2)
    assert [list(part) for part in convert.chunks(list("abcde"), 2)] == [["a", "b"], ["c", "d"], ["e"]]


# --------------------------------------------------------------------------------------------- options


def test_options_are_checked_and_keep_secrets() -> None:
    options = ChromaOptions(token="hunter2", headers={"X-Proxy": "hunter3"})
    assert "hunter" not in repr(options)
    assert "hunter" not in repr(Target(scheme="chroma", host="h", secret="hunter4", options=options))
    wrong: list[dict[str, Any]] = [
        {"tenant": "a"}, {"tenant": "../x"}, {"database": ""}, {"database": 5}, {"token": 5}, {"token_header": "cookie"}, {"headers": "a"},
        {"headers": {"a": 1}}, {"ssl_verify": 1}, {"ssl_ca": True}, {"timeout": 0}, {"timeout": True}, {"timeout": math.nan}, {"sidecar": 1},
        {"lock_timeout": 6}, {"lock_timeout": True}, {"ef_search": 0}, {"ef_search": True}, {"exact_limit": 0},
    ]  # fmt: skip
    for arguments in wrong:
        with pytest.raises(vk.InvalidArgument, match=next(iter(arguments))):
            ChromaOptions(**arguments)
