"""A shim: the part of Qdrant's REST that vectorkit uses, spoken over Qdrant's own engine (package qdrant-edge-py).

No Qdrant server: there are no shards, replicas, snapshots or users, and errors are worded as far as a client reads them. The engine
that stores, filters and scores is the real one. What passes here is certified against a live server by `STORES=qdrant`.
"""

import json
import re
import shutil
import sys
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import qdrant_edge as qe

DISTANCES = {"Cosine": qe.Distance.Cosine, "Dot": qe.Distance.Dot, "Euclid": qe.Distance.Euclid}


class Refused(Exception):
    """An error with its status."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


# --------------------------------------------------------------------------------------------- JSON to the engine


def as_filter(given: Any) -> Any:
    """A filter of the REST API as the engine's."""
    if given is None:
        return None
    parts = {name: given.get(name) for name in ("must", "should", "must_not")}
    return qe.Filter(
        **{
            name: [as_condition(one) for one in (found if isinstance(found, list) else [found])]
            for name, found in parts.items()
            if found is not None
        }
    )


def as_condition(given: dict[str, Any]) -> Any:
    """One condition."""
    if "has_id" in given:
        return qe.HasIdCondition(set(given["has_id"]))
    if "is_empty" in given:
        return qe.IsEmptyCondition(given["is_empty"]["key"])
    if "is_null" in given:
        return qe.IsNullCondition(given["is_null"]["key"])
    if "key" not in given:
        return as_filter(given)
    if (match := given.get("match")) is not None:
        kinds: dict[str, Callable[[Any], Any]] = {
            "value": lambda value: qe.MatchValue(value),
            "any": lambda values: qe.MatchAny(values),
            "except": lambda values: qe.MatchExcept(values),
            "prefix": lambda prefix: qe.MatchPrefix(prefix),
            "text": lambda text: qe.MatchText(text),
        }
        (kind,) = [name for name in match if match[name] is not None]
        return qe.FieldCondition(given["key"], match=kinds[kind](match[kind]))
    if (bounds := given.get("range")) is not None:
        return qe.FieldCondition(
            given["key"], range=qe.RangeFloat(**{name: float(value) for name, value in bounds.items() if value is not None})
        )
    raise Refused(400, f"Format error in JSON body: no condition that the shim knows: {sorted(given)}")


def as_payload(given: Any) -> Any:
    """`with_payload`."""
    return qe.PayloadSelector.Include(given) if isinstance(given, list) else bool(given)


def as_query(given: dict[str, Any]) -> Any:
    """One search."""
    query: Any = given.get("query")
    if isinstance(query, dict) and "text" in query:
        query = qe.TextQuery(given["using"], query["text"]["query"])
    elif query is not None:
        query = qe.Query.Nearest(query["nearest"] if isinstance(query, dict) else query)
    params = given.get("params") or {}
    return qe.QueryRequest(
        query=query,
        filter=as_filter(given.get("filter")),
        limit=given.get("limit") or 10,
        params=qe.SearchParams(hnsw_ef=params.get("hnsw_ef"), exact=bool(params.get("exact"))),
        with_vector=bool(given.get("with_vector")),
        with_payload=as_payload(given.get("with_payload")),
    )


def as_index(given: Any) -> Any:
    """A payload index."""
    schema = {"type": given} if isinstance(given, str) else given
    match schema["type"]:
        case "integer":
            return qe.IntegerIndexParams(lookup=schema.get("lookup"), range=schema.get("range"))
        case "float":
            return qe.FloatIndexParams()
        case "keyword":
            return qe.KeywordIndexParams(prefix=schema.get("prefix"), is_tenant=schema.get("is_tenant"))
        case "text" if schema.get("tokenizer") == "whitespace":
            return qe.TextIndexParams(
                tokenizer=qe.TokenizerType.Whitespace, lowercase=schema.get("lowercase"), scoring=bool(schema.get("scoring"))
            )
    raise Refused(400, f"Format error in JSON body: no index that the shim knows: {schema}")


def point(found: Any, scored: bool = False) -> dict[str, Any]:
    """A point as REST shows it."""
    told = {"id": str(found.id), "payload": found.payload, "vector": found.vector}
    return {**told, "version": 0, "score": found.score} if scored else told


