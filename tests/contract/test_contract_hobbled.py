"""The contract on a third party's poor store, installed the way a third party's is: the proof of `Checked`.

What the store leaves undecided is re-checked, what comes short is refilled, what is too much is refused by name.
"""

from pathlib import Path
from typing import ClassVar

import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.testing import AdapterContract
from vectorkit.testing.kit import raises, rec, rows

EAST = [1.0, 0.0, 0.0, 0.0]


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "stranger"))
    return "hobbled://"


class TestHobbled(AdapterContract):
    tabled: ClassVar[bool | str] = False

    @pytest.fixture
    def target(self, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.syspath_prepend(str(Path(__file__).parent / "stranger"))
        return "hobbled://"


def test_filters_past_the_residual_limit_are_refused(target: str) -> None:
    store = vk.connect(target, residual_limit=100)
    docs = store.create_collection(vk.CollectionSpec("docs", 4, fields={"declared": int}))
    docs.upsert([rec(r.id, r.vector, r.text, declared=n % 10, free=n % 150) for n, r in enumerate(rows(300))])
    rare = F("free") == 7
    for call in (
        lambda: docs.query(EAST, where=rare),
        lambda: docs.query_many([EAST], where=rare),
        lambda: docs.count(rare),
        lambda: docs.delete(where=rare),
        lambda: docs.update(where=rare, set={"x": 1}),
        lambda: docs.keyword("common", k=5, where=rare),
        lambda: docs.explain(EAST, where=rare),
    ):
        with raises(vk.Unsupported, "hobbled", "'free'", "declare", "100"):
            call()
    assert docs.count() == 300
    assert docs.count(F("declared") == 7) == 30
    assert len(docs.query(EAST, k=30, where=F("declared") == 7)) == 30
    assert docs.count((F("declared") == 7) & rare) == 2, "what a declared field narrows first is within the limit"
    assert len([*docs.scan(rare)]) == 2, "a scan reads as much as it is asked to"
    assert docs.delete(where=F("declared") == 7) == 30


def test_clauses_are_told_apart(target: str) -> None:
    docs = vk.connect(target).create_collection(vk.CollectionSpec("docs", 4, fields={"n": int, "s": str}))
    docs.upsert(rows(40))
    where = (F("n") == 3) & (F("n") > 1) & ~F("s").exists() & (F("free") != 1)
    told = docs.explain(EAST, where=where)
    assert [(clause.text, clause.handling) for clause in told.clauses] == [
        ("n == 3", "pushed"),
        ("n > 1", "superset"),
        ("s missing", "residual"),
        ("free != 1", "residual"),
    ]
    assert told.returned == 1
    assert told.rows_fetched >= 1
    assert told.round_trips >= 1
    wide = docs.explain(EAST, k=40, where=F("n") > 1)
    assert wide.returned == 38
    assert wide.round_trips > 1


def test_a_write_in_parts_tells_how_far_it_came(target: str) -> None:
    docs = vk.connect(target).create_collection(vk.CollectionSpec("docs", 2))
    ids = [f"{n:05d}" for n in range(9_000)]
    ids[8_500] = "poison"
    batch = vk.Batch(ids, [[1.0, 0.0]] * 9_000)
    with pytest.raises(vk.PartialFailure) as caught:
        docs.upsert(batch)
    assert caught.value.written == 8_000
    assert caught.value.failed == tuple(ids[8_000:])
    assert isinstance(caught.value.__cause__, vk.Unavailable)
    assert docs.count() == 8_000
    with pytest.raises(vk.Unavailable):
        docs.upsert([rec("poison", [1, 0])])
    with pytest.raises(vk.PartialFailure) as streamed:
        docs.upsert(rec(id, [1, 0]) for id in [*(f"s{n:05d}" for n in range(10_000)), *ids])  # noqa: A001
    assert streamed.value.written == 10_000 + 8_000
    assert streamed.value.failed == tuple(ids[8_000:])


def test_an_unknown_scheme_lists_the_known_ones(target: str) -> None:
    with raises(vk.ConfigError, "nowhere", "hobbled", "memory"):
        vk.connect("nowhere://x")
