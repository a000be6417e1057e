"""The contract on a store whose keyword leg is the side-car, and what the side-car does after a crash between the two.

The store under it is the memory store, so that every failure here is the side-car's.
"""

import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.testing import AdapterContract
from vectorkit.testing.kit import ids_of, raises, rec, rows

EAST = [1.0, 0.0, 0.0, 0.0]


class TestSidecar(AdapterContract):
    tabled: ClassVar[bool | str] = False
    areas: ClassVar[frozenset[str] | None] = frozenset(
        {"searching", "writing", "changing", "collections", "expiring", "model"}
    )

    @pytest.fixture
    def target(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
        monkeypatch.syspath_prepend(str(Path(__file__).parent / "stranger"))
        return f"worded://{tmp_path}/store"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "stranger"))
    return f"worded://{tmp_path}/store"


def sidecar(store: vk.Store) -> Any:
    return store._verbs.top.adapter


def inner(store: vk.Store) -> Any:
    """The adapter under the side-car."""
    return sidecar(store)._inner


def crash(store: vk.Store, act: Any) -> None:
    """Do it, and end between the store and the words."""
    inner(store).kill = True
    killed = sys.modules["worded"].Killed
    with pytest.raises(killed):
        act()


def found(docs: vk.Collection, *words: str) -> list[list[str]]:
    return [sorted(ids_of(docs.keyword(word, k=50))) for word in words]


@pytest.mark.parametrize("reopened", [True, False])
def test_a_crash_between_store_and_words_is_made_good(place: str, reopened: bool) -> None:
    store = vk.connect(place)
    docs = store.create_collection(vk.CollectionSpec("docs", 4, fields={"n": int}))
    docs.upsert([rec(f"r{n}", EAST, f"shared old{n}", n=n) for n in range(6)])
    other = store.create_collection(vk.CollectionSpec("other", 4))
    other.upsert([rec("o", EAST, "shared")])

    def again() -> vk.Collection:
        nonlocal store
        if reopened:
            store.close()
            store = vk.connect(place)
        return store.collection("docs")

    assert found(docs, "shared") == [["r0", "r1", "r2", "r3", "r4", "r5"]]
    crash(store, lambda: docs.upsert([rec("r1", EAST, "fresh"), rec("new", EAST, "fresh"), rec("r2", EAST)]))
    docs = again()
    assert found(docs, "shared", "fresh", "old1", "old2") == [["r0", "r3", "r4", "r5"], ["new", "r1"], [], []]
    crash(store, lambda: docs.delete(ids=["r3"]))
    docs = again()
    assert found(docs, "shared", "old3") == [["r0", "r4", "r5"], []]
    crash(store, lambda: docs.delete(where=F("n") == 4))
    docs = again()
    assert found(docs, "shared", "old4") == [["r0", "r5"], []]
    crash(store, lambda: docs.delete(everything=True))
    docs = again()
    assert docs.count() == 0
    assert found(docs, "shared", "fresh") == [[], []]
    docs.upsert([rec("r9", EAST, "shared")])
    assert found(docs, "shared") == [["r9"]]
    assert found(store.collection("other"), "shared") == [["o"]]
    store.close()


def test_scores_are_those_of_the_store_without_a_crash(place: str) -> None:
    """Statistics too: what a crash left behind is neither counted twice nor forgotten."""
    texts = [f"common word{n % 7} filler{n}" for n in range(60)]
    records = [rec(f"r{n:02d}", EAST, text) for n, text in enumerate(texts)]
    oracle = vk.connect("memory://").create_collection(vk.CollectionSpec("docs", 4))
    oracle.upsert(records)
    store = vk.connect(place)
    docs = store.create_collection(vk.CollectionSpec("docs", 4))
    docs.upsert(records[:30])
    crash(store, lambda: docs.upsert(records[20:]))
    for text in ("common", "word3 filler17", "filler59 word1 common"):
        expected = oracle.keyword(text, k=60)
        answer = docs.keyword(text, k=60)
        assert [hit.id for hit in answer] == [hit.id for hit in expected]
        assert [hit.score for hit in answer] == pytest.approx([hit.score for hit in expected], rel=1e-9)
    store.close()


def test_a_collection_that_the_file_has_not_seen_is_read(place: str, tmp_path: Path) -> None:
    store = vk.connect(place)
    docs = store.create_collection(vk.CollectionSpec("docs", 4))
    docs.upsert(rows(2_500))
    store.close()
    (tmp_path / "store" / "words.db").unlink()
    store = vk.connect(place)
    docs = store.collection("docs")
    assert len(docs.keyword("common", k=5_000)) == 2_500
    assert len(docs.keyword("word3", k=5_000)) == 357
    inner(store).gets.clear()
    assert len(docs.keyword("word3", k=10)) == 10
    assert inner(store).gets == [357], "ties with the tenth are all of them; and nothing is read anew"
    store.close()


def test_a_filter_that_few_of_the_ranked_rows_pass(place: str) -> None:
    store = vk.connect(place)
    docs = store.create_collection(vk.CollectionSpec("docs", 4, fields={"n": int}))
    docs.upsert([rec(f"{n:05d}", EAST, "word " * (1 + (n < 6_000)), n=n) for n in range(6_050)])
    assert ids_of(docs.keyword("word", k=5, where=F("n") >= 6_000)) == [f"{n:05d}" for n in range(6_000, 6_005)]
    assert len(docs.keyword("word", k=100, where=F("n") >= 6_000)) == 50
    store.close()


def test_what_another_wrote_is_not_seen_and_what_it_deleted_is_left_out(place: str) -> None:
    store = vk.connect(place)
    docs = store.create_collection(vk.CollectionSpec("docs", 4))
    docs.upsert([rec(f"r{n}", EAST, "word") for n in range(20)])
    shelf = next(iter(inner(store)._data.shelves.values()))
    shelf.remove([shelf.slots["", f"r{n}"] for n in range(5)])
    assert ids_of(docs.keyword("word", k=10)) == [f"r{n}" for n in (10, 11, 12, 13, 14, 15, 16, 17, 18, 19)]
    assert len(docs.keyword("word", k=50)) == 15
    store.close()


def test_the_file_has_one_owner(place: str) -> None:
    store = vk.connect(place)
    with raises(vk.Locked, "words.db"):
        vk.connect(place)
    store.close()
    vk.connect(place).close()


def test_damage_is_corrupt(place: str, tmp_path: Path) -> None:
    store = vk.connect(place)
    store.create_collection(vk.CollectionSpec("docs", 4)).upsert(rows(5))
    store.close()
    (tmp_path / "store" / "words.db").write_bytes(b"no database " * 4_000)
    with raises(vk.Corrupt, "words.db", "delete"):
        vk.connect(place)
    (tmp_path / "store" / "words.db").unlink()
    assert len(vk.connect(place).collection("docs").keyword("common")) == 5


def test_nothing_is_known_of_what_was_dropped_elsewhere(place: str) -> None:
    store = vk.connect(place)
    store.create_collection(vk.CollectionSpec("docs", 4)).upsert(rows(5))
    store.create_collection(vk.CollectionSpec("kept", 4)).upsert(rows(5))
    data = inner(store)._data
    data.shelves.pop((data.specs.pop("docs").physical, ""))
    store.close()
    store = vk.connect(place)
    assert sidecar(store)._words.known == ["kept@2"]
    docs = store.create_collection(vk.CollectionSpec("docs", 4))
    assert docs.keyword("common") == []
    docs.upsert(rows(2))
    assert len(docs.keyword("common")) == 2
    store.close()
