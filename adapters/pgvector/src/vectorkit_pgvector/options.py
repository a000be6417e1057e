"""The knobs of a PostgreSQL store, given to `connect(options=…)` or as keys of a profile."""

import re
from dataclasses import dataclass

from vectorkit.errors import InvalidArgument

LONGEST = 1_000_000  # seconds; the server counts milliseconds in 31 bits
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class PgvectorOptions:
    """schema: where the tables lie; it is made with the first collection. pool_size: connections held at most (1 to 1,000),
    each opened when it is first needed.

    timeout: seconds that one call may take before DeadlineExceeded, None for no limit. It holds against a frozen server too,
    which a server's own statement_timeout does not. `optimize()` is not bounded, and with a timeout it alone builds vector
    indexes, which may take minutes; without one the end of a load does. connect_timeout: seconds to wait for a connection, new or from the pool.

    maintenance_mb: memory that building a vector index may take (MiB); it is given what the index needs, up to this.
    """

    schema: str = "vectorkit"
    pool_size: int = 8
    timeout: float | None = None
    connect_timeout: float = 10.0
    maintenance_mb: int = 1_024

    def __post_init__(self) -> None:
        if not isinstance(self.schema, str) or not _SCHEMA.match(self.schema) or self.schema.startswith("pg_"):
            raise InvalidArgument(
                f"schema is 1 to 63 letters, digits and '_', and begins with no digit nor pg_; got {self.schema!r}"
            )
        for name, low, high in (("pool_size", 1, 1_000), ("maintenance_mb", 1, 2**20)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InvalidArgument(f"{name} must be an int from {low} to {high}, got {value!r}")
        for name in ("timeout", "connect_timeout"):
            value = getattr(self, name)
            if value is None and name == "timeout":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST:
                raise InvalidArgument(f"{name} must be a positive number of seconds up to {LONGEST}, got {value!r}")
