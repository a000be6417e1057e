"""What runs in a child process of the fork server: writers to be killed, checkers, sessions with a call that fails.

Every job takes the link to the parent first; what it returns is sent as its last message.
"""

import gc
import os
import pickle
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import vectorkit as vk
from tests.faults.kit import (
    STORES,
    Op,
    State,
    act,
    applied,
    contents,
    difference,
    open_docs,
    problems,
    record,
    spec_of,
    vector,
    whole,
)
from tests.faults.shim import Action, Control, Fault
from vectorkit import F

_TOUCHED = ("vectorkit", "faiss", "hnswlib", "numpy", "sqlite3", "json")


def control() -> Control:
    return Control(Path(os.environ["VECTORKIT_SHIM"]))


def modules(link: Connection, path: str, name: str) -> list[str]:
    """In the first child: which modules a session imports. The server imports them before it forks on."""
    kind = STORES[name]
    with vk.connect(kind.url(path)) as store:
        docs = store.ensure_collection(spec_of(kind))
        for op in (("upsert", [(key, 0, 0) for key in range(20)]), ("update", ([1], 1)), ("optimize", None)):
            act(docs, op)
        problems(docs, contents(docs), {})
    return [module for module in sys.modules if module.startswith(_TOUCHED)]


# ------------------------------------------------------------------------------------- kill -9


def _chosen(dice: random.Random, state: State, versions: dict[int, int]) -> Op:
    """A random verb; versions only ever rise."""
    keys = dice.sample(range(60), dice.randint(1, 6))
    match dice.choices(("upsert", "update", "delete", "optimize", "clear"), (10, 4, 3, 3, 1))[0]:
        case "update" if state:
            return ("update", (dice.sample(sorted(state), min(len(state), 4)), dice.randrange(1000)))
        case "delete":
            return ("delete", keys)
        case "optimize":
            return ("optimize", None)
        case "clear":
            low = dice.randrange(40)
            return ("clear", (low, low + 3))
        case _:
            for key in keys:
                versions[key] = versions.get(key, 0) + 1
            return ("upsert", [(key, versions[key], dice.randrange(1000)) for key in keys])


def writer(
    link: Connection, *, name: str, path: str, seed: int, state: State | None, versions: dict[int, int],
    fault: Fault, steps: int
) -> None:  # fmt: skip
    """Random verbs, each announced and acknowledged, until the end comes from outside. state: None for a new store."""
    dice = random.Random(seed)
    kind = STORES[name]
    count = 0
    control().arm(fault, path)

    def begin(op: Op) -> None:
        link.send(("begin", op))

    def ack() -> None:
        link.send(("ack", None))

    begin(("open", None))
    store = vk.connect(kind.url(path))
    ack()
    if state is None:
        begin(("create", None))
        docs = store.create_collection(spec_of(kind))
        ack()
        state = {}
    else:
        docs = store.collection("a")
    while count < steps:
        count += 1
        if dice.random() < 0.06:
            begin(("reopen", None))
            store.close()
            store, docs = open_docs(kind, path)
            ack()
            continue
        if dice.random() < 0.06:
            begin(("side", None))
            if "side" in store.collections():
                store.drop_collection("side")
            else:
                store.create_collection(spec_of(kind, "side")).upsert([vk.Record("x", [1.0] * 8)])
            ack()
            continue
        op = _chosen(dice, state, versions)
        begin(op)
        act(docs, op)
        ack()
        state = applied(state, op)
    link.send(("idle", None))
    while True:
        time.sleep(1)


def check(link: Connection, *, name: str, path: str, gone: dict[int, int]) -> tuple[State | None, list[str]]:
    """(contents, what is wrong); None when there is no collection."""
    kind = STORES[name]
    try:
        store, docs = open_docs(kind, path)
    except vk.NotFound:
        return None, []
    with store:
        state = contents(docs)
        absent = {key: version for key, version in gone.items() if key not in state}
        wrong = problems(docs, state, absent)
        for other in store.collections():
            if other == "side" and store.collection(other).count() not in {0, 1}:
                wrong.append("the side collection is not what was written")
        return state, wrong


# ------------------------------------------------------------------------------------- the n-th call fails

