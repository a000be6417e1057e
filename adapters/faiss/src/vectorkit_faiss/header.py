"""What the first bytes of a FAISS index file say, checked against its size, without FAISS.

It is all that this process looks at in a stranger's file; the rest is read by `reader.py`, in a process of its own.
"""

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from vectorkit.errors import Corrupt, InvalidArgument, NotFound, Unavailable, Unsupported

FULL = {b"IxFI": "Flat", b"IxF2": "Flat", b"IxFl": "Flat", b"IwFl": "IVFFlat", b"IHNf": "HNSWFlat"}
MAPS = {b"IxMp": "IDMap", b"IxM2": "IDMap2"}
CODES = {
    b"IxSQ": "ScalarQuantizer", b"IwSq": "IVFScalarQuantizer", b"IwSQ": "IVFScalarQuantizer", b"IHNs": "HNSWSQ",
    b"IxPq": "PQ", b"IxPQ": "PQ", b"IxPo": "PQ", b"IwPQ": "IVFPQ", b"IwQR": "IVFPQR", b"IwPf": "IVFPQFastScan",
    b"IPfs": "PQFastScan", b"IHNp": "HNSWPQ", b"IHN2": "HNSW2Level", b"Ixrq": "RaBitQ", b"Ixrr": "RaBitQ",
    b"Iwrq": "IVFRaBitQ", b"Iwrr": "IVFRaBitQ", b"IxRq": "ResidualQuantizer", b"IxLS": "LocalSearchQuantizer", b"IxHe": "LSH",
}  # fmt: skip
OTHER = {
    b"IxPT": "PreTransform", b"IxRF": "Refine", b"INSf": "NSG", b"IwFd": "IVFFlatDedup", b"IBxF": "BinaryFlat",
    b"IBwF": "BinaryIVF", b"IBHf": "BinaryHNSW", b"IBMp": "BinaryIDMap", b"IvFL": "IVFFlat of before 2018",
    b"IvFl": "IVFFlat of before 2018", b"IvPQ": "IVFPQ of before 2018", b"IvSQ": "IVFScalarQuantizer of before 2018",
}  # fmt: skip
_FIELDS = struct.Struct("<iqqq?i")
METRICS: dict[int, Literal["dot", "l2"]] = {0: "dot", 1: "l2"}


@dataclass(frozen=True, slots=True)
class Header:
    """What an index file says of itself. metric: what FAISS measures by; mapped: whether an IDMap gives the ids."""

    kind: str
    mapped: bool
    dimension: int
    count: int
    metric: Literal["dot", "l2"]
    size: int


def index_file(name: str) -> Path:
    """The file that a path means: itself, or `index.faiss` in a folder. Raises NotFound, InvalidArgument, Unavailable."""
    path = Path(name)
    try:
        if path.is_dir():
            path /= "index.faiss"
            if not path.exists():
                raise NotFound(f"the folder {name!r} holds no index.faiss")
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no file {name!r}") from None
    except (OSError, ValueError) as error:
        raise Unavailable(f"{name!r} cannot be looked at: {error}") from error
    if not stat.S_ISREG(mode):
        raise InvalidArgument(f"{str(path)!r} is no regular file")
    return path


def read_header(path: Path) -> Header:
    """What the file says of itself. Raises Corrupt when that cannot be, Unsupported for an index that is not adopted."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise Corrupt(f"{str(path)!r} is empty, and no FAISS index")
            return _read(file, str(path), size)
    except OSError as error:
        raise Unavailable(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _read(file: BinaryIO, shown: str, size: int) -> Header:
    magic, outer = _one(file, shown)
    mapped = magic in MAPS
    inner = outer
    if mapped:
        magic, inner = _one(file, shown)
    kind = _adopted(magic, shown)
    dimension, count, metric = inner
    if mapped and outer != inner:
        raise Corrupt(f"{shown!r} is damaged: its IDMap and the index in it say different things of themselves")
    if not 1 <= dimension <= 65_536 or count < 0:
        raise Corrupt(f"{shown!r} is damaged: it claims {count} rows of {dimension} numbers")
    if metric not in METRICS:
        raise Unsupported(f"{shown!r} measures by FAISS metric {metric}; adopted are inner product (0) and L2 (1)")
    least = count * (4 * dimension + (8 if mapped else 0) + (8 if kind == "IVFFlat" else 0))
    if least > size:
        raise Corrupt(
            f"{shown!r} is damaged: it claims {count} rows of {dimension} numbers, {least} bytes, and has {size}"
        )
    return Header(kind, mapped, dimension, count, METRICS[metric], size)


def _one(file: BinaryIO, shown: str) -> tuple[bytes, tuple[int, int, int]]:
    """Four letters, and the dimension, rows and metric behind them."""
    magic = file.read(4)
    if magic not in FULL and magic not in MAPS:
        _adopted(magic, shown)
    raw = file.read(_FIELDS.size)
    if len(raw) < _FIELDS.size:
        raise Corrupt(f"{shown!r} is damaged: it ends within its header")
    dimension, count, _, _, _, metric = _FIELDS.unpack(raw)
    return magic, (dimension, count, metric)


def _adopted(magic: bytes, shown: str) -> str:
    if magic in FULL:
        return FULL[magic]
    if magic in CODES:
        raise Unsupported(
            f"{shown!r} is a FAISS {CODES[magic]} index, which holds approximations of its vectors only; embed the texts again, "
            "or adopt an index of full vectors (Flat, IVFFlat, HNSWFlat)"
        )
    if magic in OTHER or magic in MAPS:
        named = OTHER.get(magic, "nested IDMap")
        raise Unsupported(
            f"{shown!r} is a FAISS {named} index; adopted are Flat, IVFFlat and HNSWFlat, with or without IDMap"
        )
    raise Corrupt(f"{shown!r} is no FAISS index that is known: it begins with {magic!r}")
