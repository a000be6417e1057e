"""Typed columns against `matches()`: whatever is appended, changed or taken, a mask says what the definition says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorkit.filters import (
    EVERY_ROW,
    NO_ROW,
    And,
    Compare,
    ContainsAll,
    ContainsAny,
    Eq,
    Exists,
    Filter,
    In,
    Not,
    Or,
    StartsWith,
    fit,
    push_not,
)
from vectorkit.local.columns import Columns

FIELDS: dict[str, Any] = {
    "i": int,
    "f": float,
    "b": bool,
    "s": str,
    "d": datetime,
    "li": list[int],
    "ls": list[str],
    "lf": list[float],
}
INTS = st.sampled_from([0, 1, 2, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)])
FLOATS = st.sampled_from([0.0, -0.0, 1.0, 2.5, -1.0, 2.0**53, 1e300])
TEXTS = st.sampled_from(["", "a", "ab", "b", "é", "\U0001f600", "A"])
DATES = st.sampled_from([datetime(2024, 1, 1, tzinfo=UTC) + timedelta(microseconds=n) for n in (-1, 0, 1)])
SCALARS = st.one_of(INTS, FLOATS, TEXTS, DATES, st.booleans())


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    values = {
        "i": INTS,
        "f": st.one_of(FLOATS, st.sampled_from([0, 1, 2**53])),
        "b": st.booleans(),
        "s": TEXTS,
        "d": DATES,
        "li": st.lists(INTS, max_size=3),
        "ls": st.lists(TEXTS, max_size=3),
        "lf": st.lists(st.one_of(FLOATS, st.sampled_from([0, 1])), max_size=3),
    }
    return {name: draw(strategy) for name, strategy in values.items() if draw(st.booleans())}


FIELD = st.sampled_from(sorted(FIELDS))
LEAF = st.one_of(
    st.builds(Eq, FIELD, SCALARS),
    st.builds(Compare, FIELD, st.sampled_from(["gt", "gte", "lt", "lte"]), st.one_of(INTS, FLOATS, TEXTS, DATES)),
    st.builds(In, FIELD, st.lists(SCALARS, max_size=4)),
    st.builds(ContainsAny, FIELD, st.lists(SCALARS, max_size=3)),
    st.builds(ContainsAll, FIELD, st.lists(SCALARS, max_size=3)),
    st.builds(StartsWith, FIELD, TEXTS),
    st.builds(Exists, FIELD),
)
FILTER: st.SearchStrategy[Filter] = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.lists(inner, max_size=3).map(And),
        st.lists(inner, max_size=3).map(Or),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    first=st.lists(rows(), max_size=6),
    more=st.lists(rows(), max_size=6),
    changes=st.lists(st.tuples(st.integers(0, 20), rows()), max_size=3),
    kept=st.sets(st.integers(0, 20)),
    where=FILTER,
)
def test_a_mask_is_matches(
    first: list[dict[str, Any]],
    more: list[dict[str, Any]],
    changes: list[tuple[int, dict[str, Any]]],
    kept: set[int],
    where: Filter,
) -> None:
    columns = Columns.empty(FIELDS)
    columns.append(0, first)
    before = columns.frozen()
    columns = columns.frozen()
    columns.append(len(first), more)
    stored = [*first, *more]
    fitted = fit(push_not(where), FIELDS)  # type: ignore[arg-type]

    def check(columns: Columns, stored: list[dict[str, Any]]) -> None:
        wanted = [where.matches(row) for row in stored]
        if fitted == EVERY_ROW:
            assert all(wanted)
        elif fitted == NO_ROW:
            assert not any(wanted)
        else:
            assert columns.mask(fitted, len(stored)).tolist() == wanted

    check(columns, stored)
    check(before, first)
    distinct = {slot % len(stored): row for slot, row in changes} if stored else {}
    changed = columns.changed(len(stored), list(distinct), list(distinct.values())) if distinct else columns
    after = [distinct.get(slot, row) for slot, row in enumerate(stored)]
    check(changed, after)
    check(columns, stored)
    slots = sorted(slot for slot in kept if slot < len(after))
    check(changed.take(np.array(slots, np.int64)), [after[slot] for slot in slots])
