"""Qdrant's keys, vectors, conditions and sources without Qdrant: what docs/layout.md, section 5, says, and filters against `matches()`.

Conditions are evaluated by a small model of Qdrant's, as measured: any element of a list matches, ranges compare as float64.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectorkit as vk
from vectorkit import F, keys
from vectorkit.codec import NEVER
from vectorkit.filters import EVERY_ROW, NO_ROW, as_node, fit, push_not
from vectorkit.testing.values import FIELDS, OPERATORS, STRINGS, filters, leaf_table, table_rows
from vectorkit_qdrant import convert
from vectorkit_qdrant.adopt import Source
from vectorkit_qdrant.engine import Row
from vectorkit_qdrant.filters import DEEPEST, alive, among, as_filter, both, past, plan
from vectorkit_qdrant.options import QdrantOptions, codes_of

SPEC = vk.CollectionSpec("docs", 2, fields=FIELDS, metric="l2")
TABLE = table_rows()


def stored(spec: vk.CollectionSpec, *records: vk.Record) -> list[dict[str, Any]]:
    """The payloads of some rows."""
    batch = vk.Batch.of(records)
    _, norms = convert.as_stored(spec, batch.vectors)
    return convert.payloads(spec, batch, "", range(1, len(batch) + 1), norms)


ROWS = list(zip([record.metadata for record in TABLE], stored(SPEC, *TABLE), strict=True))


# --------------------------------------------------------------------------------------------- a model of conditions


def holds(condition: Mapping[str, Any], payload: Mapping[str, Any]) -> bool:
    """Whether Qdrant keeps this point."""
    match condition:
        case {"key": key, "match": test}:
            values = payload.get(key, [])
            return any(matched(test, value) for value in (values if isinstance(values, list) else [values]))
        case {"key": key, "range": bounds}:
            value = payload.get(key)
            return isinstance(value, int | float) and all(
                compared(how, float(value), float(bound)) for how, bound in bounds.items()
            )
        case {"is_empty": {"key": key}}:
            return payload.get(key) in (None, [])
    assert set(condition) <= {"must", "should", "must_not"}, condition
    return (
        all(holds(part, payload) for part in condition.get("must", []))
        and not any(holds(part, payload) for part in condition.get("must_not", []))
        and ("should" not in condition or any(holds(part, payload) for part in condition["should"]))
    )


def matched(test: Mapping[str, Any], value: Any) -> bool:
    ((how, operand),) = test.items()
    match how:
        case "value":
            assert type(operand) in {int, str}, "Qdrant's equality knows ints and strings"
            return type(value) is type(operand) and bool(value == operand)
        case "any":
            assert len({type(one) for one in operand}) <= 1, "and lists of one type"
            return any(matched({"value": one}, value) for one in operand)
        case "prefix":
            return isinstance(value, str) and value.startswith(operand)
    raise AssertionError(f"Qdrant has no {how}")


def compared(how: str, value: float, bound: float) -> bool:
    return {"gt": value > bound, "gte": value >= bound, "lt": value < bound, "lte": value <= bound}[how]


def check(where: vk.Filter, spec: vk.CollectionSpec = SPEC, rows: list[Any] | None = None) -> bool | None:
    """Hold the translation to the meaning; whether it is exact, None where the core needs no request."""
    fitted = fit(push_not(as_node(where)), spec.fields)
    if fitted in {EVERY_ROW, NO_ROW}:
        return None
    made = plan(spec, fitted)
    if made.native is None:
        assert not made.exact
        return False
    sent = json.loads(json.dumps(as_filter(made.native), allow_nan=False))
    for metadata, payload in ROWS if rows is None else rows:
        given, wanted = holds(sent, payload), where.matches(metadata)
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
    assert check(where, spec, rows) is (how == "starts" or length <= (6 if how in {"lt", "ge"} else 5))
    check(~where, spec, rows)


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def test_conditions_are_what_the_layout_says() -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"n": int, "tags": list[str], "s": str, "t": datetime, "x": float})
    empty = {"is_empty": {"key": "_vk_f0"}}
    cases: list[tuple[vk.Filter, Any]] = [
        (F("n") == 2024, {"key": "_vk_f0", "match": {"value": 2024}}),
        (F("n") != 2024, {"must_not": [{"key": "_vk_f0", "match": {"value": 2024}}]}),
        (F("n").missing(), empty),
        (F("n").exists(), {"must_not": [empty]}),
        (F("n") > 5, {"key": "_vk_f0", "range": {"gt": 5}}),
        (~(F("n") > 5), {"must_not": [{"key": "_vk_f0", "range": {"gt": 5}}]}),
        (F("n") > 2**60, {"key": "_vk_f0", "range": {"gte": math.nextafter(2.0**60, 0)}}),
        (F("n").in_([1, 2]), {"key": "_vk_f0", "match": {"any": [1, 2]}}),
        (F("tags").contains("x"), {"key": "_vk_f1", "match": {"any": ["=x"]}}),
        (
            F("tags").contains_all(["x", "y"]),
            {"must": [{"key": "_vk_f1", "match": {"value": "=x"}}, {"key": "_vk_f1", "match": {"value": "=y"}}]},
        ),
        (F("s").startswith("abcdefgh"), {"key": "_vk_f2", "match": {"prefix": "abcdefgh"}}),
        (F("s") >= "abcdefgh", {"key": "_vk_f2p", "range": {"gte": 0x616263646566}}),
        (F("t") == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), {"key": "_vk_f3", "match": {"value": 1_000_000}}),
        (F("x") == 2, {"key": "_vk_f4", "range": {"gte": 2.0, "lte": 2.0}}),
        ((F("n") == 1) & (F("free") == 1), {"key": "_vk_f0", "match": {"value": 1}}),
        ((F("n") == 1) | (F("free") == 1), None),
        (F("free") == 1, None),
    ]
    for where, native in cases:
        assert plan(spec, fit(push_not(as_node(where)), spec.fields)).native == native, where
    assert alive(None) is None
    assert alive(5) == {"key": "_vk_expires", "range": {"gt": 5}}
    assert past(5) == {"key": "_vk_expires", "range": {"lte": 5}}
    assert both(alive(5), None, among(["p"])) == {"must": [alive(5), {"has_id": ["p"]}]}
    assert both(None, None) is None
    assert as_filter(among(["p"])) == {"must": [{"has_id": ["p"]}]}


def test_depth_ends_where_the_engines_json_does() -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"n": int})
    where: vk.Filter = F("n") == 0
    for n in range(31):
        where = (where & (F("n") > -n)) if n % 2 else (where | (F("n") == n))
    made = plan(spec, fit(push_not(as_node(where)), spec.fields))
    assert made.exact
    assert DEEPEST == 32


# --------------------------------------------------------------------------------------------- rows


def test_points() -> None:
    assert convert.point_id("a") == "7f6c2ff2-2a12-5de6-b80e-faf08d5b81fd"
    pairs = [("", "a"), ("a", ""), ("ab", "c"), ("a", "bc"), ("", "A"), ("", "é"), ("", "e\u0301"), ("acme", "a")]
    assert len({convert.point_id(id, tenant) for tenant, id in pairs}) == len(pairs)  # noqa: A001


def test_a_row_is_stored_as_the_layout_says() -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"year": int, "tags": list[str], "s": str})
    records = [
        vk.Record("a", [3, 4], "", {"year": 2024, "tags": [], "s": "é"}),
        vk.Record("b", [1e20, 0], "Two  two, Ünï!"),
    ]
    assert stored(spec, *records) == [
        {
            "_vk_id": "a", "_vk_meta": '{"year":2024,"tags":[],"s":"é"}', "_vk_text": "", "_vk_expires": NEVER, "_vk_seq": 1,
            "_vk_norm": 5.0, "_vk_f0": 2024, "_vk_f1": ["-"], "_vk_f2": "é", "_vk_f2p": 0xC3A900000000,
        },
        {
            "_vk_id": "b", "_vk_text": "Two  two, Ünï!", "_vk_words": "two two uni", "_vk_expires": NEVER, "_vk_seq": 2,
            "_vk_norm": pytest.approx(1e20),
        },
    ]  # fmt: skip
    vectors, norms = convert.as_stored(spec, vk.Batch.of(records).vectors)
    assert vectors.tolist() == [[np.float32(0.6), np.float32(0.8)], [1, 0]]
    assert convert.vector_of({"_vk_norm": norms[1]}, vectors[1]).tolist() == [float(np.float32(1e20)), 0]
    flat = vk.CollectionSpec("docs", 2, metric="dot", text=False)
    assert convert.as_stored(flat, vectors) == (vectors, []) or convert.as_stored(flat, vectors)[0] is vectors
    assert "_vk_words" not in stored(flat, *records)[1]
    assert "_vk_norm" not in stored(flat, *records)[0]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TABLE), st.sampled_from([None, "", "text"]), st.integers(-(10**15), 10**15) | st.none())
def test_a_row_comes_back_as_it_was_written(record: vk.Record, text: str | None, micros: int | None) -> None:
    spec = vk.CollectionSpec("docs", 2, fields=FIELDS, expiry=True, metric="l2")
    expires = None if micros is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    written = vk.Record(record.id, record.vector, text, record.metadata, expires)
    (payload,) = stored(spec, written)
    assert convert.record_of(json.loads(json.dumps(payload)), written.vector) == written


def test_a_change_keeps_what_it_does_not_concern() -> None:
    spec = vk.CollectionSpec("docs", 2, fields={"n": int, "s": str})
    (payload,) = stored(spec, vk.Record("a", [3, 4], "some text", {"n": 1, "s": "x", "free": 2.5}))
    after = convert.changed(spec, payload, {"n": 2}, 99)
    assert after == {
        "_vk_id": "a", "_vk_text": "some text", "_vk_words": "some text", "_vk_expires": NEVER, "_vk_norm": 5.0,
        "_vk_meta": '{"n":2}', "_vk_f0": 2, "_vk_seq": 99,
    }  # fmt: skip
    assert "_vk_meta" not in convert.changed(spec, payload, {}, 100)


def test_scores() -> None:
    assert convert.score("cosine", 0.25) == 0.25
    assert convert.score("dot", -2.0) == -2.0
    assert convert.score("l2", 5.0) == -5.0
    assert math.isnan(convert.score("dot", None))


@pytest.mark.parametrize("lone", [-0.0, 0.0])
def test_elements(lone: float) -> None:
    assert keys.element(lone, list[float]) == "=0.0"
    assert keys.element(2, list[float]) == "=2.0"
    assert keys.element(True, list[bool]) == "=1"
    assert keys.element("", list[str]) == "="
    assert keys.element(datetime(1970, 1, 1, 0, 0, 0, 7, tzinfo=UTC), list[datetime]) == "=7"


# --------------------------------------------------------------------------------------------- codes, sources


def test_codes() -> None:
    def codes(index: Any, **given: Any) -> str | None:
        return codes_of(vk.CollectionSpec("docs", 2, index=index), QdrantOptions(**given))

    assert codes(vk.HNSW()) is None
    assert codes(vk.HNSW(quantization="sq8"), quantization="binary") == "scalar"
    assert codes(vk.IVF(quantization="pq")) == "product"
    assert codes(vk.HNSW(), quantization="turbo") == "turbo"
    assert codes(vk.Flat(), quantization="turbo") is None
    with pytest.raises(vk.Unsupported, match="no fp16 codes"):
        codes(vk.HNSW(quantization="fp16"))


def told(vectors: Any, **metadata: Any) -> Any:
    return SimpleNamespace(config=SimpleNamespace(metadata=metadata, params=SimpleNamespace(vectors=vectors)))


def test_sources() -> None:
    params = SimpleNamespace(size=2, distance=SimpleNamespace(value="Dot"), multivector_config=None)
    spec = vk.CollectionSpec("kb", 2, metric="dot")
    source = Source.parse("a collection?id=meta.key&text=body", "qdrant://h")
    source.check(told({"only": params}), spec)
    assert source.vectors == ["only"]
    row = Row("7", {"meta": {"key": 5}, "body": "t", "x": None, "y": [1, 2]}, {"only": [1.0, 2.0]})
    batch = source.batch(spec, [row], 0)
    assert list(batch.ids) == ["5"]
    assert batch.vectors.tolist() == [[1, 2]]
    assert list(batch.texts or []) == ["t"]
    assert list(batch.metadata or []) == [{"meta": {"key": 5}, "y": [1, 2]}]
    for wrong, kind in (
        (told(SimpleNamespace(**{**vars(params), "multivector_config": "x"})), vk.Unsupported),
        (told(SimpleNamespace(**{**vars(params), "distance": SimpleNamespace(value="Manhattan")})), vk.Unsupported),
        (told(params, _vk_spec="{}"), vk.InvalidArgument),
        (told({}), vk.InvalidArgument),
        (told(None), vk.InvalidArgument),
    ):
        with pytest.raises(kind):
            Source.parse("c", "qdrant://h").check(wrong, spec)
    with pytest.raises(vk.InvalidArgument, match="leave vector= out"):
        Source.parse("c?vector=x", "qdrant://h").check(told(params), spec)
    with pytest.raises(vk.InvalidRecord, match="point 9: it has no vector 'only'") as caught:
        source.batch(spec, [row, Row("9", {"meta": {"key": "k"}}, {})], 30)
    assert caught.value.row == 31
