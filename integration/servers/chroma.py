"""A Chroma server for the tests: `chroma run`, the server that is inside the client's own wheel.

Embedded Chroma and its server differ in their errors and limits, so the contract has to run on both.
"""

import json
import signal
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from integration.servers.keeper import ServerError
from integration.servers.served import Served


class ChromaServer(Served):
    """Chroma on a free port of the loopback interface."""

    name = "chroma"
    stop_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        """As vectorkit writes it."""
        return f"chroma://{self.host}:{self.port}"

    @property
    def command(self) -> list[str]:
        """What the script `chroma` does, without looking for the script."""
        run = "from chromadb.cli.cli import app; app()"
        place = ["--path", str(self.folder / "data"), "--host", self.host, "--port", str(self.port)]
        return [sys.executable, "-c", run, "run", *place]

    def answers(self) -> bool:
        """Whether its heart beats."""
        link = HTTPConnection(self.host, self.port, timeout=1.0)
        try:
            link.request("GET", "/api/v2/heartbeat")
            return link.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            link.close()


def chroma_request(url: str, method: str, path: str, body: object = None) -> Any:
    """One request of Chroma's own API (`collections/x`, below the default tenant) to the server of a vectorkit URL."""
    parts = urlsplit(url)
    made = HTTPSConnection if parts.scheme == "chroma+https" else HTTPConnection
    link = made(parts.hostname or "", parts.port or (443 if made is HTTPSConnection else 8000), timeout=10)
    try:
        link.request(
            method,
            f"/api/v2/tenants/default_tenant/{path}",
            None if body is None else json.dumps(body),
            {"Content-Type": "application/json"},
        )
        reply = link.getresponse()
        said = reply.read()
        if reply.status >= 400:
            raise ServerError(f"Chroma answered {method} {path} with {reply.status}: {said.decode('utf-8', 'replace')}")
        return json.loads(said) if said else None
    finally:
        link.close()
