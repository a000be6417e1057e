"""What the fault lists share: rows that follow from a number, calls made again until they work, errors as a reader sees them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import vectorkit as vk

DIMENSION = 8
SPEC = vk.CollectionSpec("docs", DIMENSION, fields={"n": int, "half": int})
ERRORS = (vk.Unavailable, vk.DeadlineExceeded)
ROOT = Path(__file__).parents[1]


def vector(n: int) -> Any:
    """Of the row n."""
    return np.random.default_rng(n).standard_normal(DIMENSION).astype(np.float32)


def record(n: int, round_: int = 0) -> vk.Record:
    """The row n."""
    return vk.Record(f"r{n:06d}", vector(n), f"word{n}", {"n": n, "half": n // 2, "round": round_})


def records(start: int, stop: int) -> list[vk.Record]:
    """Rows from one number up to another."""
    return [record(n) for n in range(start, stop)]


def is_whole(found: vk.Record | None, n: int) -> bool:
    """Whether that is all of the row n."""
    wanted = record(n)
    return (
        found is not None
        and (found.id, found.text, dict(found.metadata)) == (wanted.id, wanted.text, dict(wanted.metadata))
        and np.allclose(np.asarray(found.vector), np.asarray(wanted.vector))
    )


def shown(error: BaseException) -> str:
    """What a log shows of an error."""
    return f"{error} {error!r}"


def eventually(act: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What a call gives, once it stops raising the errors that are worth a retry."""
    end = time.monotonic() + seconds
    while True:
        try:
            return act()
        except ERRORS:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


async def patiently(act: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The same for what is awaited. In the sync colour it waits for others no longer than a call takes."""
    end = time.monotonic() + seconds
    while True:
        try:
            return await act()
        except ERRORS:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)  # noqa: ASYNC251 - nobody else is on this loop


async def kind_of(act: Callable[[], Any]) -> type[BaseException] | None:
    """Of what a call raises."""
    try:
        await act()
    except Exception as error:  # noqa: BLE001 - that is the question
        return type(error)
    return None


def python(code: str, *given: Any) -> Any:
    """What a Python of its own prints, as JSON; and what it wrote beside."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(json.dumps, given)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr
