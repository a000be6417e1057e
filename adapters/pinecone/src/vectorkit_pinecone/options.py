"""The knobs of the Pinecone adapter, given to `connect(options=…)` or as keys of a profile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vectorkit.errors import InvalidArgument
from vectorkit.validate import check_header

LONGEST = 1_000_000  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PineconeOptions:
    """api_key: a secret, better given as the profile's `api_key`; left out, it is $PINECONE_API_KEY. headers: more headers, for a
    gateway. proxy_url: a proxy, which may hold a password. ssl_verify: False accepts any certificate. ssl_ca: a file or folder
    of authorities to trust. private: reach indexes by their private endpoints.

    wait: seconds that every write of this handle may take until reads see it, None not to wait: Pinecone shows a write some time
    after it took it. `upsert(wait=…)` says otherwise for one call. A wait that ends unseen raises DeadlineExceeded.

    timeout: seconds for one attempt of a request; Pinecone's client makes up to four. ready_timeout: seconds that an index may
    take to come up when a collection is made.

    api: what kind of index collections are made as: "documents", which has a keyword leg, or "vectors", the classic kind, which
    has none. Collections of either kind are opened, whatever this says. deletion_protection: make indexes that can be
    dropped only after the protection was lifted in Pinecone.
    """

    api_key: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxy_url: str = field(default="", repr=False)
    ssl_verify: bool = True
    ssl_ca: str | None = None
    private: bool = False
    wait: float | None = None
    timeout: float = 30.0
    ready_timeout: float = 300.0
    api: Literal["documents", "vectors"] = "documents"
    deletion_protection: bool = False

    def __post_init__(self) -> None:
        for name in ("api_key", "proxy_url"):
            if not isinstance(getattr(self, name), str):
                raise InvalidArgument(f"{name} must be a string, got {type(getattr(self, name)).__name__}")
        check_header("api_key", self.api_key)
        if not isinstance(self.headers, Mapping) or not all(
            isinstance(key, str) and isinstance(value, str) for key, value in self.headers.items()
        ):
            raise InvalidArgument("headers must map names to strings")
        for name, value in self.headers.items():
            check_header("a name in headers", name)
            check_header("a value in headers", value)
        for name in ("ssl_verify", "private", "deletion_protection"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidArgument(f"{name} must be True or False, got {getattr(self, name)!r}")
        if not isinstance(self.ssl_ca, str | None):
            raise InvalidArgument(f"ssl_ca must be a path or None, got {self.ssl_ca!r}")
        for name in ("timeout", "ready_timeout"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value <= LONGEST:
                raise InvalidArgument(f"{name} must be a positive number of seconds up to {LONGEST}, got {value!r}")
        if self.wait is not None and (not _is_number(self.wait) or not 0 <= self.wait <= LONGEST):
            raise InvalidArgument(f"wait must be a number of seconds from 0 to {LONGEST} or None, got {self.wait!r}")
        if self.api not in ("documents", "vectors"):
            raise InvalidArgument(f'api must be "documents" or "vectors", got {self.api!r}')


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
