"""How a Qdrant server is reached and asked: versions, keys, both protocols, what options become on the wire, what is sent again.

The server is the shim; what it was sent is read off its own answers or off a middleman that notes each request.
"""

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

import vectorkit as vk
import vectorkit_qdrant.server as server_module
from integration.servers.qdrant import QdrantServer, qdrant_request, qdrant_sweep
from vectorkit import F
from vectorkit.testing.kit import raises
from vectorkit_qdrant import QdrantOptions

SPEC = vk.CollectionSpec("docs", 8, fields={"n": int, "who": str})
EAST = [1.0, 0, 0, 0, 0, 0, 0, 0]


def rows(start: int, stop: int) -> vk.Batch:
    """Rows whose vector, text and metadata follow from their number."""
    numbers = range(start, stop)
    vectors = np.array([np.random.default_rng(n).normal(size=8) for n in numbers], np.float32)
    return vk.Batch(
        [f"r{n}" for n in numbers], vectors, [f"word{n % 7} all" for n in numbers], [{"n": n} for n in numbers]
    )


class Middleman:
    """Passes requests on and notes them; answers GET / itself where it is told what."""

    def __init__(self, port: int) -> None:
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        self.root: tuple[int, str] | None = None
        self.answer: tuple[int, bytes] | None = None
        middleman = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                middleman.seen.append((self.command, self.path, headers, json.loads(body) if body else None))
                if self.path == "/" and middleman.root is not None:
                    status, text = middleman.root[0], middleman.root[1].encode()
                elif middleman.answer is not None:
                    status, text = middleman.answer
                elif self.path.partition("?")[0].endswith("/shards"):  # which only a cluster has
                    status, text = 200, b'{"result":true,"status":"ok","time":0}'
                else:
                    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                    passed = {"Content-Type": "application/json"}
                    passed |= {"api-key": headers["api-key"]} if "api-key" in headers else {}
                    link.request(self.command, self.path, body or None, passed)
                    reply = link.getresponse()
                    status, text = reply.status, reply.read()
                    link.close()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _pass  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"qdrant://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def asked(self, method: str, ending: str) -> list[Any]:
        """The bodies of requests to paths that end so, without their query."""
        return [body for sent, path, _, body in self.seen if sent == method and path.partition("?")[0].endswith(ending)]

    def paths(self, method: str, part: str) -> list[str]:
        """The paths that have this in them, with their query."""
        return [path for sent, path, _, _ in self.seen if sent == method and part in path]


@pytest.fixture
def server(qdrant_server: QdrantServer) -> Iterator[QdrantServer]:
    qdrant_server.forget()
    yield qdrant_server
    qdrant_server.forget()
    qdrant_sweep(qdrant_server.url)


@pytest.fixture
def middleman(server: QdrantServer) -> Iterator[Middleman]:
    made = Middleman(server.port)
    yield made
    made.close()


@pytest.fixture
def strangers(server: QdrantServer) -> Iterator[QdrantClient]:
    client = QdrantClient(host=server.host, port=server.port, check_compatibility=False)
    yield client
    for found in client.get_collections().collections:
        client.delete_collection(found.name)
    client.close()


# --------------------------------------------------------------------------------------------- the way in


