"""Readers while a writer works: every row that comes back is one that was written, whole, and nobody is short of rows."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F

ROWS = 300
SECONDS = 4.0


def vector(key: int, version: int) -> list[float]:
    random = np.random.default_rng(key * 100_003 + version)
    values: list[float] = random.standard_normal(8).astype(np.float32).tolist()
    return values


def record(key: int, version: int) -> vk.Record:
    return vk.Record(f"r{key}", vector(key, version), f"word{version % 3} v{version}", {"key": key, "version": version})


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
                    if hit.id != f"r{k}" or hit.text != f"word{version % 3} v{version}":
                        wrong.append(f"torn row {hit}")
                    if hit.vector is None or not np.allclose(hit.vector, vector(k, version)):
                        wrong.append(f"vector of another version in {hit.id}")
                    if version < before and k == key:
                        wrong.append(f"{hit.id} went back to {version} after {before}")
                    if where is not None and not where.matches(hit.metadata):
                        wrong.append(f"{hit.metadata} under {where!r}")
                others = [hit.metadata for hit in docs.keyword("word1", k=5) if hit.metadata["version"] % 3 != 1]
                wrong.extend(f"keyword gave {metadata}" for metadata in others)
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
