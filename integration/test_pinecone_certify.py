"""The script that certifies the adapter against the service does so here against the double, finds what is made to differ, and cleans up."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from integration.servers.pinecone import PineconeServer, pinecone_indexes

ROOT = Path(__file__).parents[1]


def certify(server: PineconeServer, *arguments: str, key: str = "of-a-test") -> Any:
    command = [sys.executable, "scripts/certify_pinecone.py", "--host", server.control_url, "--wait", "10", *arguments]
    environment = {**os.environ, "PINECONE_API_KEY": key}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_all_is_as_assumed_and_nothing_stays(pinecone_server: PineconeServer, pinecone_target: dict[str, Any]) -> None:
    import vectorkit as vk

    with vk.connect(pinecone_target) as store:  # of somebody else, under a prefix of theirs
        store.create_collection(vk.CollectionSpec("theirs", 2)).upsert([vk.Record("a", [1, 0])])
        done = certify(pinecone_server, "--metric", "l2")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert "23 of 23 as assumed" in done.stdout
        assert "0 remain" in done.stdout
        assert "of-a-test" not in done.stdout
        assert store.collection("theirs").count() == 1
        assert pinecone_indexes(store.native, pinecone_target["url"]) != []
        assert len(list(store.native.indexes.list())) == 1


def test_what_differs_is_found(pinecone_server: PineconeServer, pinecone_target: dict[str, Any]) -> None:
    pinecone_server.control.set(
        any_element_ne=True, missing_matches_ne=True, float32_scores=True, unsorted_matches=True
    )
    assert certify(pinecone_server, "--metric", "dot").returncode == 0  # none of which the adapter relies on
    pinecone_server.control.set(request_bytes=20_000)
    done = certify(pinecone_server, "--metric", "dot")
    assert done.returncode > 0
    assert "DIFFERS  a row of 39,000 bytes is taken" in done.stdout
    assert "0 remain" in done.stdout


def test_without_a_key(pinecone_server: PineconeServer) -> None:
    done = certify(pinecone_server, key="")
    assert done.returncode == 2
    assert "PINECONE_API_KEY is not set" in done.stderr
