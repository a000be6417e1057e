"""pgvector when something goes wrong: the server is killed, frozen or out of reach, a reply is lost, many come at once.

Errors are vectorkit's own, what was acknowledged is there, and the same handle works again without being opened anew.
"""

import asyncio
import gc
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from integration.faultkit import ERRORS, SPEC, eventually, is_whole, patiently, record, vector
from integration.servers.postgres import PostgresServer
from integration.servers.proxy import Mode, Proxy
from vectorkit import F
from vectorkit.testing.faces import COLOURS, Bench, Colour
from vectorkit.testing.loop import longest_gap
from vectorkit.testing.values import PAYLOADS

BATCH = 50


@pytest.fixture(scope="module")
def durable() -> Iterator[PostgresServer]:
    """A server that may be killed."""
    with PostgresServer(fsync=True) as server:
        yield server


@pytest.fixture
def place(durable: PostgresServer) -> Iterator[str]:
    """A fresh database of it, by name."""
    name = f"db_{time.monotonic_ns()}"
    durable.create_database(name)
    yield name
    durable.start()
    durable.drop_database(name)


@pytest.fixture
def proxied(durable: PostgresServer, place: str) -> Iterator[tuple[Proxy, str]]:
    """The database through a proxy, as a URL."""
    with Proxy(durable.port) as proxy:
        yield proxy, durable.url(place).replace(f":{durable.port}/", f":{proxy.port}/")


# ------------------------------------------------------------------------------------- kill -9


@pytest.mark.own
@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9_in_the_middle_of_an_ingest(
    durable: PostgresServer, place: str, say: Callable[[str], None]
) -> None:
    kills, acknowledged, refused = 8, 0, 0
    done = threading.Event()
    kept: list[int] = []

    def killer() -> None:
        random = np.random.default_rng(9)
        for _ in range(kills):
            time.sleep(float(random.uniform(0.1, 0.6)))
            durable.kill()
            durable.start()
        done.set()

    with vk.connect(durable.url(place)) as store:
        docs = store.create_collection(SPEC)
        thread = threading.Thread(target=killer)
        thread.start()
        at = 0
        others: list[int] = []
        while not done.is_set():
            batch = [record(n) for n in range(at, at + BATCH)]
            try:
                written = docs.upsert(batch)
            except ERRORS:
                refused += 1
            else:
                assert written.written == BATCH
                kept += range(at, at + BATCH)
                acknowledged += 1
            at += BATCH
        thread.join()
        last = [record(n) for n in range(at, at + BATCH)]
        eventually(lambda: docs.upsert(last))
        kept += range(at, at + BATCH)
        found = {got.id: got for got in docs.scan(vectors=True)}
        assert [n for n in kept if not is_whole(found.get(f"r{n:06d}"), n)] == []
        others += sorted(int(id_[1:]) for id_ in found.keys() - {f"r{n:06d}" for n in kept})
        assert len(others) % BATCH == 0, "a batch is there in part"
        assert all(is_whole(found[f"r{n:06d}"], n) for n in others)
        assert docs.count() == len(found)
        hits = docs.query(vector(kept[0]), k=1, exact=True)
        assert hits.ids == [f"r{kept[0]:06d}"]
    say(
        f"kill -9 of PostgreSQL {kills} times: {acknowledged} batches acknowledged and there, {refused} refused, "
        f"{len(others) // BATCH} of those had landed"
    )
    assert acknowledged > 20
    assert refused > 0


