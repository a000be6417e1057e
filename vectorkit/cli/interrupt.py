"""Ctrl-C during a load: the batch in hand is finished, then the load ends, and the store is closed as ever.

A second Ctrl-C stops at once; the store then rolls back what it had in hand.
"""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from vectorkit.cli.exits import say

T = TypeVar("T")


class Stop:
    """Whether Ctrl-C was pressed. `until` gives rows until then; once `over` is set, while the store closes, it is ignored."""

    def __init__(self) -> None:
        self.pressed = False
        self.over = False

    def until(self, rows: Iterable[T]) -> Iterator[T]:
        """The rows, ending early once Ctrl-C was pressed."""
        for row in rows:
            if self.pressed:
                return
            yield row

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.over:
            return
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
        say("stopping after the batch in hand; Ctrl-C again stops at once")


@contextmanager
def soft_interrupt() -> Iterator[Stop]:
    """Within it, the first Ctrl-C is only noted. Outside the main thread, where signals cannot be had, it does nothing."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, stop.handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
