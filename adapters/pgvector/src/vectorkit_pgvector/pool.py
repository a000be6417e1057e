"""Connections of either colour from psycopg's pool: bounded in time, looked at before use, and their errors in our words.

A lease costs no round trip: a connection that the server has ended has something to read, which a glance at its socket shows.
"""

import os
import select
import threading
from collections.abc import Mapping
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg import errors as pg
from psycopg.adapt import Dumper
from psycopg.pq import ConnStatus, Format
from psycopg.types.string import TextBinaryLoader
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolClosed, PoolTimeout

from vectorkit.adapter import Target
from vectorkit.errors import (
    Ambiguous,
    Closed,
    ConfigError,
    Corrupt,
    DeadlineExceeded,
    InvalidRecord,
    NotFound,
    Unavailable,
    Unsupported,
    VectorkitError,
)
from vectorkit.runtime import Runtime
from vectorkit_pgvector.convert import WIRES
from vectorkit_pgvector.options import PgvectorOptions

PARAMETERS = frozenset(
    {
        "application_name", "channel_binding", "host", "hostaddr", "require_auth", "sslcert", "sslcrl", "sslkey", "sslmode",
        "sslnegotiation", "sslrootcert", "target_session_attrs",
    }
)  # fmt: skip


SOON = 0.3  # seconds in which a connection comes if the server is there


class _Bounded(psycopg.Connection[Any]):
    """A connection whose waits end at `until`, whatever the server does; it is closed then, being in the middle of something."""

    until: float | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if self.until is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, max(0.0, self.until - monotonic()))
        except pg._WaitTimeout as error:  # noqa: SLF001 - psycopg's own, and it has no public name
            self.pgconn.finish()
            raise DeadlineExceeded("PostgreSQL did not answer in time; a write may have landed") from error

    def __del__(self, _: Any = None) -> None:
        # A Ctrl-C can fall between two bytecodes of a lease: what was taken and not given back goes back as broken.
        pool: Any = getattr(self, "_pool", None)
        if pool is not None and not pool.closed:
            self.pgconn.finish()
            pool.putconn(self)


class _BoundedAsync(psycopg.AsyncConnection[Any]):
    """The same for an event loop."""

    until: float | None = None

    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg's
        if self.until is None:
            return await super().wait(gen, interval, timeout)
        try:
            return await super().wait(gen, interval, max(0.0, self.until - monotonic()))
        except pg._WaitTimeout as error:  # noqa: SLF001
            self.pgconn.finish()
            raise DeadlineExceeded("PostgreSQL did not answer in time; a write may have landed") from error


