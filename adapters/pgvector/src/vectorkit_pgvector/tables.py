"""The SQL of one collection: its table, its indexes, and each verb's statement. Pure text: names of ours, quoted; no values.

The layout is docs/layout.md, section 6. Where a `%s` stands a value is bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vectorkit.codec import NEVER
from vectorkit.layout import h26
from vectorkit.types import HNSW, IVF, CollectionSpec, Flat
from vectorkit_pgvector.convert import column_type, element_kind
from vectorkit_pgvector.filters import Condition

OPERATORS = {"cosine": "<=>", "dot": "<#>", "l2": "<->"}
FAMILIES = {"cosine": "cosine", "dot": "ip", "l2": "l2"}
LONGEST = 48  # bytes of a relation; with its longest suffix it stays below the 63 beyond which Postgres cuts names
MAX_WIDTH = 1_000  # pgvector's limit for hnsw.ef_search
MAX_LISTS = 32_768
WIDE, WIDER = 2_000, 4_000  # dimensions that an index holds as vector, as halfvec

# What `to_tsvector` gets: the parser would keep e-mail addresses, URLs and hyphenated words whole, the other stores do not.
_MARKS = (
    r"[!-/:-@[-`{-~\u00A0-\u00A9\u00AB-\u00B1\u00B4\u00B6-\u00B8\u00BB\u00BF\u2000-\u206F\u3000-\u3003\u3008-\u3020]+"
)


def _words(text: str) -> str:
    return f"to_tsvector('pg_catalog.simple'::regconfig, regexp_replace({text}, '{_MARKS}', ' ', 'g'))"


def relation_of(physical: str) -> str:
    """The relation of a physical collection: its name, or a hash of a long one."""
    return physical if len(physical.encode()) <= LONGEST else "~" + h26(physical)


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Table:
    """A collection's table. extension: the schema that pgvector's types and operators lie in."""

    spec: CollectionSpec
    schema: str
    extension: str

    # ------------------------------------------------------------------------------------- names and types

    @property
    def relation(self) -> str:
        return relation_of(self.spec.physical)

    def _named(self, suffix: str = "") -> str:
        return f"{quoted(self.schema)}.{quoted(self.relation + suffix)}"

    @cached_property
    def name(self) -> str:
        return self._named()

    @property
    def vector_index(self) -> str:
        """Its bare name."""
        return self.relation + ":v"

    @cached_property
    def vector_index_name(self) -> str:
        return self._named(":v")

    @cached_property
    def half(self) -> bool:
        """Whether the index holds 16-bit floats."""
        index = self.spec.index
        asked = not isinstance(index, Flat) and index.quantization == "fp16"
        return asked or WIDE < self.spec.dimension <= WIDER

    @property
    def indexable(self) -> bool:
        """Whether the spec asks for an approximate index, and pgvector has one for so many dimensions."""
        return not isinstance(self.spec.index, Flat) and self.spec.dimension <= WIDER

    def _type(self, name: str) -> str:
        return f"{quoted(self.extension)}.{name}"

    @cached_property
    def _operator(self) -> str:
        return f"OPERATOR({quoted(self.extension)}.{OPERATORS[self.spec.metric]})"

    @cached_property
    def _halved(self) -> str:
        """The vector in 16-bit floats: the unit vector under cosine, so that every norm fits."""
        whole = f"{quoted(self.extension)}.l2_normalize(vector)" if self.spec.metric == "cosine" else "vector"
        return f"({whole})::{self._type('halfvec')}({self.spec.dimension})"

    @cached_property
    def columns(self) -> list[str]:
        """What a write gives, in the order of `convert.rows_of`."""
        fields = [f"f{at}" for at in range(len(self.spec.fields))]
        return ["tenant", "id", "expires", "metadata", "text", "vector", "norm", *fields]

    @cached_property
    def _types(self) -> list[str]:
        fields = [column_type(kind) for kind in self.spec.fields.values()]
        vector = f"{self._type('vector')}({self.spec.dimension})"
        text = 'text COLLATE "C"'
        return [text, text, "bigint", "json", "text", vector, "double precision", *fields]

    # ------------------------------------------------------------------------------------- definition

    def create(self) -> list[str]:
        """The statements that make table, sequence and indexes, all but the vector's."""
        required = {"tenant", "id", "expires", "vector"}
        pairs = zip(self.columns, self._types, strict=True)
        columns = [f"{name} {kind}{' NOT NULL' if name in required else ''}" for name, kind in pairs]
        sequence = self._named(":seq")
        columns.insert(2, f"seq bigint NOT NULL DEFAULT nextval('{sequence.replace(chr(39), chr(39) * 2)}')")
        if self.spec.text:
            words = _words("coalesce(text, '')")
            columns.append(f"words tsvector GENERATED ALWAYS AS ({words}) STORED")
        columns.append(f"CONSTRAINT {quoted(self.relation + ':k')} PRIMARY KEY (tenant, id)")
        made = [
            f"CREATE SEQUENCE {sequence} AS bigint",
            f"CREATE TABLE {self.name}({', '.join(columns)})",
            f"ALTER SEQUENCE {sequence} OWNED BY {self.name}.seq",
        ]
        for at, kind in enumerate(self.spec.fields.values()):
            using = f"USING gin (f{at})" if element_kind(kind) is not None else f"(f{at})"
            made.append(f"CREATE INDEX {quoted(f'{self.relation}:f{at}')} ON {self.name} {using}")
        if self.spec.text:
            made.append(f"CREATE INDEX {quoted(self.relation + ':w')} ON {self.name} USING gin (words)")
        if self.spec.expiry:
            made.append(f"CREATE INDEX {quoted(self.relation + ':e')} ON {self.name} (expires) WHERE expires < {NEVER}")
        return made

    def create_vector_index(self, rows: int) -> str:
        """The approximate index, for so many rows."""
        index = self.spec.index
        family = FAMILIES[self.spec.metric]
        held = f"({self._halved})" if self.half else "vector"
        operators = self._type(f"{'halfvec' if self.half else 'vector'}_{family}_ops")
        match index:
            case HNSW(m=m, ef_construction=width):
                kind, options = "hnsw", f"m = {m}, ef_construction = {max(width, 2 * m)}"
            case IVF(lists=lists):
                kind, options = "ivfflat", f"lists = {min(lists or lists_for(rows), MAX_LISTS)}"
            case Flat():
                raise AssertionError("a Flat collection has no vector index")
        return (
            f"CREATE INDEX IF NOT EXISTS {quoted(self.vector_index)} ON {self.name} "
            f"USING {kind} ({held} {operators}) WITH ({options})"
        )

    @property
    def drop(self) -> str:
        return f"DROP TABLE IF EXISTS {self.name}"

    # ------------------------------------------------------------------------------------- writes

    @cached_property
    def copy(self) -> str:
        return f"COPY {self.name} ({', '.join(self.columns)}) FROM STDIN (FORMAT BINARY)"

    @cached_property
    def stage(self) -> str:
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(self.columns, self._types, strict=True))
        return f"CREATE TEMP TABLE vk_stage({columns}) ON COMMIT DROP"

    @cached_property
    def copy_stage(self) -> str:
        return f"COPY pg_temp.vk_stage ({', '.join(self.columns)}) FROM STDIN (FORMAT BINARY)"

    @cached_property
    def _on_conflict(self) -> str:
        own = [*self.columns[2:], "seq"]
        return "ON CONFLICT (tenant, id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in own)

    def upsert(self, rows: int) -> str:
        """Rows as parameters. The vector is cast, since its type's number is not known here."""
        types = {"vector": f"%s::{self._type('vector')}"}
        row = "(" + ", ".join(types.get(name, "%s") for name in self.columns) + ")"
        listed = ", ".join(self.columns)
        return f"INSERT INTO {self.name} ({listed}) VALUES {', '.join([row] * rows)} {self._on_conflict}"

    @cached_property
    def merge(self) -> str:
        """From the staging table. In the order of ids, so that two writers of the same ids do not deadlock."""
        listed = ", ".join(self.columns)
        return (
            f"INSERT INTO {self.name} ({listed}) SELECT {listed} FROM pg_temp.vk_stage ORDER BY id {self._on_conflict}"
        )

    def insert(self, *, expiring: bool) -> str:
        """From the staging table, leaving live rows alone; returns the ids that were left. Parameter: now, if rows expire."""
        listed = ", ".join(self.columns)
        conflict = (
            f"{self._on_conflict} WHERE {self.name}.expires <= %s"
            if expiring
            else "ON CONFLICT (tenant, id) DO NOTHING"
        )
        return (
            f"WITH done AS (INSERT INTO {self.name} ({listed}) SELECT {listed} FROM pg_temp.vk_stage ORDER BY id "
            f"{conflict} RETURNING id) "
            "SELECT s.id FROM pg_temp.vk_stage s WHERE NOT EXISTS (SELECT FROM done WHERE done.id = s.id)"
        )

    def change(self, fields: Sequence[int]) -> str:
        """One row's metadata and these of its declared fields. Parameters: metadata, fields, tenant, id."""
        sets = ", ".join(f"{name} = %s" for name in ("metadata", *(f"f{at}" for at in fields)))
        sequence = self._named(":seq").replace("'", "''")
        return f"UPDATE {self.name} SET seq = nextval('{sequence}'), {sets} WHERE tenant = %s AND id = %s"

    # ------------------------------------------------------------------------------------- reads

    def select(self, *, vectors: bool, ids: bool, where: Condition | None, expiring: bool, lock: bool = False) -> str:
        """Rows as `convert.record` takes them. Parameters: tenant, ids, filter, now."""
        listed = "id, text, metadata, expires" + (", vector, norm" if vectors else "")
        order = " ORDER BY id FOR UPDATE" if lock else ""
        return f"SELECT {listed} FROM {self.name} WHERE tenant = %s{_clauses(ids, where, expiring)}{order}"

    def page(self, *, vectors: bool, where: Condition | None, expiring: bool, limit: int) -> str:
        """Parameters: tenant, id to go on after, filter, now."""
        listed = "id, text, metadata, expires" + (", vector, norm" if vectors else "")
        return (
            f"SELECT {listed} FROM {self.name} WHERE tenant = %s AND id > %s{_clauses(False, where, expiring)} "
            f"ORDER BY id LIMIT {limit}"
        )

    def count(self, *, where: Condition | None, expiring: bool) -> str:
        """Parameters: filter, now."""
        return f"SELECT count(*) FROM {self.name}{_where(_clauses(False, where, expiring))}"

    def delete(self, *, ids: bool, where: Condition | None, expiring: bool) -> str:
        """Parameters: tenant and ids, or a filter; now. Without ids no row is meant by its tenant: there is but one."""
        if not ids:
            return f"DELETE FROM {self.name}{_where(_clauses(ids, where, expiring))}"
        return f"DELETE FROM {self.name} WHERE tenant = %s{_clauses(ids, where, expiring)}"

    @cached_property
    def delete_everything(self) -> str:
        """All rows, counting those that live. Parameter: now."""
        return f"WITH gone AS (DELETE FROM {self.name} RETURNING expires) SELECT count(*) FROM gone WHERE expires > %s"

    def nearest(self, *, where: Condition | None, expiring: bool, k: int, vectors: bool) -> str:
        """By the index, if the planner finds that worth it. Parameters, by name: q, width; the rest `p0`, `p1`, …

        The width is set inside the statement, before the scan that reads it begins (a one-time filter stands above it), and
        for the statement alone. The scan goes on until there are k rows under the filter or pgvector's limit is met.
        """
        name = "hnsw" if isinstance(self.spec.index, HNSW) else "ivfflat"
        width = "ef_search" if name == "hnsw" else "probes"
        settings = (
            f"(SELECT set_config('{name}.{width}', %(width)s, true)"
            f" || set_config('{name}.iterative_scan', 'relaxed_order', true)) IS NOT NULL"
        )
        clauses = settings + _named_clauses(False, where, expiring)
        listed = "id, text, metadata" + (", vector, norm" if vectors else "")
        vector = self._type("vector")
        # More than are wanted are taken from the index where its order is not the last word: 16-bit floats order nearly equal
        # rows otherwise, and an inverted file stops at the first lists that hold enough rows under the filter.
        wide = k
        if self.half:
            wide = 2 * k + 16
        if name == "ivfflat" and where is not None:
            wide = max(wide, 4 * k + 16)
        distance = f"vector {self._operator} %(q)s::{vector}"
        if wide == k:
            return f"SELECT {listed}, {distance} AS d FROM {self.name} WHERE {clauses} ORDER BY d, id LIMIT {k}"
        order = distance
        if self.half:
            half = f"{self._type('halfvec')}({self.spec.dimension})"
            order = f"{self._halved} {self._operator} %(q)s::{vector}::{half}"
        return (
            f"SELECT {listed}, {distance} AS d FROM (SELECT id, text, metadata, vector, norm FROM {self.name} "
            f"WHERE {clauses} ORDER BY {order} LIMIT {min(wide, 2**62)}) x ORDER BY d, id LIMIT {k}"
        )

    def nearest_exactly(self, *, ids: bool, where: Condition | None, expiring: bool, k: int, vectors: bool) -> str:
        """Every row that qualifies: no index orders by this expression. Parameters, by name: q, ids; the rest `p0`, `p1`, …"""
        listed = "id, text, metadata" + (", vector, norm" if vectors else "")
        clauses = _named_clauses(ids, where, expiring)
        distance = f"(vector {self._operator} %(q)s::{self._type('vector')}) + 0"
        if self.spec.metric == "dot":  # a sum that overflows float32 on its way comes first, so that it is seen
            distance = f"coalesce(nullif(nullif({distance}, 'NaN'), 'Infinity'), '-Infinity')"
        return f"SELECT {listed}, {distance} AS d FROM {self.name}{_where(clauses)} ORDER BY d, id LIMIT {k}"

    def keyword(self, *, ids: bool, where: Condition | None, expiring: bool, k: int, vectors: bool) -> str:
        """BM25 over the tsvector. Parameters, by name: text, ids; the rest `p0`, `p1`, …

        Σ over the query's words of idf · tf (k1 + 1) / (tf + k1 (1 − b + b · length / average)), k1 = 1.2, b = 0.75,
        idf = ln(1 + (N − n + 0.5) / (n + 0.5)) as in Lucene (Robertson and Zaragoza, 2009). tf is read back from ts_rank, which
        for one word of weight 1 is Σ 1/j² for j = 1 … tf, over π²/6 (PostgreSQL, tsrank.c, calc_rank_or), and whose tail is
        1 / (tf + ½): C code, where unnesting a tsvector is not. Length is the number of distinct words, and its average that of
        the rows with any of the words (pivoted unique normalisation, Singhal and others, 1996).
        """
        listed = ", ".join(f"t.{name}" for name in ("id", "text", "metadata", *(("vector", "norm") if vectors else ())))
        allowed = "true" + _named_clauses(ids, where, expiring, "t.")
        query = _words("%(text)s")
        lexeme = "('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''')::tsquery"
        tf = "round(1 / (1.6449340668482264 * greatest(1 - r, 1e-7)) - 0.5)"
        rows = (
            f"(SELECT CASE WHEN reltuples < 100000 THEN (SELECT count(*) FROM {self.name}) ELSE reltuples::bigint END "
            f"FROM pg_class WHERE oid = '{self.name.replace(chr(39), chr(39) * 2)}'::regclass)"
        )
        return (
            f"WITH q AS MATERIALIZED (SELECT {lexeme} AS word FROM unnest({query})), "
            "hit AS MATERIALIZED (SELECT q.word, t.tenant, t.id, length(t.words) AS n, "
            f"ts_rank('{{1,1,1,1}}', t.words, q.word)::float8 AS r, ({allowed}) AS ok "
            f"FROM q JOIN {self.name} t ON t.words @@ q.word), "
            f"total AS MATERIALIZED (SELECT {rows}::float8 AS rows, (SELECT avg(n)::float8 FROM hit) AS average), "
            "idf AS MATERIALIZED (SELECT word, ln(1 + (greatest(rows - count(*), 0) + 0.5) / (count(*) + 0.5)) AS idf "
            "FROM hit, total GROUP BY word, rows), "
            f"part AS (SELECT hit.tenant, hit.id, idf * 2.2 * tf / (tf + 1.2 * (0.25 + 0.75 * n / average)) AS part "
            f"FROM hit JOIN idf USING (word), total, LATERAL (SELECT {tf} AS tf) f WHERE ok), "
            "best AS (SELECT tenant, id, sum(part) AS score FROM part GROUP BY tenant, id "
            f"ORDER BY score DESC, id LIMIT {k}) "
            f"SELECT {listed}, best.score FROM best JOIN {self.name} t USING (tenant, id)"
        )


def lists_for(rows: int) -> int:
    """pgvector's own advice: rows / 1000 up to a million, √rows above."""
    return max(1, rows // 1_000 if rows <= 1_000_000 else int(rows**0.5))


def _clauses(ids: bool, where: Condition | None, expiring: bool) -> str:
    parts = ["id = ANY(%s)"] if ids else []
    if where is not None:
        parts.append(where.sql)
    if expiring:
        parts.append("expires > %s")
    return "".join(f" AND {part}" for part in parts)


def _where(clauses: str) -> str:
    """The clauses as a whole WHERE, which no clauses need."""
    return clauses.replace(" AND ", " WHERE ", 1)


def _named_clauses(ids: bool, where: Condition | None, expiring: bool, prefix: str = "") -> str:
    first, *rest = _clauses(False, where, expiring).split("%s")
    named = "".join([first, *(f"%(p{at})s{part}" for at, part in enumerate(rest))])
    return (f" AND {prefix}tenant = '' AND {prefix}id = ANY(%(ids)s)" if ids else "") + named


def values_of(where: Condition | None, *more: Any) -> tuple[Any, ...]:
    """The values of a filter and what follows it."""
    return (*(where.values if where is not None else ()), *more)
