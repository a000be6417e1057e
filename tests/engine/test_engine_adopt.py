"""Adoption of FAISS files of others: what comes over, what is refused, and that a bad file harms nothing but its reader.

Every refusal is checked to leave no collection and no file behind.
"""

import asyncio
import os
import pickle
import re
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss as _stubbed
import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.local import adopt as local_adopt
from vectorkit.types import FloatArray, Metric
from vectorkit_faiss import files, header, reader

faiss: Any = _stubbed
ROWS, DIMENSION = 250, 12
L2, INNER = faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT


@pytest.fixture
def vectors() -> FloatArray:
    return np.random.default_rng(3).normal(size=(ROWS, DIMENSION)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[vk.Store]:
    with vk.connect(f"faiss://{tmp_path}/kb") as opened:
        yield opened


def saved(path: Path, factory: str, vectors: FloatArray, *, metric: int = L2, ids: Any = None) -> Path:
    """An index file as FAISS writes it."""
    index = faiss.index_factory(vectors.shape[1], factory, metric)
    index.train(vectors)
    if ids is None:
        index.add(vectors)
    else:
        index.add_with_ids(vectors, np.asarray(ids, np.int64))
    faiss.write_index(index, str(path))
    return path


def spec(metric: Metric = "l2", **options: Any) -> vk.CollectionSpec:
    options.setdefault("index", vk.HNSW(full_scan_threshold=0))
    return vk.CollectionSpec("taken", DIMENSION, metric, **options)


def unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def held(docs: vk.Collection) -> dict[str, FloatArray]:
    return {record.id: np.asarray(record.vector, np.float32) for record in docs.scan(vectors=True)}


@contextmanager
def refused(store: vk.Store, kind: type[vk.VectorkitError], *mentions: str) -> Iterator[None]:
    """The block raises this, and nothing is left of it."""
    with pytest.raises(kind) as caught:
        yield
    for mention in mentions:
        assert mention in str(caught.value), caught.value
    untouched(store)


def untouched(store: vk.Store) -> None:
    assert store.collections() == []
    assert list((store.native / "c").iterdir()) == []


# --------------------------------------------------------------------------------------------- what comes over


@pytest.mark.parametrize("factory", ["Flat", "IVF6,Flat", "HNSW8", "IVF6_HNSW4,Flat"])
@pytest.mark.parametrize(("metric", "measured"), [("l2", L2), ("dot", INNER)])
def test_without_ids(
    tmp_path: Path, store: vk.Store, vectors: FloatArray, factory: str, metric: Metric, measured: int
) -> None:
    path = saved(tmp_path / "a.index", factory, vectors, metric=measured)
    docs = store.adopt(str(path), spec(metric))
    found = held(docs)
    assert sorted(found, key=int) == [str(n) for n in range(ROWS)]
    assert all(np.array_equal(found[str(n)], vectors[n]) for n in range(ROWS))
    stats = docs.stats()
    assert (docs.name, stats.rows, stats.indexed, stats.index) == ("taken", ROWS, ROWS, "hnsw")
    assert docs.query(vectors[5], k=1).ids == ["5"] or metric == "dot"
    path.unlink()  # it is needed no more
    assert store.collection("taken").count() == ROWS


@pytest.mark.parametrize("factory", ["IDMap,Flat", "IDMap2,Flat", "IDMap2,IVF6,Flat", "IDMap,HNSW8", "IVF6,Flat"])
def test_with_ids(tmp_path: Path, store: vk.Store, vectors: FloatArray, factory: str) -> None:
    ids = np.random.default_rng(0).permutation(ROWS) * 7 - 300
    ids[3] = 2**62
    path = saved(tmp_path / "a.index", factory, vectors, ids=ids)
    found = held(store.adopt(str(path), spec()))
    assert set(found) == set(map(str, ids))
    assert all(np.array_equal(found[str(own)], vectors[n]) for n, own in enumerate(ids))


def test_several_chunks_and_a_reopened_store(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(23_456, 3)).astype(np.float32)
    saved(tmp_path / "a", "IDMap,Flat", vectors, ids=np.arange(23_456) + 5)
    with vk.connect(f"faiss://{tmp_path}/kb") as store:
        store.adopt(str(tmp_path / "a"), vk.CollectionSpec("taken", 3, "l2", vk.Flat()))
    with vk.connect(f"faiss://{tmp_path}/kb") as store:
        docs = store.collection("taken")
        assert docs.count() == 23_456
        for n in (0, 9_999, 10_000, 20_001, 23_455):
            (record,) = docs.get([str(n + 5)], vectors=True)
            assert record is not None
            assert np.array_equal(np.asarray(record.vector), vectors[n])
        docs.upsert([vk.Record("mine", [1, 2, 3])])
        assert docs.count() == 23_457


def test_an_inverted_file_of_many_chunks_keeps_its_order(tmp_path: Path, store: vk.Store) -> None:
    vectors = np.random.default_rng(0).normal(size=(21_000, 4)).astype(np.float32)
    path = saved(tmp_path / "a", "IVF50,Flat", vectors)
    docs = store.adopt(str(path), vk.CollectionSpec("taken", 4, "l2", vk.Flat()))
    found = held(docs)
    assert all(np.array_equal(found[str(n)], vectors[n]) for n in range(21_000))


@pytest.mark.parametrize("measured", [L2, INNER])
def test_unit_vectors_under_cosine(tmp_path: Path, store: vk.Store, vectors: FloatArray, measured: int) -> None:
    docs = store.adopt(str(saved(tmp_path / "a", "Flat", unit(vectors), metric=measured)), spec("cosine"))
    assert docs.query(vectors[9], k=1)[0].score == pytest.approx(1)


def test_an_index_without_rows(tmp_path: Path, store: vk.Store) -> None:
    for factory in ("Flat", "IDMap,Flat", "HNSW8"):
        index = faiss.index_factory(DIMENSION, factory)
        faiss.write_index(index, str(tmp_path / "a"))
        assert store.adopt(str(tmp_path / "a"), spec()).count() == 0
        store.drop_collection("taken")


def test_a_symlink_and_a_relative_path(
    tmp_path: Path, store: vk.Store, vectors: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "a", "Flat", vectors)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert store.adopt("link", spec()).count() == ROWS


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_a_langchain_folder_is_read_and_its_pickle_never_opened(
    tmp_path: Path, store: vk.Store, vectors: FloatArray
) -> None:
    folder = tmp_path / "langchain"
    folder.mkdir()
    saved(folder / "index.faiss", "Flat", vectors)
    (folder / "index.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    before = (folder / "index.pkl").stat().st_atime_ns
    assert store.adopt(str(folder), spec()).count() == ROWS
    assert not (tmp_path / "sprung").exists()
    assert (folder / "index.pkl").stat().st_atime_ns == before
    pickle.loads((folder / "index.pkl").read_bytes()).close()
    assert (tmp_path / "sprung").exists()  # the trap would have sprung


def test_no_adoption_code_knows_pickle() -> None:
    for module in (files, header, reader, local_adopt):
        assert module.__file__ is not None
        assert not re.search(r"import.*pickle|pickle\.", Path(module.__file__).read_text("utf-8"))


# --------------------------------------------------------------------------------------------- rows beside it


def test_rows_bring_ids_texts_metadata_and_expiry(tmp_path: Path, store: vk.Store, vectors: FloatArray) -> None:
    path = saved(tmp_path / "a", "IVF6,Flat", vectors)
    later = datetime(2100, 1, 1, tzinfo=UTC)
    rows = (
        vk.Record("" if n == 7 else f"doc-{n}", None, f"text {n}", {"n": n}, later if n % 2 else None)
        for n in range(ROWS)
    )
    docs = store.adopt(str(path), spec(fields={"n": int}, expiry=True), rows=rows)
    (found, kept) = docs.get(["doc-8", "7"], vectors=True)
    assert found is not None
    assert kept is not None
    assert (found.text, found.metadata, found.expires_at) == ("text 8", {"n": 8}, None)
    assert (kept.text, kept.expires_at) == ("text 7", later)
    assert np.array_equal(np.asarray(found.vector), vectors[8])
    assert docs.query(vectors[30], k=1, where=F("n") >= 31).ids != ["doc-30"]
    assert docs.keyword("30").ids == ["doc-30"]


@pytest.mark.parametrize("count", [0, ROWS - 1, ROWS + 1])
@pytest.mark.parametrize("lazy", [True, False])
def test_rows_of_another_number(
    tmp_path: Path, store: vk.Store, vectors: FloatArray, count: int, *, lazy: bool
) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)
    rows = [vk.Record(str(n), None) for n in range(count)]
    with refused(store, vk.InvalidArgument, str(ROWS) if not lazy or count > ROWS else f"after {count},"):
        store.adopt(str(path), spec(), rows=iter(rows) if lazy else rows)


@pytest.mark.parametrize(
    ("row", "kind", "mention"),
    [
        (vk.Record("x", [1.0] * DIMENSION), vk.InvalidRecord, "row 70"),
        (vk.Record("x" * 600, None), vk.InvalidRecord, "row 70"),
        (vk.Record("x", None, None, {"n": "one"}), vk.InvalidRecord, "row 70"),
        (vk.Record("x", None, expires_at=datetime.now(UTC)), vk.InvalidRecord, "row 70"),
        (vk.Record("3", None), vk.InvalidRecord, "'3'"),
        ("x", vk.InvalidRecord, "row 70"),
    ],
)
def test_a_bad_row_beside_it(
    tmp_path: Path, store: vk.Store, vectors: FloatArray, row: Any, kind: Any, mention: str
) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)
    rows: list[Any] = [vk.Record(str(n), None) for n in range(ROWS)]
    rows[70] = row
    with refused(store, kind, mention):
        store.adopt(str(path), spec(fields={"n": int}), rows=rows)


