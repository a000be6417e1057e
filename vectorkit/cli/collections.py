"""Commands about collections as wholes: make, list, describe, tidy, drop."""

import sys
from dataclasses import replace
from typing import Annotated, Any

import typer

import vectorkit as vk
from vectorkit.cli.exits import Code, fail, guard, say
from vectorkit.cli.options import (
    CollectionArgument,
    DebugOption,
    JsonOption,
    StoreOption,
    YesOption,
    collection_of,
    opened,
)
from vectorkit.cli.output import Watch, console, emit, plain, rows_text
from vectorkit.types import FIELD_TYPES, Index, Metric

commands = typer.Typer()
INDEX_HELP = "hnsw, ivf or flat; over codes (sq8, fp16, pq, rabitq) as in hnsw-sq8."
_INDEXES: dict[str, type[Index]] = {"flat": vk.Flat, "hnsw": vk.HNSW, "ivf": vk.IVF}


@commands.command()
def create(
    collection: CollectionArgument,
    store: StoreOption = None,
    dimension: Annotated[int, typer.Option(help="Numbers in a vector.")] = 384,
    metric: Annotated[str, typer.Option(help="cosine, dot or l2.")] = "cosine",
    index: Annotated[str, typer.Option(help=INDEX_HELP)] = "hnsw",
    field: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TYPE", help=f"A field to index for filters; types: {', '.join(FIELD_TYPES)}."),
    ] = None,
    embedding: Annotated[
        str,
        typer.Option(metavar="NAME", help="What makes the vectors: hash (offline, lexical), none, or a model's name."),
    ] = "hash",
    revision: Annotated[str, typer.Option(help="The model's revision.")] = "1",
    normalized: Annotated[bool, typer.Option("--normalized", help="The model's vectors have length 1.")] = False,
    text: Annotated[bool, typer.Option(help="Make texts searchable by keyword.")] = True,
    expiry: Annotated[bool, typer.Option("--expiry", help="Rows may expire.")] = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a collection. Without options it takes the offline embedder's vectors."""
    with guard(debug):
        spec = vk.CollectionSpec(
            collection,
            dimension=dimension,
            metric=metric_named(metric),
            index=index_named(index),
            fields=dict(field_of(item) for item in field or []),
            text=text,
            expiry=expiry,
            embedding=embedding_named(embedding, dimension, revision, normalized),
        )
        with opened(store, read_only=False) as handle:
            made = handle.create_collection(spec)
            if json:
                emit(made.spec.to_json())
            else:
                say(f"made the collection {collection!r}: {dimension} numbers, {metric}, {index}")


@commands.command("collections")
def list_collections(store: StoreOption = None, json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the collections with their rows."""
    with guard(debug), opened(store, read_only=True) as handle:
        for name in handle.collections():
            found = handle.collection(name)
            rows = found.count()
            if json:
                emit({"name": name, "rows": rows, "dimension": found.spec.dimension, "metric": found.spec.metric})
            else:
                sys.stdout.write(f"{name}\t{rows_text(rows)}\t{found.spec.dimension} numbers, {found.spec.metric}\n")


@commands.command()
def info(
    collection: Annotated[str | None, typer.Argument(metavar="[COLLECTION]", help="Without: the store.")] = None,
    store: StoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Describe a collection (spec, rows, index, bytes), or what the store can do."""
    with guard(debug), opened(store, read_only=True) as handle:
        document = _capability(handle) if collection is None else _description(collection_of(handle, collection))
        if json:
            emit(document)
            return
        screen = console()
        width = max(map(len, document))
        for name, value in document.items():
            screen.print(name.ljust(width), plain(_shown(value), 400), markup=False, soft_wrap=True)


@commands.command()
def optimize(
    collection: CollectionArgument, store: StoreOption = None, json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Bring the index up to date, and free what deleted rows took."""
    with guard(debug), opened(store, read_only=False) as handle:
        found = collection_of(handle, collection)
        watch = Watch()
        found.optimize()
        stats = found.stats()
        if json:
            emit({"collection": collection, "index": stats.index, "indexed": stats.indexed, "rows": stats.rows})
        else:
            say(f"{rows_text(stats.rows)}, {stats.indexed:,} in the index ({stats.index}), {watch.seconds:.1f} s")


@commands.command()
def drop(
    collection: CollectionArgument,
    store: StoreOption = None,
    yes: YesOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Remove a collection and all its rows."""
    with guard(debug), opened(store, read_only=False) as handle:
        rows = collection_of(handle, collection).count()
        if not yes:
            fail(Code.BAD_INPUT, f"this would remove {collection!r} with {rows_text(rows)}; add --yes")
        handle.drop_collection(collection)
        if json:
            emit({"collection": collection, "dropped": rows})
        else:
            say(f"dropped {collection!r} with {rows_text(rows)}")


# --------------------------------------------------------------------------------------------- parts of a spec


def metric_named(name: str) -> Metric:
    """The metric of `--metric`. Raises InvalidArgument."""
    match name:
        case "cosine" | "dot" | "l2":
            return name
        case _:
            raise vk.InvalidArgument(f"--metric is cosine, dot or l2, not {name!r}")


def index_named(name: str) -> Index:
    """The index of `--index`: a kind, and codes behind a hyphen as in hnsw-sq8. Raises InvalidArgument."""
    kind, hyphen, codes = name.partition("-")
    if kind not in _INDEXES or (hyphen and (kind == "flat" or not codes)):
        raise vk.InvalidArgument(
            f"--index is one of {', '.join(_INDEXES)}, not {name!r}; codes follow a hyphen, as in hnsw-sq8"
        )
    made = _INDEXES[kind]()
    asked: Any = codes or None  # its own error names those that are known
    return made if isinstance(made, vk.Flat) else replace(made, quantization=asked)


def field_of(item: str) -> tuple[str, str]:
    """The name and type of a `--field`. Raises InvalidArgument."""
    name, found, kind = item.rpartition("=")
    if not found or not name:
        raise vk.InvalidArgument(f"--field takes NAME=TYPE, as in year=int; got {item!r}")
    return name, kind


def embedding_named(name: str, dimension: int, revision: str, normalized: bool) -> vk.Embedding | None:
    """The fingerprint that `--embedding` means."""
    match name:
        case "none":
            return None
        case "hash":
            return vk.HashEmbedder(dimension).fingerprint
        case _:
            return vk.Embedding(name, revision=revision, normalized=normalized)


# --------------------------------------------------------------------------------------------- descriptions


def _description(collection: vk.Collection) -> dict[str, Any]:
    stats = collection.stats()
    spec = collection.spec.to_json()
    return {
        **{
            name: spec[name] for name in ("name", "dimension", "metric", "index", "tenancy", "expiry", "fields", "text")
        },
        "embedding": spec["embedding"],
        "rows": stats.rows,
        "search": stats.index,
        "indexed": stats.indexed,
        "tombstones": stats.tombstones,
        "bytes": dict(stats.bytes),
    }


def _capability(store: vk.Store) -> dict[str, Any]:
    capability = store.capability
    values = {name: getattr(capability, name) for name in type(capability).__dataclass_fields__}
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values.items()}


def _shown(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "none"
        case list():
            return ", ".join(map(str, value)) or "none"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
