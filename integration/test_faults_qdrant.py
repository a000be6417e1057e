"""A Qdrant server when something goes wrong: killed, frozen, out of reach, odd answers, lost replies, many at once.

Over both protocols, errors are vectorkit's own, what was acknowledged is there, and the same handle works again.
"""

import asyncio
import gc
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from integration.faultkit import (
    DIMENSION,
    ERRORS,
    SPEC,
    eventually,
    is_whole,
    kind_of,
    patiently,
    python,
    record,
    records,
    shown,
    vector,
)
from integration.servers.proxy import Mode, Proxy
from integration.servers.qdrant import QdrantServer, qdrant_request, qdrant_sweep
from vectorkit import F
from vectorkit.testing.faces import COLOURS, Bench, Colour
from vectorkit.testing.loop import longest_gap
from vectorkit.testing.values import PAYLOADS

pytestmark = pytest.mark.own

BATCH = 50
PROTOCOLS = ("rest", "grpc")
SECRET = "zQ7Xj-not-to-be-shown"


@pytest.fixture(scope="module")
def durable() -> Iterator[QdrantServer]:
    """A server that may be killed."""
    with QdrantServer() as server:
        yield server


@pytest.fixture
def server(durable: QdrantServer) -> Iterator[QdrantServer]:
    """It, with nothing in it."""
    durable.forget()
    yield durable
    durable.thaw()
    durable.start()
    durable.forget()
    qdrant_sweep(durable.url)


def target(server: QdrantServer, protocol: str, **more: Any) -> dict[str, Any]:
    """As `connect` takes it."""
    return {"url": server.url, "grpc": protocol == "grpc", "grpc_port": server.grpc_port, **more}


class Road:
    """The server through a proxy, on either protocol."""

    def __init__(self, server: QdrantServer, protocol: str) -> None:
        self.protocol = protocol
        self.server = server
        self.proxy = Proxy(server.grpc_port if protocol == "grpc" else server.port)

    def target(self, **more: Any) -> dict[str, Any]:
        """With a key that no message may show."""
        given = target(self.server, self.protocol, api_key=SECRET, headers={"x-other": SECRET}, **more)
        if self.protocol == "grpc":
            return {**given, "grpc_port": self.proxy.port}
        return {**given, "url": f"qdrant://127.0.0.1:{self.proxy.port}"}


@pytest.fixture(params=PROTOCOLS)
def road(server: QdrantServer, request: pytest.FixtureRequest) -> Iterator[Road]:
    made = Road(server, request.param)
    yield made
    made.proxy.close()


def verbs(store: Any, docs: Any) -> dict[str, Callable[[], Any]]:
    """Every verb that asks the server; those that write leave what is there as it was, but for the row `r000900`."""

    async def scan() -> list[vk.Record]:
        return [row async for row in docs.scan()]

    return {
        "query": lambda: docs.query(vector(3), k=1),
        "query_many": lambda: docs.query_many([vector(3), vector(4)], k=1),
        "keyword": lambda: docs.keyword("word3", k=1),
        "hybrid": lambda: docs.hybrid("word3", vector(3), k=1),
        "get": lambda: docs.get(["r000003"]),
        "count": docs.count,
        "scan": scan,
        "stats": docs.stats,
        "upsert": lambda: docs.upsert([record(3)]),
        "insert": lambda: docs.insert([record(900)]),
        "update": lambda: docs.update(ids=["r000003"], set={"round": 0}),
        "delete": lambda: docs.delete(ids=["nobody"]),
        "delete where": lambda: docs.delete(where=F("n") == 77_777),
        "optimize": docs.optimize,
        "collections": store.collections,
        "create": lambda: store.create_collection(vk.CollectionSpec("more", 2)),
        "drop": lambda: store.drop_collection("nothing"),
    }


# ------------------------------------------------------------------------------------- kill -9


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_was_acknowledged_survives_kill_9_in_the_middle_of_an_ingest(
    server: QdrantServer, protocol: str, say: Callable[[str], None]
) -> None:
    kills, acknowledged, refused = 5, 0, 0
    done = threading.Event()
    kept: list[int] = []

    def killer() -> None:
        random = np.random.default_rng(9)
        for _ in range(kills):
            time.sleep(float(random.uniform(0.3, 1.0)))
            server.kill()
            server.start()
        done.set()

    with vk.connect(target(server, protocol, timeout=5)) as store:
        docs = store.create_collection(SPEC)
        thread = threading.Thread(target=killer)
        thread.start()
        at = 0
        while not done.is_set():
            batch = records(at, at + BATCH)
            try:
                written = docs.upsert(batch)
            except ERRORS:
                refused += 1
                time.sleep(0.01)
            else:
                assert written.written == BATCH
                kept += range(at, at + BATCH)
                acknowledged += 1
            at += BATCH
        thread.join()
        last = records(at, at + BATCH)
        eventually(lambda: docs.upsert(last))
        kept += range(at, at + BATCH)
        found = {got.id: got for got in docs.scan(vectors=True)}
        assert [n for n in kept if not is_whole(found.get(f"r{n:06d}"), n)] == []
        others = sorted(int(id_[1:]) for id_ in found.keys() - {f"r{n:06d}" for n in kept})
        assert len(others) % BATCH == 0, "a batch is there in part"
        assert all(is_whole(found[f"r{n:06d}"], n) for n in others)
        assert docs.count() == len(found)
        assert docs.query(vector(kept[0]), k=1, exact=True).ids == [f"r{kept[0]:06d}"]
        assert docs.keyword(f"word{kept[0]}", k=1).ids == [f"r{kept[0]:06d}"]
    say(
        f"kill -9 of the Qdrant shim {kills} times, {protocol}: {acknowledged} batches acknowledged and there, "
        f"{refused} refused, {len(others) // BATCH} of those had landed"
    )
    assert acknowledged > 20
    assert refused > 0