@pytest.mark.parametrize(
    ("status", "told", "kind", "says"),
    [
        (200, '{"title":"qdrant - vector search engine","version":"1.15.4"}', vk.Unsupported, "is Qdrant 1.15.4"),
        (200, '{"title":"qdrant - vector search engine","version":"1.19.9"}', vk.Unsupported, "needs 1.20"),
        (200, '{"title":"qdrant - vector search engine","version":"2.0.0"}', vk.Unsupported, "is Qdrant 2.0.0"),
        (200, '{"title":"elasticsearch","version":"8.1.0"}', vk.ConfigError, "which is no Qdrant"),
        (200, '{"ok":true}', vk.Unavailable, "not as Qdrant does"),
        (200, "<html>", vk.Unavailable, "not as Qdrant does"),
        (200, '{"title":"qdrant","version":"new"}', vk.ConfigError, "which is no Qdrant"),
        (403, "no", vk.ConfigError, "refused the credentials"),
    ],
)
def test_who_answers_is_asked_first(
    middleman: Middleman, status: int, told: str, kind: type[vk.VectorkitError], says: str
) -> None:
    middleman.root = (status, told)
    with raises(kind, says):
        vk.connect(middleman.url)
    assert [path for _, path, _, _ in middleman.seen] == ["/"]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("qdrant+https:///tmp/x", vk.ConfigError),
        ("qdrant+https://./x", vk.ConfigError),
        ("qdrant+memory://name", vk.ConfigError),
        ("qdrant://999.1.1.1:1", vk.VectorkitError),
        ("qdrant://xn--a-:1", vk.VectorkitError),
        ("qdrant://127.0.0.1:9/%00", vk.VectorkitError),
        ("qdrant://127.0.0.1:99999", vk.ConfigError),
        ("qdrant://[::1", vk.ConfigError),
    ],
)
def test_addresses_that_lead_nowhere(url: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        vk.connect(url)


@pytest.mark.parametrize("after", ["Wed, 21 Oct 2026 07:28:00 GMT", "0.5", "-5", "9" * 400, "", "soon"])
def test_a_retry_after_that_is_no_number(server: QdrantServer, after: str) -> None:
    with vk.connect(server.url, options=QdrantOptions(retries=0)) as store:
        docs = store.create_collection(SPEC)
        server.fail(429, "/points/query", retry_after=after)
        with pytest.raises(vk.RateLimited):
            docs.query(EAST)


@pytest.mark.parametrize(
    "told", [b"\xff\xfe", b"[" * 100_000, b"{}", b'{"result":null}', b'{"result":5,"status":"ok"}', b"<html>", b""]
)
@pytest.mark.parametrize("status", [200, 500])
def test_answers_that_are_none(middleman: Middleman, told: bytes, status: int) -> None:
    with vk.connect(middleman.url, options=QdrantOptions(retries=0)) as store:
        docs = store.create_collection(SPEC)
        middleman.answer = (status, told)
        verbs: list[Callable[[], Any]] = [
            lambda: docs.query(EAST), lambda: docs.get(["a"]), docs.count, lambda: docs.upsert(rows(0, 1)), store.collections,
            lambda: list(docs.scan()), lambda: docs.delete(ids=["a"]), lambda: docs.delete(where=F("n") == 1),
            lambda: docs.insert(rows(0, 1)), lambda: docs.keyword("a"), docs.stats, docs.optimize, lambda: store.drop_collection("docs"),
        ]  # fmt: skip
        for verb in verbs:
            with pytest.raises((vk.Unavailable, vk.Ambiguous)):
                verb()


@pytest.mark.parametrize("version", ["1.20.0", "1.20.3-dev", "1.21.0", "1.34.0"])
def test_versions_from_1_20_on(middleman: Middleman, version: str) -> None:
    middleman.root = (200, json.dumps({"title": "qdrant - vector search engine", "version": version}))
    with vk.connect(middleman.url) as store:
        assert store.collections() == []


def test_nobody_there() -> None:
    begun = time.perf_counter()
    with raises(vk.Unavailable, "cannot be reached"):
        vk.connect("qdrant://127.0.0.1:9")
    assert time.perf_counter() - begun < 5


def test_a_host_that_is_none() -> None:
    for url in ("qdrant://no such host:6333", "qdrant://user:key@127.0.0.1:6333"):
        with pytest.raises((vk.ConfigError, vk.Unavailable)) as caught:
            vk.connect(url)
        assert "key" not in str(caught.value).replace("api_key", "").replace("its key", "").replace(":key@host", "")


@pytest.mark.parametrize("grpc", [False, True])
def test_keys(grpc: bool) -> None:
    with QdrantServer(api_key="s3cret", read_only_key="looker") as server:
        options = QdrantOptions(grpc=grpc, grpc_port=server.grpc_port)
        for address in (server.url, server.url.replace("://", "://:wrong@")):
            with (
                pytest.raises(vk.ConfigError, match="refused the credentials") as caught,
                vk.connect(address, options=options) as store,
            ):
                store.collections()
            assert "wrong" not in str(caught.value)
        with vk.connect(server.url.replace("://", "://:s3cret@"), options=options) as store:
            docs = store.create_collection(SPEC)
            docs.upsert(rows(0, 3))
            assert "s3cret" not in repr(store) + repr(docs)
        with vk.connect({"url": server.url, "api_key": "looker"}, read_only=True) as store:
            assert store.collection("docs").count() == 3
        looking = replace(options, api_key="looker")
        with vk.connect(server.url, options=looking) as store, raises(vk.ConfigError, "refused the credentials"):
            store.collection("docs").upsert(rows(0, 3))


@pytest.mark.parametrize("secret", ["knew\nnaught", "zealous ", "umläut"])
def test_a_key_that_no_header_carries_is_not_shown(server: QdrantServer, secret: str) -> None:
    with pytest.raises(vk.InvalidArgument, match="printable ASCII") as caught:
        vk.connect({"url": server.url, "api_key": secret})
    assert secret[:4] not in str(caught.value)
    with pytest.raises(vk.InvalidArgument, match="printable ASCII"):
        QdrantOptions(api_key=secret)
    assert "hidden" not in repr(QdrantOptions(api_key="hidden", headers={"x": "hidden"}))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"grpc": 1}, "grpc must be True or False"),
        ({"grpc_port": 0}, "grpc_port must be an int from 1 to 65535"),
        ({"timeout": 0.5}, "timeout must be an int"),
        ({"retries": -1}, "retries must be an int from 0"),
        ({"shard_number": 0}, "shard_number must be an int of at least 1"),
        ({"replication_factor": True}, "replication_factor must be"),
        ({"write_consistency_factor": "2"}, "write_consistency_factor must be"),
        ({"shard_key": ""}, "shard_key must be a string"),
        ({"read_consistency": "most"}, "read_consistency must be"),
        ({"write_ordering": "loose"}, "write_ordering must be"),
        ({"quantization": "fp16"}, "quantization must be"),
        ({"on_disk_index": "yes"}, "on_disk_index must be"),
        ({"oversampling": 0.5}, "oversampling must be"),
        ({"tenant_field": 3}, "tenant_field must be"),
        ({"lock_timeout": 6}, "lock_timeout must be"),
        ({"exact_limit": 0}, "exact_limit must be"),
        ({"headers": {"a": 1}}, "headers must map"),
        ({"headers": {"a b": "1"}}, "headers has a name"),
        ({"headers": {"x-bin": "1"}}, "headers has a name"),
    ],
)
def test_options_are_checked(given: dict[str, Any], says: str) -> None:
    with raises(vk.InvalidArgument, says):
        QdrantOptions(**given)


# --------------------------------------------------------------------------------------------- on the wire


