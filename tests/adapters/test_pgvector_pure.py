"""pgvector's parts that need no server: binary forms, names, limits, and SQL that no user's text reaches."""

import re
import struct
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectorkit as vk
from vectorkit import F
from vectorkit.codec import NEVER
from vectorkit.filters import as_node, fit, push_not
from vectorkit.layout import h26, parts
from vectorkit.testing.kit import raises
from vectorkit_pgvector import PgvectorOptions, convert, filters, indexing
from vectorkit_pgvector.tables import Table, relation_of

SPEC = vk.CollectionSpec(
    "a", 2, fields={"n": int, "f": float, "s": str, "b": bool, "d": datetime, "ls": list[str], "ld": list[datetime]}
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def test_names_of_the_layout_document() -> None:
    assert parts("acme", "é") == "4:acme2:é"
    assert h26("acme", "é") == "wxyy4z7ulexmehstsufr6gjfgm"
    assert h26("articles@1") == "2efw2dvn5nqh7ptvpwvucmzsse"


@given(st.lists(st.text("aB.-_0", min_size=1, max_size=100), min_size=2, max_size=2, unique=True))
def test_relations_fit_and_stay_apart(names: list[str]) -> None:
    one, other = (relation_of(f"{name}@{at}") for at, name in enumerate(names))
    assert one != other
    assert max(len(one), len(other)) + len(":seq") <= 63


def test_binary_forms() -> None:
    assert convert.bigint(-2) == b"\xff" * 7 + b"\xfe"
    assert convert.scalar(-0.0, float) == struct.pack(">d", 0.0)
    assert convert.scalar(True, bool) == b"\1"
    assert convert.scalar(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), datetime) == struct.pack(">q", 1_000_000)
    assert convert.texts([]) == struct.pack(">iii", 0, 0, 25)
    assert convert.texts(["é", ""]) == struct.pack(">iiiii", 1, 0, 25, 2, 1) + b"\0\0\0\2\xc3\xa9" + b"\0\0\0\0"
    assert convert.array([1], int)[:20] == struct.pack(">iiiii", 1, 0, 20, 1, 1)
    assert convert.vector(np.array([1, -2], np.float32)) == struct.pack(">HHff", 2, 0, 1, -2)
    assert convert.query_vector(np.array([3, 4], np.float32), "cosine") == convert.vector(
        np.array([0.6, 0.8], np.float32)
    )
    assert convert.query_vector(np.array([3, 4], np.float32), "l2") == convert.vector(np.array([3, 4], np.float32))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_vectors_come_back_to_the_bit(values: list[float]) -> None:
    written = np.array(values, np.float32)
    assert convert.read_vector(convert.vector(written)).tobytes() == written.tobytes()


def test_rows_and_their_stream() -> None:
    batch = vk.Batch(["é", "b"], np.array([[3, 4], [1e-30, 0]]), ["t", None], [{"n": 1, "ls": [], "x": 1.0}, None])
    rows = convert.rows_of(SPEC, batch, "")
    empty = struct.pack(">iii", 0, 0, 25)
    assert rows[0] == [
        b"", b"\xc3\xa9", struct.pack(">q", NEVER), b'{"n":1,"ls":[],"x":1.0}', b"t", struct.pack(">HHff", 2, 0, 3, 4), None,
        struct.pack(">q", 1), None, None, None, None, empty, None,
    ]  # fmt: skip
    assert rows[1][3:7] == [None, None, struct.pack(">HHff", 2, 0, 1, 0), struct.pack(">d", float(np.float32(1e-30)))]
    stored = convert.stored_vector(rows[1][5], struct.unpack(">d", rows[1][6])[0])  # type: ignore[arg-type]
    assert stored.tolist() == [np.float32(1e-30), 0]
    stream = b"".join(convert.copy_stream([[b"ab", None]]))
    assert stream == convert.HEADER + b"\0\2" + b"\0\0\0\2ab" + b"\xff\xff\xff\xff" + b"\xff\xff"


