"""A generation: a view written down, with the index over it. A cache, known by an id that the database's state names.

A native loader trusts its file (a flipped byte loads silently, or kills the process), so a manifest with sizes and SHA-256
stands between.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorkit.errors import Unavailable
from vectorkit.local.ann import AnnIndex, IndexMaker
from vectorkit.local.files import fsync_folder
from vectorkit.local.seal import digest
from vectorkit.types import LAYOUT, CollectionSpec, FloatArray

Arrays = dict[str, npt.NDArray[Any]]
_ID = re.compile("[0-9a-f]{16}")
INDEX, VECTORS, TABLE = "index.bin", "vectors.f32", "table.npz"


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole generation on disk. index: over its rows, labels are their positions; None where rows are only kept for fast
    opening. width, spare: the defaults found for it: how widely to search, and how many times k to ask for."""

    id: str
    seq: int
    index: AnnIndex | None
    width: int
    spare: int
    sizes: Mapping[str, int] = field(repr=False)


class Draft:
    """A generation being written, under a name that nobody reads until `finish`. Raises Unavailable for a full or failing disk."""

    def __init__(self, folder: Path, spec: CollectionSpec, count: int) -> None:
        self.id = secrets.token_hex(8)
        self._spec = spec
        self._count = count
        self._folder = folder
        self._path = folder / f"new-{self.id}"
        try:
            folder.mkdir(exist_ok=True)
            for left in folder.glob("new-*"):  # by a crash; nobody else writes here
                shutil.rmtree(left, ignore_errors=True)
            self._path.mkdir()
            self._vectors = (self._path / VECTORS).open("wb")
        except OSError as error:
            raise _unwritable(error) from error

    def add(self, vectors: FloatArray) -> None:
        """Append prepared vectors."""
        try:
            self._vectors.write(np.ascontiguousarray(vectors, "<f4").data)
        except OSError as error:
            raise _unwritable(error) from error

    def vectors(self) -> FloatArray:
        """All of them, mapped from the file."""
        try:
            self._vectors.flush()
            return mapped(self._path / VECTORS, self._count, self._spec.dimension)
        except (OSError, ValueError) as error:
            raise _unwritable(error) from error

    def finish(
        self, index: AnnIndex | None, width: int, spare: int, table: Arrays, *, uid: str, seq: int
    ) -> Generation:
        """Write the rest, fsync, rename. It counts once the database's state names its id."""
        path = self._path
        try:
            self._vectors.flush()
            if index is not None:
                index.save(path / INDEX)
            with (path / TABLE).open("wb") as file:
                np.savez(file, **table)  # type: ignore[arg-type]  # numpy's stub takes the keys for its own options
            names = [VECTORS, TABLE, *([INDEX] if index is not None else [])]
            files: dict[str, dict[str, Any]] = {}
            for name in names:
                _sync(path / name)
                files[name] = {"size": (path / name).stat().st_size, "sha256": digest(path / name)}
            manifest = {
                **_expected(self._spec),
                "id": self.id,
                "uid": uid,
                "seq": seq,
                "n": self._count,
                "index": None if index is None else index.kind,
                "parameters": _parameters(self._spec),
                "width": width,
                "spare": spare,
                "files": files,
            }
            (path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
            _sync(path / "manifest.json")
            fsync_folder(path)
            path.rename(self._folder / self.id)
            fsync_folder(self._folder)
        except (OSError, RuntimeError) as error:
            raise _unwritable(error) from error
        return Generation(self.id, seq, index, width, spare, {name: entry["size"] for name, entry in files.items()})

    def close(self) -> None:
        """Let go; what was not finished is removed."""
        with suppress(OSError):  # what is buffered still, on a disk that is full
            self._vectors.close()
        shutil.rmtree(self._path, ignore_errors=True)


def _unwritable(error: Exception) -> Unavailable:
    return Unavailable(f"the index could not be written: {error}; the rows are safe, optimize() again")


def mapped(path: Path, count: int, dimension: int) -> FloatArray:
    """(n, d) float32 of a file, read by the operating system as it is needed. ValueError, OSError."""
    if not count:
        return np.empty((0, dimension), np.float32)
    data = np.memmap(path, "<f4", "r", shape=(count, dimension))
    return np.asarray(data) if data.dtype.isnative else data.astype(np.float32)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _expected(spec: CollectionSpec) -> dict[str, Any]:
    fields = spec.to_json()["fields"]
    return {
        "layout": LAYOUT,
        "dimension": spec.dimension,
        "metric": spec.metric,
        "expiry": spec.expiry,
        "fields": [[name, kind] for name, kind in fields.items()],
    }


def _parameters(spec: CollectionSpec) -> dict[str, Any]:
    return {key: value for key, value in spec.to_json()["index"].items() if key != "full_scan_threshold"}


def load_generation(
    folder: Path, id: str, spec: CollectionSpec, make: IndexMaker, *, uid: str
) -> tuple[Generation, FloatArray, Arrays] | str:
    """A generation with its vectors and table, checked whole before any loader sees it, else why it cannot be used."""
    if not _ID.fullmatch(id):  # a database from elsewhere must not lead out of its folder
        return f"{id!r} names no generation"
    path = folder / id
    try:
        if any(entry.is_symlink() or not entry.is_file() for entry in path.iterdir()) or path.is_symlink():
            return "it is not made of plain files"
        manifest = json.loads((path / "manifest.json").read_bytes())
        for key, value in {**_expected(spec), "id": id, "uid": uid}.items():
            if manifest[key] != value:
                return f"its manifest says {key} {manifest[key]!r}, not {value!r}"
        count, seq, width, spare = (manifest[key] for key in ("n", "seq", "width", "spare"))
        if not all(type(value) is int and value >= 0 for value in (count, seq, width, spare)):
            return "its manifest is damaged"
        index = make(spec)
        kind = manifest["index"]
        if index is not None and kind is not None and (kind, manifest["parameters"]) != (index.kind, _parameters(spec)):
            return f"it holds another index: {kind}"
        wanted = [VECTORS, TABLE, *([INDEX] if index is not None and kind is not None else [])]
        for name in wanted:
            entry = manifest["files"][name]
            if (path / name).stat().st_size != entry["size"] or digest(path / name) != entry["sha256"]:
                return f"{name} is not the file that was written"
        vectors = mapped(path / VECTORS, count, spec.dimension)
        with np.load(path / TABLE, allow_pickle=False) as archive:
            table = {name: archive[name] for name in archive.files}
        if index is None or kind is None:
            index = None
        else:
            index.load(path / INDEX)
            if index.size() != count:
                return f"the index holds {index.size()} rows, its manifest says {count}"
        sizes = {name: manifest["files"][name]["size"] for name in wanted}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return Generation(id, seq, index, width, spare, sizes), vectors, table


def remove(path: Path) -> None:
    """Remove a generation that came to nothing."""
    shutil.rmtree(path, ignore_errors=True)


def remove_others(folder: Path, id: str) -> None:
    """Remove every generation but this one. One that cannot be removed now (mapped, on Windows) is so the next time."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.name != id:
                shutil.rmtree(entry, ignore_errors=True)
