"""Many at once on PostgreSQL: writers of the same rows, calls that are cancelled or interrupted, indexes that cannot be built."""

import asyncio
import logging
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest

import vectorkit as vk
from integration.servers.postgres import PostgresServer
from vectorkit import F
from vectorkit.testing.kit import raises, rec, rows
from vectorkit_pgvector import PgvectorOptions


def _spec(name: str = "docs", **options: Any) -> vk.CollectionSpec:
    return vk.CollectionSpec(name, 4, **options)


def test_writers_of_the_same_rows_do_not_fail_each_other(pgvector_target: Any) -> None:
    """Small and large upserts, updates and deletes of the same fifty ids, in any order: no deadlock reaches a caller."""
    ids = [f"r{n:02d}" for n in range(50)]
    failed: list[BaseException] = []
    done = [0]
    end = time.monotonic() + 4
    with vk.connect(pgvector_target) as store:
        docs = store.create_collection(_spec(fields={"n": int}))
        docs.upsert([rec(id, [1, 0, 0, 0], n=0) for id in ids])  # noqa: A001

        def work(seed: int) -> None:
            chance = random.Random(seed)
            while time.monotonic() < end and not failed:
                some = chance.sample(ids, 8 if seed % 2 else 30)
                try:
                    match seed % 4:
                        case 2:
                            docs.update(ids=some, set={"n": seed})
                        case 3 if chance.random() < 0.3:
                            docs.delete(ids=some)
                        case _:
                            docs.upsert([rec(id, [1, seed, 0, 0], n=seed) for id in some])  # noqa: A001
                except vk.VectorkitError as error:
                    failed.append(error)
                done[0] += 1

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    assert done[0] > 50


def test_cancelled_calls_leave_the_pool_as_it_was(pgvector_target: Any) -> None:
    """A cancel at any moment of any verb: the next calls on the same connections answer."""

    async def run() -> int:
        store = await vk.aconnect({**pgvector_target, "pool_size": 2})
        docs = await store.create_collection(_spec(fields={"n": int}))
        await docs.upsert(rows(500))
        vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
        verbs: list[Any] = [
            lambda: docs.query_many(vectors, k=3),
            lambda: docs.query(vectors[0], where=F("n") < 100),
            lambda: docs.upsert(rows(300)),
            lambda: docs.upsert(rows(3)),
            lambda: docs.update(where=F("n") < 50, set={"x": 1}),
            lambda: docs.insert(rows(40), on_conflict="skip"),
        ]
        chance = random.Random(1)
        cancelled = 0
        for turn in range(90):
            task = asyncio.ensure_future(verbs[turn % len(verbs)]())
            await asyncio.sleep(chance.uniform(0, 0.012))
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                cancelled += 1
            for _ in range(2):  # both connections
                assert len((await docs.query_many(vectors[:3], k=3))[2]) == 3
                assert len(await docs.query(vectors[0], where=F("n") < 100)) == 10
        assert await docs.count() == 500
        held = await asyncio.gather(*[docs.count() for _ in range(20)])
        assert set(held) == {500}
        await store.close()
        return cancelled

    assert asyncio.run(run()) > 20


def test_cancels_while_connections_are_fought_for_lose_none(pgvector_target: Any) -> None:
    """Eight tasks over two connections, cancelled at random, also while a connection is being given back."""

    async def run() -> None:
        store = await vk.aconnect({**pgvector_target, "pool_size": 2, "connect_timeout": 5})
        docs = await store.create_collection(_spec())
        await docs.upsert(rows(20))
        chance = random.Random(3)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            tasks = [asyncio.ensure_future(docs.count()) for _ in range(8)]
            for task in tasks:
                await asyncio.sleep(chance.uniform(0, 0.001))
                if chance.random() < 0.7:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.1)
        stats = store.native.get_stats()
        assert stats["pool_available"] == stats["pool_size"] <= 2, stats
        assert await docs.count() == 20
        await store.close()

    asyncio.run(run())


