"""The knobs of the embedded engine, given to `connect(options=…)` or as keys of a profile."""

from dataclasses import dataclass

from vectorkit.errors import InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """lock_timeout: seconds to wait for another handle to let go of the directory before `Locked` (0 to 5).

    cache_mb: page cache of each database's writer, in MiB.
    """

    lock_timeout: float = 1.0
    cache_mb: int = 64

    def __post_init__(self) -> None:
        if (
            isinstance(self.lock_timeout, bool)
            or not isinstance(self.lock_timeout, int | float)
            or not 0 <= self.lock_timeout <= 5
        ):
            raise InvalidArgument(f"lock_timeout must be 0 to 5 seconds, got {self.lock_timeout!r}")
        if isinstance(self.cache_mb, bool) or not isinstance(self.cache_mb, int) or not 1 <= self.cache_mb <= 65_536:
            raise InvalidArgument(f"cache_mb must be an int from 1 to 65536, got {self.cache_mb!r}")
