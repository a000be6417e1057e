"""Chroma when things end badly: killed and frozen servers, races to be first, owners of a directory, damaged files, hostile text.

Whatever happens, an acknowledged row is there or the error says `Corrupt`, and every error is vectorkit's.
"""

import asyncio
import gc
import multiprocessing
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import vectorkit as vk
from integration.chroma_kit import database, numbered
from integration.servers.chroma import ChromaServer
from vectorkit import F
from vectorkit.testing.kit import ids_of, raises
from vectorkit.testing.values import PAYLOADS

SPEC = vk.CollectionSpec("docs", 8, fields={"n": int})
EAST = [1.0, 0, 0, 0, 0, 0, 0, 0]
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def own_server() -> Iterator[ChromaServer]:
    """A server that may be killed."""
    with ChromaServer() as server:
        yield server


# --------------------------------------------------------------------------------------------- servers


@pytest.mark.slow
def test_a_server_killed_during_ingest(own_server: ChromaServer) -> None:
    """After the restart: every acknowledged row, whole, or Corrupt. No error but vectorkit's."""
    outcomes = [_killed_during_ingest(own_server, 0.25 + 0.2 * round_) for round_ in range(4)]
    assert "whole" in outcomes, outcomes


def _killed_during_ingest(server: ChromaServer, after: float) -> str:
    store = vk.connect({**database(server), "timeout": 5.0})
    docs = store.create_collection(SPEC)
    acknowledged = 0

    def ingest() -> None:
        nonlocal acknowledged
        for start in range(0, 200_000, 200):
            docs.upsert(numbered(start, start + 200))
            acknowledged = start + 200

    timer = threading.Timer(after, server.kill)
    timer.start()
    with pytest.raises((vk.Unavailable, vk.DeadlineExceeded)) as caught:
        ingest()
    assert caught.value.retryable
    timer.join()
    for call in (lambda: docs.query(EAST), docs.count, store.collections, lambda: docs.upsert(numbered(0, 1))):
        with raises(vk.Unavailable, "chroma://"):
            call()
    server.start()
    try:
        there = {record.id: record for record in docs.scan(vectors=True)}
        assert docs.count() == len(there) >= acknowledged
        for record in numbered(0, acknowledged):
            found = there[record.id]
            assert (found.text, found.metadata) == (record.text, record.metadata)
            assert found.vector == pytest.approx(record.vector, rel=1e-6)
        assert len(docs.query(EAST, k=10)) == min(10, len(there))
        docs.upsert(numbered(0, 50))
    except vk.Corrupt:
        return "corrupt"
    finally:
        store.close()
    return "whole"


@pytest.mark.slow
def test_a_server_killed_during_queries(own_server: ChromaServer) -> None:
    """Readers get answers or retryable errors, and answers again once the server is back; no handle is made anew."""
    store = vk.connect({**database(own_server), "timeout": 5.0})
    docs = store.create_collection(SPEC)
    docs.upsert(numbered(0, 500))
    expected = ids_of(docs.query(EAST, k=5))
    stop = threading.Event()
    wrong: list[str] = []
    answered = [0, 0]

    def read() -> None:
        while not stop.is_set():
            try:
                if ids_of(docs.query(EAST, k=5)) != expected:
                    wrong.append("another answer")
                answered[own_server_is_back.is_set()] += 1
            except (vk.Unavailable, vk.DeadlineExceeded):
                time.sleep(0.01)
            except Exception as error:  # noqa: BLE001 - whatever else it is, it is wrong
                wrong.append(repr(error))

    own_server_is_back = threading.Event()
    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    time.sleep(0.5)
    own_server.kill()
    own_server.start()
    own_server_is_back.set()
    time.sleep(1)
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert min(answered) > 0
    store.close()


def test_a_frozen_server(own_server: ChromaServer) -> None:
    """With a timeout of 200 ms every verb says DeadlineExceeded at once, connecting too; thawed, the handle goes on."""
    place = {**database(own_server), "timeout": 0.2}
    store = vk.connect(place)
    docs = store.create_collection(SPEC)
    docs.upsert(numbered(0, 20))
    assert store.capability.deadline is True
    own_server.freeze()
    calls: list[Callable[[], Any]] = [
        lambda: docs.query(EAST),
        lambda: docs.upsert(numbered(0, 1)),
        lambda: docs.insert(numbered(50, 51)),
        docs.count,
        lambda: docs.get(["r000000"]),
        lambda: docs.update(ids=["r000000"], set={"n": 1}),
        lambda: docs.delete(ids=["r000000"]),
        store.collections,
        lambda: vk.connect(place),
    ]
    for call in calls:
        began = time.monotonic()
        with raises(vk.DeadlineExceeded, "0.2 s", retryable=True):
            call()
        assert time.monotonic() - began < 1.0
    own_server.thaw()
    time.sleep(0.3)
    assert docs.get(["r000019"])[0] is not None
    store.close()


