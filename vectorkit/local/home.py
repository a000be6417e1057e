"""The directory of an embedded store: what says that it is one, its lock, and the catalogue of its collections.

The catalogue decides what exists: a collection's folder is made before its catalogue row and removed after it.
"""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vectorkit.errors import AlreadyExists, ConfigError, Corrupt, NotFound, Unavailable, Unsupported
from vectorkit.local.files import fsync_folder, write_durably
from vectorkit.local.lock import DirectoryLock
from vectorkit.local.options import LocalOptions
from vectorkit.local.rows import has_writes
from vectorkit.local.seal import Seal, Sealed
from vectorkit.local.sql import annul, connect, settle, typed
from vectorkit.types import LAYOUT, CollectionSpec

FORMAT = "vectorkit-local"


def folder_name(physical: str) -> str:
    """A physical name as a folder name that stays distinct where case does not: `A` is written `=a`."""
    return "".join("=" + c.lower() if c.isupper() else c for c in physical)


@contextmanager
def _os_errors(shown: str) -> Iterator[None]:
    """The operating system's refusals as ours."""
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the path holds a lone surrogate"
        raise Unavailable(f"{shown!r}: the directory cannot be used: {reason}") from error


class Home:
    """An open directory. Raises ConfigError, NotFound, Locked, Corrupt, Unavailable.

    written: whether the folder of a collection holds acknowledged rows, which no catalogue that lacks it may have removed.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        shown: str,
        options: LocalOptions,
        format: str = FORMAT,
        written: Callable[[Path], bool] = lambda folder: has_writes(folder / "rows.db"),
    ) -> None:
        self.path = path
        self.shown = shown
        self.read_only = read_only
        self._format = format
        self._written = written
        self._lock: DirectoryLock | None = None
        self._version = -1
        with _os_errors(shown):
            self._open(options)

    def _open(self, options: LocalOptions) -> None:
        path, shown, read_only = self.path, self.shown, self.read_only
        if read_only:
            if not (path / "vectorkit.json").is_file() or not (path / "catalogue.db").is_file():
                raise NotFound(f"{shown}: there is no store to read; open it for writing once to make one")
        else:
            self._make_folder()
            self._lock = DirectoryLock(path / "lock", shown, options.lock_timeout)
        try:
            self._check_mark()
            self._seal = Seal(path / "catalogue.db")
            with typed(shown):
                sealed = self._seal.read()
                self._catalogue = connect(path / "catalogue.db", read_only=read_only)
            try:
                self._prepare(sealed)
            except BaseException:
                self._catalogue.close()
                raise
        except BaseException:
            self._release()
            raise

    def _make_folder(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ConfigError(f"{self.shown} is a file, not a directory") from None
        except OSError as error:
            raise Unavailable(f"{self.shown}: the directory cannot be made: {error.strerror}") from error
        if not (self.path / "vectorkit.json").exists():
            strangers = sorted(
                {entry.name for entry in self.path.iterdir()} - {"lock", "vectorkit.json.new", "vectorkit.json"}
            )
            if strangers and not (self.path / "vectorkit.json").exists():
                raise ConfigError(
                    f"{self.shown} holds other files ({strangers[0]!r} …) and no vectorkit store; name an empty directory"
                )

    def _check_mark(self) -> None:
        mark = self.path / "vectorkit.json"
        if not mark.exists() and not self.read_only:
            write_durably(mark, json.dumps({"format": self._format, "layout": LAYOUT}).encode())
        try:
            found = json.loads(mark.read_bytes())
        except (ValueError, OSError) as error:
            raise Corrupt(f"{self.shown}: vectorkit.json cannot be read ({error}); restore it from a backup") from error
        if not isinstance(found, dict) or found.get("format") != self._format:
            raise Corrupt(f"{self.shown}: vectorkit.json is not that of a vectorkit store; restore it from a backup")
        if found.get("layout") != LAYOUT:
            raise Unsupported(f"{self.shown} has layout {found.get('layout')!r}; this version reads layout {LAYOUT}")

    def _prepare(self, sealed: Sealed | None) -> None:
        with typed(self.shown):
            tables = self._catalogue.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            if not tables:
                self._make_tables()
            self._verify(sealed)
            if not self.read_only:
                (self.path / "c").mkdir(exist_ok=True)
                self._sweep()

    def _make_tables(self) -> None:
        """Begin the catalogue of a new store, or of one whose first open was cut short: never over collections that are there."""
        if any((self.path / "c").glob("*/*")):
            raise Corrupt(
                f"{self.shown}: catalogue.db is empty or missing and collections are there; restore the directory "
                "from a backup"
            )
        if self.read_only:
            raise NotFound(f"{self.shown}: there is no store to read; open it for writing once to make one")
        with self._changing():
            self._catalogue.execute(
                """
                CREATE TABLE collections(
                    name TEXT NOT NULL, generation INTEGER NOT NULL, physical TEXT NOT NULL UNIQUE,
                    state TEXT NOT NULL CHECK (state IN ('building', 'published')),
                    spec TEXT NOT NULL,
                    PRIMARY KEY (name, generation))
                """
            )
            self._catalogue.execute("CREATE TABLE counters(name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
            self._catalogue.execute("INSERT INTO counters VALUES ('generation', 0), ('change', 0), ('digest', 0)")

    def _counter(self, name: str) -> int:
        row = self._catalogue.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
        return int(row[0])

    def _digest(self) -> int:
        """Of all that the catalogue says: a damaged one must not decide what exists."""
        said = self._catalogue.execute("SELECT * FROM collections ORDER BY name, generation").fetchall()
        said += self._catalogue.execute("SELECT * FROM counters WHERE name <> 'digest' ORDER BY name").fetchall()
        return int.from_bytes(hashlib.sha256(repr(said).encode()).digest()[:7], "big")

    def _verify(self, sealed: Sealed | None) -> None:
        try:
            pages = self._catalogue.execute("PRAGMA integrity_check(1)").fetchone()[0]
            self._catalogue.execute("BEGIN")
            try:
                whole = pages == "ok" and self._digest() == self._counter("digest")
                change = self._counter("change")
            finally:
                self._catalogue.execute("ROLLBACK")
        except (TypeError, ValueError, sqlite3.OperationalError) as error:  # a table or a row is not there
            if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
                raise
            whole, change = False, 0
        if not whole:
            raise Corrupt(f"{self.shown}: catalogue.db is damaged; restore the directory from a backup")
        if sealed is not None and sealed.seq > change:
            raise Corrupt(
                f"{self.shown}: catalogue.db and its log end at change {change}, {sealed.seq} were made; restore the "
                "directory from a backup, or remove catalogue.seal to go on with what is there"
            )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A durable change of the catalogue, folded into its file at once, so that its log never holds the only copy for long."""
        failing = False
        try:
            self._catalogue.execute("BEGIN IMMEDIATE")
            yield
            self._catalogue.execute("UPDATE counters SET value = value + 1 WHERE name = 'change'")
            self._catalogue.execute("UPDATE counters SET value = ? WHERE name = 'digest'", (self._digest(),))
            failing = True
            self._catalogue.execute("COMMIT")
            failing = False
        except BaseException:
            settle(self._catalogue)
            if failing:
                annul(self._catalogue)
            raise
        self._seal.note("catalogue", self._counter("change"))
        with suppress(sqlite3.Error):
            self._catalogue.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _sweep(self) -> None:
        """Remove the folders that no catalogue row names: a create or drop that a crash cut short."""
        wanted = {folder_name(physical) for physical in self.physicals()}
        given = self._counter("generation")
        for entry in (self.path / "c").iterdir():
            if entry.name in wanted:
                continue
            number = entry.name.rpartition("@")[2]
            if number.isdigit() and int(number) > given and self._written(entry):
                raise Corrupt(
                    f"{self.shown}: catalogue.db does not know {entry.name!r}, which holds rows; restore the directory "
                    "from a backup"
                )
            shutil.rmtree(entry, ignore_errors=True)

    @property
    def lock(self) -> DirectoryLock | None:
        """What keeps the directory ours, None where it is read only."""
        return self._lock

    def changed(self) -> bool:
        """Whether another process has changed the catalogue since this was last asked."""
        with typed(self.shown):
            (version,) = self._catalogue.execute("PRAGMA data_version").fetchone()
        return bool(version != self._version)

    def physicals(self) -> set[str]:
        """The physical names that exist."""
        with typed(self.shown):
            (self._version,) = self._catalogue.execute("PRAGMA data_version").fetchone()
            return {physical for (physical,) in self._catalogue.execute("SELECT physical FROM collections")}

    def folder(self, physical: str) -> Path:
        """Where a physical collection lives."""
        return self.path / "c" / folder_name(physical)

    def names(self) -> list[str]:
        """Logical names."""
        with typed(self.shown):
            rows = self._catalogue.execute(
                "SELECT DISTINCT name FROM collections WHERE state = 'published' ORDER BY name"
            )
            return [name for (name,) in rows]

    def spec(self, name: str) -> CollectionSpec:
        """The spec of the highest published generation. NotFound, Corrupt, Unsupported for a layout from later."""
        with typed(self.shown):
            row = self._catalogue.execute(
                "SELECT spec, physical FROM collections WHERE name = ? AND state = 'published' ORDER BY generation DESC LIMIT 1",
                (name,),
            ).fetchone()
        if row is None:
            raise NotFound(f"{self.shown} has no collection {name!r}")
        try:
            document = json.loads(row[0])
            layout = document["layout"]
            spec = CollectionSpec.from_json(document) if layout == LAYOUT else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupt(
                f"{self.shown}: the spec of {name!r} cannot be read ({error}); restore from a backup"
            ) from error
        if spec is None:
            raise Unsupported(
                f"{self.shown}: {name!r} was written with layout {layout!r}; this version reads layout {LAYOUT}"
            )
        if (spec.name, spec.physical) != (name, row[1]):
            raise Corrupt(f"{self.shown}: the spec of {name!r} is that of another collection; restore from a backup")
        return spec

    def add(self, spec: CollectionSpec, build: Callable[[CollectionSpec, Path], None]) -> CollectionSpec:
        """Make a collection: its folder by `build`, then its catalogue row. AlreadyExists."""
        with typed(self.shown), _os_errors(self.shown):
            settle(self._catalogue)
            if self._catalogue.execute("SELECT 1 FROM collections WHERE name = ?", (spec.name,)).fetchone():
                raise AlreadyExists(f"{self.shown} has a collection {spec.name!r} already")
            (generation,) = self._catalogue.execute(
                "SELECT value + 1 FROM counters WHERE name = 'generation'"
            ).fetchone()
            made = CollectionSpec.from_json({**spec.to_json(), "generation": generation})
            folder = self.folder(made.physical)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                build(made, folder)
                fsync_folder(folder)
                fsync_folder(folder.parent)
                with self._changing():
                    self._catalogue.execute("UPDATE counters SET value = ? WHERE name = 'generation'", (generation,))
                    self._catalogue.execute(
                        "INSERT INTO collections VALUES (?, ?, ?, 'published', ?)",
                        (made.name, generation, made.physical, json.dumps(made.to_json())),
                    )
            except BaseException:
                if made.physical not in self.physicals():  # a Ctrl-C may come right after the commit
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            return made

    def remove(self, name: str, physical: str) -> None:
        """Forget a collection, then remove its folder."""
        with typed(self.shown):
            settle(self._catalogue)
            with self._changing():
                self._catalogue.execute("DELETE FROM collections WHERE name = ?", (name,))
        shutil.rmtree(self.folder(physical), ignore_errors=True)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def close(self) -> None:
        """Close the catalogue and let go of the lock."""
        with suppress(sqlite3.Error):
            self._catalogue.close()
        self._seal.release()
        self._release()
