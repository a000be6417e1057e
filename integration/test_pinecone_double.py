"""Pinecone's adapter against its double where the contract does not look: limits that are split, waiting, races of creators, damage, adoption.

What goes wrong on the way is in test_faults_pinecone.py.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from integration.servers.pinecone import PineconeServer
from vectorkit import F
from vectorkit.testing.faces import COLOURS, Bench, Colour
from vectorkit_pinecone.double import Control

pytestmark = pytest.mark.own

SPEC = vk.CollectionSpec("docs", 2, fields={"n": int, "s": str})
KINDS = ("documents", "vectors")


@pytest.fixture
def double(pinecone_server: PineconeServer, pinecone_target: dict[str, Any]) -> Control:
    """The control of the double that `pinecone_target` is on."""
    return pinecone_server.control


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, pinecone_target: dict[str, Any]) -> dict[str, Any]:
    return {**pinecone_target, "api": request.param}


def many(double: Control) -> dict[str, int]:
    """Requests by path, since the last look."""
    found = {path: told["requests"] for path, told in double.traffic().items()}
    double.forget()
    return found


# --------------------------------------------------------------------------------------------- one request a verb


def test_requests_of_each_verb(pinecone_target: dict[str, Any], double: Control) -> None:
    """A verb is one request where Pinecone has it: a delete by ids looks first, an update reads, a wait asks search and fetch."""
    documents = "POST /namespaces/{namespace}/documents/"
    with vk.connect({**pinecone_target, "wait": None}) as store:
        docs = store.create_collection(SPEC)
        assert many(double) == {
            "GET /indexes": 2,
            "POST /indexes": 1,
            f"{documents}upsert": 1,
            f"{documents}fetch": 1,
            "PATCH /indexes/{name}": 1,
        }
        rows = [vk.Record(f"r{n}", [1, n], f"word{n} all", {"n": n, "s": "x"}) for n in range(20)]
        verbs: list[tuple[Callable[[], Any], dict[str, int]]] = [
            (lambda: docs.upsert(rows), {f"{documents}upsert": 1}),
            (
                lambda: docs.upsert(rows, wait=5),
                {f"{documents}upsert": 1, f"{documents}search": 1, f"{documents}fetch": 1},
            ),
            (lambda: docs.get(["r1", "r2"]), {f"{documents}fetch": 1}),
            (lambda: docs.query([1, 0], k=5, where=F("n") > 3), {f"{documents}search": 1}),
            (lambda: docs.query_many([[1, 0], [0, 1]], k=5), {f"{documents}search": 2}),
            (lambda: docs.query([1, 0], k=5, where=F("free") == 1), {f"{documents}search": 1}),
            (lambda: docs.keyword("word7"), {f"{documents}search": 1}),
            (lambda: docs.keyword("all", k=3), {f"{documents}search": 3}),  # all tie: their ids, and the rows of three
            (lambda: docs.hybrid("word7", [1, 0]), {f"{documents}search": 2}),
            (lambda: docs.count(), {f"{documents}fetch": 1}),  # just written, so not by the statistics
            (lambda: docs.count(F("n") > 3), {f"{documents}fetch": 1}),
            (lambda: list(docs.scan()), {f"{documents}fetch": 1}),
            (lambda: docs.update(ids=["r1"], set={"a": 1}), {f"{documents}fetch": 1, f"{documents}update": 1}),
            (lambda: docs.delete(ids=["r1"]), {f"{documents}fetch": 1, f"{documents}delete": 1}),
            (lambda: docs.delete(where=F("n") == 2), {f"{documents}delete": 1}),
            (lambda: docs.stats(), {f"{documents}fetch": 1}),  # just written too
            (lambda: docs.delete(everything=True), {f"{documents}fetch": 1, f"{documents}delete": 1}),
            (lambda: store.collections(), {"GET /indexes": 1}),
            (lambda: store.collection("docs"), {"GET /indexes": 1, f"{documents}fetch": 1}),
            (lambda: store.drop_collection("docs"), {"GET /indexes": 1, "DELETE /indexes/{name}": 1}),
        ]
        for verb, wanted in verbs:
            verb()
            assert many(double) == wanted, wanted


# --------------------------------------------------------------------------------------------- limits


def test_what_is_too_much_for_one_answer_is_asked_for_in_parts(target: dict[str, Any], double: Control) -> None:
    """Texts of 10 KB: 400 are as much as one answer may hold."""
    rows = [vk.Record(f"r{n:04d}", [1, n], f"word {'x' * 10_000}", {"n": n, "free": n}) for n in range(600)]
    with vk.connect(target) as store:
        docs = store.create_collection(SPEC)
        docs.upsert(rows)
        ids = [row.id for row in rows]
        assert [r and r.id for r in docs.get(ids)] == ids
        assert sorted(r.id for r in docs.scan(vectors=True)) == ids
        assert len(docs.query([1, 0], k=600)) == 600
        assert docs.query([1, 0], k=600, vectors=True).coverage == "complete"
        assert docs.query([1, 0], k=3, where=F("free") == 577).ids == ["r0577"]
        assert docs.count(F("n") >= 1) == 599
        assert docs.update(where=F("n") >= 0, set={"seen": True}) == 600
        if target["api"] == "documents":
            assert docs.keyword("word", k=1).ids == ["r0000"]
            assert sorted(docs.keyword("word", k=600).ids) == ids
            assert len(docs.hybrid("word", [1, 0], k=500)) == 500
        assert docs.delete(where=F("free") < 300) == 300
        assert docs.delete(ids=ids) == 300


def test_wide_vectors_are_asked_for_in_parts(target: dict[str, Any]) -> None:
    vectors = np.random.default_rng(1).normal(size=(300, 1536)).astype(np.float32)
    with vk.connect(target) as store:
        docs = store.create_collection(vk.CollectionSpec("wide", 1536, fields={"n": int}))
        docs.upsert(vk.Record(f"r{n:03d}", vector, None, {"n": n % 2}) for n, vector in enumerate(vectors))
        hits = docs.query(vectors[7], k=300, vectors=True)
        assert (len(hits), hits[0].id, hits.coverage) == (300, "r007", "complete")
        assert len(docs.query(vectors[7], k=166)) == 166
        found = {record.id: record for record in docs.scan(vectors=True)}
        for n, vector in enumerate(vectors):
            np.testing.assert_allclose(np.asarray(found[f"r{n:03d}"].vector), vector, rtol=1e-6)
        assert len(docs.get([f"r{n:03d}" for n in range(300)], vectors=True)) == 300
        assert docs.count(F("n") == 1) == 150
        assert docs.update(ids=[f"r{n:03d}" for n in range(300)], set={"n": 2}) == 300
        assert docs.delete(ids=[f"r{n:03d}" for n in range(300)]) == 300


def test_a_delete_in_parts_says_how_far_it_came(pinecone_target: dict[str, Any], double: Control) -> None:
    with vk.connect(pinecone_target) as store:
        docs = store.create_collection(SPEC)
        docs.upsert(vk.Record(f"r{n:04d}", [1, n]) for n in range(2_400))
        ids = [f"r{n:04d}" for n in range(2_400)]
        double.fail(status=400, path="/documents/delete", skip=1, times=1)
        with pytest.raises(vk.PartialFailure) as caught:
            docs.delete(ids=ids)
        assert (caught.value.written, list(caught.value.failed)) == (1_000, ids[1_000:])
        double.settle()
        assert sorted(r.id for r in docs.scan()) == ids[1_000:]


def test_requests_of_long_ids_and_other_scripts_stay_below_two_megabytes(target: dict[str, Any]) -> None:
    rows = [vk.Record(f"{n:04d}" + "i" * 507, [1, n], "t" * 1_280, {}) for n in range(1_000)]
    with vk.connect(target) as store:
        docs = store.create_collection(SPEC)
        assert docs.upsert(rows).written == 1_000
        assert docs.update(ids=[row.id for row in rows[:150]], set={"long": "日" * 12_000}) == 150
        assert docs.count() == 1_000
        (row,) = docs.get([rows[149].id])
        assert row is not None
        assert row.metadata["long"] == "日" * 12_000


@pytest.mark.parametrize("colour", COLOURS)
def test_keyword_under_a_filter_that_is_looked_at_again_at_any_k(
    pinecone_target: dict[str, Any], colour: Colour
) -> None:
    with Bench(pinecone_target, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(vk.Record(f"r{n:05d}", [1, n], "word", {"zz": int(n >= 10_030)}) for n in range(10_050))
            for k in (10, 2_600, 10_000):
                hits = await docs.keyword("word", k=k, where=F("zz") == 1)
                assert len(hits) == min(k, 20)

        bench.run(body())


def test_a_filtered_count_ends_at_the_limit(target: dict[str, Any]) -> None:
    with vk.connect({**target, "residual_limit": 50}) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 2, expiry=True, fields={"n": int}))
        docs.upsert(vk.Record(f"r{n}", [1, n], None, {"n": n}) for n in range(60))
        for where in (None, F("n") >= 0):
            with pytest.raises(vk.Unsupported, match="residual_limit"):
                docs.count(where)
        assert docs.count(F("n") < 50) == 50
        assert docs.stats().rows == 60
        if target["api"] == "documents":
            assert docs.delete(everything=True) == 60
            assert docs.count() == 0


def test_the_quota_of_indexes(pinecone_target: dict[str, Any], double: Control) -> None:
    double.set(max_indexes=1)
    with vk.connect(pinecone_target) as store:
        store.create_collection(SPEC)
        with pytest.raises(vk.Unsupported, match="quota"):
            store.create_collection(vk.CollectionSpec("more", 2))
        assert store.collections() == ["docs"]
        store.drop_collection("docs")
        store.create_collection(vk.CollectionSpec("more", 2))


# --------------------------------------------------------------------------------------------- waiting


@pytest.mark.parametrize(("delay", "fetch_delay"), [(0.1, 0.5), (0.5, 0.1)])
def test_a_write_is_seen_by_every_verb_after_the_wait(
    target: dict[str, Any], double: Control, delay: float, fetch_delay: float
) -> None:
    """Searches and fetches see a write at different times; what returned is seen by both."""
    with vk.connect(target) as store:
        docs = store.create_collection(SPEC)
        double.set(delay=delay, fetch_delay=fetch_delay)
        docs.upsert([vk.Record(f"r{n}", [1, n], None, {"n": n % 2}) for n in range(10)])
        assert (docs.count(), len(docs.query([1, 0], k=20)), len(list(docs.scan()))) == (10, 10, 10)
        assert docs.update(ids=["r1"], set={"n": 7}) == 1
        assert (docs.count(F("n") == 7), docs.query([1, 0], where=F("n") == 7).ids) == (1, ["r1"])
        assert docs.delete(where=F("n") == 1) == 4
        assert (docs.count(), len(docs.query([1, 0], k=20)), len(list(docs.scan()))) == (6, 6, 6)
        assert docs.delete(where=F("n") == 1) == 0
        assert docs.delete(ids=["r1", "r1x"]) == 1
        assert (docs.count(), len(docs.query([1, 0], k=20))) == (5, 5)
        assert docs.delete(everything=True) == 5
        assert (docs.count(), len(docs.query([1, 0], k=20)), len(list(docs.scan()))) == (0, 0, 0)


def test_an_update_waits_for_this_handles_own_upsert(target: dict[str, Any], double: Control) -> None:
    """What it reads it writes back: an older version would undo the upsert."""
    with vk.connect({**target, "wait": None}) as store:
        docs = store.create_collection(SPEC)
        docs.upsert([vk.Record("x", [1, 0], "old", {"a": 1})])
        double.set(delay=0.4)
        docs.upsert([vk.Record("x", [0, 1], "new", {"n": 5})])
        assert docs.update(ids=["x"], set={"q": 2}) == 1
        double.settle()
        (row,) = docs.get(["x"], vectors=True)
        assert row is not None
        assert (row.text, dict(row.metadata)) == ("new", {"n": 5, "q": 2})
        np.testing.assert_array_equal(np.asarray(row.vector), [0, 1])


@pytest.mark.parametrize("api", KINDS)
def test_trouble_while_waiting_is_no_failed_write(pinecone_target: dict[str, Any], double: Control, api: str) -> None:
    with vk.connect({**pinecone_target, "api": api}) as store:
        docs = store.create_collection(SPEC)
        double.fail(status=429, path="search" if api == "documents" else "/query", times=3)
        assert docs.upsert(vk.Record(f"r{n}", [1, n]) for n in range(2_500)).written == 2_500
        assert docs.count() == 2_500


@pytest.mark.parametrize("colour", COLOURS)
def test_a_wait_that_ends_unseen_says_that_the_rows_are_written(
    pinecone_target: dict[str, Any], double: Control, colour: Colour
) -> None:
    with Bench(pinecone_target, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            double.set(delay=0.8)
            began = time.monotonic()
            with pytest.raises(vk.DeadlineExceeded) as caught:
                await docs.upsert((vk.Record(f"r{n}", [1, n]) for n in range(2_500)), wait=0.2)
            assert caught.value.landed
            assert time.monotonic() - began < 0.8 + 2
            await docs.upsert([vk.Record("late", [1, 0])], wait=0)
            await docs.upsert([vk.Record("last", [1, 0])], wait=20)
            assert await docs.count() == 2_502

        bench.run(body())


def test_a_long_delete_with_a_short_wait_is_whole(target: dict[str, Any], double: Control) -> None:
    """Ten thousand go in one call of the adapter; a wait that ends after the first part must not keep the second from being sent."""
    with vk.connect(target) as store:
        docs = store.create_collection(SPEC)
        docs.upsert(vk.Record(f"r{n}", [1, n]) for n in range(10_050))
        ids = [f"r{n}" for n in range(10_050)]
        with vk.connect({**target, "wait": 0.01}) as hasty:
            double.set(delay=1.0)
            acts: list[Callable[[], int]] = [
                lambda: hasty.collection("docs").update(ids=ids, set={"n": 1}),
                lambda: hasty.collection("docs").delete(ids=ids),
            ]
            for act in acts:
                with pytest.raises(vk.DeadlineExceeded) as caught:
                    act()
                assert caught.value.landed
                double.settle()
        assert docs.count() == 0


def test_a_delete_of_what_is_not_seen_yet_is_no_loss(target: dict[str, Any], double: Control) -> None:
    with vk.connect({**target, "wait": None}) as store:
        docs = store.create_collection(SPEC)
        double.set(delay=0.4)
        docs.upsert([vk.Record("k", [1, 0])])
        docs.delete(ids=["k"])
        time.sleep(0.6)
        assert docs.get(["k"]) == [None]
        assert docs.count() == 0


def test_a_row_that_somebody_deletes_meanwhile_does_not_stall_the_wait(target: dict[str, Any], double: Control) -> None:
    with vk.connect(target) as store, vk.connect({**target, "wait": None}) as other:
        docs = store.create_collection(SPEC)
        docs.upsert([vk.Record("k", [1, 0])])
        double.set(delay=0.5)
        with ThreadPoolExecutor(1) as pool:
            began = time.monotonic()
            writing = pool.submit(docs.upsert, [vk.Record("k", [0, 1])])
            time.sleep(0.1)
            other.collection("docs").delete(ids=["k"])
            assert writing.result(20).written == 1
        assert time.monotonic() - began < 5


def test_fetches_that_lag_lose_no_rows_of_a_query(pinecone_target: dict[str, Any], double: Control) -> None:
    """Beyond what one answer holds the rows are searched for again, not fetched."""
    with vk.connect({**pinecone_target, "wait": None}) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 256))
        double.set(delay=0.0, fetch_delay=30.0)
        vectors = np.random.default_rng(1).normal(size=(700, 256))
        docs.upsert([vk.Record(f"r{n}", vector, "word") for n, vector in enumerate(vectors)])
        hits = docs.query(vectors[0], k=1_000)
        assert (len(hits), hits.coverage) == (700, "exact")
        assert len(docs.keyword("word", k=700)) == 700


# --------------------------------------------------------------------------------------------- crossing


@pytest.mark.parametrize("crossing", ["update", "upsert"])
def test_crossing_writes_leave_no_row_that_a_filter_finds_wrongly(
    target: dict[str, Any], double: Control, crossing: str
) -> None:
    path = "/documents/update" if target["api"] == "documents" else "/vectors/upsert"
    with vk.connect(target) as store, vk.connect(target) as other:
        docs = store.create_collection(SPEC)
        docs.upsert([vk.Record("x", [1, 0], "old", {})])
        double.fail(action="slow", path=path, when="before", seconds=0.5, times=1)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(docs.update, ids=["x"], set={"n": 1})
            time.sleep(0.2)
            beside = other.collection("docs")
            if crossing == "update":
                beside.update(ids=["x"], set={"s": "hello"})
            else:
                beside.upsert([vk.Record("x", [1, 0], "new", {"s": "hello"})])
            first.result(20)
        (row,) = docs.get(["x"])
        assert row is not None
        for where in (F("s") == "hello", F("n") == 1, F("s").startswith("h"), F("s").missing(), F("n").exists()):
            wanted = ["x"] if where.matches(row.metadata) else []
            assert (docs.query([1, 0], where=where).ids, docs.count(where)) == (wanted, len(wanted)), where


def test_of_two_creators_one_has_the_name_however_slow(pinecone_target: dict[str, Any], double: Control) -> None:
    double.fail(action="slow", path="/indexes", method="POST", when="before", seconds=2.5, times=1)
    found: dict[str, Any] = {}

    def make(name: str) -> None:
        with vk.connect(pinecone_target) as store:
            try:
                docs = store.create_collection(SPEC)
            except vk.AlreadyExists as error:
                found[name] = error
            else:
                docs.upsert([vk.Record(name, [1, 0])])
                found[name] = docs.spec.generation

    slow = threading.Thread(target=make, args=("slow",))
    slow.start()
    time.sleep(1.1)
    make("fast")
    slow.join()
    assert isinstance(found["slow"], vk.AlreadyExists)
    with vk.connect(pinecone_target) as store:
        assert store.collection("docs").get(["fast"])[0] is not None
        assert len(list(store.native.indexes.list())) == 1


def test_all_who_ensure_have_it_while_the_index_comes_up(pinecone_target: dict[str, Any], double: Control) -> None:
    double.set(ready_delay=1.0)

    def ensure(_: int) -> int:
        with vk.connect(pinecone_target) as store:
            return store.ensure_collection(SPEC).spec.generation

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(ensure, range(6)))) == 1


def test_a_create_whose_reply_was_lost_is_still_ours(pinecone_target: dict[str, Any], double: Control) -> None:
    double.fail(status=503, path="/indexes", method="POST", when="after", times=1)
    with vk.connect(pinecone_target) as store:
        store.create_collection(SPEC).upsert([vk.Record("a", [1, 0])])
        assert store.collection("docs").count() == 1


def test_what_was_begun_and_left_is_swept_an_hour_later(pinecone_target: dict[str, Any]) -> None:
    with vk.connect({**pinecone_target, "ready_timeout": 0.5}) as store:
        store.create_collection(SPEC)
        (model,) = store.native.indexes.list()
        store.native.indexes.configure(model.name, tags={"vk_state": "building"})
        assert store.collections() == []
        with pytest.raises(vk.Unavailable, match="being made by somebody else"):
            store.ensure_collection(SPEC)
        store.native.indexes.configure(model.name, tags={"vk_begun": str(int(time.time()) - 3_700)})
        assert store.ensure_collection(SPEC).count() == 0
        assert [one.name for one in store.native.indexes.list()] != [model.name]


@pytest.mark.parametrize(
    "tags", [{"vk_state": ""}, {"vk_state": "published "}, {"vk_begun": "", "vk_state": "building"}]
)
def test_a_damaged_tag_loses_nothing(pinecone_target: dict[str, Any], tags: dict[str, str]) -> None:
    with vk.connect(pinecone_target) as store:
        docs = store.create_collection(SPEC)
        docs.upsert([vk.Record("a", [1, 0])])
        (model,) = store.native.indexes.list()
        store.native.indexes.configure(model.name, tags=tags | {"vk_begun": tags.get("vk_begun", "1700000000")})
        with vk.connect(pinecone_target) as other:
            acts: list[Callable[[], vk.Collection]] = [
                lambda: other.ensure_collection(SPEC),
                lambda: other.create_collection(SPEC),
                lambda: other.collection("docs"),
            ]
            for act in acts:
                with pytest.raises(vk.Corrupt, match="vk_state"):
                    act()
        store.native.indexes.configure(model.name, tags={"vk_state": "published", "vk_begun": "1700000000"})
        assert store.collection("docs").count() == 1


def test_damaged_specs_and_layouts_are_told(pinecone_target: dict[str, Any]) -> None:
    with vk.connect(pinecone_target) as store:
        store.create_collection(SPEC)
        (model,) = store.native.indexes.list()
        with store.native.index(host=model.host) as index:
            index.documents.update(namespace="control", documents=[{"_id": "spec", "vk_spec": "{"}])
            with pytest.raises(vk.Corrupt, match="'spec'"):
                store.collection("docs")
            index.documents.delete(namespace="control", ids=["spec"])
            with pytest.raises(vk.Corrupt, match="'control'"):
                store.collection("docs")
        store.native.indexes.configure(model.name, tags={"vk_layout": "2"})
        with pytest.raises(vk.Unsupported, match="layout"):
            store.collection("docs")


def test_a_record_of_somebody_else_among_ours_is_told(pinecone_target: dict[str, Any]) -> None:
    with vk.connect(pinecone_target) as store:
        docs = store.create_collection(SPEC)
        docs.upsert([vk.Record("a", [1, 0])])
        (model,) = store.native.indexes.list()
        with store.native.index(host=model.host) as index:
            index.documents.upsert(namespace="rows", documents=[{"_id": "alien", "vk_vector": [1, 0]}])
        with pytest.raises(vk.Corrupt, match="'alien' in the namespace"):
            docs.query([1, 0])
        assert [r.id for r in docs.scan()] == ["a"]


def test_deletion_protection(pinecone_target: dict[str, Any]) -> None:
    with vk.connect({**pinecone_target, "deletion_protection": True}) as store:
        store.create_collection(SPEC)
        with pytest.raises(vk.Unsupported, match=r"[Pp]rotection"):
            store.drop_collection("docs")
        assert store.collection("docs").count() == 0


@pytest.mark.parametrize(
    "switches",
    [
        {"missing_matches_ne": True, "any_element_ne": True},
        {"missing_namespace_404": False},
        {"float32_scores": True, "unsorted_matches": True},
        {"dense_only_gap": True},
    ],
)
def test_what_is_not_documented_changes_no_answer(
    target: dict[str, Any], double: Control, switches: dict[str, Any]
) -> None:
    double.set(**switches)
    oracle = vk.connect("memory://")
    spec = vk.CollectionSpec("docs", 2, metric="l2", fields={"n": int, "s": str, "tags": list[str]}, text=False)
    rows = [
        vk.Record(f"r{n}", [n % 7, n % 5], None, {"n": n, "tags": ["a", "b"][: n % 3]} if n % 4 else {"s": f"t{n}"})
        for n in range(60)
    ]
    with vk.connect(target) as store:
        mine, right = store.create_collection(spec), oracle.create_collection(spec)
        if "dense_only_gap" in switches and target["api"] == "vectors":
            return  # seen of indexes of documents
        assert (mine.count(), mine.get(["a"]), mine.delete(where=F("n") == 1), mine.query([1, 0])) == (0, [None], 0, [])
        assert (mine.delete(ids=["a"]), mine.update(ids=["a"], set={"n": 1}), mine.delete(everything=True)) == (0, 0, 0)
        for docs in (mine, right):
            docs.upsert(rows)
        for where in (F("n") != 3, ~F("tags").contains("a"), F("s").not_in(["t4"]), F("n").missing(), ~(F("n") > 30)):
            assert mine.count(where) == right.count(where), where
            found, wanted = mine.query([3, 2], k=60, where=where), right.query([3, 2], k=60, where=where)
            assert sorted(found.ids) == sorted(wanted.ids), where
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted])
    oracle.close()


def test_numbers_that_leave_float32_are_refused_or_right(target: dict[str, Any], double: Control) -> None:
    double.set(float32_scores=True)
    with vk.connect(target) as store:
        dot = store.create_collection(vk.CollectionSpec("dot", 2, metric="dot"))
        dot.upsert([vk.Record("big", [3e38, 3e38]), vk.Record("small", [9e-6, 0]), vk.Record("zero", [0, 0])])
        assert dot.query([1, 1], k=1).ids == ["big"]
        assert dot.query([1e6, 0], k=3).ids == ["big", "small", "zero"]
        far = store.create_collection(vk.CollectionSpec("far", 2, metric="l2"))
        with pytest.raises(vk.InvalidRecord, match="norm"):
            far.upsert([vk.Record("a", [2e18, 0])])
        with pytest.raises(vk.Unsupported, match="norm"):
            far.query([2e18, 0])


def test_expiry_is_kept_to_the_microsecond_and_beyond_float64(target: dict[str, Any]) -> None:
    now = datetime(2024, 2, 29, tzinfo=UTC)
    with vk.connect(target, clock=lambda: now) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", 2, expiry=True))
        ends = [now, now + timedelta(microseconds=1), datetime(2300, 1, 1, 0, 0, 0, 1, tzinfo=UTC), None]
        docs.upsert([vk.Record(str(n), [1, n], None, {}, at) for n, at in enumerate(ends)])
        assert [r and r.expires_at for r in docs.get(["0", "1", "2", "3"])] == [None, *ends[1:]]
        assert sorted(docs.query([1, 0]).ids) == ["1", "2", "3"]
        assert docs.count() == 3


# --------------------------------------------------------------------------------------------- adoption


@pytest.fixture
def foreign(pinecone_target: dict[str, Any]) -> Iterator[Callable[..., None]]:
    """Makes an index of somebody else's: classic vectors, or documents."""
    with vk.connect(pinecone_target) as store:

        def make(kind: str, rows: list[dict[str, Any]], namespace: str = "__default__") -> None:
            field = {"type": "dense_vector", "dimension": 2, "metric": "cosine"}
            body = {"type": "string", "full_text_search": {}}
            fields = {"_values": field} if kind == "vectors" else {"embedding": field, "body": body}
            store.native.indexes.create(name="theirs", schema={"fields": fields})
            with store.native.index(name="theirs") as index:
                if kind == "vectors":
                    index.upsert(vectors=rows, namespace=namespace)
                else:
                    index.documents.upsert(documents=rows, namespace=namespace)

        yield make


