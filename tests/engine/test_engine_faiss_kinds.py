"""Every FAISS index kind under every metric: what it finds, with and without a filter, with few rows, and after a reload.

The index answers from the first row on (`full_scan_threshold=0`); the exact answers come from the engine's own matrix search.
"""

import math
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss as _stubbed
import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.testing.kit import reference
from vectorkit.types import FloatArray, Index, Metric
from vectorkit_faiss.indexes import GraphIndex, InvertedIndex, ladder, make_index
from vectorkit_faiss.kinds import bytes_per_row, check, code_bytes, parts, sized_lists

faiss: Any = _stubbed
METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2")
KINDS: dict[str, Index] = {
    "hnsw": vk.HNSW(full_scan_threshold=0),
    "hnsw-sq8": vk.HNSW(full_scan_threshold=0, quantization="sq8"),
    "hnsw-fp16": vk.HNSW(full_scan_threshold=0, quantization="fp16"),
    "hnsw-rabitq": vk.HNSW(full_scan_threshold=0, quantization="rabitq"),
    "ivf": vk.IVF(full_scan_threshold=0),
    "ivf-sq8": vk.IVF(full_scan_threshold=0, quantization="sq8"),
    "ivf-fp16": vk.IVF(full_scan_threshold=0, quantization="fp16"),
    "ivf-pq": vk.IVF(full_scan_threshold=0, quantization="pq"),
    "ivf-rabitq": vk.IVF(full_scan_threshold=0, quantization="rabitq"),
}
OFFERED = [(kind, metric) for kind in KINDS for metric in METRICS if (kind, metric) != ("hnsw-rabitq", "dot")]
offered = pytest.mark.parametrize(("kind", "metric"), OFFERED)