def test_what_the_options_become(middleman: Middleman) -> None:
    options = QdrantOptions(
        shard_number=6,
        replication_factor=3,
        write_consistency_factor=2,
        read_consistency="majority",
        write_ordering="strong",
        on_disk_vectors=True,
        on_disk_index=True,
        on_disk_payload=True,
        quantization="scalar",
        quantized_in_ram=False,
        oversampling=3.0,
        tenant_field="who",
        headers={"x-team": "search"},
    )
    spec = replace(SPEC, index=vk.HNSW(m=24, ef_construction=150, full_scan_threshold=5_000))
    with vk.connect(middleman.url, options=options) as store:
        assert store.capability.consistency == "read_your_writes"  # 2 written and 2 asked, of 3
        docs = store.create_collection(spec)
        docs.upsert(rows(0, 20))
        docs.query(EAST, k=3)
        docs.query(EAST, k=3, exact=True)
        docs.get(["r1"])
        docs.update(ids=["r1"], set={"n": 100})
        docs.delete(ids=["r2"])
    assert {headers["x-team"] for _, _, headers, _ in middleman.seen} == {"search"}
    (made,) = middleman.asked("PUT", "/collections/docs%401")
    kilobytes = -(-7_500 * 8 * 4 // 1_024)
    assert made["vectors"] == {"size": 8, "distance": "Cosine", "on_disk": True}
    assert made["shard_number"] == 6
    assert made["replication_factor"] == 3
    assert made["write_consistency_factor"] == 2
    assert made["on_disk_payload"] is True
    assert made["hnsw_config"] == {"m": 24, "ef_construct": 150, "full_scan_threshold": kilobytes, "on_disk": True}
    assert made["optimizers_config"] == {"indexing_threshold": kilobytes}
    assert made["quantization_config"] == {"scalar": {"type": "int8", "always_ram": False}}
    indexes = {asked["field_name"]: asked["field_schema"] for asked in middleman.asked("PUT", "/index")}
    assert indexes == {
        "_vk_f0": {"type": "integer", "lookup": True, "range": True},
        "_vk_f1": {"type": "keyword", "prefix": True, "is_tenant": True},
        "_vk_f1p": {"type": "integer", "lookup": True, "range": True},
        "_vk_words": {"type": "text", "tokenizer": "whitespace", "lowercase": False, "scoring": True},
    }
    approximate, exact = (asked["searches"][0] for asked in middleman.asked("POST", "/points/query/batch"))
    assert approximate["params"] == {"hnsw_ef": 256, "quantization": {"rescore": True, "oversampling": 3.0}}
    assert exact["params"] == {"exact": True}
    reads = [*middleman.paths("POST", "/points/query/batch"), *middleman.paths("POST", "/collections/docs%401/points?")]
    assert reads
    assert all("consistency=majority" in path for path in reads), reads
    writes = [
        *middleman.paths("PUT", "/points?"),
        *middleman.paths("POST", "/points/batch"),
        *middleman.paths("POST", "/points/delete"),
    ]
    assert len(writes) == 3
    assert all("ordering=strong" in path and "wait=true" in path for path in writes), writes


def test_what_they_become_where_nothing_was_said(middleman: Middleman) -> None:
    with vk.connect(middleman.url) as store:
        assert store.capability.consistency == "read_your_writes"
        store.create_collection(vk.CollectionSpec("flat", 8, metric="dot", index=vk.Flat(), text=False)).query(EAST)
    (made,) = middleman.asked("PUT", "/collections/flat%401")
    assert made.pop("metadata")["_vk_state"] == "published"
    assert made == {"vectors": {"size": 8, "distance": "Dot"}, "hnsw_config": {"m": 0}}
    assert middleman.asked("PUT", "/index") == []
    (asked,) = middleman.asked("POST", "/points/query/batch")
    assert asked["searches"][0]["params"] == {"exact": True}
    assert "consistency" not in middleman.paths("POST", "/points/query/batch")[0]


@pytest.mark.parametrize(
    ("given", "promise"),
    [
        ({"replication_factor": 2}, "eventual"),
        ({"replication_factor": 2, "write_consistency_factor": 2}, "read_your_writes"),
        ({"replication_factor": 3, "write_consistency_factor": 2}, "eventual"),
        ({"replication_factor": 3, "write_consistency_factor": 2, "read_consistency": 2}, "read_your_writes"),
        ({"replication_factor": 3, "read_consistency": "majority"}, "eventual"),
        ({"replication_factor": 3, "read_consistency": "all"}, "read_your_writes"),
    ],
)
def test_what_replicas_promise(server: QdrantServer, given: dict[str, Any], promise: str) -> None:
    with vk.connect(server.url, options=QdrantOptions(**given)) as store:
        assert store.capability.consistency == promise


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (vk.HNSW(quantization="sq8"), {"scalar": {"type": "int8", "always_ram": True}}),
        (vk.HNSW(quantization="pq"), {"product": {"compression": "x16", "always_ram": True}}),
        ("binary", {"binary": {"always_ram": True}}),
        ("turbo", {"turbo": {"always_ram": True}}),
    ],
)
def test_codes(middleman: Middleman, asked: Any, sent: dict[str, Any]) -> None:
    options = QdrantOptions() if isinstance(asked, vk.HNSW) else QdrantOptions(quantization=asked)
    spec = replace(SPEC, index=asked) if isinstance(asked, vk.HNSW) else SPEC
    with vk.connect(middleman.url, options=options) as store:
        docs = store.create_collection(spec)
        docs.upsert(rows(0, 50))
        (hit,) = docs.query(rows(7, 8).vectors[0], k=1)
        assert hit.id == "r7"
        assert hit.score == pytest.approx(1.0, abs=1e-5)
    (made,) = middleman.asked("PUT", "/collections/docs%401")
    assert made["quantization_config"] == sent


@pytest.mark.parametrize("kind", ["fp16", "rabitq"])
def test_codes_that_it_has_not(server: QdrantServer, kind: Any) -> None:
    with vk.connect(server.url) as store, raises(vk.Unsupported, f"no {kind} codes"):
        store.create_collection(replace(SPEC, index=vk.HNSW(quantization=kind)))


def test_a_tenant_field_has_to_be_declared(server: QdrantServer) -> None:
    with (
        vk.connect(server.url, options=QdrantOptions(tenant_field="n")) as store,
        raises(vk.InvalidArgument, "does not declare as str"),
    ):
        store.create_collection(SPEC)


def test_every_request_of_a_handle_with_a_shard_key_names_it(middleman: Middleman) -> None:
    """What is sent; the shim has no shards, and what a cluster makes of it was not seen."""
    with vk.connect(middleman.url, options=QdrantOptions(shard_key="eu", shard_number=2)) as store:
        docs = store.create_collection(SPEC)
        docs.insert(rows(0, 5))
        docs.upsert(rows(0, 20))
        docs.query(EAST)
        docs.keyword("all")
        docs.get(["r1"])
        docs.count(F("n") > 3)
        docs.update(ids=["r1"], set={"n": 100})
        docs.delete(ids=["r2"])
        docs.delete(where=F("n") == 3)
        list(docs.scan())
    (made,) = middleman.asked("PUT", "/collections/docs%401")
    assert made["sharding_method"] == "custom"
    assert middleman.asked("PUT", "/shards") == [{"shard_key": "eu"}]
    keys = []
    for ending in ("", "/query/batch", "/count", "/delete", "/batch", "/scroll"):
        for method in ("PUT", "POST"):
            for body in middleman.asked(method, f"/docs%401/points{ending}"):
                parts = body.get("searches") or body.get("operations") or [body]
                keys += [one.get("overwrite_payload", one).get("shard_key") for one in parts]
    assert len(keys) >= 12
    assert set(keys) == {"eu"}


