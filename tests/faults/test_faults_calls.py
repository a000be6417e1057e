"""The n-th write, fsync, rename or create of a scripted session fails, for every n: a typed error or success, and no loss.

An unacknowledged verb happened wholly or not at all, and the store goes on once the fault is gone.
"""

import errno
import itertools
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.kit import Kind, lines, stores, table
from tests.faults.server import Server
from tests.faults.shim import EVERY, Action, Class, Control, Fault
from tests.faults.shim import Kind as Call
from vectorkit.testing.effort import times

pytestmark = pytest.mark.slow
CALLS = {
    "write": (Call.WRITE,),
    "fsync": (Call.FSYNC,),
    "rename": (Call.RENAME,),
    "truncate": (Call.TRUNCATE,),
    "create": (Call.CREATE,),
    "remove": (Call.REMOVE,),
}
# one call fails in one of these ways; every third time the fault stays until it is lifted
WAYS = (
    (Action.FAIL, errno.EIO, 1),
    (Action.TORN, errno.ENOSPC, 1),
    (Action.FAIL, errno.ENOSPC, EVERY),
    (Action.FAIL, errno.ENOSPC, 1),
    (Action.SHORT, 0, 1),
    (Action.TORN, errno.EIO, EVERY),
)


@stores()
def test_the_nth_call_fails(
    kind: Kind, name: str, quick: Path, shimmed: tuple[Server, Control], say: Callable[[str], None]
) -> None:
    server, _ = shimmed
    began = time.monotonic()
    counts: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    errors: Counter[str] = Counter()
    for what, turn in itertools.product(CALLS, range(min(times(), len(WAYS)))):
        for n in itertools.count(1):
            action, error, span = WAYS[(n + turn) % len(WAYS)]
            if what != "write" and action in {Action.TORN, Action.SHORT}:
                action, error = Action.FAIL, error or errno.EIO
            place = quick / f"{what}{turn}-{n}"
            fault = Fault(action=action, nth=n, span=span, error=error, kinds=CALLS[what])
            done = server.start("session", name=name, path=str(place), fault=fault).end(30)
            told = f"{what} {n}, {action.name} {errno.errorcode.get(error, '')}{' for good' if span > 1 else ''}"
            if done.status != 0:
                wrong.append(f"{told}: the process ended with {done.status}: {done.messages[-1:]}")
                continue
            report = done.value
            if not report["fired"]:
                break
            _, of, path = report["where"]
            short = path.rpartition(f"{place.name}/")[2]
            wrong += [f"{told} ({short}): {fault}" for fault in report["wrong"]]
            errors.update(report["errors"])
            cells = counts.setdefault(f"{what} of {of.name.lower()}", Counter())
            cells["calls"] += 1
            cells["typed"] += bool(report["errors"])
            cells["unnoticed"] += not report["errors"] and not report["wrong"]
            cells["reopened"] += bool(report["blind"])
            cells["wrong"] += bool(report["wrong"])
            shutil.rmtree(place, ignore_errors=True)
    seconds = time.monotonic() - began
    columns = ("calls", "typed", "unnoticed", "reopened", "wrong")
    say(table(f"the n-th call fails, {name}, {seconds:.0f} s; errors {dict(errors)}", counts, columns))
    assert not wrong, lines(wrong)
    for what in ("write", "fsync", "rename"):
        assert sum(cells["calls"] for row, cells in counts.items() if row.startswith(what)) >= 1, what
    # every store writes generations, local:// without an index in them
    hit = {of.name.lower() for of in Class}
    assert {row.rpartition(" ")[2] for row in counts if row.startswith("write")} == hit
