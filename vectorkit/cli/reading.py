"""Commands that read rows: search, get, count, scan. They open the store read-only, beside whoever writes."""

import sys
from itertools import islice
from typing import Annotated, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import typer

import vectorkit as vk
from vectorkit.cli.exits import Code, guard, say
from vectorkit.cli.options import (
    CollectionArgument,
    DebugOption,
    JsonOption,
    StoreOption,
    VectorsOption,
    WhereOption,
    collection_of,
    opened,
    parsed,
)
from vectorkit.cli.output import (
    Watch,
    console,
    emit,
    hit_json,
    hits_table,
    metadata_text,
    plain,
    record_json,
    rows_text,
)
from vectorkit.ingest.embed import embedder_for
from vectorkit.ingest.rows import BadValue, json_list
from vectorkit.types import FloatArray, Hits

commands = typer.Typer()
Mode: TypeAlias = Literal["dense", "keyword", "hybrid"]


@commands.command()
def search(
    collection: CollectionArgument,
    words: Annotated[str | None, typer.Argument(metavar="[WORDS]", help="What to look for, in quotes.")] = None,
    store: StoreOption = None,
    mode: Annotated[
        str | None,
        typer.Option(help="dense, keyword or hybrid (both, fused by reciprocal rank). Default: as much as can be had."),
    ] = None,
    vector: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="The query's vector, when the offline embedder did not make the rows'."),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many rows.")] = 10,
    where: WhereOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Search by words, by a vector, or both. Exit code 1 when nothing is found."""
    with guard(debug), opened(store, read_only=True) as handle:
        found = collection_of(handle, collection)
        given = None if vector is None else _vector(vector)
        chosen = _mode(handle, found, words, given, mode)
        watch = Watch()
        hits = _ask(found, chosen, words or "", given, k, parsed(where))
        seconds = watch.seconds
        if json:
            for rank, hit in enumerate(hits, 1):
                emit(hit_json(rank, hit))
        elif hits:
            screen = console()
            screen.print(hits_table(hits, screen.width))
        if not hits:
            say("nothing found")
            raise typer.Exit(Code.NOTHING)
        say(f"{rows_text(len(hits))}, {chosen}, {hits.coverage}, {1000 * seconds:.1f} ms")


def _vector(text: str) -> FloatArray:
    try:
        vector = np.asarray(json_list(text, "--vector"), np.float32)
    except BadValue as error:
        raise vk.InvalidArgument(str(error)) from None
    except (TypeError, ValueError):
        raise vk.InvalidArgument("--vector must be a JSON array of numbers") from None
    return vector


def _mode(
    store: vk.Store, collection: vk.Collection, words: str | None, vector: FloatArray | None, asked: str | None
) -> Mode:
    """The mode asked for, or the best that words, vector and store allow; what cannot be had is said or raised."""
    match asked:
        case "dense" | "hybrid" | "keyword":
            if not words and (asked != "dense" or vector is None):
                raise vk.InvalidArgument(f"--mode {asked} needs words to look for")
            return asked
        case None:
            pass
        case _:
            raise vk.InvalidArgument(f"--mode is dense, keyword or hybrid, not {asked!r}")
    if not words:
        if vector is None:
            raise vk.InvalidArgument('what to look for? give words in quotes, or --vector "[…]"')
        return "dense"
    by_words = store.capability.keyword and collection.spec.text
    if vector is not None:
        return "hybrid" if by_words else "dense"
    try:
        _embedder(collection)
    except vk.VectorkitError as error:
        if not by_words:
            raise
        say(f"by keyword alone: {error}")
        return "keyword"
    if not by_words:
        say("by vector alone: no keyword index here")
    return "hybrid" if by_words else "dense"


def _embedder(collection: vk.Collection) -> vk.HashEmbedder:
    embedding = collection.spec.embedding
    if embedding is None:
        raise vk.Unsupported(
            f"{collection.name!r} does not say what makes its vectors; give the query's with --vector, or --mode keyword"
        )
    return embedder_for(embedding)


def _ask(
    collection: vk.Collection, mode: Mode, words: str, vector: FloatArray | None, k: int, where: vk.Filter | None
) -> Hits:
    if mode == "keyword":
        return collection.keyword(words, k=k, where=where)
    query = _embedder(collection).embed([words])[0] if vector is None else vector
    if mode == "dense":
        return collection.query(query, k=k, where=where)
    return collection.hybrid(words, query, k=k, where=where)


@commands.command()
def get(
    collection: CollectionArgument,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="One id or several.")],
    store: StoreOption = None,
    vectors: VectorsOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show rows by id, in the order asked. Exit code 1 when none of them is there."""
    with guard(debug), opened(store, read_only=True) as handle:
        rows = collection_of(handle, collection).get(ids, vectors=vectors)
        screen = console()
        for asked, row in zip(ids, rows, strict=True):
            if row is None:
                say(f"no row {asked!r}")
            elif json:
                emit(record_json(row))
            else:
                screen.print(plain(row.id, 512), style="bold cyan", soft_wrap=True)
                if row.metadata:
                    screen.print(metadata_text(row.metadata, 2000), style="dim", soft_wrap=True)
                if row.expires_at is not None:
                    screen.print(f"expires {row.expires_at.isoformat()}", style="dim")
                if row.vector is not None:
                    screen.print(f"vector {_numbers(row.vector)}", style="dim")
                for line in (row.text or "").splitlines():
                    screen.print(_line(line), markup=False, soft_wrap=True)
        if not any(rows):
            raise typer.Exit(Code.NOTHING)


def _numbers(vector: npt.ArrayLike) -> str:
    """The first few, and how many there are."""
    array = np.asarray(vector)
    shown = ", ".join(f"{value:.4g}" for value in array[:6].tolist())
    return f"[{shown}{', …' if len(array) > 6 else ''}] of {len(array)} numbers"


def _line(line: str) -> str:
    """A line of text with its indentation, without control characters."""
    return "".join([c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line.expandtabs()])


@commands.command()
def count(
    collection: CollectionArgument,
    store: StoreOption = None,
    where: WhereOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Count rows, exactly."""
    with guard(debug), opened(store, read_only=True) as handle:
        rows = collection_of(handle, collection).count(parsed(where))
        if json:
            emit({"collection": collection, "count": rows})
        else:
            sys.stdout.write(f"{rows}\n")


@commands.command()
def scan(
    collection: CollectionArgument,
    store: StoreOption = None,
    where: WhereOption = None,
    vectors: VectorsOption = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=0, help="Stop after so many rows.")] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Go through the rows, as they are stored. With --json --vectors, what `load` reads back."""
    with guard(debug), opened(store, read_only=True) as handle:
        rows = collection_of(handle, collection).scan(parsed(where), vectors=vectors)
        for row in islice(rows, limit):
            if json:
                emit(record_json(row))
            else:
                sys.stdout.write(f"{plain(row.id, 512).plain}\t{plain(row.text or '', 120).plain}\n")