SESSION: tuple[Op, ...] = (
    ("upsert", [(key, 1, key) for key in range(12)]),
    ("update", ([1, 2, 3], 500)),
    ("delete", [4, 5]),
    ("upsert", [(key, 2, key + 100) for key in range(5, 9)]),
    ("optimize", None),
    ("upsert", [(20, 1, 7), (21, 1, 8)]),
    ("delete", [0]),
    ("reopen", None),
    ("clear", (2, 3)),
    ("upsert", [(30, 1, 9), (1, 3, 9)]),
    ("optimize", None),
    ("close", None),
)


class Session:
    """A scripted session whose calls may fail: what each verb gave, and what is wrong with that."""

    def __init__(self, name: str, path: str, lifted: Callable[[], None]) -> None:
        self.kind = STORES[name]
        self.path = path
        self.lifted = lifted
        self.store: vk.Store | None = None
        self.docs: vk.Collection | None = None
        self.allowed: list[State] = [{}]
        self.shadows: list[State] = []  # what it would be had a failed verb happened that was then seen not to have
        self.wrong: list[str] = []
        self.errors: dict[str, int] = {}
        self.blind = 0

    def attempt(self, what: str, call: Callable[[], Any]) -> bool:
        """Whether it went well. A bare exception is noted as wrong."""
        try:
            call()
        except vk.VectorkitError as error:
            told = type(error).__name__
            self.errors[told] = self.errors.get(told, 0) + 1
            if not isinstance(error, vk.Unavailable):
                self.wrong.append(f"{what}: {told} is not Unavailable: {error}")
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told
            frame = traceback.extract_tb(error.__traceback__)[-1]
            self.wrong.append(
                f"{what}: a bare {type(error).__name__}: {error} at {Path(frame.filename).name}:{frame.lineno}"
            )
            return False
        return True

    def look(self, when: str, *, through: vk.Collection) -> bool:
        """Read everything, and settle which of the allowed states it is. False when it cannot be read now."""
        seen: list[Any] = []

        def read() -> None:
            state = contents(through)
            seen.append((state, problems(through, state, {})))

        if not self.attempt(f"reads {when}", read):
            self.blind += 1
            return False
        state, wrong = seen[0]
        self.wrong += [f"{when}: {problem}" for problem in wrong]
        if state in self.allowed:
            self.shadows += [other for other in self.allowed if other != state]
        else:
            late = "a verb that failed, and was seen not to have happened, has happened after all: "
            told = late if state in self.shadows else ""
            self.wrong.append(f"{when}: {told}{difference(state, self.allowed)}")
            self.shadows = []
        self.allowed = [state]
        return True

    def open(self) -> None:
        """Connect and have the collection; after a failure again, at the end without the fault."""
        for attempt in range(3):
            if attempt == 2:
                self.lifted()

            def opened() -> None:
                if self.store is None:
                    self.store = vk.connect(self.kind.url(self.path), options=vk.LocalOptions(lock_timeout=0.1))
                self.docs = self.store.ensure_collection(spec_of(self.kind))

            if self.attempt("open", opened):
                return
        self.wrong.append("open fails without a fault too")
        raise RuntimeError("it cannot be opened any more")

    def close(self) -> None:
        store, self.store, self.docs = self.store, None, None
        if store is not None and not self.attempt("close", store.close):
            self.attempt("a second close", store.close)

    def run(self) -> None:
        for number, op in enumerate(SESSION):
            if self.docs is None:
                self.open()
            assert self.docs is not None
            if op[0] in {"reopen", "close"}:
                self.close()
                continue
            before = self.allowed[0]
            if self.attempt(f"{number} {op[0]}", lambda docs=self.docs, op=op: act(docs, op)):  # type: ignore[misc]
                self.allowed = [applied(before, op)]
                self.shadows = [applied(shadow, op) for shadow in self.shadows]
                continue
            self.allowed = [before, applied(before, op)]
            if not self.look(f"after a failed {number} {op[0]}", through=self.docs):
                self.lifted()
                self.close()
                self.open()
                assert self.docs is not None
                self.look(f"after a failed {number} {op[0]}, reopened", through=self.docs)
        self.lifted()
        with vk.connect(self.kind.url(self.path)) as store:
            if not self.look("at the end", through=store.ensure_collection(spec_of(self.kind))):
                self.wrong.append("the store cannot be read at the end, without a fault")


def session(link: Connection, *, name: str, path: str, fault: Fault) -> dict[str, Any]:
    """The script with one fault, or one that stays until it is lifted; what came of it."""
    shim = control()
    ran = Session(name, path, shim.disarm)
    shim.arm(fault, path)
    try:
        ran.run()
    except BaseException as error:  # noqa: BLE001
        ran.wrong.append(f"the session broke off: {type(error).__name__}: {error}")
    return {
        "wrong": ran.wrong, "errors": ran.errors, "blind": ran.blind, "counts": shim.counts(), "fired": shim.fired,
        "where": shim.where,
    }  # fmt: skip


