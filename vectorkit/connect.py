"""The two ways in: `connect` and `aconnect`.

Kept apart and light, because `vectorkit.connect` is both this module and the function in it: the package imports it at
once, which binds the name to the function for good, and what opening needs is imported when a store is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vectorkit.adapter import Clock
    from vectorkit.address import Address
    from vectorkit.aio import AsyncStore
    from vectorkit.store import Store


def connect(
    target: Address,
    *,
    options: Any = None,
    read_only: bool = False,
    clock: Clock | None = None,
    residual_limit: int = 100_000,
) -> Store:
    """Open a store: a URL (`faiss:///var/lib/kb`), a profile name from vectorkit.toml, or a dict with a "url".

    options: the store's own typed options (`vk.LocalOptions(…)`). read_only: refuse writes, and open beside a writer.
    clock: gives the aware datetime that expiry is measured by. residual_limit: rows that may be read to re-check a
    filter that the store cannot decide itself.

    Raises ConfigError for a URL, profile or option that cannot be used, Locked, NotFound, Unavailable, Corrupt.
    """
    from vectorkit.address import open_store
    from vectorkit.runtime import SYNC, drive
    from vectorkit.store import Store

    return Store(drive(open_store(target, SYNC, options, read_only, clock, residual_limit)))


async def aconnect(
    target: Address,
    *,
    options: Any = None,
    read_only: bool = False,
    clock: Clock | None = None,
    residual_limit: int = 100_000,
) -> AsyncStore:
    """`connect`, for an event loop."""
    from vectorkit.address import open_store
    from vectorkit.aio import AsyncStore
    from vectorkit.runtime import AsyncRuntime

    return AsyncStore(await open_store(target, AsyncRuntime(), options, read_only, clock, residual_limit))