def test_limits_name_row_and_field() -> None:
    def check(**columns: Any) -> None:
        batch = vk.Batch(["a", "b"], columns.pop("vectors", [[1, 0], [1, 0]]), **columns)
        convert.check_limits(columns.get("spec", SPEC), batch, half=True)

    check(
        texts=["x" * 500_000, "é" * 250_000],
        metadata=[{"s": "é" * 900}, {"ls": ["x" * 2_600] * 3, "free": "x" * 9_999}],
    )
    with raises(vk.InvalidRecord, "500000", row=1, field="text"):
        check(texts=["", "é" * 250_001])
    with raises(vk.InvalidRecord, "1800", row=1, field="s"):
        check(metadata=[None, {"s": "é" * 901}])
    with raises(vk.InvalidRecord, "2600", row=0, field="ls"):
        check(metadata=[{"ls": ["a", "x" * 2_601]}, None])
    dot = vk.CollectionSpec("a", 2, "dot")
    batch = vk.Batch(["a", "b"], [[1, 0], [0, -65_505]])
    convert.check_limits(dot, batch, half=False)
    with raises(vk.InvalidRecord, "65504", row=1, field="vector"):
        convert.check_limits(dot, batch, half=True)


@pytest.mark.parametrize(
    ("where", "sql"),
    [
        (F("n") == 1, "f0 = %s"),
        (F("n") != 1, "(f0 = %s) IS NOT TRUE"),
        (F("n") > 1.5, "f0 >= %s"),
        (F("s") <= "x", "f2 <= %s"),
        (F("s").startswith("x"), "f2 ^@ %s"),
        (F("s").in_(["x", "y"]), "f2 = ANY(%s)"),
        (F("s").not_in(["x"]), "(f2 = ANY(%s)) IS NOT TRUE"),
        (F("ls").contains("x"), "f5 && %s"),
        (F("ls").contains_all(["x", "y"]), "f5 @> %s"),
        (F("b").missing(), "f3 IS NULL"),
        (F("b").exists(), "f3 IS NOT NULL"),
        ((F("n") == 1) & ((F("b") == True) | F("f").exists()), "(f0 = %s AND (f3 = %s OR f1 IS NOT NULL))"),  # noqa: E712
    ],
)
def test_filters_as_sql(where: vk.Filter, sql: str) -> None:
    plan = filters.plan(SPEC, fit(push_not(as_node(where)), SPEC.fields))
    assert plan.native.sql == sql
    assert len(plan.native.values) == sql.count("%s")
    assert plan.exact


def test_what_is_not_declared_is_left_to_the_core() -> None:
    plan = filters.plan(SPEC, as_node((F("n") == 1) & (F("free") == 2)))
    assert (plan.native.sql, plan.exact) == ("f0 = %s", False)
    plan = filters.plan(SPEC, as_node((F("n") == 1) | (F("free") == 2)))
    assert (plan.native, plan.exact) == (None, False)