# ------------------------------------------------------------------------------------- damage

ROWS = 60
ASKED = (1, 7, 20, 33, 41, 59)
Answers = dict[str, Any]


def probes(store: vk.Store, docs: vk.Collection) -> dict[str, Callable[[], Any]]:
    """What a reader may ask, each with an answer that compares exactly (scores to 1e-4)."""
    vectors = np.stack([vector(key, 1) for key in ASKED])

    def row(found: vk.Record | None) -> Any:
        if found is None:
            return None
        assert found.vector is not None
        return found.id, found.text, sorted(found.metadata.items()), np.asarray(found.vector).tobytes()

    def scored(hits: vk.Hits) -> Any:
        return [(hit.id, hit.text, sorted(hit.metadata.items()), round(hit.score * 10_000)) for hit in hits]

    return {
        "collections": store.collections,
        "spec": lambda: repr(docs.spec),
        "get": lambda: [row(found) for found in docs.get([f"r{key}" for key in range(ROWS + 10)], vectors=True)],
        "count": docs.count,
        "scan": lambda: sorted(map(str, map(row, docs.scan(vectors=True)))),
        "query": lambda: [scored(docs.query(v, k=5)) for v in vectors],
        "query, exact": lambda: [scored(hits) for hits in docs.query_many(vectors, k=5, exact=True)],
        "query, declared": lambda: [scored(docs.query(v, k=5, where=F("note") < 30)) for v in vectors],
        "query, undeclared": lambda: [scored(docs.query(v, k=5, where=F("parity") == 1)) for v in vectors],
        "keyword": lambda: sorted(docs.keyword("all", k=100).ids),
        "keyword, one": lambda: [scored(docs.keyword(f"k{key}v1")) for key in range(ROWS)],
        "keyword, filtered": lambda: sorted(docs.keyword("all", k=100, where=F("note") < 30).ids),
        "count, declared": lambda: docs.count(F("note") >= 30),
        "count, undeclared": lambda: docs.count(F("parity") == 0),
        "stats": lambda: docs.stats().rows,
    }


def victim(link: Connection, *, name: str, path: str, killed: bool) -> None:
    """A small store with a past. Sends its answers after each of its last verbs, then closes, or waits to be killed."""
    kind = STORES[name]
    store = vk.connect(kind.url(path))
    docs = store.create_collection(spec_of(kind))
    docs.upsert([record(key, 1, key) for key in range(ROWS)])
    for op in (("delete", [3, 4, 5, 50]), ("update", ([10, 11, 12], 77)), ("optimize", None)):
        act(docs, op)
    later: tuple[Op, ...] = (
        ("upsert", [(key, 1, key) for key in range(ROWS, ROWS + 6)]),
        ("upsert", [(key, 2, key + 1) for key in (20, 21)]),
        ("delete", [30, ROWS]),
        ("update", ([40, 41], 5)),
    )
    for op in (("optimize", None), *later):
        act(docs, op)
        link.send(("answers", {probe: ask() for probe, ask in probes(store, docs).items()}))
    if killed:
        link.send(("ready", None))
        while True:
            time.sleep(1)
    store.close()


def probe(link: Connection, *, name: str, path: str, oracle: str) -> dict[str, str]:
    """Each answer of a damaged store: "same", "earlier" (true once, before the last verbs), "error …", "wrong …"."""
    resource.setrlimit(
        resource.RLIMIT_AS, (8 << 30, 8 << 30)
    )  # a length that was damaged must not take the machine down
    answers: list[Answers] = pickle.loads(Path(oracle).read_bytes())
    asked = list(answers[-1])
    told: dict[str, str] = {}

    def verdict(call: Callable[[], Any], what: str) -> tuple[str, Any]:
        try:
            answer = call()
        except vk.NotFound as error:
            return f"wrong: NotFound: {error}", None
        except vk.VectorkitError as error:
            return f"error {type(error).__name__}", None
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return f"wrong: a bare {type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})", None
        if what == "open" or answer == answers[-1][what]:
            return "same", answer
        if any(answer == one[what] for one in answers[:-1]):
            return "earlier", answer
        return f"wrong: {_apart(answer, answers[-1][what])}", answer

    told["open"], opened = verdict(lambda: open_docs(STORES[name], path), "open")
    if opened is None:
        return told
    store, docs = opened
    for what, ask in probes(store, docs).items():
        assert what in asked
        told[what], _ = verdict(ask, what)
    told["write"] = _goes_on(docs)
    try:
        store.close()
    except vk.VectorkitError as error:
        told["close"] = f"error {type(error).__name__}"
    except Exception as error:  # noqa: BLE001
        told["close"] = f"wrong: a bare {type(error).__name__}: {error}"
    return told


