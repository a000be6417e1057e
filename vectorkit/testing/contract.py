"""`AdapterContract`: the whole contract as one class, which a store's author subclasses and runs.

    class TestMine(AdapterContract):
        @pytest.fixture
        def target(self, tmp_path):
            return f"mine://{tmp_path}"

The tests cannot be overridden. What a store cannot keep is declared, with a reason, and expected to fail.
"""

import os
import re
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from vectorkit.testing.areas.changing import Changing
from vectorkit.testing.areas.collections import Collections
from vectorkit.testing.areas.expiring import Expiring
from vectorkit.testing.areas.filtering import Filtering
from vectorkit.testing.areas.metadata import Metadata
from vectorkit.testing.areas.model import Model
from vectorkit.testing.areas.scores import Scores
from vectorkit.testing.areas.searching import Searching
from vectorkit.testing.areas.tenants import Tenants
from vectorkit.testing.areas.writing import Writing

_REASON = re.compile(r"(notimpl|notyet|never): \S")


class AdapterContract(Scores, Filtering, Writing, Changing, Metadata, Collections, Expiring, Searching, Tenants, Model):
    """Every line of the contract as a test, in both colours. Give it the fixture `target`.

    target: what `vectorkit.connect` takes, a URL or a dict; a fresh and empty place for each test. index: the index of every
    collection the suite makes. deviations: tests this store is known to fail, `{"test_x": "never: reason"}`; the first word is
    `notimpl` (the store can, we do not yet), `notyet` (the store cannot yet) or `never`. They are strict: one that passes
    fails the run, in whichever colour.
    """

    deviations: ClassVar[dict[str, str]] = {}
    areas: ClassVar[frozenset[str] | None] = None
    """Only these areas (`scores`, `filtering`, …): for a further variant of a store whose whole suite runs in another class.
    The table says which were not run; $VECTORKIT_WHOLE runs all of them."""

    @pytest.fixture
    def target(self) -> Any:
        """Where the store under test is."""
        raise TypeError("give your contract class a fixture `target` that returns what vectorkit.connect takes")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        tests = contract_tests()
        for name in vars(cls):
            if name in tests:
                raise TypeError(
                    f"{cls.__name__} overrides {name}; declare what the store cannot keep in `deviations` instead"
                )
        for name, reason in cls.deviations.items():
            if name not in tests:
                raise TypeError(f"{cls.__name__}.deviations names {name!r}, which is no contract test")
            if not isinstance(reason, str) or not _REASON.match(reason):
                raise TypeError(
                    f"{cls.__name__}.deviations[{name!r}] must read 'notimpl: …', 'notyet: …' or 'never: …'; got {reason!r}"
                )
        for name, test in tests.items():
            if name in cls.deviations:
                setattr(cls, name, _expected_to_fail(test, cls.deviations[name]))
            elif cls.areas is not None and not os.environ.get("VECTORKIT_WHOLE") and _area(test) not in cls.areas:
                setattr(cls, name, None)
            elif getattr(cls, name) is not test:  # a base class declared it, this one does not
                setattr(cls, name, test)


def contract_tests() -> dict[str, Callable[..., None]]:
    """The tests by name, as the contract itself has them."""
    return {name: getattr(AdapterContract, name) for name in dir(AdapterContract) if name.startswith("test_")}


def _area(test: Callable[..., None]) -> str:
    return test.__module__.rpartition(".")[2]


def _expected_to_fail(test: Callable[..., None], reason: str) -> Callable[..., None]:
    def deviating(*args: Any, **arguments: Any) -> None:
        test(*args, **arguments)

    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__signature__"):
        setattr(deviating, name, getattr(test, name))
    deviating.pytestmark = list(test.pytestmark)  # type: ignore[attr-defined]
    marked: Callable[..., None] = pytest.mark.xfail(reason=reason, strict=True)(deviating)
    return marked
