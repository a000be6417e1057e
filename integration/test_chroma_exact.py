"""What a hostile reader of the Chroma adapter found, each as it was seen: rows lost, torn or wrongly matched, errors that mislead."""

import math
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from chromadb.api.models.Collection import Collection

import vectorkit as vk
import vectorkit_chroma.adapter as adapter_module
import vectorkit_chroma.rows as rows_module
from vectorkit import F
from vectorkit.adapter import Target
from vectorkit.testing.kit import raises
from vectorkit_chroma import ChromaOptions
from vectorkit_chroma.client import Client
from vectorkit_chroma.convert import ADOPTING, MOST_ENTRIES

ONES = [1.0] * 8


@pytest.fixture(params=["embedded", "server"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return request.getfixturevalue("chroma_target") if request.param == "server" else f"chroma://{tmp_path}/store"


def adapter(store: vk.Store) -> Any:
    top: Any = store._verbs.top.adapter
    return getattr(top, "_inner", top)


def test_a_row_that_would_break_the_collection_is_refused(target: Any) -> None:
    """One of more than 5,461 values of declared fields made every row unreadable for ever."""
    with vk.connect(target) as store:
        docs = store.create_collection(
            vk.CollectionSpec("docs", 8, fields={"l": list[str], "n": list[int]}, text=False)
        )
        fits = MOST_ENTRIES - 2 * 3 - 10
        docs.upsert(
            [
                vk.Record("a", ONES),
                vk.Record("b", ONES, None, {"l": [f"e{n}" for n in range(fits)], "n": list(range(10))}),
            ]
        )
        assert docs.count(F("l").contains(f"e{fits - 1}")) == 1
        for lists in (
            {"l": [f"e{n}" for n in range(6_000)]},
            {"l": [f"e{n}" for n in range(3_000)], "n": list(range(2_900))},
        ):
            with raises(vk.InvalidRecord, "5000", row=1, field="l"):
                docs.upsert([vk.Record("c", ONES), vk.Record("d", ONES, None, lists)])
            with raises(vk.InvalidRecord, "5000", field="l"):
                docs.update(ids=["a"], set=lists)
        assert docs.count() == 2
        docs.upsert([vk.Record("e", ONES, None, {"free": [f"e{n}" for n in range(6_000)]})])  # not declared: a document
        (row,) = docs.get(["e"])
        assert row is not None
        assert len(row.metadata["free"]) == 6_000
        with raises(vk.Unsupported, "1500"):
            store.create_collection(vk.CollectionSpec("wide", 8, fields={f"f{n}": int for n in range(1_501)}))


def test_floats_compare_to_the_last_bit(target: Any) -> None:
    """Chroma's JSON loses the last digits of a number: neighbours were one, and a number on a server was not its own equal."""
    rng = np.random.default_rng(5)
    values = [9179.365601667923, 1.9136457553191892e-07, 5e-324, 1.7976931348623157e308, 0.0, -0.0, 0.1, -1e-12]
    values += [float(value) for scale in (1e-12, 1e-5, 1.0, 1e10) for value in rng.normal(size=20) * scale]
    values += [math.nextafter(value, math.inf) for value in values[:-1] if value < 1e308]
    with vk.connect(target) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 8, fields={"x": float, "l": list[float]}, text=False))
        docs.upsert(vk.Record(f"{n}", ONES, None, {"x": value, "l": [value, 2]}) for n, value in enumerate(values))
        for value in values:
            assert docs.count(F("x") == value) == values.count(value)
            assert docs.count(F("x") > value) == sum(other > value for other in values)
            assert docs.count(F("x") <= value) == sum(other <= value for other in values)
        assert docs.count(F("x").in_(values[:9])) == sum(value in values[:9] for value in values)
        assert docs.count(F("l").contains(values[1])) == values.count(values[1])
        assert docs.count(F("l").contains(2.0)) == len(values)
        assert docs.delete(where=F("x") == values[0]) == 1
        assert docs.count(F("x") == math.nextafter(values[0], math.inf)) == 1


