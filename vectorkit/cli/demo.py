"""`vectorkit demo`: the documentation of the Python on this machine, embedded offline, loaded and searched.

A newcomer's first command: it needs no network, no model and no file, and shows what every part does on real text.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import vectorkit as vk
from vectorkit.cli.comparing import compare
from vectorkit.cli.exits import Code, fail, guard
from vectorkit.cli.interrupt import soft_interrupt
from vectorkit.cli.options import DebugOption, JsonOption, opened
from vectorkit.cli.output import Watch, bar, console, emit, hit_json, plain, rows_text
from vectorkit.ingest.load import Progress, load
from vectorkit.ingest.pydocs import FIELDS, standard_library
from vectorkit.types import Hits, Record

commands = typer.Typer()
_SHOWN = 5
_BATCH = 512


@dataclass(frozen=True, slots=True)
class _Question:
    words: str
    where: str | None = None


_QUESTIONS = (
    _Question("compress a file with gzip"),
    _Question("parse a date string"),
    _Question("run a function in another thread"),
    _Question("temporary directory removed at exit"),
    _Question("split a string", 'kind == "function" and module in ["builtins", "re", "shlex"] and lines >= 3'),
)


@commands.command()
def demo(
    store: Annotated[
        str | None,
        typer.Option("--store", "-s", metavar="URL", help="Any store or profile; else FAISS in a temporary folder."),
    ] = None,
    comparing: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="STORES",
            help="Several stores instead, side by side: names (faiss, hnswlib, local, memory, chroma, qdrant, pgvector, pinecone), URLs or profiles "
            "between commas.",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it there, and say what to try next.")] = False,
    collection: Annotated[str, typer.Option(help="The collection's name.")] = "pydocs",
    rows: Annotated[int | None, typer.Option(min=1, help="Load no more than so many texts.")] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Search this Python's own documentation: collect, embed, load, ask. No network, no model."""
    if comparing is not None:
        with guard(debug):
            if store is not None or keep:
                raise vk.ConfigError(
                    "--compare names its stores itself and leaves nothing: it goes without --store and --keep"
                )
            compare(comparing, [(asked.words, asked.where) for asked in _QUESTIONS], collection, rows, json=json)
        return
    with guard(debug), _place(store, keep=keep) as url, opened(url, read_only=False) as handle:
        watch = Watch()
        out = console(stderr=json)
        run = _Run(handle, collection, out)
        try:
            run.load(rows)
            report = run.report(watch)
            report["answers"] = [run.ask(question) for question in _QUESTIONS]
        finally:
            if run.made and not keep and store is not None:  # a folder of ours goes as a whole
                handle.drop_collection(collection)
        report["seconds"] = round(watch.seconds, 2)
        out.print(
            f"\n[bold]{report['rows']:,} texts, collected, embedded, loaded and searched in {watch.seconds:.1f} s.[/]"
        )
        _next(out, url, collection, keep=keep)
        if json:
            emit(report)


@contextmanager
def _place(store: str | None, *, keep: bool) -> Iterator[str]:
    """The store's URL; without one, FAISS in a folder that is gone afterwards unless it is kept."""
    if store is not None:
        yield store
        return
    folder = tempfile.mkdtemp(prefix="vectorkit-demo-")
    try:
        yield f"faiss://{folder}"
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


