"""A namespace: a log of writes, and two views that follow it, each with its own delay. A view is always a prefix of the log."""

import time
from collections import deque
from collections.abc import Callable

from vectorkit_pinecone.double.rows import View

Write = Callable[[View], None]


class Follower:
    """A view, and the writes that it has yet to see."""

    def __init__(self) -> None:
        self._view = View()
        self._waiting: deque[tuple[float, int, Write]] = deque()

    def add(self, due: float, lsn: int, write: Write) -> None:
        """A write, to be seen from `due` on; never before one that was accepted earlier."""
        self._waiting.append((due, lsn, write))

    def at(self, now: float) -> View:
        """The view as of now."""
        while self._waiting and self._waiting[0][0] <= now:
            _, lsn, write = self._waiting.popleft()
            write(self._view)
            self._view.lsn = lsn
        return self._view


class Namespace:
    """One namespace of one index."""

    def __init__(self) -> None:
        self.lsn = 0
        self._searched = Follower()
        self._fetched = Follower()

    def write(self, write: Write, delay: float, fetch_delay: float) -> int:
        """Accept a write; its sequence number."""
        self.lsn += 1
        now = time.monotonic()
        self._searched.add(now + delay, self.lsn, write)
        self._fetched.add(now + fetch_delay, self.lsn, write)
        return self.lsn

    def searched(self) -> View:
        """What search and query see."""
        return self._searched.at(time.monotonic())

    def fetched(self) -> View:
        """What fetch, list and counts see."""
        return self._fetched.at(time.monotonic())

    def settle(self) -> None:
        """Every accepted write is seen from now on."""
        self._searched.at(float("inf"))
        self._fetched.at(float("inf"))