# --------------------------------------------------------------------------------------------- both protocols


def exercised(store: vk.Store) -> list[Any]:
    docs = store.create_collection(replace(SPEC, expiry=True))
    found: list[Any] = [docs.upsert(rows(0, 300)), docs.insert(rows(300, 310))]
    with pytest.raises(vk.AlreadyExists) as caught:
        docs.insert(rows(305, 315))
    found.append(caught.value.ids)
    found.append(docs.insert(rows(305, 315), on_conflict="skip"))
    found.append(docs.update(ids=["r1", "r2", "nobody"], set={"who": "you", "n": 2**62 + 1}))
    found.append(docs.query(EAST, k=5, where=F("n") >= 250).ids)
    found.append([hits.ids for hits in docs.query_many([EAST, EAST[::-1]], k=4)])
    found.append([round(hit.score, 5) for hit in docs.keyword("word3", k=3)])
    found.append(docs.delete(where=F("n") < 10))
    found.append(docs.delete(ids=["r20", "r21", "nobody"]))
    found.append([docs.count(), docs.count(F("who") == "you"), docs.stats().rows])
    found.append([(row.id, row.text, row.metadata) for row in docs.get(["r1", "r50"]) if row])
    found.append(sorted(row.id for row in docs.scan(F("n") > 300)))
    store.drop_collection("docs")
    with pytest.raises(vk.NotFound):
        docs.count()
    found.append(store.collections())
    return found


def test_grpc_answers_as_rest_does(server: QdrantServer) -> None:
    with vk.connect(server.url) as store:
        rest = exercised(store)
    assert [path for path in server.traffic() if path.startswith("/qdrant.Points/")] == []
    server.forget()
    with vk.connect(server.url, options=QdrantOptions(grpc=True, grpc_port=server.grpc_port)) as store:
        grpc = exercised(store)
    assert grpc == rest
    assert [path for path in server.traffic() if "/points" in path] == []
    assert rest[2] == tuple(f"r{n}" for n in range(305, 310))


def test_grpc_with_headers_and_figures_beyond_all(server: QdrantServer) -> None:
    for grpc in (False, True):
        options = QdrantOptions(grpc=grpc, grpc_port=server.grpc_port, headers={"X-Tenant": "a"})
        with vk.connect(server.url, options=options) as store:
            docs = store.create_collection(replace(SPEC, index=vk.HNSW(full_scan_threshold=2**62)))
            docs.upsert(rows(0, 20))
            assert docs.query(rows(3, 4).vectors[0], k=1, ef_search=2**64).ids == ["r3"]
            with raises(vk.InvalidArgument, "is no name"):
                store.adopt("..", SPEC)
            store.drop_collection("docs")


def test_a_store_that_is_closed_under_calls(server: QdrantServer) -> None:
    async def body(options: QdrantOptions) -> list[Any]:
        store = await vk.aconnect(server.url, options=options)
        docs = await store.create_collection(SPEC)
        await docs.upsert(rows(0, 100))
        calls = [asyncio.ensure_future(docs.query(EAST, k=5)) for _ in range(50)]
        await asyncio.sleep(0.01)
        await store.close()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        async with await vk.aconnect(server.url) as again:
            await again.drop_collection("docs")
        return ended

    for grpc in (False, True):
        for end in asyncio.run(body(QdrantOptions(grpc=grpc, grpc_port=server.grpc_port))):
            assert isinstance(end, list | vk.Closed | vk.Unavailable), end


def test_grpc_from_an_event_loop(server: QdrantServer) -> None:
    async def body() -> None:
        options = QdrantOptions(grpc=True, grpc_port=server.grpc_port)
        async with await vk.aconnect(server.url, options=options) as store:
            docs = await store.create_collection(SPEC)
            await docs.upsert(rows(0, 100))
            asked = [docs.query(vector, k=1) for vector in rows(0, 50).vectors]
            assert [hits.ids for hits in await asyncio.gather(*asked)] == [[f"r{n}"] for n in range(50)]
            with pytest.raises(vk.AlreadyExists):
                await store.create_collection(SPEC)

    asyncio.run(body())


