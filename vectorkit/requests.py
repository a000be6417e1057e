"""Where one request ends and the next begins, for stores that take so many bytes of rows and no more."""

from collections.abc import Sequence


def cut(sizes: Sequence[float], most: float) -> list[int]:
    """The ends of requests of at most so many bytes, given the bytes of each part; a part that is larger has one of its own."""
    stops, size = [], 0.0
    for at, more in enumerate(sizes):
        if size and size + more > most:
            stops.append(at)
            size = 0.0
        size += more
    return [*stops, len(sizes)]
