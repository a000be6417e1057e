"""The seal beside a database: how far it had come, and, once closed in order, the digest of its file.

SQLite keeps no checksums: a flipped byte is a wrong answer, a log cut short is a silent loss. A clean seal proves the file
whole; its sequence number, never ahead of what is durable, shows a log that lost acknowledged writes.
"""

import hashlib
import os
import threading
import weakref
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_OPEN = "-" * 64
_LENGTH = 32 + 1 + 20 + 1 + 20 + 1 + 64 + 1 + 8 + 1


# POSIX drops all locks that a process holds on a file when it closes any descriptor of it, SQLite's too
# (https://www.sqlite.org/howtocorrupt.html, 2.2). So what was opened to be digested stays open as long as a database is.
_guard = threading.Lock()
_attached: dict[tuple[int, int], tuple[list[None], list[int]]] = {}


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def attach(path: Path) -> tuple[int, int]:
    """Before SQLite opens a database: from now on nothing here closes a descriptor of it. OSError."""
    key = _inode(path.stat())
    with _guard:
        _attached.setdefault(key, ([], []))[0].append(None)
    return key


def detach(key: tuple[int, int]) -> None:
    """After SQLite has closed it."""
    with _guard:
        users, parked = _attached[key]
        users.pop()
        if not users:
            del _attached[key]
            for fd in parked:
                os.close(fd)


def digest(path: Path) -> str:
    """SHA-256 of a file. OSError."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        with os.fdopen(fd, "rb", closefd=False) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    finally:
        with _guard:
            here = _attached.get(_inode(os.fstat(fd)))
            if here is None:
                os.close(fd)
            else:
                here[1].append(fd)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a seal says. sha256 is None while a writer has the database open, and after one that crashed."""

    uid: str
    seq: int
    size: int
    sha256: str | None


class Seal:
    """The seal of one database: `<name>.seal` beside it. Losing it loses a proof, never a row, so its errors are not raised."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_suffix(".seal")
        self._database = database
        self._fd: int | None = None
        self._end: Callable[[], object] = lambda: None

    def read(self) -> Sealed | None:
        """What it says; None when it is not there or is damaged itself."""
        try:
            raw = self.path.read_bytes()
            line = raw.decode("ascii")
            uid, seq, size, sha256, check = line.split()
            if len(raw) != _LENGTH or int(check, 16) != zlib.crc32(raw[: _LENGTH - 10]):
                return None
            return Sealed(uid, int(seq), int(size), None if sha256 == _OPEN else sha256)
        except (OSError, ValueError):
            return None

    def proves(self, sealed: Sealed | None) -> bool:
        """Whether the database is byte for byte the one that was sealed, with nothing in its log."""
        if sealed is None or sealed.sha256 is None:
            return False
        log = self._database.with_name(self._database.name + "-wal")
        try:
            if log.exists() and log.stat().st_size:
                return False
            return self._database.stat().st_size == sealed.size and digest(self._database) == sealed.sha256
        except OSError:
            return False

    def note(self, uid: str, seq: int) -> None:
        """After a commit: open, and this far. One small write without fsync: it may lag behind, never run ahead."""
        with suppress(OSError):
            self._open()
            self._write(uid, seq, 0, _OPEN)

    def unseal(self, uid: str, seq: int) -> None:
        """Before the first change, durably: else a power cut could leave the digest beside a file that has moved on."""
        self.note(uid, seq)
        with suppress(OSError):
            if self._fd is not None:
                os.fsync(self._fd)

    def close(self, uid: str, seq: int) -> None:
        """The database is closed and its log folded in: seal it."""
        with suppress(OSError):
            self._open()
            self._write(uid, seq, self._database.stat().st_size, digest(self._database))
        self.release()

    def _open(self) -> None:
        if self._fd is None:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
            self._end = weakref.finalize(self, os.close, self._fd)  # a handle that is dropped unclosed lets go too

    def _write(self, uid: str, seq: int, size: int, sha256: str) -> None:
        assert self._fd is not None
        body = f"{uid:32} {seq:020d} {size:020d} {sha256} "
        os.lseek(self._fd, 0, os.SEEK_SET)
        os.write(self._fd, f"{body}{zlib.crc32(body[:-1].encode()):08x}\n".encode())

    def release(self) -> None:
        """Let go of the file, leaving it as it is."""
        if self._fd is not None:
            self._fd = None
            with suppress(OSError):
                self._end()
