"""Declared fields as typed columns in memory, and filters over them as masks.

Columns grow by appending beyond what any reader looks at; a change of existing rows makes a new column. So a reader's
view stays as it was while a writer works.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import ge, gt, le, lt
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vectorkit.codec import to_micros
from vectorkit.errors import VectorkitError
from vectorkit.filters import (
    And,
    AnyLeaf,
    Compare,
    ContainsAll,
    ContainsAny,
    Eq,
    Exists,
    In,
    Leaf,
    Node,
    Not,
    Or,
    Order,
    StartsWith,
)

Mask = npt.NDArray[np.bool_]
_LARGE = 2**25 if os.name != "nt" else 2**62
_ORDERS: dict[Order, Callable[[Any, Any], Any]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}


def grown(array: npt.NDArray[Any], used: int, rows: int) -> npt.NDArray[Any]:
    """The array, or a larger copy of its used part, with room for `rows`."""
    if rows <= len(array):
        return array
    larger = _room(array, rows, 8 if array.nbytes > _LARGE else 2)
    larger[:used] = array[:used]
    return larger


def _room(array: npt.NDArray[Any], rows: int, factor: int) -> npt.NDArray[Any]:
    """Untouched pages cost nothing where memory is committed when touched; a system that refuses so many gives fewer."""
    try:
        return np.empty((max(rows, factor * len(array), 64), *array.shape[1:]), array.dtype)
    except MemoryError:
        if factor == 1:
            raise
        return _room(array, rows, factor // 2)


class Column(Protocol):
    """One declared field over the slots."""

    def append(self, used: int, values: Sequence[Any]) -> None:
        """Put values (None for absent) at the slots from `used` on."""

    def changed(self, used: int, slots: Sequence[int], values: Sequence[Any]) -> "Column":
        """A new column in which these slots have other values."""

    def frozen(self) -> "Column":
        """What a reader may keep while the writer appends."""

    def take(self, slots: npt.NDArray[np.int64]) -> "Column":
        """A new column of these slots, ascending, renumbered from 0."""

    def test(self, leaf: AnyLeaf, used: int) -> Mask:
        """Which of the first `used` slots a leaf holds for."""

    def pack(self, used: int) -> dict[str, npt.NDArray[Any]]:
        """The first `used` slots as plain arrays."""

    def unpack(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Become what `pack` gave. KeyError, ValueError when it is not that."""


def _native(value: Any) -> Any:
    return to_micros(value) if isinstance(value, datetime) else value


class _Numbers:
    """int, float, bool and datetime: a value and whether it is there."""

    __slots__ = ("data", "present")

    def __init__(self, dtype: Any) -> None:
        self.data: npt.NDArray[Any] = np.empty(0, dtype)
        self.present: Mask = np.empty(0, np.bool_)

    def append(self, used: int, values: Sequence[Any]) -> None:
        end = used + len(values)
        self.data = grown(self.data, used, end)
        self.present = grown(self.present, used, end)
        self.present[used:end] = [value is not None for value in values]
        self.data[used:end] = [0 if value is None else _native(value) for value in values]

    def changed(self, used: int, slots: Sequence[int], values: Sequence[Any]) -> "_Numbers":
        new = self.frozen()
        new.data, new.present = self.data.copy(), self.present.copy()
        for slot, value in zip(slots, values, strict=True):
            new.present[slot] = value is not None
            new.data[slot] = 0 if value is None else _native(value)
        return new

    def frozen(self) -> "_Numbers":
        new = _Numbers(self.data.dtype)
        new.data, new.present = self.data, self.present
        return new

    def take(self, slots: npt.NDArray[np.int64]) -> "_Numbers":
        new = self.frozen()
        new.data, new.present = self.data[slots], self.present[slots]
        return new

    def test(self, leaf: AnyLeaf, used: int) -> Mask:
        data, present = self.data[:used], self.present[:used]
        match leaf:
            case Exists():
                return present.copy()
            case Eq(value=value):
                return np.asarray((data == _native(value)) & present)
            case In(values=values):
                return np.isin(data, np.array([_native(v) for v in values], data.dtype)) & present
            case Compare(order=order, value=value):
                return np.asarray(_ORDERS[order](data, _native(value)), np.bool_) & present
            case _:
                return np.zeros(used, np.bool_)

    def pack(self, used: int) -> dict[str, npt.NDArray[Any]]:
        return {"data": self.data[:used], "present": self.present[:used]}

    def unpack(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.data, self.present = _shaped(arrays, "data", self.data.dtype), _shaped(arrays, "present", np.bool_)


def _shaped(arrays: Mapping[str, npt.NDArray[Any]], name: str, dtype: Any) -> npt.NDArray[Any]:
    array = arrays[name]
    if array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"{name} is {array.dtype}, not {np.dtype(dtype)}")
    return array


