"""The one writable handle of a directory: an operating-system lock on a file, which dies with its owner.

Two opens in one process exclude each other too, because each holds its own open file.
"""

import os
import time
import weakref
from contextlib import suppress
from pathlib import Path

from vectorkit.errors import Locked, Unavailable

if os.name == "nt":
    import msvcrt

    def _try(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True

    def _free(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]

else:
    import fcntl

    def _try(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _free(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


class DirectoryLock:
    """Held from construction until `release`. Raises Locked when somebody else holds it for longer than `timeout` s."""

    def __init__(self, path: Path, shown: str, timeout: float) -> None:
        try:
            self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            raise Unavailable(f"{shown}: the lock file cannot be opened: {error.strerror}") from error
        end = time.monotonic() + timeout
        while not _try(self._fd):
            if time.monotonic() >= end:
                owner = _owner(self._fd)
                os.close(self._fd)
                self._fd = None
                raise Locked(
                    f"{shown} is open for writing elsewhere{owner}; close that handle, or connect with read_only=True"
                )
            time.sleep(0.02)
        with suppress(OSError):  # a full disk: the number is only for the message
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0) if hasattr(os, "pwrite") else None
        _held.add(self)
        self._end = weakref.finalize(self, os.close, self._fd)  # a handle that is dropped unclosed lets go too

    def fileno(self) -> int:
        """The descriptor: a child process that is given it holds the lock too, until it ends. ValueError once released."""
        if self._fd is None:
            raise ValueError("the lock was released")
        return self._fd

    def release(self) -> None:
        """Let go; twice is fine."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            _free(fd)
            self._end()

    def forget(self) -> None:
        """In a forked child: drop the inherited file, so that the lock lives and dies with the parent."""
        if self._fd is not None:
            self._fd = None
            self._end()


def _owner(fd: int) -> str:
    try:
        text = os.pread(fd, 20, 0).decode() if hasattr(os, "pread") else ""
    except (OSError, UnicodeDecodeError):
        return ""
    return f" (process {text})" if text.isdigit() else ""


_held: "weakref.WeakSet[DirectoryLock]" = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
