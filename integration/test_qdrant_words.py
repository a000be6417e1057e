"""Qdrant's BM25 gives the scores that the other stores give: over words as vectorkit cuts them, in every way in.

Scores of different stores meet in hybrid retrieval and in comparisons, so equal texts have to weigh the same.
"""

import random
from pathlib import Path
from typing import Any

import pytest

import vectorkit as vk
from vectorkit import F

WORDS = ["Straße", "strasse", "naïve", "naive", "don't", "e\u0301tude", "étude", "日本", "x1", "state-of-the-art", "İ", "a", "b_c", "ΣΑΣ", "σας", "ﬁ"]  # fmt: skip


def load(store: vk.Store) -> vk.Collection:
    docs = store.create_collection(vk.CollectionSpec("words", 2, fields={"n": int}))
    chance = random.Random(7)
    texts: list[str | None] = [" ".join(chance.choices(WORDS, k=chance.randrange(1, 40))) for _ in range(600)]
    texts += [
        None,
        None,
    ]  # a text without any word would count as one in the other stores' statistics, and does not here
    docs.upsert(vk.Record(f"r{n}", [1, n], text, {"n": n}) for n, text in enumerate(texts))
    docs.delete(ids=[f"r{n}" for n in range(0, 600, 7)])
    return docs


@pytest.mark.parametrize("way", ["server", "embedded", "memory"])
def test_scores_are_those_of_memory(way: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    target: Any = {"embedded": f"qdrant://{tmp_path}/store", "memory": "qdrant+memory://"}.get(way)
    with vk.connect(target or request.getfixturevalue("qdrant_target")) as store, vk.connect("memory://") as oracle:
        docs, right = load(store), load(oracle)
        for asked in [*WORDS, "naive étude", "STRASSE x1 日本", "state", "c", "nothing", "don t"]:
            for where in (None, F("n") > 300):
                found = {hit.id: hit.score for hit in docs.keyword(asked, k=1_000, where=where)}
                wanted = {hit.id: hit.score for hit in right.keyword(asked, k=1_000, where=where)}
                assert found == pytest.approx(wanted, rel=1e-6), asked
