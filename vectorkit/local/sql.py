"""Opening SQLite the way the engine needs it, and its errors as vectorkit's."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from vectorkit.errors import Closed, Corrupt, Unavailable, VectorkitError

_SHARED_MEMORY = {sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP}


def connect(path: Path, *, read_only: bool, cache_mb: int = 8) -> sqlite3.Connection:
    """An autocommit connection: WAL and synchronous=FULL for the writer, query-only for readers."""
    mode = "ro" if read_only else "rwc"
    extra = ""
    if read_only and _is_read_only_medium(path.parent) and not path.with_name(path.name + "-wal").exists():
        extra = "&immutable=1"  # nobody can write here, and SQLite could not make its shared-memory file
    uri = f"file:{quote(str(path))}?mode={mode}{extra}"
    connection = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cache_size=%d" % -(cache_mb * 1024))  # noqa: UP031 - PRAGMA takes no bound value; an int
        if not read_only:
            connection.execute("PRAGMA page_size=16384")  # counts at creation only: rows carry kilobytes of vector
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_autocheckpoint=4000")  # 64 MiB
    except BaseException:
        connection.close()
        raise
    return connection


def _is_read_only_medium(folder: Path) -> bool:
    """A directory that merely this user may not write is not one: its writer would go unseen."""
    if not hasattr(os, "statvfs"):
        return False
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def settle(connection: sqlite3.Connection) -> None:
    """End a transaction that a Ctrl-C left open between its beginning and the block that would have ended it."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def annul(connection: sqlite3.Connection) -> None:
    """After a commit that failed: its frames may stand whole in the log, and the next recovery would take them for committed.
    Writing anything over them breaks their chain of checksums (https://www.sqlite.org/walformat.html), whether or not it commits."""
    with suppress(sqlite3.Error):
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()  # ours to use, and means nothing
        connection.execute("PRAGMA user_version=%d" % ((version + 1) % 2**31))  # noqa: UP031 - takes no bound value; an int
        connection.execute("COMMIT")
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


@contextmanager
def typed(shown: str) -> Iterator[None]:
    """SQLite's errors as ours: a full disk is Unavailable, a malformed file Corrupt."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, shown) from error
    except UnicodeDecodeError as error:  # a text, or SQLite's own message that quotes one
        raise Corrupt(f"{shown}: the database is damaged ({error}); restore the directory from a backup") from error


def translate(error: sqlite3.Error, shown: str) -> VectorkitError:
    """One table of SQLite's errors (https://www.sqlite.org/rescode.html)."""
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if extended in _SHARED_MEMORY:
        return Unavailable(
            f"{shown}: the database's shared-memory file cannot be made ({error}); if the disk is full, free some space "
            "and try again"
        )
    match code:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_FORMAT:
            return Corrupt(f"{shown}: the database is damaged ({error}); restore the directory from a backup")
        case sqlite3.SQLITE_FULL:
            return Unavailable(
                f"{shown}: the disk is full; nothing of this write was kept. Free some space and try again"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable(f"{shown}: the database is busy; try again")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return Unavailable(f"{shown}: the database cannot be read or written ({error})")
        case _ if isinstance(error, sqlite3.ProgrammingError):
            return Closed(f"{shown}: the handle was closed")
        case _ if "malformed" in str(error) or "Could not decode" in str(error):
            return Corrupt(f"{shown}: the database is damaged ({error}); restore the directory from a backup")
        case _:
            return Unavailable(f"{shown}: {error}")
