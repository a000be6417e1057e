"""The process that loads a stranger's FAISS index and passes its vectors on, so that a file that crashes FAISS crashes only it.

Run as a script, in isolated mode, by `files.py`: reader.py PATH SIZE ROWS FOLDER... It knows nothing of vectorkit, and writes frames to
standard output: H (what the index is, as JSON), B (a block of rows), E (the end), X (why it cannot be, as JSON).
"""

import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

BLOCK_ROWS = 10_000
BLOCK_BYTES = 2**26


class Refused(Exception):
    """The index cannot be passed on."""


def block_rows(dimension: int) -> int:
    """Rows of one block."""
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // (4 * dimension)))


def main() -> int:
    """Read the file and write the frames; 0, 1 after an X frame, 3 when FAISS cannot be imported."""
    path, size, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever FAISS prints stays out of the frames
    sys.path += [folder for folder in sys.argv[4:] if folder not in sys.path]
    try:
        import faiss
        import numpy  # noqa: ICN001, F401
    except ImportError:
        return 3
    faiss.omp_set_num_threads(1)
    _limit(size, rows)
    try:
        _pass_on(path, out)
    except BaseException as error:  # noqa: BLE001
        told = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
        _frame(out, b"X", json.dumps(" ".join(told.split())[:500]).encode())
        return 1
    return 0


def _limit(size: int, rows: int) -> None:
    """Bound memory to some times the file, and leave no core and no files behind, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = 0
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            used = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # only Linux has it
        pass
    wanted = [("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0)]
    if used:
        wanted.append(("RLIMIT_AS", used + 2 * size + 64 * rows + 2**30))
    for name, value in wanted:
        try:
            number = getattr(resource, name)
            _, hard = resource.getrlimit(number)
            resource.setrlimit(number, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
        except (AttributeError, ValueError, OSError):
            continue


def _frame(out: BinaryIO, tag: bytes, *parts: Any) -> None:
    out.write(tag + struct.pack("<Q", sum(memoryview(part).nbytes for part in parts)))
    out.writelines(parts)
    out.flush()


def _faiss() -> Any:
    """FAISS, whose stubs show other signatures than it has."""
    import faiss

    return faiss


def _pass_on(path: str, out: BinaryIO) -> None:
    import numpy as np

    faiss = _faiss()
    index = faiss.read_index(path)
    ids = None
    rows = int(index.ntotal)
    if type(index) in {faiss.IndexIDMap, faiss.IndexIDMap2}:
        ids = faiss.vector_to_array(index.id_map)
        if len(ids) != rows:
            raise Refused(f"it maps {len(ids)} ids for {rows} rows")
        outer, index = index, faiss.downcast_index(index.index)
        if (index.ntotal, index.d, index.metric_type) != (rows, outer.d, outer.metric_type):
            raise Refused("its IDMap and the index in it do not fit")
    kind = type(index)
    if kind in {faiss.IndexFlat, faiss.IndexFlatIP, faiss.IndexFlatL2}:
        blocks = _flat(index, rows)
    elif kind is faiss.IndexHNSWFlat:
        storage = faiss.downcast_index(index.storage)
        if type(storage) not in {faiss.IndexFlat, faiss.IndexFlatIP, faiss.IndexFlatL2} or storage.d != index.d:
            raise Refused("its vectors are not those of a flat index")
        blocks = _flat(storage, rows)
    elif kind is faiss.IndexIVFFlat:
        own, blocks = _inverted(index, rows)
        if ids is None:
            ids = own
    else:
        raise Refused(f"it is a {kind.__name__}")
    told = {"dimension": int(index.d), "rows": rows, "metric": int(index.metric_type), "ids": ids is not None}
    _frame(out, b"H", json.dumps(told).encode())
    start = 0
    for block in blocks:
        parts: list[Any] = [np.ascontiguousarray(block, "<f4")]
        if ids is not None:
            parts.append(np.ascontiguousarray(ids[start : start + len(block)], "<i8"))
        _frame(out, b"B", *(memoryview(part).cast("B") for part in parts))
        start += len(block)
    _frame(out, b"E")


def _flat(index: Any, rows: int) -> Iterator[Any]:
    if index.ntotal != rows or index.code_size != 4 * index.d or index.codes.size() != rows * index.code_size:
        raise Refused(f"its vectors are not {rows}")
    step = block_rows(index.d)
    return (index.reconstruct_n(start, min(step, rows - start)) for start in range(0, rows, step))


def _inverted(index: Any, rows: int) -> tuple[Any, Iterator[Any]]:
    """The ids in ascending order, None when they are 0, 1, …, and the vectors in that order."""
    import numpy as np

    faiss = _faiss()
    lists = faiss.downcast_InvertedLists(index.invlists)
    if type(lists) is not faiss.ArrayInvertedLists:
        raise Refused("its lists are in another file")
    dimension = index.d
    if lists.code_size != 4 * dimension or lists.nlist != index.nlist:
        raise Refused("its lists are of something else")
    sizes = np.array([lists.list_size(number) for number in range(lists.nlist)], np.int64)
    if int(sizes.sum()) != rows:
        raise Refused(f"its lists hold {int(sizes.sum())} rows of {rows}")
    ids, codes = [np.empty(0, np.int64)], []
    for number, size in enumerate(sizes.tolist()):
        if size:
            ids.append(faiss.rev_swig_ptr(lists.get_ids(number), size))
            codes.append(faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size))
        else:
            codes.append(np.empty(0, np.uint8))
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    every = every[order]
    ends = np.cumsum(sizes)

    def blocks() -> Iterator[Any]:
        step = block_rows(dimension)
        for start in range(0, rows, step):
            places = order[start : start + step]
            homes = np.searchsorted(ends, places, side="right")
            block = np.empty((len(places), dimension), np.float32)
            by_home = np.argsort(homes, kind="stable")
            edges = np.flatnonzero(np.diff(homes[by_home])) + 1
            for part in np.split(by_home, edges):
                home = int(homes[part[0]])
                rows_of = codes[home].view("<f4").reshape(-1, dimension)
                block[part] = rows_of[places[part] - (ends[home] - sizes[home])]
            yield block

    plain = rows == 0 or (every[0] == 0 and every[-1] == rows - 1 and bool((np.diff(every) == 1).all()))
    return None if plain else every, blocks()


if __name__ == "__main__":
    sys.exit(main())
