"""The two colours: what suspends where, and that work which began is finished."""

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import vectorkit as vk
from vectorkit.aio import AsyncCollection, AsyncStore
from vectorkit.runtime import SYNC, AsyncRuntime, drive
from vectorkit.store import Collection, Store
from vectorkit.testing.loop import longest_gap


def test_a_body_that_suspends_in_the_sync_colour_is_an_error() -> None:
    async def body() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="suspended in the sync colour"):
        drive(body())


def test_call_awaits_only_what_is_awaitable() -> None:
    async def coloured(x: int) -> int:
        return x + 1

    assert drive(SYNC.call(lambda x: x + 1, 1)) == 2
    assert asyncio.run(AsyncRuntime().call(coloured, 1)) == 2
    assert asyncio.run(AsyncRuntime().call(lambda x: x + 1, 1)) == 2


def test_enter_takes_managers_of_either_colour() -> None:
    @contextmanager
    def plain() -> Iterator[str]:
        yield "plain"

    @asynccontextmanager
    async def coloured() -> AsyncIterator[str]:
        yield "coloured"

    async def body() -> list[str]:
        runtime = AsyncRuntime()
        found = []
        async with runtime.enter(plain()) as a, runtime.enter(coloured()) as b:
            found += [a, b]
        return found

    assert asyncio.run(body()) == ["plain", "coloured"]


def test_gather_keeps_order_and_runs_concurrently_only_in_the_async_colour() -> None:
    running = {"now": 0, "most": 0}

    async def work(runtime: object, n: int) -> int:
        running["now"] += 1
        running["most"] = max(running["most"], running["now"])
        await runtime.sleep(0.01)  # type: ignore[attr-defined]
        running["now"] -= 1
        return n

    assert drive(SYNC.gather(*(work(SYNC, n) for n in range(3)))) == [0, 1, 2]
    assert running["most"] == 1
    runtime = AsyncRuntime()

    async def body() -> list[int]:
        return await runtime.gather(*(work(runtime, n) for n in range(3)))

    assert asyncio.run(body()) == [0, 1, 2]
    assert running["most"] == 3


def test_gather_ends_the_others_when_one_fails() -> None:
    ended = []

    async def bad() -> None:
        raise ValueError("bad")

    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(True)

    async def body() -> None:
        await AsyncRuntime().gather(slow(), bad())

    with pytest.raises(ValueError, match="bad"):
        asyncio.run(body())
    assert ended == [True]


def test_offloaded_work_that_began_is_finished_when_cancelled() -> None:
    done = threading.Event()

    def work() -> None:
        time.sleep(0.2)
        done.set()

    async def body() -> bool:
        runtime = AsyncRuntime()
        task = asyncio.ensure_future(runtime.offload(work))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        finished = done.is_set()
        await runtime.close()
        return finished

    assert asyncio.run(body())


def test_deadline() -> None:
    async def body() -> None:
        async with AsyncRuntime().deadline(0.02):
            await asyncio.sleep(5)

    with pytest.raises(vk.DeadlineExceeded) as caught:
        asyncio.run(body())
    assert caught.value.retryable

    async def inline() -> None:
        async with SYNC.deadline(0.01) as bound:
            time.sleep(0.02)  # noqa: ASYNC251 - the sync colour
            bound.remaining()

    with pytest.raises(vk.DeadlineExceeded):
        drive(inline())


def test_the_loop_is_free_while_the_engine_writes(tmp_path: Path) -> None:
    async def body() -> float:
        gaps = []
        async with await vk.aconnect(f"local://{tmp_path}/s") as store:
            docs = await store.create_collection(vk.CollectionSpec("a", dimension=64))
            batch = vk.Batch([str(n) for n in range(10_000)], [[float(n % 7 + 1)] * 64 for n in range(10_000)])
            task = asyncio.ensure_future(docs.upsert(batch))
            while not task.done():
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                gaps.append(time.perf_counter() - before)
            assert (await task).written == 10_000
        return sorted(gaps)[len(gaps) // 2]

    assert asyncio.run(body()) < 0.05


@pytest.mark.parametrize(("sync", "coloured"), [(Store, AsyncStore), (Collection, AsyncCollection)])
def test_the_two_faces_have_the_same_verbs_and_signatures(sync: type, coloured: type) -> None:
    plain = {"capability", "native", "name", "spec", "tenant"}

    def verbs(face: type) -> dict[str, Any]:
        return {name: value for name, value in vars(face).items() if not name.startswith("_")}

    assert verbs(sync).keys() == verbs(coloured).keys()
    for name, verb in verbs(sync).items():
        twin = verbs(coloured)[name]
        if isinstance(verb, property):
            assert isinstance(twin, property), name
            continue
        ours, theirs = inspect.signature(verb), inspect.signature(twin)
        assert list(ours.parameters) == list(theirs.parameters), name
        for parameter in ours.parameters.values():
            other = theirs.parameters[parameter.name]
            assert (parameter.kind, parameter.default) == (other.kind, other.default), (name, parameter.name)
        assert inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin) or name in plain, name
        assert (inspect.getdoc(verb) or "").split(":")[0][:40] == (inspect.getdoc(twin) or "").split(":")[0][:40], name


def test_close_waits_for_what_runs_and_leaves_the_loop_to_others() -> None:
    ended = threading.Event()

    def work() -> None:
        time.sleep(0.4)
        ended.set()

    async def body() -> tuple[float, list[str]]:
        runtime = AsyncRuntime()
        working = asyncio.ensure_future(runtime.offload(work))
        await asyncio.sleep(0.05)
        longest = await longest_gap(runtime.close)
        assert ended.is_set()
        await working
        return longest, [thread.name for thread in threading.enumerate() if thread.name.startswith("vectorkit")]

    longest, left = asyncio.run(body())
    assert longest < 0.3
    assert left == []
