"""Readers while a writer works: every row that comes back is one that was written, whole, and nobody is short of rows."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.local import ann, shelf

ROWS = 300
SECONDS = 2.5


def vector(key: int, version: int) -> list[float]:
    random = np.random.default_rng(key * 100_003 + version)
    values: list[float] = random.standard_normal(8).astype(np.float32).tolist()
    return values


def record(key: int, version: int) -> vk.Record:
    return vk.Record(
        f"r{key}", vector(key, version), f"word{version % 3} v{version} all", {"key": key, "version": version}
    )


@pytest.mark.parametrize("scheme", ["memory", "local", "faiss"])
def test_readers_and_a_writer(tmp_path: Path, scheme: str) -> None:
    store = vk.connect("memory://" if scheme == "memory" else f"{scheme}://{tmp_path}")
    docs = store.create_collection(
        vk.CollectionSpec("a", dimension=8, index=vk.HNSW(full_scan_threshold=0), fields={"key": int, "version": int})
    )
    docs.upsert([record(key, 0) for key in range(ROWS)])
    latest = dict.fromkeys(range(ROWS), 0)
    stop = threading.Event()
    wrong: list[str] = []
    reads = [0] * 4

    def read(number: int) -> None:
        random = np.random.default_rng(number)
        try:
            while not stop.is_set():
                key = int(random.integers(0, ROWS))
                before = latest[key]
                where = [None, F("key") < 150, F("key") == key][reads[number] % 3]
                hits = docs.query(vector(key, before), k=5, where=where, vectors=True)
                wanted = 1 if where is not None and reads[number] % 3 == 2 else 5
                if len(hits) != wanted:
                    wrong.append(f"{len(hits)} rows of {wanted} under {where!r} ({hits.path})")
                for hit in hits:
                    k, version = hit.metadata["key"], hit.metadata["version"]
                    if hit.id != f"r{k}" or hit.text != f"word{version % 3} v{version} all":
                        wrong.append(f"torn row {hit}")
                    if hit.vector is None or not np.allclose(hit.vector, vector(k, version)):
                        wrong.append(f"vector of another version in {hit.id}")
                    if version < before and k == key:
                        wrong.append(f"{hit.id} went back to {version} after {before}")
                    if where is not None and not where.matches(hit.metadata):
                        wrong.append(f"{hit.metadata} under {where!r}")
                others = [hit.metadata for hit in docs.keyword("word1", k=5) if hit.metadata["version"] % 3 != 1]
                wrong.extend(f"keyword gave {metadata}" for metadata in others)
                if (words := len(docs.keyword("all", k=ROWS, where=F("key") < ROWS))) != ROWS:
                    wrong.append(f"keyword under a filter gave {words} rows of {ROWS}")
                (got,) = docs.get([f"r{key}"])
                if got is None or got.metadata["version"] < before:
                    wrong.append(f"get({key}) after {before}: {got}")
                reads[number] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, the test reports it
            wrong.append(repr(error))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    random = np.random.default_rng(99)
    version = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and not wrong:
        version += 1
        keys = random.choice(ROWS, 20, replace=False).tolist()
        docs.upsert([record(key, version) for key in keys])
        for key in keys:
            latest[key] = version
        if version % 25 == 0:
            docs.optimize()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong[:3] == []
    assert min(reads) > 10
    assert version > 10
    assert docs.count() == ROWS
    store.close()


@pytest.mark.parametrize("scheme", ["memory", "local"])
def test_a_filtered_delete_spares_what_changed_meanwhile(tmp_path: Path, scheme: str) -> None:
    """The filter is on an undeclared field, so the ids are read first and deleted after: each is looked at again."""
    store = vk.connect("memory://" if scheme == "memory" else f"{scheme}://{tmp_path}")
    docs = store.create_collection(vk.CollectionSpec("a", dimension=2))
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        docs.upsert([vk.Record(str(n), [1, 0], None, {"tag": "old"}) for n in range(300)])
        kept: list[str] = []

        def write(kept: list[str] = kept) -> None:
            for n in range(0, 300, 7):
                docs.upsert([vk.Record(str(n), [1, 0], None, {"tag": "new"})])
                kept.append(str(n))

        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(5):
            docs.delete(where=F("tag") == "old")
        thread.join()
        assert [record and record.metadata for record in docs.get(kept)] == [{"tag": "new"}] * len(kept)
    store.close()


def test_a_collection_dropped_under_readers_is_not_found(tmp_path: Path) -> None:
    store = vk.connect(f"faiss://{tmp_path}")
    spec = vk.CollectionSpec("a", dimension=4, index=vk.HNSW(full_scan_threshold=0))
    docs = store.create_collection(spec)
    rows = [vk.Record(str(n), [1.0, n, n * n, 1.0], "word") for n in range(60)]
    docs.upsert(rows)
    stop = threading.Event()
    wrong: list[str] = []

    def repeat(verb: Callable[[], object]) -> None:
        while not stop.is_set():
            try:
                verb()
            except vk.NotFound:
                pass
            except Exception as error:  # noqa: BLE001 - whatever it is, the test reports it
                wrong.append(repr(error))

    verbs: list[Callable[[], object]] = [
        lambda: docs.query([1.0] * 4),
        lambda: docs.keyword("word"),
        lambda: docs.get(["1"]),
        lambda: list(docs.scan()),
        docs.count,
        docs.stats,
        docs.optimize,
        lambda: docs.upsert(rows[:2]),
    ]
    threads = [threading.Thread(target=repeat, args=(verb,)) for verb in verbs]
    for thread in threads:
        thread.start()
    for _ in range(10):
        time.sleep(0.1)
        store.drop_collection("a")
        time.sleep(0.01)
        store.create_collection(spec).upsert(rows)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong[:3] == []
    store.close()


@pytest.mark.parametrize("meanwhile", ["replaced", "deleted", "failed", "added", "updated"])
def test_what_is_written_while_an_index_is_built(
    tmp_path: Path, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slots that were indexed may be others by then: whole rows come back, now, after another optimize and a reopen."""
    count = 3_000
    random = np.random.default_rng(5)
    old, new = (random.standard_normal((count, 8)).astype(np.float32) for _ in range(2))
    ids = [f"r{n}" for n in range(count)]
    wanted = {id: (old[n], n) for n, id in enumerate(ids)}  # noqa: A001
    spec = vk.CollectionSpec("a", dimension=8, index=vk.HNSW(full_scan_threshold=0), fields={"n": int})
    measure = ann.calibrate
    built: list[bool] = []

    def write() -> None:
        if meanwhile == "replaced":  # more dead than live: the newer slots are packed
            docs.upsert(vk.Batch(ids, new, None, [{"n": n} for n in range(count)]))
            wanted.update({id: (new[n], n) for n, id in enumerate(ids)})  # noqa: A001
        elif meanwhile == "deleted":
            docs.delete(ids=ids[:2_000])
            for id in ids[:2_000]:  # noqa: A001
                del wanted[id]
        elif meanwhile == "failed":  # the view is thrown away and read afresh
            docs.delete(ids=ids[:5])
            with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:  # noqa: PT012
                patch.setattr(shelf.Shelf, "_trimmed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
                docs.delete(ids=ids[5:9])
            for id in ids[:9]:  # noqa: A001
                del wanted[id]
        elif meanwhile == "added":
            docs.upsert(vk.Batch(["new"], new[:1], None, [{"n": -1}]))
            wanted["new"] = (new[0], -1)
        else:
            docs.update(ids=ids[:7], set={"n": 10_000})
            wanted.update({id: (old[n], 10_000) for n, id in enumerate(ids[:7])})  # noqa: A001

    def calibrate(*args: Any) -> Any:
        monkeypatch.setattr(shelf, "calibrate", measure)
        built.append(True)
        write()
        return measure(*args)

    def check() -> None:
        assert docs.count() == len(wanted)
        for id, (vector, n) in [*list(wanted.items())[:40], *list(wanted.items())[-40:]]:  # noqa: A001
            (hit,) = docs.query(vector, k=1)
            assert (hit.id, hit.metadata) == (id, {"n": n})
            assert docs.query(vector, k=1, where=F("n") == n).ids == [id]

    with vk.connect(f"faiss://{tmp_path}") as store:
        docs = store.create_collection(spec)
        docs.upsert(vk.Batch(ids, old, None, [{"n": n} for n in range(count)]))
        monkeypatch.setattr(shelf, "calibrate", calibrate)
        docs.optimize()
        assert built, "the index was built"
        check()
        docs.optimize()
        check()
    with vk.connect(f"faiss://{tmp_path}") as store:
        docs = store.collection("a")
        check()
