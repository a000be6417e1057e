"""One data set and three hundred questions whose answers every store has to agree on, worked out from the definitions.

The contract takes one meaning at a time; here they all meet: every type of value, every operator, ties, unicode, in one
collection of two thousand rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

import vectorkit as vk
from vectorkit import F
from vectorkit.testing.kit import Floats, reference, same_in_any_order, tolerance
from vectorkit.testing.values import (
    BOOLS,
    DATETIMES,
    FIELDS,
    FLOATS,
    INTS,
    LISTS,
    MAPPINGS,
    OPERANDS,
    OPERATORS,
    PREFIXES,
    STRINGS,
    VALUES,
)
from vectorkit.types import FloatArray, Metric

ROWS, DIMENSION, QUESTIONS = 2_000, 16, 300
METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2")
TIE = 1e-6
"""Scores that differ by no more, times max(1, |score|), are a tie."""
RECALL = 0.95
_SCALARS: Mapping[str, list[Any]] = {"s": STRINGS, "b": BOOLS, "i": INTS, "f": [*FLOATS, 1, 2**53], "t": DATETIMES}
_KEYS = ["ключ", "é", "e\u0301", "a.b", "$x", "key with \"quotes\" and 'more'", "👩‍👩‍👧", "שלום", "%s", "日本"]
_TAILS = [
    "", "é", "e\u0301", "😀", "👩‍👩‍👧", "שלום", "مرحبا", "日本語", "ﬁ", "İ", "ß", "\u202eabc", "\u200b", "a b", "'", '"', "%", "_", "\\", "/..", "A", "a",
]  # fmt: skip
_TEXTS = [
    None,
    "",
    "a b c",
    "Ünïcödé e\u0301",
    "שלום עולם",
    "日本語の文",
    "👩‍👩‍👧 😀",
    'it\'s "quoted" \\ %s',
    "two\nlines\tand tabs",
]


@dataclass(frozen=True, eq=False)
class Question:
    """A query, and its answer: the scores of all rows in float64, and which of them the filter holds for."""

    metric: Metric
    vector: FloatArray
    k: int
    where: vk.Filter | None
    vectors: bool
    scores: Floats
    kept: Sequence[int]
    """The rows that match, best first, equal scores by id."""


@dataclass
class Report:
    """What a proof found. wrong: every difference in words. recall: of answers that were approximate by their own word."""

    wrong: list[str] = field(default_factory=list)
    queries: int = 0
    exact: int = 0
    recall: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        recall = f", recall of the others {np.mean(self.recall):.4f}" if self.recall else ""
        return f"{self.queries} queries, {self.exact} answered exactly{recall}, {len(self.wrong)} wrong"


# --------------------------------------------------------------------------------------------- rows and questions


@cache
def rows() -> tuple[vk.Record, ...]:
    """The data set. A tenth of the vectors stand twice or more; no value is a datetime of another zone than UTC."""
    random = np.random.default_rng(20_261_123)
    vectors = random.normal(size=(ROWS, DIMENSION)).astype(np.float32)
    vectors *= random.choice([0.5, 1.0, 3.0], size=(ROWS, 1)).astype(np.float32)
    twins = random.choice(ROWS, ROWS // 10, replace=False)
    vectors[twins] = vectors[random.choice(ROWS // 4, ROWS // 10)]
    found = []
    for n in range(ROWS):
        metadata: dict[str, Any] = {}
        for name, values in _SCALARS.items():
            if random.random() < 0.7:
                metadata[name] = _pick(random, values)
            if random.random() < 0.4:
                metadata["l" + name] = [_pick(random, values) for _ in range(random.integers(0, 4))]
        if random.random() < 0.6:
            metadata["u"] = _pick(random, VALUES)
        for key in _KEYS:
            if random.random() < 0.15:
                metadata[key] = _pick(random, [n % 7, float(n % 7), str(n % 7), n % 2 == 0, *LISTS[:6]])
        if random.random() < 0.2:
            metadata["nested"] = {"deep": _pick(random, MAPPINGS), "value": _pick(random, VALUES)}
        text = _pick(random, _TEXTS)
        found.append(vk.Record(f"{n // 2:04d}{_TAILS[n % len(_TAILS)]}", vectors[n], text, _in_utc(metadata)))
    return tuple(found)


def _pick(random: np.random.Generator, values: Sequence[Any]) -> Any:
    return values[int(random.integers(len(values)))]


def _in_utc(value: Any) -> Any:
    """Datetimes come back in UTC, so they are written in it."""
    match value:
        case datetime():
            return value.astimezone(UTC)
        case dict():
            return {key: _in_utc(inner) for key, inner in value.items()}
        case list():
            return [_in_utc(inner) for inner in value]
        case _:
            return value


@cache
def questions() -> tuple[Question, ...]:
    """As many of each metric; two in three have a filter, one vector in four is a row's own."""
    random = np.random.default_rng(300)
    ids = np.array([record.id for record in rows()])
    by_id = np.argsort(np.argsort(ids))  # numpy compares code points, as Python does
    vectors = np.stack([np.asarray(record.vector, np.float32) for record in rows()])
    operands = _operands()
    found = []
    for at in range(QUESTIONS):
        metric = METRICS[at % len(METRICS)]
        own = random.random() < 0.25
        vector = vectors[random.integers(ROWS)] if own else random.normal(size=DIMENSION).astype(np.float32)
        where = _telling(random, operands) if at // len(METRICS) % 3 else None
        scores = reference(metric, vector, vectors)
        best = np.lexsort((by_id, -scores))
        kept = [int(n) for n in best if where is None or where.matches(rows()[n].metadata)]
        k = int(random.integers(1, 51))
        found.append(Question(metric, vector, k, where, bool(random.random() < 0.2), scores, kept))
    return tuple(found)


