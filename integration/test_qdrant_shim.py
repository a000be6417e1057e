"""The Qdrant shim, by the official client of both colours and over both protocols: every endpoint it has, with exact answers.

Most of it takes a server by its address alone, so that `STORES=qdrant` holds a live one to the same answers.
"""

import asyncio
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client import grpc as said
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import UnexpectedResponse

from integration.servers.keeper import ServerError
from integration.servers.live import named
from integration.servers.qdrant import QdrantServer, qdrant_request, qdrant_sweep

pytestmark = pytest.mark.store("qdrant")

DOT = models.VectorParams(size=2, distance=models.Distance.DOT)
ID = "202be69f-3422-5a91-ba73-6861f1e968ac"
STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ALREADY_EXISTS,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}


@pytest.fixture(scope="session")
def ports(request: pytest.FixtureRequest, qdrant_url: str) -> tuple[str, int, int]:
    """Host and both ports: a live server has that of gRPC beside the other, or $VECTORKIT_QDRANT_GRPC_PORT says where."""
    parts = urlsplit(qdrant_url)
    port = parts.port or 6333
    if "qdrant" in named():
        other = int(os.environ.get("VECTORKIT_QDRANT_GRPC_PORT") or port + 1)
    else:
        other = request.getfixturevalue("qdrant_server").grpc_port
    return parts.hostname or "", port, other


@pytest.fixture(params=["rest", "grpc"])
def client(request: pytest.FixtureRequest, ports: tuple[str, int, int]) -> Iterator[QdrantClient]:
    host, port, other = ports
    made = QdrantClient(
        url=f"http://{host}:{port}", grpc_port=other, prefer_grpc=request.param == "grpc", check_compatibility=False
    )
    yield made
    made.close()


@pytest.fixture
def name(qdrant_url: str) -> Iterator[str]:
    """A name that no collection has yet."""
    made = f"shim-{uuid.uuid4().hex}"
    yield made
    qdrant_request(qdrant_url, "DELETE", f"collections/{made}")


@pytest.fixture
def filled(client: QdrantClient, name: str) -> str:
    """Three points, (1, 0), (0, 2) and (3, 3) under dot."""
    client.create_collection(name, vectors_config=DOT)
    client.upsert(
        name,
        [
            models.PointStruct(id=1, vector=[1.0, 0.0], payload={"n": 1, "tags": ["x", "y"], "word": "one two"}),
            models.PointStruct(id=2, vector=[0.0, 2.0], payload={"n": 2, "tags": ["y"], "word": "two two three"}),
            models.PointStruct(id=ID, vector=[3.0, 3.0], payload={"n": 3}),
        ],
    )
    return name


def payloads(client: QdrantClient, name: str) -> dict[Any, Any]:
    return {one.id: one.payload for one in client.scroll(name, limit=100)[0]}


def where(key: str, value: Any) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value))])


def refused(client: QdrantClient, status: int, verb: str, *arguments: Any, **more: Any) -> str:
    """What a call is refused with, whose status is the given one in either protocol."""
    with pytest.raises((UnexpectedResponse, grpc.RpcError)) as caught:
        getattr(client, verb)(*arguments, **more)
    error: Any = caught.value
    if isinstance(error, UnexpectedResponse):
        assert error.status_code == status
        return str(json.loads(error.content)["status"]["error"])
    assert error.code() == STATUS[status]
    return str(error.details())


# ------------------------------------------------------------------------------------- collections


def test_a_collection_tells_what_it_was_made_with(client: QdrantClient, name: str) -> None:
    assert client.create_collection(
        name,
        vectors_config={
            "a": models.VectorParams(size=4, distance=models.Distance.COSINE, on_disk=True),
            "b": models.VectorParams(
                size=2, distance=models.Distance.EUCLID, hnsw_config=models.HnswConfigDiff(m=8, ef_construct=40)
            ),
        },
        sparse_vectors_config={"s": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        hnsw_config=models.HnswConfigDiff(m=24, full_scan_threshold=500, on_disk=True),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=123),
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.5, always_ram=True)
        ),
        on_disk_payload=False,
        shard_number=2,
        replication_factor=1,
        write_consistency_factor=1,
        sharding_method=models.ShardingMethod.AUTO,
        metadata={"who": "us", "deep": {"n": [1, 2.5, None]}},
    )
    told = client.get_collection(name)
    params = told.config.params
    assert isinstance(params.vectors, dict)
    assert sorted(params.vectors) == ["a", "b"]
    assert (params.vectors["a"].size, params.vectors["a"].distance, params.vectors["a"].on_disk) == (4, "Cosine", True)
    assert params.vectors["b"].hnsw_config is not None
    assert (params.vectors["b"].hnsw_config.m, params.vectors["b"].hnsw_config.ef_construct) == (8, 40)
    assert params.sparse_vectors is not None
    assert params.sparse_vectors["s"].modifier == models.Modifier.IDF
    assert (params.shard_number, params.replication_factor, params.write_consistency_factor) == (2, 1, 1)
    assert (params.sharding_method, params.on_disk_payload) == (models.ShardingMethod.AUTO, False)
    graph = told.config.hnsw_config
    assert (graph.m, graph.ef_construct, graph.full_scan_threshold, graph.on_disk) == (24, 100, 500, True)
    assert told.config.optimizer_config.indexing_threshold == 123
    assert isinstance(told.config.quantization_config, models.ScalarQuantization)
    coarse = told.config.quantization_config.scalar
    assert (coarse.type, coarse.quantile, coarse.always_ram) == (models.ScalarType.INT8, 0.5, True)
    assert told.config.metadata == {"who": "us", "deep": {"n": [1, 2.5, None]}}
    assert (told.status, told.points_count, told.payload_schema) == (models.CollectionStatus.GREEN, 0, {})


