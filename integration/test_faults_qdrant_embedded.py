"""Qdrant's engine in this process when things end badly: killed writers, full disks, damaged files, forks, a second owner.

Whatever happens, what was acknowledged is there whole, the request under way happened wholly or not at all, and every error
is vectorkit's.
"""

import gc
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from tests.faults.kit import (
    Kind,
    Op,
    State,
    act,
    applied,
    contents,
    difference,
    lines,
    open_docs,
    problems,
    record,
    spec_of,
)
from vectorkit import F
from vectorkit.testing.effort import times
from vectorkit.testing.kit import raises
from vectorkit.types import FloatArray

KIND = Kind("qdrant", vk.HNSW(m=8, ef_construction=40))  # few enough rows that every answer is exact
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux's file systems and signals")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["vectorkit", "qdrant_edge", "numpy", __name__]
)  # a child in 10 ms, with no thread of ours
ROUNDS = 200


def run(job: Callable[..., None], *args: Any, timeout: float = 60) -> tuple[int | None, list[Any]]:
    """How a job ended in a process of its own, None for one that hung, and what it said."""
    here, there = FORKS.Pipe()
    child = FORKS.Process(target=job, args=(there, *args))
    child.start()
    there.close()
    said = []
    end = time.monotonic() + timeout
    with suppress(EOFError, ConnectionResetError):
        while here.poll(max(0.0, end - time.monotonic())):
            said.append(here.recv())
    child.join(2 if time.monotonic() < end else 0)
    status = child.exitcode
    child.kill()
    child.join()
    return status, said


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory where there is one: processes are killed here, not machines."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="vectorkit-", dir=place) as folder:
        yield Path(folder)


# --------------------------------------------------------------------------------------------- kill -9


def _chosen(dice: random.Random, state: State, versions: dict[int, int]) -> Op:
    keys = dice.sample(range(400), dice.choice([3, 3, 40, 200]))
    match dice.choices(("upsert", "insert", "update", "delete", "optimize", "clear"), (8, 3, 5, 4, 4, 2))[0]:
        case "update" if state:
            return ("update", (dice.sample(sorted(state), min(len(state), len(keys))), dice.randrange(1000)))
        case "delete":
            return ("delete", keys)
        case "optimize":
            return ("optimize", None)
        case "clear":
            low = dice.randrange(40)
            return ("clear", (low, low + 3))
        case verb:
            verb = "insert" if verb == "insert" else "upsert"
            if verb == "insert":
                keys = [key for key in range(1_000) if key not in state][: len(keys)]
            for key in keys:
                versions[key] = versions.get(key, 0) + 1
            return (verb, [(key, versions[key], dice.randrange(1000)) for key in keys])


def after(state: State, op: Op) -> State:
    """The state after a verb; an insert here is of ids that are not there."""
    return applied(state, ("upsert", op[1]) if op[0] == "insert" else op)


def _write(link: Connection, path: str, seed: int, state: State | None, versions: dict[int, int]) -> None:
    """Random verbs, each announced and acknowledged, until the end comes from outside."""
    dice = random.Random(seed)
    link.send(("begin", ("open", None)))
    store = vk.connect(f"qdrant://{path}")
    link.send(("ack", None))
    if state is None:
        link.send(("begin", ("create", None)))
        docs = store.create_collection(spec_of(KIND))
        link.send(("ack", None))
        state = {}
    else:
        docs = store.collection("a")
    while True:
        if dice.random() < 0.12:
            link.send(("begin", ("side", None)))
            if "side" in store.collections():
                store.drop_collection("side")
            else:
                store.create_collection(spec_of(KIND, "side")).upsert([vk.Record("x", [1.0] * 8)])
        elif dice.random() < 0.08:
            link.send(("begin", ("reopen", None)))
            store.close()
            store, docs = open_docs(KIND, path)
        else:
            op = _chosen(dice, state, versions)
            link.send(("begin", op))
            if op[0] == "insert":
                docs.insert([record(*row) for row in op[1]])
            else:
                act(docs, op)
            state = after(state, op)
        link.send(("ack", None))


