"""How a Chroma server is reached: tokens and headers, TLS, and what its refusals become.

Chroma's own server asks for no credentials, so they are asked for where they are in practice, in a proxy before it.
"""

import asyncio
import http.client
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import vectorkit as vk
from integration.chroma_kit import database, numbered
from integration.servers.chroma import ChromaServer
from vectorkit.testing.kit import raises

SPEC = vk.CollectionSpec("docs", 8, fields={"n": int})


class Gate:
    """A reverse proxy that asks for a header, or refuses with a status."""

    def __init__(self, server: ChromaServer) -> None:
        self.wanted: tuple[str, str] | None = None
        self.refusal: tuple[int, str, dict[str, str]] | None = None
        self.lost = ""
        """The end of the path of requests that are passed on and never answered."""
        self.misreported = 0
        """The status that answers those instead, where it is not 0."""
        self.seen: list[dict[str, str]] = []
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                gate.seen.append(headers)
                if gate.refusal is not None:
                    self._answer(*gate.refusal)
                elif gate.wanted is not None and headers.get(gate.wanted[0]) != gate.wanted[1]:
                    self._answer(401, "no", {})
                else:
                    link = http.client.HTTPConnection(server.host, server.port, timeout=30)
                    link.request(self.command, self.path, body, {"Content-Type": "application/json"})
                    reply = link.getresponse()
                    status, text = reply.status, reply.read().decode()
                    link.close()
                    if gate.lost and self.path.endswith(gate.lost):
                        if gate.misreported:
                            self._answer(gate.misreported, "late", {})
                        self.close_connection = True
                        return
                    self._answer(status, text, {"Content-Type": "application/json"})

            do_GET = do_POST = do_PUT = do_DELETE = _pass  # noqa: N815 - http.server's names

            def _answer(self, status: int, text: str, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]