class _Vocabulary:
    """Distinct values and their codes; only ever appended to."""

    __slots__ = ("codes", "values")

    def __init__(self) -> None:
        self.codes: dict[Any, int] = {}
        self.values: list[Any] = []

    def code(self, value: Any) -> int:
        found = self.codes.get(value)
        if found is None:
            found = len(self.values)
            self.values.append(value)
            self.codes[value] = found
        return found

    def only(self, codes: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], "_Vocabulary"]:
        """Codes and a vocabulary of the values that they use, so that what is deleted is forgotten."""
        used = np.unique(codes[codes >= 0])
        if len(used) == len(self.values):
            return codes, self
        less = _Vocabulary()
        for code in used.tolist():
            less.code(self.values[code])
        renamed = np.full(int(used[-1]) + 2 if len(used) else 1, -1, np.int32)
        renamed[used] = np.arange(len(used), dtype=np.int32)
        return renamed[codes], less

    def pack(self) -> npt.NDArray[np.uint8]:
        return np.frombuffer(json.dumps(self.values).encode(), np.uint8)

    @classmethod
    def unpack(cls, packed: npt.NDArray[Any]) -> "_Vocabulary":
        made = cls()
        made.values = json.loads(packed.tobytes())
        made.codes = {value: code for code, value in enumerate(made.values)}
        return made