def test_threads_that_fight_for_connections_lose_none(pgvector_target: Any) -> None:
    with vk.connect({**pgvector_target, "pool_size": 2}) as store:
        docs = store.create_collection(_spec())
        failed: list[BaseException] = []
        end = time.monotonic() + 4

        def ask() -> None:
            while time.monotonic() < end and not failed:
                try:
                    docs.count()
                except BaseException as error:  # noqa: BLE001
                    failed.append(error)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            threads = [threading.Thread(target=ask) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert failed == []
        stats = store.native.get_stats()
        assert stats["pool_available"] == stats["pool_size"] <= 2, stats


@pytest.mark.own
def test_an_index_that_cannot_be_built_fails_no_write(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The rows are committed, and the write says so; the reason is logged; the next try comes when the collection has doubled."""
    url = postgres.create_database("noindex")
    with vk.connect(url) as store, psycopg.connect(url, autocommit=True) as conn:
        docs = store.create_collection(_spec(index=vk.HNSW(full_scan_threshold=20)))
        conn.execute(
            """CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'could not resize shared memory segment' USING ERRCODE = '53100'; END $$"""
        )
        conn.execute(
            "CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION refuse()"
        )
        with caplog.at_level(logging.WARNING, "vectorkit.pgvector"):
            assert docs.insert(rows(30)) == vk.WriteResult(30)
            assert docs.upsert(rows(3, prefix="s")) == vk.WriteResult(3)
        assert ["shared memory" in record.getMessage() for record in caplog.records] == [True]
        assert (docs.count(), docs.stats().indexed) == (33, 0)
        assert docs.query([1, 0, 0, 0]).coverage == "exact"
        conn.execute("DROP EVENT TRIGGER refuse")
        docs.upsert(rows(40, prefix="t"))
        assert docs.stats().indexed == 73


def test_replaced_rows_are_no_growth(pgvector_target: Any) -> None:
    """An index is built for the rows there are, not for the writes there were; those of other processes count too."""
    with vk.connect(pgvector_target) as store, vk.connect(pgvector_target) as other:
        docs = store.create_collection(_spec(index=vk.IVF(full_scan_threshold=50)))
        for _ in range(60):
            docs.upsert([rec("same", [1, 0, 0, 0])])
        assert docs.stats().indexed == 0
        docs.upsert(rows(45))
        another = other.collection("docs")
        another.upsert(rows(10, prefix="s"))
        assert another.stats().indexed == docs.stats().indexed == 56


def test_under_a_timeout_optimize_alone_builds_the_index(pgvector_target: Any) -> None:
    with vk.connect({**pgvector_target, "timeout": 1.0}) as store:
        docs = store.create_collection(_spec(index=vk.HNSW(full_scan_threshold=20)))
        docs.upsert(rows(30))
        assert docs.stats().indexed == 0
        with psycopg.connect(pgvector_target["url"]) as conn, ThreadPoolExecutor(1) as pool:
            conn.execute(f'LOCK TABLE {pgvector_target["schema"]}."{docs.spec.physical}"')
            begun = pool.submit(docs.optimize)
            time.sleep(2.2)  # longer than the timeout and a second, which the server has for a bounded statement
            assert not begun.done()
            conn.commit()
            begun.result()
        assert docs.stats().indexed == 30


def test_a_timeout_bounds_the_call_not_each_attempt(pgvector_target: Any) -> None:
    with vk.connect({**pgvector_target, "timeout": 2.0}) as store, psycopg.connect(pgvector_target["url"]) as conn:
        docs = store.create_collection(_spec())
        conn.execute(f'LOCK TABLE {pgvector_target["schema"]}."{docs.spec.physical}"')

        def end_it() -> None:
            time.sleep(1.5)
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(end_it)
            begun = time.monotonic()
            with raises(vk.DeadlineExceeded):
                docs.count()
            assert time.monotonic() - begun < 3
            ended.result()


@pytest.mark.own
def test_a_timeout_holds_while_waiting_for_a_connection() -> None:
    """The pool's only connection is busy and the server is frozen: the call ends at its timeout, and says that it was one."""
    with (
        PostgresServer() as server,
        vk.connect(server.create_database("frozen"), options=PgvectorOptions(timeout=2.5, pool_size=2)) as store,
    ):
        docs = store.create_collection(_spec())
        with store.native.connection():
            server.freeze()
            try:
                for _ in range(3):
                    begun = time.monotonic()
                    with raises(vk.DeadlineExceeded):
                        docs.count()
                    assert time.monotonic() - begun < 4
            finally:
                server.thaw()
        assert docs.count() == 0


@pytest.mark.own
def test_who_waits_first_is_served_first_and_a_limit_of_the_server_is_waited_for(postgres: PostgresServer) -> None:
    """Calls slower than a moment, more of them than connections: none fails while its turn is on the way."""
    url = postgres.create_database("waiting")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CREATE EXTENSION vector")
        conn.execute("CREATE ROLE two LOGIN PASSWORD 'p' CONNECTION LIMIT 2")
        conn.execute("GRANT CREATE ON DATABASE waiting TO two")
    with vk.connect(postgres.url("waiting", user="two", password="p")) as store:
        docs = store.create_collection(_spec())
        adapter: Any = store._verbs.top.adapter
        plain = adapter._all

        async def slow(conn: Any, sql: str, values: Any) -> Any:
            conn.execute("SELECT pg_sleep(0.4)")
            return await plain(conn, sql, values)

        adapter._all = slow
        found: list[Any] = []

        def ask() -> None:
            try:
                found.append(docs.count())
            except vk.VectorkitError as error:
                found.append(error)

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [0] * 12


@pytest.mark.own
def test_a_role_that_owns_its_schema_needs_no_right_on_the_database(postgres: PostgresServer) -> None:
    url = postgres.create_database("owned")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CREATE EXTENSION vector")
        conn.execute("CREATE ROLE bob LOGIN PASSWORD 'p'")
        conn.execute("CREATE SCHEMA mine AUTHORIZATION bob")
    with vk.connect({"url": postgres.url("owned", user="bob", password="p"), "schema": "mine"}) as store:
        docs = store.create_collection(_spec())
        assert docs.upsert(rows(20)).written == 20
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("UPDATE mine.vk_catalogue SET spec = '[]'")
        with raises(vk.Corrupt, "docs", "backup"):
            store.collection("docs")


def test_ten_thousand_terms(pgvector_target: Any) -> None:
    with vk.connect(pgvector_target) as store:
        docs = store.create_collection(_spec(fields={"n": int}))
        docs.upsert(rows(30))
        where = vk.Filter.from_json({"$or": [{"n": {"$gte": n, "$lt": n + 1}} for n in range(10, 5_010)]})
        begun = time.monotonic()
        assert len(docs.query([1, 0, 0, 0], k=30, where=where)) == 20
        assert time.monotonic() - begun < 20
        with raises(vk.InvalidArgument, "words"):
            docs.keyword(" ".join(f"w{n}" for n in range(90_000)))
        with raises(vk.Unsupported, "1500"):
            store.create_collection(_spec("wide", fields={f"x{n}": int for n in range(1_700)}))


@pytest.mark.slow
def test_interrupts_lose_no_connection(pgvector_target: Any) -> None:
    """Ctrl-C at two hundred random moments of every kind of call: the pool of two still serves."""
    program = """
import os, random, signal, sys, threading, time
import vectorkit as vk
from vectorkit.testing.kit import rows

store = vk.connect({"url": sys.argv[1], "schema": sys.argv[2], "pool_size": 2, "connect_timeout": 5})
docs = store.create_collection(vk.CollectionSpec("docs", 4))
docs.upsert(rows(300))
calls = [lambda: docs.query([1, 0, 0, 0]), lambda: docs.upsert(rows(40)), lambda: docs.count(), lambda: docs.query_many([[1, 0, 0, 0]] * 20)]
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupted = 0
for turn in range(200):
    try:
        threading.Timer(random.uniform(0, 0.01), os.kill, (os.getpid(), signal.SIGINT)).start()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            calls[turn % len(calls)]()
    except KeyboardInterrupt:
        interrupted += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
for _ in range(20):
    assert docs.count() == 300
    assert [len(hits) for hits in docs.query_many([[1, 0, 0, 0]] * 20)] == [10] * 20
print(interrupted)
store.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, pgvector_target["url"], pgvector_target["schema"]],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "200", done.stderr[-2_000:]
