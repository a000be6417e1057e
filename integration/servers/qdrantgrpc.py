"""The gRPC face of the Qdrant shim: requests are made into those of REST, by the official client's own conversions.

So both faces carry out the same requests on the same collections, and what differs is what a client makes of the answers. The
status codes are those that the server's source has.
"""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from pydantic import BaseModel
from qdrant_client import grpc as said
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from integration.servers.qdrantengine import Collections, Json, Refused
from integration.servers.qdrantgate import COMMIT, TITLE, VERSION, Gate

Verb = Callable[[Any], Any]
AT_ONCE = 64  # requests
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ALREADY_EXISTS,
    413: grpc.StatusCode.OUT_OF_RANGE,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_IN, _OUT = GrpcToRest, RestToGrpc
_PARTS = frozenset({"must", "should", "must_not"})


# --------------------------------------------------------------------------------------------- messages to JSON


def plain(given: Any) -> Any:
    """A model of the client, or models, as JSON."""
    if isinstance(given, BaseModel):
        return plain(given.model_dump(mode="json", by_alias=True, exclude_none=True))
    if isinstance(given, dict):
        # a filter's parts are never unset in a message; an empty one says nothing, and the engine takes it for "none"
        return {name: plain(value) for name, value in given.items() if value != [] or name not in _PARTS}
    if isinstance(given, list):
        return [plain(value) for value in given]
    return getattr(given, "value", given)


def part(message: Any, field: str, convert: Callable[[Any], Any] | None = None) -> Any:
    """A field as JSON, None where it is not set."""
    if not message.HasField(field):
        return None
    found = getattr(message, field)
    return found if convert is None else plain(convert(found))


def point(message: Any) -> Json:
    """A point to be written."""
    return {
        "id": _IN.convert_point_id(message.id),
        "vector": plain(_IN.convert_vectors(message.vectors)) if message.HasField("vectors") else {},
        "payload": _IN.convert_payload(message.payload),
    }


def aim(message: Any, field: str) -> Json:
    """Which points are meant: ids or a filter."""
    if not message.HasField(field):
        raise Refused(400, "points_selector is expected")
    selector = getattr(message, field)
    if selector.WhichOneof("points_selector_one_of") == "points":
        return {"points": [_IN.convert_point_id(one) for one in selector.points.ids]}
    return {"filter": plain(_IN.convert_filter(selector.filter))}


def upsert(message: Any) -> Json:
    """Points to be written, and how."""
    return {
        "points": [point(one) for one in message.points],
        "update_filter": part(message, "update_filter", _IN.convert_filter),
        "update_mode": part(message, "update_mode", _IN.convert_update_mode),
    }


def payload(message: Any) -> Json:
    """A payload to be set, on some points."""
    return {
        "payload": _IN.convert_payload(message.payload),
        "key": part(message, "key"),
        **aim(message, "points_selector"),
    }


def keys(message: Any) -> Json:
    """Keys of payloads to be deleted, of some points."""
    return {"keys": list(message.keys), **aim(message, "points_selector")}


def moved(message: Any) -> Json:
    """Vectors to be updated."""
    return {
        "points": [
            {"id": _IN.convert_point_id(one.id), "vector": plain(_IN.convert_vectors(one.vectors))}
            for one in message.points
        ],
        "update_filter": part(message, "update_filter", _IN.convert_filter),
    }


def unmade(message: Any) -> Json:
    """Vectors to be deleted."""
    return {"vector": list(message.vectors.names), **aim(message, "points_selector")}


def operation(message: Any) -> Json:
    """One of a batch."""
    name = message.WhichOneof("operation")
    made: dict[str, Callable[[Any], Json]] = {
        "upsert": upsert,
        "set_payload": payload,
        "overwrite_payload": payload,
        "delete_payload": keys,
        "clear_payload": lambda one: aim(one, "points"),
        "update_vectors": moved,
        "delete_vectors": unmade,
        "delete_points": lambda one: aim(one, "points"),
    }
    if name not in made:
        raise Refused(400, "Wrong input: the shim has no such operation")
    return {{"delete_points": "delete"}.get(name, name): made[name](getattr(message, name))}


