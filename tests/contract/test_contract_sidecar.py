"""The contract on a store whose keyword leg is the side-car, and what the side-car does after a crash between the two.

The store under it is the memory store, so that every failure here is the side-car's.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.layers.sidecar import Sidecar
from vectorkit.layers.wordfile import WordFile
from vectorkit.runtime import SYNC, drive
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


SPEC = vk.CollectionSpec("docs", 4, fields={"n": int})


def database(monkeypatch: pytest.MonkeyPatch, name: str, *, told: bool = True) -> None:
    """What the next connect opens."""
    monkeypatch.setattr("worded.DATABASE", name)
    monkeypatch.setattr("worded.TOLD", told)


@pytest.mark.parametrize("told", [True, False])
def test_another_database_with_the_same_file_has_words_of_its_own(
    place: str, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    for name, word in (("A", "alpha"), ("B", "beta")):
        database(monkeypatch, name, told=told)
        with vk.connect(place) as store:
            docs = store.create_collection(SPEC)
            docs.upsert([rec("a", EAST, word), rec(word, EAST, f"common {word}")])
            assert found(docs, "common", "alpha", "beta") == [
                [word],
                ["a", "alpha"] * (name == "A"),
                ["a", "beta"] * (name == "B"),
            ]
            store.create_collection(vk.CollectionSpec(f"only{name}", 4)).upsert([rec("o", EAST, "only")])
    for _ in range(2):
        for name, word in (("A", "alpha"), ("B", "beta")):
            database(monkeypatch, name, told=told)
            with vk.connect(place) as store:
                assert found(store.collection("docs"), word, "common") == [["a", word], [word]]
                assert found(store.collection(f"only{name}"), "only") == [["o"]]
                if told:
                    assert inner(store).pages == 0, "the other database took no words from this one"


def test_a_drop_forgets_the_words_that_were_made_under_another_place(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("A", "B"):
        database(monkeypatch, name, told=True)
        with vk.connect(place) as store:
            store.create_collection(SPEC).upsert(rows(5))
    database(monkeypatch, "B", told=False)
    with vk.connect(place) as store:
        store.drop_collection("docs")
        assert sidecar(store)._words.known == ["docs@1"]
    database(monkeypatch, "A", told=True)
    with vk.connect(place) as store:
        assert len(store.collection("docs").keyword("common")) == 5
        assert inner(store).pages == 0


@pytest.mark.parametrize("reopened", [True, False])
def test_a_store_that_was_wiped_has_none_of_the_words_it_had(
    place: str, monkeypatch: pytest.MonkeyPatch, reopened: bool
) -> None:
    """The names are those of before, and so are the generations."""
    store = vk.connect(place)
    store.create_collection(SPEC).upsert([rec("a", EAST, "alpha"), rec("b", EAST, "alpha")])
    data = inner(store)._data
    data.shelves.clear()
    data.specs.clear()
    data.generation = 0
    with raises(vk.NotFound):
        store.collection("docs").count()
    drive(inner(store).create(SPEC))
    if reopened:
        store.close()
        store = vk.connect(place)
    docs = store.collection("docs")
    inner(store)._data.shelves["docs@1", ""].put([("", "a")], vk.Batch(["a"], [EAST], ["beta"]))
    assert found(docs, "alpha", "beta") == [[], ["a"]]
    docs.upsert([rec("c", EAST, "gamma")])
    assert found(docs, "alpha", "beta", "gamma") == [[], ["a"], ["c"]]
    assert sidecar(store)._words.known == ["docs@1"]
    store.close()


def test_the_identity_is_asked_once_a_handle(place: str) -> None:
    store = vk.connect(place)
    docs = store.create_collection(SPEC)
    for n in range(3):
        docs.upsert([rec(f"r{n}", EAST, "word")])
        assert len(docs.keyword("word")) == n + 1
    assert inner(store).identities == 1
    store.close()
    store = vk.connect(place)
    docs = store.collection("docs")
    assert [len(docs.keyword("word")) for _ in range(3)] == [3, 3, 3]
    docs.delete(ids=["r0"])
    assert inner(store).identities == 1
    assert inner(store).pages == 0
    store.drop_collection("docs")
    docs = store.create_collection(SPEC)
    assert docs.keyword("word") == []
    assert inner(store).identities == 2
    store.close()


@pytest.mark.parametrize("failure", [KeyboardInterrupt, vk.Unavailable("the disk is full")])
def test_words_that_fail_after_the_write_are_caught_up(
    place: str, monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    store = vk.connect(place)
    docs = store.create_collection(SPEC)
    docs.upsert([rec(f"r{n}", EAST, f"common old{n}", n=n) for n in range(10)])

    def failing(owner: Any, verb: str, act: Any) -> None:
        """Do it with a verb that fails."""

        def fail(*args: Any, **options: Any) -> Any:
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(owner, verb, fail)
            with pytest.raises((KeyboardInterrupt, vk.Unavailable)):
                act()

    failing(WordFile, "put", lambda: docs.upsert([rec(f"n{n}", EAST, "common new") for n in range(10)]))
    docs.upsert([rec("r0", EAST, "common")])  # a write that succeeds does not make good the one that failed
    assert [len(ids) for ids in found(docs, "common", "new", "old0")] == [20, 10, 0]
    skipping = [rec("r1", EAST, "skipped"), rec("m", EAST, "common m")]
    failing(inner(store), "get", lambda: docs.insert(skipping, on_conflict="skip"))
    assert [len(ids) for ids in found(docs, "common", "skipped", "m")] == [21, 0, 1]
    failing(WordFile, "put", lambda: docs.delete(ids=["r2", "absent"]))
    failing(WordFile, "put", lambda: docs.delete(where=F("n") == 3))
    assert [len(ids) for ids in found(docs, "common", "old2", "old3")] == [19, 0, 0]

    async def others_stay(scope: Any, selector: Any) -> int:
        return 0

    monkeypatch.setattr(inner(store), "delete", others_stay)  # rows that this scope does not see
    failing(inner(store), "page", lambda: docs.delete(everything=True))
    assert len(docs.keyword("common", k=100)) == 19
    store.close()


def test_a_row_that_another_replaced_is_found_by_what_it_says_now(place: str) -> None:
    store = vk.connect(place)
    docs = store.create_collection(SPEC)
    docs.upsert([rec("a", EAST, "alpha common"), rec("b", EAST, "alpha beta"), rec("c", EAST, "gamma")])
    shelf = inner(store)._data.shelves["docs@1", ""]
    shelf.put([("", "a"), ("", "b")], vk.Batch(["a", "b"], [EAST] * 2, ["gamma common", None]))
    assert found(docs, "alpha", "gamma", "common", "beta") == [[], ["a", "c"], ["a"], []]
    inner(store).gets.clear()
    assert found(docs, "gamma") == [["a", "c"]]
    assert inner(store).gets == [2], "it is read again once"
    store.close()


def test_a_row_that_is_being_written_is_found_by_either_text(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has the new text and the words are still the old: no waiting for the write, and no row without the words."""
    store = vk.connect(place)
    docs = store.create_collection(SPEC)
    docs.upsert([rec("a", EAST, "common alpha"), rec("b", EAST, "common alpha")])
    seen = []
    put = WordFile.put

    def looking(*args: Any) -> None:
        seen.append(found(docs, "common", "alpha"))
        put(*args)

    monkeypatch.setattr(WordFile, "put", looking)
    docs.upsert([rec("a", EAST, "Common beta")])
    assert seen == [[["a", "b"], ["b"]]]
    assert found(docs, "common", "alpha", "beta") == [["a", "b"], ["b"], ["a"]]
    store.close()


