"""A process that runs a server for the tests, and ends it with all its children when the tests are gone, however they went.

It stands between the two because PostgreSQL's backends leave their parent's process group: only an ancestor that adopts
orphans can stop, freeze or kill all of them, and know that none is left.
"""

import ctypes
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_LINUX = sys.platform == "linux"
_PARENT_DIED, _ADOPT_ORPHANS = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER: linux/prctl.h
_PATIENCE = 60.0


class ServerError(Exception):
    """A server under test did not do as it was told."""


class Keeper:
    """The tests' side. folder: removed at the end, whoever ends it."""

    def __init__(self, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(_PATIENCE)
        self._lock = threading.Lock()
        with theirs:
            command = [sys.executable, "-I", "-S", __file__, str(theirs.fileno()), str(folder)]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
        self._socket = ours
        self._close = weakref.finalize(self, _close, ours, process)

    def run(self, command: Sequence[str], log: Path, *, user: str | None = None) -> int:
        """Start the server; its process id."""
        return int(self._ask("run", command=list(command), log=str(log), user=user))

    def signal(self, number: int) -> None:
        """To the server alone."""
        self._ask("signal", number=number)

    def signal_all(self, number: int) -> None:
        """To the server and every process below it, those too that are made meanwhile."""
        self._ask("signal_all", number=number)

    def wait(self, seconds: float) -> int | None:
        """How the server ended, None while it runs."""
        status: int | None = self._ask("wait", seconds=seconds)
        return status

    def kill(self) -> None:
        """SIGKILL to the server and every process below it; back when none is left."""
        self._ask("kill")

    def close(self) -> None:
        """End all of it. Twice is fine."""
        self._close()

    def _ask(self, verb: str, **values: Any) -> Any:
        with self._lock:
            if not self._close.alive:
                raise ServerError("this server was closed")
            self._socket.sendall(json.dumps([verb, values]).encode() + b"\n")
            done, value = json.loads(_line(self._socket))
        if not done:
            raise ServerError(value)
        return value


def owned_by(user: str | None) -> dict[str, Any]:
    """What makes `subprocess` run as a user, with nothing of ours."""
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def free_port() -> int:
    """A port of the loopback interface that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _close(link: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    link.close()
    process.wait(_PATIENCE)


def _line(link: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        part = link.recv(65_536)
        if not part:
            raise EOFError
        data += part
    return data


# ------------------------------------------------------------------------------------- the keeper's side


class _Kept:
    def __init__(self) -> None:
        self.pid: int | None = None
        self.status: int | None = None

    def run(self, command: list[str], log: str, user: str | None) -> int:
        with Path(log).open("ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has no threads
                cwd="/",
                **owned_by(user),
            )
        self.pid, self.status = process.pid, None
        process.returncode = 0  # reaped below, with its orphans
        return process.pid

    def signal(self, number: int) -> None:
        self.reap()
        if self.status is None and self.pid is not None:
            os.kill(self.pid, number)

    def signal_all(self, number: int) -> None:
        self.signal(number)  # first: what is stopped makes no more children
        told = {self.pid}
        while new := _below(os.getpid()) - told:
            for pid in new:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            told |= new
        if number == signal.SIGSTOP and _LINUX:  # a thread on the other core goes on for a moment, and would answer
            end = time.monotonic() + 10
            while running := {pid for pid in told if pid is not None and not _stopped(pid)}:
                if time.monotonic() > end:
                    raise TimeoutError(f"still running after SIGSTOP: {sorted(running)}")
                time.sleep(0.001)

    def wait(self, seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while self.reap() and self.status is None and time.monotonic() < end:
            time.sleep(0.005)
        return self.status

    def kill(self) -> None:
        end = time.monotonic() + 30
        while self.reap():
            self.signal_all(signal.SIGKILL)
            time.sleep(0.002)
            if time.monotonic() > end:
                raise TimeoutError(f"still there after SIGKILL: {sorted(_below(os.getpid()))}")

    def reap(self) -> bool:
        """Take the status of every child that ended; whether there are others."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return True
                if pid == self.pid:
                    self.status = os.waitstatus_to_exitcode(status)
        return False


def _prctl(option: int, value: int) -> None:
    if _LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_parent() -> None:
    _prctl(_PARENT_DIED, signal.SIGKILL)


def _below(root: int) -> set[int]:
    """The living processes below a process."""
    parents = _parents()
    found: set[int] = set()
    new = {root}
    while new := {pid for pid, parent in parents.items() if parent in new} - found:
        found |= new
    return found


def _stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped, or gone."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            if stat.read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in "TZX":
                return False
    return True


def _parents() -> dict[int, int]:
    if _LINUX:
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, parent = stat.read_text("utf-8", "replace").rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(stat.parent.name)] = int(parent)
        return found
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    return {int(pid): int(parent) for pid, parent in map(str.split, listed.stdout.splitlines())}


def _serve(link: socket.socket, folder: Path) -> None:
    _prctl(_ADOPT_ORPHANS, 1)
    tests = os.getppid()
    kept = _Kept()
    try:
        while os.getppid() == tests:  # a fork of theirs may hold the other end of the socket
            if not select.select([link], [], [], 1.0)[0]:
                kept.reap()
                continue
            verb, values = json.loads(_line(link))
            try:
                reply = [True, getattr(kept, verb)(**values)]
            except Exception as error:  # noqa: BLE001 - the other side raises it
                reply = [False, f"{verb}: {type(error).__name__}: {error}"]
            link.sendall(json.dumps(reply).encode() + b"\n")
    except (EOFError, ConnectionError):
        pass
    finally:
        kept.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _link:
        _serve(_link, Path(sys.argv[2]))