@pytest.mark.parametrize("rows", ["rows", {"a": 1}, 5, vk.Record("a", None), vk.Batch(["a"], [[1.0]])])
def test_rows_that_are_none(tmp_path: Path, store: vk.Store, vectors: FloatArray, rows: Any) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)
    with refused(store, vk.InvalidArgument):
        store.adopt(str(path), spec(), rows=rows)


def test_rows_that_raise(tmp_path: Path, store: vk.Store, vectors: FloatArray) -> None:
    def rows() -> Iterator[vk.Record]:
        yield vk.Record("a", None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.adopt(str(saved(tmp_path / "a", "Flat", vectors)), spec(), rows=rows())
    untouched(store)


# --------------------------------------------------------------------------------------------- what does not fit


def test_another_metric(tmp_path: Path, store: vk.Store, vectors: FloatArray) -> None:
    saved(tmp_path / "l2", "Flat", vectors)
    saved(tmp_path / "dot", "IDMap,Flat", vectors, metric=INNER, ids=range(ROWS))
    for name, metric in (("l2", "dot"), ("dot", "l2")):
        with refused(store, vk.SpecMismatch, name, metric):
            store.adopt(str(tmp_path / name), spec(metric))  # type: ignore[arg-type]
        with refused(store, vk.SpecMismatch, "length", "row 0"):
            store.adopt(str(tmp_path / name), spec("cosine"))
    almost = unit(vectors)
    almost[200] *= 1.1
    with refused(store, vk.SpecMismatch, "row 200", "1.1"):
        store.adopt(str(saved(tmp_path / "almost", "Flat", almost)), spec("cosine"))
    canberra = faiss.IndexFlat(DIMENSION, faiss.METRIC_Canberra)
    faiss.write_index(canberra, str(tmp_path / "canberra"))
    with refused(store, vk.Unsupported, "metric 20"):
        store.adopt(str(tmp_path / "canberra"), spec())


def test_another_dimension(tmp_path: Path, store: vk.Store, vectors: FloatArray) -> None:
    with refused(store, vk.DimensionMismatch, "11", "12"):
        store.adopt(str(saved(tmp_path / "a", "Flat", vectors[:, :11])), spec())


@pytest.mark.parametrize("factory", ["Flat", "IDMap,Flat"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_no_numbers(
    tmp_path: Path, store: vk.Store, vectors: FloatArray, factory: str, value: float
) -> None:
    vectors[123, 4] = value
    path = saved(tmp_path / "a", factory, vectors, ids=range(ROWS) if "ID" in factory else None)
    for metric in ("l2", "cosine"):
        with refused(store, vk.InvalidRecord, "row 123"):
            store.adopt(str(path), spec(metric))


def test_a_vector_beyond_float32_when_squared(tmp_path: Path, store: vk.Store, vectors: FloatArray) -> None:
    vectors[123, 4] = 3e38
    docs = store.adopt(str(saved(tmp_path / "a", "Flat", vectors)), spec())
    assert docs.query(vectors[123], k=1).ids == ["123"]


def test_a_zero_vector_under_cosine(tmp_path: Path, store: vk.Store, vectors: FloatArray) -> None:
    some = unit(vectors)
    some[31] = 0
    path = saved(tmp_path / "a", "Flat", some)
    with refused(store, vk.InvalidRecord, "row 31", "zero"):
        store.adopt(str(path), spec("cosine"))
    assert store.adopt(str(path), spec("l2")).count() == ROWS


def test_ids_that_come_twice(tmp_path: Path, store: vk.Store, vectors: FloatArray) -> None:
    for factory in ("IDMap,Flat", "IVF6,Flat"):
        ids = np.arange(ROWS) + 1
        ids[200] = 5
        with refused(store, vk.InvalidRecord, "'5'"):
            store.adopt(str(saved(tmp_path / "a", factory, vectors, ids=ids)), spec())
    many = np.random.default_rng(0).normal(size=(12_000, DIMENSION)).astype(np.float32)
    ids = np.arange(12_000)
    ids[11_000] = 5
    with refused(store, vk.AlreadyExists, "'5'"):
        store.adopt(str(saved(tmp_path / "a", "IDMap,Flat", many, ids=ids)), spec())


@pytest.mark.parametrize("factory", ["SQ8", "SQfp16", "IVF6,SQ8", "HNSW8_SQ8", "RaBitQ", "IDMap,SQ8", "IVF6,PQ6x4fs"])
def test_approximations_are_refused(tmp_path: Path, store: vk.Store, vectors: FloatArray, factory: str) -> None:
    path = saved(tmp_path / "a", factory, vectors, ids=range(ROWS) if "IDMap" in factory else None)
    with refused(store, vk.Unsupported, "approximations", "embed the texts again"):
        store.adopt(str(path), spec())


@pytest.mark.parametrize("factory", ["PCA6,Flat", "L2norm,Flat", "Flat,RFlat", "NSG8"])
def test_other_indexes_are_refused(tmp_path: Path, store: vk.Store, vectors: FloatArray, factory: str) -> None:
    with refused(store, vk.Unsupported, "HNSWFlat"):
        store.adopt(str(saved(tmp_path / "a", factory, vectors)), spec())


def test_a_spec_that_cannot_be(tmp_path: Path, store: vk.Store, vectors: FloatArray) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)
    with refused(store, vk.Unsupported, "tenancy"):
        store.adopt(str(path), spec(tenancy="filter"))
    with refused(store, vk.Unsupported, "pq"):
        store.adopt(str(path), spec(index=vk.HNSW(quantization="pq")))
    with refused(store, vk.InvalidArgument):
        store.adopt(str(path), "taken")  # type: ignore[arg-type]
    for name in ("", "a\0b", 5):
        with refused(store, vk.InvalidArgument):
            store.adopt(name, spec())  # type: ignore[arg-type]


def test_a_collection_that_is_there(tmp_path: Path, store: vk.Store, vectors: FloatArray) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)
    docs = store.create_collection(spec())
    docs.upsert([vk.Record("mine", vectors[0])])
    with pytest.raises(vk.AlreadyExists):
        store.adopt(str(path), spec())
    assert [record.id for record in docs.scan()] == ["mine"]


def test_other_stores_say_who_adopts(tmp_path: Path, vectors: FloatArray) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)
    for url in ("memory://", f"local://{tmp_path}/local"):
        with vk.connect(url) as other:
            assert not other.capability.adopt
            with pytest.raises(vk.Unsupported, match="faiss://"):
                other.adopt(str(path), spec())
            assert other.collections() == []
    with vk.connect(f"faiss://{tmp_path}/kb") as made:
        assert made.capability.adopt
    with (
        vk.connect(f"faiss://{tmp_path}/kb", read_only=True) as reading,
        pytest.raises(vk.Unsupported, match="read_only"),
    ):
        reading.adopt(str(path), spec())
    with pytest.raises(vk.Closed):
        made.adopt(str(path), spec())


