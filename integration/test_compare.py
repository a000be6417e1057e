"""`vectorkit demo --compare` with every store there is: one line says that the answers are the same, and it has to be true."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import vectorkit as vk
from integration.servers.live import named
from vectorkit.cli.app import app


def run(*arguments: str, **environment: str) -> Any:
    result = CliRunner().invoke(app, ["demo", *arguments, "--json"], env=environment)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_the_same_answers_on_every_store(
    pgvector_url: str,
    chroma_url: str,
    qdrant_target: str,
    pinecone_target: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collection = "compare-everything"
    monkeypatch.setenv("VECTORKIT_PINECONE_URL", pinecone_target["url"])
    monkeypatch.setenv("PINECONE_API_KEY", pinecone_target.get("api_key", "any"))
    names = ["faiss", "local", "memory", "chroma", "qdrant", "pgvector", "pinecone", "chroma #2", "qdrant #2"]
    if importlib.util.find_spec("hnswlib") is not None:  # which has to be compiled
        names.insert(1, "hnswlib")
    stores = ",".join([*names[:-2], chroma_url, qdrant_target])
    report = run("--compare", stores, "--rows", "2000", "--collection", collection, VECTORKIT_PGVECTOR_URL=pgvector_url)
    assert [store["name"] for store in report["stores"]] == names
    assert report["identical"] is True, [asked for asked in report["questions"] if not asked["same"]]
    for asked in report["questions"]:
        assert list(asked["answers"]) == names
        assert all(len(answer["hits"]) == 5 for answer in asked["answers"].values()) or asked["where"]
        first = asked["answers"]["faiss"]["hits"]
        for answer in asked["answers"].values():
            assert [hit["metadata"] for hit in answer["hits"]] == [hit["metadata"] for hit in first]
            assert [hit["text"] for hit in answer["hits"]] == [hit["text"] for hit in first]
    for url in (pgvector_url, chroma_url, qdrant_target, pinecone_target["url"]):
        with vk.connect(url) as store:
            assert collection not in store.collections()


@pytest.mark.own
@pytest.mark.slow
def test_the_readmes_command_beside_servers_of_our_own(tmp_path: Path) -> None:
    assert not named()
    command = [
        sys.executable,
        "-m",
        "integration.servers",
        sys.executable,
        "-c",
        "from vectorkit.cli import main; main()",
    ]
    command += ["demo", "--compare", "faiss,chroma,qdrant,pgvector,pinecone"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Identical answers on 5 stores" in done.stdout
