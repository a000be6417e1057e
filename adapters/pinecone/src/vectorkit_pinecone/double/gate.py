"""What stands before the service: faults that a test asked for, and a count of what went through."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from vectorkit_pinecone.double.errors import bad


class Dropped(Exception):
    """The connection is to be closed without a reply."""


@dataclass
class Fault:
    """The next `times` requests that fit, after `skip` of them, fail. An empty path or method fits every one."""

    status: int = 503
    path: str = ""
    method: str = ""
    times: int = 1
    skip: int = 0
    retry_after: float | None = None
    when: str = "before"
    action: str = "status"
    seconds: float = 0.0
    message: str = "A fault that a test asked for."

    def fits(self, method: str, path: str, when: str) -> bool:
        """Whether this one is for that request, which then is counted."""
        if self.times <= 0 or self.when != when or self.path not in path or self.method not in ("", method):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class Gate:
    """One for a whole server."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._traffic: dict[str, dict[str, int]] = {}
        self._over = asyncio.Event()

    def forget_faults(self) -> None:
        """No faults; requests that are being slowed down are dropped, so that none is carried out in a later test."""
        self._faults.clear()
        self._over.set()
        self._over = asyncio.Event()

    def forget_traffic(self) -> None:
        """Nothing counted."""
        self._traffic.clear()

    def add(self, asked: Any) -> None:
        """A fault, as a request told it."""
        if not isinstance(asked, dict):
            raise bad("a fault is an object")
        kinds = {each.name: str(each.type) for each in fields(Fault)}
        for name, value in asked.items():
            if name not in kinds or not _is(value, kinds[name]):
                raise bad(f"a fault does not take this {name!r}; it has {', '.join(kinds)}")
        fault = Fault(**asked)
        if fault.when not in ("before", "after") or fault.action not in ("status", "drop", "slow"):
            raise bad("when is before or after; action is status, drop or slow")
        if not 400 <= fault.status <= 599:
            raise bad("status is 400 to 599")
        self._faults.append(fault)

    async def fault(self, method: str, path: str, when: str) -> Fault | None:
        """The fault that this request meets with, if it is to be answered with a status."""
        for fault in list(self._faults):
            if not fault.fits(method, path, when):
                continue
            if fault.action == "drop":
                raise Dropped
            if fault.action == "slow":
                await self._wait(fault.seconds)
                continue
            return fault
        return None

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
            raise Dropped

    def count(self, template: str, sent: int, answered: int) -> None:
        """A request that was answered, or dropped."""
        counted = self._traffic.setdefault(template, {"requests": 0, "request_bytes": 0, "response_bytes": 0})
        counted["requests"] += 1
        counted["request_bytes"] += sent
        counted["response_bytes"] += answered

    def traffic(self) -> dict[str, dict[str, int]]:
        """What went through, by method and path template."""
        return self._traffic


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return False
    if "str" in kind:
        return isinstance(value, str)
    if value is None:
        return "None" in kind
    return isinstance(value, int | float if "float" in kind else int) and value >= 0
