"""docs/capabilities.md says of the servers what they say of themselves."""

from pathlib import Path

import pytest

import vectorkit as vk
from vectorkit.testing.table import capability_cells, shown

TABLE = Path(__file__).resolve().parents[1] / "docs" / "capabilities.md"


@pytest.mark.parametrize(
    ("column", "fixture", "sidecar"),
    [
        pytest.param("pgvector", "pgvector_target", False, marks=pytest.mark.store("pgvector")),
        pytest.param("chroma, server", "chroma_target", False, marks=pytest.mark.store("chroma")),
        pytest.param("qdrant, server through the shim", "qdrant_target", False, marks=pytest.mark.store("qdrant")),
        pytest.param("pinecone, against a double", "pinecone_target", False, marks=pytest.mark.store("pinecone")),
        pytest.param("chroma, server and side-car", "chroma_target", True, marks=pytest.mark.store("chroma")),
    ],
)
def test_the_committed_table_is_what_the_code_says(
    column: str, fixture: str, sidecar: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    target = request.getfixturevalue(fixture)
    if sidecar:
        target = {**target, "sidecar": str(tmp_path / "words.db")}
    with vk.connect(target) as store:
        told = shown(store.capability)
    assert told.pop("store") == column.partition(",")[0]
    assert capability_cells(TABLE.read_text("utf-8"))[column] == told, "make it anew: just docs"