@pytest.mark.parametrize("into", KINDS)
def test_a_classic_index_is_adopted(pinecone_target: dict[str, Any], foreign: Callable[..., None], into: str) -> None:
    rows = [
        {
            "id": f"v{n}",
            "values": [1.0, float(n)],
            "metadata": {"page": n, "text": "t" * 8_000, "_id": "own", "tags": ["a"]},
        }
        for n in range(220)
    ]
    foreign("vectors", rows, "ns")
    spec = vk.CollectionSpec("mine", 2, fields={"page": int, "tags": list[str]})
    with vk.connect({**pinecone_target, "api": into}) as store:
        docs = store.adopt("theirs?namespace=ns&text=text", spec)
        (row,) = docs.get(["v7"], vectors=True)
        assert row is not None
        assert (row.text, dict(row.metadata)) == ("t" * 8_000, {"page": 7, "_id": "own", "tags": ["a"]})
        np.testing.assert_array_equal(np.asarray(row.vector), [1, 7])
        assert docs.count() == 220
        assert docs.query([1, 0], k=2, where=F("page") >= 5).ids == ["v5", "v6"]
        assert store.collections() == ["mine"]


def test_an_index_of_documents_is_adopted(pinecone_target: dict[str, Any], foreign: Callable[..., None]) -> None:
    foreign("documents", [{"_id": "d", "embedding": [1, 0], "body": "some words", "year": 2024, "ok": True}])
    with vk.connect(pinecone_target) as store:
        docs = store.adopt("theirs?text=body", vk.CollectionSpec("mine", 2, fields={"year": int}))
        (row,) = docs.get(["d"])
        assert row is not None
        assert (row.text, dict(row.metadata)) == ("some words", {"year": 2024, "ok": True})
        assert docs.keyword("WORDS").ids == ["d"]