@pytest.mark.parametrize(
    "url", ["chroma://", "chroma://:8000", "chroma://:secret@", "chroma://user@", "chroma+http://:8000"]
)
def test_a_url_of_no_place_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with raises(vk.ConfigError):
        vk.connect(url)
    assert list(tmp_path.iterdir()) == []


def test_an_upsert_is_not_torn_by_an_update(target: Any) -> None:
    with vk.connect(target) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 8, text=False))
        docs.upsert([vk.Record("a", ONES, "text 0", {"v": 0})])
        over = threading.Event()

        def touch() -> None:
            n = 0
            while not over.is_set():
                docs.update(ids=["a"], set={"touched": (n := n + 1)})

        with ThreadPoolExecutor(1) as pool:
            touching = pool.submit(touch)
            try:
                for v in range(1, 120):
                    docs.upsert([vk.Record("a", ONES, f"text {v}", {"v": v})])
                    time.sleep(0.002)
                    (row,) = docs.get(["a"])
                    assert row is not None
                    assert (row.text, row.metadata["v"]) == (f"text {v}", v)
            finally:
                over.set()
            touching.result()


def test_a_delete_leaves_what_matches_no_longer(target: Any) -> None:
    """Rows changed by another handle between the listing and the delete of what was listed."""
    with vk.connect(target) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 8, fields={"state": str}, text=False))
        docs.upsert(vk.Record(f"r{n}", ONES, None, {"state": "old"}) for n in range(100))
        rows = adapter(store)._rows["docs@1"]
        listed = rows.listed

        def and_changed(where: Any, ids: Any = None) -> list[str]:
            found: list[str] = listed(where, ids)
            rows.listed = listed
            keys = {"_vk_meta": '{"state":"keep"}', "_vk_f0": "keep"}
            rows.native.update(ids=["r7", "r9"], metadatas=[keys, keys])
            return found

        rows.listed = and_changed
        docs.delete(where=F("state") == "old")
        assert sorted(record.id for record in docs.scan()) == ["r7", "r9"]


@pytest.mark.parametrize("options", [{"exact": True}, {"ef_search": 100}])
def test_a_query_leaves_out_what_matches_no_longer(target: Any, options: dict[str, Any]) -> None:
    with vk.connect(target) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 8, fields={"n": int}, text=False))
        docs.upsert(vk.Record(f"r{n}", ONES, None, {"n": n}) for n in range(20))
        rows = adapter(store)._rows["docs@1"]
        get = rows.get

        def changed(*arguments: Any, **named: Any) -> Any:
            rows.native.update(ids=["r0"], metadatas=[{"_vk_meta": '{"n":-1}', "_vk_f0": -1}])
            return get(*arguments, **named)

        rows.get = changed
        hits = docs.query(ONES, k=5, where=F("n") >= 0, **options)
        assert all(hit.metadata["n"] >= 0 for hit in hits)