def _check(link: Connection, path: str, versions: dict[int, int]) -> None:
    """(contents, what is wrong); None when there is no collection."""
    try:
        store, docs = open_docs(KIND, path)
    except vk.NotFound:
        link.send((None, []))
        return
    with store:
        state = contents(docs)
        gone = {key: version for key, version in versions.items() if key not in state}
        some = dict(list(state.items())[:30])
        wrong = problems(docs, state, dict(list(gone.items())[:10]), only=some)
        if "side" in store.collections() and store.collection("side").count() not in {0, 1}:
            wrong.append("the side collection is not what was written")
        known = {path.name for path in (Path(path) / "c").iterdir()}
        if len(known) != len(store.collections()):
            wrong.append(f"folders {known} of {store.collections()}")
        link.send((state, wrong))


@pytest.mark.slow
@LINUX
def test_kill_9(quick: Path, say: Callable[[str], None]) -> None:
    dice = random.Random(20_261)
    killed_in: Counter[str] = Counter()
    wrong: list[str] = []
    place, lives = quick / "0", 0
    state: State | None = None
    versions: dict[int, int] = {}
    began = time.monotonic()
    rounds = ROUNDS * times()
    for number in range(rounds):
        if lives >= 12:
            shutil.rmtree(place)
            place, lives, state, versions = quick / str(number), 0, None, {}
        lives += 1
        here, there = FORKS.Pipe()
        writer = FORKS.Process(target=_write, args=(there, str(place), number, state, versions))
        writer.start()
        there.close()
        said = [here.recv()]
        if dice.random() < 0.5:
            end = time.monotonic() + dice.uniform(0, 0.6)
        else:  # in the middle of a verb of a chosen kind
            wanted, end = (
                dice.choice(("upsert", "insert", "update", "delete", "optimize", "side", "create", "clear")),
                time.monotonic() + 2,
            )
            while time.monotonic() < end:
                if here.poll(0.05):
                    said.append(here.recv())
                    if said[-1][0] == "begin" and said[-1][1][0] == wanted:
                        break
            end = time.monotonic() + dice.choice([0.0, dice.uniform(0, 0.02), dice.uniform(0, 0.15)])
        while (left := end - time.monotonic()) > 0 and here.poll(left):
            said.append(here.recv())
        writer.kill()
        writer.join()
        with suppress(EOFError, ConnectionResetError):
            while here.poll(1):
                said.append(here.recv())
        if writer.exitcode != -9:
            wrong.append(f"round {number}: the writer ended with {writer.exitcode} in {said[-1]}")
        under_way: Op | None = None
        for what, op in said:
            if what == "begin":
                under_way = op
                if op[0] in ("upsert", "insert"):
                    versions |= {key: version for key, version, _ in op[1]}
            elif under_way is not None:
                state = {} if under_way[0] == "create" else None if state is None else after(state, under_way)
                under_way = None
        allowed: list[State | None] = [state]
        if under_way is not None:
            allowed += [{}] if under_way[0] == "create" else [] if state is None else [after(state, under_way)]
        killed_in[under_way[0] if under_way else "between verbs"] += 1
        told = f"round {number}, killed in {under_way[0] if under_way else 'none'}"
        status, found = run(_check, str(place), versions)
        if status != 0 or not found:
            wrong.append(f"{told}: the checker ended with {status}: {found}")
            lives = 99
            continue
        state, faults = found[0]
        wrong += [f"{told}: {fault}" for fault in faults]
        if state not in allowed:
            wrong.append(f"{told}: the rows are neither before nor after: {difference(state, allowed)}")
    say(
        f"\nkill -9, qdrant embedded: {rounds} kills in {time.monotonic() - began:.0f} s, {dict(killed_in.most_common())}"
    )
    assert not wrong, lines(wrong)
    assert rounds - killed_in["between verbs"] >= 0.6 * rounds
    for verb in ("upsert", "insert", "update", "delete", "optimize", "side"):
        assert killed_in[verb] >= 5, verb


def _optimizing(link: Connection, path: str) -> None:
    store = vk.connect(f"qdrant://{path}")
    docs = store.create_collection(vk.CollectionSpec("docs", 64))
    docs.upsert(numbered(0, 8_000))
    link.send("optimize")
    docs.optimize()
    link.send("done")


def numbered(start: int, stop: int, dimension: int = 64) -> list[vk.Record]:
    """Rows that follow from their numbers."""
    vectors = np.random.default_rng(start).standard_normal((stop - start, dimension)).astype(np.float32)
    return [vk.Record(f"r{n:06d}", vectors[n - start], f"word{n % 7}", {"n": n}) for n in range(start, stop)]


