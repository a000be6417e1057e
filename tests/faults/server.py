"""A process that has imported everything and opened nothing, and forks a child for each job: 10 ms instead of 500.

A job runs in its own process because it is to be killed, to hang, or to crash; the shim is preloaded into all of them.
"""

import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.faults.kit import STORES

ROOT = Path(__file__).parents[2]
TIMEOUT = 60.0


@dataclass
class Result:
    """How a job ended. status: as `os.waitstatus_to_exitcode` has it, None for one that hung and was killed."""

    status: int | None
    messages: list[Any]

    @property
    def value(self) -> Any:
        """What the job returned; an AssertionError when it did not return."""
        assert self.status == 0, f"the job ended with {self.status}: {self.messages[-1:]}"
        assert self.messages, "the job said nothing"
        name, value = self.messages[-1]
        assert name == "return", value
        return value


class Job:
    """A running child. Messages go both ways."""

    def __init__(self, server: "Server", pid: int, link: Connection) -> None:
        self.pid = pid
        self.link = link
        self._server = server

    def messages(self, until: float) -> Iterator[Any]:
        """What it says, until it ends or the clock (monotonic) passes `until`."""
        with suppress(EOFError, ConnectionResetError):
            while (left := until - time.monotonic()) > 0 and self.link.poll(left):
                yield self.link.recv()

    def kill(self) -> None:
        """SIGKILL."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self, timeout: float = TIMEOUT) -> Result:
        """Wait for its end, and kill it when that takes too long."""
        messages = list(self.messages(time.monotonic() + timeout))
        status = self._server.ask("wait", self.pid, 2.0 if timeout > 2 else timeout)
        if status is None:
            self.kill()
            self._server.ask("wait", self.pid, 10.0)
        self.link.close()
        return Result(status, messages)


class Server:
    """The client's side."""

    def __init__(self, folder: Path, shim: Path | None = None, control: Path | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.control_path = control
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",  # threads do not survive a fork
            "OPENBLAS_NUM_THREADS": "1",
        }
        if shim is not None and control is not None:
            environment |= {"LD_PRELOAD": str(shim), "VECTORKIT_SHIM": str(control)}
        self._errors = (folder / "stderr").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stderr=self._errors,
        )
        theirs.close()
        self._socket = ours
        for name, kind in STORES.items():
            if kind.there:
                self.ask("import", self.run("modules", path=str(folder / name), name=name))

    def ask(self, *request: Any, fd: int | None = None) -> Any:
        """One request, one reply."""
        data = pickle.dumps(request)
        head = len(data).to_bytes(8, "little")
        if fd is None:
            self._socket.sendall(head)
        else:
            socket.send_fds(self._socket, [head], [fd])
        self._socket.sendall(data)
        return pickle.loads(_read(self._socket, int.from_bytes(_read(self._socket, 8), "little")))

    def start(self, job: str, /, **values: Any) -> Job:
        """Fork a child that runs a function of jobs.py."""
        ours, theirs = socket.socketpair()
        with theirs:
            pid = self.ask("run", job, values, fd=theirs.fileno())
        return Job(self, pid, Connection(ours.detach()))

    def run(self, job: str, /, *, timeout: float = TIMEOUT, **values: Any) -> Any:
        """Run a job to its end, and give what it returned."""
        result = self.start(job, **values).end(timeout)
        try:
            return result.value
        except AssertionError:
            sys.stderr.write(self.stderr())
            raise

    def stderr(self) -> str:
        """What the children wrote to it, the end of it."""
        self._errors.flush()
        return Path(self._errors.name).read_text(errors="replace")[-4000:]

    def close(self) -> None:
        """End it, with whatever still runs."""
        self._socket.close()
        self._process.wait(20)
        self._errors.close()


def _read(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = link.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


# ------------------------------------------------------------------------------------- the server's side


def _serve(link: socket.socket) -> None:
    running: set[int] = set()
    try:
        while True:
            head, fds, _, _ = socket.recv_fds(link, 8, 1)
            if not head:
                return
            request = pickle.loads(_read(link, int.from_bytes(head + _read(link, 8 - len(head)), "little")))
            match request:
                case ("run", name, values):
                    pid = os.fork()
                    if not pid:
                        link.close()
                        _child(Connection(fds[0]), name, values)
                    os.close(fds[0])
                    running.add(pid)
                    reply: Any = pid
                case ("wait", pid, timeout):
                    reply = _wait(pid, timeout)
                    if reply is not None:
                        running.discard(pid)
                case ("import", names):
                    for module in names:
                        with suppress(Exception):
                            importlib.import_module(module)
                    reply = None
            data = pickle.dumps(reply)
            link.sendall(len(data).to_bytes(8, "little") + data)
    except EOFError:
        return
    finally:
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _wait(pid: int, timeout: float) -> int | None:
    end = time.monotonic() + timeout
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.001)


def _child(link: Connection, name: str, values: dict[str, Any]) -> None:
    """Never returns: a fork must not go on as a second server."""
    from tests.faults import jobs

    status = 0
    try:
        link.send(("return", getattr(jobs, name)(link, **values)))
    except BaseException:  # noqa: BLE001 - whatever it is, the parent is told
        status = 70
        with suppress(OSError):
            link.send(("crash", traceback.format_exc()))
    finally:
        os._exit(status)


if __name__ == "__main__":
    import faulthandler

    faulthandler.enable()
    from tests.faults import jobs  # noqa: F401 - once, before the forks

    with socket.socket(fileno=int(sys.argv[1])) as _link:
        _serve(_link)
