"""The file of a keyword side-car: for each collection its texts, an FTS5 index over them, and marks of what may be behind the store.

One table a collection, because the scores of BM25 depend on all that an index holds. A collection is known by its physical name
and by the store's own identity of it: another database, or a server that was wiped, has collections of the same names.
"""

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vectorkit.errors import InvalidArgument, NotFound
from vectorkit.local.sql import annul, connect, settle, typed
from vectorkit.words import ADD_WORDS, CREATE_WORDS_OVER_TEXTS, REMOVE_WORDS, named, search

APPLICATION_ID = 0x766B7702
"""`vkw` and the layout's number, in the file's header; a file of another layout is made anew."""
_SCHEMA = (
    """CREATE TABLE collections(n INTEGER PRIMARY KEY AUTOINCREMENT, physical TEXT NOT NULL, identity TEXT NOT NULL,
        place TEXT NOT NULL, whole INTEGER NOT NULL, UNIQUE (physical, identity))""",
    "CREATE TABLE dirty(n INTEGER NOT NULL, id TEXT NOT NULL, PRIMARY KEY (n, id)) WITHOUT ROWID",
)
_OURS = re.compile(r"collections|dirty|sqlite_\w+|(?:texts|words)_\d+(?:_(?:data|idx|content|docsize|config))?")


class Book(NamedTuple):
    """The words of one collection. place: the database that it is in, as far as the side-car was told."""

    n: int
    physical: str
    identity: str
    place: str

    @property
    def name(self) -> str:
        return self.physical.rpartition("@")[0]

    @property
    def generation(self) -> int:
        return int(self.physical.rpartition("@")[2])


def _of(statement: str, n: int) -> str:
    """A statement on the tables of collection n."""
    return statement.replace("#", str(n))


