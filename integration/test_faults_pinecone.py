"""Pinecone when something goes wrong, against the double of its API: refused, dropped, slow, frozen, gone, odd, late, many at once.

Errors are vectorkit's own and come in bounded time, what was acknowledged is there, and the same handle works again. The client
sends a request up to four times; nothing here sends it more often.
"""

import asyncio
import gc
import inspect
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pinecone._internal import http_client

import vectorkit as vk
from integration.faultkit import (
    DIMENSION,
    ERRORS,
    SPEC,
    is_whole,
    kind_of,
    patiently,
    python,
    record,
    records,
    shown,
    vector,
)
from integration.servers.pinecone import PineconeServer
from vectorkit import F
from vectorkit.testing.faces import COLOURS, Bench, Colour
from vectorkit_pinecone import catalogue

pytestmark = pytest.mark.own

SECRET = "zQ7Xj-not-to-be-shown"
ATTEMPTS = 4
"""How often Pinecone's client sends a request."""
LIMITED = (vk.RateLimited, *ERRORS)
DATA = "/_index/"
CONTROL = "/indexes"


def fresh_budget() -> None:
    """The client stops to retry when too much has failed in a process."""
    http_client.get_budget_registry()._reset()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client waits milliseconds between its attempts, and has not failed before."""

    async def nap(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.003))

    monkeypatch.setattr(http_client, "_retry_sleep", lambda seconds: time.sleep(min(seconds, 0.003)))
    monkeypatch.setattr(http_client, "_async_retry_sleep", nap)
    fresh_budget()
    yield
    fresh_budget()


@pytest.fixture(scope="module")
def durable() -> Iterator[PineconeServer]:
    """A double that may be killed."""
    with PineconeServer() as server:
        yield server


@pytest.fixture
def server(durable: PineconeServer) -> Iterator[PineconeServer]:
    """It, with nothing in it."""
    durable.control.reset()
    yield durable
    durable.thaw()
    durable.start()
    durable.control.reset()


def target(server: PineconeServer, **more: Any) -> dict[str, Any]:
    """As `connect` takes it. Nothing here is encrypted, and to load authorities takes 20 ms a client."""
    made = {"url": server.url, "api_key": SECRET, "headers": {"x-other": SECRET}, "wait": 10.0, "ssl_verify": False}
    return {**made, **more}


def indexes(server: PineconeServer) -> list[dict[str, Any]]:
    """What Pinecone's list of indexes shows."""
    link = HTTPConnection(server.host, server.port, timeout=10)
    link.request("GET", "/indexes", headers={"Api-Key": "any", "X-Pinecone-Api-Version": "2026-07"})
    told: list[dict[str, Any]] = json.loads(link.getresponse().read())["indexes"]
    link.close()
    return told


def requests(server: PineconeServer, part: str = "") -> int:
    """How many were sent since traffic was forgotten, of those whose method and path have this in them."""
    return sum(one["requests"] for name, one in server.control.traffic().items() if part in name)


def chain(error: BaseException) -> list[BaseException]:
    """An error, and all that led to it."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        link = left.pop()
        if link is not None and all(link is not one for one in found):
            found.append(link)
            left += [link.__cause__, link.__context__]
    return found


def holds(error: BaseException, secret: str = SECRET) -> str | None:
    """Where an error or what led to it shows a secret: its text, its attributes, the headers of its request."""
    for link in chain(error):
        parts = [shown(link), repr(vars(link))]
        request = getattr(link, "_request", None)
        if isinstance(request, httpx.Request):
            parts.append(repr(request.headers.raw))
        if any(secret in part for part in parts):
            return f"{type(link).__name__}: {parts}"
    return None


def verbs(store: Any, docs: Any) -> dict[str, Callable[[], Any]]:
    """Every verb that asks the server; those that write leave what is there as it was."""

    async def scan() -> list[vk.Record]:
        return [row async for row in docs.scan()]

    return {
        "query": lambda: docs.query(vector(3), k=1),
        "query_many": lambda: docs.query_many([vector(3), vector(4)], k=1),
        "keyword": lambda: docs.keyword("word3", k=1),
        "hybrid": lambda: docs.hybrid("word3", vector(3), k=1),
        "get": lambda: docs.get(["r000003"]),
        "count": docs.count,
        "count where": lambda: docs.count(F("n") == 3),
        "scan": scan,
        "stats": docs.stats,
        "upsert": lambda: docs.upsert([record(3)]),
        "update": lambda: docs.update(ids=["r000003"], set={"round": 0}),
        "update where": lambda: docs.update(where=F("n") == 3, set={"round": 0}),
        "delete": lambda: docs.delete(ids=["nobody"]),
        "delete where": lambda: docs.delete(where=F("n") == 77_777),
        "collections": store.collections,
        "collection": lambda: store.collection("docs"),
        "create": lambda: store.create_collection(vk.CollectionSpec("more", 2)),
        "drop": lambda: store.drop_collection("nothing"),
    }


OF_CONTROL = frozenset({"collections", "collection", "create", "drop"})
SEVERAL = frozenset({"query_many", "hybrid"})
"""Verbs that have two requests under way at once in the async colour."""


async def now(value: Any) -> Any:
    """What the client of either colour answers."""
    return await value if inspect.isawaitable(value) else value


def failing(server: PineconeServer, verb: str, **fault: Any) -> None:
    """From now on every request of the verb's plane meets with this; the client has not failed before."""
    fresh_budget()
    server.control.forget()
    server.control.fail(**{"path": CONTROL if verb in OF_CONTROL else DATA, "times": 10_000, **fault})