def _operands() -> dict[str, list[Any]]:
    """Scalars that stand in the rows, by field."""
    found: dict[str, list[Any]] = {name: [] for name in [*FIELDS, "u", "absent", *_KEYS]}
    for record in rows()[:200]:
        for name, value in record.metadata.items():
            values = value if isinstance(value, list) else [value]
            found.setdefault(name, []).extend(inner for inner in values if not isinstance(inner, Mapping))
    return {name: values or OPERANDS for name, values in found.items()}


def _telling(random: np.random.Generator, operands: Mapping[str, list[Any]]) -> vk.Filter:
    """A filter that keeps some rows and not all, if four attempts find one."""
    sample = rows()[::10]
    for _ in range(4):
        made = _filter(random, operands)
        if 2 <= sum(made.matches(record.metadata) for record in sample) <= 0.9 * len(sample):
            break
    return made


def _filter(random: np.random.Generator, operands: Mapping[str, list[Any]]) -> vk.Filter:
    made = _leaf(random, operands)
    for _ in range(random.integers(0, 4)):
        other = _leaf(random, operands)
        made = made & other if random.random() < 0.4 else made | other
        if random.random() < 0.25:
            made = ~made
    return made


def _leaf(random: np.random.Generator, operands: Mapping[str, list[Any]]) -> vk.Filter:
    name = _pick(random, [*operands, *FIELDS, *FIELDS, "u"])
    operator = _pick(random, [*OPERATORS, "__gt__", "__ge__", "__lt__", "__le__", "in_", "contains_any"])
    test = getattr(F(name), operator)

    def operand() -> Any:
        return _pick(random, operands[name] if random.random() < 0.8 else OPERANDS)

    match operator:
        case "exists" | "missing":
            leaf = test()
        case "startswith":
            leaf = test(_pick(random, PREFIXES))
        case "in_" | "not_in" | "contains_any" | "contains_all":
            leaf = test([operand() for _ in range(random.choice([0, 1, 3, 8]))])
        case "__eq__" | "__ne__" | "contains":
            leaf = test(operand())
        case _:
            ordered = [value for value in (operand() for _ in range(8)) if not isinstance(value, bool)]
            leaf = test(ordered[0] if ordered else 0)
    made: vk.Filter = ~leaf if random.random() < 0.15 else leaf
    return made


