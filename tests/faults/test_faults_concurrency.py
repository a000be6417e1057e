"""Eight readers beside a writer, for a minute: no reader sees a torn, old, missing or deleted row, and none waits for the writer.

Waiting is time neither on a processor nor in line for one, less what a canary that touches no store waits at the same moment:
that is Python's own lock, or the machine. A control with the writer on another store shows what is left of such noise.
"""

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import vectorkit as vk
from tests.faults.kit import Kind, lines, stores
from vectorkit import F
from vectorkit.testing.effort import times
from vectorkit.types import FloatArray

pytestmark = [pytest.mark.slow, pytest.mark.timed]
READERS = 8
KEYS = 2_000
SPARE = 50  # keys that are not there at first
DIMENSION = 32
SECONDS = {"faiss": 60.0}
OTHERS = 15.0
CONTROL = 6.0
BLOCKED = 0.050
PAUSE = 0.005  # s between a thread's reads: flat out, eight readers wait for Python's own lock, whoever writes
SWITCH = 0.000_5  # s; eight readers that each keep the interpreter for Python's 5 ms are a wait of 40 ms without any lock of ours

Places = npt.NDArray[np.int64]
_random = np.random.default_rng(5)
_BASE = _random.standard_normal((KEYS + SPARE, DIMENSION)).astype(np.float32)


@dataclass(frozen=True)
class Row:
    """What a key is at one time. version: of the text and the vector, note: of the metadata."""

    version: int
    note: int
    alive: bool


def vector(key: int, version: int) -> FloatArray:
    """The key's own direction; the last place holds the version."""
    made: FloatArray = _BASE[key].copy()
    made[-1] = version / 1_000
    return made


def record(key: int, row: Row) -> vk.Record:
    metadata = {"key": key, "version": row.version, "note": row.note}
    return vk.Record(f"r{key}", vector(key, row.version), f"all k{key} v{row.version}", metadata)


@dataclass
class Register:
    """Every state each key has had. begun: the last one that a verb was started for; done: that one was returned for."""

    past: list[list[Row]] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    done: Places = field(default_factory=lambda: np.zeros(KEYS + SPARE, np.int64))
    seen: Places = field(default_factory=lambda: np.zeros(KEYS + SPARE, np.int64))
    rows: list[int] = field(default_factory=lambda: [0])  # how many there were after each verb
    rows_begun: int = 0
    rows_done: int = 0

    def floor(self) -> Places:
        """The oldest state of each key that a read which begins now may see."""
        return np.maximum(self.done, self.seen)

    def place(self, key: int, version: int, note: int, floor: int) -> int | None:
        """Which of the states since the floor this is."""
        for at in range(self.begun[key], floor - 1, -1):
            row = self.past[key][at]
            if row.alive and (row.version, row.note) == (version, note):
                return at
        return None

    def may_be_absent(self, key: int, floor: int) -> bool:
        return any(not self.past[key][at].alive for at in range(floor, self.begun[key] + 1))


class Writer:
    """One thread of upserts, updates, deletes and optimize(), each begun and done in the register."""

    def __init__(self, docs: vk.Collection, register: Register) -> None:
        self.docs = docs
        self.register = register
        self.counts: dict[str, int] = defaultdict(int)
        self.took: dict[str, float] = defaultdict(float)
        for key in range(KEYS + SPARE):
            register.past.append([Row(0, 0, alive=key < KEYS)])
        register.begun = [0] * (KEYS + SPARE)
        register.rows = [KEYS]
        docs.upsert([record(key, register.past[key][0]) for key in range(KEYS)])
        docs.optimize()

    def _verb(self, what: str, changes: dict[int, Row], call: Callable[[], object]) -> None:
        register = self.register
        live = register.rows[-1]
        for key, row in changes.items():
            live += row.alive - register.past[key][-1].alive
            register.past[key].append(row)
        register.rows.append(live)
        for key in changes:
            register.begun[key] += 1
        register.rows_begun += 1
        began = time.perf_counter()
        call()
        self.took[what] = max(self.took[what], time.perf_counter() - began)
        register.rows_done += 1
        for key in changes:
            register.done[key] = len(register.past[key]) - 1
        self.counts[what] += 1

    def run(self, stop: threading.Event) -> None:
        random = np.random.default_rng(1)
        docs, past = self.docs, self.register.past
        turn = 0
        while not stop.is_set():
            turn += 1
            keys = random.choice(KEYS + SPARE, 20, replace=False).tolist()
            if turn % 60 == 0:
                self._verb("optimize", {}, docs.optimize)
            elif turn % 3 == 0:
                here = [key for key in keys if past[key][-1].alive]
                changed = {key: Row(past[key][-1].version, turn, alive=True) for key in here}
                self._verb("update", changed, lambda n=turn, i=here: docs.update(ids=_ids(i), set={"note": n}))  # type: ignore[misc]
            elif turn % 7 == 0:
                here = [key for key in keys[:5] if past[key][-1].alive]
                gone = {key: Row(past[key][-1].version, 0, alive=False) for key in here}
                self._verb("delete", gone, lambda i=here: docs.delete(ids=_ids(i)))  # type: ignore[misc]
            else:
                new = {key: Row(past[key][-1].version + 1, 0, alive=True) for key in keys}
                batch = [record(key, row) for key, row in new.items()]
                self._verb("upsert", new, lambda b=batch: docs.upsert(b))  # type: ignore[misc]
            time.sleep(0.002)


