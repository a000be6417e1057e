"""A disk that is full: typed errors about the disk, nothing lost, reads go on, and writes do once there is room.

On a real small file system where one may be mounted, and everywhere with the shim refusing writes from byte n on.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.kit import Kind, lines, stores
from tests.faults.server import Server
from tests.faults.shim import Control
from vectorkit.testing.effort import times

pytestmark = pytest.mark.slow
REOPEN = pytest.mark.parametrize("reopen", [False, True], ids=["the same handle", "reopened while full"])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system takes root on Linux; the shim's variant runs without")
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(
            f"a small file system cannot be mounted here: {done.stderr.strip()}; the shim's variant runs without"
        )
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@REOPEN
@stores()
def test_a_small_file_system_fills_up(
    kind: Kind, name: str, small: Path, server: Server, say: Callable[[str], None], *, reopen: bool
) -> None:
    ballast = small / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    told = server.run("fill", name=name, path=str(small / "kb"), ballast=str(ballast), budget=0, reopen=reopen)
    say(f"\na full file system, {name}: {told['rows']} rows, refused {told['full']}")
    assert not told["wrong"], lines(told["wrong"])
    assert told["full"]


@REOPEN
@stores()
def test_no_space_from_byte_n_on(
    kind: Kind, name: str, quick: Path, shimmed: tuple[Server, Control], say: Callable[[str], None], *, reopen: bool
) -> None:
    server, _ = shimmed
    wrong: list[str] = []
    refused: Counter[str] = Counter()
    budgets = range(0, 400_000, 33_331 // times())
    for budget in budgets:
        place = quick / str(budget)
        told = server.run("fill", name=name, path=str(place), ballast=None, budget=budget, reopen=reopen)
        wrong += [f"{budget} bytes: {fault}" for fault in told["wrong"]]
        refused.update(told["full"])
        assert told["fired"]
        shutil.rmtree(place)
    say(f"\nno space from byte n on, {name}: {len(budgets)} places, refused {dict(refused)}")
    assert not wrong, lines(wrong)
