"""What the servers under test have in common: how one is started, ended, killed, frozen and thawed.

A server keeps its port over a restart, because what is tested is often whether a client finds it again.
"""

import signal
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from integration.servers.keeper import Keeper, ServerError, free_port

_READY = 60.0
_ATTEMPTS = 8
_TAKEN = "Address already in use"


class Served(ABC):
    """A server on the loopback interface. Nothing of it outlives the process that made it.

    folder: everything it stores, and its log. user: whom it runs as, None for ourselves.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[int]
    user: str | None = None

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.folder = Path(tempfile.mkdtemp(prefix=f"vk-{self.name}-"))
        self._keeper = Keeper(self.folder)
        self._lock = threading.Lock()
        self._running = False

    @property
    @abstractmethod
    def command(self) -> list[str]:
        """What is run."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves."""

    def start(self) -> None:
        """Run it, on the port it had before; back when it answers."""
        with self._lock:
            if self._running:
                return
            kept = self.port
            for attempt in range(_ATTEMPTS):
                self.port = kept or free_port()
                if self._came_up():
                    self._running = True
                    return
                time.sleep(0.1 * attempt)
            raise ServerError(f"{self.name} did not start on port {self.port}:\n{self.log()[-2_000:]}")

    def stop(self) -> None:
        """An orderly end, and SIGKILL for what is left after ten seconds."""
        with self._lock:
            self._keeper.signal_all(signal.SIGCONT)
            self._keeper.signal(self.stop_signal)
            self._keeper.wait(10)
            self._keeper.kill()
            self._running = False

    def kill(self) -> None:
        """SIGKILL to all of it; back when none is left."""
        with self._lock:
            self._keeper.kill()
            self._running = False

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP to all of it: it takes connections, and answers nothing."""
        self._keeper.signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._keeper.signal_all(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its data. Twice is fine."""
        with self._lock:
            self._running = False
            self._keeper.close()

    def log(self) -> str:
        """Everything it wrote."""
        path = self.folder / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _came_up(self) -> bool:
        """Whether it did; not when the port was taken by another."""
        before = len(self.log())
        self._keeper.run(self.command, self.folder / "log", user=self.user)
        end = time.monotonic() + _READY
        while time.monotonic() < end and self._keeper.wait(0.02) is None:
            if self.answers():
                return True
        self._keeper.kill()
        said = self.log()[before:]
        if _TAKEN in said:
            return False
        raise ServerError(f"{self.name} did not start:\n{said[-2_000:]}")