def vector_of(n: int) -> FloatArray:
    """The vector of row n of `numbered(0, …)`."""
    return np.asarray(numbered(0, n + 1)[n].vector, np.float32)


def children_of(pid: int) -> list[int]:
    """Processes that it started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            text = status.read_text()
            if int(text.rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


@LINUX
def test_the_owner_is_killed_while_it_optimizes(tmp_path: Path) -> None:
    """Nobody opens the directory while the other process writes, and that one ends with its owner."""
    here, there = FORKS.Pipe()
    owner = FORKS.Process(target=_optimizing, args=(there, str(tmp_path / "store")))
    owner.start()
    there.close()
    assert here.recv() == "optimize"
    end = time.monotonic() + 20
    assert owner.pid is not None
    while not (helpers := children_of(owner.pid)) and time.monotonic() < end:
        time.sleep(0.01)
    assert len(helpers) == 1
    time.sleep(0.3)
    os.kill(helpers[0], signal.SIGSTOP)  # a stop does not keep it from dying with its owner; it is only slow to notice
    with raises(vk.Locked):
        vk.connect({"url": f"qdrant://{tmp_path}/store", "lock_timeout": 0.0})
    owner.kill()
    owner.join()
    with vk.connect({"url": f"qdrant://{tmp_path}/store", "lock_timeout": 5.0}) as store:
        docs = store.collection("docs")
        assert docs.count() == 8_000
        assert not Path(f"/proc/{helpers[0]}/exe").exists()
        docs.optimize()
        assert docs.stats().indexed == 8_000


# --------------------------------------------------------------------------------------------- full disks


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB: ext4, since tmpfs gives a page to a hole that is only read."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("mounting a small file system takes root on Linux, and mkfs.ext4")
    image, place = tmp_path / "image", tmp_path / "small"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    for command in (["mkfs.ext4", "-q", "-m", "0", str(image)], ["mount", "-o", "loop", str(image), str(place)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    (place / "lost+found").rmdir()
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def _fill(link: Connection, path: str) -> None:
    """Write until it is refused; go on reading; go on writing once there is room."""
    ballast = Path(path).with_name("ballast")
    ballast.write_bytes(bytes(8 << 20))
    store = vk.connect(f"qdrant://{path}")
    docs = store.create_collection(vk.CollectionSpec("docs", 64, fields={"n": int}))
    done = 0

    def write() -> None:
        nonlocal done
        for start in range(done, 1_000_000, 200):
            docs.upsert(numbered(start, start + 200))
            done = start + 200

    calls: list[Callable[[], Any]] = [
        write,
        lambda: docs.insert(numbered(2_000_000, 2_000_200)),
        lambda: docs.update(where=F("n") < 500, set={"n": -1}),
        docs.optimize,
        lambda: store.create_collection(vk.CollectionSpec("other", 64)),
    ]
    for call in calls:
        with raises(vk.Unavailable, "disk", retryable=True):
            call()
    for reopen in (False, True):
        if reopen:
            store.close()
            store = vk.connect(f"qdrant://{path}")
            docs = store.collection("docs")
        assert docs.count() == done > 0
        assert [row.id for row in docs.scan(vectors=True)] != []
        assert docs.query(vector_of(7), k=1).ids == ["r000007"]
    ballast.unlink()
    docs.delete(where=F("n") < 200)
    docs.upsert(numbered(3_000_000, 3_000_200))
    assert docs.count() == done
    store.close()
    link.send(done)


def test_a_full_disk(small: Path, say: Callable[[str], None]) -> None:
    status, said = run(_fill, str(small / "store"))
    assert status == 0, (status, said)
    say(f"\na full disk of 64 MB, qdrant embedded: {said[0]} rows of 64 numbers")


def _full(link: Connection, path: str) -> None:
    """Open a store on a disk without a free byte."""
    try:
        with vk.connect(f"qdrant://{path}") as store:
            link.send(store.collection("docs").count())
    except vk.VectorkitError as error:
        link.send(type(error).__name__)


def test_a_disk_without_a_free_byte(small: Path) -> None:
    """Somebody else filled it. A typed error or the rows, and all is well once there is room."""
    place = f"qdrant://{small}/store"
    with vk.connect(place) as store:
        store.create_collection(vk.CollectionSpec("docs", 64)).upsert(numbered(0, 500))
    with suppress(OSError), (small / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    status, said = run(_full, str(small / "store"))
    assert (status, said) in ((0, ["Unavailable"]), (0, [500]))
    (small / "ballast").unlink()
    with vk.connect(place) as store:
        assert store.collection("docs").count() == 500


# --------------------------------------------------------------------------------------------- damaged files


def _made(link: Connection, path: str, *, killed: bool) -> None:
    store = vk.connect(f"qdrant://{path}")
    docs = store.create_collection(vk.CollectionSpec("docs", 16, fields={"n": int}))
    docs.upsert(numbered(0, 600, 16))
    docs.optimize()
    docs.delete(ids=["r000003"])
    docs.upsert(numbered(600, 700, 16))
    if killed:
        os._exit(0)
    store.close()


def _answers(docs: vk.Collection) -> Any:
    vectors = [np.asarray(row.vector) for row in numbered(0, 600, 16)[::60]]
    rows = [(row.id, row.text, dict(row.metadata), np.asarray(row.vector).tolist()) for row in docs.scan(vectors=True)]
    hits = [docs.query(vector, k=5, exact=exact).ids for vector in vectors for exact in (False, True)]
    return docs.count(), docs.count(F("n") < 100), sorted(rows), hits, docs.keyword("word3", k=3).ids


def _probe(link: Connection, path: str, wanted: Any) -> None:
    try:
        with vk.connect(f"qdrant://{path}") as store:
            link.send("same" if _answers(store.collection("docs")) == wanted else "other answers")
    except vk.VectorkitError as error:
        link.send(type(error).__name__)


def _cases(folder: Path, places: int) -> Iterator[tuple[str, str, bytes | None]]:
    """Each harm to each file; at the default effort to the first of those that are called alike, which every segment has."""
    known: set[str] = set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if name == "lock" or (times() == 1 and path.name in known):
            continue
        known.add(path.name)
        data = path.read_bytes()
        yield name, "removed", None
        if not data:
            continue
        yield name, "emptied", b""
        yield name, "cut", data[: len(data) // 2]
        yield name, "cut by one", data[:-1]
        there = np.flatnonzero(np.frombuffer(data, np.uint8))
        for at in there[np.linspace(0, len(there) - 1, min(places, len(there)), dtype=np.int64)] if len(there) else ():
            yield name, f"flipped at {at}", data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_damage(quick: Path, say: Callable[[str], None], *, killed: bool) -> None:
    """Closed in order: the same answers or a typed error. Killed: the engine checks its log only, and the process lives on."""
    whole, place = quick / "whole", quick / "store"
    assert run(_made_killed if killed else _made_closed, str(whole))[0] == 0
    shutil.copytree(whole, place)
    with vk.connect(f"qdrant://{place}") as store:
        wanted = _answers(store.collection("docs"))
    outcomes: dict[str, Counter[str]] = {}
    wrong = []
    for name, harm, data in _cases(whole, 2 * times()):
        shutil.rmtree(place)
        subprocess.run(["cp", "-r", "--sparse=always", whole, place], check=True)
        if data is None:
            (place / name).unlink()
        else:
            (place / name).write_bytes(data)
        status, said = run(_probe, str(place), wanted, timeout=20)
        outcome = said[0] if status == 0 and said else f"ended with {status}"
        outcomes.setdefault(name.rpartition("/")[2], Counter())[outcome] += 1
        fine = ("same", "ConfigError" if name == "vectorkit.json" else "Corrupt", "Corrupt")
        if outcome not in fine and not (killed and outcome == "other answers"):
            wrong.append(f"{name}, {harm}: {outcome}")
    total = sum(outcomes.values(), Counter())
    say(f"\ndamage, qdrant embedded, {'killed' if killed else 'closed'}: {dict(total)}")
    for name, counts in outcomes.items():
        if counts["other answers"]:
            say(f"  other answers: {name} {dict(counts)}")
    assert not wrong, lines(wrong)


def _made_closed(link: Connection, path: str) -> None:
    _made(link, path, killed=False)


def _made_killed(link: Connection, path: str) -> None:
    _made(link, path, killed=True)


def test_another_format(tmp_path: Path) -> None:
    """A directory of another store, of a later layout, of strangers' files, without its catalogue: refused and left alone."""
    place = tmp_path / "store"
    with vk.connect(f"qdrant://{place}") as store:
        store.create_collection(vk.CollectionSpec("docs", 16)).upsert(numbered(0, 10, 16))
    mark = (place / "vectorkit.json").read_text()
    for text, expected in (
        (json.dumps({**json.loads(mark), "layout": 99}), vk.Unsupported),
        (json.dumps({**json.loads(mark), "format": "vectorkit-local"}), vk.Corrupt),
        ("{", vk.Corrupt),
    ):
        (place / "vectorkit.json").write_text(text)
        with raises(expected):
            vk.connect(f"qdrant://{place}")
    (place / "vectorkit.json").write_text(mark)
    (place / "catalogue.db").rename(tmp_path / "catalogue.db")
    (place / "catalogue.seal").unlink(missing_ok=True)
    with raises(vk.Corrupt, "backup"):
        vk.connect(f"qdrant://{place}")
    (place / "catalogue.db").unlink(missing_ok=True)
    (tmp_path / "catalogue.db").rename(place / "catalogue.db")
    with vk.connect(f"qdrant://{place}") as store:
        assert store.collection("docs").count() == 10
    (tmp_path / "strangers").mkdir()
    (tmp_path / "strangers" / "file").touch()
    with raises(vk.ConfigError):
        vk.connect(f"qdrant://{tmp_path}/strangers")