@pytest.mark.parametrize("colour", COLOURS)
def test_queries_go_on_after_kill_9_and_a_restart(server: QdrantServer, colour: Colour) -> None:
    """Over both protocols at once. Over REST a restart is not noticed: connections that ended while idle are not used."""
    with Bench(None, colour) as bench:

        async def body() -> None:
            opened: dict[str, tuple[Any, Any]] = {}
            for protocol in PROTOCOLS:
                bench.target = target(server, protocol)
                store = await bench.connect()
                opened[protocol] = store, await store.ensure_collection(SPEC)
            rest, grpc = opened["rest"][1], opened["grpc"][1]
            await rest.upsert(records(0, 50))
            assert await grpc.count() == 50
            server.kill()
            for store, docs in opened.values():
                for name, verb in verbs(store, docs).items():
                    with pytest.raises(vk.Unavailable) as raised:
                        await verb()
                    assert raised.value.retryable, name
            server.start()
            for _, docs in opened.values():
                assert (await patiently(partial(docs.query, vector(3), k=1))).ids == ["r000003"]
            await bench.together(*[rest.query(vector(n), k=1) for n in range(8)])
            server.restart()
            assert await rest.insert([record(900)]) == vk.WriteResult(1, 0)
            assert await rest.delete(ids=["r000900"]) == 1
            assert await patiently(grpc.count) == 50

        bench.run(body())


def test_a_kill_in_the_middle_of_queries_gives_typed_errors_and_right_answers(server: QdrantServer) -> None:
    with (
        vk.connect(target(server, "rest", timeout=5)) as store,
        vk.connect(target(server, "grpc", timeout=5)) as other,
    ):
        docs = store.create_collection(SPEC)
        docs.upsert(records(0, 200))
        handles = [docs, other.collection("docs")]
        stop = threading.Event()
        wrong: list[str] = []
        right = [0, 0]
        refused = [0, 0]

        def ask(seed: int) -> None:
            random = np.random.default_rng(seed)
            while not stop.is_set():
                n = int(random.integers(200))
                try:
                    ids = handles[seed % 2].query(vector(n), k=1).ids
                except ERRORS:
                    refused[seed % 2] += 1
                    time.sleep(0.01)
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is not what was promised
                    wrong.append(repr(error))
                else:
                    right[seed % 2] += 1
                    if ids != [f"r{n:06d}"]:
                        wrong.append(f"{ids} for {n}")

        threads = [threading.Thread(target=ask, args=[seed]) for seed in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.4)
        server.kill()
        time.sleep(0.3)
        server.start()
        time.sleep(0.4)
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert min(right) > 20
        assert min(refused) > 0
        for handle in handles:
            assert eventually(partial(handle.query, vector(7), k=1)).ids == ["r000007"]


@pytest.mark.slow
def test_grpc_is_back_soon_after_a_long_outage(server: QdrantServer, say: Callable[[str], None]) -> None:
    """Its channels wait longer and longer between attempts, up to two minutes by their own default."""
    with vk.connect(target(server, "grpc")) as store:
        docs = store.create_collection(SPEC)
        docs.upsert(records(0, 5))
        server.kill()
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with pytest.raises(vk.Unavailable):
                docs.count()
            time.sleep(0.2)
        server.start()
        began = time.monotonic()
        assert eventually(docs.count, 120) == 5
        took = time.monotonic() - began
    say(f"gRPC answered {took:.1f} s after the end of an outage of 30 s")
    assert took < 5


# ------------------------------------------------------------------------------------- frozen


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpx drops a socket that was given up
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_deadline_holds_against_a_frozen_server(server: QdrantServer, colour: Colour, protocol: str) -> None:
    """Every verb at once, and connecting; thawed, the handle goes on."""
    place = target(server, protocol, timeout=1)
    told: dict[str, tuple[float, BaseException | None]] = {}

    def note(name: str, began: float, error: BaseException | None) -> None:
        told[name] = (time.monotonic() - began, error)

    def sync_part(store: vk.Store, docs: vk.Collection) -> None:
        calls = verbs(store, docs)
        calls["scan"] = lambda: list(docs.scan())
        calls["connect"] = lambda: vk.connect(place)
        calls["upsert"] = lambda: docs.upsert(records(100, 600))

        def one(name: str) -> None:
            began = time.monotonic()
            try:
                calls[name]()
            except Exception as error:  # noqa: BLE001 - told below
                note(name, began, error)
            else:
                note(name, began, None)

        with ThreadPoolExecutor(len(calls)) as pool:
            list(pool.map(one, calls))

    async def async_part(store: Any, docs: Any) -> None:
        calls = verbs(store, docs)
        calls["connect"] = lambda: vk.aconnect(place)
        calls["upsert"] = lambda: docs.upsert(records(100, 600))

        async def one(name: str) -> None:
            began = time.monotonic()
            try:
                await calls[name]()
            except Exception as error:  # noqa: BLE001 - told below
                note(name, began, error)
            else:
                note(name, began, None)

        await asyncio.gather(*map(one, calls))

    def check() -> None:
        assert len(told) == 18
        for name, (took, error) in told.items():
            assert isinstance(error, vk.DeadlineExceeded), (name, error)
            assert error.retryable, name
            assert 0.9 < took < 3, (name, took)  # all of them on one core

    if colour == "sync":
        with vk.connect(place) as store:
            docs = store.create_collection(SPEC)
            docs.upsert(records(0, 20))
            server.freeze()
            try:
                sync_part(store, docs)
            finally:
                server.thaw()
            check()
            assert eventually(lambda: docs.query(vector(1), k=1)).ids == ["r000001"]
            assert len(docs.get([f"r{n:06d}" for n in range(20)])) == 20
        return

    async def body() -> None:
        async with await vk.aconnect(place) as store:
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 20))
            server.freeze()
            try:
                await async_part(store, docs)
            finally:
                server.thaw()
            check()
            assert (await patiently(partial(docs.query, vector(1), k=1))).ids == ["r000001"]

    asyncio.run(body())


# ------------------------------------------------------------------------------------- the network