def _goes_on(docs: vk.Collection) -> str:
    """A row more, in whatever is left of the store."""
    try:
        docs.upsert([record(200, 1, 0)])
        (found,) = docs.get(["r200"], vectors=True)
        if found is None or whole(found) != (200, (1, 0)) or docs.keyword("k200v1").ids != ["r200"]:
            return f"wrong: {found} after it was written"
    except vk.VectorkitError as error:
        return f"error {type(error).__name__}"
    except Exception as error:  # noqa: BLE001
        return f"wrong: a bare {type(error).__name__}: {error}"
    return "same"


def _apart(got: Any, wanted: Any) -> str:
    """Where two answers differ, in short."""
    if isinstance(got, list) and isinstance(wanted, list):
        if len(got) != len(wanted):
            return f"{len(got)} of {len(wanted)}"
        pairs = [(a, b) for a, b in zip(got, wanted, strict=True) if a != b]
        return f"{len(pairs)} differ, such as {str(pairs[0][0])[:90]} for {str(pairs[0][1])[:90]}"
    return f"{str(got)[:90]} for {str(wanted)[:90]}"


# ------------------------------------------------------------------------------------- a full disk


def fill(link: Connection, *, name: str, path: str, ballast: str | None, budget: int, reopen: bool) -> dict[str, Any]:
    """Write until the disk is full, go on beside that, make room, go on. ballast: a file to remove, else the shim's budget."""
    kind = STORES[name]
    shim = control() if ballast is None else None
    if shim is not None:
        shim.arm(Fault(action=Action.FULL, budget=1 << 40), path)
    store = vk.connect(kind.url(path))
    docs = store.create_collection(spec_of(kind))
    state: State = {}
    wrong: list[str] = []
    full: dict[str, int] = {}
    act(docs, ("upsert", [(key, 1, 0) for key in range(40_000, 40_005)]))
    state |= dict.fromkeys(range(40000, 40005), (1, 0))
    if shim is not None:
        shim.left(budget)

    def attempt(op: Op) -> bool:
        """Whether it was done; when not, it must have been the disk, and none of it."""
        nonlocal state
        try:
            act(docs, op)
        except vk.Unavailable as error:
            full[op[0]] = full.get(op[0], 0) + 1
            if not error.retryable or not ("disk" in str(error).lower() or "space" in str(error).lower()):
                wrong.append(f"{op[0]} on a full disk: not a message about the disk: {error!r}")
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent is told
            wrong.append(f"{op[0]} on a full disk: {error!r}")
            return False
        state = applied(state, op)
        return True

    def look(when: str) -> None:
        try:
            found = contents(docs)
            if found != state:
                wrong.append(f"{when}: {difference(found, [state])}")
            else:
                some = dict(list(state.items())[-40:])
                wrong.extend(f"{when}: {problem}" for problem in problems(docs, state, {}, only=some))
        except vk.Unavailable as error:
            # SQLite opens no database in WAL mode without a few bytes for its shared-memory file
            if when != "opened while full" or "shared-memory file" not in str(error):
                wrong.append(f"{when}: reads raise {error!r}")
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{when}: reads raise {error!r}")

    key = 0
    while key < 20_000:
        step: Op = ("optimize", None) if key % 400 == 200 else ("upsert", [(key + n, 1, key) for n in range(20)])
        if not attempt(step):
            break
        key += 20
    else:
        wrong.append("it never was full")
    look("full")
    for op in (("upsert", [(0, 2, 1)]), ("update", ([1, 2], 9)), ("delete", [3]), ("optimize", None)):
        attempt(op)
    look("still full")
    if reopen:
        outcomes = []
        for what, call in (("close", store.close), ("open", lambda: open_docs(kind, path)), ("count", lambda: None)):
            try:
                opened = call()
            except vk.Unavailable as error:
                outcomes.append((what, error))
                break
            except Exception as error:  # noqa: BLE001
                wrong.append(f"{what} on a full disk: {error!r}")
                break
            if what == "open":
                assert opened is not None
                store, docs = opened
                look("opened while full")
        full["reopen"] = len(outcomes)
    if ballast is not None:
        Path(ballast).unlink()
    else:
        assert shim is not None
        shim.left(1 << 40)
    if reopen:
        store.close()
        try:
            store, docs = open_docs(kind, path)
        except vk.VectorkitError as error:
            wrong.append(f"open with room made: {error!r}")
            return {"wrong": wrong, "full": full, "rows": len(state), "fired": shim.fired if shim else None}
    again: tuple[Op, ...] = (
        ("upsert", [(0, 3, 1), (30_000, 1, 1)]),
        ("update", ([1, 2], 10)),
        ("delete", [3, 4]),
        ("optimize", None),
    )
    wrong += [f"{op[0]} fails with room made" for op in again if not attempt(op)]
    look("with room made")
    store.close()
    store, docs = open_docs(kind, path)
    look("reopened")
    if not attempt(("upsert", [(30_001, 1, 1)])):
        wrong.append("upsert fails after all")
    store.close()
    return {"wrong": wrong, "full": full, "rows": len(state), "fired": shim.fired if shim else None}


