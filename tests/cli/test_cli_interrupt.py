"""Ctrl-C in the middle of a load, in a real process: what it says was written is there, whole, and can be gone on with."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vectorkit as vk
from vectorkit.cli.interrupt import Stop, soft_interrupt

RUN = "from vectorkit.cli import main; main()"
ROWS = 60_000
BATCH = 20

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process on Windows")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many") / "many.jsonl"
    with path.open("w") as file:
        for i in range(ROWS):
            file.write(json.dumps({"id": f"{i:06}", "vector": [1.0, i], "text": f"row {i}"}) + "\n")
    return path


@pytest.fixture(params=["local", "faiss"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"{request.param}://{tmp_path}/db"
    with vk.connect(url) as store:
        store.create_collection(vk.CollectionSpec("c", dimension=2))
    return url


def start(url: str, many: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, "load", "c", str(many), "-s", url, "--batch", str(BATCH)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        with vk.connect(url, read_only=True) as store:
            if store.collection("c").count() >= 10 * BATCH:
                return process
        time.sleep(0.01)
    raise AssertionError(f"the load never got going: {process.communicate()[1]}")


def stored(url: str) -> list[str]:
    with vk.connect(url) as store:
        docs = store.collection("c")
        ids = sorted(row.id for row in docs.scan())
        assert docs.count() == len(ids) == docs.stats().rows
        assert [row.id for row in docs.get(ids[-1:]) if row] == ids[-1:]
        assert docs.query([1.0, 0.0], k=1)[0].id == "000000"
        assert docs.keyword(f"{int(ids[-1])}", k=5)[0].id == ids[-1]
    return ids


def test_once_finishes_the_batch_in_hand(url: str, many: Path) -> None:
    process = start(url, many)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    first, last = err.splitlines()
    assert first == "stopping after the batch in hand; Ctrl-C again stops at once"
    found = re.fullmatch(r"vectorkit: interrupted; ([\d,]+) rows written to 'c' and kept", last)
    assert found
    written = int(found[1].replace(",", ""))
    assert 10 * BATCH <= written < ROWS
    ids = stored(url)
    assert ids == [f"{i:06}" for i in range(written)]


def test_then_the_load_can_be_made_again(url: str, many: Path) -> None:
    process = start(url, many)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    short = many.with_name("short.jsonl")
    short.write_text("".join(many.read_text().splitlines(keepends=True)[:5000]))
    again = subprocess.run(
        [sys.executable, "-c", RUN, "load", "c", str(short), "-s", url, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(again.stdout)["written"] == 5000
    assert len(stored(url)) >= 5000


def test_twice_stops_at_once_and_rolls_back(url: str, many: Path) -> None:
    process = start(url, many)
    process.send_signal(signal.SIGINT)
    time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    found = re.search(r"([\d,]+) rows written to 'c' and kept\n\Z", err)
    assert found, err
    ids = stored(url)
    assert ids == [f"{i:06}" for i in range(len(ids))]
    assert len(ids) >= int(found[1].replace(",", ""))


def test_kill_leaves_whole_batches(url: str, many: Path) -> None:
    process = start(url, many)
    process.kill()
    process.communicate(timeout=30)
    ids = stored(url)
    assert len(ids) % BATCH == 0
    assert ids == [f"{i:06}" for i in range(len(ids))]


def test_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with soft_interrupt() as stop:
        assert signal.getsignal(signal.SIGINT) == stop.handle
        signal.raise_signal(signal.SIGINT)
        assert stop.pressed
        assert list(stop.until([1, 2])) == []
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        stop.over = True
        signal.raise_signal(signal.SIGINT)  # ignored: the store is closing
    assert signal.getsignal(signal.SIGINT) is before
    assert list(Stop().until([1, 2])) == [1, 2]
