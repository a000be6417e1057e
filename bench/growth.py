"""How the embedded engine grows with its rows: ingest, build, opening, queries under filters, memory, a line for each index kind.

    python bench/growth.py [--sizes 10000,100000x384] [--kinds flat,ivf] [--ef-construction 100]   # measure, into bench/results/growth.json
    python bench/growth.py --plot                                                                  # docs/growth.png and docs/growth.md

What is measured again replaces what is there. The bare library does the same beside it, in turn, query round by query round.
"""

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "growth.json"
DOCS = HERE.parent / "docs"
KINDS = {
    "flat": "local, Flat",
    "hnsw": "FAISS, HNSW",
    "hnsw-sq8": "FAISS, HNSW sq8",
    "ivf": "FAISS, IVF",
    "hnswlib": "hnswlib, HNSW",
}
SIZES = "10000,30000,100000,100000x384,300000,1000000"
LIBRARIES = ("numpy", "faiss-cpu", "hnswlib")
Cell = dict[str, Any]


def act(name: str, kind: str, size: int, dimension: int, ef_construction: int, folder: str, *, alone: bool) -> Cell:
    """One act of growth_child.py in a process of its own; `alone`: on one thread."""
    environment = dict(os.environ)
    if alone:
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "growth_child.py"), name, kind]
    command += [str(size), str(dimension), str(ef_construction), folder]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    answer: Cell = json.loads(done.stdout)
    return answer


def measure(kind: str, size: int, dimension: int, ef_construction: int, *, bare_build: bool) -> Cell:
    """One cell."""
    with tempfile.TemporaryDirectory() as folder:

        def run(name: str, *, alone: bool = False) -> Cell:
            return act(name, kind, size, dimension, ef_construction, folder, alone=alone)

        run("truth")
        cell: Cell = {
            "kind": kind,
            "size": size,
            "dimension": dimension,
            "ef_construction": None if kind in {"flat", "ivf"} else ef_construction,
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "versions": {name: version(name) for name in LIBRARIES},
            "build": run("build"),
            "bare_build": run("bare-build") if bare_build or kind == "flat" else None,
        }
        cell["bare_serve"] = run("bare-serve", alone=True)
        cell["serve"] = run("serve", alone=True)
        return cell


def add_bare_build(kind: str, size: int, dimension: int) -> None:
    """The bare library's build for a cell that has none."""
    for cell in results():
        if (cell["kind"], cell["size"], cell["dimension"], cell["bare_build"]) == (kind, size, dimension, None):
            with tempfile.TemporaryDirectory() as folder:
                efforts = cell["ef_construction"] or 0
                cell["bare_build"] = act("bare-build", kind, size, dimension, efforts, folder, alone=False)
            keep(cell)
            print(
                f"{KINDS[kind]:<16} {size:>9,} × {dimension}: bare build {cell['bare_build']['build_s']:.1f} s",
                flush=True,
            )


def results() -> list[Cell]:
    """What was measured so far."""
    found: list[Cell] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else []
    return found


def keep(cell: Cell) -> None:
    """Into the file, in the place of an older one."""

    def key(cell: Cell) -> tuple[int, int, int]:
        return cell["dimension"], cell["size"], list(KINDS).index(cell["kind"])

    cells = {key(old): old for old in results()} | {key(cell): cell}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([cells[at] for at in sorted(cells)], indent=1) + "\n", "utf-8")


def main() -> None:
    """Measure, or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=SIZES, help=f"rows, or rows x dimension (128 else); default {SIZES}")
    parser.add_argument("--kinds", default=",".join(KINDS), help="default all")
    parser.add_argument("--ef-construction", type=int, default=100, help="of graphs; default 100")
    parser.add_argument(
        "--bare-build-to", type=int, default=100_000, help="rows up to which the bare library builds too"
    )
    parser.add_argument("--bare-build", action="store_true", help="only the bare builds, of what was measured without")
    parser.add_argument("--plot", action="store_true", help="draw what was measured instead")
    asked = parser.parse_args()
    if asked.plot:
        from growth_plot import draw

        draw(results(), DOCS)
        return
    for cell in asked.sizes.split(","):
        size, _, dimension = cell.partition("x")
        for kind in asked.kinds.split(","):
            if asked.bare_build:
                add_bare_build(kind, int(size), int(dimension or 128))
                continue
            bare_build = int(size) <= asked.bare_build_to
            found = measure(kind, int(size), int(dimension or 128), asked.ef_construction, bare_build=bare_build)
            keep(found)
            built, served = found["build"], found["serve"]["answers"]["all"]["ours"]
            print(
                f"{KINDS[kind]:<16} {int(size):>9,} × {dimension or 128}: ingest {int(size) / built['ingest_s']:,.0f} rows/s, "
                f"build {built['build_s']:.1f} s, open {found['serve']['open_s']:.2f} s, p50 {served['p50_ms']:.2f} ms, "
                f"recall {served['recall']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
