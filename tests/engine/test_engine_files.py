"""The directory: the lock, generations that are checked before they are loaded, crashes cut short, readers beside a writer."""

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F

N = 400


def fill(docs: vk.Collection, start: int = 0, count: int = N) -> np.ndarray:
    random = np.random.default_rng(start)
    x = random.standard_normal((count, 8)).astype(np.float32)
    ids = [f"r{start + n}" for n in range(count)]
    docs.upsert(vk.Batch(ids, x, [f"word{n % 5} text" for n in range(count)], [{"n": n} for n in range(count)]))
    return x


def made(path: Path, scheme: str = "faiss") -> np.ndarray:
    with vk.connect(f"{scheme}://{path}") as store:
        spec = vk.CollectionSpec("a", dimension=8, index=vk.HNSW(full_scan_threshold=0), fields={"n": int})
        docs = store.create_collection(spec)
        x = fill(docs)
        docs.optimize()
        assert docs.stats().indexed == (N if scheme == "faiss" else 0)
    return x


def generation(path: Path) -> Path:
    (found,) = path.glob("c/a@1/index/*")
    return found


def answers(path: Path, x: np.ndarray, scheme: str = "faiss") -> tuple[list[list[str]], vk.Stats]:
    with vk.connect(f"{scheme}://{path}") as store:
        docs = store.collection("a")
        return [docs.query(x[n], k=1).ids for n in range(0, N, 40)], docs.stats()


EXPECTED = [[f"r{n}"] for n in range(0, N, 40)]


def test_a_generation_is_loaded_back(tmp_path: Path) -> None:
    x = made(tmp_path)
    manifest = json.loads((generation(tmp_path) / "manifest.json").read_bytes())
    assert (manifest["n"], manifest["dimension"], manifest["metric"], manifest["index"]) == (
        N,
        8,
        "cosine",
        "faiss-hnsw",
    )
    before = generation(tmp_path)
    found, stats = answers(tmp_path, x)
    assert found == EXPECTED
    assert stats.indexed == N
    assert generation(tmp_path) == before