def shown(message: Any) -> Json:
    """What of points is to be told."""
    return {
        "with_payload": part(message, "with_payload", _IN.convert_with_payload_interface),
        "with_vector": part(message, "with_vectors", _IN.convert_with_vectors_selector),
    }


def scroll(message: Any) -> Json:
    """A page to be read."""
    return {
        **shown(message),
        "filter": part(message, "filter", _IN.convert_filter),
        "offset": part(message, "offset", _IN.convert_point_id),
        "limit": part(message, "limit"),
        "order_by": part(message, "order_by", _IN.convert_order_by),
    }


def query(message: Any) -> Json:
    """A search."""
    found: Json = plain(_IN.convert_query_points(message))
    return found


def index(message: Any) -> Json:
    """A payload index to be made."""
    kinds = ("keyword", "integer", "float", "geo", "text", "bool", "datetime", "uuid")
    schema: Any = kinds[message.field_type] if message.HasField("field_type") else None
    if message.HasField("field_index_params"):
        schema = plain(_IN.convert_payload_schema_params(message.field_index_params))
    return {"field_name": message.field_name, "field_schema": schema}


def collection(message: Any) -> Json:
    """A collection to be made."""
    asked = {
        name: part(message, name)
        for name in ("shard_number", "on_disk_payload", "replication_factor", "write_consistency_factor")
    }
    return {
        **asked,
        "vectors": part(message, "vectors_config", _IN.convert_vectors_config),
        "sparse_vectors": part(message, "sparse_vectors_config", _IN.convert_sparse_vector_config),
        "hnsw_config": part(message, "hnsw_config", _IN.convert_hnsw_config_diff),
        "wal_config": part(message, "wal_config", _IN.convert_wal_config_diff),
        "optimizers_config": part(message, "optimizers_config", _IN.convert_optimizers_config_diff),
        "quantization_config": part(message, "quantization_config", _IN.convert_quantization_config),
        "sharding_method": part(message, "sharding_method", _IN.convert_sharding_method),
        "strict_mode_config": part(message, "strict_mode_config", _IN.convert_strict_mode_config),
        "metadata": _IN.convert_payload(message.metadata) or None,
    }


def changed(message: Any) -> Json:
    """A collection to be changed."""
    return {
        "vectors": part(message, "vectors_config", _IN.convert_vectors_config_diff),
        "hnsw_config": part(message, "hnsw_config", _IN.convert_hnsw_config_diff),
        "optimizers_config": part(message, "optimizers_config", _IN.convert_optimizers_config_diff),
        "params": part(message, "params", _IN.convert_collection_params_diff),
        "quantization_config": part(message, "quantization_config", _IN.convert_quantization_config_diff),
        "strict_mode_config": part(message, "strict_mode_config", _IN.convert_strict_mode_config),
        "metadata": _IN.convert_payload(message.metadata) or None,
    }


# --------------------------------------------------------------------------------------------- JSON to messages


def _bare(found: Any) -> Any:
    """Vectors without numpy."""
    if isinstance(found, dict):
        return {name: _bare(value) for name, value in found.items()}
    return found.tolist() if isinstance(found, np.ndarray) else found


def _fields(found: Json) -> Json:
    """What the messages of found and of scored points have in common."""
    told: Json = {
        "id": _OUT.convert_extended_point_id(found["id"]),
        "payload": _OUT.convert_payload(found["payload"] or {}),
    }
    if (vector := _bare(found.get("vector"))) is not None:
        if isinstance(vector, dict):
            vector = {
                name: models.SparseVector(**one) if isinstance(one, dict) else one for name, one in vector.items()
            }
        told["vectors"] = _OUT.convert_vector_struct_output(vector)
    if "order_value" in found:
        told["order_value"] = _OUT.convert_order_value(found["order_value"])
    return told


