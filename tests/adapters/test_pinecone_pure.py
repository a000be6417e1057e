"""Pinecone's keys, vectors, filters and sources without Pinecone: what docs/layout.md, section 7, says, and filters against `matches()`.

Filters are evaluated as the documentation has them, once for each reading of what it leaves open: whether `$ne` and `$nin` hold for
a row without the key, and whether they ask of every element of a list or of any.
"""

import json
import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectorkit as vk
from vectorkit import F
from vectorkit.codec import NEVER, to_micros
from vectorkit.filters import EVERY_ROW, NO_ROW, as_node, fit, push_not
from vectorkit.testing.values import FIELDS, OPERATORS, STRINGS, filters, leaf_table, table_rows
from vectorkit_pinecone import PineconeOptions, convert
from vectorkit_pinecone.adopt import Source
from vectorkit_pinecone.filters import DEEPEST, EVERY, alive, among, both, plan

SPEC = vk.CollectionSpec("docs", 2, fields=FIELDS, metric="l2")
TABLE = table_rows()


def stored(spec: vk.CollectionSpec, *records: vk.Record) -> list[dict[str, Any]]:
    """The fields of some rows as they are held there: every number a float64."""
    found = convert.rows(spec, vk.Batch.of(records), 1)
    return [
        {name: float(value) if type(value) is int else value for name, value in row.fields.items()} for row in found
    ]


ROWS = list(zip([record.metadata for record in TABLE], stored(SPEC, *TABLE), strict=True))
READINGS = [(missing, any_element) for missing in (False, True) for any_element in (False, True)]


def holds(where: dict[str, Any], fields: dict[str, Any], missing: bool, any_element: bool) -> bool:
    """Whether Pinecone keeps this row, under one reading of what is open."""
    ((key, test),) = where.items()
    if key in ("$and", "$or"):
        assert test, "an empty list is refused"
        return (all if key == "$and" else any)(holds(part, fields, missing, any_element) for part in test)
    ((operator, operand),) = test.items()
    if operator == "$exists":
        return (key in fields) is operand
    if key not in fields:
        return missing and operator in ("$ne", "$nin")
    held = fields[key] if isinstance(fields[key], list) else [fields[key]]
    match operator:
        case "$eq" | "$in":
            return any(same(one, value) for one in held for value in (operand if operator == "$in" else [operand]))
        case "$ne" | "$nin":
            values = operand if operator == "$nin" else [operand]
            differing = [not any(same(one, value) for value in values) for one in held]
            return any(differing) if any_element else all(differing)
    assert isinstance(operand, int | float), "ranges take numbers"
    return any(isinstance(one, float) and compared(operator, one, float(operand)) for one in held)


def same(held: Any, operand: Any) -> bool:
    assert type(operand) in {int, float, str}
    return isinstance(held, str) == isinstance(operand, str) and (
        held == operand if isinstance(held, str) else float(held) == float(operand)
    )


def compared(how: str, value: float, bound: float) -> bool:
    return {"$gt": value > bound, "$gte": value >= bound, "$lt": value < bound, "$lte": value <= bound}[how]


def check(where: vk.Filter, spec: vk.CollectionSpec = SPEC, rows: list[Any] | None = None) -> bool | None:
    """Hold the translation to the meaning under every reading; whether it is exact, None where the core needs no request."""
    fitted = fit(push_not(as_node(where)), spec.fields)
    if fitted in {EVERY_ROW, NO_ROW}:
        return None
    made = plan(spec, fitted)
    if made.native is None:
        assert not made.exact
        return False
    sent = json.loads(json.dumps(made.native, allow_nan=False))
    for metadata, fields in ROWS if rows is None else rows:
        wanted = where.matches(metadata)
        for reading in READINGS:
            kept = holds(sent, fields, *reading)
            assert kept == wanted if made.exact else kept or not wanted, (where, made.native, metadata, reading)
    return made.exact


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_on_every_value(operator: str) -> None:
    answers = [check(sign) for where in leaf_table(operator) for sign in (where, ~where)]
    assert answers.count(True) > 0


@settings(max_examples=100, deadline=None)
@given(filters())
def test_generated_filters(where: vk.Filter) -> None:
    check(where)


