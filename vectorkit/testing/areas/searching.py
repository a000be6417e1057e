"""Keyword, hybrid and explain: any of the words, ranked; ranks fused by a written formula; and how an answer came about.

Where a store has no keyword leg it still keeps the texts, and `keyword()` and `hybrid()` say so.
"""

import itertools
import math
from typing import Any

import pytest

import vectorkit as vk
from vectorkit import F
from vectorkit.aio import AsyncCollection, AsyncStore
from vectorkit.testing.kit import Area, contract, ids_of, one, put, raises, rec, rows

EAST = [1.0, 0.0, 0.0, 0.0]
TEXTS = {
    "fox": "The quick brown fox jumps over the lazy dog",
    "dog": "A dog is a dog and a dog",
    "cat": "Cats chase mice; a cat sleeps",
    "sql": "SELECT * FROM rows WHERE text NEAR another AND NOT deleted OR dropped",
    "c++": "c++ and foo-bar: compile with g++ -O2",
    "none": None,
    "empty": "",
    "numbers": "error 404 on line 17, version 3.14",
    "unicode": "Café naïve 東京 Straße ÉCOLE",
}


class Searching(Area):
    """§5 on keyword queries, hybrid retrieval and explain."""

    async def _texts(self, store: AsyncStore) -> AsyncCollection | None:
        """A collection of TEXTS; None, the refusal checked, where there is no keyword leg."""
        docs = await self.docs(store, fields={"n": int})
        await put(docs, *[vk.Record(name, EAST, text, {"n": n}) for n, (name, text) in enumerate(TEXTS.items())])
        if store.capability.keyword:
            return docs
        assert (await one(docs, "fox")).text == TEXTS["fox"]
        with raises(vk.Unsupported, store.capability.store):
            await docs.keyword("fox")
        with raises(vk.Unsupported, store.capability.store):
            await docs.hybrid("fox", EAST)
        return None

    @contract
    async def test_keyword_any_of_the_words(self, store: AsyncStore) -> None:
        """A row with any of the words is an answer, one with none is not; case does not matter."""
        docs = await self._texts(store)
        if docs is None:
            return
        cases = {
            "fox": ["fox"], "FOX": ["fox"], "dog": ["dog", "fox"], "fox mice": ["cat", "fox"], "404": ["numbers"], "fox 404 zebra": ["fox", "numbers"],
            "zebra": [], "mice, zebra!": ["cat"], "東京": ["unicode"], "naïve": ["unicode"],
        }  # fmt: skip
        for text, expected in cases.items():
            hits = await docs.keyword(text)
            assert isinstance(hits, vk.Hits)
            assert sorted(ids_of(hits)) == expected, text
            assert all(hit.text == TEXTS[hit.id] for hit in hits)
            assert [hit.metadata["n"] for hit in hits] == [list(TEXTS).index(hit.id) for hit in hits]

    @contract
    async def test_keyword_no_words(self, store: AsyncStore) -> None:
        """A text without words has no answers, and is no error."""
        docs = await self._texts(store)
        if docs is None:
            return
        for text in ("", " ", "\t\n", "!?", "***", '"', "-- ;", "()", "😀", ". . ."):
            assert await docs.keyword(text) == [], text
            assert await docs.keyword(text, where=F("n") >= 0) == []

    @contract
    async def test_keyword_has_no_prefixes(self, store: AsyncStore) -> None:
        """A word matches itself, not what begins with it, with or without a star."""
        docs = await self._texts(store)
        if docs is None:
            return
        for text in ("fo", "fo*", "qui", "jum*", "40", "do", "Caf*"):
            assert await docs.keyword(text) == [], text
        assert sorted(ids_of(await docs.keyword("cat"))) == ["cat"]

    @contract
    async def test_keyword_words_are_never_syntax(self, store: AsyncStore) -> None:
        """AND, OR, NOT, NEAR, quotes, colons, carets, brackets: words or nothing, whatever the engine's language says."""
        docs = await self._texts(store)
        if docs is None:
            return
        cases = {
            "fox AND mice": ["cat", "c++", "dog", "fox", "sql"], "fox OR zebra": ["fox", "sql"], "fox NOT dog": ["dog", "fox", "sql"], "NEAR(fox dog)": ["dog", "fox", "sql"],
            "NOT": ["sql"], "near": ["sql"], '"quick fox"': ["fox"], '"unbalanced fox': ["fox"], 'fox"': ["fox"], "text:fox": ["fox", "sql"], "^fox": ["fox"],
            "fox^2": ["fox"], "(fox": ["fox"], "fox)": ["fox"], "{fox}": ["fox"], "-fox": ["fox"], "+fox": ["fox"], "fox-bar": ["c++", "fox"], "c++": ["c++"],
            "foo-bar": ["c++"], "fox; DROP TABLE rows": ["fox", "sql"], "fox' OR '1'='1": ["fox", "sql"], "* fox": ["fox"], "fox:": ["fox"], "fox\\": ["fox"],
            "rowid:1": [], "rank": [],
        }  # fmt: skip
        for text, expected in cases.items():
            assert sorted(ids_of(await docs.keyword(text, k=20))) == sorted(expected), text

    @contract
    async def test_keyword_ranking(self, store: AsyncStore) -> None:
        """Larger is better and best first: more of the words, more often, rarer words and shorter texts rank higher."""
        docs = await self.docs(store)
        if not store.capability.keyword:
            return
        filler = " ".join(f"filler{n}" for n in range(12))
        texts = {
            "both": f"apple banana {filler}", "apple": f"apple other {filler}", "often": f"apple apple {filler}", "short": "cherry date",
            "long": f"cherry date {filler} {filler}", "common": f"egg other {filler}", "rare": f"fig other {filler}",
        }  # fmt: skip
        await put(docs, *[vk.Record(name, EAST, text) for name, text in texts.items()])
        await put(docs, *[vk.Record(f"egg{n}", EAST, f"egg other {filler}") for n in range(6)])

        async def order(text: str) -> list[str]:
            hits = await docs.keyword(text, k=50)
            scores = [hit.score for hit in hits]
            assert all(math.isfinite(score) for score in scores)
            assert all(a >= b - 1e-6 * max(1, abs(a)) for a, b in itertools.pairwise(scores))
            return ids_of(hits)

        assert (await order("apple banana"))[0] == "both"
        assert (await order("apple")).index("often") < (await order("apple")).index("apple")
        assert await order("cherry") == ["short", "long"]
        assert (await order("egg fig"))[0] == "rare"
        assert (await order("egg"))[:7] == ["common", *[f"egg{n}" for n in range(6)]]

    @contract
    async def test_keyword_ranking_of_common_words(self, store: AsyncStore) -> None:
        """A word that most rows have still ranks them: more often is better, in a collection of two as in a large one."""
        docs = await self.docs(store)
        if not store.capability.keyword:
            return
        await put(docs, rec("z", EAST, "apple apple apple"), rec("a", EAST, "apple pear plum"))
        assert ids_of(await docs.keyword("apple")) == ["z", "a"]
        assert ids_of(await docs.keyword("apple", k=1)) == ["z"]
        assert ids_of(await docs.keyword("apple pear")) == ["a", "z"]

    @contract
    async def test_keyword_k_and_ties(self, store: AsyncStore) -> None:
        """min(k, matching) answers; equal scores by id, also at position k."""
        docs = await self.docs(store)
        if not store.capability.keyword:
            return
        names = [f"t{n:03d}" for n in range(130)]
        await put(
            docs,
            *[vk.Record(name, EAST, "same words here") for name in sorted(names, key=lambda name: name[::-1])],
            vk.Record("best", EAST, "same same"),
        )
        for k in (1, 2, 50, 131, 10_000):
            hits = await docs.keyword("same", k=k)
            assert ids_of(hits) == ["best", *names][:k]
            assert len({hit.score for hit in hits[1:]}) <= 1
        assert len(await docs.keyword("words here")) == 10

    @contract
    async def test_keyword_filter(self, store: AsyncStore) -> None:
        """Only matching rows, and min(k, matching) of them, however many better ones do not match."""
        docs = await self.docs(store, fields={"n": int})
        if not store.capability.keyword:
            return
        await put(docs, *[rec(f"{n:04d}", EAST, "word " * (1 + (n < 400)), n=n, free=n % 2) for n in range(500)])
        for where, expected in (
            (F("n") >= 400, range(400, 500)), (F("free") == 1, range(1, 500, 2)), (F("n") == 450, [450]), (F("n") == -1, []),
            ((F("n") >= 490) & (F("free") == 0), range(490, 500, 2)), (F("n").missing(), []),
        ):  # fmt: skip
            assert sorted(int(i) for i in ids_of(await docs.keyword("word", k=600, where=where))) == list(expected), (
                where
            )
            assert len(await docs.keyword("word", k=7, where=where)) == min(7, len(expected))
            assert len(await docs.keyword("absent", where=where)) == 0

    @contract
    async def test_keyword_after_writes(self, store: AsyncStore) -> None:
        """Deleted, replaced and emptied texts are not found; new ones are; an update of metadata changes nothing."""
        docs = await self.docs(store)
        if not store.capability.keyword:
            return
        await put(docs, *[rec(f"r{n}", EAST, f"shared old{n}", n=n) for n in range(6)])
        assert len(await docs.keyword("shared")) == 6
        assert await docs.delete(ids=["r0"]) == 1
        await put(docs, rec("r1", EAST, "replaced text"), rec("r2", EAST, None), rec("r3", EAST, ""))
        await docs.update(ids=["r4"], set={"text": "zebra", "n": "zebra"})
        for _ in range(2):
            assert sorted(ids_of(await docs.keyword("shared"))) == ["r4", "r5"]
            assert [await docs.keyword(f"old{n}") for n in range(4)] == [[], [], [], []]
            assert ids_of(await docs.keyword("replaced")) == ["r1"]
            assert await docs.keyword("zebra") == []
            await docs.optimize()
        await put(docs, rec("r0", EAST, "shared again"))
        assert sorted(ids_of(await docs.keyword("shared"))) == ["r0", "r4", "r5"]
        assert await docs.delete(where=F("n") == 5) == 1
        assert sorted(ids_of(await docs.keyword("shared old5"))) == ["r0", "r4"]
        await docs.delete(everything=True)
        assert await docs.keyword("shared") == []
        await put(docs, rec("r9", EAST, "shared"))
        assert ids_of(await docs.keyword("shared")) == ["r9"]

    @contract
    async def test_hybrid_scores_are_reciprocal_ranks(self, store: AsyncStore) -> None:
        """Σ 1/(60 + rank) over the two legs, rank from 1, to the last digit; ties by id."""
        docs = await self.docs(store, dimension=2, metric="l2")
        if not store.capability.keyword:
            with raises(vk.Unsupported, store.capability.store):
                await docs.hybrid("word", [0, 0])
            return
        await put(
            docs,
            vk.Record("a", [1, 0], "nothing of it"),  # dense 1
            vk.Record("b", [2, 0], "word and more and more and more"),  # dense 2, keyword 3
            vk.Record("c", [3, 0], "word word word"),  # dense 3, keyword 1
            vk.Record("d", [4, 0], "word word and more"),  # dense 4, keyword 2
        )
        await put(docs, *[vk.Record(f"e{n}", [100 + n, 0], "filler") for n in range(9)])
        assert ids_of(await docs.keyword("word")) == ["c", "d", "b"]
        hits = await docs.hybrid("word", [0, 0], k=4)
        expected = {"c": 1 / 63 + 1 / 61, "b": 1 / 62 + 1 / 63, "d": 1 / 64 + 1 / 62, "a": 1 / 61}
        order = sorted(expected, key=lambda name: -expected[name])
        assert ids_of(hits) == order
        assert [hit.score for hit in hits] == pytest.approx([expected[name] for name in order], rel=1e-12)
        assert [hit.text for hit in hits if hit.id == "a"] == ["nothing of it"]
        fewer = await docs.hybrid("word", [0, 0], k=2)
        assert [(h.id, h.score) for h in fewer] == [(h.id, h.score) for h in hits[:2]]
        weighed = await docs.hybrid("word", [0, 0], k=4, fusion=vk.RRF(k=0, weights=[1, 0.5]))
        assert {h.id: h.score for h in weighed} == pytest.approx(
            {"a": 1, "b": 1 / 2 + 0.5 / 3, "c": 1 / 3 + 0.5, "d": 1 / 4 + 0.25}
        )
        assert ids_of(weighed) == ["a", "c", "b", "d"]
        only = await docs.hybrid("zebra", [0, 0], k=4)
        assert ids_of(only) == list("abcd")
        assert [h.score for h in only] == pytest.approx([1 / (60 + rank) for rank in range(1, 5)])
        assert ids_of(await docs.hybrid("", [0, 0], k=4)) == list("abcd")
        tied = await docs.hybrid("nothing", [3.5, 0], k=4, fusion=vk.RRF(weights=[0, 0]))
        assert ids_of(tied) == list("abcd")

    @contract
    async def test_hybrid_candidates(self, store: AsyncStore) -> None:
        """Each leg gives max(k, 100) rows unless told otherwise."""
        docs = await self.docs(store, dimension=2, metric="l2")
        if not store.capability.keyword:
            return
        await put(
            docs,
            *[vk.Record(f"{n:03d}", [n, 0], "word") for n in range(150)],
            vk.Record("far", [1000, 0], "word word unique"),
        )
        hits = await docs.hybrid("word unique", [0, 0], k=130)
        assert len(hits) == 130
        assert await docs.hybrid("unique", [0, 0], k=5) != []
        assert "far" in ids_of(await docs.hybrid("unique", [0, 0], k=101))
        by_id = {h.id: h.score for h in await docs.hybrid("unique", [0, 0], k=101)}
        assert by_id["far"] == pytest.approx(1 / 61)
        assert by_id["000"] == pytest.approx(1 / 61)
        few = await docs.hybrid("unique", [0, 0], k=3, candidates=3)
        assert ids_of(few) == ["000", "far", "001"]
        assert len(await docs.hybrid("unique", [0, 0], k=20, candidates=5)) == 20
        bad: list[Any] = [0, -1, True, 2.5, "3"]
        for candidates in bad:
            with raises(vk.InvalidArgument, "candidates"):
                await docs.hybrid("word", [0, 0], candidates=candidates)
        refused: list[dict[str, Any]] = [
            {"k": -1}, {"k": True}, {"weights": "ab"}, {"weights": [1, -1]}, {"weights": [math.nan, 1]},
        ]  # fmt: skip
        for options in refused:
            with raises(vk.InvalidArgument):
                vk.RRF(**options)
        with raises(vk.InvalidArgument, "weights"):
            await docs.hybrid("word", [0, 0], fusion=vk.RRF(weights=[1]))

    @contract
    async def test_hybrid_looks_at_every_candidate(self, store: AsyncStore) -> None:
        """A row far down in both legs beats the first of either where the formula says so."""
        docs = await self.docs(store, dimension=2, metric="l2")
        if not store.capability.keyword:
            return
        await put(
            docs,
            *[vk.Record(f"near{n:02d}", [n, 0], "filler") for n in range(70)],
            *[vk.Record(f"worded{n:02d}", [1000 + n, 0], "word word word") for n in range(70)],
            vk.Record("both", [500, 0], "word among some other filler"),
        )
        (hit,) = await docs.hybrid("word", [0, 0], k=1, candidates=71, fusion=vk.RRF(k=1000))
        assert hit.id == "both"
        assert hit.score == pytest.approx(2 / 1071, rel=1e-12)
        (hit,) = await docs.hybrid("word", [0, 0], k=1, candidates=71)
        assert hit.id == "near00"
        assert hit.score == pytest.approx(1 / 61, rel=1e-12)

    @contract
    async def test_hybrid_filter(self, store: AsyncStore) -> None:
        """Both legs hold to the filter."""
        docs = await self.docs(store, fields={"n": int})
        if not store.capability.keyword:
            return
        await put(docs, *rows(60))
        for where, expected in ((F("n") < 5, 5), (F("even") == True, 30), (F("n") == 7, 1), (F("n") == -1, 0)):  # noqa: E712
            hits = await docs.hybrid("common word3", EAST, k=40, where=where)
            assert len(hits) == expected
            assert len(set(ids_of(hits))) == expected
            assert hits.coverage in {"exact", "complete"}

    @contract
    async def test_explain(self, store: AsyncStore) -> None:
        """Clause by clause where it was decided, the path taken, rows fetched, round trips, coverage."""
        docs = await self.docs(store, fields={"n": int, "s": str, "b": bool, "f": float, "ls": list[str]})
        await put(docs, *rows(40))
        plain = await docs.explain(EAST)
        assert isinstance(plain, vk.Explanation)
        assert list(plain.clauses) == []
        assert plain.path
        assert (plain.returned, plain.coverage) == (10, (await docs.query(EAST)).coverage)
        assert plain.rows_fetched >= 10
        assert plain.round_trips >= 1
        where = (F("n") >= 3) & ((F("s") == "x") | ~F("free").exists())
        told = await docs.explain(EAST, k=5, where=where)
        assert [clause.text for clause in told.clauses] == ["n >= 3", 's == "x"', "free missing"]
        assert {clause.handling for clause in told.clauses} <= {"pushed", "superset", "residual"}
        assert told.returned == 5
        assert (await docs.explain(EAST, k=5, where=where.to_json())).clauses == told.clauses
        nothing = await docs.explain(EAST, where=F("n") == -1)
        assert nothing.returned == 0
        assert nothing.coverage in {"exact", "complete"}
        if store.capability.exact:
            assert (await docs.explain(EAST, exact=True, where=F("n") > 3)).coverage == "exact"
        with raises(vk.InvalidArgument, "k"):
            await docs.explain(EAST, k=0)

    @contract
    async def test_pushdown_is_honest(self, store: AsyncStore) -> None:
        """Every operator that the capability lists is decided by the store on a declared field, negated too."""
        docs = await self.docs(store, fields={"n": int, "s": str, "f": float, "ls": list[str]})
        await put(docs, rec("a", EAST, None, n=1, s="x", f=0.5, ls=["p"]))
        examples = {
            "$eq": [F("n") == 1, F("s") == "x"], "$gt": [F("n") > 0, F("f") > 0.1], "$gte": [F("n") >= 1], "$lt": [F("n") < 2, F("s") < "y"], "$lte": [F("n") <= 1],
            "$in": [F("n").in_([1, 2]), F("s").in_(["x"])], "$contains_any": [F("ls").contains("p"), F("ls").contains_any(["p", "q"])],
            "$contains_all": [F("ls").contains_all(["p"])], "$startswith": [F("s").startswith("x")], "$exists": [F("n").exists(), F("ls").exists()],
        }  # fmt: skip
        for operator, wheres in examples.items():
            for where in wheres:
                for asked, returned in ((where, 1), (~where, 0)):
                    told = await docs.explain(EAST, where=asked)
                    assert told.returned == returned, asked
                    if operator in store.capability.pushdown:
                        assert [clause.handling for clause in told.clauses] == ["pushed"], asked
