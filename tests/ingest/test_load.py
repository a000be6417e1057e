"""The load pipeline: what was written before a fault stays written and is counted, and a fault names its place."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit.ingest.load import Progress, load
from vectorkit.ingest.read import Files
from vectorkit.ingest.rows import Row
from vectorkit.types import FloatArray

EMBEDDER = vk.HashEmbedder(32)


@pytest.fixture(params=["memory", "local", "faiss"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[vk.Store]:
    with vk.connect("memory://" if request.param == "memory" else f"{request.param}://{tmp_path}/db") as handle:
        yield handle


def texts(store: vk.Store, **options: Any) -> vk.Collection:
    return store.create_collection(vk.CollectionSpec("texts", dimension=32, embedding=EMBEDDER.fingerprint, **options))


def vectors(store: vk.Store, **options: Any) -> vk.Collection:
    return store.create_collection(vk.CollectionSpec("vectors", dimension=2, **options))


def rows(count: int, first: int = 0) -> Iterator[vk.Record]:
    return (vk.Record(f"r{i:05}", None, f"text number {i}", {"n": i}) for i in range(first, first + count))


def test_texts_are_embedded_and_vectors_kept(store: vk.Store) -> None:
    docs = texts(store)
    own = np.full(32, 0.5, np.float32)
    assert load(docs, [vk.Record("a", None, "gzip"), vk.Record("b", own, "b")]) == vk.WriteResult(2)
    a, b = docs.get(["a", "b"], vectors=True)
    assert a is not None
    assert b is not None
    assert np.allclose(np.asarray(a.vector), EMBEDDER.embed(["gzip"])[0], rtol=1e-6)
    assert np.allclose(np.asarray(b.vector), own, rtol=1e-6)


def test_progress_counts_what_is_in_the_store(store: vk.Store) -> None:
    docs = texts(store)
    seen: list[tuple[Progress, int]] = []
    result = load(docs, rows(25), batch=10, on_progress=lambda progress: seen.append((progress, docs.count())))
    assert result == vk.WriteResult(25)
    assert seen == [(Progress(10, 10), 10), (Progress(20, 20), 20), (Progress(25, 25), 25)]


def test_nothing_to_load(store: vk.Store) -> None:
    assert load(texts(store), []) == vk.WriteResult(0)


def test_a_generator_is_read_a_batch_ahead_and_no_further(store: vk.Store) -> None:
    docs = texts(store)
    taken = 0

    def endless() -> Iterator[vk.Record]:
        nonlocal taken
        for record in rows(10_000_000):
            taken += 1
            yield record

    ahead: list[int] = []
    load(docs, islice(endless(), 1000), batch=100, on_progress=lambda progress: ahead.append(taken - progress.written))
    assert max(ahead) == 1


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_of_two_rows_with_one_id_the_later_stays_whatever_the_batch(store: vk.Store, batch: int) -> None:
    docs = texts(store)
    given = [vk.Record("a", None, "first"), vk.Record("b", None, "b"), vk.Record("a", None, "second")]
    assert load(docs, given, batch=batch) == vk.WriteResult(3)
    assert docs.count() == 2
    (row,) = docs.get(["a"])
    assert row is not None
    assert row.text == "second"


# --------------------------------------------------------------------------------------------- faults of a row


@pytest.mark.parametrize("batch", [1, 4, 5, 6, 100])
@pytest.mark.parametrize(
    ("bad", "kind", "told"),
    [
        (vk.Record("x", None, None), vk.InvalidRecord, "the row has neither a vector nor a text"),
        (vk.Record("x", [1.0, 2.0], "t"), vk.DimensionMismatch, "the vector has 2 numbers; 'texts' holds 32"),
        (vk.Record("x", [0.0] * 32, "t"), vk.InvalidRecord, "the vector is zero"),
        (vk.Record("x", [float("nan")] * 32, "t"), vk.InvalidRecord, "the vector holds NaN"),
        (vk.Record("x", ["a"] * 32, "t"), vk.InvalidRecord, "the vector holds"),
        (vk.Record("x", None, "t", {"n": "word"}), vk.InvalidRecord, "field 'n' is declared int, got str 'word'"),
        (vk.Record("x", None, "t", {"k": object()}), vk.InvalidRecord, "metadata 'k' is a object"),
        (vk.Record("", None, "t"), vk.InvalidRecord, "id"),
        (vk.Record("x", None, "nul\0"), vk.InvalidRecord, "the text holds a NUL character"),
        ("no record", vk.InvalidRecord, "expected a Record, got str"),
    ],
)
def test_a_bad_row_is_named_and_every_row_before_it_is_written(
    store: vk.Store, batch: int, bad: Any, kind: Any, told: str
) -> None:
    docs = texts(store, fields={"n": int})
    seen: list[Progress] = []
    given = [*rows(5), bad, *rows(5, 5)]
    with pytest.raises(kind) as caught:
        load(docs, given, batch=batch, on_progress=seen.append)
    assert str(caught.value).startswith("row 6: ")
    assert told in str(caught.value)
    assert str(caught.value).endswith("(rows written before it: 5)")
    assert docs.count() == 5
    assert seen[-1].written == 5


def test_a_bad_line_of_a_file_is_named_and_every_line_before_it_is_written(
    store: vk.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    docs = texts(store)
    lines = [f'{{"id": "{i}", "text": "t {i}"}}' for i in range(7)]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "", "{oops", *lines]))
    with pytest.raises(vk.InvalidRecord, match=r"^a\.jsonl, line 9: .*\(rows written before it: 7\)$"):
        load(docs, Files(["a.jsonl"]), batch=5)
    assert docs.count() == 7
    (tmp_path / "b.jsonl").write_text("\n".join([*lines, '{"id": "z", "vector": [1, 2]}']))
    with pytest.raises(vk.DimensionMismatch, match=r"^b\.jsonl, line 8: the vector has 2 numbers") as caught:
        load(docs, Files(["b.jsonl"]))
    assert (caught.value.expected, caught.value.got) == (32, 2)
    assert caught.value.row is None  # the file's line says where; the batch's row would mislead


def test_a_source_that_fails_otherwise_loses_nothing_either(store: vk.Store) -> None:
    docs = texts(store)

    def failing() -> Iterator[vk.Record]:
        yield from rows(3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        load(docs, failing())
    assert docs.count() == 3


def test_ctrl_c_keeps_whole_batches(store: vk.Store) -> None:
    docs = texts(store)

    def interrupted() -> Iterator[vk.Record]:
        yield from rows(7)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(docs, interrupted(), batch=5)
    assert docs.count() == 5


# --------------------------------------------------------------------------------------------- embedders


def test_another_embedder_than_the_collections_is_refused_before_anything_is_read(store: vk.Store) -> None:
    docs = texts(store)
    source = rows(3)
    with pytest.raises(vk.FingerprintMismatch, match=r"vectorkit-hash-32.*vectorkit-hash-64"):
        load(docs, source, embedder=vk.HashEmbedder(64))
    assert len([*source]) == 3
    with pytest.raises(vk.FingerprintMismatch, match="was made without a fingerprint"):
        load(vectors(store), rows(1), embedder=EMBEDDER)


def test_a_text_without_a_vector_needs_a_fingerprint_that_can_be_run(store: vk.Store) -> None:
    bare = vectors(store)
    given = [vk.Record("a", [1, 2]), vk.Record("b", None, "text"), vk.Record("c", [1, 2])]
    with pytest.raises(
        vk.FingerprintMismatch, match=r"^row 2: 'vectors' does not say what makes its vectors.*before it: 1\)$"
    ):
        load(bare, given)
    assert bare.count() == 1
    model = store.create_collection(vk.CollectionSpec("m", dimension=2, embedding=vk.Embedding("a-model")))
    with pytest.raises(vk.Unsupported, match=r"^row 2: the vectors were made by 'a-model'.*before it: 1\)$"):
        load(model, given)
    assert load(model, [given[0], given[2]]) == vk.WriteResult(2)


class Counting:
    """An embedder of the user's own."""

    dimension = 2
    fingerprint = vk.Embedding("mine")

    def __init__(self) -> None:
        self.calls: list[int] = []

    def embed(self, texts: Sequence[str], /) -> FloatArray:
        self.calls.append(len(texts))
        return np.array([[len(text), 1] for text in texts], np.float32)


