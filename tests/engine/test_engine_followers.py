"""Readers in the same process as other handles, and beside another process's writer: nobody is left behind, nobody is told of damage that is none."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F

WRITER = """
import sys, numpy as np, vectorkit as vk
with vk.connect(sys.argv[1]) as store:
    docs = store.ensure_collection(vk.CollectionSpec("a", dimension=4))
    first, last = int(sys.argv[2]), int(sys.argv[3])
    vectors = np.random.default_rng(first).normal(size=(last - first, 4)).astype("f4")
    docs.upsert(vk.Batch([str(n) for n in range(first, last)], vectors))
"""


def write(url: str, first: int, last: int) -> None:
    """By another process, which opens and closes the store."""
    subprocess.run([sys.executable, "-c", WRITER, url, str(first), str(last)], check=True, timeout=60)


@pytest.mark.parametrize("other", ["none", "reader", "writer"])
def test_a_follower_keeps_up_when_another_handle_here_has_closed(tmp_path: Path, other: str) -> None:
    """A process that closes a descriptor of a database loses SQLite's locks on it, and the next writer would remove its log."""
    url = f"local://{tmp_path}"
    write(url, 0, 10)
    with vk.connect(url, read_only=True) as store:
        docs = store.collection("a")
        assert len(docs.query([1, 0, 0, 0], k=100)) == 10
        if other != "none":
            with vk.connect(url, read_only=other == "reader") as second:
                if other == "writer":
                    second.collection("a").update(ids=["0"], set={"seen": True})
                assert second.collection("a").count() == 10
        for last in (20, 30, 3_000):
            write(url, last - 10, last)
            wanted = last if last < 3_000 else 40
            assert len(docs.query([1, 0, 0, 0], k=10_000)) == wanted
            assert docs.count() == len(list(docs.scan())) == wanted


def test_a_reader_that_opens_during_a_first_write_sees_no_damage(tmp_path: Path) -> None:
    url = f"local://{tmp_path}"
    vectors = np.random.default_rng(0).normal(size=(4_000, 512)).astype(np.float32)
    with vk.connect(url) as store:
        store.create_collection(vk.CollectionSpec("a", dimension=512)).upsert(vk.Batch(["first"], vectors[:1]))
    stop = threading.Event()
    seen: list[int] = []
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                with vk.connect(url, read_only=True) as store:
                    seen.append(store.collection("a").count())
            except vk.VectorkitError as error:
                wrong.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    for round_ in range(6):
        with vk.connect(url) as store:
            store.collection("a").upsert(vk.Batch([f"r{n}" for n in range(4_000)], vectors + round_))
    stop.set()
    reader.join()
    assert wrong == []
    assert set(seen) <= {1, 4_001}
    assert len(seen) > 5


def test_an_optimize_with_nothing_to_do_leaves_a_whole_store(tmp_path: Path) -> None:
    url = f"local://{tmp_path}"
    with vk.connect(url) as store:
        docs = store.create_collection(vk.CollectionSpec("a", dimension=2))
        docs.upsert([vk.Record(f"r{n}", [1, n], f"word{n}") for n in range(50)])
        docs.optimize()
    for _ in range(2):
        with vk.connect(url) as store:
            store.collection("a").optimize()  # it merges the keyword index's segments, and rewrites nothing else
        with vk.connect(url, read_only=True) as store:
            assert store.collection("a").count() == 50
            assert store.collection("a").keyword("word7").ids == ["r7"]


def test_what_is_deleted_is_forgotten(tmp_path: Path) -> None:
    spec = vk.CollectionSpec("a", dimension=2, fields={"mail": str, "tags": list[str]})
    with vk.connect(f"local://{tmp_path}") as store:
        docs = store.create_collection(spec)
        docs.upsert(
            vk.Record(f"r{n}", [1, n], None, {"mail": f"secret{n}@example.org", "tags": [f"tag{n}"]}) for n in range(9)
        )
        assert docs.query([1, 0], where=F("mail") == "secret7@example.org").ids == ["r7"]  # the fields are in memory
        docs.delete(ids=[f"r{n}" for n in range(8)])
        docs.optimize()
        assert docs.query([1, 8], where=F("mail") == "secret8@example.org").ids == ["r8"]
        assert docs.query([1, 8], where=F("tags").contains("tag8")).ids == ["r8"]
        docs.upsert([vk.Record("r9", [1, 9], None, {"mail": "new", "tags": ["tag8", "x"]}), vk.Record("r10", [1, 10])])
        assert docs.count(F("tags").contains("tag8")) == 2
        assert docs.count(F("mail").missing()) == 1
    (table,) = tmp_path.glob("c/a@1/index/*/table.npz")
    assert b"secret8" in table.read_bytes()
    assert b"secret7" not in table.read_bytes()
    assert b"tag7" not in table.read_bytes()
