"""What readers of a collection look at: rows in memory by slot, published whole after each committed write.

A View never changes. Its arrays may be longer than `rows`: a writer fills them beyond that, where no reader looks, and
copies what it must change in place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorkit.local.columns import Columns, Mask, grown
from vectorkit.local.exact import Slots, Space, prepare, squares
from vectorkit.local.generation import Arrays, Generation
from vectorkit.types import CollectionSpec, FloatArray


@dataclass(frozen=True, slots=True)
class View:
    """Slots 0 to rows-1, ascending in rid; `dead` of them are deleted and False in `alive`.

    base, tail: prepared vectors, first those of the generation, mapped from its file, then the newer ones. norms: ‖x‖² under
    l2. payload: whether any row has text or metadata. generation: what the first slots were read from, and the index over them.
    """

    spec: CollectionSpec
    rows: int
    seq: int
    rids: npt.NDArray[np.int64]
    ids: list[str]
    base: FloatArray
    tail: FloatArray
    norms: npt.NDArray[np.float32] | None
    largest: float
    expires: npt.NDArray[np.int64] | None
    alive: Mask
    dead: int
    columns: Columns
    payload: bool = False
    generation: Generation | None = field(default=None, repr=False)
    space: Space = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        newer = self.tail[: self.rows - len(self.base)]
        norms = None if self.norms is None else self.norms[: self.rows]
        object.__setattr__(self, "space", Space(self.spec.metric, self.base, newer, norms, self.largest, self.ids))

    @property
    def indexed(self) -> int:
        """How many slots the generation covers."""
        return len(self.base)

    @classmethod
    def empty(cls, spec: CollectionSpec, *, reserve: int = 0) -> "View":
        """No rows, with room for some."""
        return cls(
            spec=spec,
            rows=0,
            seq=0,
            rids=np.empty(reserve, np.int64),
            ids=[],
            base=np.empty((0, spec.dimension), np.float32),
            tail=np.empty((reserve, spec.dimension), np.float32),
            norms=np.empty(reserve, np.float32) if spec.metric == "l2" else None,
            largest=1.0 if spec.metric == "cosine" else 0.0,
            expires=np.empty(reserve, np.int64) if spec.expiry else None,
            alive=np.empty(reserve, np.bool_),
            dead=0,
            columns=Columns.empty(spec.fields),
        )

    def table(self, slots: Slots) -> Arrays:
        """All of these slots but their vectors, as plain arrays for a generation."""
        ids = "\0".join([self.ids[slot] for slot in slots.tolist()])
        table: Arrays = {
            "rids": self.rids[slots],
            "ids": np.frombuffer(ids.encode(), np.uint8),
            "facts": np.array([self.largest, self.payload], np.float64),
        }
        if self.norms is not None:
            table["norms"] = self.norms[slots]
        if self.expires is not None:
            table["expires"] = self.expires[slots]
        return table | self.columns.take(slots).pack(len(slots))

    @classmethod
    def of(cls, spec: CollectionSpec, generation: Generation, base: FloatArray, table: Arrays) -> "View":
        """The view a generation was made from. KeyError, ValueError when its table is not such a view's."""
        rids, count = table["rids"], len(base)
        ids = table["ids"].tobytes().decode().split("\0") if count else []
        largest, payload = table["facts"].tolist()
        sizes = {len(rids), len(ids), *(len(table[name]) for name in ("norms", "expires") if name in table)}
        if sizes != {count} or rids.dtype != np.int64 or not (np.diff(rids) > 0).all():
            raise ValueError("its table does not fit its vectors")
        return cls(
            spec=spec,
            rows=count,
            seq=generation.seq,
            rids=rids,
            ids=ids,
            base=base,
            tail=np.empty((0, spec.dimension), np.float32),
            norms=table["norms"] if spec.metric == "l2" else None,
            largest=largest,
            expires=table["expires"] if spec.expiry else None,
            alive=np.ones(count, np.bool_),
            dead=0,
            columns=Columns.unpack(spec.fields, table),
            payload=bool(payload),
            generation=generation,
        )

    def appended(
        self,
        *,
        seq: int,
        rids: npt.NDArray[np.int64],
        ids: Sequence[str],
        vectors: FloatArray,
        expires: Sequence[int] | npt.NDArray[np.int64],
        metadata: Sequence[Mapping[str, Any]] | None,
        payload: bool,
    ) -> "View":
        """A view with rows after these; `vectors` as written. Costs what the new rows cost."""
        end = self.rows + len(ids)
        if len(self.ids) > self.rows:  # left by a write that did not commit
            del self.ids[self.rows :]
        self.ids.extend(ids)
        split = len(self.base)
        tail = grown(self.tail, self.rows - split, end - split)
        tail[self.rows - split : end - split] = prepare(vectors, self.spec.metric)
        largest, norms = self.largest, self.norms
        if self.spec.metric != "cosine" and len(ids):
            sizes = squares(vectors)
            largest = max(largest, float(sizes.max()))
            if norms is not None:
                norms = grown(norms, self.rows, end)
                with np.errstate(over="ignore"):  # beyond float32 they are not asked: exact search goes another way
                    norms[self.rows : end] = sizes
        row_rids = grown(self.rids, self.rows, end)
        row_rids[self.rows : end] = rids
        alive = grown(self.alive, self.rows, end)
        alive[self.rows : end] = True
        expiry = self.expires
        if expiry is not None:
            expiry = grown(expiry, self.rows, end)
            expiry[self.rows : end] = expires
        columns = self.columns
        if self.spec.fields:
            columns = columns.frozen()
            columns.append(self.rows, metadata if metadata is not None else [{}] * len(ids))
        return replace(
            self,
            rows=end,
            seq=seq,
            rids=row_rids,
            tail=tail,
            norms=norms,
            largest=largest,
            expires=expiry,
            alive=alive,
            columns=columns,
            payload=self.payload or payload,
        )

    def follows(self, earlier: "View") -> bool:
        """Whether the slots of an earlier view are still the first ones here: rows are never renumbered in place."""
        count = earlier.rows
        return self.rows >= count and np.array_equal(self.rids[:count], earlier.rids[:count])

    def slots_of(self, rids: Sequence[int] | npt.NDArray[np.int64]) -> Slots:
        """The slots of those rids that are here and alive."""
        wanted = np.asarray(rids, np.int64)
        here = self.rids[: self.rows]
        at = np.searchsorted(here, wanted)
        inside = at < self.rows
        at, wanted = at[inside], wanted[inside]
        found = at[here[at] == wanted]
        return np.asarray(found[self.alive[found]])

    def without(self, rids: Sequence[int], seq: int) -> "View":
        """A view in which these rows are dead."""
        slots = self.slots_of(rids)
        if not len(slots):
            return replace(self, seq=seq)
        alive = self.alive.copy()
        alive[slots] = False
        return replace(self, alive=alive, dead=self.dead + len(slots), seq=seq)

    def changed(self, rids: Sequence[int], metadata: Sequence[Mapping[str, Any]], seq: int) -> "View":
        """A view in which these rows have other metadata."""
        if not self.spec.fields:
            return replace(self, seq=seq, payload=True)
        known = {int(rid): row for rid, row in zip(rids, metadata, strict=True)}
        slots = self.slots_of(sorted(known))
        rows = [known[int(rid)] for rid in self.rids[slots]]
        return replace(self, seq=seq, payload=True, columns=self.columns.changed(self.rows, slots.tolist(), rows))

    def taken(self, slots: Slots, seq: int) -> "View":
        """A view of these slots, ascending, renumbered from 0; those of the generation are all among them."""
        split = len(self.base)
        return self._picked(slots, seq, self.base, self.tail[slots[split:] - split], self.generation)

    def rebased(self, slots: Slots, generation: Generation, base: FloatArray, seq: int) -> "View":
        """A view of these slots in which the first are those of a new generation, whose vectors are `base`."""
        return self._picked(slots, seq, base, self.space.gather(slots[len(base) :]), generation)

    def _picked(
        self, slots: Slots, seq: int, base: FloatArray, tail: FloatArray, generation: Generation | None
    ) -> "View":
        alive = self.alive[slots]
        return replace(
            self,
            rows=len(slots),
            seq=seq,
            rids=self.rids[slots],
            ids=[self.ids[slot] for slot in slots.tolist()],
            base=base,
            tail=tail,
            norms=None if self.norms is None else self.norms[slots],
            expires=None if self.expires is None else self.expires[slots],
            alive=alive,
            dead=int(len(slots) - alive.sum()),
            columns=self.columns.take(slots),
            generation=generation,
        )

    def visible(self, now: int | None) -> Mask | None:
        """Which slots are alive and not expired; None when all are."""
        mask = None if not self.dead else self.alive[: self.rows]
        if now is not None and self.expires is not None:
            unexpired = self.expires[: self.rows] > now
            if not unexpired.all():
                mask = unexpired if mask is None else mask & unexpired
        return mask