@settings(max_examples=100, deadline=None)
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
    check(~where, spec, rows)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1]),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8),
    st.sampled_from(["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"]),
)
def test_integers_beyond_what_float64_holds(operand: int, values: list[int], how: str) -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"i": int}, metric="l2")
    near = [n for n in (operand - 1, operand, operand + 1) if -(2**63) <= n < 2**63]
    records = [vk.Record(str(n), [0, 1], None, {"i": value}) for n, value in enumerate([*values, *near])]
    rows = list(zip([record.metadata for record in records], stored(spec, *records), strict=True))
    where = getattr(F("i"), how)(operand)
    assert check(where, spec, rows) in {abs(operand) < 2**53, None}
    check(~where, spec, rows)


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def test_filters_are_what_the_layout_says() -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"n": int, "tags": list[str], "s": str})
    missing = {"vk_f0": {"$exists": False}}
    cases: list[tuple[vk.Filter, Any, bool]] = [
        (F("n") == 2024, {"vk_f0": {"$eq": 2024}}, True),
        (F("n") != 2024, {"$or": [missing, {"vk_f0": {"$ne": 2024}}]}, True),
        (F("n").in_([1, 2]), {"vk_f0": {"$in": [1, 2]}}, True),
        (F("n").missing(), missing, True),
        (~(F("n") > 3), {"$or": [missing, {"vk_f0": {"$lte": 3}}]}, True),
        (F("n") == 2**53, {"vk_f0": {"$eq": 2.0**53}}, False),
        (F("tags").contains("a"), {"vk_f1": {"$in": ["=a"]}}, True),
        (~F("tags").contains("a"), {"$or": [{"vk_f1": {"$exists": False}}, {"vk_f1": {"$nin": ["=a"]}}]}, False),
        (F("tags").contains_all(["a", "b"]), {"$and": [{"vk_f1": {"$in": ["=a"]}}, {"vk_f1": {"$in": ["=b"]}}]}, True),
        (F("s") >= "b", {"vk_f2p": {"$gte": 0x620000000000}}, True),
    ]
    for where, native, exact in cases:
        made = plan(spec, fit(push_not(as_node(where)), spec.fields))
        assert (made.native, made.exact) == (native, exact), where
    assert plan(spec, as_node(F("free") == 1)).native is None
    assert both(None, None) is None
    assert both({"a": {"$eq": 1}}, alive(7)) == {"$and": [{"a": {"$eq": 1}}, {"vk_expires": {"$gt": 7}}]}
    assert alive(None) is None
    assert among(["x"]) == {"vk_id": {"$in": ["x"]}}
    assert EVERY == {"vk_seq": {"$gte": 0}}


def test_deep_filters_are_not_sent() -> None:
    where: vk.Filter = F("i") == 0
    for n in range(1, DEEPEST):
        where = (where | (F("i") == n)) if n % 2 else (where & (F("i") >= -n))
    check(where)


# --------------------------------------------------------------------------------------------- names and rows


def test_ids_and_index_names() -> None:
    assert convert.row_key("r1") == "ar1"
    assert convert.row_key("~" * 511) == "a" + "~" * 511
    hashed = {convert.row_key(one) for one in ("~" * 512, "a b", "é", "e\u0301", "日本", "a\n", "\x7f", " ")}
    assert len(hashed) == 8
    assert all(len(key) == 27 and key.startswith("h") and key.isascii() for key in hashed)
    assert convert.index_name("kb", "articles@1") == "kb-2efw2dvn5nqh7ptvpwvucmzsse"
    assert len(convert.index_name("k" * 18, "articles@1")) == 45


