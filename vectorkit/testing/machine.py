"""A state machine over every verb: what a store answers after any sequence of calls is what a plain dict of rows would.

The dict knows nothing of vectorkit but `Filter.matches()`; the memory store runs beside it as a second opinion.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count, pairwise
from typing import Any, ClassVar, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import vectorkit as vk
from vectorkit import F
from vectorkit.aio import AsyncCollection, AsyncStore
from vectorkit.testing.effort import effort
from vectorkit.testing.faces import Bench
from vectorkit.testing.kit import raises, reference, same_in_any_order
from vectorkit.types import Metric

T = TypeVar("T")
IDS = [*"abcdefgh", "A", "é", "e\u0301", "id with 'quotes\""]
WORDS = ["alpha", "beta", "gamma", "delta", "AND"]
FIELDS: dict[str, Any] = {"n": int, "s": str, "tags": list[str]}
METRICS = ["cosine", "dot", "l2"]
_names = count()

ids = st.sampled_from(IDS)
some_ids = st.lists(ids, max_size=5)
vectors = st.tuples(*[st.integers(-2, 2)] * 3).filter(any).map(list)
texts = st.none() | st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "n": st.sampled_from([0, 1, 2, 2**53, 2**53 + 1, -(2**63)]),
        "s": st.sampled_from(["", "x", "X", "xy", "é"]),
        "tags": st.lists(st.sampled_from(["p", "q", "P"]), max_size=2),
        "x": st.sampled_from([1, 1.0, 1.5, True, "1", [1], {"n": 1}, datetime(2024, 1, 1).astimezone()]),
    },
)
lifetimes = st.none() | st.integers(-1, 5)
records = st.lists(st.tuples(ids, vectors, texts, metadata, lifetimes), max_size=6, unique_by=lambda row: row[0])
_leaves: list[vk.Filter] = [
    F("n") == 1, F("n") >= 1, F("n") > 2**53, F("n") != 2, F("n").in_([0, 2**53 + 1]), F("n").missing(), F("s") == "x", F("s").startswith("x"), F("s") < "x",
    F("tags").contains("p"), F("tags").contains_all(["p", "q"]), F("tags").contains_all([]), F("x") == 1, F("x") == True, F("x").exists(),  # noqa: E712
    F("x").contains(1), F("x") != "1", F("n").not_in([]), F("s").in_([]),
]  # fmt: skip
wheres = st.recursive(
    st.sampled_from(_leaves),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
        inner.map(lambda child: ~child),
    ),
    max_leaves=4,
)
maybe_where = st.none() | wheres
ks = st.sampled_from([1, 2, 3, 5, 20])


@dataclass(slots=True)
class Row:
    """A row as the dict keeps it."""

    vector: list[int]
    text: str | None
    metadata: dict[str, Any]
    expires_at: datetime | None = None


@dataclass(slots=True)
class Report:
    """What a run did: steps in all, and calls by verb."""

    steps: int = 0
    verbs: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        calls = ", ".join(f"{verb} {n}" for verb, n in sorted(self.verbs.items()))
        return f"{self.steps} steps, {len(self.verbs)} verbs ({calls})"


class StoreMachine(RuleBasedStateMachine):
    """One collection under test, the dict that says what is in it, and the memory store."""

    bench: ClassVar[Bench]
    store: ClassVar[AsyncStore]
    index: ClassVar[Any]
    report: ClassVar[Report]

    @initialize(metric=st.sampled_from(METRICS), expiry=st.booleans(), drawn=records)
    def create(self, metric: Metric, expiry: bool, drawn: Any) -> None:
        self.metric = metric
        self.expiry = expiry and self.store.capability.expiry
        self.rows: dict[str, Row] = {}
        self.name = f"machine-{next(_names)}"
        spec = vk.CollectionSpec(self.name, 3, metric=metric, index=self.index, fields=FIELDS, expiry=self.expiry)
        self.docs: AsyncCollection = self.bench.run(self.store.create_collection(spec))
        self.memory = vk.connect("memory://", clock=self.bench.clock)
        self.oracle = self.memory.create_collection(spec)
        self.upsert_rows(drawn, "list", None)

    def teardown(self) -> None:
        if hasattr(self, "docs"):
            self.bench.run(self.store.drop_collection(self.name))
            self.memory.close()

    # --------------------------------------------------------------------------------- the dict

    def step(self, verb: str) -> None:
        self.report.steps += 1
        self.report.verbs[verb] += 1

    def alive(self, where: vk.Filter | None = None) -> dict[str, Row]:
        """The rows that are there now, under a filter."""
        now = self.bench.clock.now
        return {
            name: row
            for name, row in self.rows.items()
            if (row.expires_at is None or row.expires_at > now) and (where is None or where.matches(row.metadata))
        }

    def made(self, drawn: Sequence[Any]) -> tuple[list[vk.Record], dict[str, Row]]:
        """Drawn rows as records to write and as the dict keeps them."""
        now = self.bench.clock.now
        found: dict[str, Row] = {}
        for name, vector, text, values, lifetime in drawn:
            expires = now + timedelta(seconds=lifetime) if self.expiry and lifetime is not None else None
            found[name] = Row(vector, text, values, expires)
        return [
            vk.Record(name, row.vector, row.text, row.metadata, row.expires_at) for name, row in found.items()
        ], found

    def same_row(self, name: str, text: str | None, values: Any, vector: Any = None) -> None:
        row = self.rows[name]
        assert text == row.text
        assert same_in_any_order(values, row.metadata)
        if vector is not None:
            assert np.allclose(vector, row.vector, rtol=1e-6)

    # --------------------------------------------------------------------------------- writes

    @rule(drawn=records, ttl=st.none() | st.integers(1, 4))
    def upsert_list(self, drawn: Any, ttl: int | None) -> None:
        self.upsert_rows(drawn, "list", ttl)

    @rule(drawn=records, ttl=st.none() | st.integers(1, 4), form=st.sampled_from(["generator", "batch"]))
    def upsert(self, drawn: Any, ttl: int | None, form: str) -> None:
        self.upsert_rows(drawn, form, ttl)

    def upsert_rows(self, drawn: Any, form: str, ttl: int | None) -> None:
        self.step(f"upsert {form}")
        given, rows = self.made(drawn)
        lifetime = ttl if self.expiry else None
        for row in rows.values():
            if lifetime is not None and row.expires_at is None:
                row.expires_at = self.bench.clock.now + timedelta(seconds=lifetime)

        def shaped() -> Any:
            if form == "list":
                return given
            return vk.Batch.of(given) if form == "batch" else (record for record in given)

        assert self.bench.run(self.docs.upsert(shaped(), ttl=lifetime)) == vk.WriteResult(len(given), 0)
        self.oracle.upsert(shaped(), ttl=lifetime)
        self.rows |= rows

    @rule(drawn=records)
    def insert(self, drawn: Any) -> None:
        self.step("insert fail")
        given, rows = self.made(drawn)
        if self.store.capability.insert == "none":
            return
        taken = tuple(name for name in rows if name in self.alive())
        if taken:
            with raises(vk.AlreadyExists, ids=taken):
                self.bench.run(self.docs.insert(given))
            return
        assert self.bench.run(self.docs.insert(given)) == vk.WriteResult(len(given), 0)
        self.oracle.insert(given)
        self.rows |= rows

    @rule(drawn=records)
    def insert_skip(self, drawn: Any) -> None:
        self.step("insert skip")
        given, rows = self.made(drawn)
        if self.store.capability.insert == "none":
            return
        fresh = {name: row for name, row in rows.items() if name not in self.alive()}
        expected = vk.WriteResult(len(fresh), len(rows) - len(fresh))
        assert self.bench.run(self.docs.insert(given, on_conflict="skip")) == expected
        assert self.oracle.insert(given, on_conflict="skip") == expected
        self.rows |= fresh

    @rule(drawn=records.filter(bool), fault=st.sampled_from(["nan", "duplicate", "value", "declared"]))
    def refused_write(self, drawn: Any, fault: str) -> None:
        self.step("refused write")
        given, _ = self.made(drawn)
        bad = {
            "nan": vk.Record("bad", [float("nan"), 0, 0]),
            "duplicate": given[0],
            "value": vk.Record("bad", [1, 0, 0], None, {"x": {1}}),
            "declared": vk.Record("bad", [1, 0, 0], None, {"n": "1"}),
        }[fault]
        with raises(vk.InvalidRecord, row=len(given)):
            self.bench.run(self.docs.upsert([*given, bad]))

    @rule(names=some_ids, change=metadata, unset=st.lists(st.sampled_from(["n", "s", "x", "none"]), max_size=2))
    def update_ids(self, names: list[str], change: dict[str, Any], unset: list[str]) -> None:
        self.step("update ids")
        gone = [key for key in unset if key not in change]
        if change or gone:
            expected = {name: row for name, row in self.alive().items() if name in names}
            assert self.bench.run(self.docs.update(ids=names, set=change, unset=gone)) == len(expected)
            self.oracle.update(ids=names, set=change, unset=gone)
            self.changed(expected, change, gone)

    @rule(where=wheres, change=metadata.filter(bool))
    def update_where(self, where: vk.Filter, change: dict[str, Any]) -> None:
        self.step("update where")
        expected = self.alive(where)
        assert self.bench.run(self.docs.update(where=where, set=change)) == len(expected)
        self.oracle.update(where=where, set=change)
        self.changed(expected, change, [])

    def changed(self, rows: dict[str, Row], change: dict[str, Any], unset: list[str]) -> None:
        for name, row in rows.items():
            values = {key: value for key, value in {**row.metadata, **change}.items() if key not in unset}
            self.rows[name] = Row(row.vector, row.text, values, row.expires_at)

    @rule(names=some_ids)
    def delete_ids(self, names: list[str]) -> None:
        self.step("delete ids")
        expected = [name for name in self.alive() if name in names]
        assert self.bench.run(self.docs.delete(ids=names)) == len(expected)
        self.gone(expected)

    @rule(where=wheres)
    def delete_where(self, where: vk.Filter) -> None:
        self.step("delete where")
        expected = list(self.alive(where))
        assert self.bench.run(self.docs.delete(where=where)) == len(expected)
        self.gone(expected)

    @precondition(lambda self: len(self.rows) > 2)
    @rule()
    def delete_everything(self) -> None:
        self.step("delete everything")
        expected = list(self.alive())
        assert self.bench.run(self.docs.delete(everything=True)) == len(expected)
        self.gone(expected)

    def gone(self, names: list[str]) -> None:
        assert self.oracle.delete(ids=names) == len(names)
        for name in names:
            del self.rows[name]

    # --------------------------------------------------------------------------------- reads

    @rule(names=some_ids, back=st.booleans())
    def get(self, names: list[str], back: bool) -> None:
        self.step("get")
        alive = self.alive()
        got = self.bench.run(self.docs.get(names, vectors=back))
        assert [record and record.id for record in got] == [name if name in alive else None for name in names]
        for record in got:
            if record is not None:
                self.same_row(record.id, record.text, record.metadata, record.vector)
                assert record.expires_at == self.rows[record.id].expires_at
                assert (record.vector is not None) is back

    def check_hits(self, hits: vk.Hits, query: list[int], k: int, where: vk.Filter | None, exact: bool) -> None:
        alive = self.alive(where)
        assert len(hits) == min(k, len(alive))
        assert hits.coverage == "exact" if exact else hits.coverage in {"exact", "complete"}
        names = sorted(alive)
        scores = (
            dict(zip(names, reference(self.metric, query, [alive[name].vector for name in names]), strict=True))
            if names
            else {}
        )
        for hit in hits:
            assert hit.id in alive
            assert abs(hit.score - scores[hit.id]) <= 1e-4
            self.same_row(hit.id, hit.text, hit.metadata, hit.vector)
        order = sorted(names, key=lambda name: (-round(float(scores[name]), 5), name))
        if exact:
            assert hits.ids == order[:k]
        if hits.coverage == "exact":
            assert np.allclose([hit.score for hit in hits], [scores[name] for name in order[:k]], atol=1e-4)
            if k >= len(order):
                assert hits.ids == order

    @rule(query=vectors, k=ks, where=maybe_where, exact=st.booleans(), back=st.booleans())
    def query(self, query: list[int], k: int, where: vk.Filter | None, exact: bool, back: bool) -> None:
        self.step("query")
        exact = exact and self.store.capability.exact
        hits = self.bench.run(self.docs.query(query, k=k, where=where, exact=exact, vectors=back))
        self.check_hits(hits, query, k, where, exact)
        if exact:
            second = self.oracle.query(query, k=k, where=where)
            assert hits.ids == second.ids
            assert np.allclose([h.score for h in hits], [h.score for h in second], atol=1e-5)

    @rule(queries=st.lists(vectors, min_size=1, max_size=3), k=ks, where=maybe_where)
    def query_many(self, queries: list[list[int]], k: int, where: vk.Filter | None) -> None:
        self.step("query_many")
        many = self.bench.run(self.docs.query_many(queries, k=k, where=where))
        assert len(many) == len(queries)
        for query, hits in zip(queries, many, strict=True):
            self.check_hits(hits, query, k, where, exact=False)

    def worded(self, words: Sequence[str], where: vk.Filter | None) -> set[str]:
        return {name for name, row in self.alive(where).items() if row.text and set(row.text.split()) & set(words)}

    @rule(words=st.lists(st.sampled_from(WORDS), max_size=3), k=ks, where=maybe_where)
    def keyword(self, words: list[str], k: int, where: vk.Filter | None) -> None:
        self.step("keyword")
        if not self.store.capability.keyword:
            return
        hits = self.bench.run(self.docs.keyword(" ".join(words), k=k, where=where))
        expected = self.worded(words, where)
        assert len(hits) == min(k, len(expected))
        assert {hit.id for hit in hits} <= expected
        assert all(a.score >= b.score - 1e-6 * max(1, abs(a.score)) for a, b in pairwise(hits))
        for hit in hits:
            self.same_row(hit.id, hit.text, hit.metadata)

    @rule(words=st.lists(st.sampled_from(WORDS), max_size=3), query=vectors, k=ks, where=maybe_where)
    def hybrid(self, words: list[str], query: list[int], k: int, where: vk.Filter | None) -> None:
        self.step("hybrid")
        if not self.store.capability.keyword:
            return
        text = " ".join(words)
        hits = self.bench.run(self.docs.hybrid(text, query, k=k, where=where))
        legs = [
            self.bench.run(self.docs.query(query, k=100, where=where)).ids,
            self.bench.run(self.docs.keyword(text, k=100, where=where)).ids,
        ]
        scores: dict[str, float] = {}
        for leg in legs:
            for rank, name in enumerate(leg, 1):
                scores[name] = scores.get(name, 0.0) + 1 / (60 + rank)
        order = sorted(scores, key=lambda name: (-round(scores[name], 12), name))[:k]
        assert hits.ids == order
        assert np.allclose([hit.score for hit in hits], [scores[name] for name in order], rtol=1e-9)

    @rule(where=maybe_where, as_dict=st.booleans())
    def count(self, where: vk.Filter | None, as_dict: bool) -> None:
        self.step("count")
        asked = where.to_json() if as_dict and where is not None else where
        assert self.bench.run(self.docs.count(asked)) == len(self.alive(where)) == self.oracle.count(where)

    @rule(where=maybe_where, back=st.booleans())
    def scan(self, where: vk.Filter | None, back: bool) -> None:
        self.step("scan")

        async def read() -> list[vk.Record]:
            return [record async for record in self.docs.scan(where, vectors=back)]

        found = self.bench.run(read())
        assert sorted(record.id for record in found) == sorted(self.alive(where))
        for record in found:
            self.same_row(record.id, record.text, record.metadata, record.vector)
            assert record.expires_at == self.rows[record.id].expires_at

    @rule()
    def stats(self) -> None:
        self.step("stats")
        assert self.bench.run(self.docs.stats()).rows == len(self.alive())

    @rule(query=vectors, k=ks, where=maybe_where)
    def explain(self, query: list[int], k: int, where: vk.Filter | None) -> None:
        self.step("explain")
        told = self.bench.run(self.docs.explain(query, k=k, where=where))
        assert told.returned == min(k, len(self.alive(where)))
        assert told.coverage in {"exact", "complete"}

    # --------------------------------------------------------------------------------- upkeep

    @rule()
    def optimize(self) -> None:
        self.step("optimize")
        self.bench.run(self.docs.optimize())

    @rule()
    def reopen(self) -> None:
        self.step("reopen")
        if self.store.capability.durable:
            type(self).store = self.bench.run(self.bench.reopen(self.store))
        self.docs = self.bench.run(self.store.collection(self.name))

    @rule(seconds=st.sampled_from([0.000001, 1, 2, 10]))
    def advance(self, seconds: float) -> None:
        self.step("clock")
        self.bench.clock.advance(seconds=seconds)

    @invariant()
    def holds_as_many_rows(self) -> None:
        if hasattr(self, "docs"):
            assert self.bench.run(self.docs.count()) == len(self.alive())


def run_machine(bench: Bench, index: Any, *, examples: int, steps: int) -> Report:
    """Run the machine on the bench's target; what it did. Raises AssertionError with the shortest sequence that fails."""
    report = Report()
    store = bench.run(bench.connect())
    made = type("Machine", (StoreMachine,), {"bench": bench, "store": store, "index": index, "report": report})
    run_state_machine_as_test(made, settings=effort(examples, stateful_step_count=steps))
    return report