def test_other_quantizations_are_told_back(client: QdrantClient, name: str) -> None:
    for coarse in (
        models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
        models.ProductQuantization(
            product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=False)
        ),
    ):
        client.create_collection(name, vectors_config=DOT, quantization_config=coarse)
        assert client.get_collection(name).config.quantization_config == coarse
        client.delete_collection(name)


def test_collections_are_listed_and_dropped_and_made_once(client: QdrantClient, name: str) -> None:
    assert client.collection_exists(name) is False
    client.create_collection(name, vectors_config=DOT)
    assert client.collection_exists(name) is True
    assert name in [one.name for one in client.get_collections().collections]
    told = refused(client, 409, "create_collection", name, vectors_config=DOT)
    assert told == f"Wrong input: Collection `{name}` already exists!"
    assert client.delete_collection(name) is True
    assert client.delete_collection(name) is False
    assert name not in [one.name for one in client.get_collections().collections]
    for verb, *arguments in (
        ("get_collection", name),
        ("count", name),
        ("scroll", name),
        ("retrieve", name, [1]),
        ("query_points", name, [1.0, 0.0]),
        ("upsert", name, [models.PointStruct(id=1, vector=[1.0, 0.0])]),
        ("delete", name, [1]),
    ):
        assert refused(client, 404, verb, *arguments) == f"Not found: Collection `{name}` doesn't exist!"


def test_a_collection_is_changed(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=DOT, metadata={"kept": 1, "changed": 1, "gone": 1})
    client.upsert(name, [models.PointStruct(id=1, vector=[1.0, 2.0])])
    assert client.update_collection(
        name,
        metadata={"changed": 2, "gone": None, "new": "x"},
        hnsw_config=models.HnswConfigDiff(ef_construct=77),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=50),
    )
    told = client.get_collection(name)
    assert told.config.metadata == {"kept": 1, "changed": 2, "new": "x"}
    assert (told.config.hnsw_config.m, told.config.hnsw_config.ef_construct) == (16, 77)
    assert told.config.optimizer_config.indexing_threshold == 50
    assert told.config.optimizer_config.deleted_threshold == 0.2
    (found,) = client.retrieve(name, [1], with_vectors=True)
    assert found.vector == [1.0, 2.0]


def test_aliases_stand_for_a_collection_until_it_goes(client: QdrantClient, filled: str) -> None:
    alias, other = f"{filled}-alias", f"{filled}-other"
    make = models.CreateAlias(collection_name=filled, alias_name=alias)
    assert client.update_collection_aliases([models.CreateAliasOperation(create_alias=make)])
    assert client.count(alias).count == 3
    assert client.collection_exists(alias) is True
    assert [(one.alias_name, one.collection_name) for one in client.get_collection_aliases(filled).aliases] == [
        (alias, filled)
    ]
    rename = models.RenameAlias(old_alias_name=alias, new_alias_name=other)
    client.update_collection_aliases([models.RenameAliasOperation(rename_alias=rename)])
    listed = [(one.alias_name, one.collection_name) for one in client.get_aliases().aliases]
    assert (other, filled) in listed
    assert alias not in [one for one, _ in listed]
    drop = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=other))
    assert client.update_collection_aliases([drop]) is True
    assert refused(client, 404, "count", other) == f"Not found: Collection `{other}` doesn't exist!"
    again = models.RenameAliasOperation(rename_alias=rename)
    assert refused(client, 404, "update_collection_aliases", [again]) == f"Not found: Alias {alias} does not exists!"
    missing = models.CreateAlias(collection_name=other, alias_name=alias)
    told = refused(client, 404, "update_collection_aliases", [models.CreateAliasOperation(create_alias=missing)])
    assert told == f"Not found: Collection `{other}` doesn't exist!"
    itself = models.CreateAlias(collection_name=filled, alias_name=filled)
    told = refused(client, 409, "update_collection_aliases", [models.CreateAliasOperation(create_alias=itself)])
    assert told == f"Wrong input: Collection `{filled}` already exists!"
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=make)])
    client.delete_collection(filled)
    assert alias not in [one.alias_name for one in client.get_aliases().aliases]


# ------------------------------------------------------------------------------------- indexes


def test_payload_indexes_are_told_with_their_parameters(client: QdrantClient, filled: str) -> None:
    whole = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=False)
    word = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True, on_disk=True)
    text = models.TextIndexParams(
        type=models.TextIndexType.TEXT, tokenizer=models.TokenizerType.WHITESPACE, lowercase=False, scoring=True
    )
    for key, schema in (("n", whole), ("tags", word), ("word", text)):
        done = client.create_payload_index(filled, key, field_schema=schema, wait=True)
        assert done.status == models.UpdateStatus.COMPLETED
    client.create_payload_index(filled, "simple", field_schema=models.PayloadSchemaType.FLOAT, wait=True)
    found = client.get_collection(filled).payload_schema
    assert {key: (one.data_type.value, one.points) for key, one in found.items()} == {
        "n": ("integer", 3),
        "tags": ("keyword", 2),
        "word": ("text", 2),
        "simple": ("float", 0),
    }
    assert isinstance(found["n"].params, models.IntegerIndexParams)
    assert (found["n"].params.lookup, found["n"].params.range) == (True, False)
    assert isinstance(found["tags"].params, models.KeywordIndexParams)
    assert (found["tags"].params.is_tenant, found["tags"].params.on_disk) == (True, True)
    assert isinstance(found["word"].params, models.TextIndexParams)
    assert (found["word"].params.tokenizer, found["word"].params.lowercase) == ("whitespace", False)
    assert found["simple"].params is None
    client.delete_payload_index(filled, "tags", wait=True)
    assert sorted(client.get_collection(filled).payload_schema) == ["n", "simple", "word"]