# --------------------------------------------------------------------------------------------- asking a store


def load(store: vk.Store, index: Any, metric: Metric) -> vk.Collection:
    """A collection of this metric with every row in it."""
    spec = vk.CollectionSpec(f"proof-{metric}", DIMENSION, metric=metric, index=index, fields=FIELDS)
    docs = store.create_collection(spec)
    written = docs.upsert(rows())
    assert written == vk.WriteResult(ROWS, 0), written
    docs.optimize()
    return docs


def prove(docs: vk.Collection, metric: Metric, *, exact_too: bool = True) -> Report:
    """Ask everything of this metric, exactly (where the store has that) and by default, then count, scan, get and delete."""
    report = Report()
    mine = [question for question in questions() if question.metric == metric]
    for at, question in enumerate(mine):
        for exact in (True, False) if exact_too else (False,):
            hits = docs.query(
                question.vector, k=question.k, where=question.where, vectors=question.vectors, exact=exact
            )
            told = f"{metric} question {at}, k={question.k}, exact={exact}, where {question.where}"
            report.queries += 1
            if hits.coverage == "exact":
                report.exact += 1
                report.wrong += [f"{told}: {found}" for found in differences(question, hits, exact=exact)]
            else:
                report.wrong += [f"{told}: {found}" for found in _unfit(question, hits)]
                report.recall.append(_recall(question, hits))
                if exact:
                    report.wrong.append(f"{told}: its coverage is {hits.coverage}")
    plain = [question for question in mine if question.where is None]
    for question, hits in zip(plain, docs.query_many(np.stack([q.vector for q in plain]), k=10), strict=True):
        ten = Question(metric, question.vector, 10, None, False, question.scores, question.kept)
        told = f"{metric} query_many"
        exact = hits.coverage == "exact"
        report.wrong += [
            f"{told}: {found}" for found in (differences(ten, hits, exact=False) if exact else _unfit(ten, hits))
        ]
    report.wrong += [f"{metric}: {found}" for found in _aside(docs, mine)]
    return report


def _unfit(question: Question, hits: vk.Hits) -> Iterator[str]:
    """What is wrong with the rows of an answer, each by itself, and with their number and order."""
    number = {record.id: n for n, record in enumerate(rows())}
    wanted = min(question.k, len(question.kept))
    if len(hits) != wanted:
        yield f"{len(hits)} rows instead of {wanted}"
    if len({*hits.ids}) != len(hits):
        yield "a row twice"
    kept = {*question.kept}
    for hit in hits:
        n = number.get(hit.id)
        if n is None or n not in kept:
            yield f"{hit.id!r} does not belong there"
            continue
        record, score = rows()[n], float(question.scores[n])
        if abs(hit.score - score) > tolerance(score, question.vector, record.vector):
            yield f"{hit.id!r} scores {hit.score!r} instead of {score!r}"
        yield from _altered(record, hit.text, hit.metadata, hit.vector, vectors=question.vectors)
    for one, other in pairwise(hits):
        if other.score > one.score + TIE * max(1.0, abs(one.score)):
            yield f"{other.id!r} stands below {one.id!r} and scores higher"


def _altered(
    record: vk.Record, text: str | None, metadata: Mapping[str, Any], vector: Any, *, vectors: bool
) -> Iterator[str]:
    if text != record.text:
        yield f"{record.id!r} has the text {text!r} instead of {record.text!r}"
    if not same_in_any_order(metadata, record.metadata):
        yield f"{record.id!r} has the metadata {metadata!r} instead of {record.metadata!r}"
    if (vector is not None) is not vectors:
        yield f"{record.id!r} came {'without' if vectors else 'with'} its vector"
    elif vectors and not np.allclose(vector, np.asarray(record.vector), rtol=1e-6, atol=1e-7):
        yield f"{record.id!r} has another vector"


