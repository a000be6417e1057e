"""Adopting a plain pgvector table: what others' tables look like, copied whole or not at all."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pytest

import vectorkit as vk
from vectorkit.testing.kit import raises

SPEC = vk.CollectionSpec("items", 3, fields={"year": int, "tags": list[str], "seen": datetime})


@pytest.fixture
def database(pgvector_target: dict[str, str]) -> Any:
    """A connection with a table as an application makes it, and the target of a store in the same database."""
    schema = pgvector_target["schema"] + "_app"
    with psycopg.connect(pgvector_target["url"], autocommit=True) as conn:
        conn.execute(f"CREATE SCHEMA {schema}")
        conn.execute(
            f"""CREATE TABLE {schema}.items(doc uuid PRIMARY KEY DEFAULT gen_random_uuid(), number int, embedding vector(3),
            content text, metadata jsonb, year int, tags text[], seen timestamptz, price numeric)"""
        )
        conn.execute(
            f"""INSERT INTO {schema}.items(doc, number, embedding, content, metadata, year, tags, seen) VALUES
            ('00000000-0000-0000-0000-00000000000a', 1, '[1,0,0]', 'the first', '{{"a": 1.5, "gone": null, "b": [1, 2]}}', 2024,
             '{{x,y}}', '2024-02-29 12:00:00.5+01'),
            ('00000000-0000-0000-0000-00000000000b', 2, '[0,3,4]', NULL, NULL, NULL, NULL, NULL)"""
        )
        try:
            yield conn, f"{schema}.items", pgvector_target
        finally:
            conn.execute(f"DROP SCHEMA {schema} CASCADE")


def test_a_plain_table_is_adopted(database: Any) -> None:
    conn, name, target = database
    with vk.connect(target) as store:
        docs = store.adopt(name, SPEC)
        first, second = docs.get([f"00000000-0000-0000-0000-00000000000{c}" for c in "ab"], vectors=True)
        assert first is not None
        assert first.text == "the first"
        assert first.metadata == {
            "a": 1.5, "b": [1, 2], "year": 2024, "tags": ["x", "y"], "seen": datetime(2024, 2, 29, 11, 0, 0, 500_000, UTC),
        }  # fmt: skip
        assert second is not None
        assert (second.text, second.metadata) == (None, {})
        assert np.asarray(second.vector).tolist() == [0, 3, 4]
        assert docs.query([0, 1, 1], k=1)[0].score == pytest.approx(7 / (5 * 2**0.5))
        assert docs.keyword("first").ids == ["00000000-0000-0000-0000-00000000000a"]
        assert docs.count(vk.F("year") == 2024) == 1
    assert conn.execute(f"SELECT count(*) FROM {name}").fetchone() == (2,)


def test_columns_can_be_named(database: Any) -> None:
    conn, name, target = database
    conn.execute(f"ALTER TABLE {name} ADD COLUMN other halfvec(3)")
    conn.execute(f"UPDATE {name} SET other = '[0,0,1]'")
    with vk.connect(target) as store:
        with raises(vk.InvalidArgument, "vector="):
            store.adopt(name, SPEC)
        docs = store.adopt(f"{name}?id=number&vector=other&text=content", SPEC)
        assert [r.id for r in docs.scan()] == ["1", "2"]
        assert np.asarray(docs.get(["2"], vectors=True)[0].vector).tolist() == [0, 0, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "ask", "error", "said"),
    [
        ("SELECT 1", "nowhere.items", vk.NotFound, "nowhere.items"),
        ("SELECT 1", "{}?id=nix", vk.InvalidArgument, "nix"),
        ("SELECT 1", "{}?x=year", vk.InvalidArgument, "'x'"),
        ("SELECT 1", "{}?vector=year", vk.InvalidArgument, "int4"),
        ("SELECT 1", "{}?metadata=year", vk.InvalidArgument, "json"),
        ("UPDATE {} SET embedding = NULL WHERE number = 2", "{}", vk.InvalidRecord, "NULL"),
        ("UPDATE {} SET embedding = '[0,0,0]' WHERE number = 2", "{}", vk.InvalidRecord, "zero"),
        ("UPDATE {} SET number = 1", "{}?id=number", vk.InvalidRecord, "also row 0"),
        ("UPDATE {} SET metadata = '[1]' WHERE number = 2", "{}", vk.InvalidRecord, "JSON object"),
        ("UPDATE {} SET seen = 'infinity'", "{}", vk.InvalidRecord, "cannot be kept"),
        ("UPDATE {} SET metadata = (repeat('[', 3000) || repeat(']', 3000))::jsonb", "{}", vk.InvalidRecord, "deep"),
        ("UPDATE {} SET metadata = '{{\"a\": [[1]]}}' WHERE number = 2", "{}", vk.InvalidRecord, "list"),
        (
            "ALTER TABLE {} ALTER COLUMN embedding TYPE vector; UPDATE {} SET embedding = '[1,2]'",
            "{}",
            vk.DimensionMismatch,
            "2",
        ),
    ],
)
def test_what_cannot_be_adopted_leaves_nothing(database: Any, change: str, ask: str, error: Any, said: str) -> None:
    conn, name, target = database
    conn.execute(change.format(name, name))
    with vk.connect(target) as store:
        with raises(error, said):
            store.adopt(ask.format(name), SPEC)
        assert store.collections() == []
        assert store.create_collection(SPEC).count() == 0
        with raises(vk.AlreadyExists):
            store.adopt(name, SPEC)
