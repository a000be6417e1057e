"""The truth of one collection: a SQLite database of rows, their vectors, their keyword index and a journal of changes.

Statements are constants and every key and value is bound. One writer; readers each take a connection from a pool.
"""

import json
import secrets
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from vectorkit.errors import Closed, Corrupt, VectorkitError
from vectorkit.local.sql import connect, settle, translate, typed
from vectorkit.types import CollectionSpec
from vectorkit.words import ADD_WORDS, CREATE_WORDS_OVER_ROWS

_SCHEMA = """
    CREATE TABLE rows(
        rid INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL,
        id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        metadata TEXT,
        text TEXT,
        vector BLOB NOT NULL);
    CREATE UNIQUE INDEX rows_key ON rows(tenant, id);
    CREATE TABLE state(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE journal(seq INTEGER NOT NULL, rid INTEGER NOT NULL);
    CREATE INDEX journal_seq ON journal(seq);
"""
# No triggers keep the keyword index: trusted_schema=OFF, which a file from elsewhere deserves, forbids them to reach it.
_REMOVE_WORDS = (
    "INSERT INTO words(words, rowid, text) SELECT 'delete', rid, text FROM rows WHERE rid = ? AND text IS NOT NULL"
)
_INSERT = "INSERT INTO rows(rid, tenant, id, seq, expires, metadata, text, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_FIND = "SELECT rid, id, expires FROM rows WHERE tenant = ? AND id IN (SELECT value FROM json_each(?))"
_GET = (
    "SELECT id, metadata, text, expires, vector FROM rows WHERE tenant = ? AND id IN (SELECT value FROM json_each(?))"
)
_PAYLOAD = "SELECT rid, id, seq, metadata, text FROM rows WHERE rid IN (?)"
_PAYLOAD_VECTORS = "SELECT rid, id, seq, metadata, text, vector FROM rows WHERE rid IN (?)"
_PAGE = "SELECT rid, id, metadata, text, expires FROM rows WHERE tenant = ? AND id > ? ORDER BY id LIMIT ?"
_PAGE_VECTORS = (
    "SELECT rid, id, metadata, text, expires, vector FROM rows WHERE tenant = ? AND id > ? ORDER BY id LIMIT ?"
)
_LOAD = "SELECT rid, id, expires, vector, metadata, text IS NOT NULL OR metadata IS NOT NULL FROM rows WHERE rid > ? ORDER BY rid"


def create_rows(path: Path, spec: CollectionSpec) -> None:
    """Make a new database for a collection."""
    connection = connect(path, read_only=False)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        if spec.text:
            connection.execute(CREATE_WORDS_OVER_ROWS)
        connection.executemany(
            "INSERT INTO state VALUES (?, ?)",
            [
                ("uid", secrets.token_hex(16)),
                ("seq", 0),
                ("rid", 0),
                ("epoch", 0),
                ("spec", json.dumps(spec.to_json())),
            ],
        )
        connection.execute("COMMIT")
    finally:
        connection.close()


@lru_cache(maxsize=256)
def _with_marks(statement: str, count: int) -> str:
    """The statement with `count` bound places in its IN list."""
    return statement.replace("IN (?)", "IN (" + ",".join("?" * count) + ")")


