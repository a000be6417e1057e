"""The seal of a shard that was closed in order: a digest of each of its files, which must still fit when it is opened again.

The engine checks the records of its log and nothing else: a byte that flipped is a wrong answer, and a file cut short, which it
maps, the end of the process.
"""

import errno
import hashlib
import json
import os
from pathlib import Path

from vectorkit.errors import Corrupt
from vectorkit.local.files import fsync_folder, write_durably

NAME = "vectorkit.seal"
_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)


def _digest(path: Path) -> str:
    """SHA-256 of a file's size and of its blocks that are not zero: the engine's files are sparse, copies of them need not be."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        at = _data(file.fileno(), 0)
        while at is not None:
            file.seek(at)
            block = file.read(_BLOCK)
            if block != _ZEROS[: len(block)]:
                found.update(at.to_bytes(8, "little"))
                found.update(block)
            at = _data(file.fileno(), at + _BLOCK)
        found.update(path.stat().st_size.to_bytes(8, "little"))
    return found.hexdigest()


def _data(fd: int, at: int) -> int | None:
    """Where the first block begins, at this one or later, that is no hole. None: there is none."""
    if at >= os.fstat(fd).st_size:
        return None
    if not hasattr(os, "SEEK_DATA"):
        return at
    try:
        return os.lseek(fd, at, os.SEEK_DATA) // _BLOCK * _BLOCK
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        return at  # a file system that does not tell


def _digests(folder: Path, strangers: frozenset[str]) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): _digest(path) for path in files if path.name not in strangers}


_OWN = frozenset([NAME, NAME + ".new"])


def seal(folder: Path) -> None:
    """After it was closed. OSError."""
    write_durably(folder / NAME, json.dumps(_digests(folder, _OWN)).encode())


def unseal(folder: Path, shown: str) -> bool:
    """Before it is opened: whether it was closed in order, and is as it was. Corrupt, OSError."""
    path = folder / NAME
    try:
        sealed = json.loads(path.read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:
        sealed = None
    if isinstance(sealed, dict):
        found = _digests(folder, _OWN)
        if wrong := sorted(name for name in {*sealed, *found} if sealed.get(name) != found.get(name)):
            raise Corrupt(
                f"{shown}: {folder.name}/{wrong[0]} is not as it was when the store was closed; restore the directory from a "
                f"backup, or remove {folder.name}/{NAME} to go on with what is there"
            )
    path.unlink()
    fsync_folder(folder)
    return isinstance(sealed, dict)