def test_no_server() -> None:
    with raises(vk.Unavailable, "chroma://127.0.0.1:1", retryable=True):
        vk.connect("chroma://:hunter2@127.0.0.1:1")
    with raises(vk.Unavailable):
        vk.connect("chroma+https://127.0.0.1:1")
    for url in ("chroma+http:///tmp/x", "chroma://localhost:8000/path"):
        with raises(vk.ConfigError):
            vk.connect(url)


def test_a_missing_database_is_not_found(chroma_server: ChromaServer) -> None:
    with raises(vk.NotFound):
        vk.connect({"url": chroma_server.url, "database": "nowhere"})


def test_a_collection_dropped_and_made_again_elsewhere(chroma_server: ChromaServer) -> None:
    """An old handle never reads its successor's rows under the old spec, and no generation is given twice."""
    place = database(chroma_server)
    mine, other = vk.connect(place), vk.connect(place)
    docs = mine.create_collection(SPEC)
    docs.upsert(numbered(0, 5))
    scan = docs.scan()
    next(scan)
    other.drop_collection("docs")
    for call in (
        docs.count,
        lambda: docs.query(EAST),
        lambda: docs.upsert(numbered(0, 1)),
        lambda: docs.get(["r000001"]),
    ):
        with raises(vk.NotFound, "docs"):
            call()
    generations = []
    for _ in range(3):
        made = other.create_collection(vk.CollectionSpec("docs", 4))
        generations.append(made.spec.generation)
        made.upsert([vk.Record("r000001", [1, 0, 0, 0], "somebody else's")])
        with raises(vk.DimensionMismatch, expected=4, got=8):
            docs.query(EAST)
        other.drop_collection("docs")
    assert generations == [2, 3, 4]
    assert mine.collections() == other.collections() == []
    mine.close()
    other.close()


# --------------------------------------------------------------------------------------------- who is first


def _ensure(place: Any, ready: Any, results: Any) -> None:
    try:
        store = vk.connect(place)
        ready.wait()
        docs = store.ensure_collection(SPEC)
        docs.upsert(numbered(os.getpid() % 900_000, os.getpid() % 900_000 + 1))
        results.put(docs.spec.generation)
        store.close()
    except Exception as error:  # noqa: BLE001 - told to the parent
        results.put(repr(error))


def test_sixteen_threads_make_one_collection(chroma_server: ChromaServer, tmp_path: Path) -> None:
    """Each with a handle of its own on a server; all with one handle on a directory; twice, since the second is generation 2."""
    place = database(chroma_server)
    embedded = vk.connect(f"chroma://{tmp_path}/store")
    for generation in (1, 2):
        for shared in (None, embedded):
            stores = [vk.connect(place) for _ in range(16)] if shared is None else [shared] * 16
            barrier = threading.Barrier(16)

            def first(n: int, stores: list[vk.Store] = stores, barrier: threading.Barrier = barrier) -> int:
                barrier.wait()
                docs = stores[n].ensure_collection(SPEC)
                docs.upsert(numbered(n, n + 1))
                return docs.spec.generation

            with ThreadPoolExecutor(16) as pool:
                assert set(pool.map(first, range(16))) == {generation}
            assert stores[0].collection("docs").count() == 16
            natives = [
                m.name
                for m in stores[0].native.list_collections(
                    database=place["database"] if shared is None else "default_database"
                )
            ]
            assert [name for name in natives if name.startswith("docs")] == [f"docs-g{generation}"]
            stores[0].drop_collection("docs")
            if shared is None:
                for store in stores:
                    store.close()
    embedded.close()


@pytest.mark.slow
def test_sixteen_processes_make_one_collection(chroma_server: ChromaServer) -> None:
    place = database(chroma_server)
    ready, results = SPAWN.Barrier(16), SPAWN.Queue()
    children = [SPAWN.Process(target=_ensure, args=(place, ready, results)) for _ in range(16)]
    for child in children:
        child.start()
    assert [results.get(timeout=120) for _ in children] == [1] * 16
    for child in children:
        child.join(30)
    store = vk.connect(place)
    assert store.collection("docs").count() == 16
    store.close()


# --------------------------------------------------------------------------------------------- opened and closed


