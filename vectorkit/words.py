"""Words for the keyword leg: how a query is cut, and the FTS5 statements that memory, the embedded engine and side-cars share.

A query is words, never syntax: each is quoted before FTS5 sees it, and the expression is a bound value.
"""

import sqlite3
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

CREATE_WORDS = "CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='unicode61')"
CREATE_WORDS_OVER_ROWS = (
    "CREATE VIRTUAL TABLE words USING fts5(text, content='rows', content_rowid='rid', tokenize='unicode61')"
)
ADD_WORDS = "INSERT INTO words(rowid, text) VALUES (?, ?)"
REMOVE_WORDS = "INSERT INTO words(words, rowid, text) VALUES ('delete', ?, ?)"
# bm25() is smaller for better (https://www.sqlite.org/fts5.html#the_bm25_function), hence the sign.
SEARCH = "SELECT rowid, -bm25(words) AS score FROM words WHERE words MATCH ? ORDER BY bm25(words) LIMIT ?"
SEARCH_ALLOWED = (
    "SELECT rowid, -bm25(words) AS score FROM words WHERE words MATCH ? AND vk_allowed(rowid) "
    "ORDER BY bm25(words) LIMIT ?"
)


@lru_cache(maxsize=4096)
def _is_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M" or unicodedata.category(character) == "Co"


def split_words(text: str) -> tuple[str, ...]:
    """The distinct words of a text, in order: runs of letters, digits and the marks on them; the rest parts them.

    The cut is no finer than FTS5's unicode61 tokenizer makes it; case does not make a word another.
    """
    if text.isascii():
        spaced = "".join([c if c.isalnum() else " " for c in text])
    else:
        spaced = "".join([c if _is_word(c) else " " for c in text])
    distinct: dict[str, str] = {}
    for word in spaced.split():
        distinct.setdefault(word.casefold(), word)
    return tuple(distinct.values())


def expression(words: Sequence[str]) -> str:
    """The FTS5 expression for any of the words, each a quoted string."""
    return " OR ".join(['"' + word.replace('"', '""') + '"' for word in words])


def search(
    connection: sqlite3.Connection, words: Sequence[str], limit: int, allowed: Callable[[int], bool] | None
) -> list[tuple[int, float]]:
    """(rowid, BM25 score, larger is better) of the best `limit` rows with any of the words, among the allowed ones.

    Robertson and Zaragoza's BM25 with k1 = 1.2, b = 0.75, as FTS5 computes it. Rows that tie with the last one asked for are
    returned as well, so that the id can decide.
    """
    if allowed is None:
        statement = SEARCH
    else:
        statement = SEARCH_ALLOWED
        connection.create_function("vk_allowed", 1, allowed, deterministic=True)
    asked = limit + 1
    while True:
        rows = connection.execute(statement, (expression(words), asked)).fetchall()
        if len(rows) < asked or rows[-1][1] < rows[limit - 1][1] - 1e-6 * max(1.0, abs(rows[limit - 1][1])):
            return rows
        asked *= 4