def trouble(proxy: Proxy, kind: str) -> None:
    match kind:
        case "dropped":
            proxy.mode = Mode.DROP
        case "reset":
            proxy.mode = Mode.RESET
        case "silent":
            proxy.mode = Mode.SILENT
        case "cut in a reply":
            proxy.cut_after(20, "down")
        case "cut in a request":
            proxy.cut_after(20, "up", reset=True)


@pytest.mark.parametrize("kind", ["dropped", "reset", "silent", "cut in a reply", "cut in a request"])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_network_in_trouble_gives_typed_errors_and_the_handle_recovers(road: Road, colour: Colour, kind: str) -> None:
    proxy = road.proxy
    with Bench(road.target(timeout=1), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 20))
            everything = verbs(store, docs)
            names = (
                ["query", "upsert", "get", "delete", "update", "insert"] if kind != "silent" else ["query", "upsert"]
            )
            failed: list[vk.VectorkitError] = []
            for name in names:
                trouble(proxy, kind)
                began = time.monotonic()
                try:
                    await everything[name]()
                except ERRORS as error:
                    failed.append(error)
                except vk.Ambiguous:
                    assert name == "insert"
                assert time.monotonic() - began < 3
                proxy.mode = Mode.PASS
                proxy.cut_after(2**62)
                assert (await patiently(partial(docs.query, vector(4), k=1))).ids == ["r000004"]
            if not kind.startswith("cut"):  # those are over when the same is asked again
                assert len(failed) == len(names), failed
            assert all(one.retryable for one in failed)
            assert SECRET not in "".join(map(shown, failed))
            found = await bench.together(*[docs.query(vector(n), k=1) for n in range(8)])
            assert [hits.ids for hits in found] == [[f"r{n:06d}"] for n in range(8)]
            assert await docs.delete(ids=["r000900"]) in {0, 1}
            assert await docs.count() == 20

        bench.run(body())


@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.DROP, Mode.RESET])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_first_connection_into_trouble_is_told_in_time_and_without_the_key(
    road: Road, colour: Colour, mode: Mode
) -> None:
    road.proxy.mode = mode
    with Bench(road.target(timeout=1), colour) as bench:
        began = time.monotonic()
        with pytest.raises(ERRORS) as raised:
            bench.run(bench.connect())
        assert time.monotonic() - began < 4
        assert raised.value.retryable
        assert SECRET not in shown(raised.value)
        road.proxy.mode = Mode.PASS
        bench.run(patiently(bench.connect))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("colour", COLOURS)
def test_no_server_at_all(durable: QdrantServer, colour: Colour, protocol: str) -> None:
    with socket.socket() as bound:  # bound, and nobody listens
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        place = {"url": f"qdrant://127.0.0.1:{port}", "grpc": protocol == "grpc", "grpc_port": port, "api_key": SECRET}
        with Bench(place, colour) as bench:
            began = time.monotonic()
            with pytest.raises(vk.Unavailable, match=rf"qdrant://127\.0\.0\.1:{port}") as raised:
                bench.run(bench.connect())
            assert time.monotonic() - began < 5
            assert raised.value.retryable
            assert SECRET not in shown(raised.value)


@pytest.mark.parametrize("colour", COLOURS)
def test_an_answer_cut_in_the_middle_is_asked_for_again_or_told(road: Road, colour: Colour) -> None:
    """Never a part of it, whatever was read before."""
    with Bench(road.target(timeout=5, retries=0), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 1_000))
            everything = [f"r{n:06d}" for n in range(1_000)]

            async def scan() -> list[str]:
                return sorted([row.id async for row in docs.scan(vectors=True)])

            for reset in (False, True):
                for act in (
                    scan,
                    lambda: docs.get(everything, vectors=True),
                    lambda: docs.query(vector(1), k=1_000),
                    lambda: docs.query_many([vector(n) for n in range(50)], k=20),
                ):
                    road.proxy.cut_after(20_000, reset=reset)
                    with pytest.raises(vk.Unavailable) as raised:
                        await act()
                    assert raised.value.retryable
                    assert SECRET not in shown(raised.value)
                    assert await patiently(docs.count) == 1_000
            assert await scan() == everything

        bench.run(body())
    with Bench(road.target(timeout=5), colour) as bench:

        async def again() -> None:
            store = await bench.connect()
            docs = await store.collection("docs")
            for cut in (200, 20_000):
                await patiently(docs.count)
                road.proxy.cut_after(cut)
                assert len(await docs.query(vector(1), k=1_000)) == 1_000

        bench.run(again())


@pytest.mark.parametrize("colour", COLOURS)
def test_a_slow_network_is_no_error_until_the_deadline(road: Road, colour: Colour) -> None:
    proxy = road.proxy
    with Bench(road.target(timeout=1), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 20))
            await docs.query(vector(3), k=1)
            proxy.delay = 0.05
            assert (await docs.query(vector(3), k=1)).ids == ["r000003"]
            assert (await docs.insert([record(900)])).written == 1
            proxy.delay = 1.5
            began = time.monotonic()
            with pytest.raises(vk.DeadlineExceeded) as raised:
                await docs.query(vector(3), k=1)
            assert 0.9 <= time.monotonic() - began < 2
            assert SECRET not in shown(raised.value)
            proxy.delay = 0.0
            assert (await patiently(partial(docs.query, vector(5), k=1))).ids == ["r000005"]

        bench.run(body())


# ------------------------------------------------------------------------------------- a lost reply


async def act(docs: Any, verb: str, given: Sequence[vk.Record], mark: str) -> Any:
    """A verb by name."""
    ids = [one.id for one in given]
    match verb:
        case "upsert":
            return await docs.upsert(given)
        case "insert":
            return await docs.insert(given)
        case "delete":
            return await docs.delete(ids=ids)
        case "update":
            return await docs.update(ids=ids, set={"mark": mark})
        case _:
            raise ValueError(verb)


