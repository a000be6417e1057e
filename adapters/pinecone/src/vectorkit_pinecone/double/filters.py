"""Metadata filters, read into functions of a row. Values are str, float, bool or a list of str, as they are stored."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vectorkit_pinecone.double.errors import bad, unknown
from vectorkit_pinecone.double.rows import Predicate, Row
from vectorkit_pinecone.double.schema import Schema
from vectorkit_pinecone.double.settings import IN_VALUES, MATCH_TOKENS, Settings
from vectorkit_pinecone.double.text import has_phrase, tokens

_DEEPEST = 32
_MATCHES = ("$match_phrase", "$match_all", "$match_any")
_COMPARED: dict[str, Callable[[float, float], bool]] = {
    "$gt": lambda held, asked: held > asked,
    "$gte": lambda held, asked: held >= asked,
    "$lt": lambda held, asked: held < asked,
    "$lte": lambda held, asked: held <= asked,
}
_Test = Callable[[Any], bool]
"""Of the value that a row has in a field; a row without the field is not asked."""


@dataclass(frozen=True)
class Reader:
    """How filters are read for one request. `words`: whether text-match operators are taken, as they are in a search."""

    schema: Schema
    settings: Settings
    words: bool = False

    def read(self, raw: Any, depth: int = 0) -> Predicate:
        """A whole expression."""
        if not isinstance(raw, dict):
            raise bad("Invalid filter: an expression is an object.")
        if depth > _DEEPEST:
            raise unknown(f"filters nested deeper than {_DEEPEST}")
        parts = [self._part(key, value, depth) for key, value in raw.items()]
        if len(parts) == 1:
            return parts[0]
        return lambda row: all(part(row) for part in parts)

    def _part(self, key: str, value: Any, depth: int) -> Predicate:
        if key in {"$and", "$or"}:
            if not isinstance(value, list) or not value:
                raise bad(f"Invalid filter: {key} takes an array of expressions that is not empty.")
            parts = [self.read(each, depth + 1) for each in value]
            if key == "$and":
                return lambda row: all(part(row) for part in parts)
            return lambda row: any(part(row) for part in parts)
        if key == "$not":
            raise unknown("$not around a whole expression; the documentation has it under a field")
        if key.startswith("$"):
            raise bad(f"Invalid filter: {key} is not an operator that can stand here.")
        return self._field(key, value)

    def _field(self, name: str, raw: Any) -> Predicate:
        if not self.schema.classic and name.startswith("_"):
            raise unknown(f"a filter on {name!r}")
        if not isinstance(raw, dict):
            raw = {"$eq": raw}
        if not raw:
            raise bad(f"Invalid filter: field {name!r} has no operator.")
        parts = [self._operator(name, operator, value) for operator, value in raw.items()]
        return parts[0] if len(parts) == 1 else lambda row: all(part(row) for part in parts)

    def _operator(self, name: str, operator: str, value: Any) -> Predicate:
        if operator == "$exists":
            if not isinstance(value, bool):
                raise bad("Invalid filter: $exists takes a boolean.")
            if not self.schema.classic and name in self.schema.fields:
                raise unknown("$exists on a field that is searched")
            return lambda row: (name in row.fields) is value
        if operator == "$not":
            if not isinstance(value, dict) or not value:
                raise bad("Invalid filter: $not takes an object of operators.")
            if {"$not", "$exists"} & set(value):
                raise unknown("a $not around $not or $exists")
            tests = [self._test(name, each, asked) for each, asked in value.items()]
            missing = self.settings.missing_matches_ne
            return _present(name, lambda held: not all(test(held) for test in tests), missing=missing)
        test = self._test(name, operator, value)
        missing = self.settings.missing_matches_ne and operator in {"$ne", "$nin"}
        return _present(name, test, missing=missing)

    def _test(self, name: str, operator: str, value: Any) -> _Test:
        if operator in _MATCHES and not self.schema.classic:
            return self._match(name, operator, value)
        self._data_field(name, operator)
        if operator in _COMPARED:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise bad(f"Invalid filter: {operator} takes a number.")
            compared, asked = _COMPARED[operator], float(value)
            return lambda held: type(held) is float and compared(held, asked)
        if operator in {"$eq", "$ne"}:
            wanted = [_scalar(value, operator)]
        elif operator in {"$in", "$nin"}:
            wanted = _list(value, operator)
        else:
            raise bad(f"Invalid filter: {operator} is not an operator.")
        sets: dict[type, frozenset[Any]] = {
            kind: frozenset(each for each in wanted if type(each) is kind) for kind in (str, float, bool)
        }
        if operator in {"$eq", "$in"}:
            return lambda held: _any_in(held, sets)
        if self.settings.any_element_ne:
            return lambda held: _any_not_in(held, sets)
        return lambda held: not _any_in(held, sets)

    def _data_field(self, name: str, operator: str) -> None:
        """Fields that are searched take no operator of metadata."""
        if not self.schema.classic and name in self.schema.fields:
            raise bad(f"Invalid filter: field {name!r} is searched and does not support {operator}.")

    def _match(self, name: str, operator: str, value: Any) -> _Test:
        field = self.schema.fields.get(name)
        if field is None or field.kind != "text":
            raise bad(f"Invalid filter: {operator} is for full-text fields and {name!r} is none.")
        if not self.words:
            raise bad(f"Invalid filter: {operator} is not supported in a filtered write; only in search.")
        if not field.plain:
            raise unknown("stemming, stop words and n-grams")
        if not isinstance(value, str):
            raise bad(f"Invalid filter: {operator} takes a string.")
        asked = tokens(value)
        if not asked:
            raise unknown(f"{operator} with a string that has no token")
        if len(asked) > MATCH_TOKENS:
            raise bad(f"Invalid filter: {operator} takes at most {MATCH_TOKENS} tokens.")
        if operator == "$match_phrase":
            return lambda held: has_phrase(held, asked)
        if operator == "$match_all":
            return lambda held: set(asked).issubset(tokens(held))
        return lambda held: not set(asked).isdisjoint(tokens(held))


def _present(name: str, test: _Test, *, missing: bool) -> Predicate:
    def keeps(row: Row) -> bool:
        held = row.fields.get(name)
        return missing if held is None else test(held)

    return keeps


def _any_in(held: Any, sets: dict[type, frozenset[Any]]) -> bool:
    if type(held) is list:
        return not sets[str].isdisjoint(held)
    return held in sets[type(held)]


def _any_not_in(held: Any, sets: dict[type, frozenset[Any]]) -> bool:
    if type(held) is list:
        return not sets[str].issuperset(held)
    return held not in sets[type(held)]


def _scalar(value: Any, operator: str) -> Any:
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return float(value)
    raise bad(f"Invalid filter: {operator} takes a string, a number or a boolean.")


def _list(value: Any, operator: str) -> list[Any]:
    if not isinstance(value, list):
        raise bad(f"Invalid filter: {operator} takes an array.")
    if not value:
        raise unknown(f"{operator} with an empty array")
    if len(value) > IN_VALUES:
        raise bad(f"Invalid filter: {operator} takes at most {IN_VALUES} values.")
    if any(isinstance(each, bool) for each in value):
        raise bad(f"Invalid filter: {operator} takes strings or numbers.")
    return [_scalar(each, operator) for each in value]
