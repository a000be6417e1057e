"""Pinecone through vectorkit against its bare official client: requests and bytes of every verb, and what either costs this process.

    uv run --group bench python bench/pinecone_http.py [--parts wire,sync,async] [--rounds 25] [--calls 20]

The other side is the double of Pinecone's API, a process of its own. Its time is no measure of the service, so what is
compared is what was sent, and CPU time of this process, in turns. The bare client gets the very fields that vectorkit makes,
ready made, with vectors as lists; `plain` is one document a row as one would write it by hand, text once and metadata as fields.
(Were this file `pinecone.py`, it would be what `import pinecone` finds here.)
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pinecone import AsyncPinecone, Pinecone

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import vectorkit as vk
from integration.servers.pinecone import PineconeServer
from vectorkit import F
from vectorkit.ranking import tie_floor
from vectorkit_pinecone.convert import SHOWN, VECTOR, WORDS, rows

D, K = 384, 10
COUNT = 1_000  # rows; one in a hundred has a given n
NAMESPACE = "rows"
SAME = 200  # documents of the same fields that a request of 2 MB holds, their numbers in full
KEY = "of-a-benchmark"
FIELDS: dict[str, Any] = {"n": int, "kind": str}
SPEC = vk.CollectionSpec("docs", D, fields=FIELDS)
WHERE, NATIVE = F("n") == 3, {"vk_f0": {"$eq": 3}}
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
SEARCHED = {"type": "string", "full_text_search": {"language": "en"}}
Steps = Generator[Any, Any, Any]
"""Work of either colour: it yields what the client returns, and is sent what that comes to."""
Act = Callable[[], Steps]


class Data:
    """Clustered vectors, texts of 20 to 60 words, two declared fields and one that is not; the same as the bare client is given."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(200, D))
        vectors = (centres[rng.integers(0, 200, COUNT)] + 0.6 * rng.normal(size=(COUNT, D))).astype(np.float32)
        words = ["".join(rng.choice(LETTERS, 6)) for _ in range(4_000)]
        self.texts = [" ".join(words[at] for at in rng.zipf(1.3, rng.integers(20, 60)) % 4_000) for _ in range(COUNT)]
        self.metadata = [{"n": n % 100, "kind": f"k{n % 7}", "score": n / 7} for n in range(COUNT)]
        self.batch = vk.Batch([f"r{n:07d}" for n in range(COUNT)], vectors, self.texts, self.metadata)
        self.vectors = vectors
        self.questions = vectors[rng.integers(0, COUNT, 50)] + 0.3 * rng.normal(size=(50, D)).astype(np.float32)
        self.words = [" ".join(text.split()[:2]) for text in self.texts[:50]]
        self.stored = rows(SPEC, self.batch, 1)
        self.one = vk.Batch(self.batch.ids[:1], vectors[:1], self.texts[:1], self.metadata[:1])

    def same(self, start: int, stop: int) -> list[dict[str, Any]]:
        """The documents that vectorkit sends, the vectors as lists."""
        vectors = self.vectors[start:stop].tolist()
        return [
            {"_id": row.key, VECTOR: vector, **row.fields}
            for row, vector in zip(self.stored[start:stop], vectors, strict=True)
        ]

    def plain(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Documents as one would write them by hand."""
        vectors = self.vectors[start:stop].tolist()
        return [
            {"_id": self.batch.ids[n], VECTOR: vector, "text": self.texts[n], **self.metadata[n]}
            for n, vector in zip(range(start, stop), vectors, strict=True)
        ]


# --------------------------------------------------------------------------------------------- both sides, of either colour


class Bare:
    """What one writes with the official client by hand. Replies are read as vectorkit's are: id, score, text, metadata."""

    def __init__(self, index: Any, data: Data) -> None:
        self.index = index
        self.documents = index.documents
        self.data = data

    def put(self, count: int = COUNT, *, plain: bool = False) -> Steps:
        make = self.data.plain if plain else self.data.same
        reply = None
        for start in range(0, count, SAME):
            documents = make(start, min(start + SAME, count))
            reply = yield self.documents.upsert(namespace=NAMESPACE, documents=documents)
        return reply

    def put_waited(self) -> Steps:
        """As Pinecone's guide has it: ask until the answer is of a log that has the write."""
        reply = yield from self.put(1)
        clause = self._nearest(self.data.vectors[0])
        pause = 0.02
        while True:
            found = yield self.documents.search(namespace=NAMESPACE, score_by=clause, top_k=1, include_fields=["vk_id"])
            if (found.response_info.lsn_reconciled or 0) >= reply.response_info.lsn_committed:
                return
            time.sleep(pause)
            pause = min(1.5 * pause, 0.5)

    def _nearest(self, vector: Any) -> list[dict[str, Any]]:
        return [{"type": "dense_vector", "field": VECTOR, "values": vector.tolist()}]

    def query(self, vector: Any, where: Any = None, *, k: int = K, vectors: bool = False) -> Steps:
        fields = [*SHOWN, VECTOR] if vectors else [*SHOWN]
        found = yield self.documents.search(
            namespace=NAMESPACE, score_by=self._nearest(vector), top_k=k, filter=where, include_fields=fields
        )
        if vectors:
            return [(*shown(row), np.array(row.get(VECTOR), np.float32)) for row in found.matches]
        return [shown(row) for row in found.matches]

    def many(self, vectors: Any) -> Steps:
        for vector in vectors:
            yield from self.query(vector)

    def keyword(self, words: str, *, k: int = K) -> Steps:
        clause = [{"type": "text", "fields": [WORDS], "query": words}]
        found = yield self.documents.search(namespace=NAMESPACE, score_by=clause, top_k=k, include_fields=[*SHOWN])
        return [shown(row) for row in found.matches]

    def sorted_words(self) -> Steps:
        """The questions of words that have one tenth best row, and those where its score is the eleventh's too."""
        clear: list[str] = []
        tied: list[str] = []
        for words in self.data.words:
            scores = [row[1] for row in (yield from self.keyword(words, k=K + 1))]
            if len(scores) > K:
                (tied if scores[K] >= tie_floor(scores[K - 1]) else clear).append(words)
        return clear, tied

    def hybrid(self, words: str, vector: Any) -> Steps:
        scores: dict[str, float] = {}
        for leg in (self.query(vector, k=100), self.keyword(words, k=100)):
            for rank, row in enumerate((yield from leg), 1):
                scores[row[0]] = scores.get(row[0], 0.0) + 1 / (60 + rank)
        return sorted(scores, key=lambda one: -scores[one])[:K]

    def get(self, keys: Sequence[str]) -> Steps:
        found = yield self.documents.fetch(
            namespace=NAMESPACE, ids=list(keys), include_fields=[*SHOWN, "vk_expires", "vk_until"]
        )
        return [shown(row) for row in found.documents.values()]

    def pages(self, where: Any, fields: Sequence[str], limit: int) -> Steps:
        """All rows of a filter."""
        found: list[Any] = []
        token = None
        while True:
            reply = yield self.documents.fetch(
                namespace=NAMESPACE, filter=where, include_fields=list(fields), limit=limit, pagination_token=token
            )
            found += reply.documents.values()
            token = reply.pagination.next if reply.pagination is not None else None
            if not token:
                return found


def shown(row: Any) -> tuple[str, float | None, str, Any]:
    return row.get("vk_id"), row.score, row.get("vk_text"), json.loads(row.get("vk_meta"))


def step(made: Callable[[], Any]) -> Steps:
    """One call."""
    return (yield made())


def run(steps: Steps) -> Any:
    """Sync."""
    value = None
    while True:
        try:
            value = steps.send(value)
        except StopIteration as stop:
            return stop.value


async def arun(steps: Steps) -> Any:
    """Async."""
    value = None
    while True:
        try:
            value = await steps.send(value)
        except StopIteration as stop:
            return stop.value


def schema(text: str) -> dict[str, Any]:
    return {"fields": {VECTOR: {"type": "dense_vector", "dimension": D, "metric": "cosine"}, text: SEARCHED}}


def target(double: PineconeServer) -> dict[str, Any]:
    return {"url": double.url, "api_key": KEY}


# --------------------------------------------------------------------------------------------- what is sent


def wire(double: PineconeServer, data: Data) -> None:
    """Requests and bytes of each verb."""
    double.control.reset()
    seen = partial(measured, double)
    print(
        f"\nWhat a verb sends, {COUNT:,} x {D}, bodies only; bare | vectorkit\n"
        f"{'':40s}{'requests':>12s}{'bytes sent':>21s}{'back':>21s}   by vectorkit"
    )
    with Pinecone(api_key=KEY, host=double.control_url) as client, vk.connect(target(double)) as store:
        told("create", seen(partial(made, client, "bare", WORDS)), seen(lambda: store.create_collection(SPEC)))
        made(client, "plain", "text")

        def again(way: str) -> None:
            with vk.connect(target(double)) as other:
                getattr(other, way)(SPEC if way == "ensure_collection" else "docs")

        def bare_again() -> None:
            with Pinecone(api_key=KEY, host=double.control_url) as other:
                other.index(name="bare").close()

        told("ensure, there it is", seen(bare_again), seen(partial(again, "ensure_collection")))
        told("open", seen(bare_again), seen(partial(again, "collection")))
        docs = store.collection("docs")
        with client.index(name="bare") as index, client.index(name="plain") as plain:
            put = Bare(plain, data)
            for name, bare, ours in verbs(double, Bare(index, data), docs):
                told(name, seen(bare), seen(ours))
                if name == "upsert of 1,000":
                    again_by = seen(lambda: run(put.put(plain=True)))
                    told(f"{name}, bare: plain", again_by, None)
        told(
            "drop",
            seen(lambda: client.indexes.delete("bare")),
            seen(lambda: store.drop_collection("docs")),
        )


def made(client: Any, name: str, text: str) -> None:
    client.indexes.create(name=name, schema=schema(text))


def verbs(
    double: PineconeServer, bare: Bare, docs: vk.Collection
) -> Iterator[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    """A name, and the same of both sides."""
    data, direct = bare.data, bare.documents
    ids, keys = data.batch.ids[:10], [row.key for row in data.stored[:10]]
    asked = data.questions
    yield "upsert of 1", lambda: run(bare.put(1)), lambda: docs.upsert(data.one)
    yield "upsert of 1,000", lambda: run(bare.put()), lambda: docs.upsert(data.batch)
    yield "upsert of 1, waited", lambda: run(bare.put_waited()), lambda: docs.upsert(data.one, wait=10)
    double.control.delay = 0.3
    yield "… seen 0.3 s later", lambda: run(bare.put_waited()), lambda: docs.upsert(data.one, wait=10)
    double.control.delay = 0.0
    double.control.settle()
    yield "get of 10", lambda: run(bare.get(keys)), lambda: docs.get(ids)
    yield "query", lambda: run(bare.query(asked[0])), lambda: docs.query(asked[0], k=K)
    yield (
        "query, bare: with vectors",
        lambda: run(bare.query(asked[0], vectors=True)),
        lambda: docs.query(asked[0], k=K, vectors=True),
    )
    yield "query, 1 % filter", lambda: run(bare.query(asked[0], NATIVE)), lambda: docs.query(asked[0], k=K, where=WHERE)
    yield (
        "… bare: with vectors",
        lambda: run(bare.query(asked[0], NATIVE, vectors=True)),
        lambda: docs.query(asked[0], k=K, where=WHERE, vectors=True),
    )
    yield "query_many of 16", lambda: run(bare.many(asked[:16])), lambda: docs.query_many(asked[:16], k=K)
    clear, tied = run(bare.sorted_words())
    words = clear[0]
    yield "keyword", lambda: run(bare.keyword(clear[0])), lambda: docs.keyword(clear[0], k=K)
    yield "keyword, the last tied", lambda: run(bare.keyword(tied[0])), lambda: docs.keyword(tied[0], k=K)
    yield (
        "hybrid, 100 candidates a leg",
        lambda: run(bare.hybrid(words, asked[0])),
        lambda: docs.hybrid(words, asked[0], k=K),
    )
    yield "count", bare.index.describe_index_stats, docs.count
    yield "count by filter", lambda: run(bare.pages(NATIVE, ["vk_id"], 10_000)), lambda: docs.count(WHERE)
    scanned = {"vk_seq": {"$gte": 0}}
    yield "scan of 1,000", lambda: run(bare.pages(scanned, SHOWN, 1_000)), lambda: list(docs.scan())
    patches = [{"_id": key, "score": 1.0} for key in keys]
    yield (
        "update of 10 by id",
        lambda: direct.update(namespace=NAMESPACE, documents=patches),
        lambda: docs.update(ids=ids, set={"score": 1.0}),
    )
    yield (
        "update by filter, 1 %",
        lambda: direct.update(namespace=NAMESPACE, filter=NATIVE, set_fields={"score": 2.0}),
        lambda: docs.update(where=WHERE, set={"score": 2.0}),
    )
    yield "delete of 10 by id", lambda: direct.delete(namespace=NAMESPACE, ids=keys), lambda: docs.delete(ids=ids)
    yield (
        "delete by filter, 1 %",
        lambda: direct.delete(namespace=NAMESPACE, filter=NATIVE),
        lambda: docs.delete(where=WHERE),
    )
    yield (
        "delete of everything",
        lambda: direct.delete(namespace=NAMESPACE, delete_all=True),
        lambda: docs.delete(everything=True),
    )


Seen = dict[str, dict[str, int]]


def measured(double: PineconeServer, act: Callable[[], Any]) -> Seen:
    control = double.control
    control.forget()
    act()
    return control.traffic()


def told(name: str, bare: Seen, ours: Seen | None) -> None:
    sums = [
        [sum(one[key] for one in side.values()) if side is not None else None for side in (bare, ours)]
        for key in ("requests", "request_bytes", "response_bytes")
    ]
    cells = [[f"{number:,}" if number is not None else "-" for number in pair] for pair in sums]
    paths = [
        f"{path.rpartition('/')[2] if 'namespaces' in path else path}{' x' + str(one['requests']) if one['requests'] > 1 else ''}"
        for path, one in (ours or {}).items()
    ]
    (a, b), (c, d), (e, f) = cells
    print(f"{name:40s}{a:>5s} |{b:>5s}{c:>11s} |{d:>8s}{e:>11s} |{f:>8s}   {', '.join(paths)}", flush=True)


# --------------------------------------------------------------------------------------------- what it costs this process


class Turns:
    """CPU seconds of this process a call: blocks of so many calls of each, in turns, in another order each time."""

    def __init__(self, rounds: int, calls: int, runner: asyncio.Runner | None) -> None:
        self.rounds = rounds
        self.calls = calls
        self.runner = runner

    def do(self, steps: Steps) -> Any:
        """One, not measured."""
        return run(steps) if self.runner is None else self.runner.run(arun(steps))

    def block(self, act: Act, calls: int) -> float:
        """A call's share of a block."""
        if self.runner is not None:
            return self.runner.run(self._ablock(act, calls))
        before = time.process_time()
        for _ in range(calls):
            run(act())
        return (time.process_time() - before) / calls

    async def _ablock(self, act: Act, calls: int) -> float:
        before = time.process_time()
        for _ in range(calls):
            await arun(act())
        return (time.process_time() - before) / calls

    def compare(self, name: str, ours: Act, bares: dict[str, Act], *, calls: int = 0, unit: float = 1e6) -> None:
        """A line for each way to write it with the bare client."""
        acts = [*bares.values(), ours]
        calls = calls or self.calls
        taken: list[list[float]] = [[] for _ in acts]
        for act in acts:
            self.block(act, 2)
        for turn in range(self.rounds):
            order = [(turn + at) % len(acts) for at in range(len(acts))]
            for at in order if turn % 2 else reversed(order):
                taken[at].append(self.block(acts[at], calls))
        mine = statistics.median(taken[-1])
        for way, times in zip(bares, taken, strict=False):
            theirs = statistics.median(times)
            ratio = statistics.median(a / b for a, b in zip(taken[-1], times, strict=True))
            print(
                f"{name:24s}{way:30s}{theirs * unit:10.1f}{mine * unit:11.1f}{(mine - theirs) * unit:+10.1f}"
                f"{mine / theirs:8.2f}x{ratio:9.2f}x",
                flush=True,
            )


def cycled(make: Callable[[Any], Steps], items: Sequence[Any]) -> Act:
    """Each call asks the next question, the first again after the last."""
    at = -1

    def act() -> Steps:
        nonlocal at
        at = (at + 1) % len(items)
        return make(items[at])

    return act


def head(colour: str) -> None:
    print(
        f"\n{colour}: CPU of this process, µs a call, medians of blocks in turns\n"
        f"{'':24s}{'the bare client':30s}{'bare':>10s}{'vectorkit':>11s}{'more':>10s}{'ratio':>9s}{'in turns':>10s}"
    )


def work(turns: Turns, data: Data, bare: Bare, plain: Bare, docs: Any) -> None:
    """Every verb that is measured. Both indexes are filled by the first."""
    upserts = {"same fields, ready made": bare.put, "plain": lambda: plain.put(plain=True)}
    turns.compare("upsert of 1,000", lambda: step(lambda: docs.upsert(data.batch)), upserts, calls=1)
    asked = list(data.questions)
    for name, where, native in (("query", None, None), ("query, 1 % filter", WHERE, NATIVE)):
        turns.compare(
            name,
            cycled(lambda vector: step(lambda: docs.query(vector, k=K, where=where)), asked),  # noqa: B023
            {
                "without vectors": cycled(lambda vector: bare.query(vector, native), asked),  # noqa: B023
                "with vectors, as arrays": cycled(
                    lambda vector: bare.query(vector, native, vectors=True),  # noqa: B023
                    asked,
                ),
            },
        )
    clear, tied = turns.do(bare.sorted_words())
    for name, texts in (("keyword", clear), ("keyword, last tied", tied)):
        turns.compare(
            name,
            cycled(lambda one: step(lambda: docs.keyword(one, k=K)), texts),
            {f"{len(texts)} questions": cycled(bare.keyword, texts)},
        )
    some = [data.batch.ids[at : at + 10] for at in range(0, 500, 10)]
    keys = [[row.key for row in data.stored[at : at + 10]] for at in range(0, 500, 10)]
    turns.compare("get of 10", cycled(lambda ids: step(lambda: docs.get(ids)), some), {"": cycled(bare.get, keys)})
    for vector in asked[:10]:  # that they found the same
        found = turns.do(step(lambda: docs.query(vector, k=K)))  # noqa: B023
        assert [row[0] for row in turns.do(bare.query(vector))] == found.ids
    for words in clear[:10]:
        found = turns.do(step(lambda: docs.keyword(words, k=K)))  # noqa: B023
        assert {row[0] for row in turns.do(bare.keyword(words))} == set(found.ids)
    print(
        "A query of vectorkit asks for vectors and scores the rows again from them; so the bare client is measured both ways.\n"
        "A keyword search asks for one row more, and for sixteen times as many while the last has the score of the k-th."
    )


def sync(double: PineconeServer, data: Data, rounds: int, calls: int) -> None:
    double.control.reset()
    with Pinecone(api_key=KEY, host=double.control_url) as client, vk.connect(target(double)) as store:
        made(client, "bare", WORDS)
        made(client, "plain", "text")
        docs = store.create_collection(SPEC)
        head("sync")
        with client.index(name="bare") as index, client.index(name="plain") as plain:
            work(Turns(rounds, calls, None), data, Bare(index, data), Bare(plain, data), docs)


def together(double: PineconeServer, data: Data, rounds: int, calls: int) -> None:
    """The async client of both, one call at a time, on one loop."""
    double.control.reset()
    with Pinecone(api_key=KEY, host=double.control_url) as client:
        made(client, "bare", WORDS)
        made(client, "plain", "text")
    with asyncio.Runner() as runner:
        store, client, indexes = runner.run(opened(double))
        docs = runner.run(store.create_collection(SPEC))
        head("async")
        bare, plain = (Bare(index, data) for index in indexes)
        work(Turns(rounds, calls, runner), data, bare, plain, docs)
        for one in (*indexes, client, store):
            runner.run(one.close())


async def opened(double: PineconeServer) -> tuple[Any, Any, list[Any]]:
    client = AsyncPinecone(api_key=KEY, host=double.control_url)
    indexes = [await client.index(name=name) for name in ("bare", "plain")]
    return await vk.aconnect(target(double)), client, indexes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", default="wire,sync,async")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--calls", type=int, default=20)
    asked = parser.parse_args()
    parts = asked.parts.split(",")
    data = Data()
    with PineconeServer() as double:
        if "wire" in parts:
            wire(double, data)
        if "sync" in parts:
            sync(double, data, asked.rounds, asked.calls)
        if "async" in parts:
            together(double, data, asked.rounds, asked.calls)


if __name__ == "__main__":
    main()