class WordFile:
    """The open file; every method is one transaction, on disk when it returns."""

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        self._lock = threading.RLock()
        self._books: dict[tuple[str, str], Book] = {}
        self.behind: set[int] = set()
        """The numbers of those whose words may be behind the store, by a crash or by a write that failed."""
        with typed(shown):
            self._connection = connect(path, read_only=False)
        try:
            self._prepare(path)
            with self._reading() as connection:
                dirty = {n for (n,) in connection.execute("SELECT DISTINCT n FROM dirty")}
                kept = "SELECT n, physical, identity, place, whole FROM collections"
                for *columns, whole in connection.execute(kept):
                    book = self._keep(Book(*columns))
                    if book.n in dirty or not whole:
                        self.behind.add(book.n)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, path: Path) -> None:
        """Make the tables, in place of those of another layout."""
        with self._writing() as connection:
            (layout,) = connection.execute("PRAGMA application_id").fetchone()
            if layout == APPLICATION_ID:
                return
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            columns = [row[1] for row in connection.execute("PRAGMA table_info(collections)")]
            if tables and not (all(map(_OURS.fullmatch, tables)) and columns[:2] == ["n", "physical"]):
                raise InvalidArgument(f"{self._shown} cannot be made: {path} is a database of something else")
            for name in sorted(tables, key=lambda name: name.count("_")):  # an index, before the tables that go with it
                if not name.startswith("sqlite_"):
                    connection.execute(f"DROP TABLE IF EXISTS {name}")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("PRAGMA application_id=%d" % APPLICATION_ID)  # noqa: UP031 - PRAGMA takes no bound value

    def _keep(self, book: Book) -> Book:
        self._books[book.physical, book.identity] = book
        return book

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

    def _number(self, book: Book) -> int:
        if not self.has(book):
            raise NotFound(f"{self._shown} has no words of {book.name!r}")
        return book.n

    def has(self, book: Book) -> bool:
        """Whether it has not been forgotten."""
        kept = self._books.get((book.physical, book.identity))
        return kept is not None and kept.n == book.n

    @property
    def books(self) -> list[Book]:
        """Those that are kept."""
        return list(self._books.values())

    @property
    def known(self) -> list[str]:
        """Their physical names."""
        return [book.physical for book in self.books]

    def add(self, physical: str, identity: str, place: str, *, whole: bool) -> Book:
        """Know a collection. whole: it is empty; otherwise its rows are to be read before it can answer."""
        with self._lock:
            book = self._books.get((physical, identity))
            if book is not None:
                if book.place == place:
                    return book
                with self._writing() as connection:
                    connection.execute("UPDATE collections SET place = ? WHERE n = ?", (place, book.n))
                return self._keep(book._replace(place=place))
            with self._writing() as connection:
                added = "INSERT INTO collections(physical, identity, place, whole) VALUES (?, ?, ?, ?)"
                n = connection.execute(added, (physical, identity, place, whole)).lastrowid
                assert n is not None
                texts = "CREATE TABLE texts_#(rid INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL)"
                connection.execute(_of(texts, n))
                over = named(CREATE_WORDS_OVER_TEXTS, f"words_{n}").replace("content='texts'", f"content='texts_{n}'")
                connection.execute(over)
            book = self._keep(Book(n, physical, identity, place))
            if not whole:
                self.behind.add(book.n)
            return book

    def remove(self, book: Book) -> None:
        """Forget a collection and its words."""
        with self._lock:
            if not self.has(book):
                return
            with self._writing() as connection:
                for statement in ("DROP TABLE words_#", "DROP TABLE texts_#"):
                    connection.execute(_of(statement, book.n))
                connection.execute("DELETE FROM dirty WHERE n = ?", (book.n,))
                connection.execute("DELETE FROM collections WHERE n = ?", (book.n,))
            del self._books[book.physical, book.identity]
            self.behind.discard(book.n)

    def mark(self, book: Book, ids: Sequence[str] | None) -> int:
        """Note, on disk, that these ids (None: all) change in the store. How many were not marked already."""
        n = self._number(book)
        with self._writing() as connection:
            if ids is None:
                return connection.execute("UPDATE collections SET whole = 0 WHERE n = ? AND whole", (n,)).rowcount
            marks = [(n, id) for id in ids]  # noqa: A001
            return connection.executemany("INSERT OR IGNORE INTO dirty VALUES (?, ?)", marks).rowcount

    def marked(self, book: Book) -> list[str] | None:
        """The ids whose words may be behind the store; None for all of them."""
        n = self._number(book)
        with self._reading() as connection:
            (whole,) = connection.execute("SELECT whole FROM collections WHERE n = ?", (n,)).fetchone()
            return [id for (id,) in connection.execute("SELECT id FROM dirty WHERE n = ?", (n,))] if whole else None  # noqa: A001

    def put(self, book: Book, ids: Sequence[str], texts: dict[str, str]) -> None:
        """The texts that these ids have in the store now, and none for the others of them; they are no longer marked."""
        n = self._number(book)
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

    def clear(self, book: Book) -> None:
        """No words, until `complete` says that all were put."""
        n = self._number(book)
        with self._writing() as connection:
            connection.execute(_of("INSERT INTO words_#(words_#) VALUES ('delete-all')", n))
            connection.execute(_of("DELETE FROM texts_#", n))
            connection.execute("UPDATE collections SET whole = 0 WHERE n = ?", (n,))

    def complete(self, book: Book) -> None:
        """Every row of the store has been put."""
        n = self._number(book)
        with self._writing() as connection:
            connection.execute("DELETE FROM dirty WHERE n = ?", (n,))
            connection.execute("UPDATE collections SET whole = 1 WHERE n = ?", (n,))

    def ranked(
        self, book: Book, words: Sequence[str], limit: int, among: Sequence[str] | None
    ) -> list[tuple[str, float, str]]:
        """(id, score, the text it has by) of the best rows by words, best first, with all that tie with the last."""
        n = self._number(book)
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
            read = _of("SELECT rid, id, text FROM texts_# WHERE rid IN (SELECT value FROM json_each(?))", n)
            rows = {rid: (id, text) for rid, id, text in connection.execute(read, (rids,))}  # noqa: A001
            return [(rows[rid][0], score, rows[rid][1]) for rid, score in found]

    def optimize(self, book: Book) -> None:
        """Merge the index's parts, so that what was removed is gone."""
        n = self._number(book)
        with self._writing() as connection:
            connection.execute(_of("INSERT INTO words_#(words_#) VALUES ('optimize')", n))

    def close(self) -> None:
        with self._lock:
            self._connection.close()
