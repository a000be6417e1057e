"""Pinecone's official client of either colour as it is used here: how it is made, one client an index, its errors as vectorkit's.

It sends a request again by itself (three times, after a 408, 429 or 5xx and lost connections), so nothing here does.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pinecone import AsyncPinecone, Pinecone
from pinecone.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    PaymentRequiredError,
    PineconeConnectionError,
    PineconeError,
    PineconeTimeoutError,
    PineconeTypeError,
    PineconeValueError,
    RateLimitError,
    UnauthorizedError,
)

from vectorkit.adapter import Target
from vectorkit.errors import (
    AlreadyExists,
    Closed,
    ConfigError,
    DeadlineExceeded,
    NotFound,
    RateLimited,
    Unavailable,
    Unsupported,
    VectorkitError,
)
from vectorkit.runtime import Runtime
from vectorkit.validate import check_header
from vectorkit_pinecone.options import PineconeOptions

KEY = "PINECONE_API_KEY"
SECRET = 8  # characters from which a secret is looked for in errors


# --------------------------------------------------------------------------------------------- errors


def translated(error: Exception, shown: str, timeout: float) -> VectorkitError:
    """The client's errors as ours."""
    told = _told(error)
    match error:
        case UnauthorizedError():
            return ConfigError(f"{shown} refused the key; it is the profile's api_key, or ${KEY}")
        case PaymentRequiredError():
            return ConfigError(f"{shown} asks for payment: {told}")
        case ForbiddenError():
            return Unsupported(f"{shown} does not allow that: {told}")
        case NotFoundError() if isinstance(error.body, dict):
            return NotFound(f"{shown}: {told}")
        case NotFoundError():  # a gateway's: nothing is known to be missing
            return Unavailable(f"{shown} answered 404, and not as Pinecone does")
        case ConflictError():
            return AlreadyExists(f"{shown}: {told}")
        case RateLimitError():
            return RateLimited(f"{shown} asks for fewer requests: {told}", retry_after=error.retry_after)
        case ApiError() if error.status_code >= 500 or error.status_code == 408:
            return Unavailable(f"{shown} failed: {told}")
        case ApiError() | PineconeValueError() | PineconeTypeError():
            return Unsupported(f"{shown} refused the request: {told}")
        case PineconeTimeoutError():
            return DeadlineExceeded(f"{shown} did not answer within {timeout:g} s; a write may have landed")
        case PineconeConnectionError():
            return Unavailable(f"{shown} cannot be reached: {type(error.__cause__ or error).__name__}")
        case httpx.InvalidURL() | UnicodeError() if not isinstance(error, UnicodeDecodeError):
            return ConfigError(f"{shown} names a host that cannot be looked up")
        case PineconeError():
            return Unavailable(f"{shown} failed: {told}")
        case _:
            return Unavailable(f"{shown} answered, and not as Pinecone does ({type(error).__name__})")


def unreachable(error: VectorkitError) -> bool:
    """Whether a host did not answer as one of Pinecone's, as one does not whose index was dropped."""
    return isinstance(error.__cause__, PineconeConnectionError | NotFoundError)


def _told(error: Exception) -> str:
    return str(getattr(error, "message", "") or error)[:300]


def _forget(error: BaseException, secrets: Sequence[str]) -> None:
    """The key is in a request's headers, and the request in what is a cause of ours; an answer may repeat it."""
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        link = left.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        left += [link.__cause__, link.__context__]
        request = getattr(link, "_request", None)
        if isinstance(request, httpx.Request):
            link._request = httpx.Request(request.method, request.url)  # type: ignore[attr-defined]  # noqa: SLF001
        if any(_shows(value, secrets) for value in link.args):
            link.args = tuple(_clean(value, secrets) for value in link.args)
        for name, value in list(vars(link).items()):
            if name != "_request" and _shows(value, secrets):
                setattr(link, name, _clean(value, secrets))


def _shows(value: Any, secrets: Sequence[str]) -> bool:
    return any(secret in (value if isinstance(value, str) else repr(value)) for secret in secrets)


def _clean(value: Any, secrets: Sequence[str]) -> Any:
    if not isinstance(value, str):
        return None if _shows(value, secrets) else value
    for secret in secrets:
        value = value.replace(secret, "***")
    return value


# --------------------------------------------------------------------------------------------- the client


