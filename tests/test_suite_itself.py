"""The contract suite, tested: it cannot be overridden, its deviations are strict, and its table says what the code says.

A user's test file is run in a pytest of its own, as a user would run it.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import pytest

import vectorkit as vk
from vectorkit.testing import AdapterContract
from vectorkit.testing.contract import contract_tests
from vectorkit.testing.faces import Bench
from vectorkit.testing.kit import raises, same, same_in_any_order
from vectorkit.testing.table import capability_cells, shown

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parent.parent
TESTS = contract_tests()


def test_a_contract_test_cannot_be_overridden() -> None:
    with pytest.raises(TypeError, match="test_scores_l2"):

        class Mine(AdapterContract):
            def test_scores_l2(self) -> None:
                """Looks the other way."""

    with pytest.raises(TypeError, match="test_scores_l2"):

        class Silenced(AdapterContract):
            test_scores_l2 = None  # type: ignore[assignment]

    class Fine(AdapterContract):
        def test_of_my_own(self) -> None:
            """Allowed."""

    with pytest.raises(TypeError, match="test_scores_l2"):

        class Deeper(Fine):
            test_scores_l2 = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("deviations", "message"),
    [
        ({"test_scores_l3": "never: no such test"}, "test_scores_l3"),
        ({"test_of_my_own": "never: not a contract test"}, "test_of_my_own"),
        ({"test_scores_l2": "because"}, "notimpl"),
        ({"test_scores_l2": "wontfix: reason"}, "notimpl"),
        ({"test_scores_l2": "never"}, "notimpl"),
        ({"test_scores_l2": "never:"}, "notimpl"),
        ({"test_scores_l2": "never: "}, "notimpl"),
        ({"test_scores_l2": ""}, "notimpl"),
        ({"test_scores_l2": None}, "notimpl"),
    ],
)
def test_deviations_are_checked(deviations: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        type("Mine", (AdapterContract,), {"deviations": deviations})


def test_a_class_declares_its_own_deviations() -> None:
    class Mine(AdapterContract):
        deviations: ClassVar[dict[str, str]] = {"test_scores_l2": "notyet: a reason"}

    class Repaired(Mine):
        deviations: ClassVar[dict[str, str]] = {"test_scores_dot": "notimpl: another"}

    def marks(kind: type, name: str) -> list[str]:
        return [mark.name for mark in getattr(kind, name).pytestmark]

    assert marks(Mine, "test_scores_l2") == ["parametrize", "xfail"]
    assert marks(Repaired, "test_scores_l2") == ["parametrize"]
    assert marks(Repaired, "test_scores_dot") == ["parametrize", "xfail"]
    assert marks(AdapterContract, "test_scores_dot") == ["parametrize"]


def test_every_test_says_what_it_pins() -> None:
    assert len(TESTS) > 100
    for name, test in TESTS.items():
        assert test.__doc__, name
        assert any(mark.name == "parametrize" and mark.args[0] == "colour" for mark in test.pytestmark), name  # type: ignore[attr-defined]


USER = """
import pytest
from vectorkit.testing import AdapterContract

class TestMine(AdapterContract):
    {deviations}

    @pytest.fixture
    def target(self):
        return "memory://"
"""


def test_a_users_file_runs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USER.format(deviations=""))
    table = pytester.path / "table.md"
    result = pytester.runpytest("-q", "-k", "test_scores_l2 or test_delete_by_ids", "--vectorkit-table", str(table))
    result.assert_outcomes(passed=4, deselected=2 * len(TESTS) + _extra() - 4)
    text = table.read_text("utf-8")
    assert capability_cells(text)["memory"]["durable"] == "no"
    assert re.search(r"\| scores \| 2 passed \|", text)
    assert re.search(r"\| changing \| 2 passed \|", text)


def _extra() -> int:
    """Tests beyond one a colour, by further parameters."""
    total = 0
    for test in TESTS.values():
        cases = 1
        for mark in test.pytestmark:  # type: ignore[attr-defined]
            if mark.name == "parametrize" and mark.args[0] != "colour":
                cases *= len(mark.args[1])
        total += 2 * (cases - 1)
    return total


def test_a_stale_deviation_fails_the_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USER.format(deviations="deviations = {'test_scores_l2': 'never: it was squared once'}"))
    result = pytester.runpytest("-q", "-k", "test_scores_l2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.parseoutcomes()["failed"] == 2
    result.stdout.fnmatch_lines(["*XPASS(strict)*never: it was squared once*"])


BROKEN = """
import pytest
from vectorkit.memory import MemoryAdapter
from vectorkit.testing import AdapterContract