@pytest.mark.parametrize("name", ["index.bin", "vectors.f32", "table.npz", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_generation_is_rebuilt_not_loaded(tmp_path: Path, name: str, harm: str) -> None:
    x = made(tmp_path)
    before = generation(tmp_path)
    path = before / name
    data = bytearray(path.read_bytes())
    match harm:
        case "flip":
            data[len(data) // 2] ^= 0x55
            path.write_bytes(data)
        case "truncate":
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            path.write_bytes(b"")
        case "remove":
            path.unlink()
    found, stats = answers(tmp_path, x)
    assert found == EXPECTED
    assert stats.indexed == N
    assert generation(tmp_path) != before


def test_a_row_that_was_changed_behind_our_back_is_corrupt(tmp_path: Path) -> None:
    made(tmp_path)
    with sqlite3.connect(tmp_path / "c" / "a@1" / "rows.db") as db:
        db.execute("UPDATE rows SET rid = -5 WHERE rid = 3")
    db.close()
    with (
        vk.connect(f"faiss://{tmp_path}") as store,
        pytest.raises(vk.Corrupt, match=r"row -5 \('r2'\) is not what was"),
    ):
        store.collection("a").count()


def test_one_format_for_local_and_faiss(tmp_path: Path) -> None:
    x = made(tmp_path)
    found, stats = answers(tmp_path, x, "local")
    assert found == EXPECTED
    assert stats.index == "flat"
    found, stats = answers(tmp_path, x)
    assert stats.index == "hnsw"


def test_newer_rows_deletes_and_updates_over_a_generation(tmp_path: Path) -> None:
    x = made(tmp_path)
    with vk.connect(f"faiss://{tmp_path}") as store:
        docs = store.collection("a")
        docs.delete(ids=["r0"])
        docs.upsert([vk.Record("r40", -x[40], "moved", {"n": 40})])
        more = fill(docs, 1000, 50)
        assert docs.query(x[0], k=1).ids != ["r0"]
        assert docs.query(-x[40], k=1).ids == ["r40"]
        assert docs.query(more[3], k=1).ids == ["r1003"]
        assert docs.stats().tombstones == pytest.approx(2 / (N + 51))
    with vk.connect(f"faiss://{tmp_path}") as store:
        docs = store.collection("a")
        assert docs.count() == N - 1 + 50
        assert docs.query(-x[40], k=1).ids == ["r40"]
        assert docs.query(more[3], k=1).ids == ["r1003"]
        assert docs.stats().indexed == N
        docs.optimize()
        stats = docs.stats()
        assert (stats.indexed, stats.tombstones) == (N + 49, 0.0)
        assert docs.query(more[3], k=1, where=F("n") == 3).ids == ["r1003"]


def test_a_corrupt_database_is_corrupt(tmp_path: Path) -> None:
    made(tmp_path, "local")
    path = tmp_path / "c" / "a@1" / "rows.db"
    data = bytearray(path.read_bytes())
    data[:100] = b"\x00" * 100
    path.write_bytes(data)
    with vk.connect(f"local://{tmp_path}") as store, pytest.raises(vk.Corrupt, match="restore"):
        store.collection("a").query([1.0] * 8)


def test_a_vector_of_the_wrong_length_is_corrupt(tmp_path: Path) -> None:
    made(tmp_path, "local")
    with sqlite3.connect(tmp_path / "c" / "a@1" / "rows.db") as db:
        db.execute("UPDATE rows SET vector = x'00' WHERE id = 'r7'")
    db.close()
    with vk.connect(f"local://{tmp_path}") as store, pytest.raises(vk.Corrupt, match="row 8 holds no vector of 8"):
        store.collection("a").query([1.0] * 8)


def test_other_peoples_directories_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(vk.ConfigError, match="holds other files"):
        vk.connect(f"local://{tmp_path}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]
    with pytest.raises(vk.ConfigError, match="is a file"):
        vk.connect(f"local://{tmp_path}/thesis.tex")


def test_a_layout_from_later_is_refused(tmp_path: Path) -> None:
    made(tmp_path, "local")
    (tmp_path / "vectorkit.json").write_text('{"format":"vectorkit-local","layout":2}')
    with pytest.raises(vk.Unsupported, match="layout 2"):
        vk.connect(f"local://{tmp_path}")


def test_names_that_differ_in_case_only(tmp_path: Path) -> None:
    with vk.connect(f"local://{tmp_path}") as store:
        for name in ("Ab", "aB", "AB", "ab"):
            store.create_collection(vk.CollectionSpec(name, dimension=1)).upsert([vk.Record(name, [1.0])])
        folders = [path.name for path in (tmp_path / "c").iterdir()]
        assert len({name.lower() for name in folders}) == 4
        assert [record.id for record in store.collection("aB").scan()] == ["aB"]


def test_an_orphan_of_a_crash_is_swept(tmp_path: Path) -> None:
    made(tmp_path, "local")
    (tmp_path / "c" / "gone@7").mkdir()
    with vk.connect(f"local://{tmp_path}") as store:
        assert store.collections() == ["a"]
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["a@1"]


# --------------------------------------------------------------------------------------------- the lock


def test_a_second_handle_in_this_process_is_locked_out(tmp_path: Path) -> None:
    with vk.connect(f"local://{tmp_path}"):
        before = time.monotonic()
        with pytest.raises(vk.Locked, match="open for writing elsewhere") as caught:
            vk.connect(f"local://{tmp_path}")
        assert time.monotonic() - before < 5
        assert caught.value.retryable
    vk.connect(f"local://{tmp_path}").close()


def test_a_second_process_is_locked_out_and_a_killed_owner_frees_the_lock(tmp_path: Path) -> None:
    code = (
        f"import vectorkit as vk, time; s = vk.connect('local://{tmp_path}'); print('open', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(vk.Locked, match=str(owner.pid)):
            vk.connect(f"local://{tmp_path}", options=vk.LocalOptions(lock_timeout=0))
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()  # type: ignore[union-attr]
    vk.connect(f"local://{tmp_path}").close()


def _open_once(path: str) -> str:
    try:
        with vk.connect(f"local://{path}", options=vk.LocalOptions(lock_timeout=5)) as store:
            store.ensure_collection(vk.CollectionSpec("a", dimension=1)).upsert([vk.Record(str(os.getpid()), [1.0])])
    except vk.Locked:
        return "locked"
    return str(os.getpid())


def test_sixteen_first_opens_make_one_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(16) as pool:
        told = pool.map(_open_once, [str(tmp_path / "kb")] * 16, chunksize=1)
    with vk.connect(f"local://{tmp_path}/kb") as store:
        assert store.collections() == ["a"]
        assert {record.id for record in store.collection("a").scan()} == set(told) - {"locked"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_must_connect_again(tmp_path: Path) -> None:
    store = vk.connect(f"local://{tmp_path}")
    docs = store.create_collection(vk.CollectionSpec("a", dimension=1))
    docs.upsert([vk.Record("x", [1.0])])
    child = os.fork()
    if not child:
        status = 1
        try:
            docs.query([1.0])
        except vk.Closed:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert docs.query([1.0]).ids == ["x"]
    store.close()


# --------------------------------------------------------------------------------------------- readers beside a writer


@pytest.mark.parametrize("scheme", ["local", "faiss"])
def test_a_reader_follows_its_writer(tmp_path: Path, scheme: str) -> None:
    with pytest.raises(vk.NotFound, match="no store to read"):
        vk.connect(f"{scheme}://{tmp_path}/kb", read_only=True)
    writer = vk.connect(f"{scheme}://{tmp_path}/kb")
    docs = writer.create_collection(
        vk.CollectionSpec("a", dimension=8, index=vk.HNSW(full_scan_threshold=0), fields={"n": int, "tags": list[str]})
    )
    x = fill(docs)
    reader = vk.connect(f"{scheme}://{tmp_path}/kb", read_only=True)
    seen = reader.collection("a")
    assert seen.query(x[3], k=1).ids == ["r3"]
    docs.delete(ids=["r3"])
    assert seen.query(x[3], k=1).ids != ["r3"]
    assert seen.count() == N - 1
    docs.upsert([vk.Record("new", x[3], "fresh words", {"n": 77_777, "tags": ["t"]})])
    assert seen.query(x[3], k=1, where=F("tags").contains("t")).ids == ["new"]
    docs.update(ids=["new"], set={"n": 5}, unset=["tags"])
    assert seen.count(F("n") == 77_777) == 0
    assert seen.count(F("tags").exists()) == 0
    assert seen.keyword("fresh").ids == ["new"]
    docs.optimize()
    assert seen.query(x[3], k=1).ids == ["new"]
    assert seen.stats().indexed == (N if scheme == "faiss" else 0)
    for verb in (lambda: seen.upsert([vk.Record("z", x[0])]), lambda: seen.delete(everything=True), seen.optimize):
        with pytest.raises(vk.Unsupported, match="read_only"):
            verb()
    writer.drop_collection("a")
    with pytest.raises(vk.NotFound):
        seen.query(x[0])
    assert reader.collections() == []
    reader.close()
    writer.close()


def test_a_reader_in_another_process(tmp_path: Path) -> None:
    with vk.connect(f"local://{tmp_path}") as store:
        docs = store.create_collection(vk.CollectionSpec("a", dimension=8))
        x = fill(docs)
        code = (
            "import vectorkit as vk, json, sys; s = vk.connect(sys.argv[1], read_only=True);"
            "print(json.dumps(s.collection('a').query(json.loads(sys.argv[2]), k=2).ids))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, f"local://{tmp_path}", json.dumps(x[5].tolist())],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)[0] == "r5"


# --------------------------------------------------------------------------------------------- writes that fail


def test_a_full_disk_is_unavailable_and_loses_nothing(tmp_path: Path) -> None:
    with vk.connect(f"local://{tmp_path}") as store:
        docs = store.create_collection(vk.CollectionSpec("a", dimension=8, fields={"n": int, "tags": list[str]}))
        x = fill(docs)
        docs.query(x[0])
        adapter: Any = store._verbs.top.adapter
        writer = adapter._shelves["a@1"]._rows.writer
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count={pages}")
        big = [vk.Record(f"big{n}", x[n % N], "long " * 500, {"n": n, "tags": ["big"]}) for n in range(300)]
        with pytest.raises(vk.Unavailable, match="disk is full") as caught:
            docs.upsert(big)
        assert caught.value.retryable
        assert docs.count() == N
        assert docs.query(x[9], k=1).ids == ["r9"]
        assert docs.count(F("tags").contains("big")) == 0
        writer.execute("PRAGMA max_page_count=1000000")
        assert docs.upsert(big).written == 300
        assert docs.count(F("tags").contains("big")) == 300
        assert docs.count(F("n") == 7) == 2
        assert docs.query(x[9], k=1, where=F("tags").missing()).ids == ["r9"]


def test_a_generator_that_breaks_keeps_its_whole_chunks(tmp_path: Path) -> None:
    def rows() -> Iterator[vk.Record]:
        for n in range(25_000):
            if n == 23_456:
                raise RuntimeError("the source broke")
            yield vk.Record(str(n), [float(n + 1), 1.0])

    with vk.connect(f"local://{tmp_path}") as store:
        docs = store.create_collection(vk.CollectionSpec("a", dimension=2))
        with pytest.raises(RuntimeError, match="the source broke"):
            docs.upsert(rows())
        assert docs.count() == 20_000


@pytest.mark.parametrize("verb", ["upsert", "update", "delete"])
@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_ctrl_c_around_a_commit_leaves_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, moment: str
) -> None:
    with vk.connect(f"local://{tmp_path}") as store:
        docs = store.create_collection(vk.CollectionSpec("a", dimension=8, fields={"n": int}))
        x = fill(docs)
        assert docs.count() == N
        adapter: Any = store._verbs.top.adapter
        rows = adapter._shelves["a@1"]._rows

        class Interrupted:
            """The writer's connection, with a Ctrl-C at the commit."""

            def __init__(self, connection: sqlite3.Connection) -> None:
                self.connection = connection

            def __getattr__(self, name: str) -> Any:
                return getattr(self.connection, name)

            def execute(self, statement: str, *values: Any) -> Any:
                if statement != "COMMIT":
                    return self.connection.execute(statement, *values)
                if moment == "after the commit":
                    self.connection.execute(statement)
                raise KeyboardInterrupt

        monkeypatch.setattr(rows, "writer", Interrupted(rows.writer))
        calls: dict[str, Callable[[], object]] = {
            "upsert": lambda: docs.upsert([vk.Record("r5", -x[5], "new", {"n": -1}), vk.Record("new", x[0])]),
            "update": lambda: docs.update(ids=["r5"], set={"n": -1}),
            "delete": lambda: docs.delete(ids=["r5"]),
        }
        with pytest.raises(KeyboardInterrupt):
            calls[verb]()
        monkeypatch.undo()
        landed = moment == "after the commit"
        assert docs.count() == N + {"upsert": 1, "update": 0, "delete": -1}[verb] * landed
        assert docs.count(F("n") == -1) == (landed and verb != "delete")
        assert docs.query(-x[5], k=1).ids == (
            ["r5"] if landed and verb == "upsert" else docs.query(-x[5], k=1, exact=True).ids
        )
        assert docs.upsert([vk.Record("later", x[1], "later", {"n": 7})]).written == 1
        assert docs.keyword("later").ids == ["later"]
        assert docs.count(F("n") == 7) == 2
