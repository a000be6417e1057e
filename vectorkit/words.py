"""Words for the keyword leg: how a query is cut, and the FTS5 statements that memory, the embedded engine and side-cars share.

A query is words, never syntax: each is quoted before FTS5 sees it, and the expression is a bound value.
"""

import json
import math
import sqlite3
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import lru_cache

from vectorkit.ranking import tie_floor

CREATE_WORDS = "CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='unicode61')"
CREATE_WORDS_OVER_TEXTS = (
    "CREATE VIRTUAL TABLE words USING fts5(text, content='texts', content_rowid='rid', tokenize='unicode61')"
)
ADD_WORDS = "INSERT INTO words(rowid, text) VALUES (?, ?)"
REMOVE_WORDS = "INSERT INTO words(words, rowid, text) VALUES ('delete', ?, ?)"
MAX_LIMIT = 2**40  # more rows than there are, and still an integer that SQLite takes
WORDS = "words"
_TOTAL = "SELECT count(*) FROM words_docsize"
_COUNTS = "SELECT j.key, count(*) FROM json_each(?) AS j CROSS JOIN words WHERE words MATCH j.value GROUP BY j.key"
# bm25() is smaller for better (https://www.sqlite.org/fts5.html#the_bm25_function), hence the sign.
_SEARCH = """
    WITH parts AS MATERIALIZED (
        SELECT words.rowid AS rid, -bm25(words) * json_extract(j.value, '$[1]') AS part
        FROM json_each(?) AS j CROSS JOIN words WHERE words MATCH json_extract(j.value, '$[0]'))
    SELECT rid, sum(part) AS score FROM parts GROUP BY rid ORDER BY score DESC LIMIT ?"""
_SEARCH_ALLOWED = """
    WITH parts AS MATERIALIZED (
        SELECT words.rowid AS rid, -bm25(words) * json_extract(j.value, '$[1]') AS part
        FROM json_each(?) AS j CROSS JOIN words
        WHERE words MATCH json_extract(j.value, '$[0]') AND vk_allowed(words.rowid))
    SELECT rid, sum(part) AS score FROM parts GROUP BY rid ORDER BY score DESC LIMIT ?"""


@lru_cache(maxsize=256)
def named(statement: str, table: str) -> str:
    """A statement of this module for an index of another name than `words`; `table` is never a caller's text."""
    return statement.replace(WORDS, table)


@lru_cache(maxsize=4096)
def _is_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M" or unicodedata.category(character) == "Co"


class _Folding(dict[int, str]):
    """What unicode61 makes of a character in a word, for `str.translate`: its folded form, nothing, or a blank where it parts words.

    FTS5 itself is asked, 256 characters at a time: its tables are those of a Unicode version of its own.
    """

    def __missing__(self, code: int) -> str:
        codes = [one for one in range(code & ~255, (code | 255) + 1) if one and not 0xD800 <= one <= 0xDFFF]
        terms: dict[int, list[str]] = {}
        with closing(sqlite3.connect(":memory:")) as probe:
            probe.execute("CREATE VIRTUAL TABLE probe USING fts5(text, tokenize='unicode61')")
            probe.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(probe, instance)")
            probe.executemany("INSERT INTO probe(rowid, text) VALUES (?, ?)", [(one, f"a{chr(one)}a") for one in codes])
            for term, row in probe.execute("SELECT term, doc FROM terms"):
                terms.setdefault(row, []).append(term)
        self.update({one: " " if len(terms[one]) > 1 else terms[one][0][1:-1] for one in codes})
        return self.get(code, " ")


_FOLDING = _Folding()


def _spaced(text: str) -> str:
    if text.isascii():
        return "".join([c if c.isalnum() else " " for c in text])
    return "".join([c if _is_word(c) else " " for c in text])


def tokens(text: str) -> list[str]:
    """The words of a text as unicode61 cuts and folds them, in order and each as often as it stands there."""
    return text.translate(_FOLDING).split()


def split_words(text: str) -> tuple[str, ...]:
    """The distinct words of a text, in order: runs of letters, digits and the marks on them; the rest parts them.

    The cut is no finer than FTS5's unicode61 tokenizer makes it; case does not make a word another.
    """
    distinct: dict[str, str] = {}
    for word in _spaced(text).split():
        distinct.setdefault(word.translate(_FOLDING), word)
    return tuple(distinct.values())


def _weight(rows: int, holding: int) -> float:
    """What turns FTS5's score of one word into ours: the ratio of the two inverse document frequencies.

    FTS5 takes ln((N - n + 0.5) / (n + 0.5)), and 1e-6 where that is not positive, which ranks nothing by a word that half of
    the rows have; we take ln(1 + (N - n + 0.5) / (n + 0.5)), as Lucene does, which is always positive.
    """
    odds = (rows - holding + 0.5) / (holding + 0.5)
    theirs = math.log(odds) if odds > 1.0 else 0.0
    return math.log1p(odds) / (theirs if theirs > 0.0 else 1e-6)


def search(
    connection: sqlite3.Connection,
    words: Sequence[str],
    limit: int,
    allowed: Callable[[int], bool] | None,
    check: Callable[[], None] | None = None,
    table: str = WORDS,
) -> list[tuple[int, float]]:
    """(rowid, BM25 score, larger is better) of the best `limit` rows with any of the words, among the allowed ones.

    BM25 (Robertson and Zaragoza, 2009) with k1 = 1.2 and b = 0.75: the sum over the words of idf · tf (k1 + 1) / (tf + k1 (1 - b +
    b · length / average length)), idf as in `_weight`. Each word is bound as a quoted string, so none of it is syntax. Rows
    that tie with the last one asked for are returned as well, so that the id can decide. `check` is called inside the
    snapshot, and may raise.
    """
    limit = min(limit, MAX_LIMIT)
    quoted = ['"' + word.replace('"', '""') + '"' for word in words]
    statement = named(_SEARCH, table)
    if allowed is not None:
        statement = named(_SEARCH_ALLOWED, table)
        connection.create_function("vk_allowed", 1, allowed, deterministic=True)
    if connection.in_transaction:  # left by a Ctrl-C
        connection.execute("ROLLBACK")
    try:
        connection.execute("BEGIN")  # one snapshot for counts and scores
        if check is not None:
            check()
        counts = connection.execute(named(_COUNTS, table), (json.dumps(quoted),)).fetchall()
        if not counts:
            return []
        (rows,) = connection.execute(named(_TOTAL, table)).fetchone()
        weighted = json.dumps([[quoted[at], _weight(rows, holding)] for at, holding in counts])
        asked = limit + 1
        while True:
            found = connection.execute(statement, (weighted, asked)).fetchall()
            if len(found) < asked or found[-1][1] < tie_floor(found[limit - 1][1]):
                return found
            asked *= 4
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