# ------------------------------------------------------------------------------------- locks and processes


def hold(link: Connection, *, name: str, path: str) -> None:
    """Own a store until killed."""
    store, docs = open_docs(STORES[name], path)
    docs.count()
    link.send(("held", store.collections()))
    while True:
        time.sleep(1)


def open_once(link: Connection, *, name: str, path: str, number: int) -> tuple[str, float]:
    """At the parent's word: open, make the collection or find it, write a row, close. What came of it, after how long."""
    link.send(("ready", None))
    link.recv()
    began = time.monotonic()
    kind = STORES[name]
    try:
        with vk.connect(kind.url(path), options=vk.LocalOptions(lock_timeout=0.5)) as store:
            store.ensure_collection(spec_of(kind)).upsert([record(number, 1, 0)])
            time.sleep(0.02)
    except vk.Locked:
        return "locked", time.monotonic() - began
    return "written", time.monotonic() - began


def verbs(store: vk.Store, docs: vk.Collection, spec: vk.CollectionSpec) -> dict[str, Callable[[], Any]]:
    """Every verb of a store and of a collection."""
    one = [record(1, 1, 1)]
    asked = vector(1, 1)
    return {
        "collections": store.collections,
        "collection": lambda: store.collection(spec.name),
        "create_collection": lambda: store.create_collection(spec_of(STORES["local"], "other")),
        "ensure_collection": lambda: store.ensure_collection(spec),
        "drop_collection": lambda: store.drop_collection(spec.name),
        "upsert": lambda: docs.upsert(one),
        "upsert of a generator": lambda: docs.upsert(iter(one)),
        "insert": lambda: docs.insert(one),
        "get": lambda: docs.get(["r1"]),
        "query": lambda: docs.query(asked),
        "query, exact": lambda: docs.query(asked, exact=True),
        "query, filtered": lambda: docs.query(asked, where=F("note") == 1),
        "query_many": lambda: docs.query_many([asked]),
        "keyword": lambda: docs.keyword("all"),
        "hybrid": lambda: docs.hybrid("all", asked),
        "update": lambda: docs.update(ids=["r1"], set={"note": 2}),
        "update where": lambda: docs.update(where=F("note") == 1, set={"note": 2}),
        "delete": lambda: docs.delete(ids=["r1"]),
        "delete where": lambda: docs.delete(where=F("note") == 1),
        "delete everything": lambda: docs.delete(everything=True),
        "count": docs.count,
        "count where": lambda: docs.count(F("parity") == 1),
        "scan": lambda: list(docs.scan()),
        "stats": docs.stats,
        "optimize": docs.optimize,
        "explain": lambda: docs.explain(asked),
    }


def not_closed(calls: dict[str, Callable[[], Any]]) -> dict[str, str]:
    """What these calls gave instead of Closed."""
    told: dict[str, str] = {}
    for what, call in calls.items():
        try:
            told[what] = f"gave {call()!r}"
        except vk.Closed:
            pass
        except Exception as error:  # noqa: BLE001
            told[what] = repr(error)
    return told