def _ids(keys: list[int]) -> list[str]:
    return [f"r{key}" for key in keys]


@dataclass
class Sample:
    """One read. waited: the part of it that was spent neither running nor in line for a processor."""

    began: float
    wall: float
    waited: float

    def blocked(self, stalls: list[tuple[float, float]]) -> float:
        """The part of the wait in which the canary could run."""
        end = self.began + self.wall
        return max(0.0, self.waited - sum(max(0.0, min(end, b) - max(self.began, a)) for a, b in stalls))


class Canary:
    """A thread that touches no store, and sees when a thread that only wants to run does not get to."""

    def __init__(self) -> None:
        self.stalls: list[tuple[float, float]] = []

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            began = time.perf_counter() + 0.001
            time.sleep(0.001)
            now = time.perf_counter()
            if now - began > 0.002:
                self.stalls.append((began, now))

    @property
    def longest(self) -> float:
        return max((b - a for a, b in self.stalls), default=0.0)


class Reader:
    """One thread of reads, each held against the register."""

    def __init__(self, number: int, docs: vk.Collection, register: Register, wrong: list[str]) -> None:
        self.number = number
        self.docs = docs
        self.register = register
        self.wrong = wrong
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        self.missed = 0

    def run(self, stop: threading.Event) -> None:
        kinds = [
            self._get, self._near, self._itself, self._filtered, self._keyword, self._count, self._near, self._scan
        ]  # fmt: skip
        random = np.random.default_rng(100 + self.number)
        stat = _stat()
        turn = self.number
        try:
            while not stop.is_set():
                turn += 1
                read = kinds[turn % 7] if turn % 200 else kinds[7]
                key = int(random.integers(0, KEYS + SPARE))
                floor = self.register.floor()
                call, judge = read(key, floor)
                queued = _queued(stat)
                cpu = time.thread_time()
                began = time.perf_counter()
                answer = call()
                wall = time.perf_counter() - began
                cpu = time.thread_time() - cpu
                queued = _queued(stat) - queued
                if read != self._scan:  # it is many reads
                    self.samples[read.__name__[1:]].append(Sample(began, wall, wall - cpu - queued))
                judge(answer)
                time.sleep(PAUSE)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test reports it
            self.wrong.append(repr(error))
        finally:
            if stat is not None:
                os.close(stat)

    def _row(self, what: str, found: vk.Record | vk.Hit, floor: Places) -> int | None:
        """The key of a row that is whole and not too old."""
        register = self.register
        key, version, note = (int(found.metadata[name]) for name in ("key", "version", "note"))
        if found.id != f"r{key}" or found.text != f"all k{key} v{version}":
            self.wrong.append(f"{what}: a torn row {found}")
            return None
        if found.vector is not None and not np.allclose(found.vector, vector(key, version), rtol=1e-6):
            self.wrong.append(f"{what}: {found.id} has the vector of another version")
            return None
        at = register.place(key, version, note, floor[key])
        if at is None:
            could = register.past[key][floor[key] : register.begun[key] + 1]
            self.wrong.append(f"{what}: {found.id} is {version, note}, since the read began it was {could}")
        elif at > register.seen[key]:
            register.seen[key] = at  # two readers may race here: then it is a weaker check, never a false one
        return key

    def _absent(self, what: str, key: int, floor: Places) -> None:
        if not self.register.may_be_absent(key, floor[key]):
            self.wrong.append(f"{what}: r{key} is missing")

    def _get(self, key: int, floor: Places) -> tuple[Callable[[], object], Callable[..., None]]:
        keys = [(key + n * 97) % (KEYS + SPARE) for n in range(5)]

        def judge(found: list[vk.Record | None]) -> None:
            for one, row in zip(keys, found, strict=True):
                if row is None:
                    self._absent("get", one, floor)
                else:
                    self._row("get", row, floor)

        return lambda: self.docs.get(_ids(keys), vectors=True), judge

    def _near(self, key: int, floor: Places) -> tuple[Callable[[], object], Callable[..., None]]:
        asked = self.register.past[key][floor[key]]

        def judge(hits: vk.Hits) -> None:
            if len(hits) != 10 or len(set(hits.ids)) != 10:
                self.wrong.append(f"query: {len(hits)} rows, {len(set(hits.ids))} of them distinct, of 10")
            keys = [self._row("query", hit, floor) for hit in hits]
            settled = floor[key] == self.register.begun[key] and asked.alive
            self.missed += settled and key not in keys

        return lambda: self.docs.query(vector(key, asked.version), k=10, vectors=True), judge

    def _itself(self, key: int, floor: Places) -> tuple[Callable[[], object], Callable[..., None]]:
        asked = self.register.past[key][floor[key]]

        def judge(hits: vk.Hits) -> None:
            keys = [self._row("exact query", hit, floor) for hit in hits]
            if keys != [key]:
                self._absent("exact query", key, floor)

        return lambda: self.docs.query(vector(key, asked.version), k=1, exact=True), judge

    def _filtered(self, key: int, floor: Places) -> tuple[Callable[[], object], Callable[..., None]]:
        def judge(hits: vk.Hits) -> None:
            keys = [self._row("filtered query", hit, floor) for hit in hits]
            if keys != [key]:
                self._absent("filtered query", key, floor)
            if keys not in ([], [key]):
                self.wrong.append(f"filtered query: {keys} for {key}")

        return lambda: self.docs.query(_BASE[7], k=3, where=F("key") == key), judge

    def _keyword(self, key: int, floor: Places) -> tuple[Callable[[], object], Callable[..., None]]:
        def judge(hits: vk.Hits) -> None:
            keys = [self._row("keyword", hit, floor) for hit in hits]
            if keys != [key]:
                self._absent("keyword", key, floor)
            if keys not in ([], [key]):
                self.wrong.append(f"keyword: {keys} for {key}")

        return lambda: self.docs.keyword(f"k{key}", k=3), judge

    def _count(self, key: int, floor: Places) -> tuple[Callable[[], object], Callable[..., None]]:
        before = self.register.rows_done

        def judge(count: int) -> None:
            could = self.register.rows[before : self.register.rows_begun + 1]
            if count not in could:
                self.wrong.append(f"count: {count}, since the read began it was {could}")

        return self.docs.count, judge

    def _scan(self, key: int, floor: Places) -> tuple[Callable[[], object], Callable[..., None]]:
        def judge(found: list[vk.Record]) -> None:
            keys = {self._row("scan", row, floor) for row in found}
            if len(keys) != len(found):
                self.wrong.append("scan: an id twice")
            for one in range(KEYS + SPARE):
                if one not in keys:
                    self._absent("scan", one, floor)

        return lambda: list(self.docs.scan()), judge


