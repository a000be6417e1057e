"""Chroma's client as it is used here, and its errors as vectorkit's: the one module that imports chromadb.

Chroma's own `HttpClient` asks the server before a timeout can be set, and leaves connections open when it is closed.
"""

import base64
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import httpx
from chromadb.api import ServerAPI
from chromadb.api.models.Collection import Collection
from chromadb.config import Settings, System
from chromadb.errors import ChromaError

from vectorkit.adapter import Target
from vectorkit.errors import (
    AlreadyExists,
    Ambiguous,
    ConfigError,
    Corrupt,
    DeadlineExceeded,
    NotFound,
    RateLimited,
    Unavailable,
    Unsupported,
    VectorkitError,
)
from vectorkit.validate import check_header
from vectorkit_chroma.options import ChromaOptions

# What Chroma says of a directory whose files do not fit each other, as seen after kill -9 and on files damaged on purpose.
_BROKEN_INDEX = (
    "hnsw segment",
    "hnsw index",
    "backfill request to compactor",
    "error in compaction",
    "error finding id",
    "error getting embedding",
)
_BROKEN_DATABASE = ("database disk image is malformed", "file is not a database")


# --------------------------------------------------------------------------------------------- errors


@contextmanager
def mapped(shown: str, timeout: float | None = None) -> Iterator[None]:
    """Chroma's and httpx's errors as ours."""
    try:
        yield
    except VectorkitError:
        raise
    except httpx.TimeoutException as error:
        raise DeadlineExceeded(f"{shown} did not answer within {timeout} s; a write may have landed") from error
    except httpx.LocalProtocolError:
        raise Unavailable(
            f"{shown} cannot be asked: the request is none that HTTP takes"
        ) from None  # it quotes headers
    except httpx.TransportError as error:
        raise Unavailable(f"{shown} cannot be reached: {type(error).__name__} {error}") from error
    except (httpx.InvalidURL, UnicodeError):
        raise ConfigError(f"{shown} names a host that cannot be looked up") from None
    except json.JSONDecodeError as error:
        raise Unavailable(f"{shown} answered, and not as Chroma does: {error}") from error
    except ChromaError as error:
        raise _translate(error, error.code(), shown) from error
    except BaseException as error:  # also the PanicException of Chroma's Rust, which is no Exception
        if damage := _damage(error, shown):
            raise damage from error
        # a reply that is no ChromaError is raised as a bare Exception of its text, out of httpx's own
        cause = error.__context__
        if type(error) is Exception and isinstance(cause, httpx.HTTPStatusError):
            wait = cause.response.headers.get("retry-after", "")
            raise _translate(error, cause.response.status_code, shown, wait) from error
        raise