def test_an_embedder_of_ones_own_gets_whole_batches(store: vk.Store) -> None:
    mine = Counting()
    docs = vectors(store, embedding=mine.fingerprint, metric="l2")
    assert load(docs, rows(25), embedder=mine, batch=10) == vk.WriteResult(25)
    assert mine.calls == [10, 10, 5]
    assert docs.query([len("text number 7"), 1], k=1, where=vk.F("n") == 7)[0].score == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("batch", [0, -1, True, 1.5])
def test_a_batch_that_cannot_be_is_refused(store: vk.Store, batch: int) -> None:
    with pytest.raises(vk.InvalidArgument, match="batch must be an int of at least 1"):
        load(texts(store), [], batch=batch)


# --------------------------------------------------------------------------------------------- a store that fails


class Failing:
    """A collection whose store goes away after some batches."""

    def __init__(self, inner: vk.Collection, good: int, error: vk.VectorkitError) -> None:
        self.inner, self.good, self.error = inner, good, error

    @property
    def spec(self) -> vk.CollectionSpec:
        return self.inner.spec

    def upsert(self, records: vk.Batch, /) -> vk.WriteResult:
        if not self.good:
            raise self.error
        self.good -= 1
        return self.inner.upsert(records)


def test_a_store_that_fails_at_once_says_so_itself(store: vk.Store) -> None:
    error = vk.Unavailable("gone")
    with pytest.raises(vk.Unavailable) as caught:
        load(Failing(texts(store), 0, error), rows(5))
    assert caught.value is error


def test_a_store_that_fails_later_tells_what_was_written(store: vk.Store) -> None:
    docs = texts(store)
    with pytest.raises(vk.PartialFailure, match=r"^10 rows were written before this failed: gone$") as caught:
        load(Failing(docs, 2, vk.Unavailable("gone")), rows(20), batch=5)
    assert caught.value.written == docs.count() == 10
    assert caught.value.failed == ("r00010", "r00011", "r00012", "r00013", "r00014")
    assert isinstance(caught.value.__cause__, vk.Unavailable)


def test_a_partial_failure_of_the_store_is_counted(store: vk.Store) -> None:
    error = vk.PartialFailure("half", written=2, failed=["r00002"])
    with pytest.raises(vk.PartialFailure, match=r"^2 rows were written before this failed: half$") as caught:
        load(Failing(texts(store), 0, error), rows(5))
    assert (caught.value.written, caught.value.failed) == (2, ("r00002",))


def test_rows_know_their_place(store: vk.Store) -> None:
    with pytest.raises(vk.InvalidRecord, match=r"^people\.csv, line 17: the row has neither"):
        load(texts(store), [Row(vk.Record("a", None), "people.csv, line 17")])
