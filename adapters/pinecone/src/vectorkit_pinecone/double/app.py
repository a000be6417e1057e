"""The ASGI application: one port for the control plane, for every index under a path of its own, and for the double's controls."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from vectorkit_pinecone.double import documents, namespaces, vectors
from vectorkit_pinecone.double.call import Call
from vectorkit_pinecone.double.errors import Refused, bad, body, unknown
from vectorkit_pinecone.double.gate import Dropped, Gate
from vectorkit_pinecone.double.indexes import Indexes
from vectorkit_pinecone.double.settings import API_VERSION, Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handle = Callable[[Any], tuple[int, Any]]
"""Takes the body of a request; gives status and reply."""
_INDEX = "/_index/"
_OWN = "/_double/"


class Request:
    """What was asked. `path` is as sent, so that a namespace may hold a slash."""

    def __init__(self, scope: Message) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("latin-1")
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        self.base = f"http://{self.headers.get('host', '127.0.0.1')}"
        self.sent = 0
        self.shape = "error"
        self.template = f"{self.method} (no such path)"
        self.reply_headers: dict[str, str] = {}

    def parts(self) -> tuple[str | None, list[str]]:
        """The index, and what comes after it."""
        index, path = None, self.path
        if path.startswith(_INDEX):
            index, _, path = path.removeprefix(_INDEX).partition("/")
            path = f"/{path}"
        return index, [unquote(each) for each in path.strip("/").split("/")]


class App:
    """One double of the service."""

    def __init__(self, settings: Settings, api_key: str | None) -> None:
        self._first = settings
        self._key = api_key
        self.settings = settings
        self.indexes = Indexes()
        self.gate = Gate()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope)
        own = request.path.startswith(_OWN)
        try:
            if own:
                status, told = self._own(request, await _read(request, receive, 2**20))
            else:
                status, told = await self._answer(request, receive)
            content, kind, more = _dumped(told), "application/json", request.reply_headers
            if not own and status == 200 and len(content) > self.settings.result_bytes:
                raise bad(
                    f"The result has {len(content)} bytes, more than the maximum of {self.settings.result_bytes}."
                )
        except Refused as refused:
            status, (content, kind), more = refused.status, body(refused, request.shape), refused.headers
        except Dropped:
            self.gate.count(request.template, request.sent, 0)
            await _drop(scope, receive)
            return
        if not own:
            self.gate.count(request.template, request.sent, len(content))
        headers = {"content-type": kind, "content-length": str(len(content)), **more}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, request: Request, receive: Receive) -> tuple[int, Any]:
        index, parts = request.parts()
        handle = self._control(request, parts) if index is None else self._data(request, index, parts)
        await self._meet(request, "before")
        self._admit(request)
        raw = await _read(request, receive, self.settings.request_bytes)
        asked = _json(raw) if request.method in {"POST", "PATCH"} else None
        status, told = handle(asked)
        await self._meet(request, "after")
        return status, told

    async def _meet(self, request: Request, when: str) -> None:
        fault = await self.gate.fault(request.method, request.path, when)
        if fault is None:
            return
        refused = Refused(fault.status, fault.message)
        if fault.retry_after is not None:
            refused.headers["retry-after"] = f"{fault.retry_after:g}"
        raise refused

    def _admit(self, request: Request) -> None:
        key = request.headers.get("api-key")
        if not key or (self._key is not None and key != self._key):
            raise Refused(401, "Unauthorized")
        version = request.headers.get("x-pinecone-api-version")
        if version is None:
            raise bad(f"The header X-Pinecone-Api-Version is required: {API_VERSION}.")
        if version != API_VERSION:
            raise unknown(f"version {version} of the API; {API_VERSION} is what it models")

    def _control(self, request: Request, parts: list[str]) -> Handle:
        """What answers a request of the control plane."""
        indexes = self.indexes
        match request.method, parts:
            case "GET", ["indexes"]:
                request.template = "GET /indexes"
                return lambda _: (200, {"indexes": [each.told(request.base) for each in indexes.all()]})
            case "POST", ["indexes"]:
                request.template = "POST /indexes"
                return lambda asked: (201, indexes.create(asked, self.settings).told(request.base))
            case "GET", ["indexes", name]:
                request.template = "GET /indexes/{name}"
                return lambda _: (200, indexes.named(name).told(request.base))
            case "PATCH", ["indexes", name]:
                request.template = "PATCH /indexes/{name}"
                return lambda asked: (200, indexes.configure(name, asked).told(request.base))
            case "DELETE", ["indexes", name]:
                request.template = "DELETE /indexes/{name}"
                return self._deleting(name)
            case _, ["indexes", _, *_] | [
                "collections" | "backups" | "restore-jobs" | "embed" | "rerank" | "models",
                *_,
            ]:
                return _absent(unknown(f"{request.method} {request.path}"))
        return _absent(Refused(404, "Not found."))

    def _deleting(self, name: str) -> Handle:
        def handle(_: Any) -> tuple[int, Any]:
            self.indexes.delete(name)
            return 202, None

        return handle

    def _data(self, request: Request, name: str, parts: list[str]) -> Handle:
        """What answers a request of the data plane."""

        def call(asked: Any) -> Call:
            index = self.indexes.named(name)
            if not index.ready:
                raise unknown("requests to an index that is not Ready")
            return Call(index, self.settings, asked, request.query, request.reply_headers)

        match request.method, parts:
            case "POST", ["namespaces", namespace, "documents", verb] if verb in documents.ENDPOINTS:
                request.template = f"POST /namespaces/{{namespace}}/documents/{verb}"
                return lambda asked: vectors.of_documents(call(asked), namespace, verb)
            case _, ["namespaces", *rest] if len(rest) < 2 and (request.method, len(rest)) in namespaces.ENDPOINTS:
                request.shape = "rpc"
                request.template = f"{request.method} /namespaces{'/{namespace}' * len(rest)}"
                run = namespaces.ENDPOINTS[request.method, len(rest)]
                return lambda asked: (200, run(call(asked), *rest))
            case _, _ if (request.method, "/".join(parts)) in vectors.ENDPOINTS:
                request.shape = "rpc"
                request.template = f"{request.method} /{'/'.join(parts)}"
                return lambda asked: (200, vectors.answer(call(asked), request.method, "/".join(parts)))
            case _, ["records" | "bulk" | "namespace-aliases", *_]:
                return _absent(unknown(f"{request.method} {request.path}"))
        return _absent(Refused(404, "Not found."))

    def _own(self, request: Request, raw: bytes) -> tuple[int, Any]:
        """The double's own controls, which take no key."""
        match request.method, request.path.removeprefix(_OWN):
            case "POST", "faults":
                self.gate.add(_json(raw))
            case "DELETE", "faults":
                self.gate.forget_faults()
            case "GET", "traffic":
                return 200, self.gate.traffic()
            case "DELETE", "traffic":
                self.gate.forget_traffic()
            case "GET", "settings":
                return 200, self.settings
            case "PUT", "settings":
                self.settings = self.settings.changed(_json(raw))
            case "DELETE", "settings":
                self.settings = self._first
            case "DELETE", "state":
                self.indexes.clear()
            case "POST", "settle":
                for index in self.indexes.all():
                    for namespace in index.namespaces.values():
                        namespace.settle()
            case _:
                raise Refused(404, "Not found.")
        return 200, {}


def _dumped(told: Any) -> bytes:
    return b"" if told is None else orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)


def _absent(refused: Refused) -> Handle:
    def handle(_: Any) -> tuple[int, Any]:
        raise refused

    return handle


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad(f"The request body is not JSON: {error}.") from error


async def _read(request: Request, receive: Receive, most: int) -> bytes:
    """The body, of which no more is kept than may be sent."""
    told = request.headers.get("content-length", "0")
    if told.isdigit() and int(told) > most:
        raise _large(most)
    chunks = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Dropped
        chunks.append(message.get("body", b""))
        request.sent += len(chunks[-1])
        if request.sent > most:
            raise _large(most)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _large(most: int) -> Refused:
    return Refused(413, f"Your request is larger than the maximum supported size of {most} bytes.")


async def _drop(scope: Message, receive: Receive) -> None:
    """Close the connection, and wait until it is: a server answers 500 for an application that returns before."""
    scope["state"]["transport"].close()
    while (await receive())["type"] != "http.disconnect":
        pass