# ------------------------------------------------------------------------------------- refused for a while


@pytest.mark.parametrize("wait", [None, 0.25])
@pytest.mark.parametrize("colour", COLOURS)
def test_429_is_told_after_the_clients_own_attempts(server: PineconeServer, colour: Colour, wait: float | None) -> None:
    """Nothing multiplies them, and `retry_after` is what the server said."""
    more = {} if wait is None else {"retry_after": wait}
    with Bench(target(server), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 10))
            for name, verb in verbs(store, docs).items():
                failing(server, name, status=429, **more)
                with pytest.raises(vk.RateLimited) as raised:
                    await verb()
                assert raised.value.retry_after == wait, name
                assert raised.value.retryable
                assert holds(raised.value) is None
                sent = requests(server)
                assert sent == ATTEMPTS or (name in SEVERAL and sent <= 2 * ATTEMPTS), (name, server.control.traffic())
                server.control.forget()
                server.control.fail(status=429, times=ATTEMPTS - 1, **more)
                fresh_budget()
                assert await kind_of(verb) in ((vk.NotFound,) if name == "drop" else (None,)), name
                if name == "create":
                    await store.drop_collection("more")
            assert (await docs.query(vector(3), k=1)).ids == ["r000003"]
            assert await docs.count() == 10

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_errors_of_the_server_are_unavailable_and_sent_four_times(server: PineconeServer, colour: Colour) -> None:
    """500 and 503, and connections that are closed; one more request looks whether the index is there at all."""
    faults: list[dict[str, Any]] = [{"status": 500}, {"status": 503}, {"action": "drop"}]
    with Bench(target(server), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 10))
            for fault in faults:
                await docs.count()  # to open a collection that cannot be read is to look it up again
                for name, verb in verbs(store, docs).items():
                    failing(server, name, **fault)
                    with pytest.raises(vk.Unavailable) as raised:
                        await verb()
                    assert raised.value.retryable
                    assert holds(raised.value) is None
                    looked = 0 if name in OF_CONTROL else requests(server, "GET /indexes/{name}")
                    sent = requests(server) - looked
                    assert looked <= 1 + (name in SEVERAL)
                    assert sent == ATTEMPTS or (name in SEVERAL and sent <= 2 * ATTEMPTS), (
                        fault,
                        name,
                        server.control.traffic(),
                    )
                    server.control.forget()
            assert (await docs.query(vector(3), k=1)).ids == ["r000003"]
            assert await docs.count() == 10

        bench.run(body())


WRITES = {
    "upsert": ("/upsert", "/upsert"),
    "update": ("/update", "/upsert"),
    "delete": ("/delete", "/delete"),
    "delete where": ("/delete", "/delete"),
    "everything": ("/delete", "/delete"),
}
"""What is in the path of the request that writes, of documents and of classic vectors."""


async def written(docs: Any, verb: str) -> Any:
    """A write of the rows 0 to 5."""
    ids = [f"r{n:06d}" for n in range(5)]
    match verb:
        case "upsert":
            return (await docs.upsert([record(n, 7) for n in range(5)])).written
        case "update":
            return await docs.update(ids=ids, set={"round": 7})
        case "delete":
            return await docs.delete(ids=ids)
        case "delete where":
            return await docs.delete(where=F("n") < 5)
        case _:
            return await docs.delete(everything=True)


@pytest.mark.parametrize("api", ["documents", "vectors"])
@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_write_that_fails_is_whole_or_absent(server: PineconeServer, colour: Colour, verb: str, api: str) -> None:
    """Failing before the work and after it; once, which the client mends, and four times, which it tells."""
    path = WRITES[verb][api == "vectors"]
    with Bench(target(server, api=api), colour) as bench:

        async def once(docs: Any, fault: dict[str, Any], when: str, times: int) -> None:
            await docs.upsert(records(0, 10))
            fresh_budget()
            server.control.forget()
            server.control.fail(path=path, when=when, times=times, **fault)
            whole = when == "after"
            if times < ATTEMPTS:
                done = await written(docs, verb)
                whole = True
                # a filter's delete that is sent again finds nothing left to count
                assert done in ({0, 5} if verb == "delete where" else {5, 10})
            else:
                with pytest.raises(vk.Unavailable) as raised:
                    await written(docs, verb)
                assert raised.value.retryable
                assert holds(raised.value) is None
            assert requests(server, path) in {ATTEMPTS, times + 1}
            found = {row.id: row async for row in docs.scan(vectors=True)}
            if verb in {"upsert", "update"}:
                assert [int(row.metadata["round"]) for row in found.values()].count(7) == (5 if whole else 0)
                assert len(found) == 10
            else:
                assert len(found) == (10 if not whole else 0 if verb == "everything" else 5)
            assert all(is_whole(row, int(id_[1:])) for id_, row in found.items() if row.metadata["round"] == 0)
            await written(docs, verb)

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            faults: list[dict[str, Any]] = [{"status": 500}, {"status": 503}, {"action": "drop"}]
            for fault in faults:
                for when in ("before", "after"):
                    for times in (1, ATTEMPTS):
                        await once(docs, fault, when, times)

        bench.run(body())


# ------------------------------------------------------------------------------------- slow, frozen, killed, absent