WRITES = {
    "upsert": (b"PUT /collections/docs%401/points?", b"lost-text"),
    "insert": (b"PUT /collections/docs%401/points?", b"lost-text"),
    "update": (b"POST /collections/docs%401/points/batch", b"lost-mark"),
    "delete": (b"POST /collections/docs%401/points/delete", b"/qdrant.Points/Delete"),
}
"""What the request that writes has in it, over REST and over gRPC."""


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("verb", WRITES)
def test_a_lost_reply_says_what_is_known(road: Road, colour: Colour, verb: str, retries: int) -> None:
    """Without another attempt an insert is Ambiguous and the others are safe to repeat; with one, nobody notices."""
    with Bench(road.target(retries=retries), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(1_000, 1_010))
            given = [vk.Record(f"x{n}", vector(n), "lost-text", {"n": n}) for n in range(5)]
            ids = [one.id for one in given]
            if verb in {"delete", "update"}:
                await docs.upsert(given)
            lost = road.proxy.swallow_reply(WRITES[verb][road.protocol == "grpc"])
            if retries:
                done = await act(docs, verb, given, "lost-mark")
                assert done == (5 if verb in {"delete", "update"} else vk.WriteResult(5, 0))
                assert lost.is_set()
            else:
                with pytest.raises(vk.Ambiguous if verb == "insert" else vk.Unavailable) as raised:
                    await act(docs, verb, given, "lost-mark")
                assert lost.wait(5)
                assert raised.value.retryable is (verb != "insert")
                assert SECRET not in shown(raised.value)
            again = [got for got in await patiently(partial(docs.get, ids)) if got is not None]
            assert len(again) == (0 if verb == "delete" else 5)  # it had landed
            match verb:
                case "upsert":
                    assert await docs.upsert(given) == vk.WriteResult(5, 0)
                case "insert":
                    with pytest.raises(vk.AlreadyExists) as there:
                        await docs.insert(given)
                    assert sorted(there.value.ids) == ids
                    assert await docs.insert(given, on_conflict="skip") == vk.WriteResult(0, 5)
                case "delete":
                    assert await docs.delete(ids=ids) == 0
                case "update":
                    assert {got.metadata["mark"] for got in again} == {"lost-mark"}
                    assert await docs.update(ids=ids, set={"mark": "lost-mark"}) == 5
            assert await docs.count() == 10 + (0 if verb == "delete" else 5)

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_a_create_whose_reply_was_lost_is_finished_by_who_opens_it_next(road: Road, colour: Colour) -> None:
    with Bench(road.target(), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            lost = road.proxy.swallow_reply(b"_vk_layout")
            with pytest.raises(vk.Unavailable) as raised:
                await store.create_collection(SPEC)
            assert lost.wait(5)
            assert SECRET not in shown(raised.value)
            assert await patiently(store.collections) == ["docs"]
            with pytest.raises(vk.AlreadyExists):
                await store.create_collection(SPEC)
            docs = await store.ensure_collection(SPEC)
            await docs.upsert(records(0, 3))
            assert (await docs.keyword("word2", k=1)).ids == ["r000002"]
            made = qdrant_request(road.server.url, "GET", "collections/docs@1")["payload_schema"]
            assert sorted(made) == ["_vk_f0", "_vk_f1", "_vk_words"]

        bench.run(body())


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_fails_after_it_wrote(server: QdrantServer, protocol: str, status: int) -> None:
    """500 is not asked again: the insert is Ambiguous. 503 is: it is resolved."""
    path = "/Upsert" if protocol == "grpc" else "PUT "
    with vk.connect(target(server, protocol)) as store:
        docs = store.create_collection(SPEC)
        server.fail(status, path, done=True)
        if status == 503:
            assert docs.insert(records(0, 5)) == vk.WriteResult(5, 0)
        else:
            with pytest.raises(vk.Ambiguous):
                docs.insert(records(0, 5))
        server.fail(status, path, done=True, times=3)
        with pytest.raises(vk.Ambiguous if status == 503 else vk.Unavailable):
            docs.insert(records(10, 15)) if status == 503 else docs.upsert(records(10, 15))
        server.forget()
        assert docs.count() == 10


# ------------------------------------------------------------------------------------- nothing leaks


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("colour", COLOURS)
def test_two_hundred_opens_and_closes_leave_nothing(server: QdrantServer, colour: Colour, protocol: str) -> None:
    async def once(bench: Bench) -> None:
        store = await bench.connect()
        docs = await store.ensure_collection(SPEC)
        await docs.upsert([record(1)])
        assert (await docs.query(vector(1), k=1)).ids == ["r000001"]
        await store.close()
        await store.close()
        bench._open.clear()

    def figures() -> tuple[int, int]:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))

    with Bench(target(server, protocol), colour) as bench:
        for _ in range(5):
            bench.run(once(bench))
        before = figures()
        for _ in range(200):
            bench.run(once(bench))
        end = time.monotonic() + 10
        while (after := figures()) > before and time.monotonic() < end:
            time.sleep(0.1)
    assert after[0] <= before[0] + 2, (before, after)
    assert after[1] <= before[1] + 2, (before, after)


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
@pytest.mark.parametrize("colour", COLOURS)
def test_opens_that_fail_leave_nothing(durable: QdrantServer, colour: Colour) -> None:
    def count() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    with Proxy(durable.port) as proxy:
        proxy.mode = Mode.RESET
        with Bench({"url": f"qdrant://127.0.0.1:{proxy.port}", "retries": 0}, colour) as bench:
            for n in range(25):
                if n == 3:
                    before = count()
                with pytest.raises(vk.Unavailable):
                    bench.run(bench.connect())
            time.sleep(0.1)
            assert count() <= before + 2


