"""The analyzer of full-text fields and BM25 over them.

Tokens are runs of letters and digits, lowercased, cut to 40 characters; stemming, stop words and n-grams are not modelled.
The service does not say which BM25 it computes: k1 1.2, b 0.75, Lucene's idf, lengths exact.
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from math import log

K1, B = 1.2, 0.75
LONGEST_TOKEN = 40
_TOKEN = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The raw tokens, of which the limits speak."""
    return _TOKEN.findall(text)


@lru_cache(maxsize=65536)
def tokens(text: str) -> tuple[str, ...]:
    """The tokens, in order."""
    return tuple(word.lower()[:LONGEST_TOKEN] for word in words(text))


def has_phrase(text: str, phrase: tuple[str, ...]) -> bool:
    """Whether the tokens stand side by side, in this order."""
    found = tokens(text)
    return any(found[at : at + len(phrase)] == phrase for at in range(len(found) - len(phrase) + 1))


class TextIndex:
    """One field of one namespace."""

    def __init__(self) -> None:
        self._postings: dict[str, dict[str, int]] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._lengths: dict[str, int] = {}
        self._total = 0

    def put(self, key: str, text: str | None) -> None:
        """What a row now holds; `None`: nothing."""
        old = self._counts.pop(key, None)
        if old is not None:
            self._total -= self._lengths.pop(key)
            for token in old:
                postings = self._postings[token]
                del postings[key]
                if not postings:
                    del self._postings[token]
        if text is None:
            return
        counts = Counter(tokens(text))
        self._counts[key] = counts
        self._lengths[key] = counts.total()
        self._total += self._lengths[key]
        for token, count in counts.items():
            self._postings.setdefault(token, {})[key] = count

    def add_scores(self, asked: Iterable[str], scores: dict[str, float]) -> None:
        """Add to the scores of the rows that hold any of the tokens."""
        rows = len(self._counts)
        mean = self._total / rows if rows else 1.0
        for token in dict.fromkeys(asked):
            postings = self._postings.get(token, {})
            idf = log(1 + (rows - len(postings) + 0.5) / (len(postings) + 0.5))
            for key, count in postings.items():
                norm = K1 * (1 - B + B * self._lengths[key] / mean)
                scores[key] = scores.get(key, 0.0) + idf * count * (K1 + 1) / (count + norm)