def test_facets_count_values(client: QdrantClient, filled: str) -> None:
    assert "No appropriate index for faceting: `tags`" in refused(client, 400, "facet", filled, "tags", exact=True)
    client.create_payload_index(filled, "tags", field_schema=models.PayloadSchemaType.KEYWORD, wait=True)
    hits = client.facet(filled, "tags", exact=True).hits
    assert [(hit.value, hit.count) for hit in hits] == [("y", 2), ("x", 1)]
    hits = client.facet(filled, "tags", facet_filter=where("n", 2), exact=True).hits
    assert [(hit.value, hit.count) for hit in hits] == [("y", 1)]


# ------------------------------------------------------------------------------------- writing


def test_points_are_written_by_rows_and_by_columns(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=DOT)
    payload = {
        "int": 2**53 + 1,
        "least": -(2**63),
        "most": 2**63 - 1,
        "float": 0.1,
        "flag": True,
        "none": None,
        "deep": {"l": [1, "é"]},
    }
    done = client.upsert(name, [models.PointStruct(id=2**63 - 1, vector=[0.1, 1e-30], payload=payload)])
    assert done.status == models.UpdateStatus.COMPLETED
    client.upsert(name, models.Batch(ids=[7, ID], vectors=[[1.0, 2.0], [3.0, 4.0]], payloads=[{"n": 7}, {}]))
    found = {one.id: one for one in client.retrieve(name, [7, ID, 2**63 - 1, 99], with_vectors=True)}
    assert {number: one.payload for number, one in found.items()} == {2**63 - 1: payload, 7: {"n": 7}, ID: {}}
    read = found[2**63 - 1].payload
    assert read is not None
    assert {key: type(value) for key, value in read.items()} == {key: type(value) for key, value in payload.items()}
    assert found[7].vector == [1.0, 2.0]
    assert np.array_equal(np.array(found[2**63 - 1].vector, np.float32), np.array([0.1, 1e-30], np.float32))
    assert client.count(name).count == 3


def test_wait_false_is_acknowledged(client: QdrantClient, filled: str) -> None:
    done = client.upsert(filled, [models.PointStruct(id=9, vector=[0.0, 0.0])], wait=False)
    assert done.status == models.UpdateStatus.ACKNOWLEDGED
    end = time.monotonic() + 10
    while client.count(filled).count != 4:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_upsert_can_be_made_to_insert_or_to_update_only(client: QdrantClient, filled: str) -> None:
    new = [models.PointStruct(id=number, vector=[9.0, 9.0], payload={"n": 9}) for number in (1, 8)]
    client.upsert(filled, new, update_mode=models.UpdateMode.INSERT_ONLY)
    assert {key: (value or {}).get("n") for key, value in payloads(client, filled).items()} == {1: 1, 2: 2, 8: 9, ID: 3}
    other = [models.PointStruct(id=number, vector=[9.0, 9.0], payload={"n": 10}) for number in (1, 77)]
    client.upsert(filled, other, update_mode=models.UpdateMode.UPDATE_ONLY)
    assert {key: (value or {}).get("n") for key, value in payloads(client, filled).items()} == {
        1: 10,
        2: 2,
        8: 9,
        ID: 3,
    }


def test_an_upsert_leaves_points_that_its_filter_does_not_keep(client: QdrantClient, filled: str) -> None:
    rows = [models.PointStruct(id=number, vector=[5.0, 5.0], payload={"n": 50}) for number in (1, 2, 6)]
    client.upsert(filled, rows, update_filter=where("n", 2))
    assert {key: (value or {}).get("n") for key, value in payloads(client, filled).items()} == {
        1: 1,
        2: 50,
        6: 50,
        ID: 3,
    }


def test_points_are_deleted_by_ids_and_by_filter(client: QdrantClient, filled: str) -> None:
    client.delete(filled, models.PointIdsList(points=[1, 12345]))
    assert sorted(map(str, payloads(client, filled))) == ["2", ID]
    client.delete(filled, models.FilterSelector(filter=where("n", 3)))
    assert list(payloads(client, filled)) == [2]
    client.delete(filled, models.FilterSelector(filter=models.Filter(must=[])))
    assert client.count(filled).count == 0


def test_payloads_are_set_overwritten_deleted_and_cleared(client: QdrantClient, filled: str) -> None:
    client.set_payload(filled, {"more": {"a": 1}}, points=[ID])
    client.set_payload(filled, {"b": 2}, points=[ID], key="more")
    client.set_payload(filled, {"tagged": "yes"}, points=where("tags", "y"))
    found = payloads(client, filled)
    assert found[ID] == {"n": 3, "more": {"a": 1, "b": 2}}
    assert found[1] == {"n": 1, "tags": ["x", "y"], "word": "one two", "tagged": "yes"}
    client.overwrite_payload(filled, {"only": [1]}, points=[1])
    client.delete_payload(filled, ["more.a", "n"], points=[ID])
    client.clear_payload(filled, points_selector=models.FilterSelector(filter=where("n", 2)))
    assert payloads(client, filled) == {1: {"only": [1]}, 2: {}, ID: {"more": {"b": 2}}}
    client.overwrite_payload(filled, {"n": 5}, points=where("only", 1))
    assert payloads(client, filled)[1] == {"n": 5}
    assert refused(client, 404, "set_payload", filled, {"a": 1}, points=[55]) == "Not found: No point with id 55 found"