# ------------------------------------------------------------------------------------- many at once


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sixteen_threads_that_open_first_make_one_collection(server: QdrantServer, protocol: str) -> None:
    """Of sixteen that create it one does; of sixteen that ensure it, all have it. Twice: the second is generation 2."""
    for generation in (1, 2):
        barrier = threading.Barrier(16)
        told: list[str] = []

        def open_first(n: int, barrier: threading.Barrier = barrier, told: list[str] = told) -> None:
            try:
                barrier.wait()
                with vk.connect(target(server, protocol)) as store:
                    try:
                        store.create_collection(SPEC)
                        told.append("made")
                    except vk.AlreadyExists:
                        told.append("there")
                    store.ensure_collection(SPEC).upsert([record(n)])
            except BaseException as error:  # noqa: BLE001 - told below
                told.append(repr(error))

        threads = [threading.Thread(target=open_first, args=[n]) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(told) == ["made"] + ["there"] * 15
        found = qdrant_request(server.url, "GET", "collections")["collections"]
        assert [one["name"] for one in found if one["name"] != "vk-control"] == [f"docs@{generation}"]
        with vk.connect(target(server, protocol)) as store:
            assert store.collections() == ["docs"]
            assert store.collection("docs").count() == 16
            assert store.collection("docs").query(vector(7), k=1).ids == ["r000007"]
            store.drop_collection("docs")


_FIRST = """
import json, os, sys, traceback
import vectorkit as vk
from vectorkit.address import backend_for
from integration.faultkit import SPEC, record
backend_for("qdrant")
place = json.loads(sys.argv[1])
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
            with vk.connect(place) as store:
                status = 16
                try:
                    store.create_collection(SPEC)
                    status = 17
                except vk.AlreadyExists:
                    pass
                store.ensure_collection(SPEC).upsert([record(n)])
        except BaseException:
            status = 1
            traceback.print_exc()
        finally:
            os._exit(status)
    children.append(pid)
waiting = 16
while waiting:
    waiting -= len(os.read(ready[0], 16))
os.close(go[1])
print(json.dumps(sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sixteen_processes_that_open_first_make_one_collection(server: QdrantServer, protocol: str) -> None:
    statuses, said = python(_FIRST, target(server, protocol))
    assert statuses == [16] * 15 + [17], said
    with vk.connect(target(server, protocol)) as store:
        assert store.collections() == ["docs"]
        assert store.collection("docs").count() == 16


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_thousand_tasks_on_one_handle_get_their_own_answers(server: QdrantServer, protocol: str) -> None:
    async def body() -> None:
        async with await vk.aconnect(target(server, protocol)) as store:
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 1_000))

            async def one(n: int) -> bool:
                if n % 3 == 0:
                    return (await docs.query(vector(n), k=1)).ids == [f"r{n:06d}"]
                if n % 3 == 1:
                    return is_whole((await docs.get([f"r{n:06d}"], vectors=True))[0], n)
                return await docs.count(F("half") == n // 2) == 2

            assert await asyncio.gather(*map(one, range(1_000))) == [True] * 1_000

    asyncio.run(body())


# ------------------------------------------------------------------------------------- gone, closed, cancelled


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_collection_dropped_and_made_again_elsewhere(server: QdrantServer, colour: Colour, protocol: str) -> None:
    """An old handle never reads or writes its successor under the old spec, and no generation is given twice."""
    with Bench(target(server, protocol), colour) as bench:

        async def body() -> None:
            mine, other = await bench.connect(), await bench.connect()
            docs = await mine.create_collection(SPEC)
            await docs.upsert(records(0, 5))
            await other.drop_collection("docs")
            own = {name: verb for name, verb in verbs(mine, docs).items() if name not in {"collections", "create"}}
            for name, verb in own.items():
                assert await kind_of(verb) is vk.NotFound, name
            generations = []
            for _ in range(3):
                made = await other.create_collection(vk.CollectionSpec("docs", 4))
                generations.append(made.spec.generation)
                await made.upsert([vk.Record("r000003", [1, 0, 0, 0], "somebody else's")])
                with pytest.raises((vk.DimensionMismatch, vk.NotFound)):
                    await docs.query(vector(3))
                with pytest.raises((vk.DimensionMismatch, vk.NotFound)):
                    await docs.upsert([record(3)])
                (row,) = await made.get(["r000003"])
                assert row is not None
                assert row.text == "somebody else's"
                await other.drop_collection("docs")
            assert generations == [2, 3, 4]
            again = await other.create_collection(SPEC)  # of the same shape: the handle follows
            await again.upsert([vk.Record("r000003", vector(3), "somebody else's")])
            (row,) = await docs.get(["r000003"])
            assert row is not None
            assert row.text == "somebody else's"
            assert (await docs.query(vector(3), k=5)).ids == ["r000003"]
            assert await docs.count() == 1

        bench.run(body())


_FORKED = """
import json, os, sys, traceback
import vectorkit as vk
from integration.faultkit import SPEC, records
from integration.test_faults_qdrant import sync_verbs
place = json.loads(sys.argv[1])
store = vk.connect(place)
docs = store.create_collection(SPEC)
docs.upsert(records(0, 5))
pid = os.fork()
if not pid:
    status = 1
    try:
        status = 0
        for name, verb in sync_verbs(store, docs).items():
            try:
                verb()
            except vk.Closed:
                continue
            print(name, file=sys.stderr)
            status = 2
        store.close()
        with vk.connect(place) as own:
            if own.collection("docs").count() != 5:
                status = 3
    except BaseException:
        traceback.print_exc()
        status = 4
    finally:
        sys.stderr.flush()
        os._exit(status)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
here = docs.count()
store.close()
print(json.dumps([status, here]))
"""


def sync_verbs(store: vk.Store, docs: vk.Collection) -> dict[str, Callable[[], Any]]:
    """The same for a store that is not awaited."""
    return {**verbs(store, docs), "scan": lambda: list(docs.scan())}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_child_cannot_use_its_parents_handle(server: QdrantServer, protocol: str) -> None:
    """Closed in every verb; the child may connect by itself, and the parent goes on."""
    found, said = python(_FORKED, target(server, protocol))
    assert found == [0, 5], said


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("colour", COLOURS)
def test_every_verb_of_a_closed_store_is_closed(server: QdrantServer, colour: Colour, protocol: str) -> None:
    with Bench(target(server, protocol), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 5))
            await store.close()
            for name, verb in verbs(store, docs).items():
                assert await kind_of(verb) is vk.Closed, name

        bench.run(body())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpx drops a socket in this race
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_close_under_way_is_closed_or_an_answer(server: QdrantServer, protocol: str) -> None:
    for after in (0.0, 0.01, 0.05):
        store = vk.connect(target(server, protocol))
        docs = store.ensure_collection(SPEC)
        docs.upsert(records(0, 200))
        told: list[str] = []

        def ask(docs: vk.Collection = docs, told: list[str] = told) -> None:
            try:
                while True:
                    if len(docs.query(vector(3), k=100)) != 100:
                        told.append("a part")
            except vk.Closed:
                told.append("closed")
            except BaseException as error:  # noqa: BLE001 - told below
                told.append(repr(error))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(after)
        store.close()
        for thread in threads:
            thread.join(20)
        assert told == ["closed"] * 4
        gc.collect()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cancelling_leaves_the_store_usable(server: QdrantServer, protocol: str) -> None:
    """At any moment; rows are as before or as after, and connections are not mixed up."""

    async def body() -> None:
        async with await vk.aconnect(target(server, protocol)) as store:
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 100))
            calls = verbs(store, docs)
            calls = {name: calls[name] for name in ("query", "get", "scan", "upsert", "insert", "update", "delete")}
            calls["many"] = lambda: docs.upsert(records(0, 300))
            cancelled = 0
            for turn in range(15):
                for name, verb in calls.items():
                    task = asyncio.ensure_future(verb())
                    await asyncio.sleep(0.0004 * turn)
                    task.cancel()
                    try:
                        await task
                    except asyncio.CancelledError:
                        cancelled += 1
                    except vk.AlreadyExists:
                        assert name == "insert"
                    n = turn % 100
                    assert (await docs.query(vector(n), k=1)).ids == [f"r{n:06d}"]
            assert cancelled > 40
            tasks = [asyncio.ensure_future(docs.query(vector(n), k=1)) for n in range(100)]
            await asyncio.sleep(0.05)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for n, task in enumerate(tasks):
                if not task.cancelled():
                    assert task.result().ids == [f"r{n:06d}"]
            found = {row.id: row async for row in docs.scan(vectors=True)}
            assert all(is_whole(row, int(id_[1:])) for id_, row in found.items())
            assert len(found) in {100, 101, 300, 301}

    asyncio.run(body())


# ------------------------------------------------------------------------------------- hostile text, large filters


@pytest.mark.parametrize(("colour", "protocol"), list(zip(COLOURS, PROTOCOLS, strict=True)))
def test_hostile_text_is_only_text(server: QdrantServer, colour: Colour, protocol: str) -> None:
    """As ids, texts, keys, values, words and operands; as a name it is refused, or it is a name."""
    hostile = [
        *PAYLOADS,
        '{"$ne": 1}',
        "{}",
        "[]",
        "a._vk_id",
        "a[].b",
        "x@1",
        "{name}",
        "\\u0000",
        "%00",
        "?a=b#c",
    ]
    ids = [f"{text[:100]}{n}" for n, text in enumerate(hostile)]
    with Bench(target(server, protocol), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            canary = await store.create_collection(vk.CollectionSpec("canary", 2))
            await canary.upsert([vk.Record("a", [1.0, 0.0])])
            fields: dict[str, Any] = {**dict.fromkeys(ids[:20], str), "s": str, "l": list[str]}
            docs = await store.create_collection(vk.CollectionSpec("docs", 2, fields=fields))
            everything = [
                vk.Record(
                    id_, [1.0, float(n)], text, {id_: text, "s": text, "l": [text], "u": text, "in": {id_: [text]}}
                )
                for n, (id_, text) in enumerate(zip(ids, hostile, strict=True))
            ]
            assert (await docs.upsert(everything)).written == len(hostile)
            assert (await docs.insert(everything, on_conflict="skip")).skipped == len(hostile)
            back = {row.id: row async for row in docs.scan()}
            for n, wanted in enumerate(everything):
                found = back[wanted.id]
                assert (found.text, found.metadata) == (wanted.text, wanted.metadata)
                text = hostile[n]
                held = F("s") == text
                for where in (
                    held & (F("u") == text),
                    F("s").in_([text]),
                    F("l").contains(text) & F("l").contains_all([text]),
                    F(wanted.id) == text,
                ):
                    assert await docs.count(where) == 1, (where, text)
                assert (await docs.query([1.0, float(n)], k=1, where=held)).ids == [wanted.id]
                assert await docs.count(held & F("s").startswith(text[:3])) == 1
                assert await docs.get([wanted.id]) == [found]
                await docs.keyword(text)
            for n, wanted in enumerate(everything[::8]):
                assert await docs.update(ids=[wanted.id], set={f"set {wanted.id}": hostile[n]}) == 1
            names = []
            for text in hostile:
                with pytest.raises((vk.InvalidArgument, vk.NotFound)):
                    await store.collection(text)
                try:
                    await store.create_collection(vk.CollectionSpec(text, 2))
                except vk.InvalidArgument:
                    continue
                names.append(text)
                await store.drop_collection(text)
            assert all(name.replace("-", "").replace("_", "").replace(".", "").isalnum() for name in names), names
            for id_ in ("\ud800", ""):
                with pytest.raises(vk.InvalidArgument):
                    await docs.get([id_])
            assert await docs.delete(where=F("s").in_(hostile[::2])) == len(hostile[::2])
            assert await docs.delete(ids=ids) == len(hostile[1::2])
            assert await docs.count() == 0
            assert await canary.count() == 1

        bench.run(body())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_filters_of_ten_thousand_terms(server: QdrantServer, protocol: str) -> None:
    with vk.connect(target(server, protocol)) as store:
        docs = store.create_collection(vk.CollectionSpec("docs", DIMENSION, fields={"n": int, "l": list[str]}))
        docs.upsert([vk.Record(f"r{n}", vector(n), None, {"n": n, "l": [str(n)], "u": n}) for n in range(60)])
        several = list(range(30, 10_030))
        noneof = {"$and": [{"n": {"$ne": n}} for n in several]}
        assert docs.count({"$or": [{"n": n} for n in several]}) == 30
        assert len(docs.query(vector(1), k=100, where=noneof)) == 30
        assert docs.count(F("n").in_(several)) == 30
        assert docs.count(F("u").in_(several)) == 30
        assert docs.count(F("l").contains_any([str(n) for n in several])) == 30
        assert docs.delete(where=F("n").in_(several[100:])) == 0
        deep = F("n") < 7
        for n in range(14):
            deep = (deep & (F("n") != 100 + n)) | (F("n") == 200 + n)
        assert docs.count(deep) == 7
        assert docs.count(~deep) == 53


# ------------------------------------------------------------------------------------- the event loop


@pytest.mark.slow
@pytest.mark.timed
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_upsert_of_ten_thousand_rows_leaves_no_gap_in_the_event_loop(
    server: QdrantServer, protocol: str, say: Callable[[str], None]
) -> None:
    dimension, count = 64, 10_000
    vectors = np.random.default_rng(1).standard_normal((count, dimension)).astype(np.float32)
    metadata: list[dict[str, Any]] = [{"n": n, "half": n // 2, "tags": ["a", "b"]} for n in range(count)]
    ids, texts = [f"r{n}" for n in range(count)], [f"the text of row {n}" for n in range(count)]
    batch = vk.Batch(ids, vectors, texts, metadata)

    async def body() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"control": [], "new rows": [], "the same again": []}
        async with await vk.aconnect(target(server, protocol)) as store:
            fields = {"n": int, "half": int, "tags": list[str]}
            for at in range(3):
                spec = vk.CollectionSpec(f"docs{at}", dimension, index=vk.Flat(), fields=fields)
                docs = await store.create_collection(spec)
                began = time.perf_counter()
                found["new rows"].append(await longest_gap(partial(docs.upsert, batch)))
                found["the same again"].append(await longest_gap(partial(docs.upsert, batch)))
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
    say(f"longest gaps in the event loop over {protocol}, ms, upserting {count:,} rows of {dimension} numbers: {told}")
    for name, gaps in found.items():
        assert median(gaps) < 0.2, name


# ------------------------------------------------------------------------------------- odd answers


class Odd:
    """A server that passes on what it is asked, but for paths that it was told an answer to: raw bytes of HTTP."""

    def __init__(self, port: int) -> None:
        self.path = ""
        self.answer: bytes | None = None
        self.drip = 0.0
        odd = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if odd.answer is not None and odd.path in f"{self.command} {self.path}":
                    self.close_connection = True
                    if odd.drip:
                        for at in range(len(odd.answer)):
                            time.sleep(odd.drip)
                            self.wfile.write(odd.answer[at : at + 1])
                    else:
                        self.wfile.write(odd.answer)
                    return
                link = HTTPConnection("127.0.0.1", port, timeout=30)
                link.request(self.command, self.path, body or None, {"Content-Type": "application/json"})
                reply = link.getresponse()
                said = reply.read()
                link.close()
                self.wfile.write(whole(said, f"{reply.status} X"))

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"qdrant://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.answer = None
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def whole(body: bytes, status: str = "200 OK", kind: str = "application/json", length: int | None = None) -> bytes:
    told = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {told}\r\n\r\n".encode() + body


def result(value: Any) -> bytes:
    return whole(json.dumps({"result": value, "status": "ok", "time": 0.0}).encode())


def headed(status: str, header: str) -> bytes:
    return f"HTTP/1.1 {status}\r\n{header}\r\nContent-Length: 0\r\n\r\n".encode()


ODD: dict[str, bytes] = {
    "HTML": whole(b"<html><body>Welcome to nginx!</body></html>", kind="text/html"),
    "an empty object": whole(b"{}"),
    "an empty list": whole(b"[]"),
    "nothing": whole(b""),
    "no content": whole(b"", "204 No Content"),
    "null": whole(b"null"),
    "a null result": result(None),
    "cut JSON": whole(b'{"result": {"points": [{"id": "'),
    "cut body": whole(b'{"result": ', length=5_000),
    "bytes": whole(bytes(range(256))),
    "deep JSON": whole(b"[" * 100_000),
    "deep JSON with 500": whole(b"[" * 100_000, "500 Internal Server Error"),
    "a redirect": headed("302 Found", "Location: http://127.0.0.1:9/"),
    "a proxy's 502": whole(b"<html>Bad Gateway</html>", "502 Bad Gateway", "text/html"),
    "a proxy's 404": whole(b"<html>Not Found</html>", "404 Not Found", "text/html"),
    "latin-1": whole(b"<html>caf\xe9</html>", kind="text/html"),
    "429 with a date": headed("429 Too Many Requests", "Retry-After: Wed, 21 Oct 2099 07:28:00 GMT"),
    "429 with words": headed("429 Too Many Requests", "Retry-After: soon"),
    "429 with less than none": headed("429 Too Many Requests", "Retry-After: -5"),
    "429 without end": headed("429 Too Many Requests", "Retry-After: " + "9" * 400),
    "status 999": whole(b"{}", "999 Odd"),
    "no HTTP": b"+OK POP3 ready\r\n",
    "a string": result("ok"),
    "a number": result(7),
    "a list of null": result([None]),
    "a list of too many": result([{"points": []}] * 9),
    "points that are none": result({"points": 3, "count": "many"}),
}


@pytest.fixture
def odd(server: QdrantServer) -> Iterator[Odd]:
    made = Odd(server.port)
    yield made
    made.close()


@pytest.mark.parametrize("colour", COLOURS)
def test_odd_answers_are_typed(odd: Odd, colour: Colour) -> None:
    """Every verb, and connecting: an error of ours, and the handle is as good as before."""
    with Bench({"url": odd.url, "retries": 0, "timeout": 5, "api_key": SECRET}, colour) as bench:
        wrong: list[str] = []

        async def tried(name: str, verb: str, call: Callable[[], Any]) -> None:
            odd.answer = ODD[name]
            try:
                wrong.append(f"{name}: {verb} gave {await call()!r}")
            except vk.VectorkitError as error:
                if SECRET in shown(error) or (isinstance(error, vk.NotFound) and "404" not in name and verb != "drop"):
                    wrong.append(f"{name}: {verb}: {error!r}")
            except Exception as error:  # noqa: BLE001 - told below
                wrong.append(f"{name}: {verb}: {type(error).__name__}: {str(error)[:100]}")
            odd.answer = None

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 20))
            calls = {**verbs(store, docs), "connect": bench.connect}
            for name in ODD:
                for verb, call in calls.items():
                    await tried(name, verb, call)
                assert (await patiently(partial(docs.query, vector(3), k=1))).ids == ["r000003"]
            assert await docs.count() == 20

        bench.run(body())
        assert wrong == []


@pytest.mark.parametrize("colour", COLOURS)
def test_a_gateways_404_is_not_a_missing_collection(odd: Odd, colour: Colour) -> None:
    """Else a generation that was dropped would be given again, and an old handle would read another's rows."""
    with Bench({"url": odd.url, "retries": 0}, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await store.drop_collection("docs")
            odd.path, odd.answer = "/collections/vk-control", ODD["a proxy's 404"]
            with pytest.raises(vk.Unavailable, match="not as Qdrant does"):
                await store.create_collection(SPEC)
            odd.answer = None
            made = await patiently(partial(store.create_collection, SPEC))
            assert made.spec.generation == 2
            odd.path, odd.answer = "/collections/docs", ODD["a proxy's 404"]
            for _ in range(2):
                assert await kind_of(docs.count) is vk.Unavailable

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_a_wait_that_is_no_number_of_seconds_is_a_short_one(odd: Odd, colour: Colour) -> None:
    waits = {"429 with a date": None, "429 with words": None, "429 with less than none": 0, "429 without end": 86_400}
    with Bench({"url": odd.url}, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            for name, wait in waits.items():
                odd.answer = ODD[name]
                raised: vk.RateLimited | None = None
                while raised is None:
                    try:
                        await docs.count()
                    except vk.RateLimited as error:
                        raised = error
                    except vk.Unavailable:  # a connection that the answer before has ended
                        continue
                assert raised.retry_after == wait, name
                odd.answer = None
                assert await patiently(docs.count) == 0

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_an_insert_with_an_odd_answer_may_have_landed(odd: Odd, colour: Colour) -> None:
    with Bench({"url": odd.url, "retries": 0}, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            odd.path = "PUT /collections/docs%401/points"
            for name in (
                "HTML",
                "an empty object",
                "cut JSON",
                "cut body",
                "no HTTP",
                "a null result",
                "a proxy's 502",
            ):
                odd.answer = ODD[name]
                await patiently(docs.count)  # the connection that was there has ended
                with pytest.raises(vk.Ambiguous):
                    await docs.insert(records(0, 5))
                await patiently(docs.count)
                with pytest.raises(vk.Unavailable):
                    await docs.upsert(records(0, 5))
            odd.answer = None
            await patiently(docs.count)
            assert (await docs.insert(records(0, 5))).written == 5

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_points_that_are_not_ours_are_corrupt(odd: Odd, colour: Colour) -> None:
    """Rows without what every row of ours has, or with something else in its place."""
    mine = {"_vk_id": "r000003", "_vk_seq": 1, "_vk_expires": 2**62}
    payloads: list[Any] = [
        {},
        {**mine, "_vk_meta": "{"},
        {**mine, "_vk_meta": 7},
    ]
    with Bench({"url": odd.url, "retries": 0}, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 5))
            calls = verbs(store, docs)
            point = qdrant_request(odd.url, "POST", "collections/docs@1/points/scroll", {"limit": 1})["points"][0]["id"]
            for payload in payloads:
                row = {"id": point, "version": 1, "score": 0.5, "payload": payload, "vector": [1.0] * DIMENSION}
                await patiently(docs.count)  # the connection that was there has ended
                odd.path, odd.answer = "/points/query/batch", result([{"points": [row]}])
                assert await kind_of(partial(docs.query, vector(3), k=1)) is vk.Corrupt, payload
                await patiently(docs.count)
                odd.path, odd.answer = "/points/scroll", result({"points": [row], "next_page_offset": None})
                assert await kind_of(calls["scan"]) is vk.Corrupt, payload
            odd.answer = None
            assert await patiently(docs.count) == 5

        bench.run(body())


@pytest.mark.parametrize("colour", ["async"])  # httpx's own timeout, all that the sync colour has, is of each read
def test_an_answer_that_comes_a_byte_at_a_time_ends_at_the_deadline(odd: Odd, colour: Colour) -> None:
    """A timeout is of the request, not of each byte of its answer."""
    with Bench({"url": odd.url, "retries": 0, "timeout": 1}, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            odd.answer, odd.drip = result({"count": 5}), 0.03  # 4 seconds of it
            began = time.monotonic()
            with pytest.raises(vk.DeadlineExceeded):
                await docs.count()
            assert time.monotonic() - began < 2.5

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_a_grpc_port_where_something_else_listens(server: QdrantServer, colour: Colour) -> None:
    """REST's port, and a listener that says what no gRPC says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    link.sendall(b"220 mail ready\r\n")
                    link.close()

        thread = threading.Thread(target=greet)
        thread.start()
        for port in (server.port, listener.getsockname()[1]):
            with Bench({**target(server, "grpc", timeout=1, api_key=SECRET), "grpc_port": port}, colour) as bench:
                with pytest.raises((*ERRORS, vk.Unsupported)) as raised:
                    bench.run(bench.connect())
                assert SECRET not in shown(raised.value)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
