"""The newcomer's command: it loads this Python's documentation, answers its questions, and leaves nothing behind unless told to."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vectorkit as vk

RUN = "from vectorkit.cli import main; main()"


def test_the_whole_demonstration_as_a_newcomer_runs_it(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "120"}
    command = [sys.executable, "-c", RUN, "demo", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    report = json.loads(done.stdout)
    assert report["rows"] > 5000
    assert report["embedder"] == "vectorkit-hash-384"
    assert report["steps"].keys() == {"collect", "load", "index"}
    assert report["seconds"] < 60
    answers = {answer["question"]: answer for answer in report["answers"]}
    assert len(answers) == 5
    for answer in answers.values():
        assert {leg: len(answer[leg]) for leg in ("dense", "keyword", "hybrid")} == dict.fromkeys(
            ("dense", "keyword", "hybrid"), 5
        )
    assert "gzip.GzipFile" in ids(answers["compress a file with gzip"], "hybrid")
    assert "datetime.date.fromisoformat" in ids(answers["parse a date string"], "hybrid")
    assert "asyncio.threads.to_thread" in ids(answers["run a function in another thread"], "hybrid")
    assert ids(answers["temporary directory removed at exit"], "dense")[0] == "tempfile.TemporaryDirectory"
    filtered = answers["split a string"]
    assert filtered["where"] == 'kind == "function" and module in ["builtins", "re", "shlex"] and lines >= 3'
    for leg in ("dense", "keyword", "hybrid"):
        for hit in filtered[leg]:
            assert vk.Filter.parse(filtered["where"]).matches(hit["metadata"])
    assert "embedder: vectorkit-hash-384, offline feature hashing" in done.stderr
    assert "It knows spelling, not meaning." in done.stderr.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == []


def ids(answer: dict[str, Any], leg: str) -> list[str]:
    return [hit["id"] for hit in answer[leg]]


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal and SIGINT")
def test_on_a_terminal_there_is_a_bar_with_rate_rows_and_time_left(tmp_path: Path) -> None:
    import pty

    main, side = pty.openpty()
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-c", RUN, "demo", "--rows", "2000"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=side) as process:
        os.close(side)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that the other side was closed
            while part := os.read(main, 65_536):
                shown += part
        os.close(main)
        assert process.wait(60) == 0
    shown = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown)
    assert re.search(rb"embedding and loading.*[1-9][\d,]* rows +[1-9][\d,]* rows/s \d:\d\d:\d\d left", shown)


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal and SIGINT")
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a job in the background ignores it
    command = [sys.executable, "-c", heard + RUN, "demo"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("Reading the documentation")
        assert list(tmp_path.iterdir())
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "vectorkit: interrupted\n"
        assert process.wait(30) == 130
    assert list(tmp_path.iterdir()) == []


def test_hybrid_is_the_sum_of_reciprocal_ranks(cli: Any, url: str) -> None:
    ran = cli("demo", "--rows", "300", "--store", url, "--json", "--keep")
    with vk.connect(url, read_only=True) as store:
        docs = store.collection("pydocs")
        vector = vk.HashEmbedder().embed(["parse a date string"])[0]
        ranks = [docs.query(vector, k=100).ids, docs.keyword("parse a date string", k=100).ids]
    (answer,) = [answer for answer in ran.json["answers"] if answer["question"] == "parse a date string"]
    for hit in answer["hybrid"]:
        wanted = sum(1 / (60 + leg.index(hit["id"]) + 1) for leg in ranks if hit["id"] in leg)
        assert hit["score"] == pytest.approx(wanted)


def test_keep_leaves_it_and_names_the_next_commands(cli: Any, url: str) -> None:
    ran = cli("demo", "--rows", "200", "--store", url, "--keep")
    assert ran.code == 0
    assert "200 rows embedded and written" in ran.out
    assert "where kind ==" in ran.out
    assert f'vectorkit search pydocs "walk a directory tree" --store {url}' in ran.out
    assert cli("count", "pydocs", "-s", url).out == "200\n"
    again = cli("demo", "--rows", "200", "--store", url, "--json")  # it was there before, so it stays
    assert again.json["rows"] == 200
    assert cli("count", "pydocs", "-s", url).out == "200\n"


def test_without_keep_the_collection_goes_and_the_store_stays(cli: Any, url: str) -> None:
    ran = cli("demo", "--rows", "200", "--store", url)
    assert ran.code == 0
    assert "Again with --keep" in ran.out
    assert cli("collections", "-s", url).out == ""


def test_a_collection_of_another_make_is_not_touched(cli: Any, url: str) -> None:
    assert cli("create", "pydocs", "-s", url, "--dimension", "16").code == 0
    ran = cli("demo", "--rows", "200", "--store", url)
    assert ran.code == 2
    assert "'pydocs' exists with another spec: dimension is 16, asked for 384" in ran.err
    assert cli("count", "pydocs", "-s", url).out == "0\n"
    assert cli("demo", "--rows", "200", "--store", url, "--collection", "other").code == 0


def test_it_runs_in_memory(cli: Any) -> None:
    assert cli("demo", "--rows", "200", "--store", "memory://", "--json").json["rows"] == 200


def test_a_password_in_the_url_is_not_printed_again(cli: Any, tmp_path: Path) -> None:
    url = f"local://{tmp_path}/a@b"
    out = cli("demo", "--rows", "50", "--store", url, "--keep").out
    assert "a@b" not in out
    assert "--store URL" in out