class _Run:
    """One demonstration on an open store."""

    def __init__(self, store: vk.Store, name: str, out: Console) -> None:
        self.out = out
        self.embedder = vk.HashEmbedder()
        spec = vk.CollectionSpec(
            name, dimension=self.embedder.dimension, fields=FIELDS, embedding=self.embedder.fingerprint
        )
        self.made = name not in store.collections()
        self.docs = store.ensure_collection(spec)
        self.by_words = store.capability.keyword
        self.collected: list[Record] = []
        self.seconds: dict[str, float] = {}

    def load(self, limit: int | None) -> None:
        """Collect, embed, load, index. Ctrl-C while loading ends the demonstration."""
        self.out.print("Reading the documentation of this Python's standard library …")
        watch = Watch()
        self.collected = list(islice(standard_library(), limit))
        python = self.collected[0].metadata["python"]
        self._done(
            "collect", watch, f"{len(self.collected):,} texts: modules, classes and functions of Python {python}"
        )
        watch = Watch()
        with soft_interrupt() as stop, bar("embedding and loading") as update:

            def tell(progress: Progress) -> None:
                update(progress.written, progress.written / len(self.collected))

            result = load(self.docs, stop.until(self.collected), embedder=self.embedder, batch=_BATCH, on_progress=tell)
        if stop.pressed:
            fail(Code.INTERRUPTED, f"interrupted; {rows_text(result.written)} had been written")
        rate = result.written / max(watch.seconds, 1e-9)
        self._done("load", watch, f"{rows_text(result.written)} embedded and written, {rate:,.0f} rows/s")
        watch = Watch()
        self.docs.optimize()
        self._done("index", watch, f"index: {self.docs.stats().index}")
        self.out.print(
            f"  embedder: {self.embedder.fingerprint.name}, offline feature hashing of words and parts of words. "
            "It knows spelling, not meaning.",
            style="dim",
        )

    def _done(self, step: str, watch: Watch, told: str) -> None:
        self.seconds[step] = watch.seconds
        self.out.print(f"  {told}  [dim]{watch.seconds:.1f} s[/]")

    def report(self, watch: Watch) -> dict[str, Any]:
        """The figures, for `--json`."""
        return {
            "rows": self.docs.count(),
            "embedder": self.embedder.fingerprint.name,
            "seconds": round(watch.seconds, 2),
            "steps": {step: round(seconds, 2) for step, seconds in self.seconds.items()},
        }

    def ask(self, question: _Question) -> dict[str, Any]:
        """Ask in every way the store has, and show the answers side by side."""
        where = None if question.where is None else vk.Filter.parse(question.where)
        vector = self.embedder.embed([question.words])[0]
        watch = Watch()
        legs: dict[str, Hits] = {"dense": self.docs.query(vector, k=_SHOWN, where=where)}
        if self.by_words:
            legs["keyword"] = self.docs.keyword(question.words, k=_SHOWN, where=where)
            legs["hybrid"] = self.docs.hybrid(question.words, vector, k=_SHOWN, where=where)
        self._show(question, legs, watch.seconds)
        answers = {leg: [hit_json(rank, hit) for rank, hit in enumerate(hits, 1)] for leg, hits in legs.items()}
        return {"question": question.words, "where": question.where, **answers}

    def _show(self, question: _Question, legs: dict[str, Hits], seconds: float) -> None:
        titles = {"dense": "dense (cosine)", "keyword": "keyword (BM25)", "hybrid": "both, Σ 1/(60 + rank)"}
        title = Text(f"“{question.words}”", style="bold")
        if question.where:
            title.append(f"\nwhere {question.where}", style="not bold")
        table = Table(
            title=title, title_justify="left", caption=f"{1000 * seconds:.0f} ms", caption_justify="right", expand=True
        )
        table.add_column("", style="dim", width=1)
        for leg in legs:
            table.add_column(titles[leg], overflow="fold", ratio=1)
        for at in range(_SHOWN):
            table.add_row(str(at + 1), *(_cell(hits, at) for hits in legs.values()))
        self.out.print()
        self.out.print(table)


def _cell(hits: Sequence[vk.Hit], at: int) -> Text:
    if at >= len(hits):
        return Text("")
    return plain(hits[at].id).append(f"  {hits[at].score:.3f}", style="dim")


def _next(out: Console, url: str, collection: str, *, keep: bool) -> None:
    if not keep:
        out.print("Again with --keep to leave it there and go on with your own questions.", style="dim")
        return
    out.print("It is yours now. Next:")
    named = url if "@" not in url and "?" not in url else "URL"
    for line in (
        f'vectorkit search {collection} "walk a directory tree" --store {named}',
        f"""vectorkit search {collection} "read lines" --where 'module == "io"' --json --store {named}""",
        f"vectorkit get {collection} shutil.copytree --store {named}",
        f"vectorkit info {collection} --store {named}",
    ):
        out.print(Text(f"  {line}"), soft_wrap=True)