@given(field=TEXT.filter(lambda t: t and not t.startswith("_vk_")), value=TEXT)
def test_no_text_of_a_user_is_ever_sql(field: str, value: str) -> None:
    spec = vk.CollectionSpec("docs", 2, fields={field: str})
    where = (F(field) == value) & F(field).startswith(value) & F(field).in_([value, "x"]) & ~(F(field) > value)
    condition = filters.plan(spec, as_node(where)).native
    table = Table(vk.CollectionSpec.from_json({**spec.to_json(), "generation": 1}), "vectorkit", "public")
    shape: dict[str, Any] = {"where": condition, "expiring": True}
    statements = [
        *table.create(), table.copy, table.stage, table.copy_stage, table.merge, table.upsert(2), table.insert(expiring=True),
        table.change([0]), table.select(vectors=True, ids=True, **shape), table.page(vectors=True, limit=5, **shape),
        table.count(**shape), table.delete(ids=False, **shape), table.delete_everything, table.create_vector_index(5),
        table.nearest(k=5, vectors=True, **shape), table.nearest_exactly(ids=True, k=5, vectors=True, **shape),
        table.keyword(ids=True, k=5, vectors=True, **shape),
    ]  # fmt: skip
    plain = Table(vk.CollectionSpec("docs", 2, fields={"x": str}, generation=1), "vectorkit", "public")
    other = filters.plan(
        vk.CollectionSpec("docs", 2, fields={"x": str}),
        as_node((F("x") == "") & F("x").startswith("") & F("x").in_(["", "x"]) & ~(F("x") > "")),
    ).native
    expected = [
        *plain.create(), plain.copy, plain.stage, plain.copy_stage, plain.merge, plain.upsert(2), plain.insert(expiring=True),
        plain.change([0]), plain.select(vectors=True, ids=True, where=other, expiring=True),
        plain.page(vectors=True, limit=5, where=other, expiring=True), plain.count(where=other, expiring=True),
        plain.delete(ids=False, where=other, expiring=True), plain.delete_everything, plain.create_vector_index(5),
        plain.nearest(k=5, vectors=True, where=other, expiring=True),
        plain.nearest_exactly(ids=True, k=5, vectors=True, where=other, expiring=True),
        plain.keyword(ids=True, k=5, vectors=True, where=other, expiring=True),
    ]  # fmt: skip
    assert statements == expected


def test_vector_indexes() -> None:
    def made(spec: vk.CollectionSpec, rows: int = 5_000) -> str:
        sql = Table(spec, "s", "e").create_vector_index(rows)
        return re.sub(r".* ON ", "", sql)

    assert made(vk.CollectionSpec("a", 3, index=vk.HNSW(m=8, ef_construction=10))) == (
        '"s"."a@0" USING hnsw (vector "e".vector_cosine_ops) WITH (m = 8, ef_construction = 16)'
    )
    assert made(vk.CollectionSpec("a", 2_001, "l2")) == (
        '"s"."a@0" USING hnsw (((vector)::"e".halfvec(2001)) "e".halfvec_l2_ops) WITH (m = 16, ef_construction = 200)'
    )
    assert made(vk.CollectionSpec("a", 3, "dot", index=vk.IVF())) == (
        '"s"."a@0" USING ivfflat (vector "e".vector_ip_ops) WITH (lists = 5)'
    )
    assert [Table(vk.CollectionSpec("a", d), "s", "e").indexable for d in (4_000, 4_001)] == [True, False]
    assert not Table(vk.CollectionSpec("a", 3, index=vk.Flat()), "s", "e").indexable


def test_widths() -> None:
    hnsw, ivf = vk.CollectionSpec("a", 3), vk.CollectionSpec("a", 3, index=vk.IVF(probes=7))
    assert indexing.width(hnsw, 64, 10, None, None) == 64
    assert indexing.width(hnsw, 64, 100, None, None) == 100
    assert indexing.width(hnsw, 64, 10, 5_000, None) == 1_000
    assert indexing.width(hnsw, 64, 10_000, None, None) == 1_000
    assert indexing.width(ivf, 3, 10, None, None) == 7
    assert indexing.width(ivf, 3, 10, None, 20) == 20


@pytest.mark.parametrize(
    "bad",
    [
        {"schema": "a b"}, {"schema": 'a"'}, {"schema": ""}, {"schema": "x" * 64}, {"schema": "1a"}, {"pool_size": 0}, {"pool_size": True},
        {"pool_size": 2.0}, {"timeout": 0}, {"timeout": float("inf")}, {"timeout": "1"}, {"connect_timeout": None}, {"maintenance_mb": 0},
    ],
)  # fmt: skip
def test_options_are_checked(bad: dict[str, Any]) -> None:
    with raises(vk.InvalidArgument, next(iter(bad))):
        PgvectorOptions(**bad)