def clustered(rows: int, dimension: int, seed: int = 1) -> tuple[FloatArray, FloatArray]:
    """Rows around 100 centres, of lengths between a half and two, and 100 queries from the same places."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(100, dimension))
    made = centres[random.integers(0, 100, rows + 100)] + 0.4 * random.normal(size=(rows + 100, dimension))
    made[:rows] *= random.uniform(0.5, 2, size=(rows, 1))
    return made[:rows].astype(np.float32), made[rows:].astype(np.float32)


@contextmanager
def filled(
    path: Path, kind: str | Index, metric: Metric, vectors: FloatArray, *, optimize: bool = True
) -> Iterator[vk.Collection]:
    index = KINDS[kind] if isinstance(kind, str) else kind
    spec = vk.CollectionSpec("a", vectors.shape[1], metric, index, fields={"tenth": int})
    with vk.connect(f"faiss://{path}/kb") as store:
        docs = store.create_collection(spec)
        docs.upsert(vk.Batch([f"{n:05d}" for n in range(len(vectors))], vectors, None, tenths(len(vectors))))
        if optimize:
            docs.optimize()
        yield docs


def tenths(count: int) -> list[dict[str, int] | None]:
    return [{"tenth": n % 10} for n in range(count)]


def recall(found: list[vk.Hits], true: list[vk.Hits]) -> float:
    return float(np.mean([len(set(a.ids) & set(b.ids)) / len(b) for a, b in zip(found, true, strict=True)]))


def check_answers(docs: vk.Collection, vectors: FloatArray, queries: FloatArray, metric: Metric, path: str) -> None:
    """Recall, number, order and scores of the answers, with and without a filter that keeps three tenths."""
    for where in (None, F("tenth") < 3):
        matching = docs.count(where)
        true = docs.query_many(queries, where=where, exact=True)
        found = docs.query_many(queries, where=where)
        assert all(len(hits) == min(10, matching) for hits in found)
        assert all(path in hits.path for hits in found), found[0].path
        assert recall(found, true) >= 0.95
        for query, hits in zip(queries, found, strict=True):
            rows = [int(hit.id) for hit in hits]
            scores = np.array([hit.score for hit in hits])
            assert np.allclose(scores, reference(metric, query, vectors[rows]), rtol=1e-6, atol=1e-6)
            assert (np.diff(scores) <= 1e-6).all()
            assert where is None or all(row % 10 < 3 for row in rows)


@offered
def test_answers_of_every_kind(tmp_path: Path, kind: str, metric: Metric) -> None:
    vectors, queries = clustered(1_000, 24)
    with filled(tmp_path, kind, metric, vectors) as docs:
        assert docs.stats().indexed == 1_000
        check_answers(docs, vectors, queries[:20], metric, kind.partition("-")[0].upper())
        before = docs.query_many(queries)
    with vk.connect(f"faiss://{tmp_path}/kb") as store:  # from the file that was saved
        docs = store.collection("a")
        assert docs.query_many(queries) == before
        assert docs.stats().indexed == 1_000


@pytest.mark.slow
@offered
def test_recall_at_defaults_of_every_kind(tmp_path: Path, kind: str, metric: Metric) -> None:
    vectors, queries = clustered(20_000, 64)
    with filled(tmp_path, kind, metric, vectors) as docs:
        assert docs.stats().indexed == 20_000
        check_answers(docs, vectors, queries, metric, kind.partition("-")[0].upper())


@pytest.mark.parametrize("kind", list(KINDS))
def test_few_rows(tmp_path: Path, kind: str) -> None:
    for count in (1, 2, 3, 50):
        vectors = np.random.default_rng(count).normal(size=(count, 8)).astype(np.float32)
        with filled(tmp_path / str(count), kind, "cosine", vectors) as docs:
            for where in (None, F("tenth") < 3):
                true = docs.query_many(vectors, where=where, exact=True)
                found = docs.query_many(vectors, where=where)
                assert [len(hits) for hits in found] == [min(10, docs.count(where))] * count
                assert recall(found, true) >= 0.95
            docs.upsert([vk.Record("newer", vectors[0])])
            assert "newer" in docs.query(vectors[0], k=2).ids


@offered
def test_an_index_of_few_rows_gives_all_of_them(kind: str, metric: Metric) -> None:
    for count in (1, 2, 3, 17, 50):
        ann = made(kind, metric, rows=count)
        every = ann.search(np.ones((2, 16), np.float32), count, allowed=None, width=10_000)
        if (kind, count) != ("ivf-pq", 1):  # one row leaves product codes nothing to tell apart: the engine goes exact
            assert np.array_equal(np.sort(every), [np.arange(count)] * 2)


@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_that_are_all_the_same(tmp_path: Path, kind: str) -> None:
    vectors = np.ones((300, 8), np.float32)
    with filled(tmp_path, kind, "l2", vectors) as docs:
        hits = docs.query(np.ones(8), k=20)
        assert len(set(hits.ids)) == 20
        assert len({hit.score for hit in hits}) == 1


@pytest.mark.parametrize("kind", ["ivf", "ivf-pq"])
def test_probes_take_effect(tmp_path: Path, kind: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(3_000, 32)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(30, 32)).astype(np.float32)
    with filled(tmp_path, kind, "l2", vectors) as docs:
        true = docs.query_many(queries, exact=True)
        one, every = (recall(docs.query_many(queries, probes=probes), true) for probes in (1, 10_000))
        assert one < 0.6
        assert every > 0.95
        assert docs.query_many(queries, ef_search=1) == docs.query_many(queries)


def test_ef_search_takes_effect(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(2_000, 32)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(30, 32)).astype(np.float32)
    index = vk.HNSW(m=4, ef_construction=20, full_scan_threshold=0)
    with filled(tmp_path, index, "l2", vectors) as docs:
        true = docs.query_many(queries, exact=True)
        narrow, wide = (recall(docs.query_many(queries, ef_search=width), true) for width in (1, 2_000))
        assert narrow < wide
        assert docs.query_many(queries, probes=1) == docs.query_many(queries)


def test_probes_of_the_spec_are_the_default(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(3_000, 32)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(30, 32)).astype(np.float32)
    with filled(tmp_path, vk.IVF(lists=50, probes=3, full_scan_threshold=0), "l2", vectors) as docs:
        assert docs.query_many(queries) == docs.query_many(queries, probes=3)
        assert docs.query_many(queries) != docs.query_many(queries, probes=50)


def test_an_index_that_finds_too_little_is_not_used(tmp_path: Path) -> None:
    """Half precision cannot hold numbers beyond 65,504: codes of infinity find nothing, so the answers are exact."""
    vectors = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32) * np.float32(1e6)
    with filled(tmp_path, "ivf-fp16", "l2", vectors) as docs:
        assert docs.stats().indexed == 0
        assert docs.query(vectors[7], k=1).ids == ["00007"]


@pytest.mark.parametrize("dimension", [1, 2, 3, 37])
def test_dimensions_that_codes_do_not_divide(tmp_path: Path, dimension: int) -> None:
    vectors, queries = clustered(300, dimension)
    with filled(tmp_path, "ivf-pq", "l2", vectors) as docs:
        assert recall(docs.query_many(queries), docs.query_many(queries, exact=True)) >= 0.95
    with vk.connect(f"faiss://{tmp_path}/kb") as store:
        docs = store.collection("a")
        assert docs.stats().indexed in {0, 300}
        assert docs.query(vectors[5], k=1).ids == ["00005"]


# --------------------------------------------------------------------------------------------- the protocol


def made(kind: str | Index, metric: Metric = "cosine", dimension: int = 16, rows: int = 1_000) -> Any:
    index = KINDS[kind] if isinstance(kind, str) else kind
    ann = make_index(vk.CollectionSpec("a", dimension, metric, index))
    assert ann is not None
    vectors = np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float32)
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ann.build(vectors[: ann.training], rows)
    ann.add(vectors)
    return ann


@offered
def test_a_saved_index_is_known_again(tmp_path: Path, kind: str, metric: Metric) -> None:
    saved = made(kind, metric)
    saved.save(tmp_path / "index")
    queries = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    allowed = np.arange(1_000) % 2 == 0
    fresh = make_index(vk.CollectionSpec("a", 16, metric, KINDS[kind]))
    assert fresh is not None
    fresh.load(tmp_path / "index")
    assert (fresh.size(), fresh.kind, tuple(fresh.widths)) == (1_000, saved.kind, tuple(saved.widths))
    for mask in (None, allowed):
        for width in (1, 64):
            one = saved.search(queries, 10, allowed=mask, width=width)
            assert np.array_equal(one, fresh.search(queries, 10, allowed=mask, width=width))
            assert mask is None or mask[one[one >= 0]].all()


def test_every_kind_has_a_name_of_its_own() -> None:
    names = [(made(kind, rows=50).kind, kind) for kind in KINDS]
    assert len({name for name, _ in names}) == len(KINDS)


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_index_of_another_kind_is_refused(tmp_path: Path, kind: str) -> None:
    for other in KINDS:
        made(other, rows=100).save(tmp_path / other)
    for other, (metric, dimension) in [
        *((other, ("cosine", 16)) for other in KINDS if other != kind),
        (kind, ("l2", 16)),
        (kind, ("cosine", 17)),
    ]:
        if "rabitq" in kind and metric == "l2":  # both are L2 to FAISS; the engine's manifest tells them apart
            continue
        spec = vk.CollectionSpec("a", dimension, metric, KINDS[kind])  # type: ignore[arg-type]
        ann = make_index(spec)
        assert ann is not None
        with pytest.raises(RuntimeError):
            ann.load(tmp_path / other)
    (tmp_path / "garbage").write_bytes(b"IwFl" + bytes(200))
    for missing in ("garbage", "nobody"):
        ann = make_index(vk.CollectionSpec("a", 16, index=KINDS[kind]))
        assert ann is not None
        with pytest.raises(RuntimeError):
            ann.load(tmp_path / missing)


def test_what_faiss_raises_is_a_runtime_error() -> None:
    ann = made("ivf")
    with pytest.raises(RuntimeError):
        ann.search(np.ones((1, 3), np.float32), 1, allowed=None, width=1)
    with pytest.raises(RuntimeError):
        ann.add(np.ones((1, 3), np.float32))
    with pytest.raises(RuntimeError):
        ann.save(Path("/nobody/here"))


def test_a_build_is_the_same_each_time(tmp_path: Path) -> None:
    for kind in ("ivf", "ivf-pq", "ivf-rabitq", "ivf-sq8"):
        for name in ("one", "two"):
            made(kind).save(tmp_path / name)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes(), kind


def test_building_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for kind in KINDS:
        for rows in (1, 17, 300):
            made(kind, rows=rows)
    assert capfd.readouterr() == ("", "")


def test_threads_are_put_back() -> None:
    ann = made("ivf")
    threads = faiss.omp_get_max_threads()
    query = np.ones((1, 16), np.float32)
    workers = [
        threading.Thread(target=lambda: [ann.search(query, 5, allowed=None, width=4) for _ in range(200)])
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert faiss.omp_get_max_threads() == threads


@pytest.mark.parametrize(
    ("index", "dimension", "metric", "way_out"),
    [
        (vk.HNSW(quantization="pq"), 64, "cosine", "sq8"),
        (vk.HNSW(quantization="rabitq"), 64, "dot", "sq8"),
    ],
)
def test_what_does_not_earn_its_place_is_refused(index: Index, dimension: int, metric: Metric, way_out: str) -> None:
    with pytest.raises(vk.Unsupported, match=way_out):
        check(vk.CollectionSpec("a", dimension, metric, index))


def test_refused_kinds_leave_no_collection(tmp_path: Path) -> None:
    with closing(vk.connect(f"faiss://{tmp_path}")) as store:
        with pytest.raises(vk.Unsupported):
            store.create_collection(vk.CollectionSpec("a", 8, index=vk.HNSW(quantization="pq")))
        assert store.collections() == []
        assert store.capability.indexes == {"flat", "hnsw", "ivf"}


# --------------------------------------------------------------------------------------------- sizes


def test_lists_fit_the_rows() -> None:
    assert [sized_lists(count) for count in (0, 1, 2, 59, 60, 1_000, 20_000)] == [1, 1, 1, 1, 2, 33, 566]
    assert sized_lists(10**7) == 12_649
    for count in (1, 2, 31, 999, 10**5, 10**8):
        assert sized_lists(count) == 1 or count / sized_lists(count) >= 30


def test_the_ladder_of_probes_ends_with_all_lists() -> None:
    assert ladder(1) == (1,)
    assert ladder(2) == (1, 2)
    assert ladder(20) == (1, 2, 3, 4, 6, 8, 12, 16, 20)
    for lists in range(1, 200):
        steps = ladder(lists)
        assert list(steps) == sorted(set(steps))
        assert (steps[0], steps[-1]) == (1, lists)
        assert all(b <= 2 * a for a, b in pairwise(steps))


def test_product_codes_cut_a_vector_evenly() -> None:
    assert [parts(dimension) for dimension in (1, 2, 9, 64, 1_536)] == [1, 1, 5, 32, 768]


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_formula_of_a_code_is_what_faiss_takes(kind: str) -> None:
    for dimension in (16, 31, 96):
        ann = made(kind, rows=50, dimension=dimension)
        assert isinstance(ann, GraphIndex | InvertedIndex)
        holder = faiss.downcast_index(ann._index.storage) if isinstance(ann, GraphIndex) else ann._index
        codes = getattr(KINDS[kind], "quantization", None)
        assert holder.code_size == code_bytes(codes, dimension, ann.bits)


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_formula_of_a_row_is_what_an_index_weighs(tmp_path: Path, kind: str) -> None:
    rows, dimension = 4_000, 64  # few lists: product codes lie in blocks of 32 rows, so each list wastes half of one
    ann = make_index(vk.CollectionSpec("a", dimension, index=_with_few_lists(KINDS[kind])))
    assert ann is not None
    vectors = np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float32)
    ann.build(vectors, rows)
    ann.add(vectors)
    ann.save(tmp_path / "index")
    weight = (tmp_path / "index").stat().st_size
    if isinstance(ann, InvertedIndex):
        weight -= 4 * dimension * len(ann._index.quantizer.reconstruct_n(0, ann._index.nlist))  # the centroids
    assert math.isclose(weight / rows, bytes_per_row(KINDS[kind], dimension), rel_tol=0.06)


def _with_few_lists(index: Index) -> Index:
    return replace(index, lists=4) if isinstance(index, vk.IVF) else index


def test_ten_million_rows_fit() -> None:
    graph = replace(vk.HNSW(), quantization="sq8")
    assert 10**7 * bytes_per_row(graph, 1_536) < 17e9
    assert 10**7 * bytes_per_row(vk.HNSW(), 1_536) > 60e9
    assert bytes_per_row(vk.Flat(), 1_536) == 0


def test_the_table_of_sizes_is_the_formula() -> None:
    """docs/scale-embedded.md: bytes a row and gigabytes of ten million rows of 1,536, and what was measured beside them."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "scale-embedded.md").read_text("utf-8")
    table = re.findall(
        r"^\| `(\w+)\((?:quantization=\"(\w+)\")?\)` \| ([\d,]+) \| ([\d.]+) \| ([\d,]+) \|", text, re.MULTILINE
    )
    assert len(table) == len(KINDS)
    for kind, codes, each, total, measured in table:
        asked: Any = codes or None
        index = vk.HNSW(quantization=asked) if kind == "HNSW" else vk.IVF(quantization=asked)
        row = bytes_per_row(index, 1_536)
        assert (each, total) == (f"{row:,.0f}", f"{row / 100:.1f}")
        if codes != "pq":  # in blocks of 32 rows, which 20,000 do not fill
            assert math.isclose(float(measured.replace(",", "")), row, rel_tol=0.01)
