"""The small words that contract tests are written in: records, exact comparison, errors with their attributes.

Equality here is of types too, because `1 == True == 1.0` would hide half of what a store can do to a value.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from inspect import Parameter, iscoroutinefunction, signature
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import pytest

import vectorkit as vk
from vectorkit.aio import AsyncCollection, AsyncStore
from vectorkit.testing.faces import COLOURS, Bench, Colour

E = TypeVar("E", bound=BaseException)
Floats = npt.NDArray[np.float64]


def rec(id: str, vector: Any, text: str | None = None, **metadata: Any) -> vk.Record:
    """A record whose metadata are the keyword arguments."""
    return vk.Record(id, vector, text, metadata)


def rows(count: int, dimension: int = 4, *, seed: int = 7, prefix: str = "r") -> list[vk.Record]:
    """Records with well separated random vectors, `n` and `even` as metadata, and ids in writing order."""
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return [
        vk.Record(f"{prefix}{n:05d}", vectors[n], f"word{n % 7} common", {"n": n, "even": n % 2 == 0})
        for n in range(count)
    ]


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down; mappings by content, `-0.0` and `0.0` apart."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, datetime) and isinstance(other, datetime):
        return one == other and one.utcoffset() == other.utcoffset() and one.microsecond == other.microsecond
    if isinstance(one, float) and isinstance(other, float):
        return one.hex() == other.hex()
    return type(one) is type(other) and bool(one == other)


def same_in_any_order(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """`same` for metadata, whose keys may come back in another order."""
    return one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)


def same_value(one: Any, other: Any) -> bool:
    """`same` for one metadata value; nested keys in any order."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return same_in_any_order(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    return same(one, other)


def reference(metric: str, query: Any, vectors: Any) -> Floats:
    """Scores of float32 vectors in float64, by the definition: the numbers that every store has to give."""
    q = np.asarray(query, np.float32).astype(np.float64)
    x = np.asarray(vectors, np.float32).astype(np.float64)
    if metric == "l2":
        return np.asarray(-np.sqrt(((x - q) ** 2).sum(axis=1)))
    if metric == "dot":
        return np.asarray(x @ q)
    return np.asarray((x / np.linalg.norm(x, axis=1)[:, None]) @ (q / np.linalg.norm(q)))


def tolerance(score: float, query: Any, vector: Any) -> float:
    """How far two stores' scores of one pair may be apart."""
    norms = float(np.linalg.norm(np.asarray(query, np.float64)) * np.linalg.norm(np.asarray(vector, np.float64)))
    return 1e-5 * max(1.0, abs(score), norms)


async def put(docs: AsyncCollection, *records: vk.Record) -> None:
    """Upsert, and check that the count is true."""
    assert await docs.upsert(list(records)) == vk.WriteResult(len(records), 0)


async def one(docs: AsyncCollection, id: str, *, vectors: bool = False) -> vk.Record:
    """The row of this id, which has to be there."""
    (found,) = await docs.get([id], vectors=vectors)
    assert found is not None, f"{id!r} is not there"
    return found


async def all_ids(docs: AsyncCollection, where: Any = None) -> list[str]:
    """The ids of a scan, sorted, each once."""
    found = [record.id async for record in docs.scan(where=where)]
    assert len(found) == len(set(found)), "a scan gave an id twice"
    return sorted(found)


@contextmanager
def raises(kind: type[E], *mentions: str, **attributes: Any) -> Iterator[None]:
    """The block raises this error, its message mentions these words and it carries these attributes."""
    try:
        yield
    except kind as error:
        for mention in mentions:
            assert mention in str(error), f"{mention!r} is not named in: {error}"
        for name, expected in attributes.items():
            got = getattr(error, name)
            assert got == expected, f"{type(error).__name__}.{name} is {got!r}, expected {expected!r}"
    except Exception as error:
        raise AssertionError(f"expected {kind.__name__}, got {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"expected {kind.__name__}, nothing was raised")


class Area:
    """What the areas of the contract share: how a collection is asked for."""

    index: ClassVar[Any] = vk.HNSW()
    """The index of every collection the suite makes; a subclass may choose another."""
    tabled: ClassVar[bool | str] = True
    """Whether the store has a column in the capability table; a string is its title, where one store has several."""

    def spec(self, name: str = "docs", dimension: int = 4, **options: Any) -> vk.CollectionSpec:
        """A spec with this contract's index."""
        options.setdefault("index", self.index)
        return vk.CollectionSpec(name, dimension, **options)

    async def docs(self, store: AsyncStore, name: str = "docs", dimension: int = 4, **options: Any) -> AsyncCollection:
        """A new, empty collection."""
        return await store.create_collection(self.spec(name, dimension, **options))


_GIVEN = frozenset(["self", "store", "bench"])


def contract(body: Callable[..., Any]) -> Callable[..., None]:
    """Make a test of a body, once a colour.

    The body may ask for `store` (open, empty, with the bench's clock), for `bench`, and for parametrized arguments. It is
    `async def`; a plain `def` asks for the bench alone and drives what it needs with `bench.run`.
    """
    asked = [name for name in signature(body).parameters if name not in _GIVEN]
    wants = signature(body).parameters.keys() & {"store", "bench"}

    def test(self: Any, target: Any, colour: Colour, request: pytest.FixtureRequest, **arguments: Any) -> None:
        with Bench(target, colour) as bench:
            try:
                if not iscoroutinefunction(body):
                    body(self, bench=bench, **arguments)
                    return

                async def run() -> None:
                    given: dict[str, Any] = {"bench": bench} if "bench" in wants else {}
                    if "store" in wants:
                        given["store"] = await bench.connect()
                    await body(self, **given, **arguments)

                bench.run(run())
            except vk.VectorkitError as error:
                raise AssertionError(f"{type(error).__name__} where the contract has an answer: {error}") from error
            finally:
                if self.tabled:
                    title = self.tabled if isinstance(self.tabled, str) else ""
                    note = {"area": body.__module__.rpartition(".")[2], "column": title, "capability": bench.capability}
                    request.node.user_properties.append(("vectorkit", note))

    test.__name__ = body.__name__
    test.__qualname__ = body.__qualname__
    test.__module__ = body.__module__
    test.__doc__ = body.__doc__
    parameters = ["self", "target", "colour", "request", *asked]
    test.__signature__ = signature(test).replace(  # type: ignore[attr-defined]
        parameters=[Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in parameters]
    )
    test.pytestmark = list(getattr(body, "pytestmark", ()))  # type: ignore[attr-defined]
    made: Callable[..., None] = pytest.mark.parametrize("colour", COLOURS)(test)
    return made


def ids_of(hits: Sequence[vk.Hit]) -> list[str]:
    """The ids, in order."""
    return [hit.id for hit in hits]