def test_the_seal(tmp_path: Path) -> None:
    """A byte changed under a closed store is Corrupt and says the way out, which works."""
    place = tmp_path / "store"
    with vk.connect(f"qdrant://{place}") as store:
        store.create_collection(vk.CollectionSpec("docs", 16)).upsert(numbered(0, 10, 16))
    (shard,) = (place / "c").iterdir()
    chunk = next(shard.rglob("chunk_0.mmap"))
    with chunk.open("r+b") as file:
        file.seek(20)
        file.write(b"\x41")
    with vk.connect(f"qdrant://{place}") as store:
        docs = store.collection("docs")
        for call in (docs.count, lambda: docs.upsert(numbered(0, 1, 16)), lambda: list(docs.scan()), docs.optimize):
            with raises(vk.Corrupt, "backup", "vectorkit.seal"):
                call()
        (shard / "vectorkit.seal").unlink()
        assert docs.count() == 10
    shutil.copytree(place, tmp_path / "copy")  # a copy without holes is as good
    with vk.connect(f"qdrant://{tmp_path}/copy") as store:
        assert store.collection("docs").count() == 10


# --------------------------------------------------------------------------------------------- processes and threads


def test_a_fork_is_closed(tmp_path: Path) -> None:
    """And when the child ends it has written nothing into its parent's files."""
    assert run(_forking, tmp_path) == (0, [])