class Pool:
    """Where connections come from. Raises Closed once closed, and in a process forked from the one that opened it."""

    def __init__(self, target: Target, options: PgvectorOptions, runtime: Runtime) -> None:
        self.shown = target.shown
        self._options = options
        self._runtime = runtime
        self._target = target
        self._settings = _settings(target, options)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._out: WeakSet[Any] = WeakSet()  # connections that calls have now
        self.native = self._made()

    def _made(self) -> "ConnectionPool[Any] | AsyncConnectionPool[Any]":
        options: dict[str, Any] = {
            "kwargs": self._settings,
            "min_size": 0,
            "max_size": self._options.pool_size,
            "timeout": self._options.connect_timeout,
            "num_workers": 2,
            "reconnect_timeout": 0.2,  # its own patience would be a backoff that outlasts the server's return
            "open": False,
        }
        if self._runtime.colour == "sync":
            return ConnectionPool(connection_class=_Bounded, configure=_prepare, **options)
        return AsyncConnectionPool(connection_class=_BoundedAsync, configure=_prepare_async, **options)

    async def open(self) -> None:
        """Connect once by hand, so that what is wrong is told at once and in its own words; then open the pool."""
        if not await self._reachable(int(self._options.connect_timeout)):
            raise Unavailable(f"{self.shown}: the server does not answer within {self._options.connect_timeout:.3g} s")
        await self._runtime.call(self.native.open)

    def deadline(self) -> float | None:
        """When a call that begins now has to end, by the options' timeout."""
        return None if self._options.timeout is None else monotonic() + self._options.timeout

    def lease(self, until: float | None, *, own: bool = False) -> "_Lease":
        """`async with pool.lease(pool.deadline()) as connection`; own: a new connection that nothing bounds, closed at the end."""
        if self._closed:
            raise Closed(f"{self.shown} was closed; connect again")
        if os.getpid() != self._pid:
            raise Closed(f"{self.shown} was opened before this process was forked; connect again in the child")
        return _Lease(self, until, own=own)

    async def make(self) -> Any:
        """A connection outside the pool, for what may take its time."""
        kept = {name: value for name, value in self._settings.items() if name != "options"}
        kind: Any = _Bounded if self._runtime.colour == "sync" else _BoundedAsync
        conn = await self._runtime.call(kind.connect, options=_session(self._target, None), **kept)
        _prepare(conn)
        return conn

    async def take(self, until: float | None) -> Any:
        """A living connection. Raises Unavailable, or DeadlineExceeded where it is `until` that came too soon."""
        patience = self._options.connect_timeout
        if until is not None:
            patience = max(0.0, min(until - monotonic(), patience))
        end = monotonic() + patience
        while True:
            conn = await self._next(end, patience)
            if not _ended(conn):
                conn.until = until
                self._out.add(conn)
                return conn
            await self.give(conn)

    async def give(self, conn: Any) -> None:
        """Give a connection back, broken or not."""
        self._out.discard(conn)
        broken = conn.pgconn.status != ConnStatus.OK
        # To the end: a cancel in the middle would leave it neither in the pool nor with who waits for it.
        await self._runtime.finish(self._runtime.call(conn._pool.putconn, conn))  # noqa: SLF001 - of the pool it came from
        if broken:  # nobody gets it again: see _Bounded.__del__
            conn._pool = None  # noqa: SLF001

    async def _next(self, end: float, patience: float) -> Any:
        """What the pool has or makes. Where none lives and none comes soon, one is tried for by hand: its error says what is wrong."""
        pool = self.native
        for turn in count():
            left = max(0.0, end - monotonic())
            alive = bool(self._out) or pool.get_stats()["pool_available"] > 0
            try:
                # In one wait where connections live, since who waits again waits behind all others.
                return await self._runtime.call(pool.getconn, left if alive else min(SOON, left))
            except PoolTimeout as error:
                if monotonic() >= end:
                    raise self._none_came(patience) from error
                whole = int(end - monotonic())  # libpq waits for whole seconds, and two at least
                if whole >= 2 and not self._out:
                    if not await self._reachable(whole):
                        raise self._none_came(patience) from error
                    if (
                        turn
                    ):  # the server is there, and the pool makes no connection: a Ctrl-C inside it has lost its count
                        pool = await self._renewed(pool)
            except PoolClosed as error:
                if self._closed or pool is self.native:
                    raise Closed(f"{self.shown} was closed; connect again") from error
                pool = self.native
        raise AssertionError("the loop has no end of its own")

    async def _renewed(self, old: Any) -> Any:
        """A new pool in place of one that lost its connections."""
        made = self._made()
        with self._lock:
            if self.native is not old:
                return self.native
            self.native = made
        await self._runtime.call(made.open)
        await self._runtime.call(old.close)
        return made

    async def _reachable(self, seconds: int) -> bool:
        """Whether a connection can be made by hand; False when nothing answers. Raises what else is wrong."""
        kind: Any = _Bounded if self._runtime.colour == "sync" else _BoundedAsync
        try:
            conn = await self._runtime.call(kind.connect, **{**self._settings, "connect_timeout": max(2, seconds)})
        except pg.ConnectionTimeout:
            return False
        except psycopg.Error as error:
            raise translated(error, self.shown) from error
        await self._runtime.call(conn.close)
        return True

    def _none_came(self, patience: float) -> VectorkitError:
        busy = f"all {self._options.pool_size} are busy, or the server does not answer"
        told = f"{self.shown}: no connection within {patience:.3g} s; {busy}"
        if self._options.timeout is not None and patience < self._options.connect_timeout:
            return DeadlineExceeded(told)
        return Unavailable(told)

    async def close(self) -> None:
        """Close every connection and end the pool's threads or tasks. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() == self._pid:
            await self._runtime.call(self.native.close)


class _Lease:
    """A connection taken from the pool and given back, whatever happened."""

    __slots__ = ("_home", "_own", "_until", "conn")

    def __init__(self, home: Pool, until: float | None, *, own: bool) -> None:
        self._home = home
        self._until = until
        self._own = own
        self.conn: Any = None

    async def __aenter__(self) -> Any:
        self.conn = await (self._home.make() if self._own else self._home.take(self._until))
        return self.conn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        # A Ctrl-C or a cancel leaves psycopg and the server in doubt about what was prepared: such a connection is not used again.
        if (error is not None and not isinstance(error, Exception)) or isinstance(error, pg.InvalidSqlStatementName):
            self.conn.pgconn.finish()
        if self._own:
            self.conn.pgconn.finish()
        else:
            await self._home.give(self.conn)


def _ended(conn: Any) -> bool:
    """Whether the server has hung up on an idle connection: then there is something to read. It is closed here."""
    pgconn = conn.pgconn
    try:
        for _ in range(3):  # a farewell, then the end of the stream
            if not _readable(pgconn.socket):
                break
            pgconn.consume_input()
    except (psycopg.Error, OSError):
        pass
    else:
        if pgconn.status == ConnStatus.OK:
            return False
    pgconn.finish()
    return True


def _readable(socket: int) -> bool:
    if not hasattr(select, "poll"):  # Windows, whose select() knows no limit of 1,024
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


class _WireDumper(Dumper):
    """Bytes that are in PostgreSQL's form already."""

    format = Format.BINARY

    def dump(self, obj: Any) -> Any:
        return bytes(obj)