class _Strings:
    """Strings as codes; -1 is absent."""

    __slots__ = ("codes", "vocabulary")

    def __init__(self) -> None:
        self.codes: npt.NDArray[np.int32] = np.empty(0, np.int32)
        self.vocabulary = _Vocabulary()

    def append(self, used: int, values: Sequence[Any]) -> None:
        end = used + len(values)
        self.codes = grown(self.codes, used, end)
        code = self.vocabulary.code
        self.codes[used:end] = [-1 if value is None else code(value) for value in values]

    def changed(self, used: int, slots: Sequence[int], values: Sequence[Any]) -> "_Strings":
        new = self.frozen()
        new.codes = self.codes.copy()
        for slot, value in zip(slots, values, strict=True):
            new.codes[slot] = -1 if value is None else self.vocabulary.code(value)
        return new

    def frozen(self) -> "_Strings":
        new = _Strings()
        new.codes, new.vocabulary = self.codes, self.vocabulary
        return new

    def take(self, slots: npt.NDArray[np.int64]) -> "_Strings":
        new = self.frozen()
        new.codes, new.vocabulary = self.vocabulary.only(self.codes[slots])
        return new

    def test(self, leaf: AnyLeaf, used: int) -> Mask:
        codes = self.codes[:used]
        match leaf:
            case Exists():
                return np.asarray(codes >= 0)
            case Eq(value=value):
                return np.asarray(codes == self.vocabulary.codes.get(value, -2))
            case In(values=values):
                known = self.vocabulary.codes
                wanted = [known[value] for value in values if value in known]
                return np.isin(codes, np.array(wanted, np.int32)) if wanted else np.zeros(used, np.bool_)
            case Compare(order=order, value=value):
                compare = _ORDERS[order]
                return self._each(codes, lambda stored: compare(stored, value))
            case StartsWith(prefix=prefix):
                return self._each(codes, lambda stored: stored.startswith(prefix))
            case _:
                return np.zeros(used, np.bool_)

    def _each(self, codes: npt.NDArray[np.int32], holds: Callable[[str], bool]) -> Mask:
        """Decide once a distinct value; the extra last entry is what code -1, absent, looks up."""
        values = self.vocabulary.values
        count = len(values)
        table = np.fromiter((holds(value) for value in values[:count]), np.bool_, count)
        return np.asarray(np.append(table, False)[codes])

    def pack(self, used: int) -> dict[str, npt.NDArray[Any]]:
        return {"codes": self.codes[:used], "words": self.vocabulary.pack()}

    def unpack(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.codes = _shaped(arrays, "codes", np.int32)
        self.vocabulary = _Vocabulary.unpack(_shaped(arrays, "words", np.uint8))


class _Lists:
    """Lists as (slot, code) pairs, one an element, and whether a slot has a list at all."""

    __slots__ = ("codes", "owners", "present", "used", "vocabulary")

    def __init__(self) -> None:
        self.codes: npt.NDArray[np.int32] = np.empty(0, np.int32)
        self.owners: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self.present: Mask = np.empty(0, np.bool_)
        self.used = 0
        self.vocabulary = _Vocabulary()

    def append(self, used: int, values: Sequence[Any]) -> None:
        end = used + len(values)
        self.present = grown(self.present, used, end)
        self.present[used:end] = [value is not None for value in values]
        self.extend(range(used, end), values)

    def extend(self, slots: Iterable[int], values: Sequence[Any]) -> None:
        code = self.vocabulary.code
        pairs = [
            (slot, code(_native(item))) for slot, value in zip(slots, values, strict=True) if value for item in value
        ]
        end = self.used + len(pairs)
        self.owners = grown(self.owners, self.used, end)
        self.codes = grown(self.codes, self.used, end)
        if pairs:
            self.owners[self.used : end], self.codes[self.used : end] = zip(*pairs, strict=True)
        self.used = end

    def changed(self, used: int, slots: Sequence[int], values: Sequence[Any]) -> "_Lists":
        new = self.frozen()
        new.present, new.codes, new.owners = self.present.copy(), self.codes.copy(), self.owners.copy()
        new.codes[: new.used][np.isin(new.owners[: new.used], np.array(slots, np.int64))] = -1
        for slot, value in zip(slots, values, strict=True):
            new.present[slot] = value is not None
        new.extend(slots, values)
        return new

    def frozen(self) -> "_Lists":
        new = _Lists()
        new.codes, new.owners, new.present = self.codes, self.owners, self.present
        new.used, new.vocabulary = self.used, self.vocabulary
        return new

    def take(self, slots: npt.NDArray[np.int64]) -> "_Lists":
        new = self.frozen()
        new.present = self.present[slots]
        moved = np.full(int(self.owners[: self.used].max(initial=-1)) + 1, -1, np.int64)
        inside = slots[slots < len(moved)]
        moved[inside] = np.arange(len(inside))
        owners = moved[self.owners[: self.used]]
        kept = (owners >= 0) & (self.codes[: self.used] >= 0)
        new.owners = owners[kept]
        new.codes, new.vocabulary = self.vocabulary.only(self.codes[: self.used][kept])
        new.used = len(new.owners)
        return new

    def test(self, leaf: AnyLeaf, used: int) -> Mask:
        match leaf:
            case Exists():
                return self.present[:used].copy()
            case ContainsAny(values=values):
                return self._holding(values, used)
            case ContainsAll(values=values):
                mask = self.present[:used].copy()
                for value in values:
                    mask &= self._holding((value,), used)
                return mask
            case _:
                return np.zeros(used, np.bool_)

    def _holding(self, values: Sequence[Any], used: int) -> Mask:
        known = self.vocabulary.codes
        wanted = [known[key] for value in values if (key := _native(value)) in known]
        mask = np.zeros(used, np.bool_)
        if wanted:
            codes, owners = self.codes[: self.used], self.owners[: self.used]
            found = codes == wanted[0] if len(wanted) == 1 else np.isin(codes, np.array(wanted, np.int32))
            slots = owners[found]
            mask[slots[slots < used]] = True
        return mask

    def pack(self, used: int) -> dict[str, npt.NDArray[Any]]:
        inside = self.owners[: self.used] < used
        return {
            "present": self.present[:used],
            "owners": self.owners[: self.used][inside],
            "codes": self.codes[: self.used][inside],
            "words": self.vocabulary.pack(),
        }

    def unpack(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.present, self.codes = _shaped(arrays, "present", np.bool_), _shaped(arrays, "codes", np.int32)
        self.owners = _shaped(arrays, "owners", np.int64)
        self.used = len(self.owners)
        self.vocabulary = _Vocabulary.unpack(_shaped(arrays, "words", np.uint8))


_DTYPES: dict[Any, Any] = {int: np.int64, float: np.float64, bool: np.bool_, datetime: np.int64}


def column_for(kind: Any) -> Column:
    """An empty column for a declared type."""
    if kind is str:
        return _Strings()
    if getattr(kind, "__origin__", None) is list:
        return _Lists()
    return _Numbers(_DTYPES[kind])


class Columns:
    """All declared fields of a collection."""

    __slots__ = ("by_name",)

    def __init__(self, by_name: Mapping[str, Column]) -> None:
        self.by_name = by_name

    @classmethod
    def empty(cls, fields: Mapping[str, Any]) -> "Columns":
        """One empty column a declared field."""
        return cls({name: column_for(kind) for name, kind in fields.items()})

    def append(self, used: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put the declared fields of rows at the slots from `used` on."""
        for name, column in self.by_name.items():
            column.append(used, [row.get(name) for row in rows])

    def changed(self, used: int, slots: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> "Columns":
        """New columns in which these slots have other metadata."""
        return Columns(
            {name: c.changed(used, slots, [row.get(name) for row in rows]) for name, c in self.by_name.items()}
        )

    def frozen(self) -> "Columns":
        """What a reader may keep."""
        return Columns({name: column.frozen() for name, column in self.by_name.items()})

    def take(self, slots: npt.NDArray[np.int64]) -> "Columns":
        """New columns of these slots, ascending, renumbered from 0."""
        return Columns({name: column.take(slots) for name, column in self.by_name.items()})

    @property
    def bytes(self) -> int:
        """Memory of the columns, their distinct strings apart."""
        return sum(array.nbytes for column in self.by_name.values() for array in column.pack(2**62).values())

    def pack(self, used: int) -> dict[str, npt.NDArray[Any]]:
        """The first `used` slots as plain arrays, named by the field's position."""
        return {
            f"{at}.{part}": array
            for at, column in enumerate(self.by_name.values())
            for part, array in column.pack(used).items()
        }

    @classmethod
    def unpack(cls, fields: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> "Columns":
        """What `pack` gave, for the same fields. KeyError, ValueError when it is not that."""
        made = cls.empty(fields)
        for at, column in enumerate(made.by_name.values()):
            prefix = f"{at}."
            column.unpack({name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)})
        return made

    def mask(self, node: Node, used: int) -> Mask:
        """The slots that a filter over declared fields holds for."""
        match node:
            case And(children=children):
                mask = np.ones(used, np.bool_)
                for child in children:
                    mask &= self.mask(child, used)
                return mask
            case Or(children=children):
                mask = np.zeros(used, np.bool_)
                for child in children:
                    mask |= self.mask(child, used)
                return mask
            case Not(child=child):
                return ~self.mask(child, used)
            case _ if isinstance(node, Leaf):
                return self.by_name[node.field].test(node, used)
        raise VectorkitError(f"no column test for {node!r}")