def test_a_row_is_what_the_layout_says() -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"year": int, "tags": list[str], "s": str, "b": bool, "t": datetime})
    at = datetime(2024, 5, 1, tzinfo=UTC)
    record = vk.Record("a", [0.6, 0.8], "Some Words, é", {"year": 2024, "tags": [], "s": "b", "b": True, "t": at})
    (row,) = convert.rows(spec, vk.Batch.of([record]), 1793404800000000)
    assert row.key == "aa"
    assert row.vector == b"[0.6,0.8]"
    meta = row.fields.pop("vk_meta")
    assert json.loads(meta)["t"] == {"$date": "2024-05-01T12:00:00.000000Z".replace("12:", "00:")}
    assert row.fields == {
        "vk_id": "a",
        "vk_seq": 1793404800000000,
        "vk_expires": float(NEVER),
        "vk_text": "Some Words, é",
        "vk_words": "some words e",
        "vk_f0": 2024,
        "vk_f1": ["-"],
        "vk_f2": "b",
        "vk_f2p": 0x620000000000,
        "vk_f3": 1,
        "vk_f4": to_micros(at),
    }
    fields = orjson.dumps({**row.fields, "vk_meta": meta})
    sent = orjson.dumps({"_id": row.key, "vk_vector": orjson.Fragment(row.vector), **row.fields, "vk_meta": meta})
    assert row.size == len(fields) + len(row.vector) + len(row.key) + convert.FRAME >= len(sent)


def test_words_that_the_analyzer_might_change_are_hashed() -> None:
    assert convert.term("word") == "word"
    assert convert.term("w" * 40) == "w" * 40
    for word in ("w" * 41, "日本語", "é", "ß", "İ"):
        assert convert.term(word).startswith("vk")
        assert len(convert.term(word)) == 28
        assert convert.term(word) == convert.term(word)
    assert convert.clauses("A a Ä B") == ["a b"]
    many = convert.clauses(" ".join(f"word{n}" for n in range(5_000)))
    assert all(len(text) <= convert.MOST_QUERY for text in many)
    assert " ".join(many).split() == [f"word{n}" for n in range(5_000)]


def back(spec: vk.CollectionSpec, record: vk.Record) -> vk.Record:
    """A row as it comes back: through JSON, every number a float64, every vector float32."""
    (row,) = convert.rows(spec, vk.Batch.of([record]), 1)
    fields = {
        name: float(value) if type(value) is int else value
        for name, value in json.loads(orjson.dumps(row.fields)).items()
    }
    vector = np.array(json.loads(row.vector), np.float32)
    assert np.abs(vector).max() >= 1e-8
    return convert.record_of(convert.Row(row.key, fields, vector), vectors=True)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.9e-8, 1.0, 1e16, 3e38])
def test_vectors_come_back_at_every_size(metric: Any, scale: float) -> None:
    spec = vk.CollectionSpec("docs", 3, metric=metric)
    if metric == "l2" and scale > 1e18:
        with pytest.raises(vk.InvalidRecord, match="norm") as caught:
            convert.rows(spec, vk.Batch.of([vk.Record("fine", [1, 0, 0]), vk.Record("a", [scale, 0, 0])]), 1)
        assert caught.value.row == 1
        return
    written = (np.array([0.1, -1.0, 0.3]) * scale).astype(np.float32)
    read: Any = back(spec, vk.Record("a", written)).vector
    np.testing.assert_allclose(read, written, rtol=1e-6)


def test_a_zero_vector_comes_back() -> None:
    spec = vk.CollectionSpec("docs", 3, metric="dot")
    read: Any = back(spec, vk.Record("a", [0, 0, 0])).vector
    np.testing.assert_array_equal(read, [0, 0, 0])


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_queries_are_never_zero_for_pinecone(metric: Any) -> None:
    given_ = np.array([[0, 0], [1e-20, 0], [3, 4]] if metric != "cosine" else [[1e-20, 0], [3, 4]], np.float32)
    sent = convert.queries(metric, given_)
    assert np.abs(sent).max(axis=1).min() >= 1e-8
    wanted = {"l2": [3.0, 4.0], "cosine": [0.6, 0.8], "dot": [6e-4, 8e-4]}
    np.testing.assert_allclose(sent[-1], wanted[metric], rtol=1e-6)
    if metric == "l2":
        with pytest.raises(vk.Unsupported, match="1e\\+18"):
            convert.queries(metric, np.array([[1e19, 0]], np.float32))


def test_expiry_beyond_float64() -> None:
    spec = vk.CollectionSpec("docs", 2, expiry=True)
    for at in (
        datetime(2024, 2, 29, 12, 0, 0, 654321, tzinfo=UTC),
        datetime(2300, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC) + timedelta(microseconds=1),
        None,
    ):
        assert back(spec, vk.Record("a", [1, 0], None, {}, at)).expires_at == at