def test_tls_options_that_grpc_does_not_take() -> None:
    for given in ({"ssl_verify": False}, {"ssl_ca": "some.pem"}):
        with raises(vk.ConfigError, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
            vk.connect("qdrant+https://127.0.0.1:9", options=QdrantOptions(grpc=True, **given))
    with raises(vk.ConfigError, "cannot be read"):
        vk.connect("qdrant+https://127.0.0.1:9", options=QdrantOptions(ssl_ca="nothing.pem"))


# --------------------------------------------------------------------------------------------- one round trip


def test_round_trips(server: QdrantServer) -> None:
    """A verb is one request; what looks before it writes, and after, says so."""

    def asked(act: Callable[[], Any]) -> dict[str, int]:
        server.forget()
        act()
        return {path.replace("/collections/{name}", ""): noted["requests"] for path, noted in server.traffic().items()}

    with vk.connect(server.url) as store:
        docs = store.create_collection(replace(SPEC, expiry=True))
        assert asked(lambda: docs.upsert(rows(0, 2_000))) == {"PUT /points": 1}
        docs.upsert([vk.Record("lone", EAST, "a lone text", {})])
        assert sum(asked(lambda: docs.insert(rows(3_000, 3_100))).values()) == 3
        for act in (
            lambda: docs.query(EAST, k=10, where=F("n") > 100),
            lambda: docs.query_many(rows(0, 64).vectors, k=10),
            lambda: docs.keyword("lone"),
            lambda: docs.get([f"r{n}" for n in range(1_000)]),
            lambda: docs.count(F("n") > 100),
        ):
            assert sum(asked(act).values()) == 1, asked(act)
        assert sum(asked(lambda: docs.update(ids=["r1"], set={"n": 1})).values()) == 3
        assert sum(asked(lambda: docs.delete(ids=["r1"])).values()) == 2
        assert sum(asked(lambda: docs.delete(where=F("n") == 7)).values()) == 2
        assert sum(asked(lambda: list(docs.scan())).values()) == 3  # of 1,000 rows
        with vk.connect(server.url) as other:
            assert sum(asked(lambda: other.collection("docs").count()).values()) == 3  # list, describe, count


# --------------------------------------------------------------------------------------------- again, and not


def test_what_passes_is_asked_again(server: QdrantServer) -> None:
    with vk.connect(server.url, options=QdrantOptions(timeout=5)) as store:
        docs = store.create_collection(SPEC)
        for status in (502, 503):
            server.fail(status, "/points", times=2)
            docs.upsert(rows(0, 10))
            server.fail(status, "/points/query", times=2)
            assert docs.query(rows(3, 4).vectors[0], k=1).ids == ["r3"]
        server.fail(429, "/points/query", retry_after=1)
        begun = time.monotonic()
        docs.query(EAST)
        assert time.monotonic() - begun >= 1
        server.fail(429, "/points/query", times=9, retry_after=60)
        with pytest.raises(vk.RateLimited) as limited:
            docs.query(EAST)
        assert limited.value.retry_after == 60
        server.forget()
        server.fail(503, "/points/query", times=9)
        with raises(vk.Unavailable, "the test asked for it"):
            docs.query(EAST)
        assert server.traffic()["POST /collections/{name}/points/query/batch"]["requests"] == 3
        server.forget()
        server.fail(500, "/points/query")
        with raises(vk.Unavailable, "the test asked for it"):
            docs.query(EAST)
        server.fail(507, "/points")
        with raises(vk.Unavailable, "Insufficient storage"):
            docs.upsert(rows(0, 1))
        server.fail(408, "/points/query")
        with raises(vk.DeadlineExceeded, "did not answer within 5 s"):
            docs.query(EAST)


@pytest.mark.parametrize("grpc", [False, True])
def test_an_insert_whose_reply_was_lost(server: QdrantServer, grpc: bool) -> None:
    path = "/Upsert" if grpc else "PUT "
    options = QdrantOptions(grpc=grpc, grpc_port=server.grpc_port)
    with vk.connect(server.url, options=options) as store:
        docs = store.create_collection(SPEC)
        server.fail(503, path, done=True)  # carried out, and sent again: nothing is written twice
        assert docs.insert(rows(0, 5)).written == 5
        assert docs.count() == 5
        server.fail(500, path, done=True)
        with pytest.raises(vk.Ambiguous, match="get\\(\\) tells"):
            docs.insert(rows(10, 15))
        assert docs.count() == 10
        server.fail(500, path)
        with pytest.raises(vk.Unavailable):
            docs.upsert(rows(10, 15))
        server.fail(429, path, times=9, retry_after=None)
        with pytest.raises(vk.RateLimited):
            docs.insert(rows(20, 25))
        assert docs.count() == 10


def test_what_is_too_large_for_one_request_takes_several(server: QdrantServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "BODY", 20_000)
    with vk.connect(server.url) as store:
        docs = store.create_collection(SPEC)
        docs.upsert(rows(0, 300))
        server.forget()
        assert docs.update(ids=[f"r{n}" for n in range(300)], set={"who": "x" * 50}) == 300
        assert server.traffic()["POST /collections/{name}/points/batch"]["requests"] > 3
        assert docs.count(F("who") == "x" * 50) == 300
        server.forget()
        where = F("n").in_(list(range(300)))
        found = docs.query_many(rows(0, 300).vectors, k=1, where=where)
        assert [hits.ids for hits in found] == [[f"r{n}"] for n in range(300)]
        assert server.traffic()["POST /collections/{name}/points/query/batch"]["requests"] > 3


def test_a_write_of_several_requests_that_stops(server: QdrantServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "BODY", 4_000)
    with vk.connect(server.url, options=QdrantOptions(retries=0)) as store:
        docs = store.create_collection(SPEC)
        docs.upsert(rows(0, 100))
        assert docs.count() == 100
        parts = server.traffic()["PUT /collections/{name}/points"]["requests"]
        assert 5 < parts < 50
        for write, kind in ((docs.upsert, vk.Unavailable), (docs.insert, vk.Ambiguous)):
            docs.delete(where=F("n") >= 0)
            calls = 0

            def third() -> None:
                nonlocal calls
                calls += 1
                if calls == 3:
                    server.fail(500, "PUT ", done=True)

            with between(store, "upsert", third, times=99), pytest.raises(vk.PartialFailure) as caught:
                write(rows(0, 100))
            assert isinstance(caught.value.__cause__, kind)
            done = caught.value.written
            assert 0 < done < 100
            assert caught.value.failed == tuple(f"r{n}" for n in range(done, 100))
            assert docs.count() > done  # the lost one was carried out


# --------------------------------------------------------------------------------------------- with others


@contextmanager
def between(store: vk.Store, verb: str, act: Callable[[], Any], times: int = 1, skip: int = 0) -> Iterator[None]:
    """Somebody else acts just before a verb of the client is called, some calls later."""
    native: Any = store.native
    real = getattr(native, verb)
    left = times

    def wrapped(*given: Any, **named: Any) -> Any:
        nonlocal left, skip
        if skip:
            skip -= 1
        elif left:
            left -= 1
            act()
        return real(*given, **named)

    setattr(native, verb, wrapped)
    try:
        yield
    finally:
        setattr(native, verb, real)


def test_of_two_inserts_of_one_id_one_is_told(server: QdrantServer) -> None:
    with vk.connect(server.url) as one, vk.connect(server.url) as other:
        docs, theirs = one.create_collection(SPEC), other.collection("docs")
        mine = rows(0, 10)
        faster = between(one, "upsert", lambda: theirs.upsert([vk.Record("r3", EAST, "theirs", {"n": -1})]))
        with faster, pytest.raises(vk.AlreadyExists) as caught:
            docs.insert(mine)
        assert caught.value.ids == ("r3",)
        assert [(row.id, row.text) for row in docs.scan()] == [("r3", "theirs")]
        docs.delete(ids=["r3"])
        touched = between(one, "retrieve", lambda: theirs.update(ids=["r1"], set={"n": 5}), skip=1)
        with touched:  # what somebody else has changed of our row is still ours
            assert docs.insert(mine).written == 10
        docs.delete(ids=[f"r{n}" for n in range(10) if n != 3])
        with between(one, "upsert", lambda: theirs.upsert([vk.Record("r5", EAST, "theirs", {"n": -1})])):
            told = docs.insert(mine, on_conflict="skip")
        assert (told.written, told.skipped) == (8, 2)
        assert docs.count() == 10
        (row,) = docs.get(["r5"])
        assert row is not None
        assert row.text == "theirs"


def test_an_update_is_never_lost(server: QdrantServer) -> None:
    with vk.connect(server.url) as one, vk.connect(server.url) as other:
        docs, theirs = one.create_collection(SPEC), other.collection("docs")
        docs.upsert(rows(0, 10))
        with between(one, "batch_update_points", lambda: theirs.update(ids=["r3"], set={"who": "them"}), times=3):
            assert docs.update(ids=["r3", "r4"], set={"n": 77}) == 2
        (row,) = docs.get(["r3"])
        assert row is not None
        assert row.metadata == {"n": 77, "who": "them"}
        with between(one, "batch_update_points", lambda: theirs.delete(ids=["r4"])):
            assert docs.update(ids=["r4", "r5"], set={"n": 78}) == 1
        assert docs.get(["r4"]) == [None]
        busy = between(one, "batch_update_points", lambda: theirs.upsert(rows(6, 7)), times=99)
        with busy, raises(vk.Unavailable, "changed by others 40 times"):
            docs.update(ids=["r6"], set={"n": 79})
        with between(one, "batch_update_points", lambda: theirs.update(ids=["r7"], set={"n": 1_000})):
            assert docs.update(where=F("n") == 7, set={"who": "seven"}) == 0


def test_eight_threads_count_together(server: QdrantServer) -> None:
    with vk.connect(server.url) as store:
        docs = store.create_collection(SPEC)
        docs.upsert([vk.Record("c", EAST, None, {})])

        def work(name: str) -> None:
            with vk.connect(server.url) as own:
                for n in range(10):
                    own.collection("docs").update(ids=["c"], set={f"{name}{n}": n})

        threads = [threading.Thread(target=work, args=(f"t{n}-",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (row,) = docs.get(["c"])
        assert row is not None
        assert len(row.metadata) == 80


def test_a_delete_by_a_looked_at_filter_spares_what_changed(server: QdrantServer) -> None:
    with vk.connect(server.url) as one, vk.connect(server.url) as other:
        docs, theirs = one.create_collection(SPEC), other.collection("docs")
        docs.upsert([vk.Record(f"r{n}", EAST, None, {"n": n, "x": 1}) for n in range(3)])
        with between(one, "delete", lambda: theirs.update(ids=["r1"], set={"x": 2})):
            docs.delete(where=F("x") == 1)
        assert [row.id for row in docs.scan()] == ["r1"]


def test_indexes_that_are_missing_are_made(server: QdrantServer) -> None:
    with vk.connect(server.url) as store:
        docs = store.create_collection(SPEC)
        docs.upsert(rows(0, 10))
        store.native.delete_payload_index("docs@1", "_vk_words")
        store.native.delete_payload_index("docs@1", "_vk_f0")
    with vk.connect(server.url, read_only=True) as store:
        assert store.collection("docs").count(F("n") > 3) == 6
    assert "_vk_f0" not in qdrant_request(server.url, "GET", "collections/docs@1")["payload_schema"]
    with vk.connect(server.url) as store:
        assert len(store.collection("docs").keyword("all", k=20)) == 10
    made = qdrant_request(server.url, "GET", "collections/docs@1")["payload_schema"]
    assert sorted(made) == ["_vk_f0", "_vk_f1", "_vk_f1p", "_vk_words"]


def test_strangers_under_our_names(server: QdrantServer, strangers: QdrantClient) -> None:
    config = models.VectorParams(size=4, distance=models.Distance.DOT)
    for name in ("docs@1", "docs@7", "docs@x", "vk-control"):
        strangers.create_collection(name, config)
    with vk.connect(server.url) as store:
        assert store.collections() == []
        docs = store.ensure_collection(SPEC)
        docs.upsert(rows(0, 3))
        assert docs.count() == 3
        names = {found.name for found in strangers.get_collections().collections}
        assert names == {"docs@1", "docs@7", "docs@8", "docs@x", "vk-control"}
        with raises(vk.Unsupported, "is there that is not vectorkit's"):
            store.drop_collection("docs")
        assert docs.count() == 3


def test_labels_that_lie(server: QdrantServer) -> None:
    with vk.connect(server.url) as store:
        store.create_collection(SPEC)
        config = qdrant_request(server.url, "GET", "collections/docs@1")["config"]["metadata"]
        qdrant_request(
            server.url, "PUT", "collections/docs@2",
            {"vectors": {"size": 4, "distance": "Cosine"}, "metadata": {**config, "_vk_spec": config["_vk_spec"].replace('"generation":1', '"generation":2')}},
        )  # fmt: skip
    with vk.connect(server.url) as store, raises(vk.Corrupt, "holds Cosine vectors of 4 numbers"):
        store.collection("docs").count()
    qdrant_request(server.url, "DELETE", "collections/docs@2")
    qdrant_request(
        server.url, "PUT", "collections/other@1",
        {"vectors": {"size": 8, "distance": "Cosine"}, "metadata": {**config, "_vk_layout": 9}},
    )  # fmt: skip
    with vk.connect(server.url) as store:
        assert store.collections() == ["docs", "other"]
        with raises(vk.Unsupported, "has layout 9"):
            store.collection("other").count()


def test_a_generation_is_never_given_twice(server: QdrantServer) -> None:
    with vk.connect(server.url) as one, vk.connect(server.url) as other:
        one.create_collection(SPEC)
        other.collection("docs").upsert(rows(0, 3))
        stale = other.collection("docs")
        for expected in (2, 3):
            one.drop_collection("docs")
            one.create_collection(SPEC)
            names = [found["name"] for found in qdrant_request(server.url, "GET", "collections")["collections"]]
            assert f"docs@{expected}" in names
        assert stale.count() == 0


def test_a_generation_that_another_made_and_dropped_meanwhile_is_not_given(server: QdrantServer) -> None:
    def theirs() -> None:
        with vk.connect(server.url) as other:
            other.create_collection(SPEC).upsert(rows(0, 3))
            other.drop_collection("docs")

    with vk.connect(server.url) as store, between(store, "create_collection", theirs):
        assert store.create_collection(SPEC).count() == 0
        names = [found["name"] for found in qdrant_request(server.url, "GET", "collections")["collections"]]
        assert sorted(names) == ["docs@2", "vk-control"]


def test_what_an_adoption_left_is_swept_when_it_is_old(server: QdrantServer, strangers: QdrantClient) -> None:
    shape = {"vectors": {"size": 8, "distance": "Dot"}}
    with vk.connect(server.url) as store:
        for generation, begun in ((1, time.time() - 4_000), (2, time.time() - 60)):
            spec = json.dumps({**vk.CollectionSpec("kb", 8, metric="dot").to_json(), "generation": generation})
            labels = {"_vk_layout": 1, "_vk_spec": spec, "_vk_state": "hidden", "_vk_begun": int(begun)}
            qdrant_request(server.url, "PUT", f"collections/kb@{generation}", {**shape, "metadata": labels})
        assert store.collections() == []
        with raises(vk.AlreadyExists, "is being adopted as 'kb@2'"):
            store.create_collection(vk.CollectionSpec("kb", 8, metric="dot"))
        assert {found.name for found in strangers.get_collections().collections} == {"kb@2"}


def test_of_two_drops_that_cross_the_higher_generation_is_remembered(server: QdrantServer) -> None:
    with vk.connect(server.url) as one, vk.connect(server.url) as other:
        one.create_collection(SPEC)

        def theirs() -> None:
            other.drop_collection("docs")
            other.create_collection(SPEC)
            other.drop_collection("docs")

        with between(one, "upsert", theirs):  # the note that generation 1 was dropped is written after that of 2
            one.drop_collection("docs")
        one.create_collection(SPEC)
        names = [found["name"] for found in qdrant_request(server.url, "GET", "collections")["collections"]]
        assert sorted(names) == ["docs@3", "vk-control"]


def test_a_row_that_no_request_takes_is_refused_before_any(
    server: QdrantServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "LARGEST", 5_000)
    with vk.connect(server.url) as store:
        docs = store.create_collection(SPEC)
        batch = [vk.Record(f"r{n}", EAST, "x" * (6_000 if n == 3 else 10), {}) for n in range(5)]
        with pytest.raises(vk.InvalidRecord) as caught:
            docs.upsert(batch)
        assert caught.value.row == 3
        assert docs.count() == 0


def test_damaged_numbers(server: QdrantServer) -> None:
    with vk.connect({"url": server.url, "api_key": None}) as store:
        docs = store.create_collection(replace(SPEC, expiry=True))
        docs.upsert(rows(0, 3))
        for key in ("_vk_expires", "_vk_seq", "_vk_id", "_vk_text", "_vk_meta"):
            wrong = 5 if key in ("_vk_id", "_vk_text", "_vk_meta") else "soon"
            store.native.set_payload("docs@1", {key: wrong}, points=models.Filter(must=[]))
            verbs: list[Callable[[], Any]] = [
                lambda: docs.get(["r1"]), lambda: docs.update(ids=["r1"], set={"n": 2}), lambda: docs.insert(rows(1, 2)),
                lambda: docs.query(EAST), lambda: list(docs.scan()), lambda: docs.delete(where=F("free") == 1), lambda: docs.delete(ids=["r1"]),
            ]  # fmt: skip
            told = []
            for verb in verbs:
                try:
                    verb()
                except (vk.Corrupt, vk.AlreadyExists) as error:
                    told.append(type(error))
            assert vk.Corrupt in told, key
            docs.upsert(rows(0, 3))


# --------------------------------------------------------------------------------------------- adopt


def named(client: QdrantClient, count: int = 2_500) -> None:
    vectors = {
        "image": models.VectorParams(size=4, distance=models.Distance.EUCLID),
        "text": models.VectorParams(size=8, distance=models.Distance.DOT),
    }
    client.create_collection("theirs", vectors)
    client.upsert(
        "theirs",
        [
            models.PointStruct(
                id=n,
                vector={"image": [float(n), 0, 0, 0], "text": [float(n % 7), 1.0, 0, 0, 0, 0, 0, 0]},
                payload={
                    "doc": {"key": f"k{n}", "body": f"word{n % 5}"},
                    "year": 2000 + n % 20,
                    "none": None,
                    "author": {"name": "a", "ids": [1, 2], "nested": {"deep": None}},
                },
            )
            for n in range(count)
        ],
    )


def test_named_vectors_and_nested_payloads_are_adopted(server: QdrantServer, strangers: QdrantClient) -> None:
    named(strangers)
    spec = vk.CollectionSpec("kb", 8, metric="dot", fields={"year": int})
    with vk.connect(server.url) as store:
        docs = store.adopt("theirs?vector=text&id=doc.key&text=doc.body", spec)
        assert docs.count() == 2_500
        (row,) = docs.get(["k8"], vectors=True)
        assert row is not None
        assert row.vector == pytest.approx([1, 1, 0, 0, 0, 0, 0, 0])
        assert row.text == "word3"
        assert row.metadata == {
            "doc": {"key": "k8", "body": "word3"},
            "year": 2008,
            "author": {"name": "a", "ids": [1, 2], "nested": {"deep": None}},
        }
        assert docs.count(F("year") == 2008) == 125
        assert len(docs.keyword("word3", k=1_000, where=F("year") == 2008)) == 125
        assert docs.query([6, 1, 0, 0, 0, 0, 0, 0], k=1)[0].score == pytest.approx(37)
        assert strangers.count("theirs").count == 2_500  # left as it was
        with raises(vk.AlreadyExists, "kb"):
            store.adopt("theirs?vector=text", spec)
        image = store.adopt("theirs?vector=image&metadata=author", vk.CollectionSpec("pictures", 4, metric="l2"))
        (row,) = image.get(["17"])
        assert row is not None
        assert row.metadata == {"name": "a", "ids": [1, 2], "nested": {"deep": None}}
        assert store.collections() == ["kb", "pictures"]


def test_ids_that_two_points_share_far_apart_are_refused(server: QdrantServer, strangers: QdrantClient) -> None:
    strangers.create_collection("theirs", models.VectorParams(size=2, distance=models.Distance.DOT))
    points = [models.PointStruct(id=n, vector=[1.0, n], payload={"key": n % 1_200}) for n in range(1_500)]
    strangers.upsert("theirs", points)
    with vk.connect(server.url) as store:
        with raises(vk.InvalidRecord, "300 of 1500 points have an id that another of them has"):
            store.adopt("theirs?id=key", vk.CollectionSpec("kb", 2, metric="dot"))
        assert store.collections() == []
        assert [found.name for found in strangers.get_collections().collections] == ["theirs"]


def test_a_handle_with_a_shard_key_adopts_what_has_none(middleman: Middleman, strangers: QdrantClient) -> None:
    named(strangers, 30)
    with vk.connect(middleman.url, options=QdrantOptions(shard_key="eu")) as store:
        assert store.adopt("theirs?vector=text", vk.CollectionSpec("kb", 8, metric="dot")).count() == 30
    assert all("shard_key" not in body for body in middleman.asked("POST", "/theirs/points/scroll"))


@pytest.mark.parametrize(
    ("name", "spec", "kind", "says"),
    [
        ("nothing", {}, vk.NotFound, "nothing"),
        ("theirs", {}, vk.InvalidArgument, "has the vectors 'image', 'text'; say which"),
        ("theirs?vector=sound", {}, vk.InvalidArgument, "has the vectors"),
        ("theirs?vektor=text", {}, vk.InvalidArgument, "not 'vektor'"),
        ("theirs?vector=", {}, vk.InvalidArgument, "vector= names nothing"),
        ("?vector=text", {}, vk.InvalidArgument, "is no name"),
        ("a/b", {}, vk.InvalidArgument, "is no name"),
        ("theirs?vector=text", {"dimension": 9}, vk.DimensionMismatch, "vectors of 8 numbers"),
        ("theirs?vector=text", {"metric": "l2"}, vk.SpecMismatch, "measures by dot"),
        ("theirs?vector=text&text=year", {}, vk.InvalidRecord, "point 0: its text is no string"),
        ("theirs?vector=text&id=author", {}, vk.InvalidRecord, "point 0: its id is no string or int"),
        ("theirs?vector=text&metadata=year", {}, vk.InvalidRecord, "point 0: its metadata is no object"),
        ("theirs?vector=text&id=year", {}, vk.InvalidRecord, "theirs"),
        ("theirs?vector=text", {"fields": {"author": str}}, vk.InvalidRecord, "author"),
        ("vk-control", {}, vk.InvalidArgument, "vectorkit's own"),
    ],
)
def test_what_cannot_be_adopted_leaves_nothing(
    server: QdrantServer, strangers: QdrantClient, name: str, spec: dict[str, Any], kind: Any, says: str
) -> None:
    named(strangers, 30)
    with vk.connect(server.url) as store:
        store.create_collection(vk.CollectionSpec("gone", 2))
        store.drop_collection("gone")  # which makes vk-control
        wanted = {"dimension": 8, "metric": "dot", **spec}
        with raises(kind, says):
            store.adopt(name, vk.CollectionSpec("kb", **wanted))
        assert store.collections() == []
        left = {found.name for found in strangers.get_collections().collections}
        assert left == {"theirs", "vk-control"}


def test_of_two_adoptions_of_one_name_one_is_made(server: QdrantServer, strangers: QdrantClient) -> None:
    named(strangers, 30)
    spec = vk.CollectionSpec("kb", 8, metric="dot")
    ended: list[str] = []

    def make(adopting: bool) -> None:
        with vk.connect(server.url) as own:
            try:
                ended.append(
                    str((own.adopt("theirs?vector=text", spec) if adopting else own.create_collection(spec)).count())
                )
            except vk.AlreadyExists:
                ended.append("exists")

    with vk.connect(server.url) as store:
        with between(store, "update_collection", lambda: list(map(make, (True, False)))):
            assert store.adopt("theirs?vector=text", spec).count() == 30
        assert ended == ["exists", "exists"]
        store.drop_collection("kb")
        ended.clear()
        threads = [threading.Thread(target=make, args=(True,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ended) == ["30", *["exists"] * 5]
        assert store.collection("kb").count() == 30


def test_what_an_adoption_that_was_killed_left_is_not_seen(
    server: QdrantServer, strangers: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(strangers, 30)
    spec = vk.CollectionSpec("kb", 8, metric="dot")
    with vk.connect(server.url) as store:
        killed = between(store, "update_collection", lambda: (_ for _ in ()).throw(SystemExit))
        with monkeypatch.context() as patch:
            patch.setattr(store.native, "delete_collection", lambda *given, **named: None)
            with killed, pytest.raises(SystemExit):
                store.adopt("theirs?vector=text", spec)
        assert store.collections() == []
        with raises(vk.AlreadyExists, "is being adopted as 'kb@1'"):
            store.create_collection(spec)
        assert {found.name for found in strangers.get_collections().collections} == {"theirs", "kb@1"}
        monkeypatch.setattr(server_module, "STALE", 0)
        store.create_collection(spec)
        assert {found.name for found in strangers.get_collections().collections} == {"theirs", "kb@2"}
