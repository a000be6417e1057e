"""What stands before both faces of the Qdrant shim: keys, failures that a test asked for, and a count of what went through.

Apart from the faces because they share one: benchmarks count requests and bytes of either protocol in the same place.
"""

import threading

from integration.servers.qdrantengine import Json, Refused

VERSION = "1.20.0"
TITLE = "qdrant - vector search engine"
COMMIT = "shim"


class Gate:
    """Keys, failures that a test asked for, and what went through. One for both faces.

    A failure is {"status", "times", "retry_after", "told", "path"}: the next `times` requests whose path has `path` in it
    are answered so, before or, with "done": true, after they were carried out.
    """

    def __init__(self, api_key: str | None, read_only_key: str | None) -> None:
        self.api_key = api_key
        self.read_only_key = read_only_key
        self._lock = threading.Lock()
        self._faults: list[Json] = []
        self._traffic: dict[str, Json] = {}

    def admit(self, key: str | None, *, writing: bool) -> None:
        """Let a request through, or refuse it as a server does."""
        if self.api_key is None:
            return
        if key is None:
            raise Refused(401, "Must provide an API key or an Authorization bearer token")
        if key == self.api_key:
            return
        if key != self.read_only_key:
            raise Refused(401, "Invalid API key or JWT")
        if writing:
            raise Refused(403, "Forbidden: Global manage access is required")

    def fault(self, asked: Json) -> None:
        """Fail requests to come."""
        with self._lock:
            self._faults.append({"times": 1, "path": "", "done": False, **asked})

    def clear(self) -> None:
        """No more failures, and nothing counted."""
        with self._lock:
            self._faults.clear()
            self._traffic.clear()

    def fail(self, path: str, *, done: bool) -> None:
        """Raise what a test asked for."""
        with self._lock:
            for fault in self._faults:
                if fault["path"] in path and fault["done"] is done:
                    fault["times"] -= 1
                    if fault["times"] <= 0:
                        self._faults.remove(fault)
                    raise Refused(
                        fault["status"],
                        fault.get("told") or _SAID.get(fault["status"], "failed"),
                        fault.get("retry_after"),
                    )

    def count(self, path: str, came: int, went: int) -> None:
        """Note a request; its bytes are those of bodies, without headers and frames."""
        with self._lock:
            noted = self._traffic.setdefault(path, {"requests": 0, "bytes_in": 0, "bytes_out": 0})
            noted["requests"] += 1
            noted["bytes_in"] += came
            noted["bytes_out"] += went

    def traffic(self) -> Json:
        """By path, where a collection's name is {name}."""
        with self._lock:
            return {path: dict(noted) for path, noted in self._traffic.items()}


_SAID = {
    408: "Timeout: Operation 'shim' timed out after 1s",
    413: "Payload too large",
    429: "Rate limiting exceeded: Write rate limit exceeded: Operation requires 1 tokens but only 0.0 were available",
    500: "Service internal error: the test asked for it",
    503: "Shard temporarily unavailable: the test asked for it",
    507: "Insufficient storage: the test asked for it",
}
