"""The options that every command shares, and opening the store they name.

One place, so that a store and a collection are said in the same way everywhere: COLLECTION first, the store by `--store`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TypeAlias

import typer

import vectorkit as vk

StoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store",
        "-s",
        metavar="URL",
        envvar="VECTORKIT_STORE",
        help="The store: a URL (faiss://./kb, local:///var/lib/kb) or a profile of vectorkit.toml.",
    ),
]
CollectionArgument: TypeAlias = Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection's name.")]
WhereOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--where", "-w", metavar="FILTER", help="""Only rows that match, as in 'year >= 2024 and tags contains "x"'."""
    ),
]
JsonOption: TypeAlias = Annotated[
    bool, typer.Option("--json", help="JSON on standard output (JSON Lines for rows), all else on standard error.")
]
VectorsOption: TypeAlias = Annotated[bool, typer.Option("--vectors", help="With the vectors.")]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", help="Yes, really.")]
DebugOption: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def opened(store: str | None, *, read_only: bool) -> Iterator[vk.Store]:
    """The store that was named, closed at the end whatever happens. Raises ConfigError when none was named."""
    if not store:
        raise vk.ConfigError("which store? give --store URL or the name of a profile, or set VECTORKIT_STORE")
    with vk.connect(store, read_only=read_only) as handle:
        yield handle


def collection_of(store: vk.Store, name: str) -> vk.Collection:
    """Open a collection; when it is not there, NotFound names those that are."""
    try:
        return store.collection(name)
    except vk.NotFound as error:
        names = store.collections()
        known = (
            f"there are: {', '.join(names)}" if names else "the store has no collections; `vectorkit load` makes one"
        )
        raise vk.NotFound(f"{error}; {known}") from None


def parsed(where: str | None) -> vk.Filter | None:
    """The filter of `--where`. Raises InvalidFilter."""
    return None if where is None else vk.Filter.parse(where)
