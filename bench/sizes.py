"""What a row weighs in each FAISS kind, by the formula and in a real index: the tables of docs/scale-embedded.md.

    python bench/sizes.py [--rows 20000] [--dimension 1536]

Resident is how much a fresh process grows by loading the index (Linux).
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import vectorkit as vk
from vectorkit_faiss.indexes import make_index
from vectorkit_faiss.kinds import bytes_per_row

KINDS: dict[str, vk.HNSW | vk.IVF] = {
    "HNSW()": vk.HNSW(),
    'HNSW(quantization="fp16")': vk.HNSW(quantization="fp16"),
    'HNSW(quantization="sq8")': vk.HNSW(quantization="sq8"),
    'HNSW(quantization="rabitq")': vk.HNSW(quantization="rabitq"),
    "IVF()": vk.IVF(),
    'IVF(quantization="fp16")': vk.IVF(quantization="fp16"),
    'IVF(quantization="sq8")': vk.IVF(quantization="sq8"),
    'IVF(quantization="pq")': vk.IVF(quantization="pq"),
    'IVF(quantization="rabitq")': vk.IVF(quantization="rabitq"),
}
LOAD = """
import sys, faiss, resource
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = resident()
index = faiss.read_index(sys.argv[1])
print(resident() - before)
"""


def formula(name: str, dimension: int = 1_536, rows: int = 10**7) -> tuple[str, str]:
    """Bytes a row and gigabytes (10^9) of the rows, as the table shows them."""
    each = bytes_per_row(KINDS[name], dimension)
    return f"{each:,.0f}", f"{each * rows / 1e9:.1f}"


def measured(name: str, matrix: Any) -> tuple[float, float]:
    """Bytes a row of a real index on disk and resident, without the centroids of an inverted file."""
    index = KINDS[name]
    if isinstance(index, vk.HNSW):  # how well links are chosen does not change how many there are
        index = replace(index, ef_construction=40)
    rows, dimension = matrix.shape
    ann: Any = make_index(vk.CollectionSpec("sizes", dimension, index=index))
    ann.build(matrix[: ann.training], rows)
    ann.add(matrix)
    centroids = 4 * dimension * max(ann.widths) if isinstance(index, vk.IVF) else 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        ann.save(path)
        del ann
        grown = subprocess.run([sys.executable, "-c", LOAD, path], check=True, capture_output=True, text=True).stdout
        return (path.stat().st_size - centroids) / rows, (int(grown) - centroids) / rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=1_536)
    asked = parser.parse_args()
    matrix = np.random.default_rng(0).normal(size=(asked.rows, asked.dimension)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    print("| kind | bytes a row, formula | ten million rows, GB | measured in the file | measured resident |")
    print("|---|---|---|---|---|")
    for name in KINDS:
        each, total = formula(name, asked.dimension)
        file, resident = measured(name, matrix)
        print(f"| `{name}` | {each} | {total} | {file:,.0f} | {resident:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
