"""What is Chroma's own: a search that `ef_search=` widens, exact search up to a limit, requests per verb, what it takes for sure.

Each of these is a promise of docs/layout.md or of the options, measured on the client's calls.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from integration.chroma_kit import numbered
from vectorkit import F
from vectorkit.testing.kit import ids_of, raises, reference

EAST = [1.0, 0, 0, 0, 0, 0, 0, 0]


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"chroma://{tmp_path}/store"


@pytest.fixture
def store(place: str) -> Iterator[vk.Store]:
    opened = vk.connect(place)
    yield opened
    opened.close()


def test_ef_search_takes_effect(place: str) -> None:
    """On data that a narrow search fails on, a wider one finds more, and wide enough nearly all."""
    store = vk.connect({"url": place, "ef_search": 10})
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(4_000, 64)).astype(np.float32)
    docs = store.create_collection(vk.CollectionSpec("docs", 64, index=vk.HNSW(m=8, ef_construction=40)))
    docs.upsert(vk.Batch([str(n) for n in range(4_000)], vectors))
    queries = rng.normal(size=(25, 64)).astype(np.float32)
    true = [set(np.argsort(-reference("cosine", query, vectors))[:10].tolist()) for query in queries]

    def recall(**options: Any) -> float:
        found = docs.query_many(queries, k=10, **options)
        assert all(len(hits) == 10 for hits in found)
        return sum(len(best & {int(hit.id) for hit in hits}) for best, hits in zip(true, found, strict=True)) / 250

    narrow, wider, widest = recall(), recall(ef_search=100), recall(ef_search=1_000)
    assert narrow < 0.6
    assert narrow + 0.15 < wider
    assert wider < widest
    assert widest > 0.97
    assert recall(exact=True) == 1.0
    assert "1000 candidates" in docs.explain(queries[0], ef_search=1_000).path
    store.close()


def test_exact_reads_up_to_its_limit(place: str) -> None:
    store = vk.connect({"url": place, "exact_limit": 100})
    docs = store.create_collection(vk.CollectionSpec("docs", 8, fields={"n": int}))
    docs.upsert(numbered(0, 300))
    with raises(vk.Unsupported, "chroma", "300 rows", "exact_limit=100"):
        docs.query(EAST, exact=True)
    assert len(docs.query(EAST, exact=True, where=F("n") < 100)) == 10
    assert len(docs.query(EAST, k=300)) == 300
    assert docs.query(EAST, k=301).coverage == "exact"
    store.close()


def test_quantisation_is_refused_and_other_kinds_are_advice(store: vk.Store) -> None:
    with raises(vk.Unsupported, "chroma", "sq8"):
        store.create_collection(vk.CollectionSpec("docs", 8, index=vk.HNSW(quantization="sq8")))
    assert store.collections() == []
    assert store.create_collection(vk.CollectionSpec("flat", 8, index=vk.Flat())).stats().index == "hnsw"


def test_a_collection_is_made_as_asked(store: vk.Store) -> None:
    spec = vk.CollectionSpec("docs", 8, metric="dot", index=vk.HNSW(m=24, ef_construction=77))
    store.create_collection(spec)
    (model,) = store.native.list_collections()
    assert model.name == "docs-g1"
    made = model.configuration_json["hnsw"]
    assert (made["space"], made["max_neighbors"], made["ef_construction"], made["ef_search"]) == ("ip", 24, 77, 256)
    labels = model.metadata
    assert (labels["_vk_layout"], labels["_vk_physical"], labels["_vk_state"]) == (1, "docs@1", "published")
    assert '"generation":1' in labels["_vk_spec"]


def test_requests_of_each_verb(store: vk.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One round trip where Chroma allows it: no verb asks for more than the layout says."""
    docs = store.create_collection(vk.CollectionSpec("docs", 8, fields={"n": int}))
    docs.upsert(numbered(0, 200))
    api = store.native
    asked: Counter[str] = Counter()

    def counting(verb: str) -> Any:
        inner = getattr(api, verb)

        def counted(*args: Any, **arguments: Any) -> Any:
            asked[verb] += 1
            return inner(*args, **arguments)

        return counted

    for verb in (
        "_get",
        "_query",
        "_upsert",
        "_update",
        "_delete",
        "_count",
        "_add",
        "list_collections",
        "get_collection",
    ):
        monkeypatch.setattr(api, verb, counting(verb))

    def cost(act: Any) -> dict[str, int]:
        asked.clear()
        act()
        return dict(asked)

    assert cost(lambda: docs.upsert(numbered(0, 100))) == {"_upsert": 1}
    assert cost(lambda: docs.insert(numbered(500, 600))) == {"_get": 1, "_upsert": 1}
    assert cost(lambda: docs.query(EAST)) == {"_query": 1}
    assert cost(lambda: docs.query_many([EAST] * 50)) == {"_query": 1}
    assert cost(lambda: docs.query(EAST, where=F("n") < 50)) == {"_query": 1}
    assert cost(lambda: docs.query(EAST, ef_search=100)) == {"_query": 1, "_get": 1}
    assert docs.query(EAST, ef_search=100, vectors=True) == docs.query(EAST, vectors=True)
    assert cost(lambda: docs.query(EAST, where=F("n") == 3)) == {"_query": 1, "_get": 1}
    assert cost(lambda: docs.get([f"r{n:06d}" for n in range(100)])) == {"_get": 1}
    assert cost(docs.count) == {"_count": 1}
    assert cost(lambda: docs.count(F("n") < 50)) == {"_get": 1}
    assert cost(lambda: docs.update(ids=["r000001"], set={"x": 1})) == {"_get": 1, "_update": 1}
    assert cost(lambda: docs.keyword("common")) == {"_get": 1}
    assert cost(lambda: list(docs.scan())) == {"_get": 2}
    assert cost(lambda: docs.delete(ids=["r000001"])) == {"_get": 1, "_delete": 1}


