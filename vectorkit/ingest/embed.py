"""Vectors from text without a model, a download or a network: feature hashing of words and sub-words.

It exists so that the first command works anywhere and that tests have real vectors; it knows spelling, not meaning.
"""

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vectorkit.errors import FingerprintMismatch, InvalidArgument, Unsupported
from vectorkit.types import Embedding, FloatArray

_U64 = npt.NDArray[np.uint64]

REVISION = "1"
"""Rises whenever a text would come out as another vector; collections made with an older one are then refused."""

_NAME = re.compile(r"vectorkit-hash-(\d{1,5})\Z")
_WORD = re.compile(r"\w+")
_ASCII_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_HAN = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"  # Han and Kana, written without spaces
)
_HAN_RUN = re.compile(f"[{_HAN}]")
_ANY_PART = re.compile(rf"[{_HAN}]+|\d+|[^\W\d_{_HAN}]+")
_FUNCTION_WORDS = (
    "a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it its me "
    "my no nor not of on or our self she should so such than that the their them then there these they this those to too us "
    "was we were what when where which who why will with would you your"
)
_STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
_STOP_WEIGHT = 0.1
_SLOTS = 8  # a word's own sign goes to so many places, so that one collision spoils an eighth of it and not the whole
_KEPT_WORDS = 32_768
_BLOCK = 256
_GOLDEN = 0x9E3779B97F4A7C15


class Embedder(Protocol):
    """What makes vectors from texts; `HashEmbedder` is one, a wrapper of any model is another."""

    @property
    def dimension(self) -> int:
        """The length of every vector."""

    @property
    def fingerprint(self) -> Embedding:
        """What a collection remembers, so that vectors of two embedders never meet."""

    def embed(self, texts: Sequence[str], /) -> FloatArray:
        """(n, d) float32, one row a text, in order; not one of them zero or NaN."""


