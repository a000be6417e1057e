"""What a hostile reviewer broke once: restored backups, damaged catalogues, forks, leaks, secrets, growth."""

import asyncio
import gc
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.local.rows import check_of, read_state

SPEC = vk.CollectionSpec("a", dimension=16, index=vk.HNSW(full_scan_threshold=0), fields={"y": int})


def rows(prefix: str, count: int, seed: int) -> list[vk.Record]:
    random = np.random.default_rng(seed)
    return [vk.Record(f"{prefix}{n}", random.normal(size=16), "all", {"y": n}) for n in range(count)]


def of(record: vk.Record) -> npt.ArrayLike:
    assert record.vector is not None
    return record.vector


def test_an_index_from_after_a_restored_backup_is_not_trusted(tmp_path: Path) -> None:
    url = f"faiss://{tmp_path}/kb"
    with vk.connect(url) as store:
        docs = store.create_collection(SPEC)
        docs.upsert(rows("a", 200, 0))
        docs.optimize()
    database = tmp_path / "kb" / "c" / "a@1" / "rows.db"
    shutil.copy(database, tmp_path / "backup")
    with vk.connect(url) as store:
        docs = store.collection("a")
        docs.upsert(rows("b", 300, 1))
        docs.optimize()
    shutil.copy(tmp_path / "backup", database)
    with vk.connect(url) as store, pytest.raises(vk.Corrupt, match="end at write 1, 2 were acknowledged"):
        store.collection("a").count()
    database.with_suffix(".seal").unlink()  # as the message says: the older rows are wanted
    newer = rows("c", 300, 2)
    with vk.connect(url) as store:
        store.collection("a").upsert(newer)
    with vk.connect(url) as store:
        docs = store.collection("a")
        assert [docs.query(of(r), k=1).ids for r in newer[:50]] == [[r.id] for r in newer[:50]]
        assert docs.delete(ids=["c0", "c1"]) == 2
        assert docs.count() == len(list(docs.scan())) == 498


def test_an_index_of_another_collection_is_not_trusted(tmp_path: Path) -> None:
    with vk.connect(f"faiss://{tmp_path}") as store:
        for name, seed in (("a", 0), ("b", 1)):
            spec = vk.CollectionSpec(name, dimension=16, index=SPEC.index, fields=SPEC.fields)
            docs = store.create_collection(spec)
            docs.upsert(rows(name, 100, seed))
            docs.optimize()
    shutil.rmtree(tmp_path / "c" / "a@1" / "index")
    shutil.copytree(tmp_path / "c" / "b@2" / "index", tmp_path / "c" / "a@1" / "index")
    with vk.connect(f"faiss://{tmp_path}") as store:
        docs = store.collection("a")
        assert [docs.query(of(r), k=1).ids for r in rows("a", 20, 0)] == [[f"a{n}"] for n in range(20)]


def test_a_delete_that_finds_a_damaged_index_is_whole(tmp_path: Path) -> None:
    with vk.connect(f"faiss://{tmp_path}") as store:
        docs = store.create_collection(SPEC)
        docs.upsert(rows("a", 300, 0))
        docs.optimize()
    (index,) = tmp_path.glob("c/*/index/*/index.bin")
    data = bytearray(index.read_bytes())
    data[100] ^= 1
    index.write_bytes(data)
    with vk.connect(f"faiss://{tmp_path}") as store:
        docs = store.collection("a")
        assert docs.delete(where=F("y") < 10) == 10
        assert docs.count() == 290


@pytest.mark.parametrize("scheme", ["memory", "local"])
def test_an_update_of_nobody_changes_nothing(tmp_path: Path, scheme: str) -> None:
    with vk.connect("memory://" if scheme == "memory" else f"local://{tmp_path}") as store:
        docs = store.create_collection(SPEC)
        docs.upsert(rows("a", 3, 0))
        docs.query(np.ones(16))
        assert docs.update(ids=["nobody"], set={"y": 2}) == 0
        assert docs.keyword("all", where=F("y") == 1).ids == ["a1"]


