"""Qdrant's engine in this process (package qdrant-edge-py): a shard for each collection in a directory that has one owner.

The engine has shards only; which there are is in the catalogue that the embedded stores share (`vectorkit.local.home`). Whatever
it does it holds the interpreter's lock, so what takes seconds is done in another process (`shard.py`).
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import qdrant_edge as qe

from vectorkit.errors import (
    Closed,
    Corrupt,
    InvalidArgument,
    Locked,
    NotFound,
    Unavailable,
    Unsupported,
    VectorkitError,
)
from vectorkit.local.files import fsync_folder, write_durably
from vectorkit.local.home import Home
from vectorkit.local.options import LocalOptions
from vectorkit.runtime import Runtime
from vectorkit.types import CollectionSpec, Flat, FloatArray
from vectorkit_qdrant.engine import Row, Search, Size
from vectorkit_qdrant.engineobjects import engine_config, engine_filter, engine_indexes, engine_request, included
from vectorkit_qdrant.filters import Condition
from vectorkit_qdrant.options import QdrantOptions
from vectorkit_qdrant.sealing import seal, unseal

T = TypeVar("T")
FORMAT = "vectorkit-qdrant-edge"
LET_GO = 5.0


# --------------------------------------------------------------------------------------------- the engine


# Bytes of a disk that are left free: the engine maps sparse files, and to write there when the disk is full ends the process.
MARGIN = 16 << 20
_WRITTEN = "vectorkit.rows"
_OUT_OF = (
    "No space left",
    "Input/output",
    "Out of memory",
    "Cannot allocate",
    "Too many open files",
    "Permission denied",
)


@dataclass(slots=True, eq=False)
class _Held:
    """A collection as it is here. turn: held for each request; changing: for a read and the write it leads to.

    sound: it was open before, so that opening it again cannot end the process.
    """

    spec: CollectionSpec
    turn: AbstractAsyncContextManager[Any]
    changing: AbstractAsyncContextManager[Any]
    shard: Any = None
    sound: bool = False


class Edge:
    """An open directory of shards; `temporary` ones go with it.

    A request that failed closes its shard: what the engine's log has of it is done, wholly, when the shard is next opened.
    """

    shared = False

    def __init__(self, path: Path, shown: str, options: QdrantOptions, runtime: Runtime, *, temporary: bool) -> None:
        self.shown = shown
        self._runtime = runtime
        self._options = options
        self._temporary = temporary
        self._pid = os.getpid()
        self._held: dict[str, _Held] = {}
        self._catalogue = threading.RLock()
        self._optimizing = runtime.lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        try:
            self._home = Home(
                path,
                read_only=False,
                shown=shown,
                options=LocalOptions(lock_timeout=options.lock_timeout),
                format=FORMAT,
                written=lambda folder: (folder / _WRITTEN).exists(),
            )
        except Locked as error:  # which is right for stores that have readers beside the writer
            raise Locked(str(error).replace(", or connect with read_only=True", "")) from None
        if temporary:
            weakref.finalize(self, _remove, path, self._pid)
        _open.add(self)

    @property
    def native(self) -> Mapping[str, Any]:
        """The engine's open shards by physical name."""
        return {name: held.shard for name, held in list(self._held.items()) if held.shard is not None}

    def forget(self) -> None:
        """In a forked child: the shards are the parent's, and to drop them would write what they hold into its files."""
        for held in self._held.values():
            if held.shard is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(held.shard))

    # ------------------------------------------------------------------------------------- requests

    def _alive(self) -> None:
        if os.getpid() != self._pid:
            raise Closed(f"{self.shown} was opened before this process was forked; connect again in the child")
        if self._closed:
            raise Closed(f"{self.shown} was closed; connect again")

    @contextmanager
    def _typed(self) -> Iterator[None]:
        """The engine's bare exceptions and its panics, which are no Exception, as ours."""
        try:
            yield
        except OSError as error:
            raise Unavailable(f"{self.shown}: {error}; once that is mended try again") from error
        except BaseException as error:
            if type(error) is Exception or type(error).__name__ == "PanicException":
                raise _failure(self.shown, str(error)) from error
            raise

    async def _catalogued(self, act: Callable[[], T]) -> T:
        def acting() -> T:
            with self._catalogue, self._typed():
                self._alive()
                return act()

        self._alive()
        return await self._runtime.offload(acting)

    async def _ask(self, name: str, act: Callable[[Any], T], *, room: int | None = None) -> T:
        """One request to a collection, the only one at that time. room: of a write, how many bytes it may add."""
        self._alive()
        held = self._holding(name)

        def acting() -> T:
            self._alive()
            if room is not None:
                self._room(MARGIN + room)
            shard = self._shard(name, held)
            try:
                with self._typed():
                    value = act(shard)
                    if room is not None and not self._temporary:
                        shard.flush()
            except (VectorkitError, KeyboardInterrupt):
                held.sound = False
                self._release(held)
                raise
            return value

        async with held.turn:
            return await self._runtime.offload(acting)

    def _holding(self, name: str) -> _Held:
        held = self._held.get(name)
        if held is None:
            with self._catalogue:
                self._alive()
                spec = self._spec_of(name)
                held = self._held.setdefault(name, _Held(spec, self._runtime.lock(), self._runtime.lock()))
        return held

    def _spec_of(self, name: str) -> CollectionSpec:
        logical = name.rpartition("@")[0]
        with suppress(NotFound):
            spec = self._home.spec(logical)
            if spec.physical == name:
                return spec
        raise NotFound(f"{self.shown}: the collection {logical!r} was dropped")

    def _shard(self, name: str, held: _Held) -> Any:
        if held.shard is None:
            with self._catalogue:
                self._spec_of(name)
            folder = self._home.folder(name)
            with self._typed():
                self._room(MARGIN // 4)
                if not (folder / "edge_config.json").exists():
                    raise Corrupt(f"{self.shown}: {folder.name} holds no shard; restore the directory from a backup")
                if not unseal(folder, self.shown) and not held.sound:
                    self._recover(folder)
                shutil.rmtree(
                    folder / "temp_segments", ignore_errors=True
                )  # of a build that was cut short, a copy of all
                if not (folder / _WRITTEN).exists():
                    write_durably(folder / _WRITTEN, b"")
                held.shard = _loaded(folder)
                held.sound = True
        return held.shard

    def _release(self, held: _Held) -> bool:
        """Close a shard, and say whether it let itself be closed."""
        shard, held.shard = held.shard, None
        if shard is None:
            return False
        try:
            with self._typed():
                shard.close()
        except VectorkitError:
            return False
        return True

    def _room(self, wanted: int) -> None:
        free = shutil.disk_usage(self._home.path).free
        if free < wanted:
            raise Unavailable(
                f"{self.shown}: the disk has {free >> 20} MiB left and this takes up to {-(-wanted >> 20)}; nothing was done. "
                "Free some space and try again"
            )

    # ------------------------------------------------------------------------------------- another process

    def _start(self, verb: str, folder: Path) -> "subprocess.Popen[bytes]":
        """It holds the directory's lock too: should this process be killed, nobody opens what the other still writes."""
        program = str(Path(__file__).with_name("shard.py"))
        packages = str(Path(qe.__file__).parents[1])
        lock = self._home.lock
        return subprocess.Popen(  # noqa: S603 - this interpreter and a file of ours
            [sys.executable, "-P", program, verb, str(folder), packages, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=() if lock is None or os.name == "nt" else (lock.fileno(),),
        )

    def _ended(self, child: "subprocess.Popen[bytes]") -> None:
        """What became of it, raised if that is an error."""
        assert child.stdout is not None
        said = child.stdout.read().decode(errors="replace").strip()
        if child.returncode == -getattr(signal, "SIGKILL", 0):
            said = "Out of memory, or killed by somebody, while it worked in another process"
        elif child.returncode < 0 and shutil.disk_usage(self._home.path).free < MARGIN:
            said = "No space left"
        if child.returncode:
            raise _failure(self.shown, said or f"it ended its process with {child.returncode}")

    def _recover(self, folder: Path) -> None:
        """Open and read in another process first what was not closed in order."""
        if _program():
            with self._start("recover", folder) as child:
                try:
                    child.wait()
                except BaseException:
                    child.kill()
                    raise
                self._ended(child)

    async def optimize(self, name: str) -> None:
        """In another process: cancelled, interrupted or closed in the middle, that is ended and the shard is as it was."""
        self._alive()
        held = self._holding(name)
        folder = self._home.folder(name)

        def begin() -> bool:
            self._alive()
            shard = self._shard(name, held)
            with self._typed():
                self._room(MARGIN + 2 * _occupied(folder))
                if not _program():
                    shard.optimize()
                shard.flush()
            self._release(held)
            return _program()

        async with self._optimizing, held.turn:
            if not await self._runtime.offload(begin):
                return
            self._alive()
            with self._typed():
                child = self._start("optimize", folder)
            with child:
                self._child = child
                try:
                    pause = 0.002
                    while child.poll() is None:
                        self._alive()
                        await self._runtime.sleep(pause)
                        pause = min(2 * pause, 0.05)
                    self._alive()
                    held.sound = False
                    with self._typed():
                        self._ended(child)
                        fsync_folder(folder / "segments")
                    held.sound = True
                except BaseException:
                    child.kill()
                    raise
                finally:
                    self._child = None

    # ------------------------------------------------------------------------------------- collections

    async def names(self) -> list[str]:
        return await self._catalogued(self._home.names)

    async def describe(self, name: str, *, read_only: bool) -> CollectionSpec:
        return await self._catalogued(lambda: self._home.spec(name))

    async def foreign(self, name: str) -> Any:
        raise self._none_hidden()

    async def foreign_page(
        self, name: str, limit: int, start: str | int | None, *, vectors: bool | Sequence[str]
    ) -> tuple[list[Row], str | int | None]:
        raise self._none_hidden()

    async def publish(self, spec: CollectionSpec) -> None:
        raise self._none_hidden()

    async def discard(self, spec: CollectionSpec) -> None:
        raise self._none_hidden()

    def _none_hidden(self) -> Unsupported:
        return Unsupported(
            f"{self.shown} holds no collections but its own; adopt from a server, or read the shard with qdrant_edge and upsert its rows"
        )

    async def create(self, spec: CollectionSpec, *, hidden: bool = False) -> CollectionSpec:
        def build(made: CollectionSpec, folder: Path) -> None:
            shard = qe.EdgeShard.create(str(folder), engine_config(made, self._options))
            try:
                for key, schema in engine_indexes(made, self._options.tenant_field):
                    shard.update(qe.UpdateOperation.create_field_index(key, schema))
                shard.flush()
            finally:
                shard.close()
            fsync_folder(folder / "segments")  # the engine syncs what is in it, and not that it is there

        def make() -> CollectionSpec:
            self._room(MARGIN + (1 << 20))
            made = self._home.add(spec, build)
            self._held[made.physical] = _Held(made, self._runtime.lock(), self._runtime.lock(), sound=True)
            return made

        return await self._catalogued(make)

    async def drop(self, name: str) -> None:
        spec = await self._catalogued(lambda: self._home.spec(name))
        held = self._holding(spec.physical)

        def remove() -> None:
            self._spec_of(spec.physical)
            self._release(held)
            self._home.remove(name, spec.physical)
            self._held.pop(spec.physical, None)

        async with held.turn:
            await self._catalogued(remove)

    def changing(self, name: str) -> AbstractAsyncContextManager[Any]:
        self._alive()
        return self._holding(name).changing

    # ------------------------------------------------------------------------------------- points

    async def upsert(
        self,
        name: str,
        points: Sequence[str],
        vectors: FloatArray,
        payloads: Sequence[Mapping[str, Any]],
        *,
        fresh: bool,
    ) -> None:
        def write(shard: Any) -> None:
            rows: Any = zip(points, vectors, payloads, strict=True)
            made = [qe.Point(point, vector.tolist(), payload) for point, vector, payload in rows]
            mode = qe.UpdateMode.InsertOnly if fresh else qe.UpdateMode.Upsert
            shard.update(qe.UpdateOperation.upsert_points(made, update_mode=mode))

        await self._ask(name, write, room=_size_of(vectors, payloads))

    async def overwrite(self, name: str, payloads: Mapping[str, Mapping[str, Any]], seen: Mapping[str, int]) -> None:
        def write(shard: Any) -> None:
            found = shard.retrieve(list(payloads), qe.PayloadSelector.Include(["_vk_seq"]), True)
            kept = [row for row in found if int(row.payload["_vk_seq"]) == seen[str(row.id)]]
            # points and not payloads: one record of the engine's log for all of them
            made = [qe.Point(str(row.id), row.vector, dict(payloads[str(row.id)])) for row in kept]
            if made:
                shard.update(qe.UpdateOperation.upsert_points(made, update_mode=qe.UpdateMode.UpdateOnly))

        room = len(payloads) * 64 * self._holding(name).spec.dimension + 16 * len(json.dumps(list(payloads.values())))
        await self._ask(name, write, room=room)

    async def retrieve(
        self, name: str, points: Sequence[str], *, vectors: bool = False, keys: Sequence[str] | None = None
    ) -> list[Row]:
        return await self._ask(
            name,
            lambda shard: [_row(found, vectors) for found in shard.retrieve(list(points), included(keys), vectors)],
        )

    async def search(self, name: str, searches: Sequence[Search]) -> list[list[Row]]:
        def look(shard: Any) -> list[list[Row]]:
            requests = [engine_request(search) for search in searches]
            if len(requests) == 1:
                answers = [shard.query(requests[0])]
            else:
                answers = shard.query_batch(qe.QueryBatchRequest(requests))
            return [
                [_found(found, search.vectors) for found in answer]
                for search, answer in zip(searches, answers, strict=True)
            ]

        return await self._ask(name, look)

    async def scroll(
        self,
        name: str,
        where: Condition | None,
        limit: int,
        start: str | int | None,
        *,
        vectors: bool,
        keys: Sequence[str] | None = None,
    ) -> tuple[list[Row], str | int | None]:
        def read(shard: Any) -> tuple[list[Row], str | int | None]:
            request = qe.ScrollRequest(
                offset=start,
                limit=limit,
                filter=engine_filter(where),
                with_payload=included(keys),
                with_vector=vectors,
            )
            found, following = shard.scroll(request)
            return [_row(row, vectors) for row in found], None if following is None else str(following)

        return await self._ask(name, read)

    async def count(self, name: str, where: Condition | None) -> int:
        return await self._ask(
            name, lambda shard: int(shard.count(qe.CountRequest(filter=engine_filter(where), exact=True)))
        )

    async def delete(self, name: str, where: Condition) -> None:
        await self._ask(
            name,
            lambda shard: shard.update(qe.UpdateOperation.delete_points_by_filter(engine_filter(where))),
            room=0,
        )

    async def size(self, name: str) -> Size:
        def look(shard: Any) -> Size:
            rows = int(
                shard.count(qe.CountRequest(exact=True))
            )  # info() counts what a killed optimize() left twice, twice
            graph = not isinstance(
                self._holding(name).spec.index, Flat
            )  # the engine calls rows indexed without one too
            indexed = min(rows, shard.info().indexed_vectors_count) if graph else 0
            return Size(rows, indexed, {"on disk": _occupied(self._home.folder(name))})

        return await self._ask(name, look)

    # ------------------------------------------------------------------------------------- the end

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            if os.getpid() == self._pid:
                await self._runtime.finish(self._end())

    async def _end(self) -> None:
        if (child := self._child) is not None:
            child.kill()
        try:
            for name, held in list(self._held.items()):
                async with held.turn:
                    await self._runtime.offload(partial(self._put_away, name, held))
        finally:
            with self._catalogue:
                self._home.close()
            if self._temporary:
                shutil.rmtree(self._home.path, ignore_errors=True)

    def _put_away(self, name: str, held: _Held) -> None:
        if self._release(held) and not self._temporary:
            with suppress(OSError):  # a full disk: it is read before it is next opened
                seal(self._home.folder(name))


def _loaded(folder: Path) -> Any:
    """The shard of a folder. One of this process's own that a Ctrl-C left to the garbage collector lets its files go a moment later."""
    end = time.monotonic() + LET_GO
    while True:
        try:
            return qe.EdgeShard.load(str(folder))
        except Exception as error:
            if "WouldBlock" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.02)


def _found(found: Any, vectors: bool) -> Row:
    """A row of a search, whose point nobody asks for: to read it makes an object of it, which costs as much as the rest."""
    payload = found.payload or {}
    return Row("" if "_vk_id" in payload else str(found.id), payload, found.vector if vectors else None, found.score)


def _row(found: Any, vectors: bool, score: float | None = None) -> Row:
    return Row(str(found.id), found.payload or {}, found.vector if vectors else None, score)


def _size_of(vectors: FloatArray, payloads: Sequence[Mapping[str, Any]]) -> int:
    """Bytes that a write may add, generously: the log, the rows, their payload indexes."""
    texts = sum(len(value) for payload in payloads for value in payload.values() if isinstance(value, str))
    return 4 * int(vectors.nbytes) + 16 * texts + 1_024 * len(payloads)


def _occupied(folder: Path) -> int:
    """Bytes on disk: the engine's files are sparse."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            total += getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
    return total


def _program() -> bool:
    """Whether there is an interpreter to run a program with: none in an application that was frozen into one file."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def _remove(path: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(path, ignore_errors=True)


def _failure(shown: str, said: str) -> VectorkitError:
    """One table of what the engine says: its exceptions have no classes."""
    match said:
        case _ if "WouldBlock" in said:
            return Locked(f"{shown}: a collection is open elsewhere ({said}); close that handle and try again")
        case _ if "not initialized" in said:
            return Closed(f"{shown} was closed; connect again")
        case _ if any(lack in said for lack in _OUT_OF):
            return Unavailable(f"{shown}: {said}; once that is mended try again")
        case _ if said.startswith(("Wrong input", "Bad request")):
            return InvalidArgument(f"{shown}: {said}")
        case _:
            return Corrupt(f"{shown}: the engine cannot go on: {said}; restore the directory from a backup")


_open: "weakref.WeakSet[Edge]" = weakref.WeakSet()


def _after_fork() -> None:
    for edge in list(_open):
        edge.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def open_edge(path: str, shown: str, options: QdrantOptions, runtime: Runtime) -> Edge:
    """Open a directory, or a new one of our own where the path is empty, which close() removes."""
    if path:
        return Edge(Path(path), shown, options, runtime, temporary=False)
    return Edge(Path(tempfile.mkdtemp(prefix="vectorkit-qdrant-")), shown, options, runtime, temporary=True)
