"""Adopting what LangChain, LlamaIndex and the bare client wrote: whole or not at all, and the original is left as it was.

The shapes are those of langchain_chroma's `Chroma.add_texts` (langchain-ai/langchain, libs/partners/chroma/langchain_chroma/
vectorstores.py) and of LlamaIndex's `ChromaVectorStore.add` (run-llama/llama_index, llama-index-vector-stores-chroma, base.py).
"""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.testing.kit import ids_of, raises

Made = tuple[vk.Store, Any]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[vk.Store]:
    opened = vk.connect(f"chroma://{tmp_path}/store")
    yield opened
    opened.close()


def bare(store: vk.Store, name: str, **options: Any) -> Any:
    """A collection as the bare client makes it."""
    from chromadb.api.models.Collection import Collection

    api = store.native
    return Collection(client=api, model=api.create_collection(name, **options), embedding_function=None)


def names(store: vk.Store) -> list[str]:
    return sorted(model.name for model in store.native.list_collections())


VECTORS = np.random.default_rng(1).normal(size=(1_203, 8)).astype(np.float32)


def test_langchain(store: vk.Store) -> None:
    source = bare(store, "langchain")
    ids = [str(uuid.UUID(int=n)) for n in range(len(VECTORS))]
    metadata = [{"source": f"file{n % 7}.txt", "page": n, "score": n / 2, "draft": n % 2 == 0} for n in range(len(ids))]
    source.upsert(
        metadatas=metadata,
        embeddings=VECTORS.tolist(),
        documents=[f"text of page{n}" for n in range(len(ids))],
        ids=ids,
    )
    docs = store.adopt("langchain", vk.CollectionSpec("kb", 8, metric="l2", fields={"page": int}))
    assert docs.count() == 1_203
    records = docs.get([ids[5], ids[1_202]], vectors=True)
    for n, record in zip((5, 1_202), records, strict=True):
        assert record is not None
        assert record.text == f"text of page{n}"
        assert record.metadata == metadata[n]
        assert record.vector == pytest.approx(VECTORS[n])
    hits = docs.query(VECTORS[9], k=3, where=F("page") >= 9)
    assert hits[0].id == ids[9]
    assert hits[0].score == pytest.approx(0, abs=1e-5)
    assert docs.count(F("draft") == True) == 602  # noqa: E712
    assert ids_of(docs.keyword("page77")) == [ids[77]]
    assert store.collections() == ["kb"]
    assert source.count() == 1_203
    with raises(vk.AlreadyExists, "kb"):
        store.adopt("langchain", vk.CollectionSpec("kb", 8, metric="l2"))
    assert names(store) == ["kb-g1", "langchain"]
    store.drop_collection("kb")
    again = store.adopt("langchain", vk.CollectionSpec("langchain", 8, metric="l2"))
    assert again.count() == 1_203


def test_llama_index(store: vk.Store) -> None:
    source = bare(store, "quickstart", configuration={"hnsw": {"space": "cosine"}})
    nodes = []
    for n in range(20):
        node = {
            "id_": f"node-{n}",
            "embedding": None,
            "metadata": {"file_name": "a.md"},
            "text": "",
            "class_name": "TextNode",
        }
        nodes.append({
            "file_name": "a.md", "_node_content": json.dumps(node), "_node_type": "TextNode", "document_id": "doc", "doc_id": "doc",
            "ref_doc_id": "doc",
        })  # fmt: skip
    source.add(
        embeddings=VECTORS[:20].tolist(),
        ids=[f"node-{n}" for n in range(20)],
        metadatas=nodes,
        documents=[f"node {n}" for n in range(20)],
    )
    docs = store.adopt("quickstart", vk.CollectionSpec("nodes", 8, fields={"ref_doc_id": str}))
    (record,) = docs.get(["node-7"])
    assert record is not None
    assert record.text == "node 7"
    assert json.loads(record.metadata["_node_content"])["id_"] == "node-7"
    assert docs.count(F("ref_doc_id") == "doc") == 20
    assert docs.query(VECTORS[7], k=1)[0].id == "node-7"


def test_the_bare_client(store: vk.Store) -> None:
    source = bare(store, "bare", metadata={"hnsw:space": "ip", "mine": 1})
    source.add(
        ids=["a", "b", "c"],
        embeddings=VECTORS[:3].tolist(),
        documents=["x", None, ""],
        metadatas=[None, {"l": ["p", "q"]}, None],
    )
    docs = store.adopt("bare", vk.CollectionSpec("bare", 8, metric="dot"))
    assert {record.id: (record.text, record.metadata) for record in docs.scan()} == {
        "a": ("x", {}),
        "b": (None, {"l": ["p", "q"]}),
        "c": ("", {}),
    }
    bare(store, "empty")
    assert store.adopt("empty", vk.CollectionSpec("empty", 8, metric="l2")).count() == 0


def test_whole_or_not_at_all(store: vk.Store) -> None:
    source = bare(store, "odd")
    fine = [{"n": n} for n in range(1_100)]
    source.add(ids=[f"r{n:05d}" for n in range(1_100)], embeddings=VECTORS[:1_100].tolist(), metadatas=fine)
    spec = vk.CollectionSpec("kb", 8, metric="l2", fields={"n": int})
    for row, change, field in (
        (1_050, {"n": "a string"}, "n"),
        (1_099, {"_vk_x": 1}, "_vk_x"),
        (1_099, {"nul": "a\0"}, "nul"),
    ):
        source.update(ids=["r01050"], metadatas=[change])
        with raises(vk.InvalidRecord, "r01050", row=row, field=field):
            store.adopt("odd", spec)
        assert (store.collections(), names(store)) == ([], ["odd"])
        source.delete(ids=["r01050"])
        source.add(ids=["r01050"], embeddings=VECTORS[:1].tolist(), metadatas=[{"n": 5}])  # it is now the last
    assert store.adopt("odd", spec).count() == 1_100


def test_what_does_not_fit_is_refused(store: vk.Store) -> None:
    bare(store, "source").add(ids=["a"], embeddings=VECTORS[:1].tolist(), metadatas=[{"n": 1}])
    with raises(vk.NotFound, "nowhere"):
        store.adopt("nowhere", vk.CollectionSpec("kb", 8))
    with raises(vk.DimensionMismatch, "source", expected=4, got=8):
        store.adopt("source", vk.CollectionSpec("kb", 4, metric="l2"))
    with raises(vk.SpecMismatch, "l2", differences={"metric": ("l2", "cosine")}):
        store.adopt("source", vk.CollectionSpec("kb", 8))
    with raises(vk.InvalidArgument, "rows"):
        store.adopt("source", vk.CollectionSpec("kb", 8, metric="l2"), rows=[vk.Record("a", None)])
    store.create_collection(vk.CollectionSpec("ours", 8))
    with raises(vk.InvalidArgument, "own"):
        store.adopt("ours-g1", vk.CollectionSpec("kb", 8))
    bare(store, "zero", configuration={"hnsw": {"space": "cosine"}}).add(ids=["z"], embeddings=[[0.0] * 8])
    with raises(vk.InvalidRecord, "zero", row=0, field="vector"):
        store.adopt("zero", vk.CollectionSpec("kb", 8))
    assert store.collections() == ["ours"]
