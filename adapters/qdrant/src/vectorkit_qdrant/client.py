"""Qdrant's official client of either colour as it is used here: how it is made, its errors as vectorkit's, what is sent again.

The client itself repeats nothing, keeps no connection to the loopback interface, and only warns of a server too old for it.
"""

import json
import os
import random
import re
import ssl
import time
from contextlib import suppress
from typing import Any

import grpc
import httpx
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from vectorkit.adapter import Target
from vectorkit.errors import (
    AlreadyExists,
    Ambiguous,
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
from vectorkit_qdrant.options import QdrantOptions

OLDEST = (1, 20)
"""A server that is older takes no insert-only writes and no full-text scores, and does not say so: it writes over rows."""
LONGEST_WAIT = 86_400  # seconds that a server may ask us to wait
_CHANNEL = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 1_000}
"""A channel tries again so soon; left to itself it waits up to two minutes, and fails every request meanwhile."""
_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 400,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


# --------------------------------------------------------------------------------------------- errors


def translated(error: Exception, shown: str, timeout: int) -> VectorkitError:
    """The client's errors as ours."""
    if isinstance(error, ResourceExhaustedResponse):
        return RateLimited(
            f"{shown} asks for fewer requests", retry_after=float(min(max(error.retry_after_s, 0), LONGEST_WAIT))
        )
    if isinstance(error, UnexpectedResponse):
        told, qdrants = _told(error.content)
        if error.status_code == 404 and not qdrants:  # of a gateway: nothing is known of collections
            return Unavailable(f"{shown} answered, and not as Qdrant does (404: {told})")
        return _refused(error.status_code or 0, told, shown, timeout)
    if isinstance(error, grpc.RpcError):
        call: Any = error
        return _refused(_STATUS.get(call.code(), 500), str(call.details())[:200], shown, timeout)
    cause = error.source if isinstance(error, ResponseHandlingException) else error
    match cause:
        case httpx.PoolTimeout():
            return Unavailable(f"{shown} was not asked: all connections were in use for {timeout} s")
        case httpx.TimeoutException():
            return DeadlineExceeded(f"{shown} did not answer within {timeout} s; a write may have landed")
        case httpx.LocalProtocolError():  # which quotes headers
            return Unavailable(f"{shown} cannot be asked: the request is none that HTTP takes")
        case httpx.InvalidURL() | UnicodeError() if not isinstance(
            cause, UnicodeDecodeError
        ):  # idna's are UnicodeErrors
            return ConfigError(f"{shown} names a host that cannot be looked up")
        case httpx.TransportError():
            return Unavailable(f"{shown} cannot be reached: {type(cause).__name__}")
        case QdrantException() | OverflowError():  # of a Retry-After that is no number of seconds
            return RateLimited(f"{shown} asks for fewer requests")
        case _:
            return Unavailable(f"{shown} answered, and not as Qdrant does ({type(cause).__name__})")


def _refused(status: int, told: str, shown: str, timeout: int) -> VectorkitError:
    match status:
        case 401 | 403:
            return ConfigError(f"{shown} refused the credentials ({told}); the key is the profile's api_key")
        case 404:
            return NotFound(f"{shown}: {told}")
        case 408 | 504:
            return DeadlineExceeded(f"{shown} did not answer within {timeout} s; a write may have landed ({told})")
        case 409:
            return AlreadyExists(f"{shown}: {told}")
        case 429:
            return RateLimited(f"{shown} asks for fewer requests: {told}", retry_after=None)
        case 400 | 413 | 422:
            return Unsupported(f"{shown} refused the request: {told}")
        case _:
            return Unavailable(f"{shown} failed: {told}")


def _told(content: bytes) -> tuple[str, bool]:
    """What a refusal says, and whether it is of Qdrant's form."""
    try:
        return str(json.loads(content)["status"]["error"])[:200], True
    except (ValueError, KeyError, TypeError, RecursionError):
        return content.decode("utf-8", "replace")[:200], False


def _forget_headers(error: Exception) -> None:
    """The key is in a request's headers, and the request in what is the cause of ours."""
    source = getattr(error, "source", None)
    if isinstance(source, httpx.RequestError):
        with suppress(RuntimeError):
            source.request = httpx.Request(source.request.method, source.request.url)