def _held() -> tuple[int, int]:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors and threads in Linux's /proc")
@pytest.mark.parametrize("kind", ["embedded", "server"])
def test_two_hundred_opens_leave_nothing(chroma_server: ChromaServer, tmp_path: Path, kind: str) -> None:
    from chromadb.api.shared_system_client import SharedSystemClient

    place: Any = f"chroma://{tmp_path}/store" if kind == "embedded" else database(chroma_server)

    def once() -> None:
        store = vk.connect(place)
        docs = store.ensure_collection(SPEC)
        docs.upsert(numbered(0, 3))
        assert len(docs.query(EAST)) == 3
        store.close()

    async def once_async() -> None:
        store = await vk.aconnect(place)
        docs = await store.ensure_collection(SPEC)
        assert len(await docs.query(EAST)) == 3
        await store.close()

    for _ in range(3):
        once()
        asyncio.run(once_async())
    before = _held()
    for n in range(200):
        if n % 2:
            once()
        else:
            asyncio.run(once_async())
    after = _held()
    assert after[0] <= before[0] + 2, (before, after)
    assert after[1] <= before[1] + 2, (before, after)
    assert SharedSystemClient._identifier_to_system == {}


def test_a_fork_is_closed(tmp_path: Path) -> None:
    store = vk.connect(f"chroma://{tmp_path}/store")
    docs = store.create_collection(SPEC)
    docs.upsert(numbered(0, 3))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for call in (
                docs.count,
                lambda: docs.keyword("common"),
                lambda: docs.upsert(numbered(5, 6)),
                store.collections,
            ):
                try:
                    call()
                except vk.Closed:
                    continue
                os._exit(2)
            store.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert docs.count() == 3
    assert len(docs.keyword("common")) == 3
    with raises(vk.Locked):
        vk.connect(f"chroma://{tmp_path}/store")
    store.close()


# --------------------------------------------------------------------------------------------- one owner


def _own(place: str, opened: Any, rows: int) -> None:
    docs = vk.connect(place).ensure_collection(SPEC)
    start = 0
    while True:
        docs.upsert(numbered(start, start + rows))
        start += rows
        opened.put(start)


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    """In one process and in two: Locked within 5 s; free after close, and after kill -9 with every acknowledged row."""
    place = f"chroma://{tmp_path}/store"
    store = vk.connect(place)
    began = time.monotonic()
    with raises(vk.Locked, "chroma://", retryable=True):
        vk.connect(place)
    assert time.monotonic() - began < 5
    with raises(vk.Unsupported, "chroma"):
        vk.connect(place, read_only=True)
    store.close()
    opened = SPAWN.Queue()
    child = SPAWN.Process(target=_own, args=(place, opened, 100))
    child.start()
    acknowledged = opened.get(timeout=60)
    with raises(vk.Locked):
        vk.connect({"url": place, "lock_timeout": 0.1})
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        acknowledged = opened.get(timeout=60)
    child.kill()
    child.join(30)
    store = vk.connect(place)
    docs = store.collection("docs")
    assert docs.count() >= acknowledged
    there = {record.id for record in docs.scan(vectors=True)}
    assert {record.id for record in numbered(0, acknowledged)} <= there
    assert {hit.id for hit in docs.keyword("common", k=10**6)} == there, "the side-car caught up with what was killed"
    assert (tmp_path / "store" / "vectorkit.lock").exists()
    store.close()


# --------------------------------------------------------------------------------------------- damaged files


@pytest.fixture
def wedged(tmp_path: Path) -> tuple[str, Path]:
    """A directory whose index files do not fit, as kill -9 leaves one in thirty; and the directory of its vector segment."""
    folder = tmp_path / "store"
    store = vk.connect(f"chroma://{folder}")
    docs = store.create_collection(SPEC)
    for start in range(0, 2_000, 500):
        docs.upsert(numbered(start, start + 500))
    docs.query(EAST)
    store.close()
    (segment,) = [path for path in folder.iterdir() if path.is_dir()]
    (segment / "header.bin").unlink()
    return f"chroma://{folder}", segment


def test_a_wedged_collection_is_corrupt(wedged: tuple[str, Path]) -> None:
    """Every verb says so and what to do; doing it gives back every id, text and metadata."""
    place, segment = wedged
    store = vk.connect(place)
    docs = store.collection("docs")
    calls: list[Callable[[], Any]] = [
        docs.count,
        lambda: docs.get(["r000001"]),
        lambda: docs.query(EAST),
        lambda: docs.query(EAST, exact=True),
        lambda: list(docs.scan()),
        lambda: docs.delete(where=F("n") == 1),
        lambda: docs.keyword("common"),
        docs.stats,
    ]
    for call in calls:
        with raises(vk.Corrupt, "backup", "docs/layout.md", retryable=False):
            call()
    assert store.collections() == ["docs"]
    store.close()
    with sqlite3.connect(segment.parent / "chroma.sqlite3") as connection:  # as docs/layout.md tells
        found = connection.execute(
            "SELECT s.id FROM segments s JOIN collections c ON c.id = s.collection WHERE c.name = 'docs-g1' AND s.scope = 'VECTOR'"
        ).fetchall()
    connection.close()
    assert found == [(segment.name,)]
    shutil.move(segment, segment.parent.parent / "set-aside")
    store = vk.connect(place)
    docs = store.collection("docs")
    rows = {record.id: (record.text, record.metadata) for record in docs.scan()}
    assert rows == {record.id: (record.text, record.metadata) for record in numbered(0, 2_000)}
    assert docs.count(F("n") < 10) == 10
    assert len(docs.keyword("word3", k=1_000)) == 286
    with raises(vk.Corrupt, "docs/layout.md"):
        list(docs.scan(vectors=True))
    fresh = store.create_collection(vk.CollectionSpec("fresh", 8, fields={"n": int}))
    fresh.upsert(vk.Record(r.id, EAST, r.text, r.metadata) for r in docs.scan())
    store.drop_collection("docs")
    assert fresh.count() == 2_000
    store.close()


