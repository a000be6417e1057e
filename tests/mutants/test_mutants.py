"""The suite's own test: each planned bug in `mutants.toml`, put into a copy of the package, has to fail the named test.

The test must fail by assertion, and must pass on the copy without the bug; so a suite that cannot fail would be seen here.
"""

import os
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from vectorkit.testing.contract import contract_tests

ROOT = Path(__file__).parents[2]
CLASSES = {
    "memory": "tests/contract/test_contract_memory.py::TestMemory",
    "local": "tests/contract/test_contract_local.py::TestLocal",
    "faiss-hnsw": "tests/contract/test_contract_faiss.py::TestFaissHNSW",
    "hobbled": "tests/contract/test_contract_hobbled.py::TestHobbled",
}
SECONDS = 180
AT_ONCE = 2
_ASSERTED = ("AssertionError", "assert ", "Failed: DID NOT RAISE")
_CONFTEST = """
from pathlib import Path
import vectorkit
assert Path(vectorkit.__file__).is_relative_to(Path(__file__).parent), vectorkit.__file__
"""


@dataclass(frozen=True)
class Mutant:
    name: str
    bug: str
    store: str
    killer: str
    file: str
    find: str
    replace: str

    @property
    def node(self) -> str:
        return f"{CLASSES[self.store]}::{self.killer}"


def _mutants() -> list[Mutant]:
    document = tomllib.loads((Path(__file__).parent / "mutants.toml").read_text("utf-8"))
    return [Mutant(**entry) for entry in document["mutant"]]


MUTANTS = _mutants()


def test_the_list_is_long_and_names_real_tests() -> None:
    assert len(MUTANTS) >= 48
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.killer for mutant in MUTANTS} <= contract_tests().keys()
    assert {mutant.store for mutant in MUTANTS} == CLASSES.keys()


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_each_patch_fits_the_code(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text("utf-8")
    assert source.count(mutant.find) == 1, f"{mutant.file} has changed: find the line again"
    patched = source.replace(mutant.find, mutant.replace)
    assert patched != source
    compile(patched, mutant.file, "exec")
    changed = set(patched.splitlines()) ^ set(source.splitlines())
    assert len(changed) <= 2, "a mutant changes one line"


def _copy(to: Path) -> Path:
    leave = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "vectorkit", to / "vectorkit", ignore=leave)
    shutil.copytree(ROOT / "tests" / "contract", to / "tests" / "contract", ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", to)
    (to / "conftest.py").write_text(_CONFTEST)
    return to


def _run(folder: Path, nodes: list[str]) -> tuple[int, list[str]]:
    """Passed tests, and the first lines of the failures; a run that takes too long or breaks is one failure that says so."""
    report = folder / "report.xml"
    options = [
        "-q",
        "-x",
        "-o",
        "addopts=",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "-p",
        "vectorkit.testing.plugin",
    ]
    command = [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", *nodes]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV", "VECTORKIT"))
    }
    environment |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return 0, [f"no end after {SECONDS} s"]
    if not report.exists():
        return 0, [f"pytest broke: {done.stdout[-300:]} {done.stderr[-300:]}"]
    passed, failures = 0, []
    for case in ET.parse(report).iter("testcase"):  # a report that pytest has just written
        problems = [*case.iter("failure"), *case.iter("error")]
        failures += [f"{problem.tag} {problem.get('message', '')}".strip() for problem in problems]
        passed += not problems
    return passed, failures


def _killed(mutant: Mutant, folder: Path) -> str | None:
    """Why a mutant counts as alive; None when its killer failed by assertion."""
    _copy(folder)
    target = folder / mutant.file
    target.write_text(target.read_text("utf-8").replace(mutant.find, mutant.replace), "utf-8")
    _, failures = _run(folder, [mutant.node])
    shutil.rmtree(folder, ignore_errors=True)
    if not failures:
        return "the test passed"
    first = failures[0]
    if first.startswith("failure ") and first.removeprefix("failure ").startswith(_ASSERTED):
        return None
    return first[:200]


@pytest.mark.slow
def test_the_killers_pass_without_a_mutant(tmp_path: Path) -> None:
    nodes = sorted({mutant.node for mutant in MUTANTS})
    passed, failures = _run(_copy(tmp_path / "clean"), nodes)
    assert failures == []
    assert passed >= 2 * len(nodes)


@pytest.mark.slow
def test_every_mutant_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = dict(zip(MUTANTS, pool.map(lambda m: _killed(m, tmp_path / m.name), MUTANTS), strict=True))
    alive = {mutant.name: why for mutant, why in outcomes.items() if why is not None}
    score = f"mutants: {len(MUTANTS) - len(alive)} of {len(MUTANTS)} killed"
    with capsys.disabled():
        print(f"\n{score}")
    if path := request.config.getoption("--mutation-score", default=None):
        Path(path).write_text(_page(score, outcomes), "utf-8")
    assert alive == {}


def _page(score: str, outcomes: dict[Mutant, str | None]) -> str:
    head = (
        "# Can the contract suite fail?\n\nMade by `pytest tests/mutants -m slow --mutation-score docs/mutation-score.md`; do not edit.\n\n"
        "Each line is a bug that public vector-store layers have had, put into the shipped code as a change of one line. The\n"
        "named contract test has to fail under it, by assertion, and passes without it.\n\n"
    )
    lines = ["| bug | changed | test that fails | run on | killed |", "| --- | --- | --- | --- | --- |"]
    for mutant, why in outcomes.items():
        cells = [
            mutant.bug.replace("|", "\\|"),
            f"`{mutant.file}`",
            f"`{mutant.killer}`",
            mutant.store,
            "yes" if why is None else f"**no**: {why}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return f"{head}**{score}.**\n\n" + "\n".join(lines) + "\n"
