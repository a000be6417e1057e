"""The project's own metadata: the stranger's name is never asked for, and the two forms of the pins agree."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = [ROOT / "pyproject.toml", *sorted(ROOT.glob("adapters/*/pyproject.toml"))]


def requirements(path: Path) -> list[str]:
    project = tomllib.loads(path.read_text("utf-8"))
    found = list(project["project"].get("dependencies", []))
    for extra in project["project"].get("optional-dependencies", {}).values():
        found += extra
    for group in project.get("dependency-groups", {}).values():
        found += [entry for entry in group if isinstance(entry, str)]
    found += project.get("build-system", {}).get("requires", [])
    found += project.get("tool", {}).get("uv", {}).get("constraint-dependencies", [])
    return found


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_nothing_resolves_to_the_stranger(path: Path) -> None:
    names = {canonicalize_name(Requirement(text).name) for text in requirements(path)}
    assert "vectorkit" not in names
    assert canonicalize_name(tomllib.loads(path.read_text("utf-8"))["project"]["name"]) != "vectorkit"


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_our_own_distributions_come_from_the_workspace(path: Path) -> None:
    project = tomllib.loads(path.read_text("utf-8"))
    ours = {"vectorkit-core"} | {
        f"vectorkit-{folder.name}" for folder in (ROOT / "adapters").iterdir() if folder.is_dir()
    }
    asked = {canonicalize_name(Requirement(text).name) for text in requirements(path)} & ours
    sources = project["tool"]["uv"]["sources"]
    assert {name for name in asked if sources.get(name) != {"workspace": True}} == set()


def test_no_document_tells_to_install_the_stranger() -> None:
    wrong = re.compile(r"(pip|uv pip|uv) (install|add) [^\n`&]*(?<![\w./-])['\"]?vectorkit(?![\w-])")
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "vectorkit").rglob("*.py")]
    assert [path.name for path in texts if wrong.search(path.read_text("utf-8"))] == []


def test_pins_are_the_same_for_uv_and_pip() -> None:
    spec = importlib.util.spec_from_file_location("pins", ROOT / "scripts" / "pins.py")
    assert spec is not None
    assert spec.loader is not None
    pins = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pins)
    assert (ROOT / "constraints.txt").read_text("utf-8") == pins.wanted()


def test_one_version_everywhere() -> None:
    versions = {tomllib.loads(path.read_text("utf-8"))["project"]["version"] for path in PROJECTS}
    import vectorkit

    assert versions == {vectorkit.__version__}


def test_the_core_needs_numpy_alone() -> None:
    project = tomllib.loads(PROJECTS[0].read_text("utf-8"))["project"]
    assert [Requirement(text).name for text in project["dependencies"]] == ["numpy"]


def test_the_core_imports_no_client_and_starts_fast() -> None:
    code = (
        "import numpy, sys; before = set(sys.modules); import vectorkit as vk; vk.connect('memory://').close();"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names) - {'numpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "['vectorkit']"


def test_no_host_of_a_package_index_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False)
    if listed.returncode:
        pytest.skip("no git checkout here to list the files of")
    names = listed.stdout.splitlines()
    assert "uv.lock" not in names
    texts = [ROOT / name for name in names if name.endswith((".toml", ".txt", ".cfg", ".yml"))]
    pattern = re.compile(r"index-url|registry\s*=\s*\"http")
    assert [path.name for path in texts if path.exists() and pattern.search(path.read_text("utf-8"))] == []
