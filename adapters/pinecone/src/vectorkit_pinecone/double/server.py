"""Running the double: in a thread of this process, or as a process of its own; and its controls, over HTTP from anywhere."""

import argparse
import asyncio
import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vectorkit_pinecone.double.app import App
from vectorkit_pinecone.double.settings import Settings


class _Protocol(H11Protocol):
    """Hands the application its transport, so that a fault can close it without a reply."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class Control:
    """What a test does to a double, by its address. `url` is what Pinecone's client takes as `host`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def fail(self, **fault: Any) -> None:
        """Let a request to come fail: `status`, `path`, `method`, `times`, `skip`, `retry_after`, `when`, `action`, `seconds`."""
        self._ask("POST", "faults", fault)

    def traffic(self) -> dict[str, dict[str, int]]:
        """Requests, request bytes and response bytes by method and path template."""
        counted: dict[str, dict[str, int]] = self._ask("GET", "traffic")
        return counted

    def forget(self) -> None:
        """No faults, and no traffic so far."""
        self._ask("DELETE", "faults")
        self._ask("DELETE", "traffic")

    def reset(self) -> None:
        """As it was at the start: no indexes, no faults, no traffic, the first settings."""
        self._ask("DELETE", "state")
        self._ask("DELETE", "settings")
        self.forget()

    def settle(self) -> None:
        """All that was accepted so far is visible."""
        self._ask("POST", "settle")

    def set(self, **settings: Any) -> None:
        """Change settings, by the names of `Settings`."""
        self._ask("PUT", "settings", settings)

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return Settings(**self._ask("GET", "settings"))

    @property
    def delay(self) -> float:
        """Seconds until a write is visible."""
        return self.settings.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self.set(delay=seconds)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request(method, f"/_double/{path}", orjson.dumps(body), {"connection": "close"})
            reply = connection.getresponse()
            told = orjson.loads(reply.read())
        finally:
            connection.close()
        if reply.status != 200:
            raise ValueError(told["error"]["message"])
        return told


class PineconeDouble(Control):
    """A double in a thread of this process: `with PineconeDouble(delay=0.3) as double: Pinecone("key", host=double.url)`."""

    def __init__(self, *, api_key: str | None = None, host: str = "127.0.0.1", port: int = 0, **settings: Any) -> None:
        super().__init__("")
        self._address = (host, port)
        self._app = App(Settings().changed(settings), api_key)
        self._server = uvicorn.Server(_config(self._app))
        self._thread = threading.Thread(target=self._run, name="pinecone-double", daemon=True)
        self._socket: socket.socket | None = None

    def start(self) -> Self:
        """Listen."""
        self._socket = _listen(*self._address)
        self.url = _url(self._socket)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the double did not start")
            time.sleep(0.001)
        return self

    def stop(self) -> None:
        """Close every connection, and wait for the thread."""
        self._ask("DELETE", "faults")
        self._server.should_exit = True
        self._thread.join()
        if self._socket is not None:
            self._socket.close()

    def __enter__(self) -> Self:
        """Listen."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket] if self._socket is not None else None)


def serve(host: str, port: int, *, api_key: str | None = None, **settings: Any) -> None:
    """Run a double until it is interrupted."""
    app = App(Settings().changed(settings), api_key)
    listening = _listen(host, port)
    print(f"Pinecone double at {_url(listening)}: Pinecone(api_key=..., host={_url(listening)!r})", flush=True)  # noqa: T201
    with suppress(KeyboardInterrupt):
        uvicorn.Server(_config(app)).run(sockets=[listening])


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m vectorkit_pinecone.double", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5080)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until a write is visible")
    parser.add_argument("--fetch-delay", type=float, default=None, help="seconds until fetch and list see it")
    parser.add_argument("--ready-delay", type=float, default=0.0, help="seconds until a new index is ready")
    parser.add_argument(
        "--api-key-env", default=None, metavar="NAME", help="the variable that holds the key to ask for"
    )
    asked = parser.parse_args(argv)
    key = None
    if asked.api_key_env is not None and not (key := os.environ.get(asked.api_key_env)):
        parser.error(f"the variable {asked.api_key_env} is not set")
    delays = {"delay": asked.delay, "fetch_delay": asked.fetch_delay, "ready_delay": asked.ready_delay}
    serve(asked.host, asked.port, api_key=key, **delays)


def _config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )


def _listen(host: str, port: int) -> socket.socket:
    # the protocol by name: asyncio switches Nagle's algorithm off only then, and with it on a reply takes 40 ms
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(256)
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{host}:{port}"