def test_expiry_costs_nothing_while_nothing_expires(place: str) -> None:
    """Without a filter the rows are checked instead of a clause that every row satisfies."""
    store = vk.connect(place)
    docs = store.create_collection(vk.CollectionSpec("docs", 8, expiry=True))
    docs.upsert(numbered(0, 100))
    assert "filtered" not in docs.explain(EAST, k=5).path
    assert len(docs.query(EAST, k=100)) == 100
    docs.upsert(numbered(0, 90), ttl=0.05)
    while docs.count() > 10:
        pass
    told = docs.explain(EAST, k=5)
    assert "filtered" in told.path
    assert ids_of(docs.query(EAST, k=90)) == ids_of(docs.query(EAST, k=10, exact=True))
    store.close()


def test_scores_of_many_dimensions_are_measured_again(store: vk.Store) -> None:
    """Chroma's float32 is off by more than 1e-5 on 3,000 equal numbers."""
    for metric in ("cosine", "dot", "l2"):
        docs = store.create_collection(vk.CollectionSpec(metric, 3_000, metric=metric))
        rng = np.random.default_rng(2)
        vectors = np.vstack([np.ones((1, 3_000)), rng.uniform(0.5, 1, size=(20, 3_000))]).astype(np.float32)
        docs.upsert(vk.Batch([str(n) for n in range(21)], vectors))
        for query, width in ((vectors[0], None), (vectors[3] * 3, None), (vectors[0], 500)):
            expected = reference(metric, query, vectors)
            for hit in docs.query(query, k=21, ef_search=width):
                assert hit.score == pytest.approx(expected[int(hit.id)], rel=1e-9, abs=1e-6)


def test_the_side_cars_answers_are_the_embedded_engines(place: str, tmp_path: Path) -> None:
    texts = [f"common word{n % 7} {'rare ' * (n % 3)} filler{n}" for n in range(200)]
    records = [replace(record, text=text) for record, text in zip(numbered(0, 200), texts, strict=True)]
    stores = [vk.connect(place), vk.connect(f"local://{tmp_path}/local")]
    both = [store.create_collection(vk.CollectionSpec("docs", 8, fields={"n": int})) for store in stores]
    for docs in both:
        docs.upsert(records)
        docs.delete(where=F("n") < 20)
        docs.upsert(records[10:15])
    for words in ("common", "rare word3", "filler150 rare", "filler12", "absent"):
        for where in (None, F("n") > 150, F("n").in_([12, 77, 199])):
            ours, theirs = [docs.keyword(words, k=15, where=where) for docs in both]
            assert ids_of(ours) == ids_of(theirs)
            assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], rel=1e-9)
    for store in stores:
        store.close()


def test_what_others_keep_there_is_left_alone(store: vk.Store) -> None:
    """Names that somebody else took, and specs that this version cannot read, stand in nobody else's way."""
    api = store.native
    api.create_collection("docs-g1", metadata={"mine": 1})
    api.create_collection(
        "newer-g1", metadata={"_vk_layout": 2, "_vk_physical": "newer@1", "_vk_spec": "{}", "_vk_state": "published"}
    )
    api.create_collection(
        "broken-g1", metadata={"_vk_layout": 1, "_vk_physical": "broken@1", "_vk_spec": "{", "_vk_state": "published"}
    )
    api.create_collection("odd-g1", metadata={"_vk_physical": 7})
    docs = store.ensure_collection(vk.CollectionSpec("docs", 8))
    assert docs.spec.generation == 2
    docs.upsert(numbered(0, 3))
    assert docs.count() == 3
    assert store.collections() == ["broken", "docs", "newer"]
    with raises(vk.Unsupported, "layout 2"):
        store.collection("newer")
    with raises(vk.Corrupt, "broken@1"):
        store.collection("broken")
    store.drop_collection("broken")
    store.drop_collection("docs")
    assert sorted(model.name for model in api.list_collections()) == ["docs-g1", "newer-g1", "odd-g1", "vk-control"]
