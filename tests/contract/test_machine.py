"""The state machine for longer than inside the contract: every verb in any order, against a dict and the memory store.

It prints how many steps it took and which verbs they were; `VECTORKIT_EFFORT=20` makes it twenty times as long, at random.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import vectorkit as vk
from vectorkit.testing.faces import COLOURS, Bench, Colour
from vectorkit.testing.machine import run_machine

STORES = {
    "memory": ("memory://", vk.Flat()),
    "local": ("local://{}/store", vk.Flat()),
    "faiss-flat": ("faiss://{}/store", vk.Flat()),
    "faiss-hnsw": ("faiss://{}/store", vk.HNSW(m=8, ef_construction=40, full_scan_threshold=0)),
    "hnswlib-hnsw": ("hnswlib://{}/store", vk.HNSW(m=8, ef_construction=40, full_scan_threshold=0)),
}
VERBS = {
    "upsert list", "upsert generator", "upsert batch", "insert fail", "insert skip", "refused write", "update ids", "update where", "delete ids",
    "delete where", "delete everything", "get", "query", "query_many", "keyword", "hybrid", "count", "scan", "stats", "explain", "optimize", "reopen",
    "clock",
}  # fmt: skip


Say: TypeAlias = Callable[[str, object], None]


def _run(store: str, colour: Colour, folder: Path, say: Say, *, examples: int, steps: int) -> None:
    url, index = STORES[store]
    if store.startswith("hnswlib"):
        pytest.importorskip("vectorkit_hnswlib", reason="hnswlib is not installed; tests/conftest.py says why")
    with Bench(url.format(folder), colour) as bench:
        report: Any = run_machine(bench, index, examples=examples, steps=steps)
    say("say", f"state machine, {store}, {colour}: {report}")  # tests/conftest.py prints it
    assert report.verbs.keys() == VERBS


@pytest.mark.parametrize("store", ["memory", "local"])
def test_machine_hits_every_verb(store: str, tmp_path: Path, record_property: Say) -> None:
    _run(store, "sync", tmp_path, record_property, examples=80, steps=50)


@pytest.mark.slow
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("store", list(STORES))
def test_machine_for_long(store: str, colour: Colour, tmp_path: Path, record_property: Say) -> None:
    # the colours run one body: the second is asked less
    _run(store, colour, tmp_path, record_property, examples=100 if colour == "sync" else 40, steps=50)