def _stat() -> int | None:
    """This thread's own account of its waits for a processor, where the system keeps one."""
    try:
        return os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
    except OSError:
        return None


def _queued(stat: int | None) -> float:
    """Seconds that this thread has waited for a processor; 0 where the system does not say."""
    return 0.0 if stat is None else int(os.pread(stat, 100, 0).split()[1]) / 1e9


@dataclass
class Ran:
    """What came of readers and a writer."""

    readers: list[Reader]
    writer: Writer
    canary: Canary
    wrong: list[str]


def run(docs: vk.Collection, written: vk.Collection, seconds: float) -> Ran:
    """Readers of `docs` and a writer of `written`, which in the control is another store."""
    register = Register()
    writer = Writer(written, register)
    if written is not docs:
        register = Register()
        Writer(docs, register)
    wrong: list[str] = []
    stop = threading.Event()
    readers = [Reader(number, docs, register, wrong) for number in range(READERS)]
    canary = Canary()

    def guarded(body: Callable[[threading.Event], None]) -> None:
        try:
            body(stop)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test reports it
            wrong.append(f"{body.__qualname__}: {error!r}")

    bodies = [*(reader.run for reader in readers), writer.run, canary.run]
    threads = [threading.Thread(target=guarded, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not wrong:
        time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join()
    return Ran(readers, writer, canary, wrong)


def figures(title: str, ran: Ran) -> tuple[str, float, int]:
    """A table of latencies, the longest block, and how many were too long."""
    told = [f"\n{title}: writer {dict(ran.writer.counts)}, longest {_ms(ran.writer.took)}"]
    heads = ("reads", "p50 ms", "p99 ms", "max ms", "waited p99", "max", "blocked max", ">50 ms")
    told.append(f"{'':10}" + "".join(f"{head:>12}" for head in heads))
    longest, late = 0.0, 0
    for what in sorted({what for reader in ran.readers for what in reader.samples}):
        samples = [sample for reader in ran.readers for sample in reader.samples[what]]
        wall = np.array([sample.wall for sample in samples]) * 1e3
        waited = np.array([sample.waited for sample in samples]) * 1e3
        blocked = max((s.blocked(ran.canary.stalls) for s in samples if s.waited > 0.005), default=0.0)
        over = sum(s.waited > BLOCKED and s.blocked(ran.canary.stalls) > BLOCKED for s in samples)
        row = [np.median(wall), np.percentile(wall, 99), wall.max(), np.percentile(waited, 99), waited.max()]
        cells = "".join(f"{cell:>12.2f}" for cell in [*row, blocked * 1e3])
        told.append(f"{what:10}{len(samples):>12}{cells}{over:>12}")
        longest, late = max(longest, blocked), late + over
    told.append(f"the canary, which reads nothing, was kept from running for {ran.canary.longest * 1e3:.1f} ms at most")
    return "\n".join(told), longest, late


def _ms(took: dict[str, float]) -> str:
    return ", ".join(f"{what} {seconds * 1e3:.0f} ms" for what, seconds in took.items())


@stores()
def test_eight_readers_and_a_writer(kind: Kind, name: str, tmp_path: Path, say: Callable[[str], None]) -> None:
    seconds = SECONDS.get(name, OTHERS) * times()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        with vk.connect(kind.url(tmp_path / "kb")) as store, vk.connect(kind.url(tmp_path / "other")) as other:
            spec = vk.CollectionSpec("a", DIMENSION, index=kind.index, fields={"key": int})
            docs = store.create_collection(spec)
            idle = run(docs, other.create_collection(spec), CONTROL)
            assert not idle.wrong, lines(idle.wrong)
            store.drop_collection("a")
            docs = store.create_collection(spec)
            ran = run(docs, docs, seconds)
            assert not ran.wrong, lines(ran.wrong)
            past = ran.writer.register.past
            live = {f"r{key}": states[-1] for key, states in enumerate(past) if states[-1].alive}
            found = {row.id: _noted(row) for row in docs.scan()}
            assert found == live
    finally:
        sys.setswitchinterval(interval)
    control, noise, _ = figures(f"control, {name}, {CONTROL:.0f} s, the writer elsewhere", idle)
    told, longest, late = figures(f"readers and a writer, {name}, {seconds:.0f} s", ran)
    say(control)
    say(told)
    near = sum(len(reader.samples["near"]) for reader in ran.readers)
    missed = sum(reader.missed for reader in ran.readers)
    say(f"blocked at most {longest * 1e3:.1f} ms (control {noise * 1e3:.1f}); missed itself {missed} of {near}")
    assert missed <= 0.01 * near
    assert min(sum(map(len, reader.samples.values())) for reader in ran.readers) > 100
    assert ran.writer.counts["optimize"] >= 2
    assert late == 0, (
        f"{late} reads were blocked for longer than {BLOCKED * 1e3:.0f} ms, the longest {longest * 1e3:.0f}"
    )


def _noted(row: vk.Record) -> Row:
    return Row(int(row.metadata["version"]), int(row.metadata["note"]), alive=True)


@stores()
def test_no_verb_keeps_the_interpreter(kind: Kind, name: str, tmp_path: Path, say: Callable[[str], None]) -> None:
    """Native code that held Python's lock would stop the canary too, and so go unseen above."""
    longest: dict[str, float] = {}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        with vk.connect(kind.url(tmp_path / "kb")) as store:
            docs = store.create_collection(vk.CollectionSpec("a", DIMENSION, index=kind.index, fields={"key": int}))
            rows = [record(key, Row(0, 0, alive=True)) for key in range(KEYS)]
            verbs: dict[str, Callable[[], object]] = {
                "upsert": lambda: docs.upsert(rows),
                "update": lambda: docs.update(where=F("key") < 500, set={"note": 1}),
                "delete": lambda: docs.delete(where=F("key") < 500),
                "optimize": docs.optimize,
            }
            for _ in range(5):  # the shortest of five: noise only adds
                for what, verb in verbs.items():
                    stop = threading.Event()
                    canary = Canary()
                    thread = threading.Thread(target=canary.run, args=(stop,))
                    thread.start()
                    verb()
                    stop.set()
                    thread.join()
                    longest[what] = min(longest.get(what, 1e9), canary.longest)
    finally:
        sys.setswitchinterval(interval)
    say(f"\nnobody else could run for at most, {name}: {_ms(longest)}")
    assert max(longest.values()) < BLOCKED