def test_a_catalogue_cannot_name_a_folder_elsewhere(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    with vk.connect(f"local://{tmp_path}/kb") as store:
        store.create_collection(SPEC)
    with sqlite3.connect(tmp_path / "kb" / "catalogue.db") as db:
        document = json.loads(db.execute("SELECT spec FROM collections").fetchone()[0])
        document["generation"] = "1/../../../victim"
        db.execute("UPDATE collections SET spec = ?", (json.dumps(document),))
    with pytest.raises(vk.Corrupt, match=r"catalogue\.db is damaged"):
        vk.connect(f"local://{tmp_path}/kb")
    with db:  # and with a digest that fits
        said = db.execute("SELECT * FROM collections").fetchall()
        said += db.execute("SELECT * FROM counters WHERE name <> 'digest' ORDER BY name").fetchall()
        digest = int.from_bytes(hashlib.sha256(repr(said).encode()).digest()[:7], "big")
        db.execute("UPDATE counters SET value = ? WHERE name = 'digest'", (digest,))
    db.close()
    with vk.connect(f"local://{tmp_path}/kb") as store, pytest.raises(vk.Corrupt):
        store.drop_collection("a")
    assert victim.is_dir()


def test_a_connect_that_fails_and_a_handle_that_is_lost_let_go_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(vk.InvalidArgument):
        vk.connect(f"local://{tmp_path}", clock=5)  # type: ignore[arg-type]
    vk.connect(f"local://{tmp_path}").close()

    def lose() -> None:
        vk.connect(f"local://{tmp_path}").create_collection(SPEC)

    lose()
    gc.collect()
    vk.connect(f"local://{tmp_path}").close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_an_async_read_in_a_forked_child_is_refused_not_hung(tmp_path: Path) -> None:
    async def opened() -> vk.AsyncCollection:
        store = await vk.aconnect(f"local://{tmp_path}")
        docs = await store.create_collection(SPEC)
        await docs.upsert(rows("a", 2, 0))
        await docs.query(np.ones(16))
        return docs

    loop = asyncio.new_event_loop()
    docs = loop.run_until_complete(opened())
    child = os.fork()
    if not child:
        signal.alarm(20)
        status = 1
        try:
            asyncio.new_event_loop().run_until_complete(docs.query(np.ones(16)))
        except vk.Closed:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    loop.run_until_complete(docs._verbs.store.close())
    loop.close()


def test_threads_do_not_outlive_an_async_store(tmp_path: Path) -> None:
    async def body() -> None:
        store = await vk.aconnect(f"local://{tmp_path}")
        docs = await store.create_collection(SPEC)
        await docs.upsert(rows("a", 50, 0))
        tasks = [asyncio.ensure_future(docs.query(np.ones(16), where=F("u") == 49)) for _ in range(20)]
        await asyncio.sleep(0.01)
        await store.close()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, vk.Hits | vk.Closed)

    asyncio.run(body())
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("vectorkit")] == []


def test_upserting_the_same_rows_again_does_not_grow_memory(tmp_path: Path) -> None:
    with vk.connect(f"local://{tmp_path}") as store:
        docs = store.create_collection(SPEC)
        batch = rows("a", 100, 0)
        docs.upsert(batch)
        docs.query(np.ones(16))
        for _ in range(100):
            docs.upsert(batch)
        stats = docs.stats()
        assert stats.rows == 100
        assert stats.bytes["vectors in memory"] < 40 * 100 * 16 * 4
        assert docs.query(of(batch[7]), k=1, where=F("y") == 7).ids == ["a7"]


def test_secrets_in_a_mistyped_address_are_not_shown() -> None:
    for address in ("postgresql:/user:hunter2@h/db", "local://user:hunter2@h/db", "local:///x?hunter2@h=1"):
        with pytest.raises(vk.ConfigError) as caught:
            vk.connect(address)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("read_only", [True, False])
def test_paths_that_cannot_be(tmp_path: Path, *, read_only: bool) -> None:
    for address in (f"local://{tmp_path}/{'a' * 300}", f"local://{tmp_path}/\ud800"):
        with pytest.raises(vk.VectorkitError):
            vk.connect(address, read_only=read_only)


def test_a_huge_search_width_is_as_wide_as_the_index(tmp_path: Path) -> None:
    with vk.connect(f"faiss://{tmp_path}") as store:
        docs = store.create_collection(SPEC)
        batch = rows("a", 100, 0)
        docs.upsert(batch)
        docs.optimize()
        assert docs.query(of(batch[3]), k=1, ef_search=2**40).ids == ["a3"]


def test_words_that_fts5_keeps_apart_are_both_asked_for() -> None:
    docs = vk.connect("memory://").create_collection(SPEC)
    texts = ["straße", "strasse", "x", "cafe", "y"]
    docs.upsert([vk.Record(str(n), np.ones(16), text) for n, text in enumerate(texts)])
    assert sorted(docs.keyword("straße strasse").ids) == ["0", "1"]
    assert docs.keyword("cafe café")[0].score == docs.keyword("cafe")[0].score


