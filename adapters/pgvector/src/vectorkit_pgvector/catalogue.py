"""What collections there are: the catalogue table, and the server facts that everything else is written against.

A collection's table, indexes and catalogue row are made and dropped in one transaction each, under one advisory lock, so
that of many who create at once one does, and the others find it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import errors as pg

from vectorkit.errors import AlreadyExists, ConfigError, Corrupt, NotFound, Unsupported
from vectorkit.runtime import Runtime
from vectorkit.types import LAYOUT, CollectionSpec
from vectorkit_pgvector.convert import bigint, text
from vectorkit_pgvector.tables import Table, quoted

OLDEST = (0, 8)  # pgvector: iterative scans, without which a filtered query comes back short
OLDEST_SERVER = 150_000  # what came before is past its end of life
_FACTS = """SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), e.extversion, n.nspname
    FROM (SELECT 1) AS one LEFT JOIN pg_extension e ON e.extname = 'vector' LEFT JOIN pg_namespace n ON n.oid = e.extnamespace"""
_WORDS = "SELECT to_tsvector('pg_catalog.simple'::regconfig, 'École，x') @@ 'école'::tsquery"
_LOCK = "SELECT pg_advisory_xact_lock(%s)"
_LOCK_ID = 0x766B_6361_7461_6C67  # "vkcatalg"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the collections of a store lie. extension: the schema of pgvector's types."""

    schema: str
    extension: str
    words: bool
    """Whether the database's character type knows letters beyond ASCII, which words are cut and folded by."""

    @property
    def catalogue(self) -> str:
        return f"{quoted(self.schema)}.vk_catalogue"


async def prepare(conn: Any, call: Runtime, schema: str, shown: str, *, read_only: bool) -> Place:
    """Look at server and extension, which is made where it is missing. Raises ConfigError, Unsupported saying what to do."""
    facts = await _one(conn, call, _FACTS)
    if facts[2] is None:
        if read_only:
            raise ConfigError(f"{shown}: the database has no pgvector extension; run CREATE EXTENSION vector in it")
        await _make_extension(conn, call, shown)
        facts = await _one(conn, call, _FACTS)
    server, encoding, version, extension = facts
    if server < OLDEST_SERVER:
        raise Unsupported(f"{shown}: PostgreSQL {server // 10_000} is too old; vectorkit needs 15 or later")
    if encoding != "UTF8":
        raise Unsupported(
            f"{shown}: the database's encoding is {encoding}; text is kept exactly only in one made with ENCODING 'UTF8'"
        )
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise Unsupported(
            f"{shown}: pgvector {version} has no iterative scans, so a filtered query would come back short; install 0.8 or "
            "later, then ALTER EXTENSION vector UPDATE"
        )
    (words,) = await _one(conn, call, _WORDS)
    return Place(schema, extension, words)