@pytest.mark.parametrize("colour", COLOURS)
def test_a_slow_answer_is_a_deadline_exceeded_in_bounded_time(server: PineconeServer, colour: Colour) -> None:
    """Four attempts of 0.1 s; within the timeout slowness is no error."""
    with Bench(target(server, timeout=0.1), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await patiently(partial(store.create_collection, SPEC))
            await patiently(partial(docs.upsert, records(0, 10)))
            for name, verb in verbs(store, docs).items():
                if name not in {"query", "get", "count", "upsert", "delete", "collections", "create"}:
                    continue  # as others
                failing(server, name, action="slow", seconds=5.0)
                began = time.monotonic()
                with pytest.raises(vk.DeadlineExceeded) as raised:
                    await verb()
                assert 0.09 < time.monotonic() - began < 2.5, name
                assert raised.value.retryable
                assert not raised.value.landed
                assert holds(raised.value) is None
            server.control.forget()
            server.control.fail(action="slow", seconds=0.02, times=100)
            assert (await patiently(partial(docs.query, vector(3), k=1))).ids == ["r000003"]

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_a_deadline_holds_against_a_frozen_server(server: PineconeServer, colour: Colour) -> None:
    """Thawed, the handle goes on. Looking whether the index is there doubles the attempts."""
    with Bench(target(server, timeout=0.1), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await patiently(partial(store.create_collection, SPEC))
            await patiently(partial(docs.upsert, records(0, 20)))
            server.freeze()
            try:
                for name in ("query", "upsert", "delete", "collections", "create"):
                    fresh_budget()
                    began = time.monotonic()
                    with pytest.raises(ERRORS) as raised:
                        await verbs(store, docs)[name]()
                    assert time.monotonic() - began < 2 * ATTEMPTS * 0.1 + 1.5, name
                    assert holds(raised.value) is None
            finally:
                server.thaw()
            assert (await patiently(partial(docs.query, vector(1), k=1))).ids == ["r000001"]
            assert len([row for row in await docs.get([f"r{n:06d}" for n in range(20)]) if row is not None]) == 20

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_a_server_killed_and_back_with_nothing(server: PineconeServer, colour: Colour) -> None:
    """Unavailable while it is away, NotFound when it has forgotten, and the handle follows a new collection."""
    with Bench(target(server), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 10))
            server.kill()
            for name, verb in verbs(store, docs).items():
                fresh_budget()
                began = time.monotonic()
                assert await kind_of(verb) is vk.Unavailable, name
                assert time.monotonic() - began < 5
            server.start()
            fresh_budget()
            for name, verb in verbs(store, docs).items():
                if name not in {"collections", "create"}:
                    assert await kind_of(verb) is vk.NotFound, name
            assert await store.collections() == []
            with pytest.raises(vk.NotFound):
                await docs.optimize()
            again = await store.ensure_collection(SPEC)
            await again.upsert(records(0, 3))
            assert await docs.count() == 3

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_no_server_at_all(colour: Colour) -> None:
    """Connecting sends nothing; every verb says Unavailable in bounded time."""
    with socket.socket() as bound:  # bound, and nobody listens
        bound.bind(("127.0.0.1", 0))
        url = f"pinecone://vk?host=http://127.0.0.1:{bound.getsockname()[1]}"
        with Bench({"url": url, "api_key": SECRET}, colour) as bench:

            async def body() -> None:
                store = await bench.connect()
                for act in (
                    store.collections,
                    partial(store.create_collection, SPEC),
                    partial(store.ensure_collection, SPEC),
                    partial(store.collection, "docs"),
                    partial(store.drop_collection, "docs"),
                    partial(store.adopt, "theirs", SPEC),
                ):
                    fresh_budget()
                    began = time.monotonic()
                    with pytest.raises(vk.Unavailable, match="pinecone://vk") as raised:
                        await act()
                    assert time.monotonic() - began < 5
                    assert raised.value.retryable
                    assert holds(raised.value) is None

            bench.run(body())


# ------------------------------------------------------------------------------------- a part of a write


@pytest.mark.parametrize("kind", ["many rows", "long texts"])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_write_of_several_requests_of_which_one_fails(server: PineconeServer, colour: Colour, kind: str) -> None:
    """What is written and what is not is told exactly, and the same again mends it."""
    if kind == "many rows":
        given = records(0, 2_500)
    else:  # 50 KB a row: some forty a request
        given = [vk.Record(f"r{n:06d}", vector(n), f"word{n} " + "other " * 4_000, {"n": n}) for n in range(100)]
    ids = [one.id for one in given]
    with Bench(target(server), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            for skip in (1, 2):
                fresh_budget()
                server.control.forget()
                server.control.fail(path="/documents/upsert", status=503, skip=skip, times=ATTEMPTS)
                with pytest.raises(vk.PartialFailure) as raised:
                    await docs.upsert(given)
                error = raised.value
                there = {row.id async for row in docs.scan()}
                assert 0 < error.written < len(given)
                assert there == set(ids[: error.written])
                assert list(error.failed) == ids[error.written :]
                assert isinstance(error.__cause__, vk.Unavailable | vk.PartialFailure)
                assert holds(error) is None
                assert await docs.delete(everything=True) == error.written
            assert (await docs.upsert(given)).written == len(given)
            assert await docs.count() == len(given)

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_an_update_of_several_requests_of_which_one_fails(server: PineconeServer, colour: Colour) -> None:
    ids = [f"r{n:06d}" for n in range(100)]
    with Bench(target(server), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 100))
            server.control.fail(path="/documents/update", status=503, skip=1, times=ATTEMPTS)
            with pytest.raises(vk.PartialFailure) as raised:
                await docs.update(ids=ids, set={"mark": "m" * 20_000})
            error = raised.value
            marked = {row.id async for row in docs.scan() if "mark" in row.metadata}
            assert 0 < error.written == len(marked) < 100
            assert set(error.failed) == set(ids) - marked
            assert len(error.failed) == 100 - error.written
            assert await docs.update(ids=ids, set={"mark": "m" * 20_000}) == 100

        bench.run(body())


@pytest.mark.parametrize("api", ["documents", "vectors"])
def test_an_update_of_many_wide_rows_is_several_requests(server: PineconeServer, api: str) -> None:
    """A classic index is sent rows whole, vectors too."""
    spec = vk.CollectionSpec("wide", 512, fields={"n": int})
    random = np.random.default_rng(1).standard_normal((900, 512)).astype(np.float32)
    with vk.connect(target(server, api=api)) as store:
        docs = store.create_collection(spec)
        made = [vk.Record(f"r{n}", random[n], None, {"n": n}) for n in range(900)]
        docs.upsert(made)
        assert docs.update(ids=[one.id for one in made], set={"mark": 1}) == 900
        assert sum(row.metadata["mark"] for row in docs.scan()) == 900
        assert len(docs.get([one.id for one in made], vectors=True)) == 900
        assert docs.count(F("mark") == 1) == 900
        assert docs.delete(where=F("n") < 700) == 700
        assert docs.delete(ids=[one.id for one in made]) == 200


def test_a_classic_index_of_wide_vectors_is_adopted(server: PineconeServer) -> None:
    """Its answers are longer than what was written: 0.4 comes back as 0.4000000059604645."""
    random = np.random.default_rng(1).standard_normal((300, 1_536)).astype(np.float32)
    with vk.connect(target(server)) as store:
        native: Any = store.native
        dense = {"type": "dense_vector", "dimension": 1_536, "metric": "cosine"}
        native.indexes.create(name="theirs", schema={"fields": {"_values": dense}})
        with native.index(name="theirs") as index:
            for start in range(0, 300, 50):
                rows = [{"id": f"r{n}", "values": random[n].tolist()} for n in range(start, start + 50)]
                index.upsert(vectors=rows, namespace="a")
        docs = store.adopt("theirs?namespace=a", vk.CollectionSpec("wide", 1_536))
        assert docs.count() == 300
        assert docs.query(random[7], k=1).ids == ["r7"]


@pytest.mark.parametrize("colour", COLOURS)
def test_a_wait_outlives_reads_that_fail(server: PineconeServer, colour: Colour) -> None:
    """The write was taken: what looks whether it is seen yet is asked again until the wait ends, which then says `landed`."""
    with Bench(target(server, wait=5.0), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            for path in ("/documents/search", "/documents/fetch"):
                for status in (429, 503):
                    fresh_budget()
                    server.control.forget()
                    server.control.fail(path=path, status=status, times=ATTEMPTS)
                    assert (await docs.upsert(records(0, 5))).written == 5
            server.control.forget()
            server.control.fail(path="/documents/search", status=503, times=10_000)
            with pytest.raises(vk.DeadlineExceeded) as raised:
                await docs.upsert(records(5, 8), wait=0.2)
            assert raised.value.landed
            server.control.forget()
            assert await docs.count() == 8

        bench.run(body())


# ------------------------------------------------------------------------------------- seen later


@pytest.mark.parametrize("api", ["documents", "vectors"])
@pytest.mark.parametrize(
    ("colour", "delays"),
    [("sync", (0.3, None)), ("async", (0.3, None)), ("sync", (0.02, 0.15)), ("async", (0.15, 0.02))],
)
def test_a_wait_reads_its_own_writes(
    server: PineconeServer, colour: Colour, delays: tuple[float, float | None], api: str
) -> None:
    """However late searches and fetches are, and whichever is later."""
    with Bench(target(server, api=api), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            server.control.set(delay=delays[0], fetch_delay=delays[1])
            await docs.upsert(records(0, 20))
            assert (await docs.query(vector(3), k=1)).ids == ["r000003"]
            assert is_whole((await docs.get(["r000019"], vectors=True))[0], 19)
            assert len({row.id async for row in docs.scan()}) == 20
            assert await docs.update(ids=["r000003", "r000004"], set={"round": 7}) == 2
            assert (await docs.query(vector(3), k=1))[0].metadata["round"] == 7
            assert {row.id async for row in docs.scan(F("round") == 7)} == {"r000003", "r000004"}
            assert await docs.delete(ids=["r000003"]) == 1
            assert await docs.get(["r000003"]) == [None]
            assert "r000003" not in (await docs.query(vector(3), k=20)).ids
            assert await docs.delete(where=F("n") < 10) == 9
            assert await docs.count() == 10
            assert len(await docs.query(vector(3), k=20)) == 10
            assert await docs.delete(everything=True) == 10
            assert await docs.count() == 0
            assert (await docs.query(vector(3), k=1)).ids == []
            assert [row async for row in docs.scan()] == []

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_a_wait_that_runs_out_says_that_it_landed(server: PineconeServer, colour: Colour) -> None:
    """The rows appear later; `wait=0` and no wait at all come back at once."""
    with Bench(target(server), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            server.control.delay = 0.8
            began = time.monotonic()
            with pytest.raises(vk.DeadlineExceeded) as raised:
                await docs.upsert(records(0, 5), wait=0.1)
            assert 0.1 <= time.monotonic() - began < 0.7
            assert raised.value.landed
            assert raised.value.retryable
            assert await docs.get(["r000001"]) == [None]
            began = time.monotonic()
            assert (await docs.upsert(records(5, 10), wait=0)).written == 5
            assert time.monotonic() - began < 0.5
            end = time.monotonic() + 10
            while await docs.count() < 10 and time.monotonic() < end:
                time.sleep(0.05)  # noqa: ASYNC251 - nobody else is on this loop
            assert {int(row.id[1:]) async for row in docs.scan(vectors=True) if is_whole(row, int(row.id[1:]))} == set(
                range(10)
            )
            server.control.delay = 60.0
            large = [record(n) for n in range(1_500)]
            began = time.monotonic()
            with pytest.raises(vk.DeadlineExceeded) as raised:  # of two requests, and one wait for both
                await docs.upsert(large, wait=0.2)
            assert raised.value.landed
            assert time.monotonic() - began < 3

        bench.run(body())


# ------------------------------------------------------------------------------------- collections: dropped, made, raced for


@pytest.mark.parametrize("colour", COLOURS)
def test_a_collection_dropped_and_made_again_elsewhere(server: PineconeServer, colour: Colour) -> None:
    """An old handle never reads or writes its successor under the old spec, and no generation is given twice."""
    with Bench(target(server), colour) as bench:

        async def body() -> None:
            mine, other, third = await bench.connect(), await bench.connect(), await bench.connect()
            docs = await mine.create_collection(SPEC)
            await docs.upsert(records(0, 5))
            generations = [docs.spec.generation]
            await other.drop_collection("docs")
            own = {name: verb for name, verb in verbs(mine, docs).items() if name not in {"collections", "create"}}
            for name, verb in own.items():
                assert await kind_of(verb) is vk.NotFound, name
            for maker in (other, third, mine):
                made = await maker.create_collection(vk.CollectionSpec("docs", 4))
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
            again = await third.create_collection(SPEC)  # of the same shape: the handle follows
            generations.append(again.spec.generation)
            assert generations == sorted(set(generations))
            await again.upsert([vk.Record("r000003", vector(3), "somebody else's")])
            (row,) = await docs.get(["r000003"])
            assert row is not None
            assert row.text == "somebody else's"
            assert (await docs.query(vector(3), k=5)).ids == ["r000003"]
            assert await docs.count() == 1
            await other.drop_collection("docs")
            assert await kind_of(docs.count) is vk.NotFound
            assert indexes(server) == []

        bench.run(body())


def test_sixteen_threads_that_open_first_make_one_collection(server: PineconeServer) -> None:
    """Of sixteen that create it one does; of sixteen that ensure it, all have it. Twice, and with ensure alone."""
    for creating in (True, True, False):
        barrier = threading.Barrier(16)
        told: list[str] = []
        server.control.delay = 0.05

        def open_first(
            n: int, barrier: threading.Barrier = barrier, told: list[str] = told, creating: bool = creating
        ) -> None:
            try:
                with vk.connect(target(server)) as store:
                    barrier.wait()
                    if creating:
                        try:
                            store.create_collection(SPEC)
                            told.append("made")
                        except vk.AlreadyExists:
                            told.append("there")
                    store.ensure_collection(SPEC).upsert([record(n)])
                    told.append("has it")
            except BaseException as error:  # noqa: BLE001 - told below
                told.append(repr(error))

        threads = [threading.Thread(target=open_first, args=[n]) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(told) == ["has it"] * 16 + (["made"] + ["there"] * 15) * creating
        assert len(indexes(server)) == 1
        with vk.connect(target(server)) as store:
            assert store.collections() == ["docs"]
            assert store.collection("docs").count() == 16
            store.drop_collection("docs")


@pytest.mark.parametrize("slow", ["POST", "PATCH"])
def test_of_two_that_begin_in_different_seconds_one_has_it(server: PineconeServer, slow: str) -> None:
    """The first one's request is slow on its way, and a second begins and ends meanwhile, or finds it there."""
    told: list[str] = []

    def make() -> None:
        try:
            with vk.connect(target(server)) as store:
                store.create_collection(SPEC)
            told.append("made")
        except vk.AlreadyExists:
            told.append("there")
        except BaseException as error:  # noqa: BLE001 - told below
            told.append(repr(error))

    server.control.fail(path=CONTROL, method=slow, action="slow", seconds=1.6)
    threads = [threading.Thread(target=make) for _ in range(2)]
    threads[0].start()
    time.sleep(1.1)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["made", "there"]
    assert len(indexes(server)) == 1


_FIRST = """
import json, os, sys, traceback
import vectorkit as vk
from vectorkit.address import backend_for
from integration.faultkit import SPEC, record
backend_for("pinecone")
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
def test_sixteen_processes_that_open_first_make_one_collection(server: PineconeServer) -> None:
    statuses, said = python(_FIRST, target(server))
    assert statuses == [16] * 15 + [17], said
    assert len(indexes(server)) == 1
    with vk.connect(target(server)) as store:
        assert store.collections() == ["docs"]
        assert store.collection("docs").count() == 16


CREATING: list[tuple[str, str]] = [
    ("GET", CONTROL),
    ("POST", CONTROL),
    ("POST", "/documents/upsert"),
    ("POST", "/documents/fetch"),
    ("PATCH", CONTROL),
]
"""The requests of a create: look, make, write the spec, see it, publish."""
FAULTS: list[dict[str, Any]] = [
    {"status": 503, "when": "before"},
    {"status": 503, "when": "after"},
    {"action": "drop", "when": "before"},
    {"action": "drop", "when": "after"},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.get('action', 'status')} {fault['when']}")
@pytest.mark.parametrize("colour", COLOURS)
def test_a_create_that_fails_half_way_leaves_nothing(
    server: PineconeServer, colour: Colour, fault: dict[str, Any]
) -> None:
    """Each of its requests in turn. Failing once is mended; four times is told, and the name can be had at once."""
    with Bench(target(server), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            server.control.set(max_indexes=1_000)
            made = 0
            for method, path in CREATING:
                for skip in range(2 if (method, path) == ("GET", CONTROL) else 1):
                    for times in (1, ATTEMPTS):
                        made += 1
                        spec = vk.CollectionSpec(f"docs{made}", DIMENSION, fields=SPEC.fields)
                        about = (method, path, skip, times)
                        fresh_budget()
                        server.control.forget()
                        server.control.fail(method=method, path=path, skip=skip, times=times, **fault)
                        kind = await kind_of(partial(store.create_collection, spec))
                        assert requests(server, "POST /indexes") <= ATTEMPTS
                        # an index that was made and not answered for is refused to the second attempt, and known as one's own
                        known = times == 1 or (method == "POST" and path == CONTROL and fault["when"] == "after")
                        assert kind is (None if known else vk.Unavailable), (about, kind)
                        server.control.forget()
                        assert await store.collections() == sorted(f"docs{n}" for n in range(1, made + known)), about
                        assert len(indexes(server)) == made - 1 + known, about
                        docs = await store.ensure_collection(spec)
                        await docs.upsert([record(1)])
                        assert await docs.count() == 1, about
                        assert len(indexes(server)) == made, about

        bench.run(body())


@pytest.mark.parametrize("protected", [False, True])
@pytest.mark.parametrize("colour", COLOURS)
def test_what_could_not_be_taken_back_is_swept_by_the_next_create(
    server: PineconeServer, colour: Colour, protected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an hour; until then the name is taken by one that is being made, and nothing half made is ever read."""
    more = {"ready_timeout": 0.2, "deletion_protection": protected}
    with Bench(target(server, **more), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            server.control.fail(path="/documents/upsert", status=503, times=10_000)
            server.control.fail(method="DELETE", path=CONTROL, status=503, times=10_000)
            server.control.fail(method="PATCH", path=CONTROL, status=503, times=10_000)
            assert await kind_of(partial(store.create_collection, SPEC)) is vk.Unavailable
            server.control.forget()
            fresh_budget()
            (left,) = indexes(server)
            assert left["tags"]["vk_state"] == "building"
            assert await store.collections() == []
            assert await kind_of(partial(store.collection, "docs")) is vk.NotFound
            assert await kind_of(partial(store.create_collection, SPEC)) is vk.Unavailable  # somebody may be making it
            monkeypatch.setattr(catalogue, "ABANDONED", -1)
            docs = await store.create_collection(SPEC)
            assert docs.spec.generation > int(left["tags"]["vk_generation"])
            (there,) = indexes(server)
            assert there["name"] != left["name"]

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_an_adopt_that_fails_half_way_leaves_nothing(server: PineconeServer, colour: Colour) -> None:
    """Each of its requests in turn; what is adopted stays as it was."""
    with Bench(target(server), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            native: Any = store.native
            fields = {
                "v": {"type": "dense_vector", "dimension": DIMENSION, "metric": "cosine"},
                "body": {"type": "string", "full_text_search": {}},
            }
            rows = [{"_id": f"r{n:06d}", "v": vector(n).tolist(), "body": f"word{n}", "n": n} for n in range(30)]
            await now(native.indexes.create(name="theirs", schema={"fields": fields}))
            index = await now(native.index(name="theirs"))
            await now(index.documents.upsert(namespace="a", documents=rows))
            await now(index.close())
            name = "theirs?namespace=a&text=body"
            steps = [
                *CREATING,
                ("POST", "/namespaces/a/documents/list"),
                ("POST", "/namespaces/a/documents/fetch"),
                ("POST", "/namespaces/rows/documents/upsert"),
            ]
            for method, path in steps:
                for fault in FAULTS:
                    fresh_budget()
                    server.control.forget()
                    server.control.fail(method=method, path=path, times=ATTEMPTS, **fault)
                    kind = await kind_of(partial(store.adopt, name, SPEC))
                    server.control.forget()
                    if kind is None:  # made at the first attempt, and known as one's own at the second
                        assert (method, path, fault["when"]) == ("POST", CONTROL, "after")
                        await store.drop_collection("docs")
                    else:
                        assert kind is vk.Unavailable, (method, path, fault, kind)
                    assert await store.collections() == []
                    assert [one["name"] for one in indexes(server)] == ["theirs"], (method, path, fault)
            fresh_budget()
            docs = await store.adopt(name, SPEC)
            assert await docs.count() == 30
            assert (await docs.keyword("word7", k=1)).ids == ["r000007"]

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_an_index_quota_that_is_reached(server: PineconeServer, colour: Colour) -> None:
    with Bench(target(server), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            server.control.set(max_indexes=1)
            await store.create_collection(SPEC)
            for act in (
                partial(store.create_collection, vk.CollectionSpec("more", 2)),
                partial(store.ensure_collection, vk.CollectionSpec("more", 2)),
            ):
                with pytest.raises(vk.Unsupported, match="quota"):
                    await act()
            assert len(indexes(server)) == 1
            assert await store.collections() == ["docs"]
            server.control.set(max_indexes=2)
            await store.create_collection(vk.CollectionSpec("more", 2))

        bench.run(body())


@pytest.mark.parametrize("colour", COLOURS)
def test_a_protected_collection_is_not_dropped(server: PineconeServer, colour: Colour) -> None:
    """Its rows stay, and the handle goes on; a create that fails takes its own protection away."""
    with Bench(target(server, deletion_protection=True), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 5))
            with pytest.raises(vk.Unsupported, match="protection"):
                await store.drop_collection("docs")
            assert await docs.count() == 5
            assert await store.collections() == ["docs"]
            server.control.fail(path="/documents/upsert", status=503, times=ATTEMPTS)
            assert await kind_of(partial(store.create_collection, vk.CollectionSpec("more", 2))) is vk.Unavailable
            assert len(indexes(server)) == 1

        bench.run(body())


# ------------------------------------------------------------------------------------- odd answers


class Odd:
    """A server that passes on what it is asked, but for paths that it was told an answer to: raw bytes of HTTP."""

    def __init__(self, port: int) -> None:
        self.path = ""
        self.answer: bytes | None = None
        odd = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if odd.answer is not None and odd.path in f"{self.command} {self.path}":
                    self.close_connection = True
                    self.wfile.write(odd.answer)
                    return
                link = HTTPConnection("127.0.0.1", port, timeout=30)
                kept = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                link.request(self.command, self.path, body or None, kept)  # with its Host: an index is found here too
                reply = link.getresponse()
                said = reply.read()
                link.close()
                own = [f"{name}: {value}" for name, value in reply.getheaders() if name.startswith("x-pinecone")]
                self.wfile.write(whole(said, f"{reply.status} X", *own))

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"pinecone://vk?host=http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.answer = None
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def whole(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    told = len(body) if length is None else length
    kind = (
        () if any(name.lower().startswith("content-type") for name in headers) else ("Content-Type: application/json",)
    )
    head = "\r\n".join([f"HTTP/1.1 {status}", *kind, *headers, f"Content-Length: {told}", "", ""])
    return head.encode() + body


def plain(status: str, body: bytes, *headers: str) -> bytes:
    return whole(body, status, "Content-Type: text/plain", *headers)


ODD: dict[str, bytes] = {
    "HTML": plain("200 OK", b"<html><body>Welcome to nginx!</body></html>"),
    "nothing": whole(b""),
    "no content": whole(b"", "204 No Content"),
    "null": whole(b"null"),
    "an empty list": whole(b"[]"),
    "a string": whole(b'"ok"'),
    "a number": whole(b"7"),
    "cut JSON": whole(b'{"matches": [{"_id": "'),
    "cut body": whole(b'{"matches": ', length=5_000),
    "bytes": whole(bytes(range(256))),
    "deep JSON": whole(b"[" * 100_000),
    "deep JSON with 500": whole(b"[" * 100_000, "500 Internal Server Error"),
    "a redirect": whole(b"", "302 Found", "Location: http://127.0.0.1:9/"),
    "a proxy's 502": plain("502 Bad Gateway", b"<html>Bad Gateway</html>"),
    "a proxy's 404": plain("404 Not Found", b"<html>Not Found</html>"),
    "401": plain("401 Unauthorized", b"Unauthorized"),
    "403": plain("403 Forbidden", b"Forbidden"),
    "429": plain("429 Too Many Requests", b"Too many requests"),
    "429 with a date": plain("429 Too Many Requests", b"", "Retry-After: Wed, 21 Oct 2099 07:28:00 GMT"),
    "429 with less than none": plain("429 Too Many Requests", b"", "Retry-After: -5"),
    "429 without end": plain("429 Too Many Requests", b"", "Retry-After: " + "9" * 400),
    "402": plain("402 Payment Required", b"Pay"),
    "status 999": whole(b"{}", "999 Odd"),
    "no HTTP": b"+OK POP3 ready\r\n",
    "fields of other kinds": whole(
        b'{"indexes": 3, "matches": 3, "documents": 3, "namespaces": 3, "name": 3, "upserted_count": "many", "usage": 3, '
        b'"pagination": 3, "matched_records": "many"}'
    ),
    "no names": whole(b'{"indexes": [{}], "matches": [null], "documents": {"a": null}, "namespaces": {"rows": null}}'),
}


@pytest.fixture
def odd(server: PineconeServer) -> Iterator[Odd]:
    made = Odd(server.port)
    yield made
    made.close()


@pytest.mark.parametrize("colour", COLOURS)
def test_odd_answers_are_typed(odd: Odd, colour: Colour) -> None:
    """Every verb: an error of ours that shows no key, and the handle is as good as before."""
    place = {"url": odd.url, "api_key": SECRET, "headers": {"x-other": SECRET}, "timeout": 5, "ssl_verify": False}
    with Bench(place, colour) as bench:
        wrong: list[str] = []

        async def tried(name: str, verb: str, call: Callable[[], Any]) -> None:
            fresh_budget()
            odd.path = "/indexes" if verb in OF_CONTROL else "/_index/"
            odd.answer = ODD[name]
            try:
                found = await call()
                # a write that was answered with success was taken, and an index that has no name is not ours
                if verb not in {"upsert", "delete where"} and name != "no names":
                    wrong.append(f"{name}: {verb} gave {found!r}")
            except vk.VectorkitError as error:
                if where := holds(error):
                    wrong.append(f"{name}: {verb}: a key in {where[:300]}")
                if isinstance(error, vk.NotFound) and verb != "drop" and name != "no names":
                    wrong.append(f"{name}: {verb}: {error!r}")
                if isinstance(error, vk.RateLimited) != name.startswith("429"):
                    wrong.append(f"{name}: {verb}: {error!r}")
            except Exception as error:  # noqa: BLE001 - told below
                wrong.append(f"{name}: {verb}: {type(error).__name__}: {str(error)[:100]}")
            odd.answer = None

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 20))
            calls = verbs(store, docs)
            for name in ODD:
                for verb, call in calls.items():
                    await tried(name, verb, call)
                fresh_budget()
                assert (await patiently(partial(docs.query, vector(3), k=1))).ids == ["r000003"]
            assert await docs.count() == 20

        bench.run(body())
        assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_key_that_an_answer_repeats_is_not_shown(odd: Odd, colour: Colour) -> None:
    """A gateway may say which key it refuses."""
    with Bench({"url": odd.url, "api_key": SECRET, "headers": {"x-other": SECRET}}, colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            for status in ("401 X", "403 X", "402 X", "429 X", "400 X", "500 X", "404 X"):
                for said in (f"the key {SECRET} is not known", json.dumps({"error": {"message": f"no {SECRET}"}})):
                    fresh_budget()
                    odd.answer = plain(status, said.encode(), f"x-echo: {SECRET}")
                    with pytest.raises(vk.VectorkitError) as raised:
                        await store.collections()
                    assert SECRET not in shown(raised.value)
                    odd.answer = None

        bench.run(body())


# ------------------------------------------------------------------------------------- many at once, closed, forked, cancelled


def test_a_thousand_tasks_on_one_handle_get_their_own_answers(server: PineconeServer) -> None:
    async def body() -> None:
        async with await vk.aconnect(target(server, timeout=60)) as store:
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


@pytest.mark.parametrize("colour", COLOURS)
def test_every_verb_of_a_closed_store_is_closed(server: PineconeServer, colour: Colour) -> None:
    with Bench(target(server), colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 5))
            await store.close()
            await store.close()
            server.control.forget()
            for name, verb in {**verbs(store, docs), "optimize": docs.optimize}.items():
                assert await kind_of(verb) is vk.Closed, name
            assert requests(server) == 0

        bench.run(body())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpx drops a socket in this race
def test_a_close_under_way_is_closed_or_an_answer(server: PineconeServer) -> None:
    def once(after: float) -> list[str]:
        store = vk.connect(target(server))
        docs = store.ensure_collection(SPEC)
        docs.upsert(records(0, 200))
        told: list[str] = []

        def ask() -> None:
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
        return told

    for after in (0.0, 0.01, 0.05):
        assert once(after) == ["closed"] * 4
        gc.collect()


_FORKED = """
import json, os, sys, traceback
import vectorkit as vk
from integration.faultkit import SPEC, records
from integration.test_faults_pinecone import sync_verbs
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
def test_a_child_cannot_use_its_parents_handle(server: PineconeServer) -> None:
    """Closed in every verb; the child may connect by itself, and the parent goes on."""
    found, said = python(_FORKED, target(server))
    assert found == [0, 5], said


def test_cancelling_leaves_the_store_usable(server: PineconeServer) -> None:
    """At any moment; rows are as before or as after, and connections are not mixed up."""

    async def body() -> None:
        async with await vk.aconnect(target(server)) as store:
            docs = await store.create_collection(SPEC)
            await docs.upsert(records(0, 100))
            calls = verbs(store, docs)
            calls = {name: calls[name] for name in ("query", "get", "scan", "upsert", "update", "delete")}
            calls["many"] = lambda: docs.upsert(records(0, 300))
            cancelled = 0
            for turn in range(12):
                for verb in calls.values():
                    task = asyncio.ensure_future(verb())
                    await asyncio.sleep(0.0006 * turn)
                    task.cancel()
                    try:
                        await task
                    except asyncio.CancelledError:
                        cancelled += 1
                    n = turn % 100
                    assert (await docs.query(vector(n), k=1)).ids == [f"r{n:06d}"]
            assert cancelled > 30
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
            assert len(found) in {100, 300}

    asyncio.run(body())


def test_a_create_that_is_cancelled_leaves_nothing(server: PineconeServer) -> None:
    """At any moment: it is whole and published, or it is taken back."""

    async def body() -> None:
        async with await vk.aconnect(target(server)) as store:
            server.control.set(max_indexes=1_000)
            whole = 0
            for turn in range(25):
                spec = vk.CollectionSpec(f"docs{turn}", DIMENSION)
                task = asyncio.ensure_future(store.create_collection(spec))
                await asyncio.sleep(0.002 * turn)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                there = await store.collections()
                assert len(indexes(server)) == len(there)
                assert len(there) in {whole, whole + 1}
                whole = len(there)
                await (await store.ensure_collection(spec)).upsert([record(1)])
                whole += spec.name not in there

    asyncio.run(body())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
@pytest.mark.parametrize("colour", COLOURS)
def test_two_hundred_opens_and_closes_leave_nothing(server: PineconeServer, colour: Colour) -> None:
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

    with Bench(target(server), colour) as bench:
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