def retrieved(found: Iterable[Json]) -> list[Any]:
    """Points that were read."""
    return [said.RetrievedPoint(**_fields(one)) for one in found]


def scored(found: Iterable[Json]) -> list[Any]:
    """Points that a search found."""
    return [said.ScoredPoint(**_fields(one), score=float(one["score"]), version=one["version"]) for one in found]


def _update(done: Json) -> Any:
    status = {"completed": said.UpdateStatus.Completed, "acknowledged": said.UpdateStatus.Acknowledged}
    return said.UpdateResult(operation_id=done["operation_id"], status=status[done["status"]])


# --------------------------------------------------------------------------------------------- verbs


def points(store: Collections) -> dict[str, tuple[Verb, bool]]:
    """The verbs of the service Points, and whether each writes."""

    def writes(act: Callable[..., Json], made: Callable[[Any], Json]) -> tuple[Verb, bool]:
        def verb(request: Any) -> Any:
            done = act(request.collection_name, made(request), wait=request.wait)
            return said.PointsOperationResponse(result=_update(done))

        return verb, True

    def update_batch(request: Any) -> Any:
        asked = {"operations": [operation(one) for one in request.operations]}
        done = store.batch(request.collection_name, asked, wait=request.wait)
        return said.UpdateBatchResponse(result=list(map(_update, done)))

    def delete_index(request: Any) -> Any:
        done = store.delete_index(request.collection_name, request.field_name, wait=request.wait)
        return said.PointsOperationResponse(result=_update(done))

    def get(request: Any) -> Any:
        asked = {"ids": [_IN.convert_point_id(one) for one in request.ids], **shown(request)}
        return said.GetResponse(result=retrieved(store.retrieve(request.collection_name, asked)))

    def page(request: Any) -> Any:
        found = store.scroll(request.collection_name, scroll(request))
        following = found["next_page_offset"]
        return said.ScrollResponse(
            result=retrieved(found["points"]),
            next_page_offset=None if following is None else _OUT.convert_extended_point_id(following),
        )

    def ask(request: Any) -> Any:
        return said.QueryResponse(result=scored(store.query(request.collection_name, query(request))["points"]))

    def ask_batch(request: Any) -> Any:
        asked = {"searches": [query(one) for one in request.query_points]}
        answers = store.query_batch(request.collection_name, asked)
        return said.QueryBatchResponse(result=[said.BatchResult(result=scored(one["points"])) for one in answers])

    def count(request: Any) -> Any:
        found = store.count(request.collection_name, {"filter": part(request, "filter", _IN.convert_filter)})
        return said.CountResponse(result=said.CountResult(count=found["count"]))

    def facet(request: Any) -> Any:
        asked = {
            "key": request.key,
            "filter": part(request, "filter", _IN.convert_filter),
            "limit": part(request, "limit"),
            "exact": part(request, "exact"),
        }
        hits = store.facet(request.collection_name, asked)["hits"]
        return said.FacetResponse(
            hits=[said.FacetHit(value=_OUT.convert_facet_value(hit["value"]), count=hit["count"]) for hit in hits]
        )

    return {
        "Upsert": writes(store.upsert, upsert),
        "Delete": writes(store.delete, lambda request: aim(request, "points")),
        "SetPayload": writes(store.set_payload, payload),
        "OverwritePayload": writes(store.overwrite_payload, payload),
        "DeletePayload": writes(store.delete_payload, keys),
        "ClearPayload": writes(store.clear_payload, lambda request: aim(request, "points")),
        "UpdateVectors": writes(store.update_vectors, moved),
        "DeleteVectors": writes(store.delete_vectors, unmade),
        "CreateFieldIndex": writes(store.create_index, index),
        "DeleteFieldIndex": (delete_index, True),
        "UpdateBatch": (update_batch, True),
        "Get": (get, False),
        "Scroll": (page, False),
        "Query": (ask, False),
        "QueryBatch": (ask_batch, False),
        "Count": (count, False),
        "Facet": (facet, False),
    }