def test_a_batch_does_all_of_its_operations_in_their_order(client: QdrantClient, filled: str) -> None:
    set_one = models.SetPayload(payload={"b": 1}, points=[1])
    over = models.SetPayload(payload={"o": 1}, filter=where("n", 2))
    done = client.batch_update_points(
        filled,
        [
            models.UpsertOperation(upsert=models.PointsList(points=[models.PointStruct(id=4, vector=[1.0, 1.0])])),
            models.UpsertOperation(
                upsert=models.PointsBatch(
                    batch=models.Batch(ids=[5], vectors=[[1.0, 1.0]], payloads=[{"x": 1, "y": 2}])
                )
            ),
            models.SetPayloadOperation(set_payload=set_one),
            models.OverwritePayloadOperation(overwrite_payload=over),
            models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["x"], points=[5])),
            models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[ID])),
            models.UpdateVectorsOperation(
                update_vectors=models.UpdateVectors(points=[models.PointVectors(id=4, vector=[7.0, 8.0])])
            ),
            models.DeleteOperation(delete=models.FilterSelector(filter=where("b", 1))),
        ],
    )
    assert [one.status for one in done] == [models.UpdateStatus.COMPLETED] * 8
    assert payloads(client, filled) == {2: {"o": 1}, 4: {}, 5: {"y": 2}, ID: {}}
    assert client.retrieve(filled, [4], with_vectors=True)[0].vector == [7.0, 8.0]


def test_named_and_sparse_vectors_are_written_read_changed_and_searched(client: QdrantClient, name: str) -> None:
    client.create_collection(
        name,
        vectors_config={"a": DOT, "b": models.VectorParams(size=3, distance=models.Distance.EUCLID)},
        sparse_vectors_config={"s": models.SparseVectorParams()},
    )
    sparse = models.SparseVector(indices=[1, 70_000], values=[0.5, 0.25])
    client.upsert(
        name,
        [
            models.PointStruct(id=1, vector={"a": [1.0, 0.0], "b": [0.0, 3.0, 4.0], "s": sparse}),
            models.PointStruct(id=2, vector={"a": [2.0, 0.0]}),
        ],
    )
    found = client.retrieve(name, [1, 2], with_vectors=True)
    assert [one.vector for one in found] == [{"a": [1.0, 0.0], "b": [0.0, 3.0, 4.0], "s": sparse}, {"a": [2.0, 0.0]}]
    assert client.retrieve(name, [1], with_vectors=["b"])[0].vector == {"b": [0.0, 3.0, 4.0]}
    assert [(hit.id, hit.score) for hit in client.query_points(name, [1.0, 1.0], using="a").points] == [
        (2, 2.0),
        (1, 1.0),
    ]
    assert [(hit.id, hit.score) for hit in client.query_points(name, [0.0, 0.0, 0.0], using="b").points] == [(1, 5.0)]
    asked = models.SparseVector(indices=[70_000], values=[2.0])
    assert [(hit.id, hit.score) for hit in client.query_points(name, asked, using="s").points] == [(1, 0.5)]
    client.update_vectors(name, [models.PointVectors(id=2, vector={"b": [1.0, 0.0, 0.0]})])
    client.delete_vectors(name, ["s"], points=[1])
    found = client.retrieve(name, [1, 2], with_vectors=True)
    assert [one.vector for one in found] == [
        {"a": [1.0, 0.0], "b": [0.0, 3.0, 4.0]},
        {"a": [2.0, 0.0], "b": [1.0, 0.0, 0.0]},
    ]


# ------------------------------------------------------------------------------------- reading


def test_scroll_goes_through_all_in_the_order_of_their_ids(client: QdrantClient, filled: str) -> None:
    first, following = client.scroll(filled, limit=2, with_payload=False)
    assert ([one.id for one in first], following) == ([1, 2], ID)
    rest, end = client.scroll(filled, limit=2, offset=following, with_payload=["n"], with_vectors=True)
    assert ([(one.id, one.payload, one.vector) for one in rest], end) == ([(ID, {"n": 3}, [3.0, 3.0])], None)
    kept, _ = client.scroll(
        filled, scroll_filter=where("tags", "y"), with_payload=models.PayloadSelectorExclude(exclude=["word"])
    )
    assert [one.payload for one in kept] == [{"n": 1, "tags": ["x", "y"]}, {"n": 2, "tags": ["y"]}]
    client.create_payload_index(filled, "n", field_schema=models.PayloadSchemaType.INTEGER, wait=True)
    ranked, end = client.scroll(filled, order_by=models.OrderBy(key="n", direction=models.Direction.DESC))
    assert ([one.id for one in ranked], end) == ([ID, 2, 1], None)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"key": "n", "match": {"value": 2}}, [2]),
        ({"key": "n", "match": {"any": [1, 2]}}, [1, 2]),
        ({"key": "n", "match": {"except": [1]}}, [2, ID]),
        ({"key": "tags", "match": {"value": "y"}}, [1, 2]),
        ({"key": "word", "match": {"text": "three two"}}, [2]),
        ({"key": "word", "match": {"prefix": "one"}}, [1]),
        ({"key": "n", "range": {"gt": 1, "lte": 3}}, [2, ID]),
        ({"key": "tags", "values_count": {"gte": 2}}, [1]),
        ({"is_empty": {"key": "tags"}}, [ID]),
        ({"is_null": {"key": "tags"}}, []),
        ({"has_id": [1, ID]}, [1, ID]),
        ({"must_not": [{"key": "n", "match": {"value": 2}}]}, [1, ID]),
        ({"should": [{"key": "n", "match": {"value": 2}}, {"has_id": [1]}]}, [1, 2]),
        ({"min_should": {"conditions": [{"has_id": [1]}, {"has_id": [1, 2]}], "min_count": 2}}, [1]),
    ],
)
def test_conditions_keep_what_they_say(
    client: QdrantClient, filled: str, condition: dict[str, Any], expected: list[Any]
) -> None:
    if "prefix" in str(condition):
        schema = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True)
        client.create_payload_index(filled, "word", field_schema=schema, wait=True)
    kept = models.Filter.model_validate({"must": [condition]})
    assert [one.id for one in client.scroll(filled, scroll_filter=kept)[0]] == expected
    assert client.count(filled, count_filter=kept, exact=True).count == len(expected)
    assert sorted(str(hit.id) for hit in client.query_points(filled, [1.0, 1.0], query_filter=kept).points) == sorted(
        map(str, expected)
    )


