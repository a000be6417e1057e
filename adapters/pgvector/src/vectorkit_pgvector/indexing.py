"""The vector index: whether there is one, building it when a load makes it worth it, and how widely to search it.

The width is measured on the index that was built and kept in its comment, so that every process searches alike.
"""

import re
from typing import Any

from vectorkit.runtime import Runtime
from vectorkit.types import HNSW, IVF, CollectionSpec
from vectorkit_pgvector.convert import Vector, text
from vectorkit_pgvector.tables import MAX_WIDTH, Table, lists_for

_COMMENT = re.compile(r"vectorkit: width (\d+)\Z")
_LOOK = """SELECT i.indisvalid, obj_description(i.indexrelid, 'pg_class') FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = %s"""
_SIZES = """SELECT c.relname, CASE c.relkind WHEN 'i' THEN pg_relation_size(c.oid) ELSE pg_table_size(c.oid) END,
    CASE c.relkind WHEN 'r' THEN pg_stat_get_dead_tuples(c.oid) ELSE 0 END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s
    AND (c.relname = %s OR c.oid IN (SELECT indexrelid FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
        WHERE t.relname = %s AND t.relnamespace = n.oid))"""
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))"
SAMPLE = 20
ENOUGH = 0.98


def threshold(spec: CollectionSpec) -> int:
    """Rows up to which search is exact."""
    return spec.index.full_scan_threshold if isinstance(spec.index, HNSW | IVF) else 0


def width(spec: CollectionSpec, measured: int, k: int, ef_search: int | None, probes: int | None) -> int:
    """How widely to search: as asked, as the spec says, or as measured. Never below k, which costs nothing then."""
    if isinstance(spec.index, IVF):
        return min(probes or spec.index.probes or measured, 32_768)
    return min(max(ef_search or measured, k), MAX_WIDTH)


async def _all(conn: Any, call: Runtime, sql: str, values: Any) -> list[Any]:
    cursor = await call.call(conn.execute, sql, values, binary=True)
    found: list[Any] = await call.call(cursor.fetchall)
    return found


async def look(conn: Any, call: Runtime, table: Table) -> tuple[bool, int]:
    """Whether the index is there and whole, and its measured width."""
    found = await _all(conn, call, _LOOK, (text(table.schema), text(table.vector_index)))
    if not found or not found[0][0]:
        return False, 40
    told = _COMMENT.match(found[0][1] or "")
    return True, int(told[1]) if told else 100


async def sizes(conn: Any, call: Runtime, table: Table) -> tuple[dict[str, int], int]:
    """Bytes of the table and of each index on disk, and dead rows."""
    names = (text(table.schema), text(table.relation), text(table.relation))
    found = await _all(conn, call, _SIZES, names)
    rows = {
        "table on disk" if name == table.relation else f"index {name.rpartition(':')[2]} on disk": size
        for name, size, _ in found
    }
    return rows, sum(dead for _, _, dead in found)


async def build(conn: Any, call: Runtime, table: Table, memory_mb: int) -> int | None:
    """Build the index and measure its width; None where another process is at it. Readers go on, writers wait."""
    async with call.enter(conn.transaction()):
        (mine,) = await _all(conn, call, _LOCK, (text(table.name),))
        if not mine[0]:
            return None
        there, width = await look(conn, call, table)
        if there:  # built by another process, which has just let go of the lock
            return width
        (counted,) = await _all(conn, call, f"SELECT count(*) FROM {table.name}", ())
        rows = counted[0]
        wanted = max(64, min(memory_mb, _memory_mb(table, rows)))
        await call.call(conn.execute, f"SET LOCAL maintenance_work_mem = '{wanted}MB'")
        await call.call(conn.execute, table.create_vector_index(rows))
    # For the planner; vectors and texts would be sampled at length and help it in nothing.
    known = ["tenant", "id", "expires", *(f"f{at}" for at in range(len(table.spec.fields)))]
    await call.call(conn.execute, f"ANALYZE {table.name} ({', '.join(known)})")
    found = await _measure(conn, call, table, rows)
    await call.call(conn.execute, f"COMMENT ON INDEX {table.vector_index_name} IS 'vectorkit: width {found}'")
    return found


def _memory_mb(table: Table, rows: int) -> int:
    """What a graph takes while it is built: vectors and links, with a margin."""
    index = table.spec.index
    links = 2 * index.m * 16 if isinstance(index, HNSW) else 0
    return int(rows * (4 * table.spec.dimension + links + 128) * 1.3 / 2**20) + 1


async def _measure(conn: Any, call: Runtime, table: Table, rows: int) -> int:
    """The smallest width that finds 98 % of the true ten nearest, over a sample of the rows and the points between them."""
    if isinstance(table.spec.index, IVF):
        lists = table.spec.index.lists or lists_for(rows)
        widths = sorted({max(1, min(lists, round(lists * share))) for share in (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)})
    else:
        widths = [40, 64, 100, 160, 250, 400, 640, 1_000]
    share = min(100.0, 100.0 * 20 * SAMPLE / max(rows, 1))
    raw = await _all(
        conn,
        call,
        f"SELECT vector FROM {table.name} TABLESAMPLE BERNOULLI ({share:.6f}) REPEATABLE (0) LIMIT {2 * SAMPLE}",
        (),
    )
    if len(raw) < 2:
        return widths[0]
    queries = _between([row[0] for row in raw])
    shape: dict[str, Any] = {"where": None, "expiring": False, "k": 10, "vectors": False}
    truth = []
    for query in queries:
        found = await _all(conn, call, table.nearest_exactly(ids=False, **shape), {"q": query})
        truth.append(found[-1][-1] + 1e-6 * max(1.0, abs(found[-1][-1])) if found else 0.0)
    spare = (1 - ENOUGH) * min(10, rows) * len(queries)
    for at in widths:
        missed = 0
        for query, floor in zip(queries, truth, strict=True):
            found = await _all(conn, call, table.nearest(**shape), {"q": query, "width": text(str(at))})
            missed += min(10, rows) - sum(row[-1] <= floor for row in found)
            if missed > spare:
                break
        else:
            return at
    return widths[-1]


def _between(raw: list[bytes]) -> list[Vector]:
    """Half of them rows, half midpoints of two."""
    import numpy as np

    rows = np.stack([np.frombuffer(one, ">f4", offset=4) for one in raw]).astype(np.float32)
    half = len(rows) // 2
    mixed = (rows[:half] + rows[half : 2 * half]) / 2
    chosen = np.concatenate([rows[:half], mixed])[1::2]
    return [Vector(raw[0][:4] + row.astype(">f4").tobytes()) for row in chosen if np.any(row)]