@contextmanager
def ambiguous(shown: str) -> Iterator[None]:
    """An insert whose reply was lost, after it was or may have been sent."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
        raise
    except httpx.TransportError as error:
        told = (
            f"{shown}: the reply to an insert was lost ({type(error).__name__}); get() tells whether the rows are there"
        )
        raise Ambiguous(told) from error
    except Exception as error:
        cause = error.__context__
        if isinstance(error, ChromaError):
            status = error.code()
        else:
            status = cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else 0
        if status not in _UNTOLD or "already exists" in str(error):
            raise
        raise Ambiguous(
            f"{shown} answered an insert with {status}, which tells nothing of the rows; get() tells whether they are there"
        ) from error


_UNTOLD = (408, 500, 502, 504)  # what a gateway or a full disk says of a request that may have been carried out


def _damage(error: BaseException, shown: str) -> Corrupt | None:
    """The error of a directory that Chroma cannot read, and what is left to do; None for any other."""
    told = str(error).lower()
    if any(sign in told for sign in _BROKEN_DATABASE):
        return Corrupt(f"{shown}: chroma.sqlite3 is damaged ({_told(error)}); restore the directory from a backup")
    if type(error).__name__ == "PanicException" or any(sign in told for sign in _BROKEN_INDEX):
        return Corrupt(
            f"{shown}: Chroma cannot read this collection's index files ({_told(error)}). Restore the directory from a backup; without "
            "one, ids, texts and metadata can still be had and only vectors are lost: docs/layout.md, section 4, tells how"
        )
    return None


def _told(error: BaseException) -> str:
    text = str(error)
    return text if len(text) <= 160 else text[:80] + " … " + text[-80:]


def _translate(error: BaseException, status: int, shown: str, wait: str = "") -> VectorkitError:
    told = _told(error)
    if "already exists" in told:
        return AlreadyExists(f"{shown}: {told}")
    match status:
        case 401 | 403:
            return ConfigError(f"{shown} refused the credentials; give token= or the profile's api_key")
        case 404:
            return NotFound(f"{shown}: {told}")
        case 408 | 504:
            return DeadlineExceeded(f"{shown}: {told}")
        case 429:
            seconds = float(wait) if wait.isdecimal() else None
            return RateLimited(f"{shown} asks for fewer requests: {told}", retry_after=seconds)
        case 502 | 503:
            return Unavailable(f"{shown}: {told}")
        case _ if "disk is full" in told or "No space left" in told or "database is locked" in told:
            return Unavailable(f"{shown} cannot write: {told}")
        case 400 | 409 | 413 | 422:
            return Unsupported(f"{shown} refused the request: {told}")
        case _:
            return _damage(error, shown) or Unavailable(f"{shown} failed: {told}")


# --------------------------------------------------------------------------------------------- the client


class Client:
    """Chroma's API object of one database, without the client that is usually put around it."""

    def __init__(self, target: Target, options: ChromaOptions) -> None:
        common: dict[str, Any] = {"anonymized_telemetry": False, "_env_file": None}
        self._shown = target.shown
        self._timeout = options.timeout
        self.embedded = not target.host
        if self.embedded:
            settings = Settings(
                chroma_api_impl="chromadb.api.rust.RustBindingsAPI",
                is_persistent=True,
                persist_directory=target.path,
                **common,
            )
        else:
            secure = target.scheme == "chroma+https"
            host = f"[{target.host}]" if ":" in target.host else target.host
            port = target.port or (443 if secure else 8000)
            settings = Settings(
                chroma_api_impl="chromadb.api.fastapi.FastAPI",
                chroma_server_host=f"http{'s' if secure else ''}://{host}:{port}",  # a bare host that begins so loses its port
                chroma_server_http_port=port,
                chroma_server_ssl_enabled=secure,
                chroma_server_headers={**options.headers, **_credentials(target, options)},
                **common,
            )
        self._system = System(settings)
        api: type[Any] = ServerAPI
        self.api: Any = self._system.instance(api)
        if not self.embedded:
            given = self.api._session  # noqa: SLF001 - it has no public way to set a timeout or a certificate store
            self.api._session = httpx.Client(  # noqa: SLF001
                timeout=options.timeout, verify=_verify(options), headers=given.headers, limits=self.api.http_limits
            )
            given.close()
        self._system.start()

    def collection(self, model: Any) -> Any:
        """A handle on a collection, bound to its UUID."""
        return Collection(client=self.api, model=model, embedding_function=None)

    @contextmanager
    def writing(self, inserting: bool) -> Iterator[None]:
        """Around the request of a write: Chroma's errors as ours, and of an insert over a network also what is not known of it."""
        lost = ambiguous(self._shown) if inserting and not self.embedded else nullcontext()
        with mapped(self._shown, self._timeout), lost:
            yield

    def close(self) -> None:
        """Stop, which lets go of files; close the connections, which stopping does not."""
        if not self.embedded:
            self.api._session.close()  # noqa: SLF001
        self._system.stop()


def _credentials(target: Target, options: ChromaOptions) -> dict[str, str]:
    secret = options.token or target.secret
    if not secret:
        return {}
    check_header("the secret", secret)
    if target.user:
        check_header("the user", target.user)
        pair = base64.b64encode(f"{target.user}:{secret}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    if options.token_header == "x-chroma-token":  # noqa: S105 - a header's name
        return {"X-Chroma-Token": secret}
    return {"Authorization": f"Bearer {secret}"}


def _verify(options: ChromaOptions) -> ssl.SSLContext | bool:
    if not options.ssl_verify:
        return False
    if options.ssl_ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=options.ssl_ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ssl_ca: {options.ssl_ca!r} cannot be read ({error})") from None