@pytest.mark.own
@pytest.mark.parametrize("colour", COLOURS)
def test_queries_go_on_after_kill_9_and_a_restart(durable: PostgresServer, place: str, colour: Colour) -> None:
    with Bench(durable.url(place), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert([record(n) for n in range(200)])
            durable.kill()
            for verb in (lambda: docs.query(vector(3), k=1), lambda: docs.count(), lambda: docs.upsert([record(3)])):
                with pytest.raises(vk.Unavailable) as raised:
                    await verb()
                assert raised.value.retryable
            durable.start()
            assert (await docs.query(vector(3), k=1)).ids == ["r000003"]
            durable.restart()  # the connections in the pool have ended, and nobody said so
            assert await docs.upsert([record(3)]) == vk.WriteResult(1, 0)
            durable.restart()
            assert await docs.count() == 200

        bench.run(body())


@pytest.mark.own
def test_a_kill_in_the_middle_of_queries_gives_typed_errors_and_right_answers(
    durable: PostgresServer, place: str
) -> None:
    with vk.connect({"url": durable.url(place), "pool_size": 4, "connect_timeout": 2.0}) as store:
        docs = store.create_collection(SPEC)
        docs.upsert([record(n) for n in range(500)])
        stop = threading.Event()
        wrong: list[str] = []
        counts = {"right": 0, "refused": 0}

        def ask(seed: int) -> None:
            random = np.random.default_rng(seed)
            while not stop.is_set():
                n = int(random.integers(500))
                try:
                    ids = docs.query(vector(n), k=1).ids
                except ERRORS:
                    counts["refused"] += 1
                    time.sleep(0.01)
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is not what was promised
                    wrong.append(repr(error))
                else:
                    counts["right"] += 1
                    if ids != [f"r{n:06d}"]:
                        wrong.append(f"{ids} for {n}")

        threads = [threading.Thread(target=ask, args=[seed]) for seed in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(0.3)
            durable.kill()
            time.sleep(0.1)
            durable.start()
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert counts["right"] > 100
        assert docs.query(vector(7), k=1).ids == ["r000007"]


# ------------------------------------------------------------------------------------- the network


def trouble(proxy: Proxy, kind: str) -> None:
    match kind:
        case "dropped":
            proxy.mode = Mode.DROP
        case "reset":
            proxy.mode = Mode.RESET
        case "half open":
            proxy.mode = Mode.SILENT
        case "cut in a reply":
            proxy.cut_after(20, "down")
        case "cut in a request":
            proxy.cut_after(20, "up", reset=True)


@pytest.mark.own
@pytest.mark.parametrize("kind", ["dropped", "reset", "half open", "cut in a reply", "cut in a request"])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_network_in_trouble_gives_typed_errors_and_the_pool_recovers(
    proxied: tuple[Proxy, str], colour: Colour, kind: str
) -> None:
    proxy, url = proxied
    target = {"url": url, "pool_size": 2, "timeout": 0.5, "connect_timeout": 1.0}
    with Bench(target, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert([record(n) for n in range(20)])
            verbs: list[Callable[[Any], Any]] = [
                lambda docs: docs.query(vector(3), k=1),
                lambda docs: docs.upsert([record(3)]),
                lambda docs: docs.upsert([record(n) for n in range(20)]),
                lambda docs: docs.get(["r000003"]),
                lambda docs: docs.delete(ids=["nobody"]),
                lambda docs: docs.update(ids=["r000003"], set={"round": 0}),
            ]
            failed: list[vk.VectorkitError] = []
            for verb in verbs:
                trouble(proxy, kind)
                began = time.monotonic()
                try:
                    await verb(docs)
                except ERRORS as error:
                    failed.append(error)
                assert time.monotonic() - began < 3
                proxy.mode = Mode.PASS
                end = time.monotonic() + 10
                while True:  # the pool may still hold what has ended
                    try:
                        assert (await docs.query(vector(4), k=1)).ids == ["r000004"]
                        break
                    except ERRORS:
                        assert time.monotonic() < end
            assert len(failed) >= (1 if kind.startswith("cut") else len(verbs)), failed
            assert all(error.retryable for error in failed)
            found = await bench.together(*[docs.query(vector(n), k=1) for n in range(8)])
            assert [hits.ids for hits in found] == [[f"r{n:06d}"] for n in range(8)]
            assert await docs.count() == 20

        bench.run(body())


@pytest.mark.own
@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.DROP, Mode.RESET])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_first_connection_into_trouble_is_told_in_time_and_without_the_password(
    proxied: tuple[Proxy, str], colour: Colour, mode: Mode
) -> None:
    proxy, url = proxied
    proxy.mode = mode
    with Bench({"url": url, "connect_timeout": 2.0}, colour) as bench:
        began = time.monotonic()
        with pytest.raises(ERRORS) as raised:
            bench.run(bench.connect())
        assert time.monotonic() - began < 4
        assert raised.value.retryable
        assert ":vectorkit@" not in str(raised.value)
        proxy.mode = Mode.PASS
        bench.run(bench.connect())


@pytest.mark.own
@pytest.mark.parametrize("colour", COLOURS)
def test_a_slow_network_is_no_error_until_the_deadline(proxied: tuple[Proxy, str], colour: Colour) -> None:
    proxy, url = proxied
    with Bench({"url": url, "timeout": 1.0}, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert([record(n) for n in range(20)])
            await docs.query(vector(3), k=1)
            proxy.delay = 0.05
            before = proxy.counts.round_trips
            assert (await docs.query(vector(3), k=1)).ids == ["r000003"]
            assert proxy.counts.round_trips - before == 1
            proxy.delay = 1.5
            began = time.monotonic()
            with pytest.raises(vk.DeadlineExceeded):
                await docs.query(vector(3), k=1)
            assert 0.9 <= time.monotonic() - began < 2
            proxy.delay = 0.0
            assert (await docs.query(vector(5), k=1)).ids == ["r000005"]

        bench.run(body())


async def act(bench: Bench, docs: Any, verb: str, records: Sequence[vk.Record] = ()) -> Any:
    """A verb by name."""
    ids = [one.id for one in records]
    match verb:
        case "query":
            return await docs.query(vector(1), k=1)
        case "count":
            return await docs.count(F("n") > 3)
        case "scan":
            return [row async for row in docs.scan()]
        case "connect":
            return await bench.connect()
        case "upsert":
            return await docs.upsert(records)
        case "insert":
            return await docs.insert(records)
        case "delete":
            return await docs.delete(ids=ids)
        case "update":
            return await docs.update(ids=ids, set={"round": 7})
        case _:
            raise ValueError(verb)


@pytest.mark.own
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(
    ("verb", "count"),
    [
        *[(verb, 0) for verb in ("query", "count", "scan", "connect")],
        *[(verb, count) for verb in ("upsert", "insert", "update", "delete") for count in (1, 2_000)],
    ],
)
def test_a_deadline_of_200_ms_holds_against_a_frozen_server(
    durable: PostgresServer, place: str, colour: Colour, verb: str, count: int
) -> None:
    url = durable.url(place)
    with vk.connect(url) as store:
        store.create_collection(SPEC).upsert([record(n) for n in range(20)])
    with Bench({"url": url, "timeout": 0.2, "connect_timeout": 1.0}, colour) as bench:

        async def body() -> None:
            store = await patiently(bench.connect)
            docs = await patiently(partial(store.collection, "docs"))
            assert await patiently(docs.count) == 20
            durable.freeze()
            try:
                records = [record(n) for n in range(100, 100 + count)]
                began = time.monotonic()
                with pytest.raises(ERRORS if verb == "connect" else vk.DeadlineExceeded) as raised:
                    await act(bench, docs, verb, records)
                took = time.monotonic() - began
                assert raised.value.retryable
            finally:
                durable.thaw()
            assert took < (3.5 if verb == "connect" else 1.0)
            assert (await patiently(partial(docs.query, vector(1), k=1))).ids == ["r000001"]

        bench.run(body())


# ------------------------------------------------------------------------------------- a lost reply


@pytest.mark.own
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("count", [1, 5, 200])
@pytest.mark.parametrize("verb", ["upsert", "insert", "delete", "update"])
def test_a_lost_reply_says_what_is_known(proxied: tuple[Proxy, str], colour: Colour, verb: str, count: int) -> None:
    proxy, url = proxied
    with Bench(url, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert([record(n) for n in range(1_000, 1_010)])
            records = [record(n) for n in range(count)]
            ids = [one.id for one in records]
            if verb in {"delete", "update"}:
                await docs.upsert(records)
            transaction = verb in {"insert", "update"} or (verb == "upsert" and count > 8)
            last = b"COMMIT\0" if transaction else {"upsert": b"INSERT", "delete": b"DELETE"}[verb]
            lost = proxy.swallow_reply(last)
            with pytest.raises(vk.Ambiguous if verb == "insert" else vk.Unavailable) as raised:
                await act(bench, docs, verb, records)
            assert lost.wait(5)
            assert raised.value.retryable is (verb != "insert")
            again = {got.id: got for got in await docs.get(ids) if got is not None}
            assert len(again) == (0 if verb == "delete" else count)  # it had landed
            match verb:
                case "upsert":
                    assert await docs.upsert(records) == vk.WriteResult(count, 0)
                case "insert":
                    with pytest.raises(vk.AlreadyExists) as there:
                        await docs.insert(records)
                    assert sorted(there.value.ids) == sorted(ids)
                case "delete":
                    assert await docs.delete(ids=ids) == 0
                case "update":
                    assert {got.metadata["round"] for got in again.values()} == {7}
                    assert await docs.update(ids=ids, set={"round": 7}) == count
            assert await docs.count() == 10 + (0 if verb == "delete" else count)

        bench.run(body())


# ------------------------------------------------------------------------------------- nothing leaks


def backends(server: PostgresServer, dbname: str) -> int:
    asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'vectorkit'"
    ((count,),) = server.execute(asked, values=[dbname])
    assert isinstance(count, int)
    return count


@pytest.mark.own
@pytest.mark.parametrize("colour", COLOURS)
def test_a_thousand_empty_results_leave_the_pool_full(durable: PostgresServer, place: str, colour: Colour) -> None:
    with Bench({"url": durable.url(place), "pool_size": 3, "connect_timeout": 2.0}, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert([record(n) for n in range(10)])
            nothing = F("n") == 99
            for _ in range(200):
                assert await docs.query(vector(1), k=3, where=nothing) == []
                assert await docs.get(["nobody"]) == [None]
                assert await docs.keyword("absent") == []
                assert [row async for row in docs.scan(where=nothing)] == []
                assert await docs.count(nothing) == 0
            found = await bench.together(*[docs.query(vector(n), k=1) for n in range(9)])
            assert [hits.ids for hits in found] == [[f"r{n:06d}"] for n in range(9)]
            end = time.monotonic() + 5
            while (stats := store.native.get_stats())["pool_available"] != stats["pool_size"]:
                assert time.monotonic() < end, stats  # one may be on its way in still
                await asyncio.sleep(0.01) if colour == "async" else time.sleep(0.01)  # noqa: ASYNC251
            assert 1 <= stats["pool_size"] <= 3
            assert stats.get("requests_waiting", 0) == 0
            assert backends(durable, place) == stats["pool_size"]

        bench.run(body())


@pytest.mark.own
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
@pytest.mark.parametrize("colour", COLOURS)
def test_two_hundred_opens_and_closes_leave_nothing(durable: PostgresServer, place: str, colour: Colour) -> None:
    url = durable.url(place)

    async def once(bench: Bench) -> None:
        store = await bench.connect()
        docs = await store.ensure_collection(SPEC)
        await docs.upsert([record(1)])
        assert (await docs.query(vector(1), k=1)).ids == ["r000001"]
        await store.close()
        await store.close()
        bench._open.clear()

    def figures() -> tuple[int, int, int]:
        return backends(durable, place), threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    with Bench(url, colour) as bench:
        for _ in range(3):
            bench.run(once(bench))
        before = figures()
        for _ in range(200):
            bench.run(once(bench))
        end = time.monotonic() + 5
        while (after := figures()) != before and time.monotonic() < end:
            time.sleep(0.05)  # a backend takes a moment to go
        assert after == before
        assert before[0] == 0


# ------------------------------------------------------------------------------------- many at once


@pytest.mark.own
def test_sixteen_threads_that_open_first_make_one_collection(durable: PostgresServer, place: str) -> None:
    url, barrier = durable.url(place), threading.Barrier(16)
    failed: list[str] = []

    def open_first(n: int) -> None:
        try:
            barrier.wait()
            with vk.connect(url) as store:
                store.ensure_collection(SPEC).upsert([record(n)])
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(repr(error))

    threads = [threading.Thread(target=open_first, args=[n]) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with vk.connect(url) as store:
        assert store.collections() == ["docs"]
        assert store.collection("docs").count() == 16


_FIRST = """
import os, sys
import vectorkit as vk
from vectorkit.address import backend_for
from integration.faultkit import SPEC, record
backend_for("postgresql")
ready, go = os.pipe(), os.pipe()
children = []
for n in range(16):
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(go[1])
            os.write(ready[1], b".")
            os.read(go[0], 1)
            with vk.connect(sys.argv[1]) as store:
                store.ensure_collection(SPEC).upsert([record(n)])
            status = 0
        finally:
            if status:
                import traceback
                traceback.print_exc()
            os._exit(status)
    children.append(pid)
waiting = 16
while waiting:
    waiting -= len(os.read(ready[0], 16))
os.close(go[1])
sys.exit(sum(os.waitpid(pid, 0)[1] != 0 for pid in children))
"""


@pytest.mark.own
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_sixteen_processes_that_open_first_make_one_collection(durable: PostgresServer, place: str) -> None:
    url = durable.url(place)
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", _FIRST, url], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with vk.connect(url) as store:
        assert store.collections() == ["docs"]
        assert store.collection("docs").count() == 16


# ------------------------------------------------------------------------------------- the event loop


@pytest.mark.own
@pytest.mark.slow
def test_an_upsert_of_ten_thousand_rows_leaves_no_gap_in_the_event_loop(
    durable: PostgresServer, place: str, say: Callable[[str], None]
) -> None:
    dimension, count = 64, 10_000
    vectors = np.random.default_rng(1).standard_normal((count, dimension)).astype(np.float32)
    metadata: list[dict[str, Any]] = [{"n": n, "half": n // 2, "tags": ["a", "b"]} for n in range(count)]
    ids, texts = [f"r{n}" for n in range(count)], [f"the text of row {n}" for n in range(count)]
    batch = vk.Batch(ids, vectors, texts, metadata)
    records = [vk.Record(*row) for row in zip(ids, vectors, texts, metadata, strict=True)]
    rounds = 3

    async def body() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"control": [], "new rows": [], "the same again": []}
        async with await vk.aconnect(durable.url(place)) as store:
            fields = {"n": int, "half": int, "tags": list[str]}
            for at in range(rounds):
                docs = await store.create_collection(
                    vk.CollectionSpec(f"docs{at}", dimension, index=vk.Flat(), fields=fields)
                )
                began = time.perf_counter()
                found["new rows"].append(await longest_gap(partial(docs.upsert, batch)))
                found["the same again"].append(await longest_gap(partial(docs.upsert, records)))
                took = (time.perf_counter() - began) / 2
                found["control"].append(await longest_gap(partial(asyncio.sleep, took)))
                assert await docs.count() == count
        return found

    gc.collect()
    gc.freeze()  # a full collection over all that pytest and its plugins hold takes 150 ms by itself
    try:
        found = asyncio.run(body())
    finally:
        gc.unfreeze()
    told = "; ".join(f"{name} {', '.join(f'{1000 * gap:.0f}' for gap in gaps)}" for name, gaps in found.items())
    say(f"longest gaps in the event loop, ms, upserting {count:,} rows of {dimension} numbers: {told}")
    for name, gaps in found.items():
        assert median(gaps) < 0.05, name


# ------------------------------------------------------------------------------------- injection


@pytest.fixture
def logged() -> Iterator[PostgresServer]:
    with PostgresServer(log_statements=True) as server:
        yield server


@pytest.mark.own
@pytest.mark.parametrize("colour", COLOURS)
def test_no_name_id_key_or_value_ever_stands_in_a_statement(logged: PostgresServer, colour: Colour) -> None:
    """Every string has a mark in it, which must be in no statement's text, only in its parameters."""
    mark = "zQ7Xj"
    payloads = [f"{payload[:100]}{mark}{n}" for n, payload in enumerate(PAYLOADS)]
    accepted: list[str] = []
    url = logged.create_database("logged")
    logged.execute("CREATE TABLE canary AS SELECT 1 AS n", "logged")
    with Bench(url, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            spec = vk.CollectionSpec("docs", 2, fields=dict.fromkeys(payloads[:30], str))
            docs = await store.create_collection(spec)
            everything = [
                vk.Record(
                    payload, [1.0, float(n)], payload, {payload: payload, "list": [payload], "in": {payload: payload}}
                )
                for n, payload in enumerate(payloads)
            ]
            await docs.upsert(everything)
            await docs.upsert(everything[:3])
            assert (await docs.insert(everything, on_conflict="skip")).skipped == len(payloads)
            with pytest.raises(vk.AlreadyExists):
                await docs.insert(everything[:2])
            for n, payload in enumerate(payloads):
                where = F(payload) == payload
                others = (
                    where
                    & (F("list").contains(payload) | F("list").contains_any([payload]))
                    & F("list").contains_all([payload])
                )
                for held in (
                    where,
                    others,
                    F(payload).in_([payload]),
                    F(payload).startswith(payload),
                    F(payload) >= payload,
                ):
                    hits = await docs.query([1.0, float(n)], k=1, where=held)
                    assert hits.ids == [payload], held
                    assert await docs.count(held) >= 1
                assert await docs.count(F(payload) != payload) == len(payloads) - 1
                (got,) = await docs.get([payload])
                assert got is not None
                assert (got.id, got.text, got.metadata["in"]) == (payload, payload, {payload: payload})
                assert payload in (await docs.keyword(payload, k=50)).ids
                assert [row.id async for row in docs.scan(where=where)] == [payload]
                await docs.hybrid(payload, [1.0, float(n)], k=1, where=where)
                assert (
                    await docs.update(ids=[payload], set={f"set {payload}": payload}, unset=[f"unset {payload}"]) == 1
                )
                assert await docs.update(where=where, set={"list": [payload, payload]}) == 1
                await docs.explain([1.0, 0.0], where=where)
                for verb in (store.collection, store.drop_collection):
                    with pytest.raises(vk.VectorkitError):
                        await verb(payload)
                try:
                    await store.create_collection(vk.CollectionSpec(payload, 2))
                except vk.VectorkitError:
                    continue
                accepted.append(payload)
                assert payload in await store.collections()
                await store.drop_collection(payload)
            await docs.optimize()
            for payload in payloads[::2]:
                assert await docs.delete(ids=[payload]) == 1
            for payload in payloads[1::2]:
                assert await docs.delete(where=F(payload) == payload) == 1
            assert await docs.count() == 0

        bench.run(body())
    statements = logged.statements()
    assert len(statements) > 10 * len(payloads)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in accepted), accepted
    tables = "|".join(re.escape(name) for name in accepted)  # an identifier cannot be bound; it is quoted
    assert [text for text in statements if mark in re.sub(rf'"({tables})@\d+[^"]*"', "", text)] == []
    assert logged.execute("SELECT n FROM canary", "logged") == [(1,)]