# --------------------------------------------------------------------------------------------- collections


class Collections:
    """Shards by name, in a directory; what a shard does not keep is beside it as JSON."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.shards: dict[str, Any] = {}
        self.said: dict[str, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.json"):
            told = json.loads(file.read_text("utf-8"))
            self.said[told["name"]] = told
            self.shards[told["name"]] = qe.EdgeShard.load(str(folder / file.stem))

    def shard(self, name: str) -> Any:
        """An open shard, or a 404."""
        found = self.shards.get(name)
        if found is None:
            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
        return found

    def create(self, name: str, asked: dict[str, Any]) -> None:
        """Make one, or a 409."""
        with self.lock:
            if name in self.shards:
                raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
            graph = asked.get("hnsw_config") or {}
            config = qe.EdgeConfig(
                vectors=qe.EdgeVectorParams(
                    size=asked["vectors"]["size"],
                    distance=DISTANCES[asked["vectors"]["distance"]],
                    hnsw_config=qe.HnswIndexConfig(
                        m=16 if graph.get("m") is None else graph["m"],
                        ef_construct=graph.get("ef_construct") or 100,
                        full_scan_threshold=10_000,
                    ),
                )
            )
            stem = uuid.uuid4().hex
            shard = qe.EdgeShard.create(str(self.folder / stem), config)
            told = {"name": name, "stem": stem, "metadata": asked.get("metadata"), "vectors": asked["vectors"]}
            (self.folder / f"{stem}.json").write_text(json.dumps(told), "utf-8")
            self.said[name] = told
            self.shards[name] = shard

    def drop(self, name: str) -> bool:
        """Whether it was there."""
        with self.lock:
            shard = self.shards.pop(name, None)
            if shard is None:
                return False
            stem = self.said.pop(name)["stem"]
            (self.folder / f"{stem}.json").unlink()
            shard.close()
            shutil.rmtree(self.folder / stem)
            return True

    def describe(self, name: str) -> dict[str, Any]:
        """As GET /collections/name."""
        info, told = self.shard(name).info(), self.said[name]
        graph = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000}
        optimizers = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1_000, "default_segment_number": 0, "flush_interval_sec": 5}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "indexed_vectors_count": info.indexed_vectors_count,
            "segments_count": info.segments_count,
            "payload_schema": {},
            "config": {
                "params": {"vectors": told["vectors"]},
                "hnsw_config": graph,
                "optimizer_config": optimizers,
                "metadata": told["metadata"],
            },
        }

    # ------------------------------------------------------------------------------------- points

    def update(self, name: str, operation: Any) -> dict[str, Any]:
        """Carry one out."""
        self.shard(name).update(operation)
        return {"operation_id": 0, "status": "completed"}

    def upsert(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """PUT points, by rows or by columns."""
        if "batch" in asked:
            batch = asked["batch"]
            rows = list(zip(batch["ids"], batch["vectors"], batch.get("payloads") or [None] * len(batch["ids"]), strict=True))
        else:
            rows = [(one["id"], one["vector"], one.get("payload")) for one in asked["points"]]
        modes = {"insert_only": qe.UpdateMode.InsertOnly, "update_only": qe.UpdateMode.UpdateOnly}
        mode = modes.get(asked.get("update_mode") or "", qe.UpdateMode.Upsert)
        return self.update(name, qe.UpdateOperation.upsert_points([qe.Point(*row) for row in rows], update_mode=mode))

    def delete(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """POST points/delete."""
        if "points" in asked:
            return self.update(name, qe.UpdateOperation.delete_points(asked["points"]))
        return self.update(name, qe.UpdateOperation.delete_points_by_filter(as_filter(asked["filter"])))

    def batch(self, name: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """POST points/batch: of its operations, the one that vectorkit uses."""
        done = []
        for operation in asked["operations"]:
            change = operation["overwrite_payload"]
            done.append(
                self.update(
                    name, qe.UpdateOperation.overwrite_payload_by_filter(as_filter(change["filter"]), change["payload"])
                )
            )
        return done

    def retrieve(self, name: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """POST points."""
        found = self.shard(name).retrieve(asked["ids"], as_payload(asked.get("with_payload")), bool(asked.get("with_vector")))
        return [point(one) for one in found]

    def scroll(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """POST points/scroll."""
        found, following = self.shard(name).scroll(
            qe.ScrollRequest(
                offset=asked.get("offset"),
                limit=asked.get("limit") or 10,
                filter=as_filter(asked.get("filter")),
                with_payload=as_payload(asked.get("with_payload")),
                with_vector=bool(asked.get("with_vector")),
            )
        )
        return {"points": [point(one) for one in found], "next_page_offset": None if following is None else str(following)}

    def query(self, name: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """POST points/query/batch."""
        request = qe.QueryBatchRequest([as_query(one) for one in asked["searches"]])
        return [{"points": [point(one, scored=True) for one in answer]} for answer in self.shard(name).query_batch(request)]

    def count(self, name: str, asked: dict[str, Any]) -> dict[str, int]:
        """POST points/count."""
        return {"count": self.shard(name).count(qe.CountRequest(filter=as_filter(asked.get("filter")), exact=True))}

    def index(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """PUT index."""
        return self.update(name, qe.UpdateOperation.create_field_index(asked["field_name"], as_index(asked["field_schema"])))


# --------------------------------------------------------------------------------------------- HTTP

_COLLECTION = re.compile(r"/collections/([^/?]+)(/[^?]*)?(?:\?.*)?\Z")


def answer(store: Collections, method: str, path: str, asked: Any) -> Any:
    """What one request is answered with."""
    if path.partition("?")[0] == "/collections":
        return {"collections": [{"name": name} for name in list(store.shards)]}
    found = _COLLECTION.match(path)
    if found is None:
        raise Refused(404, "Not found")
    name, rest = unquote(found[1]), found[2] or ""
    match method, rest:
        case "GET", "":
            return store.describe(name)
        case "GET", "/exists":
            return {"exists": name in store.shards}
        case "PUT", "":
            store.create(name, asked)
            return True
        case "DELETE", "":
            return store.drop(name)
    verbs: dict[tuple[str, str], Callable[[str, Any], Any]] = {
        ("PUT", "/index"): store.index,
        ("PUT", "/points"): store.upsert,
        ("POST", "/points"): store.retrieve,
        ("POST", "/points/scroll"): store.scroll,
        ("POST", "/points/count"): store.count,
        ("POST", "/points/delete"): store.delete,
        ("POST", "/points/batch"): store.batch,
        ("POST", "/points/query/batch"): store.query,
    }
    verb = verbs.get((method, rest))
    if verb is None:
        raise Refused(404, f"Not found: the shim has no {method} {rest}")
    return verb(name, asked)


class Handler(BaseHTTPRequestHandler):
    """JSON in, JSON out, on connections that stay open."""

    protocol_version = "HTTP/1.1"
    store: Collections

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            if self.path == "/readyz":
                self._reply(200, b"all shards are ready")
                return
            if len(body) > 32 * 2**20:
                raise Refused(413, "Payload error: JSON payload is larger than allowed")
            result = answer(self.store, self.command, self.path, json.loads(body) if body else None)
            told, status = {"result": result, "status": "ok", "time": 0.0}, 200
        except Refused as error:
            told, status = {"status": {"error": str(error)}, "time": 0.0}, error.status
        except Exception as error:  # noqa: BLE001 - the engine's own, which are bare
            told, status = {"status": {"error": f"Wrong input: {error}"}, "time": 0.0}, 400
        self._reply(status, json.dumps(told).encode())

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name
        """Say nothing."""


class Patient(ThreadingHTTPServer):
    """A thread a connection, and many that may wait for theirs."""

    request_queue_size = 512
    daemon_threads = True


def main() -> None:
    """python -m integration.servers.qdrantshim FOLDER HOST PORT"""
    folder, host, port = sys.argv[1:]
    Handler.store = Collections(Path(folder))
    server = Patient((host, int(port)), Handler)
    server.serve_forever()


if __name__ == "__main__":
    main()