class HashEmbedder:
    """Texts to unit vectors by signed feature hashing of words and character n-grams (3 to 5).

    **It is lexical, not a semantic model**: texts are near when they share words or parts of words ("compress",
    "compression"), and "car" is as far from "automobile" as from anything. Use it for demonstrations, tests and as a
    baseline; a trained model finds what is meant, this finds what is written.

    A word counts by the 3/4th power of its frequency, a short one less, an English function word a tenth; identifiers
    are split (`parse_date`, `parseDate`), Chinese and Japanese cut into pairs of characters, case is ignored. Each word's vector has length 1 before that: half of its
    square is the word as such, half its n-grams. A text without any word gets one fixed unit vector. The same text gives the
    same vector in every process, on every platform and Python version, but for the last bits of a float32 and for
    characters newer than a Python's Unicode tables. May be shared between threads.

    After Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (ICML 2009), and, for the sub-words,
    Bojanowski et al., "Enriching Word Vectors with Subword Information" (TACL 2017).

    dimension: 16 to 65,536. More means fewer accidental likenesses: two unrelated texts differ from 0 by about
    1/sqrt(dimension). Raises InvalidArgument.
    """

    __slots__ = ("_dimension", "_lock", "_rows", "_slots")

    def __init__(self, dimension: int = 384) -> None:
        if isinstance(dimension, bool) or not isinstance(dimension, int) or not 16 <= dimension <= 65_536:
            raise InvalidArgument(f"dimension must be an int from 16 to 65536, got {dimension!r}")
        self._dimension = dimension
        self._lock = threading.Lock()
        self._forget()

    @property
    def dimension(self) -> int:
        """The length of every vector."""
        return self._dimension

    @property
    def fingerprint(self) -> Embedding:
        """`Embedding("vectorkit-hash-384", revision="1", normalized=True)`, by dimension."""
        return Embedding(f"vectorkit-hash-{self._dimension}", revision=REVISION, normalized=True)

    def __repr__(self) -> str:
        return f"HashEmbedder(dimension={self._dimension})"

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """(n, dimension) float32, every row of length 1. Raises InvalidArgument for anything that is no string."""
        if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
            raise InvalidArgument(f"embed takes a list of texts, got {type(texts).__name__}")
        out = np.empty((len(texts), self._dimension), np.float32)
        with self._lock:
            for start in range(0, len(texts), _BLOCK):
                counts = [_count(text) for text in texts[start : start + _BLOCK]]
                self._prepare(counts)
                for row, words in enumerate(counts, start):
                    out[row] = self._sum(words)
        return out

    # The vectors of the words met so far are kept as rows of one matrix; when there are too many, all are forgotten, since
    # the frequent ones are back at once.

    def _forget(self) -> None:
        self._slots: dict[str, int] = {}
        self._rows = np.empty((1024, self._dimension), np.float32)

    def _prepare(self, counts: Sequence[Counter[str]]) -> None:
        """Learn the new words of a whole block at once, which costs a fifth of learning them text by text."""
        words = dict.fromkeys(word for count in counts for word in count)
        if len(words) <= _KEPT_WORDS:
            self._look_up([*words])

    def _sum(self, words: Counter[str]) -> FloatArray:
        total = np.zeros(self._dimension, np.float32)
        for part in _parts(list(words.items())):
            slots = self._look_up([word for word, _ in part])  # first: it may replace the rows
            rows = self._rows[slots]
            weights = np.sqrt(np.array([count for _, count in part], np.float64))
            weights *= np.sqrt(weights)  # the 3/4th power by square roots alone, which every platform rounds alike
            total += weights.astype(np.float32) @ rows
        length = float(np.sqrt(np.dot(total, total)))
        if length < 1e-6:  # no word at all, or words that cancel to the last bit
            total[:] = 0.0
            total[0] = length = 1.0
        return total / np.float32(length)

    def _look_up(self, words: Sequence[str]) -> list[int]:
        new = [word for word in words if word not in self._slots]
        if new:
            if len(self._slots) + len(new) > _KEPT_WORDS:
                self._forget()
                new = list(words)
            self._learn(new)
        return [self._slots[word] for word in words]

    def _learn(self, words: Sequence[str]) -> None:
        first = len(self._slots)
        needed = first + len(words)
        if needed > len(self._rows):
            grown = np.empty((max(needed, 2 * len(self._rows)), self._dimension), np.float32)
            grown[:first] = self._rows[:first]
            self._rows = grown
        self._rows[first:needed] = _word_vectors(words, self._dimension)
        self._slots.update(zip(words, range(first, needed), strict=True))


def embedder_for(embedding: Embedding) -> HashEmbedder:
    """The offline embedder that a fingerprint names.

    Raises Unsupported when another model made the vectors, FingerprintMismatch when an embedder of ours did that this
    version no longer makes the same.
    """
    found = _NAME.match(embedding.name)
    if found is None:
        raise Unsupported(
            f"the vectors were made by {embedding.name!r}, which vectorkit cannot run; make the vector with that model and "
            "pass it (vector=, or --vector on the command line), or search by keyword"
        )
    try:
        embedder = HashEmbedder(int(found[1]))
    except InvalidArgument as error:
        raise FingerprintMismatch(f"{embedding.name!r} is no embedder of vectorkit: {error}") from None
    if embedding != embedder.fingerprint:
        raise FingerprintMismatch(
            f"the vectors were made by {embedding.name!r} revision {embedding.revision!r}, this version of vectorkit makes "
            f"revision {REVISION!r}; load the texts into a new collection"
        )
    return embedder


# --------------------------------------------------------------------------------------------- words


def _count(text: str) -> Counter[str]:
    if not isinstance(text, str):
        raise InvalidArgument(f"a text to embed is a string, got {type(text).__name__}")
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    words: list[str] = []
    for token in _WORD.findall(text):
        words += _split(token) if len(token) <= 64 else _split_anew(token)
    return Counter(words)


def _split_anew(token: str) -> tuple[str, ...]:
    """The words of an identifier in lower case, and where there are several, also all of them as one.

    Chinese and Japanese, which put no space between words, are cut into overlapping pairs of characters.
    """
    if token.isascii():
        parts = [part.lower() for part in _ASCII_PART.findall(token)]
    else:
        parts = []
        for run in _ANY_PART.findall(token):
            if _HAN_RUN.match(run):
                parts += [run[at : at + 2] for at in range(max(1, len(run) - 1))]
            else:
                parts.append(run.casefold())
    if len(parts) < 2 or _HAN_RUN.search(token):
        return tuple(parts)
    return (*parts, "".join(parts))


