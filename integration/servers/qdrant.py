"""A Qdrant for the tests: a shim over its engine, as a process of its own, because there is no server to be had from a wheel.

What is tested against it is driven by the official client over sockets; qdrantshim.py says what it is not.
"""

import json
import signal
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from integration.servers.keeper import ServerError, free_port
from integration.servers.served import Served

CONTROL = "vk-control"
_ROOT = str(Path(__file__).parents[2])


class QdrantServer(Served):
    """The shim on free ports of the loopback interface, one for each protocol. What it stores outlives a restart."""

    name = "qdrant"
    stop_signal = signal.SIGTERM

    def __init__(self, api_key: str | None = None, read_only_key: str | None = None) -> None:
        super().__init__()
        self.api_key = api_key
        self.read_only_key = read_only_key
        self.grpc_port = 0
        self._settled = False

    @property
    def url(self) -> str:
        """As vectorkit writes it, without the key."""
        return f"qdrant://{self.host}:{self.port}"

    @property
    def command(self) -> list[str]:
        """The shim."""
        place = [str(self.folder / "data"), self.host, str(self.port), "--grpc-port", str(self.grpc_port)]
        keys = [f"--api-key={self.api_key}"] if self.api_key else []
        keys += [f"--read-only-key={self.read_only_key}"] if self.read_only_key else []
        run = f"import sys; sys.path.insert(0, {_ROOT!r}); from integration.servers.qdrantshim import main; main()"
        return [sys.executable, "-c", run, *place, *keys]

    def answers(self) -> bool:
        """Whether it says that it is ready."""
        link = HTTPConnection(self.host, self.port, timeout=1.0)
        try:
            link.request("GET", "/readyz")
            return link.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            link.close()

    def traffic(self) -> dict[str, dict[str, int]]:
        """Requests and bytes of bodies by path, of both protocols, since it started or `forget` was called."""
        found: dict[str, dict[str, int]] = self._own("GET", "traffic")
        return found

    def forget(self) -> None:
        """Count from none, and fail nothing any more."""
        self._own("DELETE", "traffic")

    def fail(self, status: int, path: str = "", **more: object) -> None:
        """Have the next request fail whose path has `path` in it: `times`, `retry_after`, `told`, and `done` for afterwards."""
        self._own("POST", "faults", {"status": status, "path": path, **more})

    def _own(self, method: str, what: str, body: object = None) -> Any:
        link = HTTPConnection(self.host, self.port, timeout=10)
        try:
            link.request(method, f"/_shim/{what}", None if body is None else json.dumps(body))
            return json.loads(link.getresponse().read())
        finally:
            link.close()

    def _came_up(self) -> bool:
        """With a port for gRPC that it keeps, once one was free."""
        if not self._settled:
            self.grpc_port = free_port()
        self._settled = super()._came_up() or self._settled
        return self._settled


def qdrant_request(url: str, method: str, path: str, body: object = None, api_key: str | None = None) -> Any:
    """One request of Qdrant's own REST API to the server of a vectorkit URL; what it says under `result`."""
    parts = urlsplit(url)
    made = HTTPSConnection if parts.scheme == "qdrant+https" else HTTPConnection
    link = made(parts.hostname or "", parts.port or (443 if made is HTTPSConnection else 6333), timeout=10)
    key = api_key or parts.password
    try:
        link.request(
            method,
            f"/{path}",
            None if body is None else json.dumps(body),
            {"Content-Type": "application/json", **({"api-key": key} if key else {})},
        )
        reply = link.getresponse()
        said = reply.read()
        if reply.status >= 400:
            raise ServerError(
                f"Qdrant answered {method} /{path} with {reply.status}: {said.decode('utf-8', 'replace')}"
            )
        return json.loads(said)["result"]
    finally:
        link.close()


def qdrant_sweep(url: str) -> None:
    """Drop what vectorkit made there and nothing else: `<name>@<digits>`, and the collection that remembers generations."""
    for found in qdrant_request(url, "GET", "collections")["collections"]:
        name = found["name"]
        logical, _, generation = name.rpartition("@")
        if name == CONTROL or (logical and generation.isdigit()):
            qdrant_request(url, "DELETE", f"collections/{quote(name, safe='')}")