def test_many_operands_are_looked_up_not_walked() -> None:
    docs = vk.connect("memory://").create_collection(SPEC)
    docs.upsert(
        vk.Batch([str(n) for n in range(2_000)], np.ones((2_000, 16)), None, [{"u": str(n)} for n in range(2_000)])
    )
    spent = os.times().user
    assert docs.count(F("u").in_([f"z{n}" for n in range(9_999)])) == 0
    assert os.times().user - spent < 2


def test_what_is_returned_is_the_callers_own() -> None:
    docs = vk.connect("memory://").create_collection(SPEC)
    docs.spec.fields["zz"] = int  # type: ignore[index]
    assert docs.count(F("zz") == 1) == 0


def test_unhashable_arguments_are_invalid_not_type_errors() -> None:
    docs = vk.connect("memory://").create_collection(SPEC)
    with pytest.raises(vk.InvalidArgument):
        docs.update(ids=["a"], unset=[["x"]])  # type: ignore[list-item]
    with pytest.raises(vk.InvalidArgument):
        docs.insert([], on_conflict=[])  # type: ignore[arg-type]
    with pytest.raises(vk.InvalidArgument):
        vk.HNSW(quantization=[])  # type: ignore[arg-type]


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_ctrl_c_at_the_commit_of_create_leaves_a_whole_collection_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    with vk.connect(f"local://{tmp_path}") as store:
        adapter: Any = store._verbs.top.adapter

        class Interrupted:
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

        monkeypatch.setattr(adapter._home, "_catalogue", Interrupted(adapter._home._catalogue))
        with pytest.raises(KeyboardInterrupt):
            store.create_collection(SPEC)
        monkeypatch.undo()
        assert store.collections() == (["a"] if moment == "after the commit" else [])
        docs = store.ensure_collection(SPEC)
        assert docs.upsert(rows("a", 3, 0)).written == 3
        assert docs.count() == 3


@pytest.mark.parametrize("where", ["up", "absolute", "link"])
def test_a_database_cannot_name_a_generation_elsewhere(tmp_path: Path, where: str) -> None:
    url = f"faiss://{tmp_path}/kb"
    with vk.connect(url) as store:
        docs = store.create_collection(SPEC)
        docs.upsert(rows("a", 50, 0))
        docs.optimize()
    folder = tmp_path / "kb" / "c" / "a@1"
    (generation,) = (folder / "index").iterdir()
    elsewhere = generation.rename(tmp_path / "elsewhere")
    name = {"up": "../../../../elsewhere", "absolute": str(elsewhere), "link": generation.name}[where]
    if where == "link":
        generation.symlink_to(elsewhere)
    manifest = json.loads((elsewhere / "manifest.json").read_text())
    (elsewhere / "manifest.json").write_text(json.dumps({**manifest, "id": name}))
    with sqlite3.connect(folder / "rows.db") as db:  # somebody who also knows how the state is checked
        state = read_state(db, "")
        state["generation"] = name
        state["check"] = check_of(state)
        db.executemany("UPDATE state SET value = ? WHERE key = ?", [(state[k], k) for k in ("generation", "check")])
    db.close()
    if where != "link":
        with vk.connect(url, read_only=True) as store, pytest.raises(vk.Corrupt):
            store.collection("a").count()
    (folder / "rows.seal").unlink()
    with vk.connect(url, read_only=True) as store:
        docs = store.collection("a")
        assert docs.count() == 50
        assert len(docs.query(of(rows("a", 50, 0)[0]), k=50)) == 50
        assert docs.stats().indexed == 0, "an index was loaded from outside the collection's folder"
    assert elsewhere.is_dir()


def test_a_catalogue_from_before_a_collection_does_not_sweep_it_away(tmp_path: Path) -> None:
    url = f"local://{tmp_path}/kb"
    vk.connect(url).close()
    shutil.copy(tmp_path / "kb" / "catalogue.db", tmp_path / "backup")
    with vk.connect(url) as store:
        store.create_collection(SPEC).upsert(rows("a", 5, 0))
    (tmp_path / "kb" / "catalogue.seal").unlink()
    shutil.copy(tmp_path / "backup", tmp_path / "kb" / "catalogue.db")
    with pytest.raises(vk.Corrupt, match="does not know 'a@1', which holds rows"):
        vk.connect(url)
    assert (tmp_path / "kb" / "c" / "a@1" / "rows.db").is_file()
