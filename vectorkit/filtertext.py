"""The text form of filters, for the command line: `year >= 2024 and not (tags contains "x" or lang in ["en", "de"])`.

A hand-written descent over a dozen tokens; fields that are no plain name stand in back quotes.
"""

import json
import re
from typing import Any, NoReturn

from vectorkit.errors import InvalidFilter
from vectorkit.filters import (
    MAX_DEPTH,
    And,
    Compare,
    ContainsAll,
    ContainsAny,
    Eq,
    Exists,
    Filter,
    In,
    Not,
    Or,
    Order,
    StartsWith,
    parse_date,
)

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<field>`(?:[^`\\]|\\.)*`)
    | (?P<number>[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+(?:[eE][-+]?\d+)?)(?![\w.]))
    | (?P<op>==|!=|>=|<=|=|>|<|&|\||~|\(|\)|\[|\]|,)
    | (?P<word>[^\W\d][\w.:/-]*)
    )""",
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = frozenset(
    [
        "and",
        "or",
        "not",
        "in",
        "contains",
        "contains_any",
        "contains_all",
        "startswith",
        "exists",
        "missing",
        "true",
        "false",
        "date",
    ]
)
_BARE = re.compile(r"[^\W\d][\w.:/-]*\Z")
_ORDERS: dict[str, Order] = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def is_bare(field: str) -> bool:
    """Whether a field can be written without back quotes."""
    return bool(_BARE.match(field)) and field.lower() not in _KEYWORDS and field not in {"all", "any"}


def parse(text: str) -> Filter:
    """A filter from text; JSON text (beginning with `{`) is taken too. Raises InvalidFilter saying where it stopped."""
    if not isinstance(text, str):
        raise InvalidFilter(f"the text form is a string, got {text!r}")
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidFilter(f"the filter is no JSON: {error}") from None
        return Filter.from_json(document)
    parser = _Parser(text)
    found = parser.either(0)
    if parser.kind:
        parser.stop("expected 'and', 'or' or the end")
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.start = 0
        self.kind = ""
        self.token = ""
        self.step()

    def step(self) -> None:
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            self.start = self.at
            if self.text[self.at :].strip():
                self.kind, self.token = "?", self.text[self.at :].strip()[:20]
                self.stop("cannot read this")
            self.kind = self.token = ""
            return
        self.kind = str(found.lastgroup)
        self.token = found.group(self.kind)
        self.start = found.start(self.kind)
        self.at = found.end()

    def stop(self, why: str) -> NoReturn:
        near = f"at {self.start + 1}: {self.token!r}" if self.kind else "at the end"
        raise InvalidFilter(f"cannot read the filter {near}: {why}")

    def word(self, *words: str) -> bool:
        if self.kind == "word" and self.token.lower() in words:
            self.step()
            return True
        return False

    def op(self, *ops: str) -> str:
        if self.kind == "op" and self.token in ops:
            token = self.token
            self.step()
            return token
        return ""

    def either(self, depth: int) -> Filter:
        if depth > 2 * MAX_DEPTH:
            raise InvalidFilter(f"the filter is nested deeper than {MAX_DEPTH}")
        parts = [self.both(depth)]
        while self.word("or") or self.op("|"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else Or(parts)

    def both(self, depth: int) -> Filter:
        parts = [self.negation(depth)]
        while self.word("and") or self.op("&"):
            parts.append(self.negation(depth))
        return parts[0] if len(parts) == 1 else And(parts)

    def negation(self, depth: int) -> Filter:
        flip = False
        while self.word("not") or self.op("~"):
            flip = not flip
        found = self.test(depth)
        return ~found if flip else found

    def test(self, depth: int) -> Filter:
        if self.op("("):
            found = self.either(depth + 1)
            self.expect(")")
            return found
        if self.kind == "word" and self.token in {"true", "false"}:
            return And() if self.take() == "true" else Or()
        if self.kind == "word" and self.token in {"all", "any"}:
            kind = self.take()
            if not self.op("("):
                return self.comparison(kind)
            found = self.either(depth + 1)
            self.expect(")")
            return And((found,)) if kind == "all" else Or((found,))
        return self.comparison(self.field())

    def take(self) -> str:
        token = self.token
        self.step()
        return token

    def expect(self, op: str) -> None:
        if not self.op(op):
            self.stop(f"expected {op!r}")

    def field(self) -> str:
        if self.kind == "field":
            return re.sub(r"\\(.)", r"\1", self.take()[1:-1], flags=re.DOTALL)
        if self.kind != "word" or self.token.lower() in _KEYWORDS:
            self.stop("expected a field (write an unusual one in `back quotes`)")
        return self.take()

    def comparison(self, field: str) -> Filter:
        if self.kind == "op":
            op = self.op("==", "=", "!=", ">", ">=", "<", "<=")
            match op:
                case "==" | "=":
                    return Eq(field, self.value(field, op))
                case "!=":
                    return Not(Eq(field, self.value(field, op)))
                case ">" | ">=" | "<" | "<=":
                    return Compare(field, _ORDERS[op], self.value(field, op))
                case _:
                    pass
        if self.word("not"):
            if not self.word("in"):
                self.stop("expected 'in' after 'not'")
            return Not(In(field, self.values(field, "not in")))
        if self.word("in"):
            return In(field, self.values(field, "in"))
        if self.word("contains"):
            return ContainsAny(field, (self.value(field, "contains"),))
        if self.word("contains_any"):
            return ContainsAny(field, self.values(field, "contains_any"))
        if self.word("contains_all"):
            return ContainsAll(field, self.values(field, "contains_all"))
        if self.word("startswith"):
            return StartsWith(field, self.value(field, "startswith"))
        if self.word("exists"):
            return Exists(field)
        if self.word("missing"):
            return Not(Exists(field))
        return self.stop(
            f"after the field {field!r} expected == != > >= < <= in, not in, contains, contains_any, contains_all, "
            "startswith, exists or missing"
        )

    def values(self, field: str, operator: str) -> list[Any]:
        close = {"[": "]", "(": ")"}.get(self.op("[", "("))
        if close is None:
            self.stop("expected a list in [ ]")
        found: list[Any] = []
        while not self.op(close):
            if found:
                self.expect(",")
            found.append(self.value(field, operator))
        return found

    def value(self, field: str, operator: str) -> Any:
        if self.word("date"):
            if self.kind != "string":
                self.stop('expected a date in quotes, as in date "2024-05-01T12:00:00Z"')
            return parse_date(self.string(), field, operator)
        match self.kind:
            case "string":
                return self.string()
            case "number":
                token = self.take()
                try:
                    return float(token) if any(c in token for c in ".eE") else int(token)
                except ValueError as error:
                    raise InvalidFilter(f"{field!r} {operator}: {error}", field=field, operator=operator) from None
            case "word" if self.token in {"true", "false"}:
                return self.take() == "true"
            case _:
                return self.stop('expected a value: a number, a string in quotes, true, false or date "…"')

    def string(self) -> str:
        token = self.take()
        body = token[1:-1]
        if token[0] == "'":
            body = body.replace("\\'", "'").replace('"', '\\"')
        try:
            return str(json.loads(f'"{body}"', strict=False))
        except ValueError:
            raise InvalidFilter(f"cannot read the string {token}: backslashes follow JSON's rules") from None