def test_nested_conditions_and_times(client: QdrantClient, filled: str) -> None:
    client.set_payload(filled, {"at": "2024-05-06T07:08:09Z", "l": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}, points=[1])
    client.set_payload(filled, {"at": "2025-05-06T07:08:09Z", "l": [{"a": 1, "b": 4}]}, points=[2])
    later = models.Filter.model_validate({"must": [{"key": "at", "range": {"gt": "2025-01-01T00:00:00Z"}}]})
    assert [one.id for one in client.scroll(filled, scroll_filter=later)[0]] == [2]
    both = [{"key": "a", "match": {"value": 1}}, {"key": "b", "match": {"value": 4}}]
    nested = models.Filter.model_validate({"must": [{"nested": {"key": "l", "filter": {"must": both}}}]})
    assert [one.id for one in client.scroll(filled, scroll_filter=nested)[0]] == [2]


# ------------------------------------------------------------------------------------- searching


def hits(found: Any) -> list[tuple[Any, float]]:
    return [(hit.id, hit.score) for hit in found.points]


def test_a_search_ranks_cuts_and_shows_what_was_asked_for(client: QdrantClient, filled: str) -> None:
    assert hits(client.query_points(filled, [1.0, 2.0])) == [(ID, 9.0), (2, 4.0), (1, 1.0)]
    assert hits(client.query_points(filled, [1.0, 2.0], limit=1, offset=1)) == [(2, 4.0)]
    assert hits(client.query_points(filled, [1.0, 2.0], score_threshold=3.5)) == [(ID, 9.0), (2, 4.0)]
    assert hits(client.query_points(filled, [1.0, 2.0], score_threshold=4.0)) == [(ID, 9.0)]  # it must be passed
    assert hits(client.query_points(filled, 2)) == [(ID, 6.0), (1, 0.0)]
    found = client.query_points(filled, [1.0, 2.0], limit=1, with_payload=["n"], with_vectors=True).points[0]
    assert (found.payload, found.vector) == ({"n": 3}, [3.0, 3.0])
    params = models.SearchParams(
        hnsw_ef=128,
        exact=True,
        indexed_only=False,
        quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0),
    )
    assert hits(client.query_points(filled, [1.0, 2.0], search_params=params)) == [(ID, 9.0), (2, 4.0), (1, 1.0)]


def test_a_batch_of_searches_is_answered_in_its_order(client: QdrantClient, filled: str) -> None:
    asked = [
        models.QueryRequest(query=[1.0, 0.0], limit=2),
        models.QueryRequest(query=[0.0, 1.0], limit=1, filter=where("n", 2)),
    ]
    assert [hits(one) for one in client.query_batch_points(filled, asked)] == [[(ID, 3.0), (1, 1.0)], [(2, 2.0)]]


def test_words_are_ranked_by_bm25(client: QdrantClient, filled: str) -> None:
    schema = models.TextIndexParams.model_validate(
        {"type": "text", "tokenizer": "whitespace", "lowercase": False, "scoring": True}
    )
    query = models.TextQuery.model_validate({"text": {"query": "two"}})
    assert "BM25 requires a text index on field word" in refused(
        client, 400, "query_points", filled, query, using="word"
    )
    client.create_payload_index(filled, "word", field_schema=schema, wait=True)
    found = client.query_points(filled, query, using="word").points
    assert [hit.id for hit in found] == [2, 1]
    # k = 1.2, b = 0.75; of two documents, both have the word; they are 2 and 3 words long
    rarity = np.log(1 + (2 - 2 + 0.5) / (2 + 0.5))
    expected = [rarity * n * 2.2 / (n + 1.2 * (0.25 + 0.75 * length / 2.5)) for n, length in ((2, 3), (1, 2))]
    assert [hit.score for hit in found] == pytest.approx(expected, rel=1e-5)


