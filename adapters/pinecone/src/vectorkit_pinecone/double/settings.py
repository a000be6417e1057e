"""What a test can set: delays, limits that go by plan, and a switch for each thing that the documentation leaves open."""

from dataclasses import dataclass, fields, replace
from typing import Any

from vectorkit_pinecone.double.errors import bad

API_VERSION = "2026-07"
ROWS = 1_000
"""Rows of one write, ids of one fetch or delete."""
TOP_K = 10_000
FETCH_PAGE = 10_000
LIST_PAGE = 100
SCORE_BY = 100
IN_VALUES = 10_000
METADATA_BYTES = 40 * 1024
TEXT_BYTES = 100 * 1024
TEXT_TOKENS = 10_000
TOKEN_BYTES = 256
QUERY_BYTES = 10 * 1024
DIMENSIONS = 20_000
SPARSE_VALUES = 2_048
MATCH_TOKENS = 128


@dataclass(frozen=True)
class Settings:
    """One server's. Durations in seconds."""

    delay: float = 0.0
    """Until an accepted write is seen by search and query."""
    fetch_delay: float | None = None
    """Until it is seen by fetch, list and counts; `None`: the same."""
    ready_delay: float = 0.0
    """Until a new index is Ready."""
    missing_matches_ne: bool = False
    """Whether `$ne`, `$nin` and `$not` match a row without the field."""
    any_element_ne: bool = False
    """Whether `$ne` and `$nin` match a list of which one element differs, rather than all."""
    missing_namespace_404: bool = True
    """Whether update and delete of a namespace that is not there are refused, rather than accepted."""
    float32_scores: bool = False
    """Whether scores are rounded to float32, as the specification's format says."""
    unsorted_matches: bool = False
    """Whether a vector query answers its matches worst first: their order by score is not promised."""
    dense_only_gap: bool = False
    """Whether search and fetch by filter find nothing in an index without a text field, as seen in September 2026."""
    max_indexes: int = 20
    """The quota of the Standard plan."""
    max_namespaces: int = 100_000
    request_bytes: int = 2 * 2**20
    result_bytes: int = 4 * 2**20

    def changed(self, asked: Any) -> "Settings":
        """These with some replaced; a name or type that does not fit is refused."""
        if not isinstance(asked, dict):
            raise bad("settings are an object")
        types = {each.name: each.type for each in fields(self)}
        for name, value in asked.items():
            if name not in types:
                raise bad(f"no setting {name!r}; there are {', '.join(types)}")
            if not _fits(value, str(types[name])):
                raise bad(f"setting {name!r} does not take this value")
        return replace(self, **asked)


def _fits(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or "bool" in kind:
        return isinstance(value, bool) and "bool" in kind
    if value is None:
        return "None" in kind
    if isinstance(value, float) and "float" not in kind:
        return False
    return isinstance(value, int | float) and 0 <= value < float("inf")
