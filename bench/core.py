"""What the core costs: importing it, fusing two rankings, loading a generator in bounded memory.

Run: uv run --group bench python bench/core.py
"""

import random
import statistics
import subprocess
import sys
import time

from measure import row

from vectorkit.retrieval.fusion import RRF

IMPORT = "import numpy, time; t = time.perf_counter(); {}; print((time.perf_counter() - t) * 1000)"


def imports() -> None:
    for what, code in {
        "import vectorkit, beyond numpy": "import vectorkit",
        "import vectorkit and open memory://, beyond numpy": "import vectorkit as vk; vk.connect('memory://')",
    }.items():
        found = [
            float(
                subprocess.run(
                    [sys.executable, "-c", IMPORT.format(code)], capture_output=True, text=True, check=True
                ).stdout
            )
            for _ in range(15)
        ]
        row(what, f"{statistics.median(found):.1f} ms", "20 ms")


def fusion() -> None:
    random.seed(1)
    a = [f"document-{n}" for n in range(1_000)]
    b = [f"document-{n}" for n in range(500, 1_500)]
    random.shuffle(a)
    random.shuffle(b)
    fuse = RRF()
    for k in (10, 100):
        found = []
        for _ in range(2_000):
            begun = time.perf_counter()
            fuse.fuse([a, b], k)
            found.append(time.perf_counter() - begun)
        row(f"RRF of 2 x 1,000, the best {k}", f"{statistics.median(found) * 1e6:.0f} us", "160 us")


LOAD = """
import numpy as np, psutil, sys, tempfile, vectorkit as vk
rows = int(sys.argv[1])
store = vk.connect("local://" + tempfile.mkdtemp())
docs = store.create_collection(vk.CollectionSpec("a", dimension=8, text=False))
process = psutil.Process(); before = process.memory_info().rss; most = 0
def records():
    global most
    vector = np.ones(8, np.float32)
    for n in range(rows):
        if n % 50_000 == 0:
            most = max(most, process.memory_info().rss)
        yield vk.Record(str(n), vector)
print(docs.upsert(records()).written, (max(most, process.memory_info().rss) - before) / 2**20)
"""


def load() -> None:
    for rows in (100_000, 1_000_000):
        done = subprocess.run([sys.executable, "-c", LOAD, str(rows)], capture_output=True, text=True, check=True)
        written, grown = done.stdout.split()
        row(f"resident set grown by upsert of a generator of {int(written):,} rows", f"{float(grown):.0f} MiB", "flat")


if __name__ == "__main__":
    imports()
    fusion()
    load()
