"""FAISS index files of others, as chunks of rows to adopt: looked at here, loaded by a process of its own (`reader.py`).

A native loader trusts its file: one flipped byte can end the process that loads it. So that process is not this one, and what it
sends back is checked like any input.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import IO, Any, Self

import faiss
import numpy as np

from vectorkit.errors import Corrupt, DimensionMismatch, InvalidRecord, SpecMismatch, Unavailable
from vectorkit.local.adopt import Chunk, check_count
from vectorkit.types import CollectionSpec, FloatArray, Record
from vectorkit.validate import check_batch
from vectorkit_faiss import reader
from vectorkit_faiss.header import METRICS, Header, index_file, read_header

PATIENCE = 60.0  # seconds for a block, and for a load beside what its bytes take
SLOWEST = 20e6  # bytes a second that a disk reads at least
UNIT = 1e-3  # how far from 1 the length of a unit vector may be
_ENVIRONMENT = ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def open_file(name: str, spec: CollectionSpec, rows: Iterable[Record] | None) -> Generator[Chunk, None, None]:
    """The rows of a FAISS file or LangChain folder, in index order, checked against the spec.

    Raises NotFound, InvalidArgument, Unsupported, Corrupt, Unavailable, DimensionMismatch, SpecMismatch, InvalidRecord.
    """
    path = index_file(name)
    header = read_header(path)
    check_count(rows, header.count, f"{str(path)!r}")
    _check_spec(header, spec, str(path))
    start = 0
    with _Reading(path, header) as reading:
        while (block := reading.block()) is not None:
            ids, vectors = block
            if spec.metric == "cosine":
                _check_unit(spec, vectors, start, header, str(path))
            if ids is None:
                yield [str(number) for number in range(start, start + len(vectors))], vectors
            else:
                yield [str(number) for number in ids], vectors
            start += len(vectors)
    if start != header.count:
        raise Corrupt(f"{str(path)!r} is damaged: it gave {start} rows and claims {header.count}")


def _check_spec(header: Header, spec: CollectionSpec, shown: str) -> None:
    if header.dimension != spec.dimension:
        raise DimensionMismatch(
            f"{shown!r} holds vectors of {header.dimension} numbers, {spec.name!r} is for {spec.dimension}",
            expected=spec.dimension,
            got=header.dimension,
        )
    if spec.metric not in ("cosine", header.metric):
        raise SpecMismatch(
            f"{shown!r} measures by {header.metric}, {spec.name!r} by {spec.metric}; say metric={header.metric!r}, or 'cosine' if its "
            "vectors have length 1",
            differences={"metric": (header.metric, spec.metric)},
        )


def _check_unit(spec: CollectionSpec, vectors: FloatArray, start: int, header: Header, shown: str) -> None:
    """Under cosine an index of unit vectors ranks as it did; one of other vectors would rank otherwise."""
    try:
        check_batch(spec, _bare(vectors))
    except InvalidRecord as error:
        raise InvalidRecord(error.detail, row=start + (error.row or 0), field=error.field) from None
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    wrong = np.flatnonzero(np.abs(lengths - 1) > UNIT)
    if len(wrong):
        row = int(wrong[0])
        raise SpecMismatch(
            f"{shown!r} measures by {header.metric}, which is cosine for vectors of length 1 alone, and row {start + row} has length "
            f"{lengths[row]:.4g}; adopt it with metric={header.metric!r}",
            differences={"metric": (header.metric, "cosine")},
        )


def _bare(vectors: FloatArray) -> Any:
    from vectorkit.types import Batch

    return Batch([str(number) for number in range(len(vectors))], vectors)


class _Reading:
    """A running reader and its frames; leaving the context ends it."""

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        self._header = header
        self._late = False
        self._mapped = False
        self._step = reader.block_rows(header.dimension)
        folders = sorted({str(Path(module.__file__).parent.parent) for module in (faiss, np) if module.__file__})
        if not sys.executable:
            raise Unavailable(f"{str(path)!r} is read by a second Python, and this program does not say where one is")
        command = [
            sys.executable, "-I", reader.__file__, str(path.absolute()), str(header.size), str(header.count), *folders,
        ]  # fmt: skip
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            self._child = subprocess.Popen(  # noqa: S603 - our own file, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise Unavailable(f"{str(path)!r} is read by a second Python, which could not start: {error}") from error

    def __enter__(self) -> Self:
        try:
            self._mapped = self._agrees(self._json(*self._frame(PATIENCE + self._header.size / SLOWEST)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def _agrees(self, told: dict[str, Any]) -> bool:
        """Whether the rows have ids of their own; Corrupt when what was loaded is not what the header says."""
        header = self._header
        here = (header.dimension, header.count, header.metric)
        if (told.get("dimension"), told.get("rows"), METRICS.get(told.get("metric", -1))) != here:
            raise self._damaged("its header and its content say different things")
        return bool(told.get("ids"))

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        self._pipe.close()

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._child.stdout is not None
        return self._child.stdout

    def block(self) -> tuple[list[int] | None, FloatArray] | None:
        """Ids where the index has its own, and (n, d) vectors; None at the end."""
        tag, body = self._frame(PATIENCE)
        if tag == b"E":
            return None
        if tag != b"B":
            raise self._damaged(self._reason(body))
        width = 4 * self._header.dimension + (8 if self._mapped else 0)
        count, rest = divmod(len(body), width)
        if rest or not count:
            raise self._damaged("its reader sent half a row")
        edge = count * 4 * self._header.dimension
        vectors = np.frombuffer(body, "<f4", count * self._header.dimension)
        ids = np.frombuffer(body, "<i8", offset=edge).tolist() if self._mapped else None
        return ids, vectors.astype(np.float32, copy=False).reshape(count, -1)

    def _frame(self, seconds: float) -> tuple[bytes, bytes]:
        """A tag and its body, within so many seconds."""
        watch = threading.Timer(seconds, self._give_up)
        watch.start()
        try:
            head = self._pipe.read(9)
            if len(head) < 9:
                raise self._died()
            (size,) = struct.unpack("<Q", head[1:])
            if size > self._step * (4 * self._header.dimension + 8) + 4_096:
                raise self._damaged("its reader sent too much")
            body = self._pipe.read(size)
            if len(body) < size:
                raise self._died()
        finally:
            watch.cancel()
        return head[:1], body

    def _give_up(self) -> None:
        self._late = True
        self._child.kill()

    def _json(self, tag: bytes, body: bytes) -> dict[str, Any]:
        if tag != b"H":
            raise self._damaged(self._reason(body))
        try:
            told = json.loads(body)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise self._damaged("its reader said nothing that can be understood")
        return told

    def _reason(self, body: bytes) -> str:
        try:
            return str(json.loads(body))[:500]
        except ValueError:
            return "its reader said nothing that can be understood"

    def _damaged(self, why: str) -> Corrupt:
        return Corrupt(f"{str(self._path)!r} cannot be adopted: {why}")

    def _died(self) -> Corrupt | Unavailable:
        """Why the reader ended in the middle."""
        try:
            code = self._child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return self._damaged("the process that reads it fell silent")
        if self._late:
            return self._damaged("reading it took too long")
        if code == 3:
            return Unavailable(
                f"{str(self._path)!r} is read by a second Python ({sys.executable}), which could not import faiss"
            )
        if code < 0:
            try:
                return self._damaged(f"reading it ends the process that reads it ({signal.Signals(-code).name})")
            except ValueError:
                pass
        return self._damaged(f"the process that reads it ended early, with code {code}")
