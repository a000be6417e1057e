"""What an address means: URL, profile or dict to a backend, its options, and the adapter with its layers on.

Secrets come from the profile or the environment and go to the adapter alone.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from vectorkit.adapter import Backend, Clock, Target
from vectorkit.checked import Checked
from vectorkit.codec import bad_text
from vectorkit.errors import ConfigError, InvalidArgument
from vectorkit.runtime import Runtime
from vectorkit.verbs import StoreVerbs

Address: TypeAlias = str | Mapping[str, Any]
GROUP = "vectorkit.adapters"
_BUILT_IN = {"memory": "vectorkit.memory:BACKEND", "local": "vectorkit.local.adapter:BACKEND"}
# Schemes of distributions that are not installed, for the hint; a checkout's path, since nothing is published yet.
_HINTS = {
    "faiss": "pip install ./adapters/faiss (from a checkout)",
    "chroma": "pip install ./adapters/chroma (from a checkout)",
    "chroma+https": "pip install ./adapters/chroma (from a checkout)",
    "qdrant": "pip install ./adapters/qdrant (from a checkout)",
    "qdrant+https": "pip install ./adapters/qdrant (from a checkout)",
    "qdrant+memory": "pip install ./adapters/qdrant (from a checkout)",
    "pinecone": "pip install ./adapters/pinecone (from a checkout)",
    "postgresql": "pip install ./adapters/pgvector (from a checkout)",
    "pgvector": "pip install ./adapters/pgvector (from a checkout)",
    "hnswlib": "pip install ./adapters/hnswlib (from a checkout, with a C++ compiler; HNSWLIB_NO_NATIVE=1 for any processor)",
}
_PATHS = ("/", "./", "../", "~/")
_PROFILE_KEYS = {"url", "api_key", "read_only", "residual_limit"}


async def open_store(
    address: Address, runtime: Runtime, options: Any, read_only: bool, clock: Clock | None, residual_limit: int
) -> StoreVerbs:
    """Open the store that an address means, in the runtime's colour."""
    settings = _settings(address)
    read_only = _bool("read_only", settings.pop("read_only", read_only)) or _bool("read_only", read_only)
    limit = settings.pop("residual_limit", residual_limit)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidArgument(f"residual_limit must be an int of at least 1, got {limit!r}")
    url = settings.pop("url", None)
    if not isinstance(url, str):
        raise ConfigError("a store needs a url")
    backend = backend_for(_scheme(url))
    secret = settings.pop("api_key", None) or ""
    typed = _options(backend, options, settings)
    target = _target(url, backend, typed, read_only, str(secret))
    ticking = _clock(clock)
    adapter = await backend.open(target, runtime)
    top = Checked(adapter, runtime, clock=ticking, residual_limit=limit)
    return StoreVerbs(top, runtime, clock=ticking, shown=target.shown)


def _bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name} must be True or False, got {value!r}")
    return value


def _clock(clock: Clock | None) -> Clock:
    if clock is None:
        return lambda: datetime.now(UTC)
    if not callable(clock):
        raise InvalidArgument("clock must be a callable that returns an aware datetime")
    given = clock

    def checked() -> datetime:
        now = given()
        if not isinstance(now, datetime) or now.tzinfo is None or now.utcoffset() is None:
            raise InvalidArgument(f"clock() must return an aware datetime, got {now!r}")
        return now

    return checked


# --------------------------------------------------------------------------------------------- schemes


def _entry_points() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def backend_for(scheme: str) -> Backend:
    """The backend of a URL scheme. Raises ConfigError listing the known schemes and what to install."""
    from importlib import import_module

    if scheme in _BUILT_IN:
        module, name = _BUILT_IN[scheme].split(":")
        backend = getattr(import_module(module), name)
    else:
        points = _entry_points()
        if scheme not in points:
            known = sorted({*_BUILT_IN, *points})
            hint = f"; to get it: {_HINTS[scheme]}" if scheme in _HINTS else ""
            raise ConfigError(f"unknown store scheme {scheme!r}; installed are {', '.join(known)}{hint}")
        try:
            backend = points[scheme].load()
        except ImportError as error:
            hint = _HINTS.get(scheme, f"install the distribution that registers {scheme!r} again")
            raise ConfigError(f"the adapter for {scheme!r} cannot be imported ({error}); {hint}") from error
    if not isinstance(backend, Backend):
        raise ConfigError(f"the entry point {scheme!r} in the group {GROUP} names no vectorkit Backend")
    return backend


def _scheme(url: str) -> str:
    scheme, found, _ = url.partition("://")
    if not found or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        raise ConfigError("a store URL looks like scheme://…, as in local:///var/lib/kb")
    return scheme


