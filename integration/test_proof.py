"""Two thousand rows and three hundred questions on servers, on embedded Chroma and embedded Qdrant: the answers that every store gives.

tests/contract/test_proof.py asks the stores that need no server; what is asked, and what is right, is in `vectorkit.testing.proof`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit.testing import proof
from vectorkit.types import Metric

_GRAPH = vk.HNSW(m=16, ef_construction=100, full_scan_threshold=0)


def hold(target: Any, index: Any, metric: Metric, say: Callable[[str], None]) -> proof.Report:
    """Prove it on one store, and say what was found at the end of the run."""
    with vk.connect(target) as store:
        report = proof.prove(proof.load(store, index, metric), metric, exact_too=store.capability.exact)
        asked = 200 if store.capability.exact else 100
        name = f"{store.capability.store} {type(index).__name__} {metric}"
    say(f"proof, {name}: {report}")
    assert not report.wrong, "\n".join([str(report), *report.wrong[:10]])
    assert report.queries == asked
    assert not report.recall or float(np.mean(report.recall)) >= proof.RECALL
    return report


@pytest.mark.parametrize("metric", proof.METRICS)
@pytest.mark.parametrize("index", [vk.Flat(), _GRAPH, vk.IVF(full_scan_threshold=0)], ids=["flat", "hnsw", "ivf"])
def test_pgvector(index: Any, metric: Metric, pgvector_target: dict[str, str], say: Callable[[str], None]) -> None:
    report = hold(pgvector_target, index, metric, say)
    if isinstance(index, vk.Flat):
        assert report.exact == report.queries


# `exact=True` is a scan on Chroma, so that each takes half a minute: every metric once, and $VECTORKIT_WHOLE for all of both.
_WHOLE = bool(os.environ.get("VECTORKIT_WHOLE"))


@pytest.mark.parametrize("metric", proof.METRICS if _WHOLE else ["l2"])
def test_chromas_server(metric: Metric, chroma_target: dict[str, str], say: Callable[[str], None]) -> None:
    hold(chroma_target, _GRAPH, metric, say)


# Of the three ways into one engine each metric and index is asked once, and $VECTORKIT_WHOLE asks all of all.
_FLAT = vk.Flat()
_PAIRS = [(index, metric) for index in (_FLAT, _GRAPH) for metric in proof.METRICS]


@pytest.mark.parametrize(
    ("index", "metric"), _PAIRS if _WHOLE else [(_FLAT, "dot"), (_GRAPH, "cosine"), (_GRAPH, "l2")]
)
def test_qdrants_server(index: Any, metric: Metric, qdrant_target: str, say: Callable[[str], None]) -> None:
    report = hold(qdrant_target, index, metric, say)
    if isinstance(index, vk.Flat):
        assert report.exact == report.queries


@pytest.mark.parametrize(("index", "metric"), _PAIRS if _WHOLE else [(_FLAT, "cosine"), (_FLAT, "l2"), (_GRAPH, "dot")])
def test_qdrants_engine_in_this_process(index: Any, metric: Metric, tmp_path: Path, say: Callable[[str], None]) -> None:
    report = hold(f"qdrant://{tmp_path}/store", index, metric, say)
    if isinstance(index, vk.Flat):
        assert report.exact == report.queries


@pytest.mark.parametrize("metric", proof.METRICS if _WHOLE else ["cosine", pytest.param("dot", marks=pytest.mark.slow)])
def test_chroma_in_this_process(metric: Metric, tmp_path: Path, say: Callable[[str], None]) -> None:
    hold(f"chroma://{tmp_path}/store", _GRAPH, metric, say)


@pytest.mark.parametrize("metric", proof.METRICS)
@pytest.mark.parametrize("api", ["documents", "vectors"])
def test_pinecones_double(
    api: str, metric: Metric, pinecone_target: dict[str, Any], say: Callable[[str], None]
) -> None:
    hold({**pinecone_target, "api": api}, _GRAPH, metric, say)