def test_what_cannot_be_adopted_leaves_nothing(pinecone_target: dict[str, Any], foreign: Callable[..., None]) -> None:
    rows: list[dict[str, Any]] = [{"id": f"v{n}", "values": [1.0, float(n)], "metadata": {"page": n}} for n in range(3)]
    rows[2] |= {"metadata": {"page": "two"}, "sparse_values": {"indices": [1], "values": [0.5]}}
    foreign("vectors", rows)
    with vk.connect(pinecone_target) as store:
        cases: list[tuple[str, dict[str, Any], type[vk.VectorkitError], str]] = [
            ("nothere", {}, vk.NotFound, "nothere"),
            ("theirs?namespace=typo", {}, vk.NotFound, "typo"),
            ("theirs", {"metric": "dot"}, vk.SpecMismatch, "cosine"),
            ("theirs", {"dimension": 3}, vk.DimensionMismatch, "2"),
            ("theirs", {}, vk.InvalidRecord, "sparse"),
            ("theirs?text=page", {}, vk.InvalidRecord, "sparse"),
        ]
        for name, more, error, told in cases:
            with pytest.raises(error, match=told):
                store.adopt(name, vk.CollectionSpec("mine", **{"dimension": 2, **more}))
            assert store.collections() == []
            assert [one.name for one in store.native.indexes.list()] == ["theirs"]
        with store.native.index(name="theirs") as index:
            index.delete(ids=["v2"], namespace="__default__")
        with pytest.raises(vk.InvalidArgument, match="no row has a field 'typo'"):
            store.adopt("theirs?text=typo", vk.CollectionSpec("mine", 2))
        assert store.adopt("theirs", vk.CollectionSpec("mine", 2)).count() == 2
        with pytest.raises(vk.AlreadyExists):
            store.adopt("theirs", vk.CollectionSpec("mine", 2))
