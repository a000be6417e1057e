"""The command that takes over what somebody else stored: a FAISS index file, or a folder as LangChain saves one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

import vectorkit as vk
from vectorkit.cli.collections import INDEX_HELP, embedding_named, field_of, index_named, metric_named
from vectorkit.cli.exits import guard, say
from vectorkit.cli.options import CollectionArgument, DebugOption, JsonOption, StoreOption, opened
from vectorkit.cli.output import Watch, emit, rows_text
from vectorkit.ingest.rows import BadValue, json_object, record_of
from vectorkit.types import FIELD_TYPES, Metric, Record

commands = typer.Typer()


@commands.command()
def adopt(
    collection: CollectionArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A FAISS index file, or a folder with index.faiss.")],
    store: StoreOption = None,
    rows: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON Lines with id, text and metadata of each row, in index order."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="cosine, dot or l2; else the file's.")] = None,
    index: Annotated[str, typer.Option(help=INDEX_HELP)] = "hnsw",
    field: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TYPE", help=f"A field to index for filters; types: {', '.join(FIELD_TYPES)}."),
    ] = None,
    embedding: Annotated[str, typer.Option(metavar="NAME", help="What made the vectors: a model's name, or none.")] = (
        "none"
    ),
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a collection of a FAISS index: its vectors and ids, and texts and metadata from --rows.

    All rows or none. A pickle beside the index, as LangChain leaves one, is never opened.
    """
    with guard(debug):
        if rows is not None and not rows.is_file():
            raise vk.InvalidArgument(f"--rows: there is no file {str(rows)!r}")
        with opened(store, read_only=False) as handle:
            dimension, measured = _of_file(handle, path)
            spec = vk.CollectionSpec(
                collection,
                dimension=dimension,
                metric=measured if metric is None else metric_named(metric),
                index=index_named(index),
                fields=dict(field_of(item) for item in field or []),
                embedding=embedding_named(embedding, dimension, "1", normalized=False),
            )
            watch = Watch()
            made = handle.adopt(path, spec, rows=None if rows is None else _records(rows, spec))
            count = made.count()
        told = {"collection": collection, "rows": count, "dimension": dimension, "metric": spec.metric}
        if json:
            emit({**told, "seconds": round(watch.seconds, 3)})
        else:
            say(
                f"adopted {rows_text(count)} as {collection!r}: {dimension} numbers, {spec.metric}, {watch.seconds:.1f} s"
            )


def _of_file(store: vk.Store, path: str) -> tuple[int, Metric]:
    """The dimension and metric that the file says of itself."""
    if store.capability.store != "faiss":
        raise vk.Unsupported(
            f"{store.capability.store} adopts no FAISS index; use --store faiss://FOLDER, then load into another store"
        )
    from vectorkit_faiss.header import index_file, read_header

    header = read_header(index_file(path))
    return header.dimension, header.metric


def _records(path: Path, spec: vk.CollectionSpec) -> Iterator[Record]:
    """The lines as records without vectors; a line without an id keeps the index's own. Raises InvalidRecord naming the line."""
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if not line.strip():
                continue
            try:
                values = json_object(line, "the line")
                record = record_of(values, source=str(path), fields=spec.fields)
            except BadValue as error:
                raise error.at(f"{path}, line {number}") from None
            own = values.get("id") in (None, "")
            yield Record("" if own else record.id, record.vector, record.text, record.metadata, record.expires_at)
