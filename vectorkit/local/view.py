"""What readers of a collection look at: rows in memory by slot, published whole after each committed write.

A View never changes. Its arrays may be longer than `rows`: a writer fills them beyond that, where no reader looks, and
copies what it must change in place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vectorkit.local.ann import Generation
from vectorkit.local.columns import Columns, Mask, grown
from vectorkit.local.exact import Slots, prepare, squares
from vectorkit.types import CollectionSpec, FloatArray


@dataclass(frozen=True, slots=True)
class View:
    """Slots 0 to rows-1, ascending in rid; `dead` of them are deleted and False in `alive`.

    matrix: prepared vectors. norms: ‖x‖² under l2. payload: whether any row has text or metadata. generation: an index
    over the first slots, as many as it has rows.
    """

    spec: CollectionSpec
    rows: int
    seq: int
    rids: npt.NDArray[np.int64]
    ids: list[str]
    matrix: FloatArray
    norms: npt.NDArray[np.float32] | None
    largest: float
    expires: npt.NDArray[np.int64] | None
    alive: Mask
    dead: int
    columns: Columns
    payload: bool = False
    generation: Generation | None = field(default=None, repr=False)

    @classmethod
    def empty(cls, spec: CollectionSpec, *, reserve: int = 0) -> "View":
        """No rows, with room for some."""
        return cls(
            spec=spec,
            rows=0,
            seq=0,
            rids=np.empty(reserve, np.int64),
            ids=[],
            matrix=np.empty((reserve, spec.dimension), np.float32),
            norms=np.empty(reserve, np.float32) if spec.metric == "l2" else None,
            largest=1.0 if spec.metric == "cosine" else 0.0,
            expires=np.empty(reserve, np.int64) if spec.expiry else None,
            alive=np.empty(reserve, np.bool_),
            dead=0,
            columns=Columns.empty(spec.fields),
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
        matrix = grown(self.matrix, self.rows, end)
        matrix[self.rows : end] = prepare(vectors, self.spec.metric)
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
            matrix=matrix,
            norms=norms,
            largest=largest,
            expires=expiry,
            alive=alive,
            columns=columns,
            payload=self.payload or payload,
        )

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

    def taken(self, slots: Slots, generation: Generation | None, seq: int) -> "View":
        """A view of these slots, ascending, renumbered from 0, with an index over the first of them."""
        alive = self.alive[slots]
        return replace(
            self,
            rows=len(slots),
            seq=seq,
            rids=self.rids[slots],
            ids=[self.ids[slot] for slot in slots.tolist()],
            matrix=self.matrix[slots],
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

    @property
    def bytes(self) -> int:
        """Memory of the vectors."""
        return self.matrix.nbytes
