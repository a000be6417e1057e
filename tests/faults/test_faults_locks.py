"""One writer a directory: who gets the lock and when, what a fork and Ctrl-C do to a handle, and what a closed one says.

Everything here is about processes: each is a real one, killed, forked or interrupted for real.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import vectorkit as vk
from tests.faults import jobs
from tests.faults.kit import Kind, contents, lines, open_docs, problems, record, spec_of, stores, vector
from tests.faults.server import Server
from vectorkit import F
from vectorkit.testing.effort import times

pytestmark = [pytest.mark.slow, pytest.mark.timed]


def made(kind: Kind, path: Path, rows: int = 3) -> None:
    with vk.connect(kind.url(path)) as store:
        store.create_collection(spec_of(kind)).upsert([record(key, 1, key) for key in range(rows)])


@stores()
def test_a_second_writer_is_refused_in_time(kind: Kind, name: str, tmp_path: Path, server: Server) -> None:
    made(kind, tmp_path / "kb")
    url = kind.url(tmp_path / "kb")
    owner = server.start("hold", name=name, path=str(tmp_path / "kb"))
    assert next(owner.messages(time.monotonic() + 10))[0] == "held"
    for options in (None, vk.LocalOptions(lock_timeout=0), vk.LocalOptions(lock_timeout=4.5)):
        began = time.monotonic()
        with pytest.raises(vk.Locked) as caught:
            vk.connect(url, options=options)
        assert caught.value.retryable
        assert time.monotonic() - began < 5
    with vk.connect(url, read_only=True) as reader:
        assert reader.collection("a").count() == 3
    owner.kill()
    assert owner.end().status == -9
    began = time.monotonic()
    with vk.connect(url, options=vk.LocalOptions(lock_timeout=0)) as store:
        assert time.monotonic() - began < 1
        assert store.collection("a").count() == 3
        with pytest.raises(vk.Locked):
            vk.connect(url)
        with pytest.raises(vk.Locked):
            vk.connect(url, options=vk.LocalOptions(lock_timeout=0))
        assert store.collection("a").upsert([record(9, 1, 9)]).written == 1
    vk.connect(url, options=vk.LocalOptions(lock_timeout=0)).close()


@stores()
def test_sixteen_first_opens_make_one_store(kind: Kind, name: str, tmp_path: Path, server: Server) -> None:
    for turn in range(6 * times()):
        place = tmp_path / str(turn)
        running = [server.start("open_once", name=name, path=str(place), number=number) for number in range(16)]
        for job in running:
            assert next(job.messages(time.monotonic() + 20)) == ("ready", None)
        for job in running:
            job.link.send("go")
        told = [job.end().value for job in running]
        written = {number for number, (what, _) in enumerate(told) if what == "written"}
        assert written
        assert max(seconds for _, seconds in told) < 5
        store, docs = open_docs(kind, place)
        with store:
            assert store.collections() == ["a"]
            assert contents(docs).keys() == written
            assert problems(docs, contents(docs), {}) == []


@stores()
def test_a_fork_leaves_the_parents_handle_alone(kind: Kind, name: str, tmp_path: Path, server: Server) -> None:
    job = server.start("forked", name=name, path=str(tmp_path / "kb"))
    for what, _ in job.messages(time.monotonic() + 30):
        if what == "open":  # four children have come and gone: the lock must still be held
            with pytest.raises(vk.Locked):
                vk.connect(kind.url(tmp_path / "kb"), options=vk.LocalOptions(lock_timeout=0))
            job.link.send("go on")
            break
    assert job.end().value == []


FORKED = """
import os, sys
import vectorkit as vk
store = vk.connect(sys.argv[1])
docs = store.collection("a")
docs.query([1.0] * 8)
child = os.fork()
if not child:
    sys.exit(0)  # finalizers and all
assert os.waitpid(child, 0)[1] == 0
docs.upsert([vk.Record("after", [1.0] * 8, "after")])
try:
    vk.connect(sys.argv[1], options=vk.LocalOptions(lock_timeout=0))
except vk.Locked:
    print("held")