def test_texts_none_empty_and_blank() -> None:
    spec = vk.CollectionSpec("docs", 2)
    for text in (None, "", " \n", "None"):
        assert back(spec, vk.Record("a", [1, 0], text)).text == text


@pytest.mark.parametrize(
    ("record", "field", "told"),
    [
        (vk.Record("a", [1, 0], "w" * 45_000), "text", "takes 40000 a row"),
        (vk.Record("a", [1, 0], "w " * 10_001), "text", "10000"),
        (vk.Record("a", [1, 0], "日 " * 9_000), "text", "100000 bytes"),
        (vk.Record("a", [1, 0], None, {"x": "y" * 40_000}), "metadata", "40000 a row"),
    ],
)
def test_what_is_too_large_is_refused_before_it_is_sent(record: vk.Record, field: str, told: str) -> None:
    with pytest.raises(vk.InvalidRecord, match=told) as caught:
        convert.rows(vk.CollectionSpec("docs", 2), vk.Batch.of([vk.Record("fine", [1, 0]), record]), 1)
    assert (caught.value.row, caught.value.field) == (1, field)


def test_a_change_sets_and_removes_what_it_has_to() -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"n": int, "s": str})
    (row,) = convert.rows(spec, vk.Batch.of([vk.Record("a", [1, 0], "t", {"n": 1, "s": "x", "free": 2})]), 1)
    sent, gone = convert.changed(spec, row.fields, {"n": 2}, 9)
    assert sent == {"vk_seq": 9, "vk_meta": '{"n":2}', "vk_f0": 2}
    assert sorted(gone) == ["vk_f1", "vk_f1p"]
    _, gone = convert.changed(spec, {"vk_id": "a"}, {"n": 2}, 9)  # also what another may have written since it was read
    assert sorted(gone) == ["vk_f1", "vk_f1p"]
    sent, gone = convert.changed(spec, row.fields, {}, 9)
    assert sent == {"vk_seq": 9}
    assert sorted(gone) == ["vk_f0", "vk_f1", "vk_f1p", "vk_meta"]
    with pytest.raises(vk.InvalidRecord, match="40000"):
        convert.changed(spec, row.fields, {"free": "y" * 40_000}, 9)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"vk_id": 7},
        {"vk_id": "a", "vk_text": 1.0},
        {"vk_id": "a", "vk_meta": "{"},
        {"vk_id": "a", "vk_meta": "[]"},
        {"vk_id": "a", "vk_expires": "soon"},
        {"vk_id": "a", "vk_until": "soon"},
    ],
)
def test_damage_is_an_error(fields: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        convert.record_of(convert.Row("aa", fields, [1.0, 0.0]), vectors=True)


# --------------------------------------------------------------------------------------------- sources and options


def test_sources_are_parsed() -> None:
    source = Source.parse("docs?namespace=of ours&text=page", "pinecone://kb")
    assert (source.index, source.namespace, source.text) == ("docs", "of ours", "page")
    assert Source.parse("docs", "x").namespace == "__default__"
    for name in ("", "?text=a", "a/b", "docs?text=", "docs?id=x", "docs?text=a&text=b"):
        with pytest.raises(vk.InvalidArgument):
            Source.parse(name, "x")


def test_numbers_of_a_source_become_what_is_declared() -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"n": int, "x": float})
    source = Source("docs", "docs", text="page")
    given_ = {"n": 3.0, "x": 3.0, "free": 3.0, "page": "t", "tags": ["u"], "_id": "i", "_values": "v"}
    rows = [convert.Row("a", given_, [1.0, 0.0])]
    with pytest.raises(vk.InvalidArgument, match="no row has a field 'page'"):
        source.finish()
    batch = source.batch(spec, rows, 0)
    source.finish()
    assert batch.texts == ["t"]
    assert json.dumps(batch.metadata) == '[{"n": 3, "x": 3.0, "free": 3.0, "tags": ["u"], "_id": "i", "_values": "v"}]'
    with pytest.raises(vk.InvalidRecord, match="sparse"):
        source.batch(spec, [convert.Row("a", {}, [1.0, 0.0], sparse=True)], 0)
    with pytest.raises(vk.InvalidRecord, match="'n'") as caught:
        source.batch(spec, [*rows, convert.Row("b", {"n": 3.5}, [1.0, 0.0])], 40)
    assert (caught.value.row, caught.value.field) == (41, "n")
    for wrong in ({}, {"page": 7.0}):
        vector = [1.0, 0.0] if wrong else []
        with pytest.raises(vk.InvalidRecord):
            source.batch(spec, [convert.Row("a", wrong, vector)], 0)


