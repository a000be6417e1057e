"""What a run of these tests needs around them: hnswlib, which has to be compiled, and what tests have to say at its end."""

import importlib
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = pytest.StashKey[str]()

# Each worker of pytest-xdist has a core; numpy's own threads would fight for them. FAISS and hnswlib keep theirs.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    site.addsitedir(sysconfig.get_path("purelib"))  # xdist gives workers the path from before hnswlib was installed


def _has_hnswlib() -> bool:
    return find_spec("hnswlib") is not None and find_spec("vectorkit_hnswlib") is not None


def _install_hnswlib(say: Any) -> str | None:
    """Compile and install hnswlib into this environment, if it is one that uv made; else why not."""
    named = os.environ.get("CXX", "").split()[:1]
    compiler = next((path for name in (*named, "c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if compiler is None:
        return "it is published as source only, and there is no C++ compiler (c++, g++, clang++ or $CXX)"
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        return "there is no uv to install it with"
    made_by = Path(sys.prefix) / "pyvenv.cfg"
    if not made_by.is_file() or "\nuv = " not in made_by.read_text("utf-8"):
        return "this environment is not uv's: pip install ./adapters/hnswlib"
    command = ["sync", "--inexact", "--group", "dev", "--group", "hnswlib", "--python", sys.executable]
    say(f"hnswlib: compiling it with {compiler}, once (uv {' '.join(command[:6])})")
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": sys.prefix}
    done = subprocess.run(
        [uv, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode:
        return f"uv could not install it:\n{done.stderr[-2_000:]}"
    site.addsitedir(sysconfig.get_path("purelib"))  # the adapter lies in the checkout: a new .pth file says where
    importlib.invalidate_caches()
    return None if _has_hnswlib() else "uv installed it, and it cannot be imported even so"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist starts its workers
def pytest_sessionstart(session: pytest.Session) -> None:
    """See to it that hnswlib's tests run, or say why they do not; in continuous integration they must."""
    if hasattr(session.config, "workerinput") or _has_hnswlib():
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    say = print if reporter is None else reporter.write_line
    why = _install_hnswlib(say)
    if why is None:
        return
    if os.environ.get("VECTORKIT_CI"):
        pytest.exit(f"hnswlib's tests cannot run, and $VECTORKIT_CI is set: {why}", returncode=1)
    session.config.stash[SKIPPED] = f"hnswlib: its tests are skipped: {why}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that takes minutes begins first, so that no worker waits for it at the end."""
    items.sort(key=lambda item: item.name != "test_every_mutant_is_killed")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Why hnswlib's tests were skipped, and what tests said with `record_property("say", …)`: a worker of xdist cannot print."""
    if why := terminalreporter.config.stash.get(SKIPPED, None):
        terminalreporter.write_line(why)
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    for report in reports:
        for name, text in getattr(report, "user_properties", ()):
            if name == "say":
                terminalreporter.write_line(str(text))