def test_requests_stay_below_what_a_server_takes(
    chroma_target: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies over 40 MiB are refused: 5,461 rows of 1,536 numbers, or fewer with long texts."""
    rng = np.random.default_rng(2)
    with vk.connect(chroma_target) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 1_536, text=False))
        docs.upsert(vk.Batch([f"{n}" for n in range(5_461)], rng.normal(size=(5_461, 1_536)).astype(np.float32)))
        assert docs.count() == 5_461
        assert len(docs.query_many(rng.normal(size=(2_600, 1_536)).astype(np.float32), k=1)) == 2_600
    monkeypatch.setattr(rows_module, "BODY", 1_000_000)
    with vk.connect(chroma_target) as store:
        long = store.create_collection(vk.CollectionSpec("long", 8, text=False))
        texts = [f"{n} " + '"\\é\n' * 20_000 for n in range(30)]
        long.upsert(vk.Batch([f"{n}" for n in range(30)], np.ones((30, 8), np.float32), texts))
        assert [row.text for row in long.get(["0", "29"]) if row] == [texts[0], texts[29]]
        native = adapter(store)._rows["long@1"].native
        upsert, sent = native.upsert, []

        def failing(**named: Any) -> None:
            sent.append(len(named["ids"]))
            if len(sent) == 2:
                raise httpx.ReadError("lost")
            upsert(**named)

        monkeypatch.setattr(native, "upsert", failing)
        again = vk.Batch([f"again {n}" for n in range(30)], np.ones((30, 8), np.float32), texts)
        for write, kind in ((long.upsert, vk.Unavailable), (long.insert, vk.Ambiguous)):
            sent.clear()
            with pytest.raises(vk.PartialFailure) as caught:
                write(again)
            assert isinstance(caught.value.__cause__, kind)
            assert caught.value.written == sent[0]
            assert caught.value.failed == tuple(again.ids[sent[0] :])
            assert long.delete(ids=again.ids) == sent[0]


def test_an_insert_of_many_with_one_conflict_writes_nothing(target: Any) -> None:
    with vk.connect(target) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 8, text=False))
        docs.upsert([vk.Record("5800", ONES)])
        with raises(vk.AlreadyExists, "nothing was written", ids=("5800",)):
            docs.insert(vk.Batch([f"{n}" for n in range(6_000)], np.ones((6_000, 8), np.float32)))
        assert docs.count() == 1


def test_a_collection_dropped_under_a_call_is_not_found(target: Any) -> None:
    """Chroma says many things of it; none means that the store is damaged."""
    with vk.connect(target) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 8, text=False))
        docs.upsert([vk.Record("a", ONES)])
        inner = adapter(store)
        for said in (
            vk.Corrupt("Nothing found on disk"),
            vk.Unsupported("Missing metadata segment"),
            vk.Unavailable("?"),
        ):

            def failing(rows: Any, error: vk.VectorkitError = said) -> None:
                raise error

            def run(act: Callable[[Any], None] = failing) -> None:
                from vectorkit.adapter import Scope
                from vectorkit.runtime import drive

                drive(inner._on(Scope(collection="docs@1"), act))

            with raises(type(said)):
                run()
        rows = inner._rows["docs@1"]
        store.drop_collection("docs")
        inner._rows["docs@1"] = rows
        with raises(vk.NotFound):
            run()


def test_of_two_adoptions_of_one_name_one_gives_way(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with vk.connect(target) as one:
        native: Any = one.native
        place = {} if isinstance(target, str) else {"database": target["database"]}
        source = native.create_collection("source", get_or_create=True, **place)
        native._upsert(source.id, ids=["a"], embeddings=[ONES], metadatas=[{"n": 1}], documents=["t"], **place)
        barrier = threading.Barrier(2, timeout=20)
        publish = adapter_module.ChromaAdapter._publish

        def together(self: Any, rows: Any, made: vk.CollectionSpec) -> None:
            barrier.wait()
            publish(self, rows, made)

        monkeypatch.setattr(adapter_module.ChromaAdapter, "_publish", together)

        def adopt() -> str:
            try:
                one.adopt("source", vk.CollectionSpec("kb", 8, metric="l2", text=False))
            except vk.AlreadyExists:
                return "refused"
            return "made"

        with ThreadPoolExecutor(2) as pool:
            assert sorted(future.result() for future in [pool.submit(adopt), pool.submit(adopt)]) == ["made", "refused"]
        assert one.collection("kb").count() == 1


def test_an_adoption_whose_reply_was_lost_is_made(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with vk.connect(target) as store:
        native: Any = store.native
        place = {} if isinstance(target, str) else {"database": target["database"]}
        source = native.create_collection("source", get_or_create=True, **place)
        native._upsert(source.id, ids=["a"], embeddings=[ONES], metadatas=[{"n": 1}], documents=["t"], **place)
        modify = Collection.modify

        def lost(self: Any, **named: Any) -> None:
            modify(self, **named)
            raise httpx.ReadError("lost")

        monkeypatch.setattr(Collection, "modify", lost)
        assert store.adopt("source", vk.CollectionSpec("kb", 8, metric="l2", text=False)).count() == 1
        assert store.collections() == ["kb"]


def test_what_a_killed_adoption_left_goes_when_its_directory_is_opened(tmp_path: Path) -> None:
    url = f"chroma://{tmp_path}/store"
    with vk.connect(url) as store:
        store.native.create_collection(f"{ADOPTING}{uuid.uuid4().hex}", metadata={"_vk_layout": 1})
        strangers = f"{ADOPTING}{uuid.uuid4().hex}"
        store.native.create_collection(strangers)
        store.create_collection(vk.CollectionSpec(f"{ADOPTING}mine", 8))
        assert len(store.native.list_collections()) == 3
    with vk.connect(url) as store:
        assert {model.name for model in store.native.list_collections()} == {strangers, f"{ADOPTING}mine-g1"}
        store.create_collection(vk.CollectionSpec("kb", 8))


def test_more_collections_than_a_page_holds(tmp_path: Path) -> None:
    with vk.connect(f"chroma://{tmp_path}/store") as store:
        for n in range(1_010):
            store.native.create_collection(f"other-{n}", get_or_create=False)
        store.create_collection(vk.CollectionSpec("mine", 8))
        assert len(adapter(store)._models()) == 1_011
        assert store.collections() == ["mine"]


@pytest.mark.parametrize(
    "options", [{"token": "hunter2\n"}, {"token": "hunter2 "}, {"token": "hüntér2"}, {"headers": {"X": "hunter2\n"}}]
)
def test_a_secret_that_no_header_carries_is_refused_unseen(options: dict[str, Any]) -> None:
    for options_ in (options, {**options, "token_header": "x-chroma-token"}):
        with pytest.raises(vk.InvalidArgument) as caught:
            vk.connect({"url": "chroma://127.0.0.1:9", **options_})
        told = ""
        error: BaseException | None = caught.value
        while error is not None:
            told += repr(error)
            error = error.__cause__ or error.__context__
        assert "hunter2" not in told
        assert "hüntér2" not in told
    with pytest.raises(vk.InvalidArgument) as caught:
        vk.connect("chroma://:hunter2%0A@127.0.0.1:9")
    assert "hunter2" not in repr(caught.value)


def test_a_hosts_name_may_begin_with_http() -> None:
    for host, port, secure in [("http-store", 9_000, False), ("https.example.com", None, True), ("::1", 9_000, False)]:
        scheme = "chroma+https" if secure else "chroma"
        client = Client(Target(scheme=scheme, host=host, port=port), ChromaOptions())
        shown = f"[{host}]" if ":" in host else host
        assert client.api.get_api_url() == f"http{'s' if secure else ''}://{shown}:{port or 443}/api/v2"
        client.close()


@pytest.mark.parametrize(
    "options", [{"timeout": math.inf}, {"timeout": 1e20}, {"database": "\ud800ab"}, {"tenant": "a\0bc"}]
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with raises(vk.InvalidArgument):
        vk.connect({"url": "chroma://127.0.0.1:9", **options})


def test_a_host_that_cannot_be_looked_up() -> None:
    with raises(vk.ConfigError, "host"):
        vk.connect("chroma://a..b:8000")


def test_words_are_those_of_one_database(tmp_path: Path) -> None:
    """The databases of a directory share the side-car's file, and were answered with each other's words."""
    url = f"chroma://{tmp_path}/store"
    spec = vk.CollectionSpec("docs", 8)
    with vk.connect(url) as store:
        store.native.create_database("second")
        store.create_collection(spec).upsert([vk.Record("a", ONES, "alpha")])
    with vk.connect({"url": url, "database": "second"}) as store:
        docs = store.create_collection(spec)
        docs.upsert([vk.Record("b", ONES, "beta")])
        assert docs.keyword("alpha") == []
        assert docs.keyword("beta").ids == ["b"]
    with vk.connect(url) as store:
        docs = store.collection("docs")
        assert docs.keyword("alpha").ids == ["a"]
        assert docs.keyword("beta") == []
