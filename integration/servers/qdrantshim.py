"""A shim of a Qdrant server: the part of its REST and gRPC that vectorkit uses, over Qdrant's own engine.

It stands in where there is no server to run, so that the official client's both colours and both protocols are driven over real
sockets. What passes here is certified against a live server only by `STORES=qdrant`. What it is not:

- One process on one interpreter: shards, replicas, consistency and ordering are taken and told back, and do nothing.
- A server optimizes beside its work; here all else waits meanwhile. It is done once the request that crossed
  `indexing_threshold` was answered, and a collection is yellow until then.
- Segments, scores of approximate searches and what the optimizers decide are those of the engine's own version.
- Snapshots, groups, recommendations, formulas, strict mode, tokens (JWT), TLS and telemetry are missing, and so are filters on
  booleans: the engine's binding takes true for the number 1. What is missing answers 404 or 400, never something else.
- `wait=false` is carried out before it is answered, `?timeout` never passes.
"""

import argparse
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from integration.servers.qdrantengine import Collections, Json, Refused, malformed
from integration.servers.qdrantgate import COMMIT, TITLE, VERSION, Gate
from integration.servers.qdrantgrpc import grpc_face

LARGEST = 32 * 2**20
"""Bytes of a request that a server takes (`service.max_request_size_mb`)."""
_WHOLE = re.compile(r"/collections/([^/]+)(/.*)?\Z")
_READING = re.compile(r"/(scroll|count|query|query/batch|facet)\Z")


# --------------------------------------------------------------------------------------------- routes

Verb = Callable[..., Any]


def changes(store: Collections) -> dict[tuple[str, str], Verb]:
    """What takes `wait`."""
    return {
        ("PUT", "/index"): store.create_index,
        ("PUT", "/points"): store.upsert,
        ("POST", "/points/delete"): store.delete,
        ("POST", "/points/batch"): store.batch,
        ("POST", "/points/payload"): store.set_payload,
        ("PUT", "/points/payload"): store.overwrite_payload,
        ("POST", "/points/payload/delete"): store.delete_payload,
        ("POST", "/points/payload/clear"): store.clear_payload,
        ("PUT", "/points/vectors"): store.update_vectors,
        ("POST", "/points/vectors/delete"): store.delete_vectors,
    }


def questions(store: Collections) -> dict[tuple[str, str], Verb]:
    """What does not."""
    return {
        ("PUT", ""): store.create,
        ("PATCH", ""): store.change,
        ("POST", "/points"): store.retrieve,
        ("POST", "/points/scroll"): store.scroll,
        ("POST", "/points/count"): store.count,
        ("POST", "/points/query"): store.query,
        ("POST", "/points/query/batch"): store.query_batch,
        ("POST", "/facet"): store.facet,
    }


def lookups(store: Collections) -> dict[tuple[str, str], Verb]:
    """What has no body."""
    return {
        ("GET", ""): store.describe,
        ("DELETE", ""): store.drop,
        ("GET", "/exists"): store.exists,
        ("GET", "/aliases"): store.aliases_of,
        ("GET", "/cluster"): store.cluster,
    }


def answer(store: Collections, method: str, path: str, asked: Mapping[str, list[str]], body: Any) -> Any:
    """What one request is answered with."""
    match method, path:
        case "GET", "/collections":
            return store.names()
        case "POST", "/collections/aliases":
            return store.alias(_object(body))
        case "GET", "/aliases":
            return store.aliases_of(None)
        case "GET", "/cluster":
            return {"status": "disabled"}
    found = _WHOLE.match(path)
    if found is None:
        raise Refused(404, "")
    name, rest = unquote(found[1]), found[2] or ""
    wait = asked.get("wait", ["false"])[-1] == "true"
    if verb := lookups(store).get((method, rest)):
        return verb(name)
    if verb := questions(store).get((method, rest)):
        return verb(name, _object(body))
    if verb := changes(store).get((method, rest)):
        return verb(name, _object(body), wait=wait)
    if method == "DELETE" and rest.startswith("/index/"):
        return store.delete_index(name, unquote(rest.removeprefix("/index/")), wait=wait)
    if method == "GET" and rest.startswith("/points/"):
        return store.one(name, unquote(rest.removeprefix("/points/")))
    raise Refused(404, "")


def _object(body: Any) -> Json:
    if not isinstance(body, dict):
        raise malformed(
            "EOF while parsing a value at line 1 column 0" if body is None else "invalid type, expected a map"
        )
    return body


# --------------------------------------------------------------------------------------------- HTTP


