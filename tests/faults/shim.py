"""The other half of shim.c: builds it, and sets what it does through the file that both processes map.

A child arms it for itself, just before the calls that are to be counted; the parent reads what became of it.
"""

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar

MISSING = "there is no C compiler (cc) to build the shim that makes system calls fail"


class Kind(IntEnum):
    """What a call does."""

    WRITE = 0
    FSYNC = 1
    RENAME = 2
    TRUNCATE = 3
    CREATE = 4
    REMOVE = 5


class Class(IntEnum):
    """To which file it does it."""

    DATABASE = 0
    INDEX = 1
    OTHER = 2


class Action(IntEnum):
    """What the shim does with a call that counted. TORN: half of a write, then the error; SHORT: half, and it says so."""

    NOTHING = 0
    FAIL = 1
    TORN = 2
    SHORT = 3
    KILL_BEFORE = 4
    KILL_TORN = 5
    KILL_AFTER = 6
    FULL = 7


EVERY = 1 << 40


class _Control(ctypes.Structure):
    _fields_: ClassVar[Sequence[tuple[str, type[Any]]]] = [
        *((name, ctypes.c_int64) for name in ("pid", "action", "kinds", "classes", "nth", "span", "err")),
        *((name, ctypes.c_int64) for name in ("seen", "fired", "fired_kind", "fired_class", "budget", "phase")),
        ("counts", ctypes.c_int64 * (len(Kind) * len(Class))),
        ("prefix", ctypes.c_char * 1024),
        ("path", ctypes.c_char * 1024),
    ]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Act on the nth call of these kinds to these classes of file, and on the `span - 1` after it."""

    action: Action = Action.NOTHING
    nth: int = 1
    span: int = 1
    kinds: tuple[Kind, ...] = tuple(Kind)
    classes: tuple[Class, ...] = tuple(Class)
    error: int = errno.EIO
    budget: int = 0


class Control:
    """The mapped file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        size = ctypes.sizeof(_Control)
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._at = _Control.from_buffer(self._map)

    def arm(self, fault: Fault, under: str) -> None:
        """In the child: from now on, for this process and for files under this folder. Counts start from 0."""
        at = self._at
        at.pid = 0
        for name in ("seen", "fired", "fired_kind", "fired_class", "phase"):
            setattr(at, name, 0)
        for n in range(len(at.counts)):
            at.counts[n] = 0
        at.path = b""
        at.prefix = os.path.realpath(under).encode() + b"/"
        at.action, at.nth, at.span = fault.action, fault.nth, fault.span
        at.err, at.budget = fault.error, fault.budget
        at.kinds, at.classes = _mask(fault.kinds), _mask(fault.classes)
        at.pid = os.getpid()

    def disarm(self) -> None:
        """Every call goes through; counting goes on."""
        self._at.action = Action.NOTHING

    def left(self, amount: int) -> None:
        """FULL: so many bytes may still be written."""
        self._at.budget = amount

    @property
    def fired(self) -> int:
        """How many calls were acted upon."""
        return int(self._at.fired)

    @property
    def where(self) -> tuple[Kind, Class, str]:
        """Of the first call that was acted upon."""
        at = self._at
        return Kind(at.fired_kind), Class(at.fired_class), os.fsdecode(at.path)

    @property
    def phase(self) -> tuple[Kind, Class] | None:
        """The call that was under way when the process died."""
        phase = int(self._at.phase)
        return (Kind((phase - 1) // len(Class)), Class((phase - 1) % len(Class))) if phase else None

    def counts(self) -> dict[tuple[Kind, Class], int]:
        """Calls since the arming."""
        return {
            (kind, of): count for kind in Kind for of in Class if (count := self._at.counts[kind * len(Class) + of])
        }


def _mask(members: Iterable[int]) -> int:
    return sum(1 << member for member in members)


def build(folder: Path) -> Path | None:
    """The shared object, None when there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    made = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
    return made
