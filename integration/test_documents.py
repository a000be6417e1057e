"""The Python of docs/servers.md runs, against servers."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_python_of_the_servers_guide_runs(
    pgvector_url: str, chroma_target: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VECTORKIT_PGVECTOR_URL", pgvector_url)
    monkeypatch.setenv("VECTORKIT_CHROMA_URL", chroma_target["url"])
    text = (ROOT / "docs" / "servers.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    namespace: dict[str, object] = {"__name__": "document"}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, "docs/servers.md", "exec"), namespace)
