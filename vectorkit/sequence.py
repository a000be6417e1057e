"""Sequence numbers for stores that give none: docs/layout.md, section 1.7. Rising within a handle, and nearly so across them."""

import threading
import time


class Rising:
    """The clock in microseconds, or one more than the last; for threads."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self, count: int) -> int:
        """The first of so many."""
        with self._lock:
            first = max(self._last + 1, time.time_ns() // 1_000)
            self._last = first + count - 1
            return first
