"""`vectorkit adopt`: a FAISS file becomes a collection, or nothing does, and the exit code says which."""

import json
import pickle
from pathlib import Path
from typing import Any

import faiss as _stubbed
import numpy as np
import pytest

import vectorkit as vk

faiss: Any = _stubbed
VECTORS = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """An index of twenty rows in the working directory."""
    write(tmp_path / "old.index", faiss.IndexFlatL2(6))
    return "old.index"


@pytest.fixture
def kb(tmp_path: Path) -> str:
    return f"faiss://{tmp_path}/kb"


def write(path: Path, index: Any, ids: Any = None) -> None:
    index.add(VECTORS) if ids is None else index.add_with_ids(VECTORS, ids)
    faiss.write_index(index, str(path))


def test_dimension_and_metric_come_from_the_file(cli: Any, kb: str, file: str) -> None:
    ran = cli("adopt", "old", file, "-s", kb, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json == {
        "collection": "old", "rows": 20, "dimension": 6, "metric": "l2", "seconds": ran.json["seconds"],
    }  # fmt: skip
    with vk.connect(kb, read_only=True) as store:
        docs = store.collection("old")
        assert (docs.spec.index, docs.spec.embedding) == (vk.HNSW(), None)
        assert docs.query(VECTORS[4], k=1).ids == ["4"]
    write(Path("dot.index"), faiss.IndexFlatIP(6))
    said = cli("adopt", "dot", "dot.index", "-s", kb)
    assert (said.code, said.out) == (0, "")
    assert said.err.startswith("adopted 20 rows as 'dot': 6 numbers, dot, ")


def test_rows_bring_texts_and_metadata(cli: Any, kb: str) -> None:
    write(Path("old.index"), faiss.IndexIDMap2(faiss.IndexFlatL2(6)), np.arange(20) + 100)
    lines = [{"id": f"doc-{n}", "text": f"word{n}", "metadata": {"year": 2000 + n}} for n in range(20)]
    del lines[3]["id"]
    Path("rows.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", "utf-8")
    ran = cli(
        "adopt", "old", "old.index", "-s", kb, "--rows", "rows.jsonl", "--index", "ivf-sq8",
        "--field", "year=int", "--embedding", "all-MiniLM-L6-v2",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert cli("search", "old", "word7", "-s", kb, "--mode", "keyword", "--json").lines[0]["id"] == "doc-7"
    assert cli("count", "old", "-s", kb, "--where", "year >= 2015").out == "5\n"
    assert cli("get", "old", "103", "-s", kb, "--json").json["text"] == "word3"
    with vk.connect(kb, read_only=True) as store:
        spec = store.collection("old").spec
        assert spec.index == vk.IVF(quantization="sq8")
        assert spec.embedding == vk.Embedding("all-MiniLM-L6-v2")


def test_a_langchain_folder(cli: Any, kb: str) -> None:
    Path("lc").mkdir()
    write(Path("lc/index.faiss"), faiss.IndexFlatL2(6))
    Path("lc/index.pkl").write_bytes(pickle.dumps({"never": "opened"}))
    assert cli("adopt", "old", "lc", "-s", kb, "--json").json["rows"] == 20


def test_unit_vectors_may_be_called_cosine(cli: Any, kb: str, file: str) -> None:
    ran = cli("adopt", "old", file, "-s", kb, "--metric", "cosine")
    assert ran.code == 2
    assert "length" in ran.err
    index = faiss.IndexFlatIP(6)
    index.add(VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True))
    faiss.write_index(index, "unit.index")
    assert cli("adopt", "old", "unit.index", "-s", kb, "--metric", "cosine", "--json").json["metric"] == "cosine"


def test_what_goes_wrong_has_a_code_and_leaves_nothing(cli: Any, kb: str, file: str, tmp_path: Path) -> None:
    Path("bad.index").write_bytes(Path(file).read_bytes()[:-7])
    faiss.write_index(faiss.index_factory(6, "SQfp16"), "codes.index")
    Path("few.jsonl").write_text('{"id": "a"}\n', "utf-8")
    Path("broken.jsonl").write_text('{"id": "a"}\n{"id": \n', "utf-8")
    for code, mention, arguments in [
        (3, "nobody", ["nobody"]),
        (6, "bad.index", ["bad.index"]),
        (5, "approximations", ["codes.index"]),
        (2, "dot", [file, "--metric", "dot"]),
        (2, "--metric", [file, "--metric", "manhattan"]),
        (2, "hnsw", [file, "--index", "tree"]),
        (2, "sq9", [file, "--index", "hnsw-sq9"]),
        (2, "flat-sq8", [file, "--index", "flat-sq8"]),
        (5, "sq8", [file, "--index", "hnsw-pq"]),
        (2, "after 1,", [file, "--rows", "few.jsonl"]),
        (2, "broken.jsonl, line 2", [file, "--rows", "broken.jsonl"]),
        (2, "none.jsonl", [file, "--rows", "none.jsonl"]),
    ]:
        ran = cli("adopt", "old", *arguments, "-s", kb)
        assert (ran.code, ran.out) == (code, ""), ran.err
        assert mention in ran.err
        assert len(ran.err.splitlines()) == 1
        assert cli("collections", "-s", kb).out == ""
    assert list((tmp_path / "kb" / "c").iterdir()) == []


def test_a_collection_that_is_there(cli: Any, kb: str, file: str) -> None:
    assert cli("adopt", "old", file, "-s", kb).code == 0
    ran = cli("adopt", "old", file, "-s", kb)
    assert (ran.code, "already" in ran.err) == (2, True)


def test_other_stores_say_the_way(cli: Any, tmp_path: Path, file: str) -> None:
    ran = cli("adopt", "old", file, "-s", f"local://{tmp_path}/db")
    assert ran.code == 5
    assert "faiss://" in ran.err
