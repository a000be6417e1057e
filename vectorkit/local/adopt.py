"""Rows that somebody else's index holds, made into a collection whole or not at all.

They are written beside the collections, where nobody looks, and published by one commit of the catalogue; what a crash
leaves behind is removed when the store is next opened.
"""

import secrets
import shutil
import threading
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator, Mapping, Sized
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from vectorkit.adapter import Scope
from vectorkit.errors import AlreadyExists, DimensionMismatch, InvalidArgument, InvalidRecord
from vectorkit.local.home import Home
from vectorkit.local.rows import create_rows, respecify
from vectorkit.local.shelf import Shelf
from vectorkit.local.sql import typed
from vectorkit.types import Batch, CollectionSpec, FloatArray, Record
from vectorkit.validate import check_batch

Chunk: TypeAlias = tuple[list[str], FloatArray]
Source: TypeAlias = Callable[[str, CollectionSpec, Iterable[Record] | None], Generator[Chunk, None, None]]
"""Opens what is to be adopted by its name and gives ids and (n, d) vectors, some 10,000 rows at a time, in index order. The
records that go beside it are only counted, where they can be."""


def adopt(
    home: Home,
    lock: threading.Lock,
    spec: CollectionSpec,
    chunks: Generator[Chunk, None, None],
    rows: Iterable[Record] | None,
    open_shelf: Callable[[Path, CollectionSpec], Shelf],
) -> CollectionSpec:
    """Make the collection from chunks and the records beside them; its spec as made.

    lock: held while the catalogue is looked at and changed. Raises AlreadyExists, InvalidRecord naming the row, InvalidArgument when
    rows and vectors are not as many, and whatever the chunks raise; nothing is kept then.
    """
    with lock:
        if spec.name in home.names():
            raise AlreadyExists(f"{home.shown} has a collection {spec.name!r} already")
        beside = home.path / "c" / f"adopting.{secrets.token_hex(8)}"  # no physical name is without an @
        beside.mkdir()
    try:
        create_rows(beside / "rows.db", spec)
        shelf = open_shelf(beside, spec)
        try:
            with closing(chunks):
                _fill(shelf, spec, chunks, rows)
            shelf.optimize()
        finally:
            shelf.close()
        with lock:
            return home.add(spec, lambda made, folder: _move(beside, folder, made))
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _fill(shelf: Shelf, spec: CollectionSpec, chunks: Iterator[Chunk], rows: Iterable[Record] | None) -> None:
    records = None if rows is None else _records(rows)
    scope = Scope(collection=spec.physical)
    start = 0
    for ids, vectors in chunks:
        batch = Batch(ids, vectors)
        if records is not None:
            batch = _beside(batch, list(islice(records, len(batch))), start)
        try:
            checked = check_batch(spec, batch)
        except DimensionMismatch:
            raise
        except InvalidRecord as error:
            row = start + (error.row or 0)
            raise InvalidRecord(error.detail, row=row, field=error.field) from None
        shelf.write(scope, checked, "insert")
        start += len(batch)
    if records is not None and next(records, None) is not None:
        raise InvalidArgument(f"the index has {start} rows, and more than that were given beside it")


def _records(rows: Any) -> Iterator[Record]:
    if isinstance(rows, str | bytes | Mapping | Record | Batch | AsyncIterable) or not isinstance(rows, Iterable):
        raise InvalidArgument(f"rows must be an iterable of Record, got {type(rows).__name__}")
    return iter(rows)


def check_count(rows: Any, count: int, shown: str) -> None:
    """Refuse a list of another length than the index before anything is read. Raises InvalidArgument."""
    if isinstance(rows, Sized) and len(rows) != count:
        raise InvalidArgument(f"{shown} has {count} rows, and {len(rows)} were given beside it")


def _beside(batch: Batch, records: list[Record], start: int) -> Batch:
    """The vectors with what was given beside them; an empty id keeps the index's own."""
    if len(records) < len(batch):
        raise InvalidArgument(f"the records beside the index end after {start + len(records)}, and it has more rows")
    for at, record in enumerate(records):
        if not isinstance(record, Record):
            raise InvalidRecord(f"expected a Record, got {type(record).__name__}", row=start + at)
        if record.vector is not None:
            raise InvalidRecord("the vector comes from the index; leave it None", row=start + at, field="vector")
    return Batch(
        [own if record.id == "" else record.id for own, record in zip(batch.ids, records, strict=True)],
        batch.vectors,
        [record.text for record in records],
        [record.metadata for record in records],
        [record.expires_at for record in records],
    )


def _move(beside: Path, folder: Path, made: CollectionSpec) -> None:
    """What was written beside becomes the collection's folder, its database told of its generation."""
    with typed(made.name):
        respecify(beside / "rows.db", made)
    for entry in sorted(beside.iterdir()):
        entry.rename(folder / entry.name)