def test_prefetched_results_are_fused_by_their_ranks(client: QdrantClient, filled: str) -> None:
    prefetch = [models.Prefetch(query=[1.0, 0.0], limit=3), models.Prefetch(query=[0.0, 1.0], limit=2)]
    found = client.query_points(filled, models.FusionQuery(fusion=models.Fusion.RRF), prefetch=prefetch)
    # ranks: the third point 1 and 1, the first 2, the second 3 and 2, at 1 / (2 + rank - 1)
    assert [hit.id for hit in found.points] == [ID, 2, 1]
    assert [hit.score for hit in found.points] == pytest.approx([1.0, 1 / 4 + 1 / 3, 1 / 3], rel=1e-6)
    first = client.query_points(filled, [0.0, 1.0], prefetch=models.Prefetch(query=[1.0, 0.0], limit=2))
    assert hits(first) == [(ID, 3.0), (1, 0.0)]


# ------------------------------------------------------------------------------------- refusals


def test_wrong_requests_are_refused_in_the_servers_words(client: QdrantClient, filled: str) -> None:
    short = [models.PointStruct(id=4, vector=[1.0])]
    assert (
        refused(client, 400, "upsert", filled, short) == "Wrong input: Vector dimension error: expected dim: 2, got 1"
    )
    assert refused(client, 400, "query_points", filled, [1.0, 2.0, 3.0]) == (
        "Wrong input: Vector dimension error: expected dim: 2, got 3"
    )
    named_one = [models.PointStruct(id=4, vector={"nope": [1.0, 2.0]})]
    assert refused(client, 400, "upsert", filled, named_one) == "Wrong input: Not existing vector name error: nope"
    told = refused(client, 400, "retrieve", filled, ["abc"])
    if over_grpc(client):
        assert told == "Unable to parse UUID: abc"
    else:
        assert told.startswith("Format error in JSON body: value abc is not a valid point ID, valid values are either")
    assert refused(client, 422, "scroll", filled, limit=0).startswith("Validation error in ")


# ------------------------------------------------------------------------------------- the other colour


@pytest.mark.parametrize("prefer", [False, True])
def test_the_async_client_does_the_same(ports: tuple[str, int, int], name: str, prefer: bool) -> None:
    async def work() -> None:
        host, port, other = ports
        client = AsyncQdrantClient(
            url=f"http://{host}:{port}", grpc_port=other, prefer_grpc=prefer, check_compatibility=False
        )
        try:
            await client.create_collection(name, vectors_config=DOT, metadata={"a": 1})
            await client.create_payload_index(name, "n", field_schema=models.PayloadSchemaType.INTEGER, wait=True)
            rows = [models.PointStruct(id=n, vector=[float(n), 0.0], payload={"n": n}) for n in range(20)]
            await asyncio.gather(*(client.upsert(name, [row]) for row in rows))
            found = await client.query_batch_points(name, [models.QueryRequest(query=[1.0, 0.0], limit=2)] * 3)
            assert [hits(one) for one in found] == [[(19, 19.0), (18, 18.0)]] * 3
            page, following = await client.scroll(name, limit=3, offset=5)
            assert ([one.id for one in page], following) == ([5, 6, 7], 8)
            await client.overwrite_payload(name, {"n": 100}, points=[3])
            assert (await client.count(name, count_filter=where("n", 100))).count == 1
            await client.delete(name, models.PointIdsList(points=[3]))
            assert [one.id for one in await client.retrieve(name, [2, 3, 4])] == [2, 4]
            told = await client.get_collection(name)
            assert (told.points_count, told.config.metadata) == (19, {"a": 1})
            assert (await client.info()).title == "qdrant - vector search engine"
        finally:
            await client.close()

    asyncio.run(work())


# ------------------------------------------------------------------------------------- REST as it is


