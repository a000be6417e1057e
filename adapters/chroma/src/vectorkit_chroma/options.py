"""The knobs of the Chroma adapter, given to `connect(options=…)` or as keys of a profile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vectorkit.errors import InvalidArgument
from vectorkit.validate import check_header

LONGEST = 1_000_000  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ChromaOptions:
    """tenant, database: Chroma's own, both made by whoever runs it; no security boundary, since its server takes any path.

    Server only: token: a secret, better given as the profile's `api_key` or in the URL (`chroma://:token@host`). token_header: how it
    is sent, "authorization" (as a bearer token) or "x-chroma-token". headers: more headers, for a proxy. ssl_verify: False accepts
    any certificate. ssl_ca: a file of authorities to trust. timeout: seconds without a byte from the server, None for ever.
    sidecar: the file of a keyword index that this process keeps (the embedded store has its own).

    Embedded only: lock_timeout: seconds to wait for another handle to let go of the directory before `Locked` (0 to 5).

    ef_search: candidates that a search of the graph keeps, set when a collection is made; `query(ef_search=…)` widens it.
    exact_limit: rows that `exact=True` may read.
    """

    tenant: str = "default_tenant"
    database: str = "default_database"
    token: str = field(default="", repr=False)
    token_header: Literal["authorization", "x-chroma-token"] = "authorization"  # noqa: S105 - a header's name
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ssl_verify: bool = True
    ssl_ca: str | None = None
    timeout: float | None = 60.0
    sidecar: str | None = None
    lock_timeout: float = 1.0
    ef_search: int = 256
    exact_limit: int = 100_000

    def __post_init__(self) -> None:
        for name in ("tenant", "database"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) < 3 or "/" in value or not value.isprintable():
                raise InvalidArgument(
                    f"{name} must be a string of at least 3 printable characters without '/', got {value!r}"
                )
        if not isinstance(self.token, str):
            raise InvalidArgument(f"token must be a string, got {type(self.token).__name__}")
        check_header("token", self.token)
        if self.token_header not in ("authorization", "x-chroma-token"):
            raise InvalidArgument(
                f'token_header must be "authorization" or "x-chroma-token", got {self.token_header!r}'
            )
        if not isinstance(self.headers, Mapping) or not all(
            isinstance(key, str) and isinstance(value, str) for key, value in self.headers.items()
        ):
            raise InvalidArgument("headers must map names to strings")
        for name, value in self.headers.items():
            check_header("a name in headers", name)
            check_header("a value in headers", value)
        if not isinstance(self.ssl_verify, bool):
            raise InvalidArgument(f"ssl_verify must be True or False, got {self.ssl_verify!r}")
        for name in ("ssl_ca", "sidecar"):
            if not isinstance(getattr(self, name), str | None):
                raise InvalidArgument(f"{name} must be a path or None, got {getattr(self, name)!r}")
        if self.timeout is not None and (not _is_number(self.timeout) or not 0 < self.timeout <= LONGEST):
            raise InvalidArgument(
                f"timeout must be a positive number of seconds up to {LONGEST} or None, got {self.timeout!r}"
            )
        if not _is_number(self.lock_timeout) or not 0 <= self.lock_timeout <= 5:
            raise InvalidArgument(f"lock_timeout must be 0 to 5 seconds, got {self.lock_timeout!r}")
        for name in ("ef_search", "exact_limit"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgument(f"{name} must be an int of at least 1, got {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
