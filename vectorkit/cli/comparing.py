"""`vectorkit demo --compare`: the same texts in several stores, the same questions, the answers side by side.

What vectorkit promises, shown rather than said: the stores differ in how fast they answer, and in nothing else.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

import vectorkit as vk
from vectorkit.cli.exits import Code, fail
from vectorkit.cli.interrupt import soft_interrupt
from vectorkit.cli.output import Watch, bar, console, emit, hit_json, plain, rows_text
from vectorkit.ingest.pydocs import FIELDS, standard_library
from vectorkit.types import Hit, Hits, Record

EMBEDDED = ("faiss", "hnswlib", "local", "chroma", "qdrant")
"""What a bare name opens in a temporary folder; `memory` needs none."""
SERVERS: Mapping[str, str] = {"pgvector": "VECTORKIT_PGVECTOR_URL", "pinecone": "VECTORKIT_PINECONE_URL"}
"""What a bare name opens at the URL in this variable."""
_SHOWN = 5
_BATCH = 512
_REPEATS = 7
_SEEN = 120.0  # seconds until a store that shows writes late has to show them
_TIE = 1e-6
_TOLERANCE = 1e-5


@dataclass(slots=True)
class _Contender:
    """One of the stores. name: what it is called in the tables, without a secret."""

    name: str
    docs: vk.Collection
    seconds: float = 0.0


def compare(
    stores: str, questions: Sequence[tuple[str, str | None]], collection: str, limit: int | None, *, json: bool
) -> None:
    """Load, ask, show; what was made for it is gone afterwards. stores: names, URLs and profiles between commas.

    Raises ConfigError for a store that is not known or not installed, AlreadyExists where the collection's name is taken.
    """
    watch = Watch()
    out = console(stderr=json)
    embedder = vk.HashEmbedder()
    spec = vk.CollectionSpec(collection, dimension=embedder.dimension, fields=FIELDS, embedding=embedder.fingerprint)
    with ExitStack() as ending:
        contenders = _open(_entries(stores), spec, ending)
        rows = _collect(embedder, limit, out)
        for contender in contenders:
            _load(contender, rows, out)
        report: dict[str, Any] = {
            "rows": len(rows),
            "embedder": embedder.fingerprint.name,
            "stores": [_described(contender, len(rows)) for contender in contenders],
            "questions": [_ask(question, where, contenders, embedder, out) for question, where in questions],
        }
    names = [contender.name for contender in contenders]
    differing = [asked["question"] for asked in report["questions"] if not asked["same"]]
    report |= {"identical": not differing, "seconds": round(watch.seconds, 2)}
    out.print()
    if differing:
        out.print(
            f"[bold]The answers to {len(differing)} of {len(questions)} questions differ[/] between {', '.join(names)}."
        )
    else:
        out.print(
            f"[bold]Identical answers on {len(names)} stores[/]: {', '.join(names)}; "
            f"{rows_text(len(rows))}, {len(questions)} questions, {watch.seconds:.1f} s."
        )
    if json:
        emit(report)


# --------------------------------------------------------------------------------------------- the stores


def _entries(stores: str) -> list[str]:
    found = [entry.strip() for entry in stores.split(",") if entry.strip()]
    if len(found) < 2:
        raise vk.ConfigError("--compare takes two stores or more between commas, as in faiss,chroma,pgvector")
    return found


@contextmanager
def _folder() -> Iterator[str]:
    made = tempfile.mkdtemp(prefix="vectorkit-compare-")
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _address(entry: str, number: int, folder: str) -> str:
    """What `connect` takes for an entry. Raises ConfigError."""
    if entry in EMBEDDED:
        return f"{entry}://{folder}/{number}"
    if entry == "memory":
        return "memory://"
    if entry in SERVERS:
        variable = SERVERS[entry]
        if not (url := os.environ.get(variable)):
            raise vk.ConfigError(
                f"{entry} needs a server: set {variable}, or give a URL or a profile instead of the bare name; in a checkout, "
                "`python -m integration.servers vectorkit demo --compare …` starts one beside the command"
            )
        return url
    return entry


def _open(entries: Sequence[str], spec: vk.CollectionSpec, ending: ExitStack) -> list[_Contender]:
    """Open all of them and make a collection in each, before anything is loaded."""
    folder = ending.enter_context(_folder())
    found: list[_Contender] = []
    for number, entry in enumerate(entries):
        store = ending.enter_context(vk.connect(_address(entry, number, folder)))
        base = entry if "://" not in entry else store.capability.store
        others = sum(contender.name.partition(" #")[0] == base for contender in found)
        name = f"{base} #{others + 1}" if others else base
        try:
            docs = store.create_collection(spec)
        except vk.AlreadyExists as error:
            raise vk.AlreadyExists(f"{name}: {error}; choose another name with --collection") from error
        ending.callback(store.drop_collection, spec.name)
        found.append(_Contender(name, docs))
    return found


# --------------------------------------------------------------------------------------------- the work


def _collect(embedder: vk.HashEmbedder, limit: int | None, out: Console) -> list[Record]:
    out.print("Reading the documentation of this Python's standard library …")
    watch = Watch()
    texts = list(islice(standard_library(), limit))
    rows: list[Record] = []
    with bar("embedding") as update:
        for at in range(0, len(texts), _BATCH):
            part = texts[at : at + _BATCH]
            vectors = embedder.embed([record.text or "" for record in part])
            rows += [replace(record, vector=vector) for record, vector in zip(part, vectors, strict=True)]
            update(len(rows), len(rows) / len(texts))
    out.print(f"  {rows_text(len(rows))} collected and embedded  [dim]{watch.seconds:.1f} s[/]")
    return rows


def _load(contender: _Contender, rows: Sequence[Record], out: Console) -> None:
    watch = Watch()
    with soft_interrupt() as stop, bar(f"loading {contender.name}") as update:

        def told() -> Iterator[Record]:
            for number, record in enumerate(rows, 1):
                yield record
                if number % _BATCH == 0:
                    update(number, number / len(rows))

        written = contender.docs.upsert(stop.until(told()), wait=_SEEN).written
    if stop.pressed:
        fail(Code.INTERRUPTED, f"interrupted while loading {contender.name}")
    contender.docs.optimize()
    contender.seconds = watch.seconds
    rate = written / max(contender.seconds, 1e-9)
    out.print(
        f"  {contender.name}: {rows_text(written)} written and indexed, {rate:,.0f} rows/s  [dim]{contender.seconds:.1f} s[/]"
    )


def _described(contender: _Contender, rows: int) -> dict[str, Any]:
    return {
        "name": contender.name,
        "index": contender.docs.stats().index,
        "load_seconds": round(contender.seconds, 3),
        "rows_per_second": round(rows / max(contender.seconds, 1e-9)),
    }


def _ask(
    words: str, where: str | None, contenders: Sequence[_Contender], embedder: vk.HashEmbedder, out: Console
) -> dict[str, Any]:
    vector = embedder.embed([words])[0]
    parsed = None if where is None else vk.Filter.parse(where)
    answers: dict[str, Hits] = {}
    took: dict[str, float] = {}
    for contender in contenders:
        seconds = []
        for _ in range(_REPEATS):
            watch = Watch()
            answers[contender.name] = contender.docs.query(vector, k=_SHOWN, where=parsed)
            seconds.append(watch.seconds)
        took[contender.name] = 1_000 * median(seconds)
    first, *others = answers.values()
    same = all(agree(first, other, _SHOWN) for other in others)
    out.print()
    out.print(_table(words, where, answers, took, same=same))
    return {
        "question": words,
        "where": where,
        "same": same,
        "answers": {
            name: {
                "ms": round(took[name], 3),
                "coverage": hits.coverage,
                "hits": [hit_json(rank, hit) for rank, hit in enumerate(hits, 1)],
            }
            for name, hits in answers.items()
        },
    }


def agree(one: Sequence[Hit], other: Sequence[Hit], k: int) -> bool:
    """Whether two answers to a question for k rows are the same: scores at each rank, and rows in each group of tied scores.

    Of a tie that reaches rank k each store may return other members.
    """
    if len(one) != len(other):
        return False
    if any(abs(a.score - b.score) > _TOLERANCE * max(1.0, abs(a.score)) for a, b in zip(one, other, strict=True)):
        return False
    start = 0
    for end in range(1, len(one) + 1):
        if end < len(one) and abs(one[end - 1].score - one[end].score) <= _TIE * max(1.0, abs(one[end].score)):
            continue
        if end < k and {hit.id for hit in one[start:end]} != {hit.id for hit in other[start:end]}:
            return False
        start = end
    return True


def _table(
    words: str, where: str | None, answers: Mapping[str, Hits], took: Mapping[str, float], *, same: bool
) -> Table:
    title = Text(f"“{words}”", style="bold")
    if where:
        title.append(f"\nwhere {where}", style="not bold")
    told = "the same answers" if same else "THE ANSWERS DIFFER"
    table = Table(title=title, title_justify="left", caption=told, caption_justify="right", expand=True)
    table.add_column("", style="dim", width=1)
    for name in answers:
        table.add_column(Text(f"{name}  {took[name]:.1f} ms"), overflow="fold", ratio=1)
    for at in range(max(map(len, answers.values()))):
        table.add_row(str(at + 1), *(_cell(hits, at) for hits in answers.values()))
    return table


def _cell(hits: Sequence[Hit], at: int) -> Text:
    if at >= len(hits):
        return Text("")
    return plain(hits[at].id).append(f"  {hits[at].score:.3f}", style="dim")