def test_the_async_colour(tmp_path: Path, vectors: FloatArray) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)

    async def body() -> None:
        async with await vk.aconnect(f"faiss://{tmp_path}/kb") as opened:
            docs = await opened.adopt(str(path), spec())
            assert await docs.count() == ROWS
            assert (await docs.query(vectors[3], k=1)).ids == ["3"]
            with pytest.raises(vk.NotFound):
                await opened.adopt(str(tmp_path / "nobody"), vk.CollectionSpec("other", DIMENSION))
            with pytest.raises(vk.AlreadyExists):
                await opened.adopt(str(path), spec())
            assert await opened.collections() == ["taken"]

    asyncio.run(body())


# --------------------------------------------------------------------------------------------- paths and damage


def test_paths_that_lead_nowhere(tmp_path: Path, store: vk.Store) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for name in ("nobody", "dangling", "empty/x", "nobody/index.faiss"):
        with refused(store, vk.NotFound, name):
            store.adopt(str(tmp_path / name), spec())
    with refused(store, vk.NotFound, "index.faiss"):
        store.adopt(str(tmp_path / "folder"), spec())
    with refused(store, vk.Corrupt, "empty"):
        store.adopt(str(tmp_path / "empty"), spec())
    with refused(store, vk.VectorkitError):
        store.adopt("x" * 5_000, spec())
    with refused(store, vk.VectorkitError):
        store.adopt("\ud800", spec())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no fifos")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, store: vk.Store) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    with refused(store, vk.InvalidArgument, "regular"):
        store.adopt(str(tmp_path / "fifo"), spec())