class Handler(BaseHTTPRequestHandler):
    """JSON in, JSON out, on connections that stay open. Integers are exact up to 64 bits, as a server's."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    store: Collections
    gate: Gate

    def _serve(self) -> None:
        began = time.monotonic()
        parts = urlsplit(self.path)
        length = int(self.headers.get("content-length", 0))
        headers: dict[str, str] = {}
        body = b""
        try:
            if parts.path.startswith("/_shim/"):
                body = self.rfile.read(length)
                self._send(200, orjson.dumps(self._own(parts.path, body)))
                return
            if parts.path in _PLAIN:
                self._send(200, *_PLAIN[parts.path])
                return
            body = self._body(length)
            status, result = 200, self._answer(parts.path, parse_qs(parts.query), body)
            told: Json = {"result": result, "status": "ok", "time": time.monotonic() - began}
        except Refused as error:
            status, told = error.status, {"status": {"error": str(error)}, "time": time.monotonic() - began}
            if error.retry_after is not None:
                headers["retry-after"] = str(error.retry_after)
            if status == 401:
                self._counted(parts.path, body, str(error).encode(), status, "text/plain; charset=utf-8", headers)
                return
        except Exception as error:  # noqa: BLE001 - a fault of the shim's own, told as a server tells its own
            status, told = 500, {"status": {"error": f"Service internal error: {error!r}"}, "time": 0.0}
        sent = b"" if told["status"] == {"error": ""} else orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)
        self._counted(parts.path, body, sent, status, "application/json", headers)

    def _body(self, length: int) -> bytes:
        """The body. One that is too large is read and forgotten, so that the answer is heard."""
        if length <= LARGEST:
            return self.rfile.read(length)
        left = length
        while left and (part := self.rfile.read(min(left, 2**20))):
            left -= len(part)
        raise Refused(400, f"JSON payload ({length} bytes) is larger than allowed (limit: {LARGEST} bytes).")

    def _answer(self, path: str, asked: Mapping[str, list[str]], body: bytes) -> Any:
        bearer = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        key = self.headers.get("api-key") or bearer
        reading = self.command == "GET" or (
            self.command == "POST" and bool(_READING.search(path) or path.endswith("/points"))
        )
        self.gate.admit(key, writing=not reading)
        self.gate.fail(f"{self.command} {path}", done=False)
        try:
            given = orjson.loads(body) if body else None
        except orjson.JSONDecodeError as error:
            raise malformed(str(error)) from error
        result = answer(self.store, self.command, path, asked, given)
        self.gate.fail(f"{self.command} {path}", done=True)
        return result

    def _own(self, path: str, body: bytes) -> Any:
        """The tests' way in: what was asked, and what is to fail."""
        match self.command, path:
            case "GET", "/_shim/traffic":
                return self.gate.traffic()
            case "DELETE", "/_shim/traffic" | "/_shim/faults":
                self.gate.clear()
                return True
            case "POST", "/_shim/faults":
                self.gate.fault(orjson.loads(body))
                return True
        raise Refused(404, "")

    def _counted(self, path: str, came: bytes, sent: bytes, status: int, kind: str, headers: dict[str, str]) -> None:
        where = re.sub(r"^/collections/(?!aliases\Z)[^/]+", "/collections/{name}", path)
        where = re.sub(
            r"(/index|/points)/(?!scroll|count|query|delete|batch|payload|vectors)[^/]+\Z", r"\1/{id}", where
        )
        self.gate.count(f"{self.command} {where}", len(came), len(sent))
        self._send(status, sent, kind, headers)

    def _send(
        self, status: int, sent: bytes, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(sent)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815 - their names

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


_TEXT = "text/plain; charset=utf-8"
_PLAIN: dict[str, tuple[bytes, str]] = {
    "/": (orjson.dumps({"title": TITLE, "version": VERSION, "commit": COMMIT}), "application/json"),
    "/healthz": (b"healthz check passed", _TEXT),
    "/livez": (b"healthz check passed", _TEXT),
    "/readyz": (b"all shards are ready", _TEXT),
}
"""What is answered without a key."""


class Patient(ThreadingHTTPServer):
    """A thread a connection, and many that may wait for theirs."""

    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    """Serve a directory until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m integration.servers.qdrantshim")
    parser.add_argument("folder", type=Path)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--grpc-port", type=int)
    parser.add_argument("--api-key")
    parser.add_argument("--read-only-key")
    given = parser.parse_args()
    Handler.gate = Gate(given.api_key, given.read_only_key)
    server = Patient((given.host, given.port), Handler)
    Handler.store = Collections(given.folder)
    other = (
        None if given.grpc_port is None else grpc_face(Handler.store, Handler.gate, f"{given.host}:{given.grpc_port}")
    )
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    with suppress(KeyboardInterrupt):
        server.serve_forever()
    server.server_close()
    if other is not None:
        other.stop(1).wait()
    Handler.store.close()


if __name__ == "__main__":
    main()
