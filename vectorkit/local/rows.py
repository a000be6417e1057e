"""The truth of one collection: a SQLite database of rows, their vectors, their keyword index and a journal of changes.

Statements are constants and every key and value is bound. One writer; readers each take a connection from a pool. Each row
carries a checksum and the state their sum, so that a database without a clean seal can be checked against itself.
"""

import json
import secrets
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

from vectorkit.errors import Closed, Corrupt, VectorkitError
from vectorkit.local.seal import Seal, Sealed, attach, detach
from vectorkit.local.sql import annul, connect, settle, translate, typed
from vectorkit.types import CollectionSpec
from vectorkit.words import ADD_WORDS, CREATE_WORDS_OVER_TEXTS

_SCHEMA = """
    CREATE TABLE rows(
        rid INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL,
        id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        sum INTEGER NOT NULL,
        metadata TEXT,
        text TEXT,
        vector BLOB NOT NULL);
    CREATE UNIQUE INDEX rows_key ON rows(tenant, id);
    CREATE VIEW texts AS SELECT rid, text FROM rows WHERE text IS NOT NULL;
    CREATE TABLE state(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE journal(seq INTEGER NOT NULL, rid INTEGER NOT NULL);
    CREATE INDEX journal_seq ON journal(seq);
"""
State = dict[str, str | int]
# No triggers keep the keyword index: trusted_schema=OFF, which a file from elsewhere deserves, forbids them to reach it.
_REMOVE_WORDS = (
    "INSERT INTO words(words, rowid, text) SELECT 'delete', rid, text FROM rows WHERE rid = ? AND text IS NOT NULL"
)
_INSERT = (
    "INSERT INTO rows(rid, tenant, id, seq, expires, sum, metadata, text, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SUMS = "SELECT count(*), coalesce(sum(sum), 0) FROM rows WHERE rid IN (SELECT value FROM json_each(?))"
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
_EVERY = "SELECT rid, tenant, id, seq, expires, sum, metadata, text, vector FROM rows"
_LOAD = "SELECT rid, id, expires, vector, metadata, text IS NOT NULL OR metadata IS NOT NULL FROM rows WHERE rid > ? ORDER BY rid"


def create_rows(path: Path, spec: CollectionSpec) -> None:
    """Make a new database for a collection."""
    connection = connect(path, read_only=False)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        if spec.text:
            connection.execute(CREATE_WORDS_OVER_TEXTS)
        state: State = {
            "uid": secrets.token_hex(16),
            "seq": 0,
            "rid": 0,
            "epoch": 0,
            "rows": 0,
            "sum": 0,
            "generation": "",
            "spec": json.dumps(spec.to_json()),
        }
        connection.executemany("INSERT INTO state VALUES (?, ?)", [*state.items(), ("check", check_of(state))])
        connection.execute("COMMIT")
    finally:
        connection.close()


def head_sum(rid: int, tenant: str, id: str, seq: int, expires: int, metadata: str | None, text: str | None) -> int:
    """CRC-32 of all of a row but its vector."""
    return crc32(f"{rid}\x1f{seq}\x1f{expires}\x1f{tenant}\x1f{id}\x1f{metadata}\x1f{text}".encode())


def check_of(state: "State") -> int:
    """CRC-32 of the state's other entries."""
    return crc32("\x1f".join(f"{key}={state[key]}" for key in sorted(state) if key != "check").encode())


def respecify(path: Path, spec: CollectionSpec) -> None:
    """Put another spec into a closed database, and seal it again."""
    connection = connect(path, read_only=False)
    try:
        state = read_state(connection, spec.name)
        state["spec"] = json.dumps(spec.to_json())
        state["check"] = check_of(state)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("UPDATE state SET value = ? WHERE key = ?", [(state[k], k) for k in ("spec", "check")])
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.close()
    Seal(path).close(str(state["uid"]), int(state["seq"]))


def has_writes(path: Path) -> bool:
    """Whether a database holds acknowledged writes, as far as can be told without changing it."""
    if not path.is_file():
        return False
    try:
        connection = connect(path, read_only=True)
        try:
            return int(read_state(connection, "")["seq"]) > 0
        finally:
            connection.close()
    except (sqlite3.Error, VectorkitError):
        return Seal(path).read() is not None


def read_state(connection: sqlite3.Connection, shown: str) -> State:
    """The state, checked against itself. Corrupt."""
    state: State = dict(connection.execute("SELECT key, value FROM state").fetchall())
    try:
        whole = state.pop("check") == check_of(state)
        for key in ("seq", "rid", "epoch", "rows", "sum"):
            state[key] = int(state[key])
        str(state["uid"]), str(state["generation"])
    except (KeyError, ValueError, TypeError):
        whole = False
    if not whole:
        raise Corrupt(f"{shown}: the database's state is damaged; restore the directory from a backup")
    state["check"] = check_of(state)
    return state


def verify(connection: sqlite3.Connection, shown: str, dimension: int, *, text: bool, writable: bool) -> None:
    """Read a whole database that no seal vouches for: its pages, every row's checksum, their sum, the keyword index.

    Indexes are derived and are made again where they are damaged; damage to a row is Corrupt. 7 to 20 µs a row.
    """
    found = [line for (line,) in connection.execute("PRAGMA integrity_check(20)")]
    if found != ["ok"] and writable and all("rows_key" in line or "journal_seq" in line for line in found):
        connection.execute("REINDEX")
        found = [line for (line,) in connection.execute("PRAGMA integrity_check(20)")]
    if found != ["ok"] and not all("words" in line for line in found):
        raise Corrupt(f"{shown}: the database is damaged ({found[0]}); restore the directory from a backup")
    connection.execute("BEGIN")
    try:
        state = read_state(connection, shown)
        count = total = 0
        width = 4 * dimension
        for rid, tenant, id, seq, expires, kept, metadata, row_text, vector in connection.execute(_EVERY):  # noqa: A001
            if type(vector) is not bytes or len(vector) != width:
                raise Corrupt(f"{shown}: row {rid} holds no vector of {dimension}; restore the directory from a backup")
            if kept != head_sum(rid, tenant, id, seq, expires, metadata, row_text) ^ crc32(vector):
                raise Corrupt(
                    f"{shown}: row {rid} ({id!r}) is not what was written; restore the directory from a backup"
                )
            count += 1
            total += kept
        if (count, total) != (state["rows"], state["sum"]):
            raise Corrupt(
                f"{shown}: {count} rows are there, {state['rows']} were written; restore the directory from a backup"
            )
    finally:
        connection.execute("ROLLBACK")
    if text and writable:
        try:
            connection.execute("INSERT INTO words(words, rank) VALUES ('integrity-check', 1)")
        except sqlite3.DatabaseError:
            rebuild_words(connection)


def rebuild_words(connection: sqlite3.Connection) -> None:
    """Make the keyword index again from the texts, whatever is left of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("DROP TABLE words")
        connection.execute(CREATE_WORDS_OVER_TEXTS)
        connection.execute("INSERT INTO words(words) VALUES ('rebuild')")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


@lru_cache(maxsize=256)
def _with_marks(statement: str, count: int) -> str:
    """The statement with `count` bound places in its IN list."""
    return statement.replace("IN (?)", "IN (" + ",".join("?" * count) + ")")


class Rows:
    """An open rows.db. Raises Corrupt, Unavailable, Closed."""

    def __init__(self, path: Path, *, read_only: bool, shown: str, cache_mb: int, text: bool, dimension: int) -> None:
        self.path = path
        self.text = text
        self.shown = shown
        self.read_only = read_only
        self._readers: deque[sqlite3.Connection] = deque()
        self._lent: deque[None] = deque()
        self._closed = False
        self._inside = False
        self._seal = Seal(path)
        with typed(shown):
            if not path.is_file():
                raise Corrupt(f"{shown}: {path.name} is missing; restore the directory from a backup")
            self._attached: tuple[int, int] | None = attach(path)
            try:
                sealed = self._seal.read()
                proven = self._seal.proves(sealed)
                self.writer = connect(path, read_only=read_only, cache_mb=cache_mb)
                try:
                    self._read_state()
                    self._sealed = proven and not read_only
                    if not proven:
                        self._verify(sealed, dimension)
                except BaseException:
                    self.writer.close()
                    raise
            except BaseException:
                self._seal.release()
                self._detach()
                raise

    def _verify(self, sealed: Sealed | None, dimension: int) -> None:
        if sealed is not None and sealed.uid == self.state["uid"] and sealed.seq > self.seq:
            if self.read_only:  # a writer may have committed since the state was read
                self._read_state()
            if sealed.seq > self.seq:
                raise Corrupt(
                    f"{self.shown}: {self.path.name} and its log end at write {self.seq}, {sealed.seq} were acknowledged; "
                    f"restore the directory from a backup, or remove {self._seal.path.name} to go on with what is there"
                )
        if self.read_only and sealed is not None and sealed.sha256 is not None and sealed == self._seal.read():
            raise Corrupt(
                f"{self.shown}: {self.path.name} is not the file that was closed; connect once for writing, which checks "
                "it row by row, or restore the directory from a backup"
            )
        if not self.read_only:
            self._seal.unseal(str(self.state["uid"]), self.seq)
        verify(self.writer, self.shown, dimension, text=self.text, writable=not self.read_only)

    def _detach(self) -> None:
        key, self._attached = self._attached, None
        if key is not None:
            detach(key)

    def _unseal(self) -> None:
        """Before the first frame of a change can be written: from now on the file may differ from its digest."""
        if self._sealed:
            self._seal.unseal(str(self.state["uid"]), self.seq)
            self._sealed = False

    def _read_state(self) -> None:
        try:
            self.state = read_state(self.writer, self.shown)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                raise Corrupt(f"{self.shown}: the database is empty; restore the directory from a backup") from error
            raise

    @property
    def seq(self) -> int:
        """Number of the last write."""
        return int(self.state["seq"])

    @property
    def rid(self) -> int:
        """The last row id given."""
        return int(self.state["rid"])

    @property
    def epoch(self) -> int:
        """Rises whenever the journal loses entries."""
        return int(self.state["epoch"])

    def next_seq(self) -> int:
        """Inside a transaction: number this write."""
        self.state["seq"] = self.seq + 1
        return self.seq

    # ------------------------------------------------------------------------------------- readers

    def _take(self) -> sqlite3.Connection:
        self._lent.append(None)
        try:
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self._opened()
            settle(connection)
        except BaseException:
            self._back()
            raise
        return connection

    def _opened(self) -> sqlite3.Connection:
        if self._closed:
            raise Closed(f"{self.shown}: the handle was closed")
        with typed(self.shown):
            return connect(self.path, read_only=True)

    def _give(self, connection: sqlite3.Connection) -> None:
        if self._closed:
            connection.close()
        else:
            self._readers.append(connection)
        self._back()

    def _back(self) -> None:
        self._lent.pop()
        if self._closed and not self._lent:
            while self._readers:
                self._readers.pop().close()
            self._detach()

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
        before = dict(self.state)
        with typed(self.shown):
            if self._inside:
                raise VectorkitError(f"{self.shown}: a transaction inside a transaction")
            settle(self.writer)
            self._inside = True
            failing = False
            try:
                self._unseal()
                self.writer.execute("BEGIN IMMEDIATE")
                yield self.writer
                if self.state != before:
                    self.state["check"] = check_of(self.state)
                    changed = [(value, key) for key, value in self.state.items() if value != before[key]]
                    self.writer.executemany("UPDATE state SET value = ? WHERE key = ?", changed)
                failing = True
                self.writer.execute("COMMIT")
                failing = False
                self._seal.note(str(self.state["uid"]), self.seq)
            except BaseException:
                self.state = before
                if self.writer.in_transaction:
                    self.writer.execute("ROLLBACK")
                else:  # Ctrl-C between the commit and here: the database knows
                    self._read_state()
                if failing:
                    annul(self.writer)
                raise
            finally:
                self._inside = False

    def find(self, tenant: str, ids: Sequence[str]) -> list[tuple[int, str, int]]:
        """(rid, id, expires) of the rows that are there, inside a transaction."""
        return self.writer.execute(_FIND, (tenant, json.dumps(ids))).fetchall()

    def add(self, rows: Sequence[tuple[Any, ...]], words: Iterable[tuple[int, str]]) -> None:
        """Insert (rid, tenant, id, seq, expires, sum, metadata, text, vector), then (rid, text) into the keyword index.

        sqlite3.IntegrityError when a key is there; nothing is counted then.
        """
        self.writer.executemany(_INSERT, rows)
        if self.text:
            self.writer.executemany(ADD_WORDS, words)
        if rows:
            self.state["rid"] = rows[-1][0]
            self._count(len(rows), sum(row[5] for row in rows))

    def _count(self, rows: int, total: int) -> None:
        self.state["rows"] = int(self.state["rows"]) + rows
        self.state["sum"] = int(self.state["sum"]) + total

    def remove(self, rids: Sequence[int]) -> None:
        """Delete rows that are there, with their words, and journal it."""
        count, total = self.writer.execute(_SUMS, (json.dumps(rids),)).fetchone()
        self._count(-count, -int(total))
        if self.text:
            self.writer.executemany(_REMOVE_WORDS, [(rid,) for rid in rids])
        self.writer.executemany("DELETE FROM rows WHERE rid = ?", [(rid,) for rid in rids])
        self.journal(rids)

    def change(
        self, tenant: str, rows: Sequence[tuple[int, str, int, int, str | None, str | None, int, str | None]]
    ) -> None:
        """Give rows other metadata: (rid, id, seq, expires, metadata, text, sum, new metadata); and journal it."""
        changed = []
        for rid, id, seq, expires, metadata, text, total, new in rows:  # noqa: A001
            after = total ^ head_sum(rid, tenant, id, seq, expires, metadata, text)
            after ^= head_sum(rid, tenant, id, self.seq, expires, new, text)
            self._count(0, after - total)
            changed.append((new, self.seq, after, rid))
        self.writer.executemany("UPDATE rows SET metadata = ?, seq = ?, sum = ? WHERE rid = ?", changed)
        self.journal([row[0] for row in rows])

    def journal(self, rids: Sequence[int]) -> None:
        """Note rows that were deleted or changed, so that readers in other processes catch up."""
        self.writer.executemany("INSERT INTO journal VALUES (?, ?)", [(self.seq, rid) for rid in rids])

    def fold(self, generation: str, seq: int) -> None:
        """Inside a transaction: from now on the journal begins at this generation, made from the rows as of `seq`."""
        self.state["epoch"] = self.epoch + 1
        self.state["generation"] = generation
        self.writer.execute("DELETE FROM journal WHERE seq <= ?", (seq,))

    def tidy(self) -> None:
        """Merge the keyword index's segments and fold the write-ahead log into the database."""
        with typed(self.shown):
            self._unseal()
            if self.text:
                self.writer.execute("INSERT INTO words(words) VALUES ('optimize')")
            self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.writer.execute("PRAGMA optimize")

    def bytes(self) -> int:
        """Size of the database and its log on disk."""
        names = (self.path, self.path.with_name(self.path.name + "-wal"))
        total = 0
        for path in names:
            with suppress(FileNotFoundError):  # dropped, or folded in, just now
                total += path.stat().st_size
        return total

    def close(self) -> None:
        """Close every connection that is not in use; those close as they come back."""
        self._closed = True
        while self._readers:
            self._readers.pop().close()
        self._finish()

    def _finish(self) -> None:
        try:
            if not self._sealed and not self.read_only:
                with suppress(sqlite3.Error):
                    self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self.writer.close()
        if self._lent:  # a read is under way still; the last to come back lets go of the file
            self._seal.release()
            return
        if self._sealed or self.read_only or not self._folded():
            self._seal.release()
        else:
            self._seal.close(str(self.state["uid"]), self.seq)
            self._sealed = True
        self._detach()

    def _folded(self) -> bool:
        log = self.path.with_name(self.path.name + "-wal")
        try:
            return not log.exists() or not log.stat().st_size
        except OSError:
            return False