@pytest.mark.parametrize("data", [b"\0", b"IxF2", b"garbage" * 100, b"PK\x03\x04" + bytes(100), b"IxFI" + b"\xff" * 80])
def test_garbage(tmp_path: Path, store: vk.Store, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    with refused(store, vk.Corrupt, str(tmp_path / "a")):
        store.adopt(str(tmp_path / "a"), spec())


@pytest.mark.parametrize("count", [2**60, 2**40, -1, -(2**63), ROWS + 50])
def test_a_header_that_claims_too_much_is_refused_before_anything_is_loaded(
    tmp_path: Path, store: vk.Store, vectors: FloatArray, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise AssertionError("a process was started for it")

    monkeypatch.setattr(subprocess, "Popen", nobody)
    for factory in ("Flat", "HNSW8", "IDMap,Flat"):
        path = saved(tmp_path / "a", factory, vectors, ids=range(ROWS) if "ID" in factory else None)
        data = bytearray(path.read_bytes())
        if factory == "HNSW8" and 0 < count < 2 * ROWS:
            continue  # its links leave room for as many
        for start in (0, 37) if "ID" in factory else (0,):
            struct.pack_into("<q", data, start + 8, count)
        path.write_bytes(data)
        with refused(store, vk.Corrupt, "claims"):
            store.adopt(str(path), spec())


def test_a_header_that_hides_rows_is_refused(tmp_path: Path, store: vk.Store, vectors: FloatArray) -> None:
    for factory in ("Flat", "HNSW8", "IVF6,Flat"):
        path = saved(tmp_path / "a", factory, vectors)
        data = bytearray(path.read_bytes())
        struct.pack_into("<q", data, 8, 3)
        path.write_bytes(data)
        with refused(store, vk.Corrupt):
            store.adopt(str(path), spec())


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF6,Flat", "IDMap,Flat"])
def test_a_truncated_file(tmp_path: Path, store: vk.Store, vectors: FloatArray, factory: str) -> None:
    path = saved(tmp_path / "a", factory, vectors, ids=range(ROWS) if "ID" in factory else None)
    whole = path.read_bytes()
    lengths = {1, 3, 4, 7, 36, 37, 44, 45, len(whole) // 2, len(whole) - 900, len(whole) - 1}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        with refused(store, vk.Corrupt, str(path)):
            store.adopt(str(path), spec())


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF6,Flat", pytest.param("IDMap,HNSW8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("share", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 5))])
def test_flipped_bytes(tmp_path: Path, store: vk.Store, factory: str, share: int) -> None:
    """The structure's bytes are flipped as often as the vectors': a typed error and nothing kept, or as many valid rows."""
    vectors = np.random.default_rng(3).normal(size=(40, DIMENSION)).astype(np.float32)
    path = saved(tmp_path / "a", factory, vectors, ids=range(40) if "ID" in factory else None)
    whole = path.read_bytes()
    random = np.random.default_rng([share, len(whole)])
    places = [*random.integers(0, 120, 6), *random.integers(0, len(whole), 4)]
    for place in places:
        data = bytearray(whole)
        data[place] ^= int(random.integers(1, 256))
        path.write_bytes(data)
        try:
            docs = store.adopt(str(path), spec(index=vk.Flat()))
        except vk.VectorkitError:
            untouched(store)
        else:
            found = held(docs)
            assert len(found) == 40
            assert all(np.isfinite(vector).all() for vector in found.values())
            store.drop_collection("taken")