@contextmanager
def gate(server: ChromaServer, certificate: tuple[Path, Path] | None = None) -> Iterator[Gate]:
    made = Gate(server)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        made.http.socket = context.wrap_socket(made.http.socket, server_side=True)
    thread = threading.Thread(target=made.http.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        made.http.shutdown()
        thread.join()
        made.http.server_close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        if os.environ.get("VECTORKIT_CI"):
            pytest.fail("there is no openssl to make a certificate with, and $VECTORKIT_CI is set")
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += [
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-out",
        str(folder / "c.pem"),
        "-keyout",
        str(folder / "k.pem"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "c.pem", folder / "k.pem"


CREDENTIALS: list[tuple[str, dict[str, Any], tuple[str, str]]] = [
    ("chroma://:hunter2@127.0.0.1", {}, ("authorization", "Bearer hunter2")),
    ("chroma+http://127.0.0.1", {"api_key": "hunter2"}, ("authorization", "Bearer hunter2")),
    ("chroma://127.0.0.1", {"token": "hunter2"}, ("authorization", "Bearer hunter2")),
    ("chroma://127.0.0.1", {"api_key": "hunter2", "token_header": "x-chroma-token"}, ("x-chroma-token", "hunter2")),
    ("chroma://me:hunter2@127.0.0.1", {}, ("authorization", "Basic bWU6aHVudGVyMg==")),
    ("chroma://127.0.0.1", {"headers": {"X-Proxy": "hunter2"}}, ("x-proxy", "hunter2")),
]


@pytest.mark.parametrize(("url", "options", "header"), CREDENTIALS)
def test_credentials_go_with_every_request(
    chroma_server: ChromaServer, url: str, options: dict[str, Any], header: tuple[str, str]
) -> None:
    with gate(chroma_server) as door:
        door.wanted = header
        place = {**database(chroma_server), **options, "url": f"{url}:{door.port}"}
        store = vk.connect(place)
        docs = store.create_collection(SPEC)
        docs.upsert(numbered(0, 3))
        assert len(docs.query([1] * 8)) == 3
        assert {headers.get(header[0]) for headers in door.seen} == {header[1]}
        assert "hunter2" not in repr(store) + repr(docs) + repr(store._verbs.top.adapter.__dict__)
        door.wanted = (header[0], "another")
        for call in (docs.count, lambda: docs.upsert(numbered(0, 1)), store.collections, lambda: vk.connect(place)):
            with pytest.raises(vk.ConfigError, match="credentials") as caught:
                call()
            assert "hunter2" not in str(caught.value)
            assert caught.value.retryable is False
        store.close()


def test_tls(chroma_server: ChromaServer, certificate: tuple[Path, Path]) -> None:
    with gate(chroma_server, certificate) as door:
        place = {**database(chroma_server), "url": f"chroma+https://:hunter2@127.0.0.1:{door.port}", "timeout": 5.0}
        with raises(vk.Unavailable, "CERTIFICATE_VERIFY_FAILED"):
            vk.connect(place)
        for options in ({"ssl_ca": str(certificate[0])}, {"ssl_verify": False}):
            store = vk.connect({**place, **options})
            docs = store.ensure_collection(SPEC)
            docs.upsert(numbered(0, 5))
            assert docs.count() == 5
            store.close()

        async def asynchronously() -> int:
            store = await vk.aconnect({**place, "ssl_ca": str(certificate[0])})
            counted = await (await store.collection("docs")).count()
            await store.close()
            return counted

        assert asyncio.run(asynchronously()) == 5
        with raises(vk.VectorkitError):
            vk.connect({**place, "url": f"chroma://127.0.0.1:{door.port}"})
        with raises(vk.ConfigError, "ssl_ca"):
            vk.connect({**place, "ssl_ca": "/nowhere.pem"})


def test_refusals_are_typed(chroma_server: ChromaServer) -> None:
    with gate(chroma_server) as door:
        store = vk.connect({**database(chroma_server), "url": f"chroma://127.0.0.1:{door.port}"})
        docs = store.create_collection(SPEC)
        cases: list[tuple[tuple[int, str, dict[str, str]], type[vk.VectorkitError], dict[str, Any]]] = [
            ((429, "slow down", {"Retry-After": "7"}), vk.RateLimited, {"retry_after": 7.0, "retryable": True}),
            ((429, '{"error":"RateLimitError","message":"quota"}', {}), vk.RateLimited, {"retry_after": None}),
            ((503, "restarting", {}), vk.Unavailable, {"retryable": True}),
            ((502, "<html>bad gateway</html>", {}), vk.Unavailable, {}),
            ((500, '{"error":"InternalError","message":"boom"}', {}), vk.Unavailable, {}),
            ((500, '{"error":"InternalError","message":"Failed to apply logs to the hnsw segment writer"}', {}), vk.Corrupt, {"retryable": False}),
            ((403, "no", {}), vk.ConfigError, {}),
            ((403, '{"error":"AuthError","message":"Forbidden"}', {}), vk.ConfigError, {}),
            ((504, "late", {}), vk.DeadlineExceeded, {}),
            ((413, "too much", {}), vk.Unsupported, {}),
            ((200, "<html>hello</html>", {}), vk.Unavailable, {}),
        ]  # fmt: skip
        for refusal, kind, attributes in cases:
            door.refusal = refusal
            for call in (docs.count, lambda: docs.upsert(numbered(0, 1)), lambda: docs.query([1] * 8)):
                with raises(kind, "chroma://127.0.0.1", **attributes):
                    call()
        door.refusal = (200, "[]", {})
        with raises(vk.ConfigError, "no Chroma server"):
            vk.connect(f"chroma://127.0.0.1:{door.port}")
        door.refusal = None
        assert docs.count() == 0
        store.close()


def test_a_lost_reply_to_an_insert_is_ambiguous(chroma_server: ChromaServer) -> None:
    with gate(chroma_server) as door:
        store = vk.connect({**database(chroma_server), "url": f"chroma://127.0.0.1:{door.port}"})
        docs = store.create_collection(SPEC)
        door.lost = "/upsert"
        with raises(vk.Ambiguous, "chroma://", retryable=False):
            docs.insert(numbered(0, 3))
        assert docs.count() == 3, "it was written"
        with raises(vk.Unavailable, retryable=True):
            docs.upsert(numbered(0, 4))
        for at, status in enumerate((500, 502, 504)):
            door.misreported = status
            with raises(vk.Ambiguous, str(status), retryable=False):
                docs.insert(numbered(10 + at, 11 + at))
            assert docs.count() == 5 + at, "it was written"
        door.misreported = 0
        docs.delete(ids=[row.id for row in numbered(10, 13)])
        door.lost = "/get"
        with raises(vk.Unavailable):
            docs.insert(numbered(7, 9))
        door.lost = ""
        assert docs.count() == 4, "an insert that could not look wrote nothing"
        store.close()


def test_a_reader_writes_nothing(chroma_server: ChromaServer) -> None:
    place = database(chroma_server)
    writer = vk.connect(place)
    writer.create_collection(SPEC).upsert(numbered(0, 5))
    reader = vk.connect(place, read_only=True)
    docs = reader.collection("docs")
    assert docs.count() == 5
    with raises(vk.Unsupported, "read_only"):
        docs.delete(everything=True)
    with raises(vk.Unsupported, "read_only"):
        reader.adopt("docs-g1", vk.CollectionSpec("other", 8))
    with raises(vk.Unsupported, "side-car"):
        vk.connect({**place, "sidecar": "/tmp/never-made.db"}, read_only=True)
    reader.close()
    writer.close()
