"""The state machine for longer than inside the contract: every verb in any order, against a dict and the memory store.

It prints how many steps it took and which verbs they were; `VECTORKIT_EFFORT=20` makes it twenty times as long, at random.
"""

from pathlib import Path
from typing import Any

import pytest

import vectorkit as vk
from vectorkit.testing.faces import COLOURS, Bench, Colour
from vectorkit.testing.machine import run_machine

STORES = {
    "memory": ("memory://", vk.Flat()),
    "local": ("local://{}/store", vk.Flat()),
    "faiss-flat": ("faiss://{}/store", vk.Flat()),
    "faiss-hnsw": ("faiss://{}/store", vk.HNSW(m=8, ef_construction=40, full_scan_threshold=0)),
}
VERBS = {
    "upsert list", "upsert generator", "upsert batch", "insert fail", "insert skip", "refused write", "update ids", "update where", "delete ids",
    "delete where", "delete everything", "get", "query", "query_many", "keyword", "hybrid", "count", "scan", "stats", "explain", "optimize", "reopen",
    "clock",
}  # fmt: skip


def _run(
    store: str, colour: Colour, folder: Path, capsys: pytest.CaptureFixture[str], *, examples: int, steps: int
) -> None:
    url, index = STORES[store]
    with Bench(url.format(folder), colour) as bench:
        report: Any = run_machine(bench, index, examples=examples, steps=steps)
    with capsys.disabled():
        print(f"\nstate machine, {store}, {colour}: {report}")
    assert report.verbs.keys() == VERBS


@pytest.mark.parametrize("store", ["memory", "local"])
def test_machine_hits_every_verb(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(store, "sync", tmp_path, capsys, examples=80, steps=50)


@pytest.mark.slow
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("store", list(STORES))
def test_machine_for_long(store: str, colour: Colour, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(store, colour, tmp_path, capsys, examples=150, steps=50)