def forked(link: Connection, *, name: str, path: str) -> list[str]:
    """Open, write, fork; the child tries everything and goes in several ways; the parent goes on."""
    kind = STORES[name]
    store = vk.connect(kind.url(path))
    spec = spec_of(kind)
    docs = store.create_collection(spec)
    state = {key: (1, key) for key in range(30)}
    act(docs, ("upsert", [(key, 1, key) for key in range(30)]))
    act(docs, ("optimize", None))
    wrong = problems(docs, state, {})
    for number, ending in enumerate(("at once", "closed", "collected", "killed")):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            told = not_closed(verbs(store, docs, spec))
            try:
                with vk.connect(kind.url(path), options=vk.LocalOptions(lock_timeout=0)):
                    told["connect in the child"] = "opened what the parent owns"
            except vk.Locked:
                pass
            except Exception as error:  # noqa: BLE001
                told["connect in the child"] = repr(error)
            if ending == "closed":
                store.close()
            elif ending == "collected":
                del store, docs
                gc.collect()
            os.write(writer, repr(told).encode() if told else b"-")
            if ending == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(0)
        os.close(writer)
        said = os.read(reader, 65_536).decode()
        os.close(reader)
        os.waitpid(child, 0)
        if said != "-":
            wrong.append(f"in a child that ends {ending}: {said or 'it died'}")
        rows = [(100 + number, 1, 0), (number, 2, number)]
        act(docs, ("upsert", rows))
        state = applied(state, ("upsert", rows))
        act(docs, ("optimize", None))
        wrong += [f"after a child that ends {ending}: {told}" for told in problems(docs, state, {})]
    link.send(("open", None))  # the parent tries the lock now
    link.recv()
    store.close()
    store, docs = open_docs(kind, path)
    with store:
        if contents(docs) != state:
            wrong.append(f"reopened: {difference(contents(docs), [state])}")
        wrong += problems(docs, state, {})
    return wrong


def interrupted(link: Connection, *, name: str, path: str, rows: int, times: int, seed: int) -> dict[str, Any]:
    """Verbs that are interrupted by Ctrl-C at a moment of the parent's choosing, many times through one handle."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kind = STORES[name]
    dice = random.Random(seed)
    store = vk.connect(kind.url(path))
    docs = store.create_collection(spec_of(kind))
    state: State = {}
    took: dict[str, float] = {}
    wrong: list[str] = []
    counts = {"in the verb": 0, "after it": 0, "swallowed": 0, "happened": 0, "did not": 0}
    for version in range(1, times + 1):
        some = dice.sample(range(rows), rows // 2)
        op: Op = [
            ("upsert", [(key, version, key) for key in range(rows)]),
            ("upsert", [(key, version, key) for key in some]),
            ("optimize", None),
            ("upsert", [(key, version, key) for key in range(rows // 2, rows + rows // 2)]),
            ("update", (some, version)),
            ("delete", some),
        ][(version - 1) % 6]
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until there is somebody to catch it
        link.send(("go", took.get(op[0], 0.03)))
        done, heard, failed = False, False, ""
        began = time.perf_counter()
        try:
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                act(docs, op)
                done = True
                took[op[0]] = time.perf_counter() - began
            except Exception as error:  # noqa: BLE001 - the interrupt must come out as itself
                failed = f"{op[0]}: {error!r} instead of KeyboardInterrupt"
            end = time.monotonic() + 2
            while time.monotonic() < end:
                time.sleep(0.0005)
        except KeyboardInterrupt:
            heard = True
        if failed:
            wrong.append(failed)
        counts["swallowed" if not heard else "after it" if done else "in the verb"] += 1
        allowed = [applied(state, op)] if done else [state, applied(state, op)]
        try:
            found = contents(docs)
            if found not in allowed:
                wrong.append(f"{op[0]}, {'done' if done else 'interrupted'}: {difference(found, allowed)}")
            if not done:
                counts["did not" if found == state else "happened"] += 1
            state = found
            some_rows = dict(dice.sample(sorted(state.items()), min(20, len(state))))
            wrong += [f"{op[0]}, interrupted: {told}" for told in problems(docs, state, {}, only=some_rows)]
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{op[0]}, interrupted, then a read: {error!r} {traceback.format_exc()[-600:]}")
    store.close()
    store, docs = open_docs(kind, path)
    with store:
        if contents(docs) != state:
            wrong.append(f"reopened: {difference(contents(docs), [state])}")
        wrong += problems(docs, state, {}, only=dict(list(state.items())[:50]))
    return {"wrong": wrong, "counts": counts}