async def _make_extension(conn: Any, call: Runtime, shown: str) -> None:
    try:
        await call.call(conn.execute, "CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    except pg.InsufficientPrivilege as error:
        raise ConfigError(
            f"{shown}: the database has no pgvector extension, and this role may not make it; have a superuser run "
            "CREATE EXTENSION vector in this database"
        ) from error
    except (pg.FeatureNotSupported, pg.UndefinedFile, pg.UndefinedObject) as error:
        raise ConfigError(
            f"{shown}: pgvector is not installed on this server; install its package, 0.8 or later"
        ) from error
    except pg.UniqueViolation:  # somebody else is making it
        pass


async def _one(conn: Any, call: Runtime, sql: str, values: Sequence[Any] = ()) -> Any:
    cursor = await call.call(conn.execute, sql, values, binary=True)
    return await call.call(cursor.fetchone)


class Catalogue:
    """The collections of one place."""

    def __init__(self, place: Place, call: Runtime, shown: str) -> None:
        self.place = place
        self._call = call
        self._shown = shown
        self._name = place.catalogue

    def table(self, spec: CollectionSpec) -> Table:
        """The table of a spec."""
        return Table(spec, self.place.schema, self.place.extension)

    async def create(self, conn: Any, spec: CollectionSpec) -> CollectionSpec:
        """Make table and entry; in a transaction of the caller's. Raises AlreadyExists, Unsupported."""
        if spec.text and not self.place.words:
            raise Unsupported(
                f"{self._shown}: the database's LC_CTYPE knows no letters beyond ASCII, so keyword search would miss words; "
                "use a database with a UTF-8 locale (C.UTF-8 will do), or make the collection with text=False"
            )
        call, schema = self._call.call, quoted(self.place.schema)
        await call(conn.execute, _LOCK, (bigint(_LOCK_ID),))
        there = await _one(conn, self._call, "SELECT to_regclass(%s)::text", (text(self._name),))
        if there[0] is None:
            made_schema = await _one(conn, self._call, "SELECT to_regnamespace(%s)::text", (text(schema),))
            if made_schema[0] is None:  # asked first: IF NOT EXISTS wants a right on the database even where it exists
                await call(conn.execute, f"CREATE SCHEMA {schema}")
            for statement in (
                f"CREATE SEQUENCE {schema}.vk_generation AS integer",
                f"""CREATE TABLE {self._name}(
                    name text COLLATE "C" NOT NULL, generation integer NOT NULL, physical text COLLATE "C" NOT NULL UNIQUE,
                    relation text COLLATE "C" NOT NULL UNIQUE,
                    state text NOT NULL CHECK (state IN ('building', 'published', 'dropping')),
                    layout integer NOT NULL, spec json NOT NULL, PRIMARY KEY (name, generation))""",
            ):
                await call(conn.execute, statement)
        found = await _one(
            conn, self._call, f"SELECT 1 FROM {self._name} WHERE name = %s AND state = 'published'", (text(spec.name),)
        )
        if found is not None:
            raise AlreadyExists(f"{self._shown} has a collection {spec.name!r} already")
        (generation,) = await _one(conn, self._call, f"SELECT nextval('{schema}.vk_generation')::bigint")
        made = CollectionSpec.from_json({**spec.to_json(), "generation": generation})
        table = self.table(made)
        for statement in table.create():
            await call(conn.execute, statement)
        entry = (
            text(made.name), bigint(generation), text(made.physical), text(table.relation), bigint(LAYOUT),
            text(json.dumps(made.to_json())),
        )  # fmt: skip
        await call(
            conn.execute,
            f"INSERT INTO {self._name}(name, generation, physical, relation, layout, spec, state) "
            "VALUES (%s, %s, %s, %s, %s, %s::json, 'published')",
            entry,
        )
        return made

    async def describe(self, conn: Any, name: str) -> CollectionSpec:
        """The current spec of a name. Raises NotFound, Unsupported for a layout of another version."""
        try:
            found = await _one(
                conn,
                self._call,
                f"SELECT layout, spec FROM {self._name} WHERE name = %s AND state = 'published' "
                "ORDER BY generation DESC LIMIT 1",
                (text(name),),
            )
        except (pg.UndefinedTable, pg.InvalidSchemaName):
            found = None
        if found is None:
            raise NotFound(f"{self._shown} has no collection {name!r}")
        if found[0] != LAYOUT:
            raise Unsupported(
                f"{self._shown}: {name!r} was written with layout {found[0]}; this version reads layout {LAYOUT}"
            )
        try:
            return CollectionSpec.from_json(json.loads(found[1]))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise Corrupt(
                f"{self._shown}: the catalogue's entry of {name!r} is damaged ({error}); restore {self._name} from a backup"
            ) from error

    async def names(self, conn: Any) -> list[str]:
        """Logical names."""
        try:
            cursor = await self._call.call(
                conn.execute, f"SELECT DISTINCT name FROM {self._name} WHERE state = 'published'"
            )
        except (pg.UndefinedTable, pg.InvalidSchemaName):
            return []
        return [row[0] for row in await self._call.call(cursor.fetchall)]

    async def drop(self, conn: Any, name: str) -> None:
        """Remove every generation of a name; in a transaction of the caller's. Raises NotFound."""
        await self._call.call(conn.execute, _LOCK, (bigint(_LOCK_ID),))
        spec = await self.describe(conn, name)
        await self._call.call(conn.execute, self.table(spec).drop)
        await self._call.call(conn.execute, f"DELETE FROM {self._name} WHERE name = %s", (text(name),))