class TestMine(AdapterContract):
    deviations = {"test_delete_by_ids": "notimpl: it deletes nothing yet"}

    @pytest.fixture
    def target(self, monkeypatch):
        async def delete(self, scope, selector):
            return 0
        monkeypatch.setattr(MemoryAdapter, "delete", delete)
        return "memory://"
"""


def test_a_declared_deviation_is_an_xfail(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BROKEN)
    table = pytester.path / "table.md"
    result = pytester.runpytest(
        "-q", "-rx", "-k", "test_delete_by_ids or test_delete_everything", "--vectorkit-table", str(table)
    )
    outcomes = result.parseoutcomes()
    assert (outcomes["xfailed"], outcomes["failed"]) == (2, 2)
    result.stdout.fnmatch_lines(["*notimpl: it deletes nothing yet*"])
    assert re.search(r"\| changing \| 0 passed, 2 deviating, \*\*2 failed\*\* \|", table.read_text("utf-8"))


def test_a_contract_without_a_target_says_so(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("from vectorkit.testing import AdapterContract\nclass TestMine(AdapterContract): pass")
    result = pytester.runpytest("-q", "-k", "test_scores_l2")
    result.assert_outcomes(errors=2, deselected=2 * len(TESTS) + _extra() - 2)
    result.stdout.fnmatch_lines(["*fixture `target`*"])


def test_the_plugin_costs_a_stranger_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys
        def test_nothing_was_imported():
            loaded = set(sys.modules)
            assert not loaded & {"numpy", "vectorkit.types", "vectorkit.filters", "vectorkit.testing.kit", "hypothesis.strategies"}
            assert "vectorkit.testing.plugin" in loaded
        """
    )
    result = pytester.runpytest_subprocess("-q", "-W", "error")
    result.assert_outcomes(passed=1)


def test_the_table_without_a_contract_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_one(): pass")
    table = pytester.path / "table.md"
    result = pytester.runpytest("-q", "--vectorkit-table", str(table))
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*no contract test ran*"])
    assert not table.exists()


@pytest.mark.parametrize(
    ("store", "url"),
    [
        ("memory", "memory://"),
        ("local", "local://{}/s"),
        ("faiss", "faiss://{}/s"),
        ("hnswlib", "hnswlib://{}/s"),
        ("chroma, embedded", "chroma://{}/s"),
        ("qdrant, embedded", "qdrant://{}/s"),
    ],
)
def test_the_committed_table_is_what_the_code_says(store: str, url: str, tmp_path: Path) -> None:
    if store == "hnswlib":
        pytest.importorskip("hnswlib", reason="hnswlib is not installed: there is no C++ compiler")
    committed = capability_cells((ROOT / "docs" / "capabilities.md").read_text("utf-8"))
    with vk.connect(url.format(tmp_path)) as opened:
        told = shown(opened.capability)
    assert told.pop("store") == store.partition(",")[0]
    assert committed[store] == told, "make it anew: just docs"


# --------------------------------------------------------------------------------------------- its own tools


def test_same_tells_types_apart() -> None:
    for one, other in [
        (1, True),
        (1, 1.0),
        (0, False),
        (0.0, -0.0),
        ([1], [1.0]),
        ({"a": 1}, {"a": True}),
        ("1", 1),
        ([1], (1,)),
    ]:
        assert not same(one, other)
        assert same(one, one)
        assert not same_in_any_order({"x": one}, {"x": other})
    assert same_in_any_order({"a": 1, "b": {"c": [1, 2], "d": 1}}, {"b": {"d": 1, "c": [1, 2]}, "a": 1})
    assert not same_in_any_order({"a": 1}, {"a": 1, "b": 2})


def test_raises_is_strict() -> None:
    with pytest.raises(AssertionError, match="nothing was raised"), raises(vk.NotFound):
        pass
    with pytest.raises(AssertionError, match="got KeyError"), raises(vk.NotFound):
        raise KeyError("x")
    with pytest.raises(AssertionError, match="is not named"), raises(vk.NotFound, "articles"):
        raise vk.NotFound("no collection")
    with pytest.raises(AssertionError, match="row is 1"), raises(vk.InvalidRecord, row=2):
        raise vk.InvalidRecord("bad", row=1)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_both_faces_look_alike(colour: Any) -> None:
    with Bench("memory://", colour) as bench:

        async def body() -> None:
            store = await bench.connect()
            docs = await store.create_collection(vk.CollectionSpec("docs", 2))
            assert await docs.upsert([vk.Record("a", [1, 0])]) == vk.WriteResult(1)
            assert [record.id async for record in docs.scan()] == ["a"]
            assert docs.name == "docs"
            assert store.capability.store == "memory"
            assert await bench.together(docs.count(), docs.count()) == [1, 1]

        bench.run(body())
    assert bench.capability["store"] == "memory"