def _target(url: str, backend: Backend, options: Any, read_only: bool, secret: str) -> Target:
    scheme = _scheme(url)
    rest = url[len(scheme) + 3 :]
    place, _, query = rest.partition("?")
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in backend.parameters:
            known = ", ".join(sorted(backend.parameters)) or "none"
            raise ConfigError(f"{scheme}:// takes no parameter {_masked(name)!r} (known: {known})")
        if name in parameters:
            raise ConfigError(f"the parameter {name!r} is given twice")
        parameters[name] = value
    kind = backend.place
    if kind == "either":
        kind = "directory" if place.startswith(_PATHS) and "+" not in scheme else "server"  # x+https is a server's
        if kind == "server" and not place.partition("/")[0].rpartition("@")[2].partition(":")[0]:
            raise ConfigError(f"{scheme}:// names no place; write {scheme}:///a/directory or {scheme}://host:port")
    match kind:
        case "name":
            return Target(
                scheme=scheme,
                path=unquote(place),
                secret=secret,
                parameters=parameters,
                options=options,
                read_only=read_only,
            )
        case "directory":
            return Target(
                scheme=scheme,
                path=_directory(scheme, place),
                parameters=parameters,
                options=options,
                read_only=read_only,
            )
        case "server":
            try:
                parts = urlsplit(f"//{place}")
                port = parts.port
            except ValueError:
                raise ConfigError(f"{scheme}://: host and port cannot be read; write {scheme}://host:port") from None
            return Target(
                scheme=scheme,
                host=parts.hostname or "",
                port=port,
                user=unquote(parts.username or ""),
                secret=secret or unquote(parts.password or ""),
                path=unquote(parts.path),
                parameters=parameters,
                options=options,
                read_only=read_only,
            )


def _masked(text: str) -> str:
    """A text for a message without what may be a user and password before its last @."""
    _, found, rest = text.rpartition("@")
    return f"***@{rest}" if found else text


def _directory(scheme: str, place: str) -> str:
    path = unquote(place)
    if problem := bad_text(path):
        raise ConfigError(f"{scheme}://: the path {problem}")
    if not path.startswith(_PATHS):
        raise ConfigError(
            f"{scheme}://{_masked(path)}: write an absolute path ({scheme}:///var/lib/kb) or a relative one ({scheme}://./kb)"
        )
    if re.match(r"/[A-Za-z]:[/\\]", path):
        path = path[1:]
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111


def _options(backend: Backend, options: Any, settings: dict[str, Any]) -> Any:
    """The typed options object, from the argument or from a profile's further keys."""
    kind = backend.options
    if options is not None:
        if kind is None or not isinstance(options, kind):
            wanted = kind.__name__ if kind else "no options"
            raise InvalidArgument(f"{backend.store} takes {wanted}, got {type(options).__name__}")
        if settings:
            raise ConfigError(f"both options= and {', '.join(map(repr, settings))} in the profile; use one")
        return options
    if kind is None:
        if settings:
            raise ConfigError(f"{backend.store} has no option {next(iter(settings))!r}")
        return None
    assert is_dataclass(kind)
    known = {f.name for f in fields(kind)}
    for name in settings:
        if name not in known:
            raise ConfigError(
                f"{backend.store} has no option {name!r} (known: {', '.join(sorted(known | _PROFILE_KEYS))})"
            )
    return kind(**settings)


# --------------------------------------------------------------------------------------------- profiles


def _settings(address: Address) -> dict[str, Any]:
    if isinstance(address, Mapping):
        settings = dict(address)
        if not all(isinstance(name, str) for name in settings):
            raise ConfigError("a store's settings have string keys")
        return settings
    if not isinstance(address, str) or not address:
        raise InvalidArgument(f"connect takes a URL, a profile name or a dict, got {address!r}")
    if "://" in address:
        return {"url": address}
    return _profile(address)


def config_path() -> Path | None:
    """The vectorkit.toml in force: $VECTORKIT_CONFIG, else the first found from the working directory upward."""
    if named := os.environ.get("VECTORKIT_CONFIG"):
        path = Path(named)
        if not path.is_file():
            raise ConfigError(f"$VECTORKIT_CONFIG names {named!r}, which is no file")
        return path
    here = Path.cwd()
    return next((path for folder in (here, *here.parents) if (path := folder / "vectorkit.toml").is_file()), None)


def _profile(name: str) -> dict[str, Any]:
    import tomllib

    path = config_path()
    if path is None:
        raise ConfigError(
            f"{_masked(name)!r} is no URL (scheme://…), and there is no vectorkit.toml here or above to hold a profile"
        )
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path.name} cannot be read: {error}") from None
    stores = document.get("stores", {})
    if not isinstance(stores, dict) or not isinstance(stores.get(name), dict):
        known = ", ".join(sorted(stores)) if isinstance(stores, dict) and stores else "none"
        raise ConfigError(f"{path.name} has no profile {_masked(name)!r} (known: {known})")
    base = path.parent
    settings = {key: _expand(key, value) for key, value in stores[name].items()}
    url = settings.get("url")
    if isinstance(url, str):  # a relative path in a file is relative to the file
        found = re.match(r"([a-z][a-z0-9+.-]*://)(\.{1,2}/.*)", url)
        if found:
            settings["url"] = found[1] + str(base.resolve()) + "/" + found[2]
    return settings


def _expand(key: str, value: Any) -> Any:
    """`${NAME}` from the environment; a missing one is an error that names it."""
    if not isinstance(value, str):
        return value

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name not in os.environ:
            raise ConfigError(f"the profile's {key} needs the environment variable {name}, which is not set")
        return os.environ[name]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", replace, value)