@pytest.mark.parametrize("path", ["", ".", "/", "..", "a\0b", "words\ud800.db", "folder"])
def test_a_path_that_names_no_file_is_refused_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with raises(vk.InvalidArgument, "worded://x"):
        drive(Sidecar.open(None, Path(path), SYNC, shown="worded://x", own_lock=True))  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_file_of_an_older_layout_is_made_again(place: str, tmp_path: Path) -> None:
    store = vk.connect(place)
    store.create_collection(SPEC).upsert(rows(5))
    store.close()
    with closing(sqlite3.connect(tmp_path / "store" / "words.db")) as connection:
        connection.executescript(
            """
            DROP TABLE collections; PRAGMA application_id = 0;
            CREATE TABLE collections(n INTEGER PRIMARY KEY, physical TEXT NOT NULL UNIQUE, whole INTEGER NOT NULL);
            INSERT INTO collections VALUES (1, 'docs@1', 1);
            DELETE FROM texts_1; INSERT INTO words_1(words_1) VALUES ('delete-all');
            """
        )
    for _ in range(2):
        with vk.connect(place) as store:
            assert len(store.collection("docs").keyword("common")) == 5


def test_a_database_of_something_else_is_left_alone(place: str, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with closing(sqlite3.connect(tmp_path / "store" / "words.db")) as connection:
        connection.executescript("CREATE TABLE collections(id TEXT, name TEXT); INSERT INTO collections VALUES (1, 2);")
    with raises(vk.InvalidArgument, "words.db"):
        vk.connect(place)
    with closing(sqlite3.connect(tmp_path / "store" / "words.db")) as connection:
        assert connection.execute("SELECT * FROM collections").fetchall() == [("1", "2")]
