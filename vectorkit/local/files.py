"""Making files durable: what the directory, the generations and the seal share."""

import os
from pathlib import Path


def fsync_folder(path: Path) -> None:
    """Make renames in a folder durable (no such thing on Windows)."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes) -> None:
    """A whole file or none: written beside, fsynced, renamed."""
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    fsync_folder(path.parent)
