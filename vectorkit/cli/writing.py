"""Commands that write rows: load and delete."""

from collections.abc import Iterator
from itertools import chain
from typing import Annotated

import numpy as np
import typer

import vectorkit as vk
from vectorkit.cli.exits import Code, fail, guard, say
from vectorkit.cli.interrupt import Stop, soft_interrupt
from vectorkit.cli.options import (
    CollectionArgument,
    DebugOption,
    JsonOption,
    StoreOption,
    WhereOption,
    YesOption,
    collection_of,
    opened,
    parsed,
)
from vectorkit.cli.output import Watch, bar, emit, rows_text
from vectorkit.ingest.chunk import SIZE
from vectorkit.ingest.load import BATCH, Progress
from vectorkit.ingest.load import load as load_rows
from vectorkit.ingest.read import FORMATS, Files, Format
from vectorkit.ingest.rows import Row

commands = typer.Typer()


@commands.command()
def load(
    collection: CollectionArgument,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders, or - for standard input.")],
    store: StoreOption = None,
    format: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Read every file as {', '.join(FORMATS)}; else by its suffix.")
    ] = None,
    chunk: Annotated[int, typer.Option(min=50, help="Characters of a piece of a text or Markdown file.")] = SIZE,
    batch: Annotated[int, typer.Option(min=1, help="Rows of one write.")] = BATCH,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Load JSON Lines, CSV, Parquet, text and Markdown. Makes the collection if it is not there.

    Columns: id, vector, text, metadata, expires_at; every other one is metadata.

    A row without an id gets one from its content: loading a file again changes nothing.

    A row without a vector has its text embedded, if vectorkit can make the collection's vectors.

    A new collection fits the first row: its vector's length, or the offline embedder.
    """
    with guard(debug):
        files = Files(paths, format=_format(format), chunk=chunk)  # first: a wrong path makes no store
        with soft_interrupt() as stop, opened(store, read_only=False) as handle:
            try:
                _load(handle, collection, files, batch, stop, json=json)
            finally:
                stop.over = True


def _load(handle: vk.Store, collection: str, files: Files, batch: int, stop: Stop, *, json: bool) -> None:
    rows = iter(files)
    try:
        found = handle.collection(collection)
    except vk.NotFound:
        found, rows = _make(handle, collection, rows)
    files.fields = found.spec.fields
    watch = Watch()
    done = Progress(0, 0)
    with bar("loading") as update:

        def tell(progress: Progress) -> None:
            nonlocal done
            done = progress
            update(progress.written, files.fraction)

        try:
            load_rows(found, stop.until(rows), batch=batch, on_progress=tell)
        except KeyboardInterrupt:  # the second one: a commit may have got through that nobody has told of
            fail(
                Code.INTERRUPTED, f"interrupted; at least {rows_text(done.written)} written to {collection!r} and kept"
            )
    if stop.pressed:
        fail(Code.INTERRUPTED, f"interrupted; {rows_text(done.written)} written to {collection!r} and kept")
    if json:
        emit({"collection": collection, "written": done.written, "seconds": round(watch.seconds, 3)})
    else:
        rate = done.written / max(watch.seconds, 1e-9)
        say(f"{rows_text(done.written)} written to {collection!r} in {watch.seconds:.1f} s ({rate:,.0f} rows/s)")


def _format(name: str | None) -> Format | None:
    if name is None:
        return None
    for known in FORMATS:
        if known == name:
            return known
    raise vk.InvalidArgument(f"--format is one of {', '.join(FORMATS)}, not {name!r}")


def _make(store: vk.Store, name: str, rows: Iterator[Row]) -> tuple[vk.Collection, Iterator[Row]]:
    """A collection that fits the first row, and all the rows."""
    first = next(rows, None)
    if first is None or first.record.vector is None:
        embedder = vk.HashEmbedder()
        spec = vk.CollectionSpec(name, dimension=embedder.dimension, embedding=embedder.fingerprint)
        told = f"the offline embedder {embedder.fingerprint.name} (words and parts of words, not meaning)"
    else:
        spec = vk.CollectionSpec(name, dimension=len(np.atleast_1d(first.record.vector)))
        told = f"vectors of {spec.dimension} numbers as they come, cosine"
    made = store.create_collection(spec)
    say(f"made the collection {name!r}: {told}")
    return made, chain([] if first is None else [first], rows)


@commands.command()
def delete(
    collection: CollectionArgument,
    store: StoreOption = None,
    id: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="A row's id; may be repeated.")] = None,
    where: WhereOption = None,
    everything: Annotated[bool, typer.Option("--everything", help="Every row; needs --yes.")] = False,
    yes: YesOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete rows by id, by filter, or all of them; says how many there were."""
    with guard(debug), opened(store, read_only=False) as handle:
        found = collection_of(handle, collection)
        if bool(id) + (where is not None) + everything != 1:
            raise vk.InvalidArgument("delete what? give one of --id, --where and --everything")
        if everything and not yes:
            fail(Code.BAD_INPUT, f"this would delete all {rows_text(found.count())} of {collection!r}; add --yes")
        rows = found.delete(ids=id or None, where=parsed(where), everything=everything)
        if json:
            emit({"collection": collection, "deleted": rows})
        else:
            say(f"{rows_text(rows)} deleted from {collection!r}")
