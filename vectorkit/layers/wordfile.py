"""The file of a keyword side-car: for each collection its texts, an FTS5 index over them, and marks of what may be behind the store.

One table a collection, because the scores of BM25 depend on all that an index holds.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vectorkit.errors import NotFound
from vectorkit.local.sql import annul, connect, settle, typed
from vectorkit.words import ADD_WORDS, CREATE_WORDS_OVER_TEXTS, REMOVE_WORDS, named, search

_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections(n INTEGER PRIMARY KEY, physical TEXT NOT NULL UNIQUE, whole INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS dirty(n INTEGER NOT NULL, id TEXT NOT NULL, PRIMARY KEY (n, id)) WITHOUT ROWID;
"""


def _of(statement: str, n: int) -> str:
    """A statement on the tables of collection n."""
    return statement.replace("#", str(n))


class WordFile:
    """The open file; every method is one transaction, on disk when it returns."""

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        self._lock = threading.RLock()
        self._numbers: dict[str, int] = {}
        self.behind: set[str] = set()
        """Collections whose words may be behind the store, by a crash or by a write that failed."""
        with typed(shown):
            self._connection = connect(path, read_only=False)
            self._connection.executescript(_SCHEMA)
        with self._reading() as connection:
            dirty = {n for (n,) in connection.execute("SELECT DISTINCT n FROM dirty")}
            for n, physical, whole in connection.execute("SELECT n, physical, whole FROM collections"):
                self._numbers[physical] = n
                if n in dirty or not whole:
                    self.behind.add(physical)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, typed(self._shown):
            settle(self._connection)
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; on disk when the block has ended."""
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                try:
                    connection.execute("COMMIT")
                except sqlite3.Error:
                    annul(connection)
                    raise
            finally:
                settle(connection)

    def _number(self, physical: str) -> int:
        n = self._numbers.get(physical)
        if n is None:
            raise NotFound(f"{self._shown} has no words of {physical.rpartition('@')[0]!r}")
        return n

    @property
    def known(self) -> list[str]:
        """The physical collections that are kept."""
        return list(self._numbers)

    def add(self, physical: str, *, whole: bool) -> None:
        """Know a collection. whole: it is empty; otherwise its rows are to be read before it can answer."""
        with self._lock:
            if physical in self._numbers:
                return
            with self._writing() as connection:
                added = "INSERT INTO collections(physical, whole) VALUES (?, ?)"
                n = connection.execute(added, (physical, whole)).lastrowid
                assert n is not None
                texts = "CREATE TABLE texts_#(rid INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL)"
                connection.execute(_of(texts, n))
                over = named(CREATE_WORDS_OVER_TEXTS, f"words_{n}").replace("content='texts'", f"content='texts_{n}'")
                connection.execute(over)
            self._numbers[physical] = n
            if not whole:
                self.behind.add(physical)

    def remove(self, physical: str) -> None:
        """Forget a collection and its words."""
        with self._lock:
            n = self._numbers.get(physical)
            if n is None:
                return
            with self._writing() as connection:
                for statement in ("DROP TABLE words_#", "DROP TABLE texts_#"):
                    connection.execute(_of(statement, n))
                connection.execute("DELETE FROM dirty WHERE n = ?", (n,))
                connection.execute("DELETE FROM collections WHERE n = ?", (n,))
            del self._numbers[physical]
            self.behind.discard(physical)

    def mark(self, physical: str, ids: Sequence[str] | None) -> None:
        """Note, on disk, that these ids (None: all) are about to change in the store."""
        n = self._number(physical)
        with self._writing() as connection:
            if ids is None:
                connection.execute("UPDATE collections SET whole = 0 WHERE n = ?", (n,))
            else:
                connection.executemany("INSERT OR IGNORE INTO dirty VALUES (?, ?)", [(n, id) for id in ids])  # noqa: A001

    def marked(self, physical: str) -> list[str] | None:
        """The ids whose words may be behind the store; None for all of them."""
        n = self._number(physical)
        with self._reading() as connection:
            (whole,) = connection.execute("SELECT whole FROM collections WHERE n = ?", (n,)).fetchone()
            return [id for (id,) in connection.execute("SELECT id FROM dirty WHERE n = ?", (n,))] if whole else None  # noqa: A001

    def put(self, physical: str, ids: Sequence[str], texts: dict[str, str]) -> None:
        """The texts that these ids have in the store now, and none for the others of them; they are no longer marked."""
        n = self._number(physical)
        given = json.dumps(list(ids))
        with self._writing() as connection:
            old = connection.execute(
                _of("SELECT rid, text FROM texts_# WHERE id IN (SELECT value FROM json_each(?))", n), (given,)
            ).fetchall()
            connection.executemany(named(REMOVE_WORDS, f"words_{n}"), old)
            connection.executemany(_of("DELETE FROM texts_# WHERE rid = ?", n), [(rid,) for rid, _ in old])
            (last,) = connection.execute(_of("SELECT coalesce(max(rid), 0) FROM texts_#", n)).fetchone()
            rows = [(rid, id, text) for rid, (id, text) in enumerate(texts.items(), last + 1)]  # noqa: A001
            connection.executemany(_of("INSERT INTO texts_# VALUES (?, ?, ?)", n), rows)
            connection.executemany(named(ADD_WORDS, f"words_{n}"), [(rid, text) for rid, _, text in rows])
            connection.execute("DELETE FROM dirty WHERE n = ? AND id IN (SELECT value FROM json_each(?))", (n, given))

    def clear(self, physical: str) -> None:
        """No words, until `complete` says that all were put."""
        n = self._number(physical)
        with self._writing() as connection:
            connection.execute(_of("INSERT INTO words_#(words_#) VALUES ('delete-all')", n))
            connection.execute(_of("DELETE FROM texts_#", n))
            connection.execute("UPDATE collections SET whole = 0 WHERE n = ?", (n,))

    def complete(self, physical: str) -> None:
        """Every row of the store has been put."""
        n = self._number(physical)
        with self._writing() as connection:
            connection.execute("DELETE FROM dirty WHERE n = ?", (n,))
            connection.execute("UPDATE collections SET whole = 1 WHERE n = ?", (n,))

    def ranked(
        self, physical: str, words: Sequence[str], limit: int, among: Sequence[str] | None
    ) -> list[tuple[str, float]]:
        """(id, score) of the best rows by words, best first, with all that tie with the last."""
        n = self._number(physical)
        with self._reading() as connection:
            allowed: Callable[[int], bool] | None = None
            if among is not None:
                chosen = connection.execute(
                    _of("SELECT rid FROM texts_# WHERE id IN (SELECT value FROM json_each(?))", n),
                    (json.dumps(list(among)),),
                )
                allowed = {rid for (rid,) in chosen}.__contains__
            found = search(connection, words, limit, allowed, table=f"words_{n}")
            rids = json.dumps([rid for rid, _ in found])
            ids = dict(
                connection.execute(
                    _of("SELECT rid, id FROM texts_# WHERE rid IN (SELECT value FROM json_each(?))", n), (rids,)
                ).fetchall()
            )
            return [(ids[rid], score) for rid, score in found]

    def optimize(self, physical: str) -> None:
        """Merge the index's parts, so that what was removed is gone."""
        n = self._number(physical)
        with self._writing() as connection:
            connection.execute(_of("INSERT INTO words_#(words_#) VALUES ('optimize')", n))

    def close(self) -> None:
        with self._lock:
            self._connection.close()