def test_a_damaged_database_is_corrupt(tmp_path: Path) -> None:
    store = vk.connect(f"chroma://{tmp_path}/store")
    store.create_collection(SPEC).upsert(numbered(0, 10))
    store.close()
    (tmp_path / "store" / "chroma.sqlite3").write_bytes(b"no database" * 2_000)
    with raises(vk.Corrupt, "chroma.sqlite3", "backup"):
        vk.connect(f"chroma://{tmp_path}/store")
    with raises(vk.Corrupt):  # and the lock was let go
        vk.connect(f"chroma://{tmp_path}/store")


# --------------------------------------------------------------------------------------------- hostile text


@pytest.mark.parametrize("kind", ["embedded", "server"])
def test_hostile_text_is_only_text(chroma_server: ChromaServer, tmp_path: Path, kind: str) -> None:
    """As ids, texts, keys, values, words and operands; as names it is refused."""
    place: Any = (
        f"chroma://{tmp_path}/store"
        if kind == "embedded"
        else {**database(chroma_server), "sidecar": str(tmp_path / "words.db")}
    )
    store = vk.connect(place)
    docs = store.create_collection(
        vk.CollectionSpec(
            "docs", 8, fields={"s": str, "'; DROP TABLE collections; --": str, "$where": int, "l": list[str]}
        )
    )
    hostile = [*PAYLOADS, '{"$ne": 1}', "{}", "[]", "#document", "chroma:document", "=x", "-"]
    records = [
        vk.Record(f"{text}{n}"[-120:], EAST, text, {"s": text, text: n, "'; DROP TABLE collections; --": text, "$where": n, "l": [text]})
        for n, text in enumerate(hostile)
    ]  # fmt: skip
    assert docs.upsert(records).written == len(hostile)
    back = {record.id: record for record in docs.scan()}
    for n, record in enumerate(records):
        found = back[record.id]
        assert (found.text, found.metadata) == (record.text, record.metadata)
        text = hostile[n]
        for where in (
            F("s") == text,
            F("s").in_([text]),
            F("l").contains(text),
            F("'; DROP TABLE collections; --") == text,
            F("$where") == n,
        ):
            assert [r.id for r in docs.scan(where)] == [record.id], (where, text)
        docs.keyword(text)
        assert docs.get([record.id])[0] == found
    for name in ("'; DROP", "$where", "{}", "../../", "a\0b", "a/b", "", "vk control"):
        with raises(vk.InvalidArgument):
            store.create_collection(vk.CollectionSpec(name, 8))
        with raises(vk.InvalidArgument):
            store.collection(name)
    for id_ in ("a\0b", "\ud800", ""):
        with raises(vk.InvalidArgument):
            docs.get([id_])
    assert docs.delete(where=F("s").in_(hostile)) == len(hostile)
    for options in ({"tenant": "../default_tenant"}, {"database": "a/b/c"}, {"database": "a\0b"}):
        with raises(vk.InvalidArgument):
            vk.connect({"url": "chroma://127.0.0.1:1", **options})
    store.close()


def test_filters_of_many_clauses_do_not_end_the_process(tmp_path: Path) -> None:
    """SQLite refuses 1,000 clauses, and Chroma's process overflows its stack at 10,000: they are re-checked instead."""
    store = vk.connect(f"chroma://{tmp_path}/store")
    docs = store.create_collection(vk.CollectionSpec("docs", 8, fields={"n": int, "l": list[str]}))
    docs.upsert(numbered(0, 60))
    for count in (200, 1_000, 9_990):
        anyof = {"$or": [{"n": n} for n in range(count)]}
        noneof = {"$and": [{"n": {"$ne": n}} for n in range(30, count)]}
        assert docs.count(anyof) == 60
        assert docs.count(noneof) == 30
        assert len(docs.query(EAST, k=100, where=noneof)) == 30
        assert docs.count(F("n").in_(list(range(count)))) == 60
        assert docs.count(F("l").contains_any([str(n) for n in range(count)])) == 0
    store.close()