def raw(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    parts = urlsplit(url)
    link = HTTPConnection(parts.hostname or "", parts.port or 6333, timeout=30)
    try:
        named_so = {key.replace("_", "-"): value for key, value in headers.items()}
        link.request(method, path, body, headers={"content-type": "application/json", **named_so})
        reply = link.getresponse()
        return reply.status, reply.read(), {key.lower(): value for key, value in reply.getheaders()}
    finally:
        link.close()


def error(answered: tuple[int, bytes, dict[str, str]]) -> tuple[int, str]:
    return answered[0], json.loads(answered[1])["status"]["error"]


def test_a_server_says_what_it_is_and_how_it_is(qdrant_url: str) -> None:
    status, text, _ = raw(qdrant_url, "GET", "/")
    assert (status, json.loads(text)["title"]) == (200, "qdrant - vector search engine")
    assert json.loads(text)["version"].startswith("1.20.")
    assert raw(qdrant_url, "GET", "/healthz")[:2] == (200, b"healthz check passed")
    assert raw(qdrant_url, "GET", "/readyz")[:2] == (200, b"all shards are ready")
    assert raw(qdrant_url, "GET", "/nothing/here")[0] == 404


def test_json_that_is_none_and_bodies_that_are_too_large_are_refused(qdrant_url: str, name: str) -> None:
    qdrant_request(qdrant_url, "PUT", f"collections/{name}", {"vectors": {"size": 2, "distance": "Dot"}})
    for body in (b"{", b'{"limit": NaN}', b"[1]"):
        status, told = error(raw(qdrant_url, "POST", f"/collections/{name}/points/scroll", body))
        assert (status, told.partition(":")[0]) == (400, "Format error in JSON body")
    status, told = error(
        raw(qdrant_url, "POST", f"/collections/{name}/points/scroll", b'{"filter": {"must": [{"what": 1}]}}')
    )
    assert (status, told.partition(":")[0]) == (400, "Format error in JSON body")
    size = 32 * 2**20 + 1
    assert error(raw(qdrant_url, "POST", f"/collections/{name}/points/scroll", b" " * size)) == (
        400,
        f"JSON payload ({size} bytes) is larger than allowed (limit: 33554432 bytes).",
    )


def test_integers_keep_64_bits_and_vectors_are_written_as_float32(qdrant_url: str, name: str) -> None:
    at = f"collections/{name}"
    qdrant_request(qdrant_url, "PUT", at, {"vectors": {"size": 2, "distance": "Dot"}})
    point = {"id": 2**64 - 1, "vector": [0.1, 0.2], "payload": {"most": 2**64 - 1, "beyond": 2**64}}
    done = qdrant_request(qdrant_url, "PUT", f"{at}/points?wait=true&ordering=strong&timeout=5", {"points": [point]})
    assert done["status"] == "completed"
    asked = {"ids": [2**64 - 1], "with_vector": True}
    _, text, _ = raw(qdrant_url, "POST", f"/{at}/points?consistency=all", json.dumps(asked).encode())
    assert b'"vector":[0.1,0.2]' in text
    (found,) = json.loads(text)["result"]
    assert found["id"] == 2**64 - 1
    assert found["payload"] == {"most": 2**64 - 1, "beyond": float(2**64)}
    assert qdrant_request(qdrant_url, "GET", f"{at}/points/{2**64 - 1}")["vector"] == [0.1, 0.2]
    done = qdrant_request(qdrant_url, "PUT", f"{at}/points", {"points": [point]})
    assert done["status"] == "acknowledged"


# ------------------------------------------------------------------------------------- the shim's own


@pytest.fixture
def own(qdrant_server: QdrantServer) -> Iterator[QdrantServer]:
    qdrant_server.forget()
    yield qdrant_server
    qdrant_server.forget()


def over_grpc(client: QdrantClient) -> bool:
    remote: Any = client._client
    return bool(remote._prefer_grpc)


def both(server: QdrantServer, **more: Any) -> list[QdrantClient]:
    return [
        QdrantClient(
            url=f"http://{server.host}:{server.port}",
            grpc_port=server.grpc_port,
            prefer_grpc=prefer,
            check_compatibility=False,
            **more,
        )
        for prefer in (False, True)
    ]


def test_requests_and_bytes_are_counted_by_path(own: QdrantServer, name: str) -> None:
    rest, other = both(own)
    rest.create_collection(name, vectors_config=DOT)
    for client in (rest, other):
        for n in range(3):
            client.upsert(name, [models.PointStruct(id=n, vector=[1.0, 2.0])])
        client.count(name)
        with pytest.raises((UnexpectedResponse, grpc.RpcError)):
            client.count("nope")
        client.close()
    counted = own.traffic()
    assert {path: noted["requests"] for path, noted in counted.items()} == {
        "PUT /collections/{name}": 1,
        "PUT /collections/{name}/points": 3,
        "POST /collections/{name}/points/count": 2,
        "/qdrant.Points/Upsert": 3,
        "/qdrant.Points/Count": 2,
    }
    body = b'{"vectors":{"size":2,"distance":"Dot"}}'
    assert counted["PUT /collections/{name}"]["bytes_in"] == len(body)
    assert counted["PUT /collections/{name}/points"]["bytes_in"] == 3 * len(b'{"points":[{"id":0,"vector":[1.0,2.0]}]}')
    points = [
        said.PointStruct(
            id=said.PointId(num=0), vectors=said.Vectors(vector=said.Vector(dense=said.DenseVector(data=[1, 2])))
        )
    ]
    sent = said.UpsertPoints(collection_name=name, wait=True, points=points)
    assert counted["/qdrant.Points/Upsert"]["bytes_in"] == 3 * sent.ByteSize()
    own.forget()
    assert own.traffic() == {}


@pytest.mark.parametrize("status", [408, 500, 503])
def test_a_failure_that_was_asked_for_happens_so_often(own: QdrantServer, name: str, status: int) -> None:
    for client in both(own):
        client.delete_collection(name)
        client.create_collection(name, vectors_config=DOT)
        own.fail(status, "Upsert" if over_grpc(client) else "/points", times=2)
        row = [models.PointStruct(id=1, vector=[1.0, 2.0])]
        for _ in range(2):
            refused(client, status, "upsert", name, row)
        assert client.count(name).count == 0
        client.upsert(name, row)
        assert client.count(name).count == 1
        client.close()


def test_a_failure_can_come_after_the_work(own: QdrantServer, name: str) -> None:
    for client in both(own):
        client.delete_collection(name)
        client.create_collection(name, vectors_config=DOT)
        own.fail(500, told="Service internal error: lost", done=True)
        row = [models.PointStruct(id=1, vector=[1.0, 2.0])]
        assert refused(client, 500, "upsert", name, row) == "Service internal error: lost"
        assert client.count(name).count == 1
        client.close()


def test_a_limit_on_requests_says_when_to_come_back(own: QdrantServer, name: str) -> None:
    for client in both(own):
        own.fail(429, retry_after=3)
        with pytest.raises(ResourceExhaustedResponse) as caught:
            client.get_collections()
        assert caught.value.retry_after_s == 3
        client.close()
    own.fail(429, retry_after=7)
    status, text, headers = raw(own.url, "GET", "/collections")
    assert (status, headers["retry-after"]) == (429, "7")
    assert json.loads(text)["status"]["error"].startswith("Rate limiting exceeded: ")
    own.fail(413)
    assert raw(own.url, "GET", "/collections")[0] == 413


@pytest.mark.own
@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_keys_let_in_read_and_keep_out() -> None:
    with QdrantServer(api_key="secret", read_only_key="reader") as server:
        assert raw(server.url, "GET", "/collections")[:2] == (
            401,
            b"Must provide an API key or an Authorization bearer token",
        )
        assert raw(server.url, "GET", "/collections", api_key="x")[:2] == (401, b"Invalid API key or JWT")
        assert raw(server.url, "GET", "/collections", authorization="Bearer secret")[0] == 200
        for path in ("/", "/healthz", "/readyz"):
            assert raw(server.url, "GET", path)[0] == 200
        for client in both(server, api_key="secret", https=False):
            client.create_collection(f"c{id(client)}", vectors_config=DOT)
            client.close()
        for client in both(server, api_key="reader", https=False):
            assert len(client.get_collections().collections) == 2
            assert refused(client, 403, "create_collection", "x", vectors_config=DOT).startswith("Forbidden: ")
            client.close()
        for client in both(server, api_key="wrong", https=False):
            with pytest.raises((UnexpectedResponse, grpc.RpcError)) as caught:
                client.get_collections()
            found: Any = caught.value
            assert found.status_code == 401 if isinstance(found, UnexpectedResponse) else found.code() == STATUS[401]
            client.close()


@pytest.mark.own
def test_all_of_it_is_there_after_kill_9_and_after_a_restart() -> None:
    with QdrantServer() as server:
        places = (server.port, server.grpc_port)
        client = both(server)[0]
        client.create_collection("c", vectors_config=DOT, metadata={"a": 1}, hnsw_config=models.HnswConfigDiff(m=5))
        client.create_payload_index("c", "n", field_schema=models.PayloadSchemaType.INTEGER, wait=True)
        alias = models.CreateAlias(collection_name="c", alias_name="also")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
        client.create_collection("gone", vectors_config=DOT)
        client.delete_collection("gone")
        for n, end in enumerate((server.kill, server.stop)):
            client.upsert("c", [models.PointStruct(id=n, vector=[1.0, n], payload={"n": n})])
            end()
            server.start()
            assert (server.port, server.grpc_port) == places
            assert [(one.id, one.payload) for one in client.scroll("also")[0]] == [(k, {"n": k}) for k in range(n + 1)]
            told = client.get_collection("c")
            assert (told.config.metadata, told.config.hnsw_config.m) == ({"a": 1}, 5)
            assert {key: one.data_type.value for key, one in told.payload_schema.items()} == {"n": "integer"}
            assert [one.name for one in client.get_collections().collections] == ["c"]
        client.close()


def test_vectors_beyond_the_threshold_are_indexed_by_and_by(own: QdrantServer, name: str) -> None:
    client = both(own)[0]
    client.create_collection(
        name,
        vectors_config=models.VectorParams(size=64, distance=models.Distance.DOT),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=100),
    )
    vectors = np.random.default_rng(0).normal(size=(1_000, 64)).astype(np.float32)
    client.upsert(name, models.Batch(ids=list(range(300)), vectors=vectors[:300].tolist()))
    assert client.get_collection(name).indexed_vectors_count == 0
    client.upsert(name, models.Batch(ids=list(range(300, 1_000)), vectors=vectors[300:].tolist()))
    end = time.monotonic() + 30
    while (told := client.get_collection(name)).status != models.CollectionStatus.GREEN:
        assert told.status == models.CollectionStatus.YELLOW
        assert time.monotonic() < end
        time.sleep(0.01)
    assert (told.points_count, told.indexed_vectors_count) == (1_000, 1_000)
    (found,) = client.query_points(
        name, vectors[5].tolist(), limit=1, search_params=models.SearchParams(exact=True)
    ).points
    assert found.id == int((vectors @ vectors[5]).argmax())
    client.close()


