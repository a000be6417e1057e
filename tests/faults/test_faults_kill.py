"""kill -9 of a writer, hundreds of times: at random moments, and by the shim in the middle of a chosen system call.

What was acknowledged is there, whole, by every verb; the one verb that was under way happened wholly or not at all.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import Kind, Op, State, applied, difference, lines, stores
from tests.faults.server import Server
from tests.faults.shim import Action, Class, Control, Fault
from tests.faults.shim import Kind as Call
from vectorkit.testing.effort import times

pytestmark = pytest.mark.slow
ROUNDS = 220
AFRESH = 20
KILLS = (Action.KILL_BEFORE, Action.KILL_TORN, Action.KILL_AFTER)
# what is killed in, how many calls of that kind a round makes at least, and the weight of it
AIMS: dict[str, tuple[tuple[Call, ...], tuple[Class, ...], int, int]] = {
    "database write": ((Call.WRITE, Call.TRUNCATE), (Class.DATABASE,), 60, 5),
    "index write": ((Call.WRITE, Call.TRUNCATE), (Class.INDEX,), 25, 3),
    "fsync": ((Call.FSYNC,), tuple(Class), 30, 3),
    "rename": ((Call.RENAME,), tuple(Class), 2, 3),
    "create or remove": ((Call.CREATE, Call.REMOVE), tuple(Class), 20, 2),
}


@dataclass
class Line:
    """One directory's life: what its parent knows of it."""

    path: Path
    state: State | None = None
    versions: dict[int, int] = field(default_factory=dict)
    rounds: int = 0

    def gone(self) -> dict[int, int]:
        return {key: version for key, version in self.versions.items() if self.state and key not in self.state}


def phase_of(call: tuple[Call, Class] | None) -> str:
    match call:
        case None:
            return "elsewhere in a verb"
        case (Call.WRITE | Call.TRUNCATE, Class.DATABASE):
            return "database write"
        case (Call.WRITE | Call.TRUNCATE, Class.INDEX):
            return "index write"
        case (Call.WRITE | Call.TRUNCATE, _):
            return "other write"
        case (Call.FSYNC, _):
            return "fsync"
        case (Call.RENAME, _):
            return "rename"
        case _:
            return "create or remove"


def outcomes(line: Line, said: list[Any]) -> tuple[list[State | None], Op | None]:
    """The states that the store may be in after these messages, and the verb that was under way."""
    state = line.state
    under_way: Op | None = None
    for what, op in said:
        match what:
            case "begin":
                under_way = op
                if op[0] == "upsert":
                    line.versions |= {key: version for key, version, _ in op[1]}
            case "ack" if under_way is not None:
                state = (
                    {} if under_way[0] == "create" else applied(state or {}, under_way) if state is not None else None
                )
                under_way = None
    if under_way is None:
        return [state], None
    if under_way[0] == "create":
        return [None, {}], under_way
    return [state] if state is None else [state, applied(state, under_way)], under_way


@stores()
def test_kill_9(
    kind: Kind, name: str, quick: Path, shimmed: tuple[Server, Control], say: Callable[[str], None]
) -> None:
    server, control = shimmed
    dice = random.Random(20_261)
    histogram: Counter[str] = Counter()
    in_verb: Counter[str] = Counter()
    wrong: list[str] = []
    aims = {aim: about for aim, about in AIMS.items() if kind.indexed or aim != "index write"}
    plan = [aim for aim, (*_, weight) in aims.items() for _ in range(weight)] + ["time"] * 6 + ["idle"] * 3
    line = Line(quick / "0")
    began = time.monotonic()
    rounds = ROUNDS * times()
    for number in range(rounds):
        aim = plan[number % len(plan)]
        renames_only_when_new = aim == "rename" and not kind.indexed
        if line.rounds >= AFRESH or renames_only_when_new:
            line = Line(quick / str(number))
        line.rounds += 1
        fault, steps = Fault(), 1000
        if aim in aims:
            calls, classes, about, _ = aims[aim]
            action = dice.choice(KILLS)
            nth = 1 if renames_only_when_new else dice.randint(1, about)
            fault = Fault(action=action, nth=nth, kinds=calls, classes=classes)
            steps = 60
        elif aim == "idle":
            steps = dice.randint(1, 6)
        job = server.start(
            "writer", name=name, path=str(line.path), seed=number, state=line.state, versions=line.versions,
            fault=fault, steps=steps
        )  # fmt: skip
        said: list[Any] = []
        until = time.monotonic() + 30
        for message in job.messages(until):
            if aim == "time" and not said:
                until = time.monotonic() + dice.uniform(0, 0.1)
                said.append(message)
                said.extend(job.messages(until))
                break
            said.append(message)
            if message[0] == "idle":
                break
        job.kill()
        ended = job.end()
        said += ended.messages
        if ended.status != -9:
            wrong.append(f"round {number}, {aim}: the writer ended with {ended.status}: {ended.messages[-1:]}")
        allowed, under_way = outcomes(line, said)
        where = phase_of(control.where[:2] if control.fired else control.phase) if under_way else "idle"
        histogram[where] += 1
        in_verb[under_way[0] if under_way else "between verbs"] += 1
        told = f"round {number} ({where}, during {under_way}, {control.where[2] if control.fired else ''})"
        checked = server.start("check", name=name, path=str(line.path), gone=line.gone()).end(20)
        if checked.status != 0:
            wrong.append(f"{told}: the checker ended with {checked.status}: {checked.messages[-1:]}")
            line = Line(quick / f"{number}-after")
            continue
        found, faults = checked.value
        wrong += [f"{told}: {fault}" for fault in faults]
        if found not in allowed:
            wrong.append(f"{told}: the rows are neither before nor after: {difference(found, allowed)}")
        line.state = found
    seconds = time.monotonic() - began
    say(f"\nkill -9, {name}: {rounds} kills in {seconds:.0f} s, by phase {dict(histogram.most_common())}")
    say(f"  by verb {dict(in_verb.most_common())}")
    assert not wrong, lines(wrong)
    assert rounds - histogram["idle"] >= 0.6 * rounds
    for phase in ("database write", "fsync", "rename", "idle", *(["index write"] if kind.indexed else [])):
        assert histogram[phase] >= 10, phase