_split = lru_cache(maxsize=32_768)(_split_anew)


def _parts(items: list[tuple[str, int]]) -> Iterable[list[tuple[str, int]]]:
    """Pieces of at most half of what is kept, so that a text of a million words takes no more memory than others."""
    size = _KEPT_WORDS // 2
    return (items[start : start + size] for start in range(0, len(items), size))


def _weight(word: str) -> float:
    return _STOP_WEIGHT if word in _STOP_WORDS else min(1.0, 0.4 + 0.1 * len(word))


# --------------------------------------------------------------------------------------------- hashing


def _mix(x: _U64) -> _U64:
    """The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014; https://prng.di.unimi.it/splitmix64.c)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _word_vectors(words: Sequence[str], dimension: int) -> npt.NDArray[np.float64]:
    """(n, d): each word's vector times its weight. All words are hashed together, as one array of code points."""
    out = np.empty((len(words), dimension))
    for start in range(0, len(words), 2048):
        chunk = words[start : start + 2048]
        vectors = _own_signs(chunk, dimension) + _ngram_signs(chunk, dimension)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        lengths[lengths == 0.0] = 1.0
        weights = np.array([_weight(word) for word in chunk]) / lengths
        out[start : start + 2048] = vectors * weights[:, None]
    return out


def _code_points(words: Sequence[str]) -> tuple[_U64, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The code points of `<word>` after `<word>`, the word each belongs to, and where each word begins."""
    text = "".join(f"<{word}>" for word in words)
    points = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint64)
    lengths = np.array([len(word) + 2 for word in words])
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    return points, np.repeat(np.arange(len(words)), lengths), starts


def _own_signs(words: Sequence[str], dimension: int) -> npt.NDArray[np.float64]:
    points, owner, starts = _code_points(words)
    position = (np.arange(len(points)) - starts[owner]).astype(np.uint64)
    hashed = np.add.reduceat(_mix(points + np.uint64(_GOLDEN) * (position + np.uint64(1))), starts)
    salts = np.array([_GOLDEN * (slot + 1) % 2**64 for slot in range(_SLOTS)], np.uint64)
    every = np.repeat(np.arange(len(words)), _SLOTS)
    return _scatter(_mix(hashed[:, None] + salts).ravel(), every, len(words), dimension, np.full(len(words), _SLOTS))


def _ngram_signs(words: Sequence[str], dimension: int) -> npt.NDArray[np.float64]:
    points, owner, starts = _code_points(words)
    ends = np.concatenate((starts[1:], [len(points)]))
    hashes, owners = [], []
    for size in (3, 4, 5):
        first = np.arange(max(0, len(points) - size + 1))
        inside = owner[first] == owner[first + size - 1]
        whole = (first == starts[owner[first]]) & (first + size == ends[owner[first]])
        first = first[inside & ~whole]
        hashed = np.full(len(first), size, np.uint64)
        for step in range(size):
            hashed = _mix(hashed + np.uint64(_GOLDEN) + points[first + step])
        hashes.append(hashed)
        owners.append(owner[first])
    joined = np.concatenate(owners)
    counts = np.bincount(joined, minlength=len(words))
    return _scatter(np.concatenate(hashes), joined, len(words), dimension, counts)


def _scatter(
    hashed: _U64, owner: npt.NDArray[np.int64], rows: int, dimension: int, counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """(rows, d): each hash adds its sign (lowest bit) at its place (the others), over the root of its row's count."""
    places = ((hashed >> np.uint64(1)) % np.uint64(dimension)).astype(np.int64)
    signs = (hashed & np.uint64(1)).astype(np.float64) * 2.0 - 1.0
    signs /= np.sqrt(counts[owner])
    flat = np.bincount(owner * dimension + places, signs, minlength=rows * dimension)
    return np.asarray(flat, np.float64).reshape(rows, dimension)
