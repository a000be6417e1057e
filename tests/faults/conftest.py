"""The fork servers, one with the shim and one without, started once a session."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.kit import Kind, needed, skip
from tests.faults.server import Server
from tests.faults.shim import MISSING, Control, build


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    started = Server(tmp_path_factory.mktemp("server"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def shimmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Control]]:
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD and /proc are Linux's")
    folder = tmp_path_factory.mktemp("shimmed")
    built = build(folder)
    if built is None:
        skip(MISSING)
    control = Control(folder / "control")
    started = Server(folder, built, control.path)
    yield started, control
    started.close()


@pytest.fixture
def kind(name: str) -> Kind:
    return needed(name)


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Have it printed at the end of the run, by whichever worker ran the test: the figures are the point."""
    return lambda text: record_property("say", text)


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: these tests count fsyncs by the thousand, and kill processes, not machines."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="vectorkit-", dir=memory) as folder:
        yield Path(folder)
