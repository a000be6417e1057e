"""Every file of a store cut, emptied, removed and with bytes changed: the same answers, or a typed error, never a wrong answer.

Once for a store that was closed, once for one whose writer was killed, with its write-ahead log there.
"""

import pickle
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.kit import Kind, files, fresh_copy, lines, stores, table
from tests.faults.server import Server
from vectorkit.testing.effort import times

pytestmark = pytest.mark.slow
TIMEOUT = 10.0
PLACES = {"rows.db": 130, "rows.db-wal": 70, "catalogue.db": 45, "catalogue.db-wal": 30}  # elsewhere 14


@dataclass(frozen=True)
class Case:
    """One file, and what becomes of it: bytes, or None to remove it."""

    file: str
    harm: str
    data: bytes | None


def kind_of(file: str) -> str:
    """`index/3/rids.i64` and `index/4/rids.i64` are one kind of file."""
    return (
        "/".join(part for part in file.split("/") if not part.isdigit() and "@" not in part and part != "c") or "folder"
    )


def cases(folder: Path) -> Iterator[Case]:
    """The same ones every time for the same files."""
    for entry in sorted(path for path in folder.rglob("*") if path.is_dir()):
        yield Case(str(entry.relative_to(folder)), "folder removed", None)
    for file in files(folder):
        data = (folder / file).read_bytes()
        yield Case(file, "removed", None)
        if not data:
            yield Case(file, "filled", b"\x93" * 100)
            continue
        yield Case(file, "emptied", b"")
        size = len(data)
        for length in sorted({1, size // 7, size // 3, size // 2, size * 9 // 10, size - size % 4096, size - 1}):
            if 0 < length < size:
                yield Case(file, f"cut to {length}", data[:length])
        yield Case(file, "longer", data + b"\x00\x01" * 50)
        count = min(size, PLACES.get(file.rpartition("/")[2], 14) * times())
        content = np.flatnonzero(np.frombuffer(data, np.uint8))
        evenly = np.linspace(0, size - 1, count // 3 + 1, dtype=np.int64)
        among = (
            content[np.linspace(0, len(content) - 1, count - count // 3, dtype=np.int64)] if len(content) else evenly
        )
        for number, position in enumerate(sorted({*evenly.tolist(), *among.tolist()})):
            harmed = bytearray(data)
            match number % 4:
                case 0:
                    harm = "bit"
                    harmed[position] ^= 1 << number % 8
                case 1:
                    harm = "byte"
                    harmed[position] ^= 0xFF
                case 2:
                    harm = "plus one"
                    harmed[position] = (harmed[position] + 1) % 256
                case _:
                    harm = "zeroed run"
                    harmed[position : position + 512] = bytes(len(harmed[position : position + 512]))
            if harmed != data:
                yield Case(file, f"{harm} at {position}", bytes(harmed))


def made(server: Server, name: str, path: Path, *, killed: bool) -> list[Any]:
    """The victim, and its answers after each of its last verbs."""
    job = server.start("victim", name=name, path=str(path), killed=killed)
    answers = []
    for what, value in job.messages(time.monotonic() + 30):
        if what == "answers":
            answers.append(value)
        elif what == "ready":
            job.kill()
    ended = job.end()
    assert ended.status == (-9 if killed else 0), server.stderr()
    assert len(answers) == 5
    return answers


@pytest.mark.parametrize("left", ["closed", "killed"])
@stores()
def test_damage(kind: Kind, name: str, left: str, quick: Path, server: Server, say: Callable[[str], None]) -> None:
    whole, place = quick / "whole", quick / "kb"
    answers = made(server, name, whole, killed=left == "killed")
    there = files(whole)
    assert any(file.endswith("-wal") for file in there) == (left == "killed")
    databases = [file for file in there if file.endswith(".db")]
    oracle = quick / "oracle"
    oracle.write_bytes(pickle.dumps(answers))
    fresh_copy(whole, place)
    unharmed = server.run("probe", name=name, path=str(place), oracle=str(oracle))
    assert set(unharmed.values()) == {"same"}, unharmed
    counts: dict[str, Counter[str]] = {}
    errors: Counter[str] = Counter()
    wrong: list[str] = []
    began = time.monotonic()
    for case in cases(whole):
        fresh_copy(whole, place)
        if case.harm == "folder removed":
            shutil.rmtree(place / case.file)
        elif case.data is None:
            (place / case.file).unlink()
        else:
            (place / case.file).write_bytes(case.data)
        done = server.start("probe", name=name, path=str(place), oracle=str(oracle)).end(TIMEOUT)
        told = f"{case.file}, {case.harm}"
        if done.status != 0:
            how = "hangs" if done.status is None else f"ends with {done.status}: {done.messages[-1:]}"
            found = {"process": f"wrong: {how}"}
        else:
            found = done.value
        removed = [file for file in databases if case.data is None and file.startswith(case.file)]
        lost = [file for file in databases if not (place / file).exists() and file not in removed]
        if lost:
            found["files"] = f"wrong: {lost} are no longer there"
        bad = {what: verdict for what, verdict in found.items() if verdict.startswith(("wrong", "earlier"))}
        wrong += [f"{told}: {what}: {verdict}" for what, verdict in bad.items()][:2]
        errors.update(verdict for verdict in set(found.values()) if verdict.startswith("error"))
        cells = counts.setdefault(kind_of(case.file), Counter())
        cells["cases"] += 1
        if not bad:
            cells["error" if any(verdict.startswith("error") for verdict in found.values()) else "same"] += 1
        elif all(verdict == "earlier" for verdict in bad.values()):
            cells["earlier"] += 1
        else:
            cells["wrong"] += 1
    seconds = time.monotonic() - began
    cases_run = sum(cells["cases"] for cells in counts.values())
    title = f"damage, {name}, {left}: {cases_run} cases in {seconds:.0f} s; {dict(errors)}"
    say(table(title, counts, ("cases", "same", "error", "earlier", "wrong")))
    parts = {kind_of(told.partition(",")[0]) for told in wrong}
    some = [told for part in sorted(parts) for told in [w for w in wrong if kind_of(w.partition(",")[0]) == part][:12]]
    assert not wrong, f"{len(wrong)} wrong, such as {lines(some, len(some))}"
    assert cases_run >= 200
