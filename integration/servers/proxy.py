"""A TCP proxy on the loopback interface that a test tells how to fail: delays, cuts, resets, silence, a lost reply.

Everything that a network does to a client can be had by itself, at a known moment, without touching the network.
"""

import asyncio
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")
Direction = Literal["up", "down"]
"""Up goes from the client to the server."""
_BLOCK = 65_536
_SETTLED = 0.1  # seconds without another byte: the reply is complete
_RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, https://man7.org/linux/man-pages/man7/socket.7.html


class Mode(Enum):
    """What happens to every connection, those that are there too."""

    PASS = "pass"
    SILENT = "silent"
    """Half open: connections are accepted and nothing is forwarded; what was held goes on when this ends."""
    DROP = "drop"
    """Closed, new ones as soon as they are accepted."""
    RESET = "reset"
    """The same with RST, which also discards what was under way."""


@dataclass
class Counts:
    """What went through since the proxy began. turns: how often one direction followed the other on a connection."""

    connections: int = 0
    up: int = 0
    down: int = 0
    turns: int = 0

    @property
    def round_trips(self) -> int:
        """Requests that were followed by a reply."""
        return self.turns // 2


@dataclass(eq=False)
class _Link:
    client: StreamWriter
    server: StreamWriter | None = None
    last: Direction = "down"
    tail: bytes = b""
    swallowing: bool = False

    def end(self, *, reset: bool) -> None:
        for writer in (self.client, self.server):
            if writer is not None and not writer.transport.is_closing():
                if reset:
                    end = writer.get_extra_info("socket")
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
                writer.transport.abort()


class Proxy:
    """Listens on `port` and forwards to a port of the loopback interface, on a thread of its own."""

    def __init__(self, target: int) -> None:
        self.counts = Counts()
        self.delay = 0.0
        """Seconds that every block of bytes is held back, in each direction."""
        self._target = target
        self._mode = Mode.PASS
        self._cut: tuple[Direction, int, bool] | None = None
        self._swallow: tuple[bytes, threading.Event] | None = None
        self._swallowed = threading.Event()
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self._speaking = self._do(self._event())
        self._listener = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=512))
        self.port: int = self._listener.sockets[0].getsockname()[1]

    # ---------------------------------------------------------------------------------- what a test says

    @property
    def mode(self) -> Mode:
        """What happens now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._do(self._turn(mode))

    def cut_after(self, count: int, direction: Direction = "down", *, reset: bool = False) -> None:
        """End the connection over which so many more bytes of that direction have gone, all connections counted; once."""
        self._do(self._set("_cut", (direction, count, reset)))

    def swallow_reply(self, containing: bytes = b"") -> threading.Event:
        """Deliver the next request with these bytes in it, lose what is answered, and reset that connection; once.

        The event is set when the answer was complete: what was asked has then been done.
        """
        swallowed = threading.Event()
        self._do(self._set("_swallow", (containing, swallowed)))
        return swallowed

    def open(self) -> int:
        """How many connections there are now."""
        return self._do(self._count())

    def close(self) -> None:
        """End every connection, and the thread. Twice is fine."""
        if self._loop.is_closed():
            return
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---------------------------------------------------------------------------------- on its own thread

    def _do(self, body: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(body, self._loop).result(10)

    async def _event(self) -> asyncio.Event:
        event = asyncio.Event()
        event.set()
        return event

    async def _set(self, name: str, value: Any) -> None:
        setattr(self, name, value)
        for link in self._links:
            link.tail = b""  # what came before does not count

    async def _count(self) -> int:
        return len(self._links)

    async def _turn(self, mode: Mode) -> None:
        self._mode = mode
        if mode in {Mode.DROP, Mode.RESET}:
            for link in self._links:
                link.end(reset=mode is Mode.RESET)
        if mode is Mode.SILENT:
            self._speaking.clear()
        else:
            self._speaking.set()

    async def _end(self) -> None:
        self._listener.close()
        for link, task in list(self._links.items()):
            link.end(reset=False)
            task.cancel()
        await asyncio.gather(*self._links.values(), return_exceptions=True)
        await asyncio.sleep(0)  # the transports' own callbacks

    def _accept(self, reader: StreamReader, client: StreamWriter) -> None:
        link = _Link(client)
        task = self._loop.create_task(self._carry(link, reader))
        self._links[link] = task
        task.add_done_callback(lambda _: self._links.pop(link))

    async def _carry(self, link: _Link, reader: StreamReader) -> None:
        self.counts.connections += 1
        if self._mode in {Mode.DROP, Mode.RESET}:
            link.end(reset=self._mode is Mode.RESET)
            return
        try:
            answers, link.server = await asyncio.open_connection("127.0.0.1", self._target)
        except ConnectionRefusedError:
            link.end(reset=True)
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(link, "up", reader, link.server))
                both.create_task(self._pump(link, "down", answers, link.client))
        except* OSError:
            pass  # one side went: so does the other
        finally:
            link.end(reset=False)

    async def _pump(self, link: _Link, way: Direction, reader: StreamReader, writer: StreamWriter) -> None:
        while block := await reader.read(_BLOCK):
            await self._speaking.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            if link.swallowing and way == "down":
                await self._lose(link, reader)
                return
            cut = self._cut if self._cut is not None and self._cut[0] == way else None
            if cut is not None and cut[1] <= len(block):
                self._cut, block = None, block[: cut[1]]
                self._note(link, way, block)
                writer.write(block)
                await writer.drain()
                await asyncio.sleep(0.01)  # to end it discards what is still buffered
                link.end(reset=cut[2])
                return
            if cut is not None:
                self._cut = (way, cut[1] - len(block), cut[2])
            self._note(link, way, block)
            writer.write(block)
            await writer.drain()
        if not writer.transport.is_closing():
            writer.write_eof()

    async def _lose(self, link: _Link, reader: StreamReader) -> None:
        with suppress(TimeoutError):
            while await asyncio.wait_for(reader.read(_BLOCK), _SETTLED):
                pass
        link.swallowing = False
        link.end(reset=True)
        self._swallowed.set()

    def _note(self, link: _Link, way: Direction, block: bytes) -> None:
        """Count a block, and see whether it is the request whose reply is to be lost."""
        counts = self.counts
        if way == "up":
            counts.up += len(block)
            link.tail += block
            if self._swallow is not None and self._swallow[0] in link.tail:
                self._swallowed = self._swallow[1]
                self._swallow, link.swallowing = None, True
            link.tail = link.tail[-1_024:]
        else:
            counts.down += len(block)
        if link.last != way:
            counts.turns += 1
            link.last = way
