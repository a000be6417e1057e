"""Rows into a collection, in batches: embed the texts that have no vector, write, tell how far it is.

It stands outside the store and uses the public API alone, so it loads any store there is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vectorkit.errors import (
    DimensionMismatch,
    FingerprintMismatch,
    InvalidArgument,
    InvalidRecord,
    PartialFailure,
    Unsupported,
    VectorkitError,
)
from vectorkit.ingest.embed import Embedder, embedder_for
from vectorkit.ingest.rows import Row
from vectorkit.types import Batch, CollectionSpec, FloatArray, Record, WriteResult

BATCH = 2048
"""Rows of one write: enough that a commit costs nothing, few enough that a progress bar moves."""


class Sink(Protocol):
    """The part of a Collection that loading needs."""

    @property
    def spec(self) -> CollectionSpec:
        """What the collection holds."""

    def upsert(self, records: Batch, /) -> WriteResult:
        """Write a batch, whole or not at all."""


@dataclass(frozen=True, slots=True)
class Progress:
    """read: rows taken from the source. written: rows that are in the store for good."""

    read: int
    written: int


def load(
    collection: Sink,
    rows: Iterable[Row | Record],
    *,
    embedder: Embedder | None = None,
    batch: int = BATCH,
    on_progress: Callable[[Progress], None] | None = None,
) -> WriteResult:
    """Write rows in order, `batch` at a time, holding no more than that; how many were written.

    Rows without a vector get one from their text, by `embedder`, or by the offline embedder when it is the one that the
    collection's fingerprint names. Of two rows with one id the later one stays, however far apart they are. on_progress is called
    after every write.

    A bad row raises InvalidRecord or DimensionMismatch naming its place ("people.csv, line 17"), when the rows before it have been
    written. FingerprintMismatch: the embedder is not the collection's; nothing was read. When the store fails after
    some batches: PartialFailure with their count.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InvalidArgument(f"batch must be an int of at least 1, got {batch!r}")
    loader = _Loader(collection, embedder, on_progress)
    held: list[Row] = []
    ids: set[str] = set()
    try:
        for number, given in enumerate(rows, 1):
            row = given if isinstance(given, Row) else _numbered(given, number)
            if len(held) == batch or row.record.id in ids:
                loader.write(held)
                held = []
                ids.clear()
            held.append(row)
            ids.add(row.record.id)
            loader.read = number
    except Exception as error:
        if not loader.failed:  # the source failed: what it gave before is not lost
            loader.write(held)
            if isinstance(error, InvalidRecord):
                raise InvalidRecord(f"{error}{loader.so_far()}", field=error.field) from error.__cause__
        raise
    loader.write(held)
    return WriteResult(loader.written)


class _Loader:
    def __init__(
        self, collection: Sink, embedder: Embedder | None, on_progress: Callable[[Progress], None] | None
    ) -> None:
        self.collection = collection
        self.spec = collection.spec
        self.embedder = embedder
        self.on_progress = on_progress
        self.read = 0
        self.written = 0
        self.failed = False
        if embedder is not None and embedder.fingerprint != self.spec.embedding:
            made = "without a fingerprint" if self.spec.embedding is None else f"for {self.spec.embedding}"
            raise FingerprintMismatch(
                f"{self.spec.name!r} was made {made}, the embedder is {embedder.fingerprint}; "
                "use the embedder of the collection, or make a collection for this one"
            )

    def so_far(self) -> str:
        return f" (rows written before it: {self.written})"

    def write(self, rows: Sequence[Row]) -> None:
        """Embed and write; a bad row is written up to, then raised."""
        if not rows:
            return
        bad: VectorkitError | None = None
        try:
            rows, vectors, bad = self._vectors(rows)
            while rows:
                try:
                    self._send(rows, vectors)
                    break
                except (InvalidRecord, DimensionMismatch) as error:
                    if error.row is None:
                        raise
                    bad = _located(error, rows[error.row].place, self.written + error.row)
                    rows, vectors = rows[: error.row], vectors[: error.row]
        except BaseException:
            self.failed = True
            raise
        if bad is not None:
            self.failed = True
            raise bad from None

    def _send(self, rows: Sequence[Row], vectors: FloatArray) -> None:
        records = [row.record for row in rows]
        batch = Batch(
            [r.id for r in records],
            vectors,
            [r.text for r in records],
            [r.metadata for r in records],
            [r.expires_at for r in records],
        )
        try:
            self.written += self.collection.upsert(batch).written
        except (InvalidRecord, DimensionMismatch):
            raise
        except VectorkitError as error:
            self.written += error.written if isinstance(error, PartialFailure) else 0
            if not self.written:
                raise
            failed = error.failed if isinstance(error, PartialFailure) else batch.ids
            raise PartialFailure(
                f"{self.written} rows were written before this failed: {error}", written=self.written, failed=failed
            ) from error
        if self.on_progress is not None:
            self.on_progress(Progress(self.read, self.written))

    def _vectors(self, rows: Sequence[Row]) -> tuple[Sequence[Row], FloatArray, VectorkitError | None]:
        """The rows that can be written, their vectors as (n, dimension), and what is wrong with the next one."""
        given: list[FloatArray | None] = []
        bad: VectorkitError | None = None
        for row in rows:
            try:
                given.append(self._vector(row.record))
            except VectorkitError as error:
                bad = _located(error, row.place, self.written + len(given))
                break
        rows = rows[: len(given)]
        vectors = np.empty((len(given), self.spec.dimension), np.float32)
        bare = [at for at, vector in enumerate(given) if vector is None]
        if bare and self.embedder is not None:
            vectors[bare] = self.embedder.embed([rows[at].record.text or "" for at in bare])
        for at, vector in enumerate(given):
            if vector is not None:
                vectors[at] = vector
        return rows, vectors, bad

    def _vector(self, record: Record) -> FloatArray | None:
        """The row's own vector, or None when its text can be embedded."""
        if record.vector is None:
            if record.text is None:
                raise InvalidRecord("the row has neither a vector nor a text", field="vector")
            if self.embedder is None:
                self.embedder = self._of_the_collection()
            return None
        vector: FloatArray = Batch.of([record]).vectors[0]
        if len(vector) != self.spec.dimension:
            message = f"the vector has {len(vector)} numbers; {self.spec.name!r} holds {self.spec.dimension}"
            raise DimensionMismatch(message, expected=self.spec.dimension, got=len(vector))
        return vector

    def _of_the_collection(self) -> Embedder:
        if self.spec.embedding is None:
            raise FingerprintMismatch(
                f"{self.spec.name!r} does not say what makes its vectors, so a text cannot be embedded for it; bring the "
                "vector, or make the collection with the fingerprint of an embedder"
            )
        return embedder_for(self.spec.embedding)


def _numbered(record: object, number: int) -> Row:
    if not isinstance(record, Record):
        raise InvalidRecord(f"row {number}: expected a Record, got {type(record).__name__}")
    return Row(record, f"row {number}")


def _located(error: VectorkitError, place: str, written: int) -> VectorkitError:
    """The same error with the row's place in it, and how much is done."""
    told = f" (rows written before it: {written})"
    match error:
        case InvalidRecord():
            return InvalidRecord(f"{place}: {error.detail}{told}", field=error.field)
        case DimensionMismatch():
            return DimensionMismatch(f"{place}: {error.detail}{told}", expected=error.expected, got=error.got)
        case FingerprintMismatch() | Unsupported():
            return type(error)(f"{place}: {error}{told}")
        case _:
            return error