docs.optimize()
print(docs.count(), docs.query([1.0] * 8, k=1).ids)
store.close()
"""


@stores()
def test_a_child_that_exits_with_its_finalizers(kind: Kind, name: str, tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    made(kind, tmp_path / "kb")
    url = kind.url(tmp_path / "kb")
    done = subprocess.run([sys.executable, "-c", FORKED, url], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, ["held", "4 ['after']"]), done.stderr
    with vk.connect(url) as store:
        assert store.collection("a").count() == 4


@stores()
def test_ctrl_c_at_random_moments(
    kind: Kind, name: str, quick: Path, server: Server, say: Callable[[str], None]
) -> None:
    dice = random.Random(7)
    rounds = 60 * times()
    job = server.start("interrupted", name=name, path=str(quick / "kb"), rows=600, times=rounds, seed=1)
    report: Any = None
    for what, value in job.messages(time.monotonic() + 120 * times()):
        if what == "go":
            time.sleep(dice.uniform(0, value * 1.2))
            os.kill(job.pid, signal.SIGINT)
        else:
            report = value
            break
    ended = job.end()
    assert ended.status == 0, report
    say(f"\nCtrl-C, {name}: {report['counts']}")
    assert not report["wrong"], lines(report["wrong"])
    assert report["counts"]["swallowed"] == 0
    assert report["counts"]["in the verb"] >= rounds // 3


@stores()
def test_closed_says_so_everywhere(kind: Kind, name: str, tmp_path: Path) -> None:
    made(kind, tmp_path / "kb")
    store, docs = open_docs(kind, tmp_path / "kb")
    store.close()
    store.close()
    assert jobs.not_closed(jobs.verbs(store, docs, spec_of(kind))) == {}
    store, docs = open_docs(kind, tmp_path / "kb")
    begun = docs.scan()
    next(begun)
    docs.query(vector(1, 1))
    store.close()
    store.close()
    assert jobs.not_closed(jobs.verbs(store, docs, spec_of(kind))) == {}
    vk.connect(kind.url(tmp_path / "kb")).close()


@stores()
def test_closed_says_so_everywhere_async(kind: Kind, name: str, tmp_path: Path) -> None:
    made(kind, tmp_path / "kb")
    one, asked = [record(1, 1, 1)], vector(1, 1)

    async def scanned(docs: vk.AsyncCollection) -> list[vk.Record]:
        return [found async for found in docs.scan()]

    async def body(*, used: bool) -> dict[str, str]:
        store = await vk.aconnect(kind.url(tmp_path / "kb"))
        docs = await store.collection("a")
        if used:
            await docs.query(asked)
        await store.close()
        await store.close()
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "collections": store.collections,
            "collection": lambda: store.collection("a"),
            "create_collection": lambda: store.create_collection(spec_of(kind, "other")),
            "ensure_collection": lambda: store.ensure_collection(spec_of(kind)),
            "drop_collection": lambda: store.drop_collection("a"),
            "upsert": lambda: docs.upsert(one),
            "insert": lambda: docs.insert(one),
            "get": lambda: docs.get(["r1"]),
            "query": lambda: docs.query(asked),
            "query, filtered": lambda: docs.query(asked, where=F("note") == 1),
            "query_many": lambda: docs.query_many([asked]),
            "keyword": lambda: docs.keyword("all"),
            "hybrid": lambda: docs.hybrid("all", asked),
            "update": lambda: docs.update(ids=["r1"], set={"note": 2}),
            "delete": lambda: docs.delete(ids=["r1"]),
            "delete where": lambda: docs.delete(where=F("note") == 1),
            "delete everything": lambda: docs.delete(everything=True),
            "count": docs.count,
            "scan": lambda: scanned(docs),
            "stats": docs.stats,
            "optimize": docs.optimize,
            "explain": lambda: docs.explain(asked),
        }
        told: dict[str, str] = {}
        for what, call in calls.items():
            try:
                told[what] = f"gave {await call()!r}"
            except vk.Closed:
                pass
            except Exception as error:  # noqa: BLE001 - whatever it is, the test reports it
                told[what] = repr(error)
        return told

    for used in (False, True):
        assert asyncio.run(body(used=used)) == {}
    vk.connect(kind.url(tmp_path / "kb")).close()
