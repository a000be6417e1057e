"""What the fault tests share: the stores they run on, rows that tell their own version, and the check of a whole store.

Everything goes through the public API; a directory is opaque files.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.types import Flat, FloatArray

CI = "VECTORKIT_CI"
DIMENSION = 8
NAME = "a"


@dataclass(frozen=True)
class Kind:
    """A store under test. indexed: optimize() writes an index. module: what its adapter needs."""

    scheme: str
    index: vk.HNSW | Flat
    module: str | None = None

    @property
    def indexed(self) -> bool:
        return not isinstance(self.index, Flat)

    @property
    def there(self) -> bool:
        return self.module is None or importlib.util.find_spec(self.module) is not None

    def url(self, path: Path | str) -> str:
        return f"{self.scheme}://{path}"


_GRAPH = vk.HNSW(m=8, ef_construction=40, full_scan_threshold=0)
STORES = {
    "local": Kind("local", vk.Flat()),
    "faiss": Kind("faiss", _GRAPH, "faiss"),
    "hnswlib": Kind("hnswlib", _GRAPH, "hnswlib"),
}


def stores() -> pytest.MarkDecorator:
    """The parametrisation over STORES; one whose library is not installed is skipped, or fails where nothing may be."""
    return pytest.mark.parametrize("name", list(STORES))


def needed(name: str) -> Kind:
    """The store of that name, if its library is here."""
    kind = STORES[name]
    if not kind.there:
        skip(f"{kind.module} is not installed")
    return kind


def skip(reason: str) -> None:
    """Skip, except where everything has to run."""
    if os.environ.get(CI):
        pytest.fail(reason)
    pytest.skip(reason)


def spec_of(kind: Kind, name: str = NAME, dimension: int = DIMENSION) -> vk.CollectionSpec:
    return vk.CollectionSpec(name, dimension, index=kind.index, fields={"version": int, "note": int})


def open_docs(kind: Kind, path: Path | str) -> tuple[vk.Store, vk.Collection]:
    store = vk.connect(kind.url(path))
    try:
        return store, store.collection(NAME)
    except BaseException:
        store.close()
        raise


# ------------------------------------------------------------------------------------- rows that tell their version

State = dict[int, tuple[int, int]]  # key → (version, note); a key that is not there is a row that is not there


def vector(key: int, version: int) -> FloatArray:
    return np.random.default_rng((key, version)).standard_normal(DIMENSION).astype(np.float32)


def record(key: int, version: int, note: int) -> vk.Record:
    metadata = {"key": key, "version": version, "note": note, "parity": note % 2}
    return vk.Record(f"r{key}", vector(key, version), f"all k{key}v{version}", metadata)


def whole(found: vk.Record) -> tuple[int, tuple[int, int]]:
    """(key, (version, note)) of a row; ValueError when its parts are of different rows or versions."""
    key, version, note = (int(found.metadata[name]) for name in ("key", "version", "note"))
    wanted = record(key, version, note)
    same = (found.id, found.text, dict(found.metadata)) == (wanted.id, wanted.text, dict(wanted.metadata))
    if not same or (found.vector is not None and not np.allclose(found.vector, vector(key, version), rtol=1e-6)):
        raise ValueError(f"a torn row: {found}")
    return key, (version, note)


Op = tuple[str, Any]


def applied(state: State, op: Op) -> State:
    """The state after a verb."""
    after = dict(state)
    match op:
        case ("upsert", rows):
            after |= {key: (version, note) for key, version, note in rows}
        case ("update", (keys, note)):
            after |= {key: (after[key][0], note) for key in keys if key in after}
        case ("delete", keys):
            for key in keys:
                after.pop(key, None)
        case ("clear", (low, high)):
            after = {key: row for key, row in after.items() if not low <= row[0] < high}
    return after


def act(docs: vk.Collection, op: Op) -> None:
    """The verb itself."""
    match op:
        case ("upsert", rows):
            docs.upsert([record(*row) for row in rows])
        case ("update", (keys, note)):
            docs.update(ids=[f"r{key}" for key in keys], set={"note": note, "parity": note % 2})
        case ("delete", keys):
            docs.delete(ids=[f"r{key}" for key in keys])
        case ("clear", (low, high)):
            docs.delete(where=(F("version") >= low) & (F("version") < high))
        case ("optimize", _):
            docs.optimize()
        case _:
            raise ValueError(op)


# ------------------------------------------------------------------------------------- the check of a whole store


def contents(docs: vk.Collection) -> State:
    """Every row, checked for being whole."""
    rows = [whole(found) for found in docs.scan(vectors=True)]
    if len(dict(rows)) != len(rows):
        raise ValueError("a scan gave an id twice")
    return dict(rows)


def problems(docs: vk.Collection, state: State, gone: Mapping[int, int], *, only: State | None = None) -> list[str]:
    """What the verbs say that does not fit these contents. gone: key → version of rows that must not be found.

    only: the part of the state that is asked for row by row.
    """
    wrong: list[str] = []

    def expect(what: str, got: Any, wanted: Any) -> None:
        if got != wanted:
            wrong.append(f"{what}: {got!r}, expected {wanted!r}")

    expect("count", docs.count(), len(state))
    expect("stats().rows", docs.stats().rows, len(state))
    notes = [note for _, note in state.values()]
    middle = sorted(notes)[len(notes) // 2] if notes else 0
    expect("count of a declared field", docs.count(F("note") >= middle), sum(note >= middle for note in notes))
    expect("count of an undeclared field", docs.count(F("parity") == 1), sum(note % 2 for note in notes))
    state = state if only is None else only
    ids = [f"r{key}" for key in state]
    got = docs.get(ids + [f"r{key}" for key in gone], vectors=True)
    expect("get", [found and whole(found)[1] for found in got], [*state.values(), *([None] * len(gone))])
    if state:
        vectors = np.stack([vector(key, version) for key, (version, _) in state.items()])
        for exact in (False, True):
            found = docs.query_many(vectors, k=1, exact=exact)
            expect(f"query, exact={exact}", [hits.ids for hits in found], [[id] for id in ids])  # noqa: A001
        for key, (version, note) in list(state.items())[:5]:
            hits = docs.query(vector(key, version), k=1, where=F("note") == note)
            expect("query under a filter", hits.ids, [f"r{key}"])
    for key, (version, _) in state.items():
        expect("keyword", docs.keyword(f"k{key}v{version}").ids, [f"r{key}"])
    for key, version in gone.items():
        expect("keyword of a row that is gone", docs.keyword(f"k{key}v{version}").ids, [])
    return wrong


def difference(found: State | None, allowed: Sequence[State | None]) -> str:
    """What sets a state apart from each of the allowed ones: {key: (allowed, found)}."""
    if found is None:
        return "no collection"
    told = []
    for state in allowed:
        one = state or {}
        keys = [key for key in sorted({*one, *found}) if one.get(key) != found.get(key)]
        told.append(str({key: (one.get(key), found.get(key)) for key in keys[:5]}))
    return " / ".join(told)


def files(folder: Path) -> list[str]:
    """Every file below, as relative paths."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def fresh_copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def typed(call: Callable[[], Any]) -> Any:
    """What a call gives, or the VectorkitError it raises; anything else goes through."""
    try:
        return call()
    except vk.VectorkitError as error:
        return error


def table(title: str, rows: Mapping[str, Mapping[str, int]], columns: Collection[str]) -> str:
    """Counts as text."""
    width = max([len(row) for row in rows] + [8])
    head = f"{'':{width}}" + "".join(f"{column:>12}" for column in columns)
    body = [f"{row:{width}}" + "".join(f"{cells.get(c, 0):>12}" for c in columns) for row, cells in rows.items()]
    return "\n".join(["", title, head, *body])


def lines(found: Iterable[str], limit: int = 20) -> str:
    """The first of them, for an assertion's message."""
    found = list(found)
    return "\n".join([f"{len(found)}:", *found[:limit]])
