"""Scores: larger is better, the same number on every store for the same geometry, ties by id.

Expected numbers are written down, or computed in float64 from the definition; none comes from the code under test.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.aio import AsyncStore
from vectorkit.testing.kit import Area, contract, ids_of, one, put, raises, rec, reference, rows, tolerance

METRICS = pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
AXES = {
    "east": [1.0, 0.0, 0.0, 0.0],
    "far-east": [3.0, 0.0, 0.0, 0.0],
    "north": [0.0, 1.0, 0.0, 0.0],
    "north-east": [1.0, 1.0, 0.0, 0.0],
    "west": [-1.0, 0.0, 0.0, 0.0],
}


def _check_scores(hits: vk.Hits, expected: dict[str, float]) -> None:
    assert {hit.id for hit in hits} == expected.keys()
    for hit in hits:
        assert isinstance(hit.score, float)
        assert hit.score == pytest.approx(expected[hit.id], abs=1e-6), hit.id


class Scores(Area):
    """§5 Scores."""

    async def _axes(self, store: AsyncStore, metric: str) -> vk.Hits:
        docs = await self.docs(store, metric=metric)
        await put(docs, *[rec(name, vector) for name, vector in AXES.items()])
        return await docs.query([1, 0, 0, 0], k=10)

    @contract
    async def test_scores_cosine(self, store: AsyncStore) -> None:
        """Cosine similarity: 1 for the same direction, 0 for a right angle, -1 for the opposite."""
        hits = await self._axes(store, "cosine")
        _check_scores(hits, {"east": 1, "far-east": 1, "north": 0, "north-east": math.sqrt(0.5), "west": -1})
        assert ids_of(hits) == ["east", "far-east", "north-east", "north", "west"]

    @contract
    async def test_scores_dot(self, store: AsyncStore) -> None:
        """The inner product, of the vectors as they are."""
        hits = await self._axes(store, "dot")
        _check_scores(hits, {"east": 1, "far-east": 3, "north": 0, "north-east": 1, "west": -1})
        assert ids_of(hits) == ["far-east", "east", "north-east", "north", "west"]

    @contract
    async def test_scores_l2(self, store: AsyncStore) -> None:
        """Minus the Euclidean distance, not squared."""
        hits = await self._axes(store, "l2")
        _check_scores(hits, {"east": 0, "far-east": -2, "north": -math.sqrt(2), "north-east": -1, "west": -2})
        assert ids_of(hits) == ["east", "north-east", "north", "far-east", "west"]
        docs = await self.docs(store, "triangle", 2, metric="l2")
        await put(docs, rec("a", [3, 4]))
        assert (await docs.query([0, 0], k=1))[0].score == pytest.approx(-5, abs=1e-6)

    @METRICS
    @contract
    async def test_scores_are_those_of_the_definition(self, store: AsyncStore, metric: str) -> None:
        """Random geometry, every pair, to 1e-5·max(1, |score|, ‖q‖‖x‖)."""
        rng = np.random.default_rng(5)
        vectors = (rng.normal(size=(60, 12)) * rng.uniform(0.1, 20, size=(60, 1))).astype(np.float32)
        docs = await self.docs(store, dimension=12, metric=metric)
        await put(docs, *[rec(str(n), vectors[n]) for n in range(60)])
        for query in rng.normal(size=(4, 12)).astype(np.float32):
            expected = reference(metric, query, vectors)
            hits = await docs.query(query, k=60)
            assert len(hits) == 60
            for hit in hits:
                n = int(hit.id)
                assert abs(hit.score - expected[n]) <= tolerance(expected[n], query, vectors[n])

    @METRICS
    @contract
    async def test_scores_are_sorted(self, store: AsyncStore, metric: str) -> None:
        """Best first, which is largest first, on query and query_many."""
        records = rows(50, 8)
        docs = await self.docs(store, dimension=8, metric=metric)
        await put(docs, *records)
        expected = reference(metric, records[3].vector, [r.vector for r in records])
        order = [records[n].id for n in np.argsort(-expected, kind="stable")]
        assert ids_of(await docs.query(records[3].vector, k=20)) == order[:20]  # type: ignore[arg-type]
        (many,) = await docs.query_many([records[3].vector], k=50)  # type: ignore[arg-type]
        assert ids_of(many) == order
        assert all(a.score >= b.score - 1e-6 * max(1, abs(a.score)) for a, b in itertools.pairwise(many))

    @METRICS
    @contract
    async def test_ties_are_ordered_by_id(self, store: AsyncStore, metric: str) -> None:
        """Equal scores come in the order of their ids (code points), whatever order they were written in."""
        docs = await self.docs(store, metric=metric)
        names = ["b", "a", "Z", "é", "10", "9", "b2", "c"]
        await put(docs, *[rec(name, [1, 2, 0, 0]) for name in names], rec("best", [5, 10, 0, 0]))
        hits = await docs.query([5, 10, 0, 0], k=9)
        tied = [name for name in ids_of(hits) if name != "best"]
        if metric == "cosine":
            assert ids_of(hits) == sorted([*names, "best"])
        else:
            assert hits[0].id == "best"
        assert tied == sorted(names)

    @contract
    async def test_near_ties_are_ordered_by_id(self, store: AsyncStore) -> None:
        """Scores within 1e-6·max(1, |s|) are a tie; scores further apart are not."""
        docs = await self.docs(store, dimension=2, metric="l2")
        await put(docs, rec("b", [1, 0]), rec("a", [1.0000002, 0]), rec("d", [2, 0]), rec("c", [2.00001, 0]))
        assert ids_of(await docs.query([0, 0], k=4)) == ["a", "b", "d", "c"]
        large = await self.docs(store, "large", 2, metric="dot")
        await put(large, rec("b", [100_000, 0]), rec("a", [99_999.95, 0]), rec("d", [50_001, 0]), rec("c", [50_000, 0]))
        assert ids_of(await large.query([1, 0], k=4)) == ["a", "b", "d", "c"]

    @contract
    async def test_tie_at_k(self, store: AsyncStore) -> None:
        """At position k any members of the tie, in order; with exact=True those with the smallest ids."""
        docs = await self.docs(store, metric="cosine")
        tied = [f"t{n:02d}" for n in range(30)]
        await put(
            docs,
            *[rec(name, [1, 1, 0, 0]) for name in sorted(tied, key=lambda name: name[::-1])],
            rec("zz", [1, 0, 0, 0]),
            rec("far", [-1, 0, 0, 0]),
        )
        for k in (1, 2, 7, 30):
            hits = await docs.query([1, 0, 0, 0], k=k)
            assert hits[0].id == "zz"
            rest = ids_of(hits)[1:]
            assert len(hits) == k
            assert rest == sorted(rest)
            assert set(rest) <= set(tied)
            if store.capability.exact:
                assert ids_of(await docs.query([1, 0, 0, 0], k=k, exact=True)) == ["zz", *tied][:k]

    @METRICS
    @contract
    async def test_equal_vectors_score_equally(self, store: AsyncStore, metric: str) -> None:
        """The same vector gives the same number to the last bit, in whatever place it stands."""
        rng = np.random.default_rng(11)
        twin = rng.normal(size=37).astype(np.float32)
        docs = await self.docs(store, dimension=37, metric=metric)
        others = rng.normal(size=(40, 37)).astype(np.float32)
        mixed = [rec(f"{n:03d}", twin if n % 3 == 0 else others[n % 40]) for n in range(120)]
        await put(docs, *mixed)
        for query in rng.normal(size=(3, 37)).astype(np.float32):
            hits = await docs.query(query, k=120)
            assert len({hit.score for hit in hits if int(hit.id) % 3 == 0}) == 1

    @contract
    async def test_distance_of_a_row_to_itself(self, store: AsyncStore) -> None:
        """0 to 1e-5 under l2, for norms from small to large; 1 under cosine."""
        rng = np.random.default_rng(3)
        vectors = (rng.normal(size=(40, 24)) * np.logspace(-3, 3, 40)[:, None]).astype(np.float32)
        for metric, expected in (("l2", 0.0), ("cosine", 1.0)):
            docs = await self.docs(store, metric, 24, metric=metric)
            await put(docs, *[rec(str(n), vectors[n]) for n in range(40)])
            for n in range(0, 40, 3):
                (hit,) = await docs.query(vectors[n], k=1)
                assert abs(hit.score - expected) <= 1e-5, (metric, n)
                if metric == "l2":
                    assert hit.id == str(n)

    @contract
    async def test_large_offsets_under_l2(self, store: AsyncStore) -> None:
        """Vectors near 1e4 that differ by little: ‖q‖² - 2q·x + ‖x‖² in float32 would lose it all."""
        base = np.full(16, 10_000, np.float32)
        steps = np.random.default_rng(9).integers(-8, 9, size=(80, 16)).astype(np.float32) / 4
        vectors = base + steps
        docs = await self.docs(store, dimension=16, metric="l2")
        await put(docs, *[rec(f"{n:02d}", vectors[n]) for n in range(80)])
        expected = reference("l2", vectors[5], vectors)
        order = sorted(range(80), key=lambda n: (-expected[n], n))
        hits = await docs.query(vectors[5], k=80)
        assert ids_of(hits) == [f"{n:02d}" for n in order]
        assert [hit.score for hit in hits] == pytest.approx([expected[n] for n in order], abs=1e-5 * 10)

    @pytest.mark.parametrize("norm", [1e-6, 1e-30, 1e30])
    @contract
    async def test_tiny_and_huge_norms_under_cosine(self, store: AsyncStore, norm: float) -> None:
        """Only the direction counts, stored and asked, even where squares leave float32."""
        docs = await self.docs(store, dimension=2)
        await put(
            docs,
            rec("same", [norm, 0]),
            rec("diagonal", [norm, norm]),
            rec("opposite", [-norm, 0]),
            rec("unit", [0, 1]),
        )
        for query in ([1, 0], [norm, 0], [1e-30, 0], [1e30, 0]):
            hits = await docs.query(query, k=4)
            _check_scores(hits, {"same": 1, "diagonal": math.sqrt(0.5), "opposite": -1, "unit": 0})

    @contract
    async def test_huge_numbers_under_dot_and_l2(self, store: AsyncStore) -> None:
        """Scores stay finite where the arithmetic of float32 would overflow."""
        dot = await self.docs(store, "dot", 2, metric="dot")
        await put(dot, rec("a", [1e20, 0]), rec("b", [1e19, 0]), rec("c", [-1e20, 0]))
        hits = await dot.query([1e10, 0], k=3)
        assert ids_of(hits) == ["a", "b", "c"]
        assert [hit.score for hit in hits] == pytest.approx([1e30, 1e29, -1e30], rel=1e-5)
        l2 = await self.docs(store, "l2", 2, metric="l2")
        await put(l2, rec("a", [3e25, 4e25]), rec("b", [0, 1e25]), rec("c", [1, 0]))
        hits = await l2.query([0, 0], k=3)
        assert ids_of(hits) == ["c", "b", "a"]
        assert [hit.score for hit in hits] == pytest.approx([-1, -1e25, -5e25], rel=1e-5)

    @METRICS
    @contract
    async def test_vectors_round_trip(self, store: AsyncStore, metric: str) -> None:
        """A returned vector equals the written one to 1e-6 relative, by every verb, its norm included."""
        rng = np.random.default_rng(4)
        written = {f"{n}": (rng.normal(size=6) * 10.0 ** (n - 4)).astype(np.float32) for n in range(9)}
        docs = await self.docs(store, dimension=6, metric=metric)
        await put(docs, *[rec(name, vector, "word") for name, vector in written.items()])
        got: list[tuple[str, Any]] = [(r.id, r.vector) for r in await docs.get(list(written), vectors=True) if r]
        got += [(r.id, r.vector) async for r in docs.scan(vectors=True)]
        got += [(h.id, h.vector) for h in await docs.query(written["3"], k=9, vectors=True)]
        got += [(h.id, h.vector) for h in (await docs.query_many([written["3"]], k=9, vectors=True))[0]]
        if store.capability.keyword:
            got += [(h.id, h.vector) for h in await docs.keyword("word", k=9, vectors=True)]
            got += [(h.id, h.vector) for h in await docs.hybrid("word", written["3"], k=9, vectors=True)]
        assert len(got) == 9 * (6 if store.capability.keyword else 4)
        for name, vector in got:
            assert isinstance(vector, np.ndarray)
            assert vector.dtype == np.float32
            assert vector == pytest.approx(written[name], rel=1e-6, abs=1e-6 * float(np.linalg.norm(written[name])))

    @contract
    async def test_vectors_come_only_when_asked(self, store: AsyncStore) -> None:
        """None in `vector` unless vectors=True."""
        docs = await self.docs(store)
        await put(docs, rec("a", [1, 0, 0, 0], "word"))
        assert (await one(docs, "a")).vector is None
        assert [r.vector async for r in docs.scan()] == [None]
        assert [h.vector for h in await docs.query([1, 0, 0, 0])] == [None]
        assert [h.vector for h in (await docs.query_many([[1, 0, 0, 0]]))[0]] == [None]
        with raises(vk.InvalidArgument):
            await docs.query([1, 0, 0, 0], vectors=1)  # type: ignore[arg-type]

    @contract
    async def test_k_is_checked(self, store: AsyncStore) -> None:
        """k is an int of at least 1; a bool is none."""
        docs = await self.docs(store)
        await put(docs, rec("a", [1, 0, 0, 0], "word"))
        bad: list[Any] = [True, False, 0, -1, 1.0, 2.5, "3", None]
        for k in bad:
            with raises(vk.InvalidArgument, "k"):
                await docs.query([1, 0, 0, 0], k=k)
            with raises(vk.InvalidArgument, "k"):
                await docs.query_many([[1, 0, 0, 0]], k=k)
            with raises(vk.InvalidArgument, "k"):
                await docs.hybrid("word", [1, 0, 0, 0], k=k)
            if store.capability.keyword:
                with raises(vk.InvalidArgument, "k"):
                    await docs.keyword("word", k=k)

    @contract
    async def test_k_above_the_count(self, store: AsyncStore) -> None:
        """Every row and no more; above the store's maximum it is Unsupported, naming it."""
        docs = await self.docs(store)
        assert await docs.query([1, 0, 0, 0], k=5) == []
        await put(docs, *rows(7))
        limit = store.capability.max_k
        for k in (7, 8, 100, 10**6, 2**40, 2**63, 10**30):
            if limit is not None and k > limit:
                with raises(vk.Unsupported, store.capability.store, str(limit)):
                    await docs.query([1, 0, 0, 0], k=k)
                continue
            hits = await docs.query([1, 0, 0, 0], k=k)
            assert sorted(ids_of(hits)) == [f"r{n:05d}" for n in range(7)]
            assert hits.coverage != "short"
            assert [len(many) for many in await docs.query_many([[1, 0, 0, 0]] * 9, k=k)] == [7] * 9
            if store.capability.keyword:
                assert len(await docs.keyword("common", k=k)) == 7
                assert len(await docs.keyword("common", k=k, where=F("n") < 3)) == 3
                assert len(await docs.hybrid("common", [1, 0, 0, 0], k=k)) == 7
        assert len(await docs.query([1, 0, 0, 0], k=6)) == 6

    @contract
    async def test_k_is_ten_when_not_given(self, store: AsyncStore) -> None:
        """The default of every verb."""
        docs = await self.docs(store)
        await put(docs, *rows(12))
        assert len(await docs.query([1, 0, 0, 0])) == 10
        assert [len(hits) for hits in await docs.query_many(np.eye(4))] == [10] * 4
        if store.capability.keyword:
            assert len(await docs.keyword("common")) == 10
            assert len(await docs.hybrid("common", [1, 0, 0, 0])) == 10

    @METRICS
    @contract
    async def test_query_many_is_query_for_each(self, store: AsyncStore, metric: str) -> None:
        """(q, d) in, q answers out, each what query gives."""
        docs = await self.docs(store, dimension=8, metric=metric)
        await put(docs, *rows(60, 8))
        queries = np.random.default_rng(1).normal(size=(9, 8)).astype(np.float32)
        for where in (None, F("even") == True, F("n") < 3):  # noqa: E712
            many = await docs.query_many(queries, k=5, where=where)
            assert len(many) == 9
            for query, hits in zip(queries, many, strict=True):
                alone = await docs.query(query, k=5, where=where)
                assert isinstance(hits, vk.Hits)
                assert ids_of(hits) == ids_of(alone)
                assert [h.score for h in hits] == pytest.approx([h.score for h in alone], abs=2e-5)
                assert [(h.text, h.metadata) for h in hits] == [(h.text, h.metadata) for h in alone]

    @contract
    async def test_query_many_shapes(self, store: AsyncStore) -> None:
        """One row is one answer, no rows are none, one vector alone is refused."""
        docs = await self.docs(store)
        await put(docs, *rows(5))
        assert [len(h) for h in await docs.query_many([[1, 0, 0, 0]])] == [5]
        assert await docs.query_many(np.zeros((0, 4), np.float32)) == []
        assert await docs.query_many([]) == []
        bad: list[Any] = [[1, 0, 0, 0], np.zeros((2, 2, 4)), [[1, 0, 0]], [[1, 0, 0, 0], [1, 0]], "abcd", None, 5]
        for queries in bad:
            with raises(vk.InvalidArgument):
                await docs.query_many(queries)

    @contract
    async def test_query_takes_anything_array_like(self, store: AsyncStore) -> None:
        """Lists, tuples, ints, arrays of any float or int type, read-only and strided ones."""
        docs = await self.docs(store)
        await put(docs, *rows(20))
        expected = ids_of(await docs.query([1, 2, 3, 4], k=20))
        frozen = np.array([1, 2, 3, 4], np.float32)
        frozen.flags.writeable = False
        strided = np.array([1, 9, 2, 9, 3, 9, 4, 9], np.float32)[::2]
        queries: list[Any] = [(1, 2, 3, 4), [1.0, 2.0, 3.0, 4.0], frozen, strided]
        queries += [np.array([1, 2, 3, 4], kind) for kind in (np.float16, np.float64, np.int8, np.uint64)]
        for query in queries:
            assert ids_of(await docs.query(query, k=20)) == expected
        assert strided.tolist() == frozen.tolist() == [1, 2, 3, 4]

    @METRICS
    @contract
    async def test_query_vector_is_checked(self, store: AsyncStore, metric: str) -> None:
        """Length, finiteness, kind; the zero vector has no direction under cosine, and is a point elsewhere."""
        docs = await self.docs(store, metric=metric)
        await put(docs, *rows(5))
        for bad in ([1, 0, 0], [1, 0, 0, 0, 0], [1]):
            with raises(vk.DimensionMismatch, expected=4, got=len(bad)):
                await docs.query(bad)
            with raises(vk.DimensionMismatch, expected=4, got=len(bad)):
                await docs.query_many([bad, bad])
            with raises(vk.DimensionMismatch, expected=4, got=len(bad)):
                await docs.explain(bad)
        hostile: list[Any] = [
            [math.nan, 0, 0, 0], [math.inf, 0, 0, 0], [0, 0, 0, -math.inf], [1e39, 0, 0, 0], ["1", 0, 0, 0], "abcd", None, 3,
            [None, 0, 0, 0], [1j, 0, 0, 0], [[1, 0, 0, 0]], [True, False, True, False], b"abcd", {}, [],
        ]  # fmt: skip
        for vector in hostile:
            with raises(vk.InvalidArgument):
                await docs.query(vector)
        if metric == "cosine":
            with raises(vk.InvalidArgument, "zero"):
                await docs.query([0, 0, 0, 0])
            with raises(vk.InvalidArgument, "zero"):
                await docs.query_many([[1, 0, 0, 0], [0, 0, 0, 0]])
        else:
            assert len(await docs.query([0, 0, 0, 0])) == 5

    @METRICS
    @contract
    async def test_exact_is_the_true_top_k(self, store: AsyncStore, metric: str) -> None:
        """exact=True: the definition's own answer, and coverage says so; a store without it refuses."""
        records = rows(300, 16, seed=21)
        docs = await self.docs(store, dimension=16, metric=metric)
        await put(docs, *records)
        await docs.optimize()
        if not store.capability.exact:
            with raises(vk.Unsupported, store.capability.store):
                await docs.query(np.ones(16), exact=True)
            return
        for query in np.random.default_rng(2).normal(size=(5, 16)).astype(np.float32):
            expected = reference(metric, query, [r.vector for r in records])
            order = sorted(range(300), key=lambda n: (-expected[n], records[n].id))
            hits = await docs.query(query, k=12, exact=True)
            assert ids_of(hits) == [records[n].id for n in order[:12]]
            assert hits.coverage == "exact"
            narrow = await docs.query(query, k=12, exact=True, where=F("even") == True)  # noqa: E712
            assert ids_of(narrow) == [records[n].id for n in order if n % 2 == 0][:12]
            assert narrow.coverage == "exact"

    @contract
    async def test_ef_search_is_checked(self, store: AsyncStore) -> None:
        """Any int of at least 1 is taken and changes no promise."""
        docs = await self.docs(store)
        await put(docs, *rows(20))
        for width in (1, 16, 5000):
            hits = await docs.query([1, 0, 0, 0], k=20, ef_search=width)
            assert len(hits) == 20
        bad: list[Any] = [0, -1, True, 1.5, "16"]
        for width in bad:
            with raises(vk.InvalidArgument, "ef_search"):
                await docs.query([1, 0, 0, 0], ef_search=width)

    @contract
    async def test_hits_carry_the_row(self, store: AsyncStore) -> None:
        """Id, text and metadata of exactly that row."""
        docs = await self.docs(store)
        await put(docs, rec("a", [1, 0, 0, 0], "first", n=1), rec("b", [0, 1, 0, 0], None, n=2.0, tags=["x"]))
        hits = await docs.query([1, 0.5, 0, 0], k=2)
        assert [(h.id, h.text, h.metadata) for h in hits] == [
            ("a", "first", {"n": 1}),
            ("b", None, {"n": 2.0, "tags": ["x"]}),
        ]
        assert hits.coverage in {"exact", "complete"}