class Rows:
    """An open rows.db. Raises Corrupt, Unavailable, Closed."""

    def __init__(self, path: Path, *, read_only: bool, shown: str, cache_mb: int, text: bool) -> None:
        self.path = path
        self.text = text
        self.shown = shown
        self.read_only = read_only
        self._readers: deque[sqlite3.Connection] = deque()
        self._closed = False
        self._inside = False
        with typed(shown):
            if not path.is_file():
                raise Corrupt(f"{shown}: {path.name} is missing; restore the directory from a backup")
            self.writer = connect(path, read_only=read_only, cache_mb=cache_mb)
            try:
                self._read_state()
            except (KeyError, ValueError, TypeError) as error:
                self.writer.close()
                raise Corrupt(f"{shown}: the database's state is damaged ({error}); restore from a backup") from error
            except BaseException:
                self.writer.close()
                raise

    def _read_state(self) -> None:
        state = dict(self.writer.execute("SELECT key, value FROM state").fetchall())
        self.seq, self.rid, self.epoch = (int(state[key]) for key in ("seq", "rid", "epoch"))
        self.uid = str(state["uid"])

    # ------------------------------------------------------------------------------------- readers

    def _take(self) -> sqlite3.Connection:
        try:
            connection = self._readers.pop()
        except IndexError:
            if self._closed:
                raise Closed(f"{self.shown}: the handle was closed") from None
            with typed(self.shown):
                return connect(self.path, read_only=True)
        settle(connection)
        return connection

    def _give(self, connection: sqlite3.Connection) -> None:
        if self._closed:
            connection.close()
        else:
            self._readers.append(connection)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A reader's connection, from the pool."""
        connection = self._take()
        try:
            with typed(self.shown):
                yield connection
        finally:
            self._give(connection)

    def payload(self, rids: Sequence[int], *, vectors: bool) -> dict[int, tuple[Any, ...]]:
        """{rid: (rid, id, seq, metadata, text[, vector])} of the rows that are there."""
        found: dict[int, tuple[Any, ...]] = {}
        statement = _PAYLOAD_VECTORS if vectors else _PAYLOAD
        connection = self._take()
        try:
            for start in range(0, len(rids), 500):
                part = rids[start : start + 500]
                for row in connection.execute(_with_marks(statement, len(part)), part):
                    found[row[0]] = row
        except sqlite3.Error as error:
            raise translate(error, self.shown) from error
        finally:
            self._give(connection)
        return found

    def get(self, tenant: str, ids: Sequence[str]) -> list[tuple[Any, ...]]:
        """(id, metadata, text, expires, vector) of the rows that are there."""
        with self.reading() as connection:
            return connection.execute(_GET, (tenant, json.dumps(ids))).fetchall()

    def page(self, tenant: str, after: str, limit: int, *, vectors: bool) -> list[tuple[Any, ...]]:
        """(rid, id, metadata, text, expires[, vector]) of the next rows by id."""
        with self.reading() as connection:
            return connection.execute(_PAGE_VECTORS if vectors else _PAGE, (tenant, after, limit)).fetchall()

    def load(self, after: int, connection: sqlite3.Connection) -> Iterator[list[tuple[Any, ...]]]:
        """(rid, id, expires, vector, metadata, has payload) of all rows beyond a rid, by rid, in runs of 10,000."""
        cursor = connection.execute(_LOAD, (after,))
        while rows := cursor.fetchmany(10_000):
            yield rows

    # ------------------------------------------------------------------------------------- the writer

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction of the writer; rolled back whole when the block raises."""
        before = self.seq, self.rid, self.epoch
        with typed(self.shown):
            if self._inside:
                raise VectorkitError(f"{self.shown}: a transaction inside a transaction")
            settle(self.writer)
            self._inside = True
            try:
                self.writer.execute("BEGIN IMMEDIATE")
                yield self.writer
                if (self.seq, self.rid) != before[:2]:
                    self.writer.executemany(
                        "UPDATE state SET value = ? WHERE key = ?", [(self.seq, "seq"), (self.rid, "rid")]
                    )
                self.writer.execute("COMMIT")
            except BaseException:
                self.seq, self.rid, self.epoch = before
                if self.writer.in_transaction:
                    self.writer.execute("ROLLBACK")
                else:  # Ctrl-C between the commit and here, or a failed commit: the database knows which
                    self._read_state()
                raise
            finally:
                self._inside = False

    def find(self, tenant: str, ids: Sequence[str]) -> list[tuple[int, str, int]]:
        """(rid, id, expires) of the rows that are there, inside a transaction."""
        return self.writer.execute(_FIND, (tenant, json.dumps(ids))).fetchall()

    def add(self, rows: Iterable[tuple[Any, ...]], words: Iterable[tuple[int, str]]) -> None:
        """Insert (rid, tenant, id, seq, expires, metadata, text, vector), then (rid, text) into the keyword index.

        sqlite3.IntegrityError when a key is there.
        """
        self.writer.executemany(_INSERT, rows)
        if self.text:
            self.writer.executemany(ADD_WORDS, words)

    def remove(self, rids: Sequence[int]) -> None:
        """Delete rows, with their words, and journal it."""
        if self.text:
            self.writer.executemany(_REMOVE_WORDS, [(rid,) for rid in rids])
        self.writer.executemany("DELETE FROM rows WHERE rid = ?", [(rid,) for rid in rids])
        self.journal(rids)

    def journal(self, rids: Sequence[int]) -> None:
        """Note rows that were deleted or changed, so that readers in other processes catch up."""
        self.writer.executemany("INSERT INTO journal VALUES (?, ?)", [(self.seq, rid) for rid in rids])

    def fold(self) -> None:
        """Inside a transaction: empty the journal, and tell other readers to load afresh."""
        self.epoch += 1
        self.writer.execute("DELETE FROM journal")
        self.writer.execute("UPDATE state SET value = ? WHERE key = 'epoch'", (self.epoch,))

    def tidy(self) -> None:
        """Merge the keyword index's segments and fold the write-ahead log into the database."""
        with typed(self.shown):
            if self.text:
                self.writer.execute("INSERT INTO words(words) VALUES ('optimize')")
            self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.writer.execute("PRAGMA optimize")

    def bytes(self) -> int:
        """Size of the database and its log on disk."""
        names = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(path.stat().st_size for path in names if path.exists())

    def close(self) -> None:
        """Close every connection that is not in use; those close as they come back."""
        self._closed = True
        while self._readers:
            self._readers.pop().close()
        self.writer.close()
