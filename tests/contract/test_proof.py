"""Two thousand rows and three hundred questions on every store that runs in this process; integration/ asks servers the same."""

import dataclasses
import importlib.util
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit.testing import proof
from vectorkit.types import Metric

_GRAPH = vk.HNSW(m=16, ef_construction=100, full_scan_threshold=0)
STORES: dict[str, tuple[str, Any]] = {
    "memory": ("memory://", vk.Flat()),
    "local": ("local://{}", vk.Flat()),
    "faiss": ("faiss://{}", vk.Flat()),
    "faiss-hnsw": ("faiss://{}", _GRAPH),
    "hnswlib": ("hnswlib://{}", _GRAPH),
}


FAST = [("memory", "dot"), ("local", "cosine"), ("faiss-hnsw", "l2")]


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        pytest.param(name, metric, marks=() if (name, metric) in FAST else pytest.mark.slow)
        for name in STORES
        for metric in proof.METRICS
    ],
)
def test_every_store_gives_the_answers_that_the_definitions_give(name: str, metric: Metric, tmp_path: Path) -> None:
    url, index = STORES[name]
    if name == "hnswlib" and importlib.util.find_spec("hnswlib") is None:
        pytest.skip("hnswlib is not installed; tests/conftest.py says why")
    with vk.connect(url.format(tmp_path)) as store:
        report = proof.prove(proof.load(store, index, metric), metric)
    assert not report.wrong, "\n".join([str(report), *report.wrong[:10]])
    assert report.queries == 200
    if isinstance(index, vk.Flat):
        assert report.exact == 200
    else:
        assert float(np.mean(report.recall)) >= proof.RECALL


def test_the_questions_are_no_formality() -> None:
    """Most filters keep some rows and leave some; ties, twins and both kinds of fields are there."""
    asked = proof.questions()
    assert len(asked) == 300
    filtered = [question for question in asked if question.where is not None]
    assert len(filtered) == 198
    assert sum(0 < len(question.kept) < proof.ROWS for question in filtered) >= 150
    assert sum(proof.ROWS // 100 < len(question.kept) < proof.ROWS * 0.9 for question in filtered) >= 80
    assert {question.k for question in asked} >= {1, 2, 49, 50}
    assert sum(question.vectors for question in asked) >= 40
    ids = [record.id for record in proof.rows()]
    assert len(set(ids)) == proof.ROWS
    kinds = {type(record.metadata.get("u")) for record in proof.rows()}
    assert kinds == {type(None), str, bool, int, float, datetime, list, dict}
    vectors = {tuple(map(float, record.vector)) for record in proof.rows()}  # type: ignore[arg-type]
    assert len(vectors) < proof.ROWS - 150


@pytest.mark.parametrize(
    "wrong",
    [
        "a row less",
        "two rows changed places",
        "an int for a float",
        "a score",
        "another row",
        "a text",
        "an order of twins",
    ],
)
def test_a_wrong_answer_is_seen(wrong: str) -> None:
    number = {record.id: n for n, record in enumerate(proof.rows())}
    with vk.connect("memory://") as store:
        docs = proof.load(store, vk.Flat(), "cosine")
        found = 0
        for question in [question for question in proof.questions() if question.metric == "cosine"][:60]:
            hits = docs.query(question.vector, k=question.k, where=question.where, vectors=question.vectors, exact=True)
            assert not list(proof.differences(question, hits, exact=True))
            spoilt = _spoil(wrong, question, list(hits), number)
            if spoilt is not None:
                found += 1
                assert list(proof.differences(question, vk.Hits(spoilt), exact=True)), (wrong, str(question.where))
        assert found > (0 if wrong == "an order of twins" else 10)


def _spoil(wrong: str, question: proof.Question, hits: list[vk.Hit], number: dict[str, int]) -> list[vk.Hit] | None:
    """The answer with one mistake in it; None where this answer cannot have it."""
    if not hits:
        return None
    first = hits[0]
    twins = [at for at in range(len(hits) - 1) if hits[at].score == hits[at + 1].score]
    match wrong:
        case "a row less":
            return hits[:-1]
        case "two rows changed places" if len(hits) > 1 and hits[0].score - hits[-1].score > 0.01:
            return [hits[-1], *hits[1:-1], first]
        case "an int for a float":
            for at, hit in enumerate(hits):
                if (f := hit.metadata.get("f")) in {1, 2, 0}:
                    other = int(f) if isinstance(f, float) else float(f)
                    changed = dataclasses.replace(hit, metadata={**hit.metadata, "f": other})
                    return [*hits[:at], changed, *hits[at + 1 :]]
        case "a score":
            return [dataclasses.replace(first, score=first.score + 0.01), *hits[1:]]
        case "another row" if len(question.kept) > len(hits):
            worse = proof.rows()[question.kept[-1]]
            last = hits[-1]
            score = float(question.scores[number[worse.id]])
            vector = np.asarray(worse.vector, np.float32) if question.vectors else None
            changed = vk.Hit(worse.id, score, worse.text, worse.metadata, vector)
            return [*hits[:-1], changed] if last.score - score > 0.01 else None
        case "a text":
            return [dataclasses.replace(first, text=None if first.text is not None else ""), *hits[1:]]
        case "an order of twins" if twins:
            at = twins[0]
            return [*hits[:at], hits[at + 1], hits[at], *hits[at + 2 :]]
    return None