def _may_have_landed(error: Exception) -> bool:
    """Whether a request that failed so may have been carried out."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (408, 500, 502, 503, 504)
    if isinstance(error, grpc.RpcError):
        call: Any = error
        refused = (
            "failed to connect" in str(call.details()).lower() or "connection refused" in str(call.details()).lower()
        )
        return _STATUS.get(call.code(), 500) >= 500 and not refused
    if isinstance(error, ResourceExhaustedResponse):
        return False
    if not isinstance(error, ResponseHandlingException):
        return True
    unsent = httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.LocalProtocolError | httpx.InvalidURL
    return not isinstance(error.source, unsent | UnicodeError)


def _passing(error: Exception) -> bool:
    """Whether the same request may well go through in a moment."""
    if isinstance(error, ResourceExhaustedResponse):
        return True
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (429, 502, 503)
    if isinstance(error, grpc.RpcError):
        call: Any = error
        return call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    return isinstance(getattr(error, "source", None), httpx.NetworkError | httpx.RemoteProtocolError)


# --------------------------------------------------------------------------------------------- the client


class Client:
    """A server by its URL. Raises Closed in a process forked from the one that opened it."""

    def __init__(self, target: Target, options: QdrantOptions, runtime: Runtime) -> None:
        self.shown = target.shown
        self._runtime = runtime
        self._options = options
        self._pid = os.getpid()
        self._closed = False
        self._under_way: set[object] = set()
        secure = target.scheme == "qdrant+https"
        if secure and options.grpc and (options.ssl_ca or not options.ssl_verify):
            raise ConfigError(
                "ssl_ca and ssl_verify are REST's; gRPC reads its authorities from $GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
            )
        host = f"[{target.host}]" if ":" in target.host else target.host
        port = target.port or (443 if secure else 6333)
        made: type[Any] = AsyncQdrantClient if runtime.colour == "async" else QdrantClient
        given = {name.lower(): value for name, value in options.headers.items()}  # gRPC takes no other
        headers = {**given, **_credentials(target, options)}  # a key as api_key= warns of plain HTTP
        verify = {"verify": _verify(options)} if secure else {}
        try:
            self.native: Any = made(
                url=f"http{'s' if secure else ''}://{host}:{port}",
                port=port,
                prefix=target.path.strip("/") or None,
                grpc_port=options.grpc_port,
                grpc_options=dict(_CHANNEL),
                prefer_grpc=options.grpc,
                headers=headers,
                timeout=options.timeout,
                check_compatibility=False,
                limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
                **verify,
            )
        except Exception as error:  # noqa: BLE001 - of the URL, of a proxy or certificates that the environment names
            raise ConfigError(
                f"{self.shown} names a host that cannot be looked up, or the environment a proxy or certificates that cannot "
                f"be used ({type(error).__name__})"
            ) from None

    async def open(self) -> None:
        """Ask who is there. ConfigError where it is no Qdrant, Unsupported where it is too old."""
        told = await self.ask("info")
        found = re.match(r"(\d+)\.(\d+)", str(told.version))
        if "qdrant" not in str(told.title).lower() or found is None:
            raise ConfigError(f"{self.shown} answers as {told.title!r}, which is no Qdrant")
        version = int(found[1]), int(found[2])
        if version < OLDEST or version[0] != OLDEST[0]:
            raise Unsupported(
                f"{self.shown} is Qdrant {told.version}; this version of vectorkit needs {OLDEST[0]}.{OLDEST[1]} or later of "
                f"{OLDEST[0]}.x: an older server would write over rows that an insert should leave alone"
            )

    async def ask(self, verb: str, *arguments: Any, again: bool = True, inserting: bool = False, **named: Any) -> Any:
        """One verb of the client. again: send it once more where the first was lost, which does no harm to most.
        inserting: where all that is known is that rows may have been written, say Ambiguous."""
        end = time.monotonic() + self._options.timeout
        left = self._options.retries if again else 0
        pause = 0.05
        landed = False
        while True:
            self._ours()
            call = object()
            self._under_way.add(call)
            try:
                async with self._runtime.deadline(max(0.001, end - time.monotonic())):
                    return await self._runtime.call(getattr(self.native, verb), *arguments, **named)
            except DeadlineExceeded as error:  # an answer that drips
                raise self._late(inserting) from error
            except VectorkitError:
                raise
            except Exception as error:  # of an answer that it cannot read the client raises whatever its parsers raise
                raised = translated(error, self.shown, self._options.timeout)
                landed = landed or _may_have_landed(error)
                _forget_headers(error)
                wait = getattr(raised, "retry_after", None)
                wait = random.uniform(0, pause) if wait is None else wait  # noqa: S311 - so that many do not come at once
                if not left or not _passing(error) or time.monotonic() + wait >= end:
                    self._ours()
                    if inserting and landed and raised.retryable:
                        raised = Ambiguous(
                            f"the reply to an insert was lost; get() tells whether the rows are there: {raised}"
                        )
                    raise raised from error
            finally:
                self._under_way.discard(call)
            left -= 1
            pause = min(2 * pause, 2.0)
            await self._runtime.sleep(wait)

    def _late(self, inserting: bool) -> VectorkitError:
        told = f"{self.shown} did not answer within {self._options.timeout} s; a write may have landed"
        return Ambiguous(f"{told}; get() tells whether the rows are there") if inserting else DeadlineExceeded(told)

    def _ours(self) -> None:
        if self._closed:
            raise Closed(f"{self.shown} was closed; connect again")
        if os.getpid() != self._pid:
            raise Closed(f"{self.shown} was opened before this process was forked; connect again in the child")

    async def close(self) -> None:
        """Let go of the connections, once the calls under way have ended: they would lose theirs unclosed. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() == self._pid:
            end = time.monotonic() + self._options.timeout
            while self._under_way and time.monotonic() < end:
                await self._runtime.sleep(0.002)
            await self._runtime.call(self.native.close, grpc_grace=float(self._options.timeout))  # calls under way end


def _credentials(target: Target, options: QdrantOptions) -> dict[str, str]:
    secret = options.api_key or target.secret
    if target.user:
        raise ConfigError(
            "qdrant knows no users; write its key as qdrant://:key@host, or better as the profile's api_key"
        )
    check_header("the secret", secret)
    return {"api-key": secret} if secret else {}


def _verify(options: QdrantOptions) -> ssl.SSLContext | bool:
    if not options.ssl_verify:
        return False
    if options.ssl_ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=options.ssl_ca)
    except (OSError, ValueError) as error:
        raise ConfigError(f"ssl_ca: {options.ssl_ca!r} cannot be read ({error})") from None
