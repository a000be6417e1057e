"""`vectorkit pinecone-double`: a server that the official client talks to, and typed refusals."""

import os
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest

import vectorkit as vk


def run(*arguments: str, **environment: str) -> Any:
    command = [sys.executable, "-c", "from vectorkit.cli import main; main()", "pinecone-double", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def test_it_serves_until_it_is_interrupted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with run("--port", str(port), "--delay", "0.2", "--api-key-env", "A_KEY", A_KEY="secret-of-a-test") as server:
        try:
            assert f"http://127.0.0.1:{port}" in server.stdout.readline()
            target = {"url": f"pinecone://kb?host=http://127.0.0.1:{port}", "api_key": "secret-of-a-test"}
            with vk.connect(target) as store:
                docs = store.create_collection(vk.CollectionSpec("docs", 2))
                docs.upsert([vk.Record("a", [1, 0], "a text")])
                assert docs.count() == 0  # it is seen a moment later
                docs.upsert([vk.Record("b", [0, 1])], wait=5)
                assert docs.count() == 2
            with vk.connect({**target, "api_key": "another"}) as store, pytest.raises(vk.ConfigError, match="key"):
                store.collections()
        finally:
            server.send_signal(signal.SIGINT)
            out, err = server.communicate(timeout=10)
    assert (server.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "told"), [(["--api-key-env", "NOT_SET"], "NOT_SET"), (["--port", "TAKEN"], "cannot be listened on")]
)
def test_what_cannot_be_served_is_told(arguments: list[str], told: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [str(taken.getsockname()[1]) if one == "TAKEN" else one for one in arguments]
        with run(*given) as server:
            out, err = server.communicate(timeout=20)
    assert (server.returncode, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