_DUMPERS = [(wire, type(f"_{wire.__name__}Dumper", (_WireDumper,), {"oid": wire.oid})) for wire in WIRES]


def _prepare(conn: psycopg.Connection[Any]) -> None:
    for wire, dumper in _DUMPERS:
        conn.adapters.register_dumper(wire, dumper)
    conn.adapters.register_loader("json", TextBinaryLoader)  # the document as text: json.loads would lose 1.0 and -0.0


async def _prepare_async(conn: psycopg.AsyncConnection[Any]) -> None:
    _prepare(conn)  # type: ignore[arg-type]  # both have `adapters`


def _settings(target: Target, options: PgvectorOptions) -> dict[str, Any]:
    """What psycopg connects with. The password goes nowhere else."""
    settings: dict[str, Any] = {
        "host": target.host,
        "port": target.port,
        "user": target.user,
        "password": target.secret,
        "dbname": target.path.strip("/"),
        "application_name": "vectorkit",
        **target.parameters,
    }
    kept = {name: value for name, value in settings.items() if value not in {"", None}}
    waits = max(1, int(options.connect_timeout))
    return {
        **kept,
        "options": _session(target, options.timeout),
        "client_encoding": "UTF8",
        "connect_timeout": waits,
        "autocommit": True,
    }


def _session(target: Target, timeout: float | None) -> str:
    # Plans are made for the values at hand: a generic one is 30 to 150 times slower where a filter is narrow.
    session = ["plan_cache_mode=force_custom_plan", "search_path=pg_catalog"]
    if target.read_only:
        session.append("default_transaction_read_only=on")
    if timeout is not None:  # the server stops working on what nobody waits for
        session.append(f"statement_timeout={int(timeout * 1_000) + 1_000}")
    return " ".join(f"-c {item}" for item in session)


# --------------------------------------------------------------------------------------------- errors

# libpq's own words where no server was reached to give a code
_OF_SETTINGS = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "invalid sslmode",
    "invalid value for",
)
_ADVICE: Mapping[str, str] = {
    "53100": "the server's disk is full",
    "53300": "the server has no connection left; lower pool_size or raise max_connections",
}


def lost(error: psycopg.Error) -> bool:
    """Whether the connection ended under the statement, so that nobody knows what became of it."""
    state = error.sqlstate or ""
    return isinstance(error, psycopg.OperationalError) and (not state or state.startswith(("08", "57P")))


def undone(error: psycopg.Error) -> bool:
    """Whether nothing of it was applied: ended by the server to solve a deadlock, or unknown to a connection that forgot it."""
    return isinstance(error, pg.DeadlockDetected | pg.SerializationFailure | pg.InvalidSqlStatementName)


def translated(error: psycopg.Error, shown: str, *, inserting: bool = False) -> VectorkitError:
    """The error in our words, for `raise … from`; `inserting`: a lost reply leaves it open whether rows are there."""
    state = error.sqlstate or ""
    told = str(error.diag.message_primary or error).strip().partition("\n")[0]
    message = f"{shown}: {told}"
    match error:
        case pg.UndefinedTable() | pg.InvalidSchemaName():
            return NotFound(f"{message} (the collection was dropped)")
        case pg.InvalidPassword() | pg.InvalidAuthorizationSpecification() | pg.InvalidCatalogName():
            return ConfigError(message)
        case pg.InsufficientPrivilege():
            return ConfigError(f"{message}; this role needs rights on the schema and its tables")
        case pg.ReadOnlySqlTransaction():
            return Unsupported(
                f"{message}; connect without read_only=True, and to a server that is no replica, to write"
            )
        case pg.QueryCanceled():
            return DeadlineExceeded(message)
        case pg.ProgramLimitExceeded():
            return InvalidRecord(f"{message}; a row is too large for PostgreSQL or one of its indexes")
        case _ if state.startswith(("XX001", "XX002")):
            return Corrupt(f"{message}; restore the database from a backup, or REINDEX if it is an index")
    if lost(error):
        if inserting:
            return Ambiguous(f"{message}; the reply was lost, and the rows of this insert may or may not be there")
        if any(sign in told for sign in _OF_SETTINGS):
            return ConfigError(message)
        return Unavailable(message)
    if isinstance(error, psycopg.OperationalError) or state[:2] in {"40", "53", "55", "57"}:
        return Unavailable(f"{message}{'; ' + _ADVICE[state] if state in _ADVICE else ''}")
    return VectorkitError(message)