# --------------------------------------------------------------------------------------------- the reading process


@contextmanager
def reader_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Iterator[None]:
    """Another reader instead of ours."""
    (tmp_path / "reader.py").write_text("import os, signal, struct, sys, time, json\n" + body)
    monkeypatch.setattr(reader, "__file__", str(tmp_path / "reader.py"))
    yield


HEAD = "told = json.dumps(dict(dimension=12, rows=250, metric=1, ids=False)).encode()\n"
SEND = "def send(tag, body): os.write(1, tag + struct.pack('<Q', len(body)) + body)\n"


@pytest.mark.parametrize(
    ("body", "mention"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("sys.exit(9)", "code 9"),
        ("sys.exit(0)", "code 0"),
        ("time.sleep(60)", "too long"),
        ("os.close(1); time.sleep(60)", "too long"),
        ("os.write(1, b'B' + b'\\xff' * 8); time.sleep(60)", "too much"),
        ("os.write(1, b'H' + struct.pack('<Q', 4) + b'nope')", "understood"),
        ("os.write(1, b'H' + struct.pack('<Q', 4) + b'null')", "understood"),
        (HEAD + SEND + "send(b'H', told.replace(b'250', b'251'))", "different things"),
        (HEAD + SEND + "send(b'H', told); send(b'B', b'12345'); time.sleep(9)", "half a row"),
        (HEAD + SEND + "send(b'H', told); send(b'B', bytes(48 * 249)); send(b'E', b'')", "249"),
        (HEAD + SEND + "send(b'H', told); send(b'B', bytes(48 * 250)); send(b'B', bytes(48)); send(b'E', b'')", "251"),
        (HEAD + SEND + "send(b'H', told); os.write(1, b'B' + struct.pack('<Q', 480) + bytes(9))", "code 0"),
        (SEND + "send(b'X', json.dumps('no such thing').encode())", "no such thing"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals and writes of their own kind")
def test_a_reader_that_goes_wrong(
    tmp_path: Path, store: vk.Store, vectors: FloatArray, monkeypatch: pytest.MonkeyPatch, body: str, mention: str
) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)
    if "60" in body:
        monkeypatch.setattr(files, "PATIENCE", 1.0)
    with reader_of(tmp_path, monkeypatch, body), refused(store, vk.Corrupt, str(path), mention):
        store.adopt(str(path), spec())


def test_a_reader_that_cannot_start(
    tmp_path: Path, store: vk.Store, vectors: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)
    with reader_of(tmp_path, monkeypatch, "sys.exit(3)"), refused(store, vk.Unavailable, "import faiss"):
        store.adopt(str(path), spec())
    for executable in ("", str(tmp_path / "no-python")):
        monkeypatch.setattr(sys, "executable", executable)
        with refused(store, vk.Unavailable):
            store.adopt(str(path), spec())


def test_the_readers_environment_holds_no_secret(
    tmp_path: Path, store: vk.Store, vectors: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)
    monkeypatch.setenv("VECTORKIT_TEST_KEY", "hunter2")
    body = SEND + "send(b'X', json.dumps(repr(dict(os.environ))).encode())"
    with reader_of(tmp_path, monkeypatch, body):
        with pytest.raises(vk.Corrupt) as caught:
            store.adopt(str(path), spec())
        assert "OMP_NUM_THREADS" in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_this_process_never_loads_the_file(
    tmp_path: Path, store: vk.Store, vectors: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)

    def never(*_: object) -> None:
        raise AssertionError("a stranger's file was loaded here")

    for name in ("read_index", "deserialize_index", "read_index_binary"):
        monkeypatch.setattr(faiss, name, never)
    assert store.adopt(str(path), spec()).count() == ROWS


def test_what_a_crash_leaves_is_swept(tmp_path: Path, vectors: FloatArray) -> None:
    path = saved(tmp_path / "a", "Flat", vectors)
    script = (
        "import os, sys, vectorkit as vk\n"
        "def rows():\n"
        "    yield vk.Record('a', None)\n"
        "    os._exit(7)\n"
        f"vk.connect('faiss://{tmp_path}/kb').adopt({str(path)!r}, "
        f"vk.CollectionSpec('taken', {DIMENSION}, 'l2'), rows=rows())\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 7
    assert list((tmp_path / "kb" / "c").iterdir()) != []
    with vk.connect(f"faiss://{tmp_path}/kb") as store:
        untouched(store)
        assert store.adopt(str(path), spec()).count() == ROWS
