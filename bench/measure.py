"""Alternating timed runs and their medians: what every benchmark here prints is a ratio from one run on one machine."""

import statistics
import time
from collections.abc import Callable


def alternate(ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int) -> tuple[float, float]:
    """Median seconds of each, run in turn A B A B …, after one warm-up each."""
    ours()
    theirs()
    a, b = [], []
    for _ in range(rounds):
        a.append(once(ours))
        b.append(once(theirs))
    return statistics.median(a), statistics.median(b)


def once(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def row(what: str, figure: str, bar: str) -> None:
    """One line of the report."""
    print(f"{what:<62}{figure:>34}   bar {bar}", flush=True)