def differences(question: Question, hits: vk.Hits, *, exact: bool) -> Iterator[str]:
    """What is wrong with an answer that is said to be the true top k."""
    yield from _unfit(question, hits)
    at = 0
    for group in _groups(question):
        found = hits.ids[at : at + len(group)]
        at += len(group)
        wanted = [rows()[n].id for n in group]
        if len(found) == len(group):
            if sorted(found) != sorted(wanted):
                yield f"ranks {at - len(group) + 1} to {at} are {found}, expected {wanted}"
            elif _one_vector(group) and found != wanted:
                yield f"equal vectors are not in the order of their ids: {found}, expected {wanted}"
        elif not {*found} <= {*wanted}:
            yield f"the last are {found}, expected some of {wanted}"
        elif exact and _one_vector(group) and found != wanted[: len(found)]:
            yield f"the last of equal vectors are {found}, expected {wanted[: len(found)]}"


def _groups(question: Question) -> Iterator[list[int]]:
    """The rows of the answer in groups of tied scores; the last one goes on beyond k."""
    group: list[int] = []
    taken = 0
    for n in question.kept:
        score = float(question.scores[n])
        if group and float(question.scores[group[-1]]) - score > TIE * max(1.0, abs(score)):
            yield group
            taken += len(group)
            if taken >= question.k:
                return
            group = []
        group.append(n)
    if group:
        yield group


def _one_vector(group: Sequence[int]) -> bool:
    first = np.asarray(rows()[group[0]].vector)
    return all(np.array_equal(first, np.asarray(rows()[n].vector)) for n in group)


def _recall(question: Question, hits: vk.Hits) -> float:
    wanted = min(question.k, len(question.kept))
    if not wanted:
        return 1.0
    last = float(question.scores[question.kept[wanted - 1]])
    enough = last - TIE * max(1.0, abs(last))
    number = {record.id: n for n, record in enumerate(rows())}
    return sum(float(question.scores[number[hit.id]]) >= enough for hit in hits if hit.id in number) / wanted


def _aside(docs: vk.Collection, mine: Sequence[Question]) -> Iterator[str]:
    """The other verbs: count, scan, get, and what is left after a delete by filter."""
    if docs.count() != ROWS:
        yield f"count() is {docs.count()}"
    found = {record.id: record for record in docs.scan(vectors=True)}
    for record in rows():
        got = found.get(record.id)
        if got is None:
            yield f"scan() lacks {record.id!r}"
        else:
            yield from _altered(record, got.text, got.metadata, got.vector, vectors=True)
    asked = [record.id for record in rows()[::97]]
    several = [*asked, "not there", *asked[:3]]
    given = [got and got.id for got in docs.get(several)]
    if given != [*asked, None, *asked[:3]]:
        yield f"get() gave {given}"
    filters = [(question.where, question.kept) for question in mine if question.where is not None]
    for where, kept in filters[::2]:
        if (count := docs.count(where)) != len(kept):
            yield f"count({where}) is {count}, expected {len(kept)}"
    for where, kept in filters[1::4]:
        if sorted(record.id for record in docs.scan(where=where)) != sorted(rows()[n].id for n in kept):
            yield f"scan({where}) gave other rows"
    left = {*range(ROWS)}
    for where, kept in filters[:12]:
        gone = left & {*kept}
        if (count := docs.delete(where=where)) != len(gone):
            yield f"delete({where}) told {count}, expected {len(gone)}"
        left -= gone
    if sorted(record.id for record in docs.scan()) != sorted(rows()[n].id for n in left):
        yield "after the deletes other rows are left"
    if docs.count() != len(left):
        yield f"after the deletes count() is {docs.count()}, expected {len(left)}"