def _forking(link: Connection, tmp_path: Path) -> None:
    """In a process that has nothing else in it: what other libraries hold is not to be collected after a fork."""
    store = vk.connect(f"qdrant://{tmp_path}/store")
    docs = store.create_collection(vk.CollectionSpec("docs", 16))
    docs.upsert(numbered(0, 10, 16))
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.read(ready, 1)
            for call in (docs.count, lambda: docs.upsert(numbered(5, 6, 16)), store.collections, docs.optimize):
                try:
                    call()
                except vk.Closed:
                    continue
                os._exit(2)
            store.close()
            del call, docs, store
            gc.collect()
            code = 0
        finally:
            os._exit(code)
    docs.upsert(numbered(10, 30, 16))
    docs.delete(ids=["r000001"])
    os.write(told, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(ready)
    os.close(told)
    assert docs.count() == 29
    with raises(vk.Locked):
        vk.connect({"url": f"qdrant://{tmp_path}/store", "lock_timeout": 0.0})
    docs.upsert(numbered(30, 40, 16))
    store.close()
    with vk.connect(f"qdrant://{tmp_path}/store") as store:
        assert store.collection("docs").count() == 39


def test_a_store_that_was_not_closed_lets_go(tmp_path: Path) -> None:
    store = vk.connect(f"qdrant://{tmp_path}/store")
    docs = store.create_collection(vk.CollectionSpec("docs", 16))
    docs.upsert(numbered(0, 10, 16))
    with raises(vk.Locked):
        vk.connect({"url": f"qdrant://{tmp_path}/store", "lock_timeout": 0.0})
    del store, docs
    gc.collect()
    with vk.connect({"url": f"qdrant://{tmp_path}/store", "lock_timeout": 0.0}) as store:
        assert store.collection("docs").count() == 10
    memory = vk.connect("qdrant+memory://")
    memory.create_collection(vk.CollectionSpec("docs", 16)).upsert(numbered(0, 10, 16))
    before = set(Path(tempfile.gettempdir()).glob("vectorkit-qdrant-*"))
    del memory
    gc.collect()
    assert len(set(Path(tempfile.gettempdir()).glob("vectorkit-qdrant-*"))) < len(before)


def test_threads_write_read_and_drop(tmp_path: Path) -> None:
    """Every answer is right or NotFound; after close() every verb is Closed."""
    store = vk.connect(f"qdrant://{tmp_path}/store")
    spec = vk.CollectionSpec("docs", 16, fields={"n": int})
    store.create_collection(spec)
    end = time.monotonic() + 3
    wrong: list[str] = []
    done: Counter[str] = Counter()

    def work(n: int) -> None:
        dice = random.Random(n)
        while time.monotonic() < end:
            verb = dice.choice(["write", "write", "read", "read", "read", "delete", "drop", "optimize"])
            try:
                docs = store.ensure_collection(spec)
                start = dice.randrange(50) * 10
                if verb == "write":
                    docs.upsert(numbered(start, start + 10, 16))
                elif verb == "read":
                    found = docs.query(np.ones(16, np.float32), k=3)
                    wrong.extend(f"a torn row {row}" for row in found if row.metadata["n"] != int(row.id[1:]))
                elif verb == "delete":
                    docs.delete(where=F("n") < start)
                elif verb == "optimize" and dice.random() < 0.2:
                    docs.optimize()
                elif verb == "drop" and dice.random() < 0.2:
                    store.drop_collection("docs")
                done[verb] += 1
            except (vk.NotFound, vk.AlreadyExists):
                done["not found"] += 1
            except Exception as error:  # noqa: BLE001 - whatever else it is, it is wrong
                wrong.append(f"{verb}: {error!r}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert wrong == [], lines(wrong)
    assert min(done[verb] for verb in ("write", "read", "drop", "delete")) > 0
    docs = store.ensure_collection(spec)
    stop = threading.Event()
    ended: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                docs.count()
        except BaseException as error:  # noqa: BLE001
            ended.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    time.sleep(0.1)
    store.close()
    stop.set()
    for reader in readers:
        reader.join()
    assert all(isinstance(error, vk.Closed) for error in ended), ended
    for call in (docs.count, docs.optimize, store.collections, lambda: docs.upsert(numbered(0, 1, 16))):
        with raises(vk.Closed):
            call()
    store.close()


def _interrupted(link: Connection, path: str) -> None:
    """Ctrl-C at any moment: the verb happened or did not, and the handle goes on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    dice = random.Random(5)
    store = vk.connect(f"qdrant://{path}")
    docs = store.create_collection(spec_of(KIND))
    state: State = {}
    heard = 0
    for number in range(60):
        keys = dice.sample(range(300), 100)
        op: Op = [
            ("upsert", [(key, number, key) for key in keys]),
            ("update", (keys, number)),
            ("delete", keys[:40]),
            ("optimize", None),
        ][number % 4]
        after = applied(state, op)
        timer = threading.Timer(
            dice.uniform(0, 0.2 if op[0] == "optimize" else 0.03), os.kill, (os.getpid(), signal.SIGINT)
        )
        try:
            timer.start()
            act(docs, op)
            timer.join()
            time.sleep(0.05)
        except KeyboardInterrupt:
            heard += 1
        timer.join()
        found = contents(docs)
        if found not in (state, after):
            link.send(f"{number} {op[0]}: {difference(found, [state, after])}")
        state = found
    store.close()
    store, docs = open_docs(KIND, path)
    link.send((heard, contents(docs) == state))
    store.close()


def test_ctrl_c(quick: Path) -> None:
    status, said = run(_interrupted, str(quick / "store"))
    assert status == 0, (status, said)
    assert len(said) == 1, said
    heard, same = said[0]
    assert same
    assert heard >= 50