def test_booleans_are_refused_rather_than_matched_as_numbers(own: QdrantServer, name: str) -> None:
    client = both(own)[0]
    client.create_collection(name, vectors_config=DOT)
    assert "matches no booleans" in refused(client, 400, "scroll", name, scroll_filter=where("a", True))
    client.close()


def test_many_at_once_are_all_done(own: QdrantServer, name: str) -> None:
    clients = both(own)
    clients[0].create_collection(name, vectors_config=DOT)

    def write(start: int) -> None:
        for n in range(start, start + 20):
            clients[n % 2].upsert(name, [models.PointStruct(id=n, vector=[1.0, float(n)])])

    threads = [threading.Thread(target=write, args=[20 * n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clients[1].count(name).count == 160
    for client in clients:
        client.close()


def test_the_sweep_drops_what_vectorkit_made_and_nothing_else(own: QdrantServer, name: str) -> None:
    for made in (name, f"{name}@12", f"{name}@x", "vk-control", "@7"):
        qdrant_request(own.url, "PUT", f"collections/{made}", {"vectors": {"size": 2, "distance": "Dot"}})
    qdrant_sweep(own.url)
    left = {one["name"] for one in qdrant_request(own.url, "GET", "collections")["collections"]}
    assert left >= {name, f"{name}@x", "@7"}
    assert not left & {f"{name}@12", "vk-control"}
    for made in (f"{name}@x", "@7"):
        qdrant_request(own.url, "DELETE", f"collections/{made}")
    with pytest.raises(ServerError, match=r"Qdrant answered GET /collections/nope with 404: .*doesn't exist!"):
        qdrant_request(own.url, "GET", "collections/nope")