def collections(store: Collections) -> dict[str, tuple[Verb, bool]]:
    """The verbs of the service Collections, and whether each writes."""

    def told(done: bool) -> Any:
        return said.CollectionOperationResponse(result=done)

    def get(request: Any) -> Any:
        found = models.CollectionInfo.model_validate(store.describe(request.collection_name))
        return said.GetCollectionInfoResponse(result=_OUT.convert_collection_info(found))

    def listed(_: Any) -> Any:
        names = [said.CollectionDescription(name=one["name"]) for one in store.names()["collections"]]
        return said.ListCollectionsResponse(collections=names)

    def exists(request: Any) -> Any:
        found = store.exists(request.collection_name)["exists"]
        return said.CollectionExistsResponse(result=said.CollectionExists(exists=found))

    def aliases(request: Any) -> Any:
        asked = plain([_IN.convert_alias_operations(one) for one in request.actions])
        return told(store.alias({"actions": asked}))

    def aliases_of(name: str | None) -> Any:
        return said.ListAliasesResponse(
            aliases=[said.AliasDescription(**one) for one in store.aliases_of(name)["aliases"]]
        )

    return {
        "Create": (lambda request: told(store.create(request.collection_name, collection(request))), True),
        "Update": (lambda request: told(store.change(request.collection_name, changed(request))), True),
        "Delete": (lambda request: told(store.drop(request.collection_name)), True),
        "Get": (get, False),
        "List": (listed, False),
        "CollectionExists": (exists, False),
        "UpdateAliases": (aliases, True),
        "ListAliases": (lambda _: aliases_of(None), False),
        "ListCollectionAliases": (lambda request: aliases_of(request.collection_name), False),
    }


# --------------------------------------------------------------------------------------------- the server


def _guarded(gate: Gate, path: str, verb: Verb, *, writing: bool) -> Callable[[Any, Any], Any]:
    def call(request: Any, context: Any) -> Any:
        came = request.ByteSize()
        try:
            headers = dict(context.invocation_metadata())
            bearer = (headers.get("authorization") or "").removeprefix("Bearer ") or None
            gate.admit(headers.get("api-key") or bearer, writing=writing)
            gate.fail(path, done=False)
            reply = verb(request)
            gate.fail(path, done=True)
        except Refused as error:
            gate.count(path, came, 0)
            if error.retry_after is not None:
                context.set_trailing_metadata([("retry-after", str(error.retry_after))])
            context.abort(CODES[error.status], _as_said(str(error)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # a message that the conversions do not take
            gate.count(path, came, 0)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Wrong input: {error}")
        gate.count(path, came, reply.ByteSize())
        return reply

    return call


def _as_said(told: str) -> str:
    """There is no JSON body to speak of."""
    if bad := re.search(r"value (.*) is not a valid point ID", told):
        return f"Unable to parse UUID: {bad[1]}"
    return told.replace("Format error in JSON body: ", "Wrong input: ", 1).replace("in JSON body", "in body", 1)


def grpc_face(store: Collections, gate: Gate, address: str) -> Any:
    """Serve the collections at an address; the server, running."""
    # The port is not shared, as it would be by default: one that is taken is to be refused.
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(AT_ONCE), options=options)
    services: tuple[tuple[str, Any, Any, dict[str, tuple[Verb, bool]]], ...] = (
        ("qdrant.Points", said.PointsServicer(), said.add_PointsServicer_to_server, points(store)),
        ("qdrant.Collections", said.CollectionsServicer(), said.add_CollectionsServicer_to_server, collections(store)),
    )
    for service, servicer, add, verbs in services:
        for name, (verb, writing) in verbs.items():
            setattr(servicer, name, _guarded(gate, f"/{service}/{name}", verb, writing=writing))
        add(servicer, server)
    health: Any = said.QdrantServicer()
    reply = said.HealthCheckReply(title=TITLE, version=VERSION, commit=COMMIT)
    health.HealthCheck = lambda request, context: reply
    add_health: Any = said.add_QdrantServicer_to_server
    add_health(health, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"Address already in use: {address}") from error
    server.start()
    return server
