"""Every error vectorkit raises, in one tree, each carrying what is needed to act.

`retryable` says whether the same call can succeed if it is simply made again.
"""

from collections.abc import Sequence

__all__ = [
    "AlreadyExists",
    "Ambiguous",
    "Closed",
    "ConfigError",
    "Corrupt",
    "DeadlineExceeded",
    "DimensionMismatch",
    "FingerprintMismatch",
    "InvalidArgument",
    "InvalidFilter",
    "InvalidRecord",
    "Locked",
    "NotFound",
    "PartialFailure",
    "RateLimited",
    "SpecMismatch",
    "TenantLeak",
    "TenantRequired",
    "Unavailable",
    "Unsupported",
    "VectorkitError",
]


class VectorkitError(Exception):
    """The root: `except vk.VectorkitError` catches whatever a store or vectorkit refuses."""

    retryable: bool = False


class InvalidArgument(VectorkitError, ValueError):
    """An argument is of the wrong type or out of range; nothing was sent."""


class InvalidFilter(InvalidArgument):
    """A filter cannot mean anything: unknown operator, bad operand, too deep. Names field and operator."""

    def __init__(self, message: str, *, field: str | None = None, operator: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.operator = operator


class InvalidRecord(InvalidArgument):
    """A record cannot be stored exactly. `row` is its position in what was given, `field` the part at fault."""

    def __init__(self, message: str, *, row: int | None = None, field: str | None = None) -> None:
        where = "" if row is None else f"row {row}: "
        super().__init__(where + message)
        self.detail = message
        self.row = row
        self.field = field


class DimensionMismatch(InvalidArgument):
    """A vector's length is not the collection's dimension."""

    def __init__(
        self, message: str, *, expected: int | None = None, got: int | None = None, row: int | None = None
    ) -> None:
        where = "" if row is None else f"row {row}: "
        super().__init__(where + message)
        self.detail = message
        self.expected = expected
        self.got = got
        self.row = row


class AlreadyExists(VectorkitError):
    """The ids (or the collection) exist and the call may not overwrite; nothing was written."""

    def __init__(self, message: str, *, ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.ids = tuple(ids)


class NotFound(VectorkitError):
    """No collection (or profile) of that name, or it was dropped behind this handle."""


class SpecMismatch(VectorkitError):
    """The collection exists with another spec. `differences` maps what differs to (there, asked)."""

    def __init__(self, message: str, *, differences: dict[str, tuple[object, object]] | None = None) -> None:
        super().__init__(message)
        self.differences = differences or {}


class FingerprintMismatch(VectorkitError):
    """The embedder is not the one the collection's vectors were made with."""


class Closed(VectorkitError):
    """The store was closed, or belongs to the process this one was forked from."""


class Ambiguous(VectorkitError):
    """The reply to an insert was lost: it may or may not have been written."""


class TenantRequired(VectorkitError):
    """The collection has tenants and the call names none."""


class TenantLeak(VectorkitError):
    """A store returned another tenant's row. The row was not passed on."""


class Unsupported(VectorkitError):
    """The store cannot keep the promise that was asked for. The message names the store and the way out."""


class PartialFailure(VectorkitError):
    """Some requests of a write were committed before one failed (its error is the `__cause__`).

    `written` counts the committed prefix; `failed` holds the ids in hand that were not written.
    """

    def __init__(self, message: str, *, written: int, failed: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.written = written
        self.failed = tuple(failed)


class Locked(VectorkitError):
    """Another handle, in this process or another, owns the directory for writing."""

    retryable = True


class Corrupt(VectorkitError):
    """The truth itself cannot be read. The message says what to do."""


class Unavailable(VectorkitError):
    """The store cannot be reached, or cannot take the write now (a full disk, a restart)."""

    retryable = True


class DeadlineExceeded(VectorkitError):
    """The call took longer than its deadline; a write may have landed. landed: it has, and reads have not seen it yet."""

    retryable = True

    def __init__(self, message: str, *, landed: bool = False) -> None:
        super().__init__(message)
        self.landed = landed


class RateLimited(VectorkitError):
    """The store asked for fewer requests. `retry_after` is in seconds where it said so."""

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConfigError(VectorkitError):
    """A URL, profile or option cannot be used. The message names it, and never a secret."""
