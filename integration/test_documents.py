"""The Python of docs/servers.md and docs/scale.md runs, against servers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.servers.qdrant import qdrant_request

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def qdrant_place(qdrant_target: str) -> Iterator[str]:
    """A server that is emptied of the documents' own collection too."""
    yield qdrant_target
    qdrant_request(qdrant_target, "DELETE", "collections/langchain")


def test_the_python_of_the_servers_guide_runs(
    pgvector_url: str,
    chroma_target: dict[str, str],
    qdrant_place: str,
    pinecone_target: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VECTORKIT_PGVECTOR_URL", pgvector_url)
    monkeypatch.setenv("VECTORKIT_CHROMA_URL", chroma_target["url"])
    monkeypatch.setenv("VECTORKIT_QDRANT_URL", qdrant_place)
    monkeypatch.setenv("VECTORKIT_PINECONE_URL", pinecone_target["url"])
    monkeypatch.setenv("PINECONE_API_KEY", "any")
    assert run("servers.md") == 8


def test_the_python_of_the_guide_to_clusters_runs(
    qdrant_place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VECTORKIT_QDRANT_URL", qdrant_place)
    assert run("scale.md") == 2


def run(name: str) -> int:
    """Run a document's blocks one after another; how many there are."""
    text = (ROOT / "docs" / name).read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    namespace: dict[str, object] = {"__name__": "document"}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, f"docs/{name}", "exec"), namespace)
    return len(blocks)
