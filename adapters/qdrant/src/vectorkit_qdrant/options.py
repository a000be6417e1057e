"""The knobs of the Qdrant adapter, given to `connect(options=…)` or as keys of a profile."""

from dataclasses import dataclass

from vectorkit.errors import InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class QdrantOptions:
    """Embedded: lock_timeout: seconds to wait for another handle to let go of the directory before `Locked` (0 to 5).

    exact_limit: vectors that a search may read where float32 could not measure them.
    """

    lock_timeout: float = 1.0
    exact_limit: int = 100_000

    def __post_init__(self) -> None:
        given = self.lock_timeout
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 5:
            raise InvalidArgument(f"lock_timeout must be 0 to 5 seconds, got {given!r}")
        limit = self.exact_limit
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InvalidArgument(f"exact_limit must be an int of at least 1, got {limit!r}")
