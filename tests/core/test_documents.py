"""The README and the guide run: their Python, in one namespace a document, in an empty directory."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_the_python_of_a_document_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / name).read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    namespace: dict[str, object] = {"__name__": "document"}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, name, "exec"), namespace)
    if name == "README.md":
        out = capsys.readouterr().out.splitlines()
        assert out == [
            "a1 0.0328 Parse a date string",
            "a2 0.0161 Run a function in a thread",
            "['a1'] 3",
            "exact over 2 of 3 rows",
        ]


def test_the_first_two_commands_are_the_demo_and_the_tests() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"^```\n(.*?)\n```", text, re.MULTILINE | re.DOTALL)
    assert commands[:2] == ["pip install uv && uv run vectorkit demo", "pip install uv && uv run --group dev pytest"]
    assert "uv run --group dev pytest\n" in (ROOT / ".ci" / "run").read_text("utf-8")


def test_every_linked_file_is_there() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for name in re.findall(r"`((?:docs|tests|vectorkit)/[\w./-]+)`", path.read_text("utf-8")):
            assert (ROOT / name).exists(), name