def test_sources_that_cannot_be_a_collection() -> None:
    def model(**more: Any) -> Any:
        field = type("DenseVectorField", (), {"dimension": 2, "metric": "cosine", **more})()
        return SimpleNamespace(
            tags=None, host="h", private_host=None, schema=SimpleNamespace(fields={"_values": field})
        )

    spec = vk.CollectionSpec("docs", 2)
    Source("docs", "docs").check(model(), spec, private=False)
    with pytest.raises(vk.DimensionMismatch):
        Source("docs", "docs").check(model(dimension=3), spec, private=False)
    with pytest.raises(vk.SpecMismatch, match="metric='l2'"):
        Source("docs", "docs").check(model(metric="euclidean"), spec, private=False)
    ours = model()
    ours.tags = {"vk_layout": "1"}
    with pytest.raises(vk.InvalidArgument, match="own"):
        Source("docs", "docs").check(ours, spec, private=False)
    sparse = SimpleNamespace(tags=None, host="h", schema=SimpleNamespace(fields={}))
    with pytest.raises(vk.Unsupported, match="0 fields"):
        Source("docs", "docs").check(sparse, spec, private=False)


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"api_key": "a\n"}, "api_key"),
        ({"api_key": 7}, "api_key"),
        ({"headers": {"a": "b\n"}}, "headers"),
        ({"headers": []}, "headers"),
        ({"wait": -1}, "wait"),
        ({"wait": math.inf}, "wait"),
        ({"wait": True}, "wait"),
        ({"timeout": 0}, "timeout"),
        ({"ready_timeout": math.nan}, "ready_timeout"),
        ({"api": "grpc"}, "api"),
        ({"private": 1}, "private"),
        ({"ssl_ca": 1}, "ssl_ca"),
    ],
)
def test_options_are_checked(given_: dict[str, Any], told: str) -> None:
    with pytest.raises(vk.InvalidArgument, match=told) as caught:
        PineconeOptions(**given_)
    assert "\n" not in str(caught.value)
    assert "secret" not in repr(
        PineconeOptions(api_key="secret", proxy_url="http://u:secret@p", headers={"a": "secret"})
    )


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("pinecone://", "prefix"),
        ("pinecone://Kb", "prefix"),
        ("pinecone://" + "k" * 19, "prefix"),
        ("pinecone://-kb", "prefix"),
        ("pinecone://kb/x", "prefix"),
        ("pinecone://kb?zone=a", "no parameter 'zone'"),
        ("pinecone://kb?region=", "region"),
        ("pinecone://kb?cloud=a b", "cloud"),
        ("pinecone://kb?host=ftp://x", "host="),
        ("pinecone://kb?host=https://user:secret@x", "host="),
        ("pinecone://kb?host=http://x:99999999", "host="),
    ],
)
def test_urls_are_checked(url: str, told: str) -> None:
    with pytest.raises(vk.ConfigError, match=told) as caught:
        vk.connect({"url": url, "api_key": "hunter2"})
    assert "secret" not in str(caught.value)
    assert "hunter2" not in f"{caught.value!r}"


def test_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PINECONE_API_KEY", raising=False)
    with pytest.raises(vk.ConfigError, match="PINECONE_API_KEY"):
        vk.connect("pinecone://kb")
    monkeypatch.setenv("PINECONE_API_KEY", "hunter2\n")
    with pytest.raises(vk.InvalidArgument, match="key") as caught:
        vk.connect("pinecone://kb")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("PINECONE_API_KEY", "hunter2")
    with vk.connect("pinecone://kb") as store:
        assert "hunter2" not in f"{store!r} {store.native!r}"