class Client:
    """A project of Pinecone by its key. Raises Closed in a process forked from the one that opened it."""

    def __init__(self, target: Target, options: PineconeOptions, runtime: Runtime) -> None:
        self.shown = target.shown
        self.timeout = options.timeout
        self._runtime = runtime
        self._pid = os.getpid()
        self._closed = False
        self._indexes: dict[str, Any] = {}
        key = options.api_key or target.secret or os.environ.get(KEY, "")
        if not key.strip():
            raise ConfigError(f"{self.shown} needs a key: the profile's api_key, or ${KEY}")
        check_header("the key", key)
        self._secrets = [one for one in (key, *options.headers.values(), options.proxy_url) if len(one) >= SECRET]
        if options.ssl_ca is not None and not Path(options.ssl_ca).exists():
            raise ConfigError(f"ssl_ca: {options.ssl_ca!r} is not there")
        host = _control_host(target.parameters.get("host"))
        made: type[Any] = AsyncPinecone if runtime.colour == "async" else Pinecone
        failed = ""
        try:
            self.native: Any = made(
                api_key=key,
                host=host,
                additional_headers=dict(options.headers),
                proxy_url=options.proxy_url or None,
                ssl_verify=options.ssl_verify,
                ssl_ca_certs=options.ssl_ca,
                timeout=options.timeout,
            )
        except Exception as error:  # noqa: BLE001 - of a URL, of a proxy or certificates that the environment names
            failed = type(error).__name__
        if failed:  # not from within: what failed may quote a proxy's password
            raise ConfigError(f"{self.shown}: a host, a proxy or certificates cannot be used ({failed})")

    async def control(self, verb: str, *arguments: Any, **named: Any) -> Any:
        """A verb of `native.indexes`."""
        return await self._ask(lambda: getattr(self.native.indexes, verb)(*arguments, **named))

    async def listed(self) -> list[Any]:
        """All indexes of the project: one request."""
        return await self._all(self.native.indexes.list)

    async def ids(self, host: str, *, namespace: str, documents: bool) -> list[str]:
        """The ids of a namespace, a hundred a request."""
        index = await self._index(host)
        listing = index.documents.list if documents else index.list
        if documents:
            return [one.id for one in await self._all(lambda: listing(namespace=namespace))]
        return [one.id for page in await self._all(lambda: listing(namespace=namespace)) for one in page.vectors]

    async def data(self, host: str, verb: str, **named: Any) -> Any:
        """A verb of an index (`query`, or `documents.search`)."""
        index = await self._index(host)

        def call() -> Any:
            at = index
            for part in verb.split("."):
                at = getattr(at, part)
            return at(**named)

        return await self._ask(call)

    async def _index(self, host: str) -> Any:
        found = self._indexes.get(host)
        if found is None:
            made = await self._ask(lambda: self.native.index(host=host))
            found = self._indexes.setdefault(host, made)
            if found is not made:  # another thread, or task, was faster
                await self._runtime.call(made.close)
            elif self._closed:  # meanwhile
                await self.forget(host)
                self._ours()
        return found

    async def forget(self, host: str) -> None:
        """Let go of the connections to an index that is gone."""
        if (index := self._indexes.pop(host, None)) is not None:
            await self._runtime.call(index.close)

    async def _all(self, listing: Callable[[], Any]) -> list[Any]:
        with self._guarded():
            pages = listing()
            return [one async for one in pages] if self._runtime.colour == "async" else list(pages)

    async def _ask(self, call: Callable[[], Any]) -> Any:
        with self._guarded():
            return await self._runtime.call(call)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        self._ours()
        try:
            yield
        except VectorkitError:
            raise
        except Exception as error:  # of an answer that it cannot read the client raises whatever its parsers raise
            _forget(error, self._secrets)
            self._ours()
            raise translated(error, self.shown, self.timeout) from error
        except BaseException as error:  # Ctrl-C, or a task that is cancelled
            _forget(error, self._secrets)
            raise

    def _ours(self) -> None:
        if self._closed:
            raise Closed(f"{self.shown} was closed; connect again")
        if os.getpid() != self._pid:
            raise Closed(f"{self.shown} was opened before this process was forked; connect again in the child")

    async def close(self) -> None:
        """Let go of the connections. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() == self._pid:
            for host in list(self._indexes):
                await self.forget(host)
            await self._runtime.call(self.native.close)


def _control_host(given: str | None) -> str | None:
    """The URL of the control plane, None for Pinecone's own. ConfigError where it is no URL, or holds a password."""
    if given is None:
        return None
    try:
        parts = urlsplit(given if "://" in given else f"https://{given}")
        fine = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        parts.port  # noqa: B018 - raises where it is none
    except ValueError:
        fine = False
    if not fine or "@" in parts.netloc:
        raise ConfigError("host= must be the URL of Pinecone's control plane, as in host=https://api.example.com")
    return parts.geturl()
