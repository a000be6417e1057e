"""The double of Pinecone's service, driven by the official client; and, for what the client would not send, by hand."""

import ast
import asyncio
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import pinecone
import pytest
from pinecone import AsyncPinecone, Pinecone, ServerlessSpec
from pinecone._internal.http_client import get_budget_registry

from vectorkit_pinecone import double as package
from vectorkit_pinecone.double import Control, PineconeDouble, Settings
from vectorkit_pinecone.double.rows import Row, View

pytest_plugins = ["vectorkit_pinecone.double.fixtures"]

FTS = {"type": "string", "full_text_search": {}}
DENSE = {"type": "dense_vector", "dimension": 2, "metric": "cosine"}
HEADERS = {"api-key": "k", "x-pinecone-api-version": "2026-07"}
SCHEMA: dict[str, Any] = {
    "fields": {
        "v": {"type": "dense_vector", "dimension": 2, "metric": "cosine"},
        "body": {"type": "string", "full_text_search": {"language": "en"}},
        "s": {"type": "sparse_vector"},
    }
}
ROWS: list[dict[str, Any]] = [
    {"_id": "a", "v": [1.0, 0.0], "body": "A red-hot apple", "n": 1, "tags": ["x", "y"], "ok": True},
    {"_id": "b", "v": [0.0, 1.0], "body": "apple, apple pie", "n": 2.5, "name": "bee"},
    {"_id": "c", "v": [-1.0, 0.0], "n": 3, "tags": ["z"], "name": "sea"},
]


@pytest.fixture
def double(pinecone_double: PineconeDouble) -> PineconeDouble:
    get_budget_registry()._reset()  # the client's own, by host name and for the whole process
    return pinecone_double


@pytest.fixture
def client(double: PineconeDouble) -> Iterator[Pinecone]:
    with Pinecone(api_key="k", host=double.url) as client:
        yield client


@pytest.fixture
def index(client: Pinecone) -> Iterator[Any]:
    client.indexes.create(name="docs", schema=SCHEMA)
    with client.index(name="docs") as index:
        yield index


@pytest.fixture
def filled(index: Any) -> Any:
    index.documents.upsert(namespace="n", documents=ROWS)
    return index


@pytest.fixture
def stored(double: PineconeDouble) -> PineconeDouble:
    """The same rows by hand: a client takes long to make."""
    assert ask(double, "POST", "/indexes", {"name": "docs", "schema": SCHEMA})[0] == 201
    assert docs(double, "upsert", {"documents": ROWS}) == (202, {"upserted_count": 3})
    return double


@pytest.fixture
def records(stored: PineconeDouble) -> PineconeDouble:
    """And an index of records beside them."""
    assert ask(stored, "POST", "/indexes", {"name": "classic", "schema": {"fields": {"_values": DENSE}}})[0] == 201
    row = {"id": "a", "values": [1, 0], "metadata": {"n": 1}}
    assert ask(stored, "POST", "/_index/classic/vectors/upsert", {"vectors": [row]})[:2] == (200, {"upsertedCount": 1})
    return stored


@pytest.fixture
def classic(client: Pinecone) -> Iterator[Any]:
    client.create_index(
        "classic", dimension=2, metric="dotproduct", spec=ServerlessSpec(cloud="aws", region="us-east-1")
    )
    with client.index(name="classic") as index:
        yield index


def ask(double: Control, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """A request by hand: status, reply, headers."""
    connection = HTTPConnection(urlsplit(double.url).netloc, timeout=10)
    sent = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
    connection.request(method, path, sent, {**HEADERS, **headers})
    reply = connection.getresponse()
    raw = reply.read()
    connection.close()
    told = orjson.loads(raw) if reply.getheader("content-type") == "application/json" and raw else raw.decode()
    return reply.status, told, {name.lower(): value for name, value in reply.getheaders()}


def docs(double: Control, verb: str, body: Any, namespace: str = "n") -> tuple[int, Any]:
    return ask(double, "POST", f"/_index/docs/namespaces/{namespace}/documents/{verb}", body)[:2]


def ids(reply: Any) -> list[str]:
    return [match.id for match in reply.matches]


def dense(values: list[float], field: str = "v") -> list[dict[str, Any]]:
    return [{"type": "dense_vector", "field": field, "values": values}]


def text(query: str, *fields: str) -> list[dict[str, Any]]:
    return [{"type": "text", "fields": list(fields or ("body",)), "query": query}]


# --------------------------------------------------------------------------------------------- control plane


def test_an_index_is_made_described_changed_and_deleted(client: Pinecone, double: PineconeDouble) -> None:
    made = client.indexes.create(name="docs", schema=SCHEMA, tags={"a": "1", "b": "2"}, deletion_protection="enabled")
    assert made.host == f"{double.url}/_index/docs"
    assert made.status.ready
    assert made.status.state == "Ready"
    assert made.tags == {"a": "1", "b": "2"}
    assert sorted(made.schema.fields) == ["body", "s", "v"]
    assert made.dimension == 2
    assert made.metric == "cosine"
    assert [each.name for each in client.indexes.list()] == ["docs"]
    with pytest.raises(pinecone.ForbiddenError, match="Deletion protection is enabled"):
        client.indexes.delete("docs")
    assert client.indexes.configure("docs", tags={"a": "", "c": "3"}, deletion_protection="disabled").tags == {
        "b": "2",
        "c": "3",
    }
    client.indexes.delete("docs")
    assert not client.indexes.exists("docs")
    with pytest.raises(pinecone.NotFoundError, match="Index docs not found"):
        client.indexes.delete("docs")
    assert ask(double, "POST", "/indexes", {"schema": SCHEMA})[0] == 201  # the service gives a name


def test_a_name_is_held_once_and_indexes_have_a_quota(client: Pinecone, double: PineconeDouble) -> None:
    double.set(max_indexes=1)
    client.indexes.create(name="docs", schema=SCHEMA)
    with pytest.raises(pinecone.ConflictError):
        client.indexes.create(name="docs", schema=SCHEMA)
    with pytest.raises(pinecone.ForbiddenError, match="Increase your quota"):
        client.indexes.create(name="more", schema=SCHEMA)


def test_an_index_takes_its_time_to_be_ready(client: Pinecone, double: PineconeDouble) -> None:
    double.set(ready_delay=0.2)
    made = client.indexes.create(name="docs", schema=SCHEMA, timeout=-1)
    assert (made.status.ready, made.status.state) == (False, "Initializing")
    assert docs(double, "list", {})[0] == 501
    time.sleep(0.25)
    assert client.indexes.describe("docs").status.ready
    assert docs(double, "list", {})[0] == 200


def _with(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "schema": {"fields": fields}}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([], 422),
        ({"name": "x"}, 422),
        ({"name": "x", "schema": {}}, 422),
        (_with(), 400),
        (_with(a={"type": "string"}), 422),
        (_with(a={"type": "string", "filterable": True}), 400),
        (_with(a={"type": "float"}), 400),
        (_with(a={"type": "boolean"}), 400),
        (_with(a={"type": "string_list"}), 400),
        (_with(a={"type": "colour"}), 422),
        (_with(_a=FTS), 400),
        (_with(**{"$a": FTS}), 400),
        (_with(**{"": FTS}), 400),
        (_with(**{"é" * 33: FTS}), 400),
        (_with(a=DENSE, b=DENSE), 400),
        (_with(a={"type": "sparse_vector"}, b={"type": "sparse_vector"}), 400),
        (_with(**{f"f{at}": FTS for at in range(101)}), 400),
        (_with(a={**DENSE, "dimension": 0}), 400),
        (_with(a={**DENSE, "dimension": 20_001}), 400),
        (_with(a={**DENSE, "dimension": "2"}), 422),
        (_with(a={**DENSE, "metric": "manhattan"}), 400),
        (_with(a={"type": "string", "full_text_search": {"language": "xx"}}), 400),
        (
            _with(
                a={"type": "string", "full_text_search": {"stemming": True, "ngram": {"min_gram": 1, "max_gram": 2}}}
            ),
            400,
        ),
        (_with(a={"type": "string", "embed": {"model": "m"}}), 501),
        (_with(_values=DENSE, _sparse_values={"type": "sparse_vector"}), 501),
        (_with(_values={"type": "sparse_vector"}), 400),
        ({**_with(a=FTS), "name": "A"}, 400),
        ({**_with(a=FTS), "name": "a" * 46}, 400),
        ({**_with(a=FTS), "name": "-a"}, 400),
        ({**_with(a=FTS), "name": ""}, 400),
        ({**_with(a=FTS), "tags": {"a b": "1"}}, 400),
        ({**_with(a=FTS), "tags": {"a": "x" * 121}}, 400),
        ({**_with(a=FTS), "tags": {f"t{at}": "1" for at in range(21)}}, 400),
        ({**_with(a=FTS), "deletion_protection": "maybe"}, 400),
        ({**_with(a=FTS), "deployment": {"deployment_type": "managed", "cloud": "aws", "region": "us-west-1"}}, 404),
        ({**_with(a=FTS), "deployment": {"deployment_type": "pod"}}, 501),
        ({**_with(a=FTS), "read_capacity": {"mode": "Dedicated"}}, 501),
        ({**_with(a=FTS), "cmek_id": "x"}, 501),
    ],
)
def test_what_does_not_make_an_index(double: PineconeDouble, body: Any, status: int) -> None:
    got, told, _ = ask(double, "POST", "/indexes", body)
    assert got == status
    assert told["status"] == status
    assert set(told["error"]) == {"code", "message"}
    assert ask(double, "GET", "/indexes")[1] == {"indexes": []}


# --------------------------------------------------------------------------------------------- documents


def test_documents_come_back_as_they_are_stored(filled: Any) -> None:
    got = filled.documents.fetch(namespace="n", ids=["b", "gone", "a"])
    assert {key: each.to_dict() for key, each in got.documents.items()} == {
        "b": {"_id": "b", "body": "apple, apple pie", "n": 2.5, "name": "bee", "v": [0.0, 1.0]},
        "a": {"_id": "a", "body": "A red-hot apple", "n": 1.0, "tags": ["x", "y"], "ok": True, "v": [1.0, 0.0]},
    }
    assert isinstance(got.documents["a"].n, float)
    filled.documents.upsert(
        namespace="n",
        documents=[{"_id": "a", "v": [0.4, 1], "big": 2**53 + 1, "s": {"indices": [3, 1], "values": [0.5, 0.1]}}],
    )
    assert filled.documents.fetch(namespace="n", ids=["a"], include_fields=["*"]).documents["a"].to_dict() == {
        "_id": "a",
        "v": [0.4000000059604645, 1.0],  # float32
        "big": 9007199254740992.0,  # float64
        "s": {"indices": [3, 1], "values": [0.5, 0.10000000149011612]},
    }
    assert filled.documents.fetch(namespace="n", ids=["a"], include_fields=["big"]).documents["a"].to_dict() == {
        "_id": "a",
        "big": 9007199254740992.0,
    }


def test_what_a_search_shows(filled: Any) -> None:
    def shown(include: list[str] | None) -> dict[str, Any]:
        (match,) = filled.documents.search(
            namespace="n", score_by=dense([1, 0]), top_k=1, include_fields=include
        ).matches
        told: dict[str, Any] = match.to_dict()
        return told

    assert shown(None) == shown([]) == {"_id": "a", "_score": 1.0}
    assert shown(["n", "nothing"]) == {"_id": "a", "_score": 1.0, "n": 1.0}
    assert shown(["*"]) == {
        "_id": "a", "_score": 1.0, "v": [1.0, 0.0], "body": "A red-hot apple", "n": 1.0, "tags": ["x", "y"], "ok": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "scores"),
    [
        ("cosine", {"b": 1.0, "a": 0.6 / math.sqrt(0.36 + 0.64), "c": -0.6}),
        ("dotproduct", {"b": 8.0, "a": 3.0, "c": -3.0}),
        ("euclidean", {"a": 4.0 + 16.0, "b": 0.0 + 0.0, "c": 16.0 + 16.0}),
    ],
)
def test_scores_are_those_of_the_metric(client: Pinecone, metric: str, scores: dict[str, float]) -> None:
    client.indexes.create(name="m", schema={"fields": {"v": {**DENSE, "metric": metric}}})
    query = {"cosine": [3.0, 4.0], "dotproduct": [3.0, 4.0], "euclidean": [3.0, 4.0]}[metric]
    rows = {"a": [1.0, 0.0], "b": {"cosine": [6.0, 8.0], "dotproduct": [0.0, 2.0], "euclidean": [3.0, 4.0]}[metric]}
    with client.index(name="m") as index:
        index.documents.upsert(
            namespace="n", documents=[{"_id": key, "v": value} for key, value in {**rows, "c": [-1.0, 0.0]}.items()]
        )
        found = index.documents.search(namespace="n", score_by=dense(query), top_k=10).matches
        assert {each.id: each.score for each in found} == pytest.approx(scores, abs=1e-12)
        order = sorted(scores, key=scores.__getitem__, reverse=metric != "euclidean")
        assert [each.id for each in found] == order
        assert ids(index.documents.search(namespace="n", score_by=dense(query), top_k=2)) == order[:2]


def test_equal_scores_come_with_the_greater_id_first(index: Any) -> None:
    index.documents.upsert(namespace="n", documents=[{"_id": f"{at:02}", "v": [0.3, 0.7]} for at in range(40)])
    found = index.documents.search(namespace="n", score_by=dense([0.5, 0.1]), top_k=3)
    assert ids(found) == ["39", "38", "37"]
    assert len({each.score for each in found.matches}) == 1


def test_text_is_scored_by_bm25(filled: Any, double: PineconeDouble) -> None:
    def score(count: int, length: int, holding: int, rows: int = 2, mean: float = 3.5) -> float:
        idf = math.log(1 + (rows - holding + 0.5) / (holding + 0.5))
        return idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / mean))

    found = filled.documents.search(namespace="n", score_by=text("APPLE"), top_k=10).matches
    assert [(each.id, each.score) for each in found] == [
        ("b", pytest.approx(score(2, 3, 2))),
        ("a", pytest.approx(score(1, 4, 2))),
    ]
    twice = filled.documents.search(namespace="n", score_by=text("red pie") + text("apple") + text("apple"), top_k=10)
    assert {each.id: each.score for each in twice.matches} == pytest.approx(
        {"a": score(1, 4, 1) + score(1, 4, 2), "b": score(1, 3, 1) + score(2, 3, 2)}
    )
    assert ids(filled.documents.search(namespace="n", score_by=text("apple"), top_k=10, filter={"n": 1})) == ["a"]
    assert ids(filled.documents.search(namespace="n", score_by=text("nothing"), top_k=10)) == []
    filled.documents.update(
        namespace="n", documents=[{"_id": "b", "_remove_fields": ["body"]}, {"_id": "c", "body": "Red"}]
    )
    assert ids(filled.documents.search(namespace="n", score_by=text("apple red"), top_k=10)) == ["a", "c"]
    filled.documents.delete(namespace="n", ids=["a"])
    assert ids(filled.documents.search(namespace="n", score_by=text("apple red"), top_k=10)) == ["c"]
    long = "x" * 50
    filled.documents.upsert(namespace="n", documents=[{"_id": "l", "v": [1, 1], "body": long}])
    assert ids(filled.documents.search(namespace="n", score_by=text("x" * 45), top_k=10)) == ["l"]  # cut to 40


def test_ids_are_listed_in_byte_order(index: Any, double: PineconeDouble) -> None:
    names = [f"p-{at}" for at in range(7)] + ["P", "p", "p-", "q", "~"]
    index.documents.upsert(namespace="n", documents=[{"_id": each, "v": [1, 1]} for each in names])
    assert [each.id for each in index.documents.list(namespace="n")] == sorted(names)
    pages = list(index.documents.list(namespace="n", prefix="p-", limit=3).pages())
    assert [[each.id for each in page.items] for page in pages] == [
        ["p-", "p-0", "p-1"],
        ["p-2", "p-3", "p-4"],
        ["p-5", "p-6"],
    ]
    assert pages[-1].pagination_token is None
    assert docs(double, "list", {"prefix": "zz"}) == (
        200,
        {"documents": [], "namespace": "n", "usage": {"read_units": 1}},
    )
    assert docs(double, "list", {}, "gone") == (200, {"documents": [], "namespace": "gone", "usage": {"read_units": 1}})


def test_documents_are_fetched_by_filter_page_by_page(index: Any, double: PineconeDouble) -> None:
    rows = [{"_id": f"{at:03}", "v": [1, 1], "even": at % 2 == 0} for at in range(250)]
    index.documents.upsert(namespace="n", documents=rows)
    pages, token = [], None
    while True:
        got = index.documents.fetch(namespace="n", filter={"even": True}, limit=50, pagination_token=token)
        pages.append(list(got.documents))
        if got.pagination is None:
            break
        token = got.pagination.next
    assert [len(page) for page in pages] == [50, 50, 25]
    assert sorted(each for page in pages for each in page) == [f"{at:03}" for at in range(0, 250, 2)]
    assert len(index.documents.fetch(namespace="n", filter={"even": True}).documents) == 100
    double.set(result_bytes=5000)
    got = index.documents.fetch(namespace="n", filter={"even": True})
    assert 0 < len(got.documents) < 100
    assert got.pagination is not None


def test_updates_change_what_they_name(filled: Any, double: PineconeDouble) -> None:
    done = filled.documents.update(
        namespace="n",
        documents=[
            {"_id": "a", "n": 7, "v": [0.0, 2.0], "_remove_fields": ["tags", "nothing"]},
            {"_id": "gone", "n": 1},
        ],
    )
    assert done.matched_records is None
    assert filled.documents.fetch(namespace="n", ids=["a", "gone"]).documents["a"].to_dict() == {
        "_id": "a", "v": [0.0, 2.0], "body": "A red-hot apple", "n": 7.0, "ok": True,
    }  # fmt: skip
    assert filled.documents.search(namespace="n", score_by=dense([0, 1]), top_k=1).matches[0].id == "b"
    done = filled.documents.update(
        namespace="n", filter={"n": {"$gte": 3}}, set_fields={"big": True}, remove_fields=["n"]
    )
    assert done.matched_records == 2
    got = filled.documents.fetch(namespace="n", filter={"big": True}).documents
    assert sorted(got) == ["a", "c"]
    assert "n" not in got["a"].to_dict()
    assert docs(double, "update", {"filter": {"n": 99}, "set_fields": {"x": 1}}) == (202, {"matched_records": 0})


def test_documents_are_deleted(filled: Any, double: PineconeDouble) -> None:
    assert docs(double, "delete", {"ids": ["a", "gone"]}) == (202, {})
    assert docs(double, "delete", {"filter": {"name": "bee"}}) == (202, {"matched_records": 1})
    assert [each.id for each in filled.documents.list(namespace="n")] == ["c"]
    assert filled.documents.delete(namespace="n", delete_all=True).matched_records is None
    assert [each.id for each in filled.documents.list(namespace="n")] == []
    assert filled.describe_namespace(name="n").record_count == 0
    assert docs(double, "delete", {"delete_all": True, "ids": None}) == (202, {})


def test_a_namespace_that_is_not_there(index: Any, double: PineconeDouble) -> None:
    assert ids(index.documents.search(namespace="gone", score_by=dense([1, 0]), top_k=1)) == []
    assert index.documents.fetch(namespace="gone", ids=["a"]).documents == {}
    for verb, body in (("delete", {"ids": ["a"]}), ("update", {"documents": [{"_id": "a", "n": 1}]})):
        assert docs(double, verb, body, "gone")[0] == 404
    double.set(missing_namespace_404=False)
    for verb, body in (("delete", {"ids": ["a"]}), ("update", {"documents": [{"_id": "a", "n": 1}]})):
        assert docs(double, verb, body, "gone") == (202, {})
    assert list(index.list_namespaces()) == []


def test_namespaces_keep_apart(filled: Any) -> None:
    odd = "a/b c%2F..%?#é".replace("é", "e")
    filled.documents.upsert(namespace=odd, documents=[{"_id": "a", "v": [1, 1]}])
    assert sorted(filled.documents.fetch(namespace=odd, ids=["a", "b"]).documents) == ["a"]
    assert [each.name for page in filled.list_namespaces() for each in page] == sorted([odd, "n"])
    first = filled.list_namespaces_paginated(limit=1)
    assert [each.name for each in first.namespaces] == [odd]
    assert first.total_count == 2
    second = filled.list_namespaces_paginated(limit=1, pagination_token=first.pagination.next)
    assert [(each.name, each.record_count) for each in second.namespaces] == [("n", 3)]
    assert second.pagination is None
    assert [each.name for page in filled.list_namespaces(prefix="a/") for each in page] == [odd]
    assert filled.create_namespace(name="made").record_count == 0
    with pytest.raises(pinecone.ConflictError):
        filled.create_namespace(name="made")
    stats = filled.describe_index_stats()
    assert (stats.total_vector_count, stats.dimension, stats.metric) == (4, 2, "cosine")
    assert {name: each.vector_count for name, each in stats.namespaces.items()} == {"n": 3, odd: 1, "made": 0}
    filled.delete_namespace(name=odd)
    for gone in (filled.describe_namespace, filled.delete_namespace):
        with pytest.raises(pinecone.NotFoundError):
            gone(name=odd)
    with pytest.raises(pinecone.NotFoundError):
        filled.describe_namespace(name="__default__")


LONG = "x" * 513
ONE = {"_id": "a", "v": [1, 0]}


@pytest.mark.parametrize(
    ("verb", "body", "status"),
    [
        ("upsert", [], 400),
        ("upsert", {}, 400),
        ("upsert", {"documents": []}, 400),
        ("upsert", {"documents": [1]}, 400),
        ("upsert", {"documents": [ONE], "more": 1}, 400),
        ("upsert", {"documents": [{"_id": f"{at}", "v": [1, 0]} for at in range(1001)]}, 400),
        ("upsert", {"documents": [{"v": [1, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": 1, "v": [1, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": "", "v": [1, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": LONG, "v": [1, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": "é", "v": [1, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": "\0", "v": [1, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": "a", "n": 1}]}, 400),
        ("upsert", {"documents": [{"_id": "a", "body": "no vector"}]}, 400),
        ("upsert", {"documents": [ONE, {"_id": "b", "v": [1]}]}, 400),
        ("upsert", {"documents": [{"_id": "a", "v": [1, 0, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": "a", "v": [0, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": "a", "v": [1e-9, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": "a", "v": [1e39, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": "a", "v": [None, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": "a", "v": ["1", 0]}]}, 400),
        ("upsert", {"documents": [{"_id": "a", "v": [True, 0]}]}, 400),
        ("upsert", {"documents": [{"_id": "a", "v": [[1], [0]]}]}, 400),
        ("upsert", {"documents": [{"_id": "a", "v": "not a vector"}]}, 400),
        ("upsert", {"documents": [{**ONE, "body": 1}]}, 400),
        ("upsert", {"documents": [{**ONE, "body": "x " * 10_001}]}, 400),
        ("upsert", {"documents": [{**ONE, "body": "x" * 257}]}, 400),
        ("upsert", {"documents": [{**ONE, "body": "x " * 60_000}]}, 400),
        ("upsert", {"documents": [{**ONE, "n": None}]}, 400),
        ("upsert", {"documents": [{**ONE, "n": {"deep": 1}}]}, 400),
        ("upsert", {"documents": [{**ONE, "n": [1, 2]}]}, 400),
        ("upsert", {"documents": [{**ONE, "n": ["a", 2]}]}, 400),
        ("upsert", {"documents": [{**ONE, "$n": 1}]}, 400),
        ("upsert", {"documents": [{**ONE, "_n": 1}]}, 400),
        ("upsert", {"documents": [{**ONE, "": 1}]}, 400),
        ("upsert", {"documents": [{**ONE, "é" * 33: 1}]}, 400),
        ("upsert", {"documents": [{**ONE, "n": "x" * 40_960}]}, 400),
        ("upsert", {"documents": [{**ONE, "s": {"indices": [1, 1], "values": [1, 1]}}]}, 400),
        ("upsert", {"documents": [{**ONE, "s": {"indices": [1], "values": [1, 1]}}]}, 400),
        ("upsert", {"documents": [{**ONE, "s": {"indices": [-1], "values": [1]}}]}, 400),
        ("upsert", {"documents": [{**ONE, "s": {"indices": [], "values": []}}]}, 400),
        ("upsert", {"documents": [{**ONE, "s": {"indices": [*range(2049)], "values": [1] * 2049}}]}, 400),
        ("upsert", {"documents": [ONE, ONE]}, 501),
        ("search", {"score_by": dense([1, 0])}, 400),
        ("search", {"top_k": 1}, 400),
        ("search", {"top_k": 1, "score_by": []}, 400),
        ("search", {"top_k": 1, "score_by": text("a") * 101}, 400),
        ("search", {"top_k": 0, "score_by": dense([1, 0])}, 400),
        ("search", {"top_k": 10_001, "score_by": dense([1, 0])}, 400),
        ("search", {"top_k": True, "score_by": dense([1, 0])}, 400),
        ("search", {"top_k": 1, "score_by": dense([1, 0, 0])}, 400),
        ("search", {"top_k": 1, "score_by": dense([0, 0])}, 400),
        ("search", {"top_k": 1, "score_by": dense([1, 0], "body")}, 400),
        ("search", {"top_k": 1, "score_by": dense([1, 0], "gone")}, 400),
        ("search", {"top_k": 1, "score_by": dense([1, 0]) + text("a")}, 400),
        ("search", {"top_k": 1, "score_by": dense([1, 0]) * 2}, 400),
        ("search", {"top_k": 1, "score_by": [{"type": "dense_vector", "fields": ["v", "v"], "values": [1, 0]}]}, 400),
        ("search", {"top_k": 1, "score_by": [{"field": "v", "values": [1, 0]}]}, 400),
        ("search", {"top_k": 1, "score_by": [{"type": "text", "fields": ["body"], "query": "a", "boost": 2}]}, 400),
        (
            "search",
            {"top_k": 1, "score_by": [{"type": "text", "field": "body", "fields": ["body"], "query": "a"}]},
            400,
        ),
        ("search", {"top_k": 1, "score_by": text("  ")}, 400),
        ("search", {"top_k": 1, "score_by": text("x" * 10_241)}, 400),
        ("search", {"top_k": 1, "score_by": text("a", "v")}, 400),
        ("search", {"top_k": 1, "score_by": dense([1, 0]), "include_fields": "*"}, 400),
        ("search", {"top_k": 1, "score_by": [{"type": "query_string", "query": "a", "fields": ["body"]}]}, 400),
        ("search", {"top_k": 1, "score_by": [{"type": "query_string", "query": "a"}]}, 501),
        ("search", {"top_k": 1, "score_by": [{"type": "embed", "field": "body", "query": "a"}]}, 501),
        (
            "search",
            {
                "top_k": 1,
                "score_by": [{"type": "sparse_vector", "field": "s", "sparse_values": {"indices": [1], "values": [1]}}],
            },
            501,
        ),
        ("fetch", {}, 400),
        ("fetch", {"ids": []}, 400),
        ("fetch", {"ids": ["a"], "filter": {"n": 1}}, 400),
        ("fetch", {"ids": [f"{at}" for at in range(1001)]}, 400),
        ("fetch", {"ids": ["a"], "pagination_token": "YQ=="}, 400),
        ("fetch", {"ids": ["a"], "limit": 10_001}, 400),
        ("fetch", {"filter": {}}, 400),
        ("fetch", {"filter": {"n": 1}, "limit": 0}, 400),
        ("fetch", {"filter": {"n": 1}, "pagination_token": "?"}, 400),
        ("list", {"limit": 101}, 400),
        ("list", {"limit": 0}, 400),
        ("list", {"prefix": "é"}, 400),
        ("list", {"prefix": LONG}, 400),
        ("list", {"pagination_token": 1}, 400),
        ("update", {}, 400),
        ("update", {"documents": []}, 400),
        ("update", {"documents": [{"_id": f"{at}", "n": 1} for at in range(1001)]}, 400),
        ("update", {"documents": [{"_id": "a", "n": None}]}, 400),
        ("update", {"documents": [{"_id": "a", "v": [1]}]}, 400),
        ("update", {"documents": [{"_id": "a", "_remove_fields": ["v"]}]}, 400),
        ("update", {"documents": [{"_id": "a", "n": 1, "_remove_fields": ["n"]}]}, 400),
        ("update", {"documents": [{"_id": "a", "n": 1}], "filter": {"n": 1}}, 400),
        ("update", {"filter": {"n": 1}}, 400),
        ("update", {"filter": {}, "set_fields": {"n": 1}}, 400),
        ("update", {"set_fields": {"n": 1}}, 400),
        ("update", {"filter": {"body": {"$match_any": "apple"}}, "set_fields": {"n": 1}}, 400),
        ("update", {"filter": {"n": 1}, "set_fields": {"v": [1, 0]}}, 501),
        ("delete", {}, 400),
        ("delete", {"delete_all": False}, 400),
        ("delete", {"delete_all": 1}, 400),
        ("delete", {"ids": ["a"], "delete_all": True}, 400),
        ("delete", {"ids": ["a"], "filter": {"n": 1}}, 400),
        ("delete", {"ids": [f"{at}" for at in range(1001)]}, 400),
        ("delete", {"filter": {}}, 400),
        ("delete", {"filter": {"body": {"$match_any": "apple"}}}, 400),
    ],
)
def test_what_documents_refuse_and_nothing_is_written(
    stored: PineconeDouble, verb: str, body: Any, status: int
) -> None:
    before = docs(stored, "fetch", {"ids": ["a", "b", "c"]})
    got, told = docs(stored, verb, body)
    assert (got, told["status"]) == (status, status)
    assert told["error"]["code"] == {400: "INVALID_ARGUMENT", 501: "UNIMPLEMENTED"}[status]
    assert docs(stored, "fetch", {"ids": ["a", "b", "c"]}) == before
    assert ask(stored, "GET", "/_index/docs/namespaces/n")[1] == {"name": "n", "record_count": "3"}


def test_a_request_and_a_result_have_a_size(filled: Any, double: PineconeDouble) -> None:
    row = {"_id": "big", "v": [1, 0], "body": "word " * 20_000}
    assert len(orjson.dumps(row)) < 2**20
    with pytest.raises(pinecone.PineconeError) as caught:
        filled.documents.upsert(namespace="n", documents=[{**row, "_id": f"{at}", "n": "x" * 100} for at in range(30)])
    assert getattr(caught.value, "status_code", None) == 413
    double.set(result_bytes=300)
    assert docs(double, "search", {"score_by": dense([1, 0]), "top_k": 3})[0] == 200
    assert docs(double, "search", {"score_by": dense([1, 0]), "top_k": 3, "include_fields": ["*"]})[0] == 400


def test_a_body_without_a_length_is_cut_off(double: PineconeDouble) -> None:
    double.set(request_bytes=1000)
    connection = HTTPConnection(urlsplit(double.url).netloc, timeout=10)
    connection.request("POST", "/indexes", iter([b"x" * 600] * 5), HEADERS, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


# --------------------------------------------------------------------------------------------- filters


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"n": 1}, "a"),
    ({"n": {"$eq": 1.0}}, "a"),
    ({"ok": True}, "a"),
    ({"ok": 1}, ""),
    ({"n": True}, ""),
    ({"n": {"$gt": 1}}, "bc"),
    ({"n": {"$gte": 1, "$lt": 3}}, "ab"),
    ({"n": {"$lte": 2.5}}, "ab"),
    ({"name": {"$gt": 1}}, ""),
    ({"n": {"$in": [1, 3, "x"]}}, "ac"),
    ({"tags": "x"}, "a"),
    ({"tags": {"$in": ["y", "z"]}}, "ac"),
    ({"$and": [{"tags": "x"}, {"tags": "y"}]}, "a"),
    ({"$or": [{"tags": "x"}, {"name": "sea"}]}, "ac"),
    ({"n": {"$gt": 1}, "name": "sea"}, "c"),
    ({"name": {"$exists": True}}, "bc"),
    ({"name": {"$exists": False}}, "a"),
    ({"gone": "x"}, ""),
    ({"body": {"$match_all": "apple red"}}, "a"),
    ({"body": {"$match_any": "pie red"}}, "ab"),
    ({"body": {"$match_phrase": "RED hot"}}, "a"),
    ({"body": {"$match_phrase": "hot red"}}, ""),
    ({"$and": [{"body": {"$match_any": "apple"}}, {"n": {"$gt": 1}}]}, "b"),
]
NEGATED: list[tuple[dict[str, Any], str, str]] = [
    ({"name": {"$ne": "bee"}}, "c", "ac"),
    ({"name": {"$nin": ["bee", "x"]}}, "c", "ac"),
    ({"name": {"$not": {"$eq": "bee"}}}, "c", "ac"),
    ({"n": {"$ne": "1"}}, "abc", "abc"),
    ({"n": {"$not": {"$gt": 1, "$lt": 3}}}, "ac", "ac"),
    ({"body": {"$not": {"$match_any": "pie"}}}, "a", "ac"),
    ({"tags": {"$ne": "x"}}, "c", "bc"),
    ({"tags": {"$nin": ["x", "y"]}}, "c", "bc"),
]


def kept(double: Control, asked: dict[str, Any]) -> str:
    status, told = docs(double, "search", {"score_by": dense([1, 0]), "top_k": 10, "filter": asked})
    assert status == 200
    return "".join(sorted(each["_id"] for each in told["matches"]))


@pytest.mark.parametrize(("asked", "expected"), FILTERS)
def test_what_a_filter_keeps(stored: PineconeDouble, asked: dict[str, Any], expected: str) -> None:
    assert kept(stored, asked) == expected
    assert "".join(sorted(docs(stored, "fetch", {"filter": asked})[1]["documents"])) == expected


@pytest.mark.parametrize(("asked", "present", "missing"), NEGATED)
def test_what_a_negation_keeps_under_either_reading(
    stored: PineconeDouble, asked: dict[str, Any], present: str, missing: str
) -> None:
    for switch, expected in ((False, present), (True, missing)):
        stored.set(missing_matches_ne=switch)
        assert kept(stored, asked) == expected


def test_a_negation_of_a_list_under_either_reading(filled: Any, double: PineconeDouble) -> None:
    double.set(any_element_ne=True)
    for asked, expected in (({"$ne": "x"}, "ac"), ({"$nin": ["x", "y"]}, "c")):
        assert "".join(sorted(filled.documents.fetch(namespace="n", filter={"tags": asked}).documents)) == expected


def _nested(depth: int) -> dict[str, Any]:
    return {"n": 1} if depth == 0 else {"$and": [_nested(depth - 1)]}


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"n": {"$gt": "1"}}, 400),
        ({"n": {"$gt": True}}, 400),
        ({"n": {"$lte": None}}, 400),
        ({"n": None}, 400),
        ({"n": []}, 400),
        ({"n": ["a"]}, 400),
        ({"n": {"$eq": ["a"]}}, 400),
        ({"n": {"$eq": {"x": 1}}}, 400),
        ({"n": {}}, 400),
        ({"n": {"x": 1}}, 400),
        ({"n": {"$regex": "x"}}, 400),
        ({"n": {"$in": "x"}}, 400),
        ({"n": {"$in": [True]}}, 400),
        ({"n": {"$in": [["x"]]}}, 400),
        ({"n": {"$in": list(range(10_001))}}, 400),
        ({"n": {"$nin": list(range(10_001))}}, 400),
        ({"n": {"$exists": 1}}, 400),
        ({"$and": []}, 400),
        ({"$or": {"n": 1}}, 400),
        ({"$or": [1]}, 400),
        ({"$gt": 1}, 400),
        ({"body": "x"}, 400),
        ({"body": {"$eq": "x"}}, 400),
        ({"body": {"$in": ["x"]}}, 400),
        ({"v": {"$gt": 1}}, 400),
        ({"v": {"$match_any": "x"}}, 400),
        ({"n": {"$match_any": "x"}}, 400),
        ({"body": {"$match_any": 1}}, 400),
        ({"body": {"$match_all": "x " * 129}}, 400),
        ({"n": {"$not": 1}}, 400),
        ({"n": {"$in": []}}, 501),
        ({"body": {"$match_any": "!"}}, 501),
        ({"body": {"$exists": True}}, 501),
        ({"_id": "a"}, 501),
        ({"$not": {"n": 1}}, 501),
        ({"$and": [{"$not": {"n": 1}}]}, 501),
        ({"n": {"$not": {"$not": {"$eq": 1}}}}, 501),
        (_nested(40), 501),
    ],
)
def test_what_is_no_filter(stored: PineconeDouble, asked: Any, status: int) -> None:
    assert docs(stored, "search", {"score_by": dense([1, 0]), "top_k": 1, "filter": asked})[0] == status
    assert docs(stored, "fetch", {"filter": asked})[0] == status


def test_analyzers_that_the_double_lacks_are_named(client: Pinecone, double: PineconeDouble) -> None:
    stemmed = {"type": "string", "full_text_search": {"stemming": True, "language": "french"}}
    client.indexes.create(name="docs", schema={"fields": {"body": stemmed}})
    assert docs(double, "upsert", {"documents": [{"_id": "a", "body": "courir"}]})[0] == 202
    for body in (
        {"top_k": 1, "score_by": text("courir")},
        {"top_k": 1, "score_by": text("courir"), "filter": {"body": {"$match_any": "x"}}},
    ):
        assert docs(double, "search", body)[0] == 501


# --------------------------------------------------------------------------------------------- freshness


def test_writes_are_seen_after_their_delay_in_the_order_of_the_log(index: Any, double: PineconeDouble) -> None:
    double.delay = 0.3
    began = time.monotonic()
    first = index.documents.upsert(namespace="n", documents=[ONE]).response_info.lsn_committed
    second = index.documents.update(namespace="n", documents=[{"_id": "a", "n": 1}]).response_info.lsn_committed
    third = index.documents.delete(namespace="n", filter={"n": 2}).response_info.lsn_committed
    other = index.documents.upsert(namespace="m", documents=[ONE]).response_info.lsn_committed
    assert (first, second, third, other) == (1, 2, 3, 1)
    early = index.documents.search(namespace="n", score_by=dense([1, 0]), top_k=1)
    assert (ids(early), early.response_info.lsn_reconciled) == ([], 0)
    assert index.documents.fetch(namespace="n", ids=["a"]).documents == {}
    assert time.monotonic() - began < 0.3
    double.delay = 0.0
    index.documents.upsert(namespace="n", documents=[{"_id": "b", "v": [0, 1]}])
    early = index.documents.search(namespace="n", score_by=dense([1, 0]), top_k=5)
    assert ids(early) == []  # a prefix of the log: what is due stands behind what is not
    time.sleep(0.35)
    late = index.documents.search(namespace="n", score_by=dense([1, 0]), top_k=5, include_fields=["n"])
    assert [each.to_dict() for each in late.matches] == [
        {"_id": "a", "n": 1.0, "_score": 1.0},
        {"_id": "b", "_score": 0.0},
    ]
    assert late.response_info.lsn_reconciled == 4
    assert late.response_info.is_reconciled(third)
    fetched = index.documents.fetch(namespace="n", ids=["a"])
    assert (fetched.response_info.lsn_reconciled, fetched.response_info.lsn_committed) == (None, None)


def test_fetch_and_search_see_writes_apart(index: Any, double: PineconeDouble) -> None:
    double.set(delay=60, fetch_delay=0)
    index.documents.upsert(namespace="n", documents=[ONE])
    assert sorted(index.documents.fetch(namespace="n", ids=["a"]).documents) == ["a"]
    assert ids(index.documents.search(namespace="n", score_by=dense([1, 0]), top_k=1)) == []
    assert index.describe_index_stats().total_vector_count == 1
    double.settle()
    assert ids(index.documents.search(namespace="n", score_by=dense([1, 0]), top_k=1)) == ["a"]
    double.set(delay=0, fetch_delay=60)
    index.documents.delete(namespace="n", ids=["a"])
    assert ids(index.documents.search(namespace="n", score_by=dense([1, 0]), top_k=1)) == []
    assert [each.id for each in index.documents.list(namespace="n")] == ["a"]


def test_switches_of_what_was_seen_elsewhere(client: Pinecone, classic: Any, double: PineconeDouble) -> None:
    double.set(dense_only_gap=True, unsorted_matches=True, float32_scores=True)
    client.indexes.create(name="only", schema={"fields": {"v": DENSE}})
    with client.index(name="only") as index:
        index.documents.upsert(namespace="n", documents=[{"_id": "a", "v": [1, 2], "n": 1}])
        assert ids(index.documents.search(namespace="n", score_by=dense([1, 0]), top_k=1)) == []
        assert index.documents.fetch(namespace="n", filter={"n": 1}).documents == {}
        assert sorted(index.documents.fetch(namespace="n", ids=["a"]).documents) == ["a"]
        double.set(dense_only_gap=False)
        (match,) = index.documents.search(namespace="n", score_by=dense([1, 0]), top_k=1).matches
        assert match.score == 0.4472135901451111  # float32 of 1/sqrt(5)
    client.indexes.create(name="far", schema={"fields": {"v": {**DENSE, "metric": "dotproduct"}}})
    with client.index(name="far") as index:
        index.documents.upsert(namespace="n", documents=[{"_id": "a", "v": [3e38, 0]}])
        assert index.documents.search(namespace="n", score_by=dense([3e38, 0]), top_k=1).matches[0].score is None
    classic.upsert(vectors=[("a", [1, 0]), ("b", [2, 0])])
    assert [each.id for each in classic.query(vector=[1, 0], top_k=2).matches] == ["a", "b"]


def test_what_is_kept_as_rows_come_and_go_is_what_they_are() -> None:
    """Matrices and postings are changed in place; they must be those of a view made afresh."""
    rng = random.Random(7)
    words = ["red", "blue", "pie", "hot", "sea"]
    view = View()
    for step in range(1500):
        key = f"{rng.randrange(90):02}"
        if rng.random() < 0.3:
            view.remove(key)
        elif rng.random() < 0.002:
            view.clear()
        else:
            vector = {"v": np.array([rng.randrange(-2, 3), 1], np.float32)} if rng.random() < 0.9 else {}
            told = {"body": " ".join(rng.choices(words, k=rng.randrange(4)))} if rng.random() < 0.8 else {}
            view.put(Row(key, told, vector, {}))
        if step % 50:
            continue
        fresh = View()
        for row in view.rows.values():
            fresh.put(row)
        query = np.array([1, 0.5], np.float32)
        for metric in ("cosine", "dotproduct", "euclidean"):
            best = [each.matrix("v", 2).best(query, metric, 20, None) for each in (view, fresh)]
            assert [(row.id, score) for row, score in best[0]] == [(row.id, score) for row, score in best[1]]
        scores: list[dict[str, float]] = [{}, {}]
        for each, into in zip((view, fresh), scores, strict=True):
            each.text("body").add_scores(["red", "pie"], into)
        assert scores[0] == pytest.approx(scores[1])
        assert view.ids() == sorted(fresh.rows)


# --------------------------------------------------------------------------------------------- vectors


def test_the_vectors_api(classic: Any, client: Pinecone) -> None:
    assert client.describe_index("classic").dimension == 2
    rows = [("a", [1, 0.4], {"g": "x", "n": 1}), ("b", [0, 1], {"g": "y", "_odd": True, "": "empty"}), ("c", [2, 0])]
    assert classic.upsert(vectors=rows).upserted_count == 3
    found = classic.query(vector=[1, 0], top_k=2, include_values=True, include_metadata=True)
    assert [each.to_dict() for each in found.matches] == [
        {"id": "c", "score": 2.0, "values": [2.0, 0.0], "sparse_values": None, "metadata": None},
        {
            "id": "a",
            "score": 1.0,
            "values": [1.0, 0.4000000059604645],
            "sparse_values": None,
            "metadata": {"g": "x", "n": 1.0},
        },
    ]
    assert found.response_info.lsn_reconciled == 1
    assert [(each.id, each.values, each.metadata) for each in classic.query(id="b", top_k=1).matches] == [
        ("b", [], None)
    ]
    assert [each.id for each in classic.query(vector=[1, 0], top_k=9, filter={"g": {"$in": ["x", "y"]}}).matches] == [
        "a",
        "b",
    ]
    assert [
        each.id for each in classic.query(vector=[1, 0], top_k=9, filter={"g": {"$not": {"$eq": "x"}}}).matches
    ] == ["b"]
    assert classic.query(id="gone", top_k=1).matches == []
    got = classic.fetch(ids=["a", "gone", "b"]).vectors
    assert sorted(got) == ["a", "b"]
    assert got["b"].metadata == {"g": "y", "_odd": True, "": "empty"}
    assert [each.id for page in classic.list(limit=2) for each in page] == ["a", "b", "c"]
    assert [[each.id for each in page] for page in classic.list(limit=2)] == [["a", "b"], ["c"]]
    assert [each.id for page in classic.list(prefix="b") for each in page] == ["b"]
    classic.update(id="a", values=[3, 0], set_metadata={"n": 2, "more": ["l"]})
    assert classic.fetch(ids=["a"]).vectors["a"].metadata == {"g": "x", "n": 2.0, "more": ["l"]}
    assert [each.id for each in classic.query(vector=[1, 0], top_k=1).matches] == ["a"]
    assert classic.update(filter={"g": "y"}, set_metadata={"z": 1}, dry_run=True).matched_records == 1
    assert "z" not in classic.fetch(ids=["b"]).vectors["b"].metadata
    assert classic.update(filter={"g": "y"}, set_metadata={"z": 1}).matched_records == 1
    page = classic.fetch_by_metadata(filter={"g": {"$exists": True}}, limit=1)
    assert sorted(page.vectors) == ["a"]
    page = classic.fetch_by_metadata(filter={"g": {"$exists": True}}, limit=1, pagination_token=page.pagination.next)
    assert (sorted(page.vectors), page.pagination) == (["b"], None)
    classic.upsert(
        vectors=[{"id": "s", "values": [1, 1], "sparse_values": {"indices": [5], "values": [0.5]}}], namespace="m"
    )
    assert classic.fetch(ids=["s"], namespace="m").vectors["s"].sparse_values.to_dict() == {
        "indices": [5],
        "values": [0.5],
    }
    stats = classic.describe_index_stats()
    assert {name: each.vector_count for name, each in stats.namespaces.items()} == {"__default__": 3, "m": 1}
    assert (stats.dimension, stats.metric, stats.vector_type) == (2, "dotproduct", "dense")
    classic.delete(ids=["a", "gone"])
    classic.delete(filter={"g": "y"})
    assert [each.id for page in classic.list() for each in page] == ["c"]
    classic.delete(delete_all=True)
    assert [each.id for page in classic.list() for each in page] == []
    assert classic.describe_namespace(name="__default__").record_count == 0
    with pytest.raises(pinecone.NotFoundError, match="Namespace not found"):
        classic.delete(ids=["a"], namespace="gone")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "vectors/upsert", {"vectors": []}, 400),
        ("POST", "vectors/upsert", {"vectors": [{"id": f"{at}", "values": [1, 1]} for at in range(1001)]}, 400),
        ("POST", "vectors/upsert", {"vectors": [{"id": "a"}]}, 400),
        ("POST", "vectors/upsert", {"vectors": [{"id": "é", "values": [1, 1]}]}, 400),
        ("POST", "vectors/upsert", {"vectors": [{"id": "a", "values": [1]}]}, 400),
        ("POST", "vectors/upsert", {"vectors": [{"id": "a", "values": [0, 0]}]}, 400),
        ("POST", "vectors/upsert", {"vectors": [{"id": "a", "values": [1, 1], "metadata": {"$x": 1}}]}, 400),
        ("POST", "vectors/upsert", {"vectors": [{"id": "a", "values": [1, 1], "metadata": {"x": [1]}}]}, 400),
        ("POST", "vectors/upsert", {"vectors": [{"id": "a", "values": [1, 1], "metadata": {"x": "x" * 40_960}}]}, 400),
        ("POST", "query", {"topK": 1}, 400),
        ("POST", "query", {"topK": 10_001, "vector": [1, 1]}, 400),
        ("POST", "query", {"vector": [1, 1]}, 400),
        ("POST", "query", {"topK": 1, "vector": [1, 1], "id": "a"}, 400),
        ("POST", "query", {"topK": 1, "vector": [1, 1], "filter": {"body": {"$match_any": "x"}}}, 400),
        ("POST", "query", {"topK": 1, "vector": [1, 1], "sparseVector": {"indices": [1], "values": [1]}}, 501),
        ("GET", "vectors/fetch", None, 400),
        ("GET", "vectors/list?limit=101", None, 400),
        ("GET", "vectors/list?limit=x", None, 400),
        ("POST", "vectors/fetch_by_metadata", {"filter": {}}, 400),
        ("POST", "vectors/update", {"setMetadata": {"a": 1}}, 400),
        ("POST", "vectors/update", {"filter": {"a": 1}, "values": [1, 1]}, 400),
        ("POST", "vectors/update", {"filter": {}, "setMetadata": {"a": 1}}, 400),
        ("POST", "vectors/delete", {}, 400),
        ("POST", "vectors/delete", {"deleteAll": True, "ids": ["a"]}, 400),
        ("POST", "vectors/delete", {"filter": {}}, 400),
        ("POST", "describe_index_stats", {"filter": {"a": 1}}, 400),
        ("POST", "namespaces", {"name": "__default__"}, 400),
        ("GET", "namespaces?limit=0", None, 400),
        ("GET", "bulk/imports", None, 501),
        ("POST", "records/namespaces/n/search", {}, 501),
    ],
)
def test_what_the_vectors_api_refuses(records: PineconeDouble, method: str, path: str, body: Any, status: int) -> None:
    got, told, _ = ask(records, method, f"/_index/classic/{path}", body)
    assert got == status
    assert set(told) == (
        {"code", "message", "details"} if not path.startswith(("bulk", "records")) else {"error", "status"}
    )


def test_either_kind_of_index_has_its_own_api(filled: Any, classic: Any, double: PineconeDouble) -> None:
    for method, path, body in (
        ("POST", "vectors/upsert", {"vectors": [{"id": "a", "values": [1, 1]}]}),
        ("POST", "query", {"topK": 1, "vector": [1, 1]}),
        ("GET", "vectors/fetch?ids=a", None),
        ("GET", "vectors/list", None),
        ("POST", "vectors/delete", {"deleteAll": True}),
    ):
        assert ask(double, method, f"/_index/docs/{path}", body)[0] == 400
    for verb in ("upsert", "search", "fetch", "list", "update", "delete"):
        assert ask(double, "POST", f"/_index/classic/namespaces/n/documents/{verb}", {})[0] == 400


# --------------------------------------------------------------------------------------------- asynchronous client


def test_the_asynchronous_client(double: PineconeDouble) -> None:
    async def go() -> None:
        async with AsyncPinecone(api_key="k", host=double.url) as client:
            await client.indexes.create(name="docs", schema=SCHEMA)
            await client.create_index("classic", dimension=2, spec=ServerlessSpec(cloud="aws", region="us-east-1"))
            assert [each.name async for each in client.indexes.list()] == ["docs", "classic"]
            async with await client.index(name="docs") as index:
                documents = index.documents
                assert (await documents.upsert(namespace="n", documents=ROWS)).upserted_count == 3
                found = await documents.search(namespace="n", score_by=dense([1, 0]), top_k=2, filter={"n": {"$lt": 3}})
                assert ids(found) == ["a", "b"]
                assert sorted((await documents.fetch(namespace="n", filter={"n": {"$gt": 1}})).documents) == ["b", "c"]
                assert [each.id async for each in documents.list(namespace="n", limit=2)] == ["a", "b", "c"]
                await documents.update(namespace="n", documents=[{"_id": "a", "n": 9}])
                assert (await documents.delete(namespace="n", filter={"n": 9})).matched_records == 1
                assert (await index.describe_namespace(name="n")).record_count == 2
            async with await client.index(name="classic") as index:
                await index.upsert(vectors=[("a", [1, 0]), ("b", [0, 1])])
                assert [each.id for each in (await index.query(vector=[1, 0.1], top_k=2)).matches] == ["a", "b"]
                assert sorted((await index.fetch(ids=["a"])).vectors) == ["a"]
                await index.delete(delete_all=True)
                assert (await index.describe_index_stats()).total_vector_count == 0
            await client.indexes.delete("docs")
            assert not await client.indexes.exists("docs")

    asyncio.run(go())


# --------------------------------------------------------------------------------------------- faults and controls


def count(double: Control, what: str) -> int:
    return double.traffic().get(f"POST /namespaces/{{namespace}}/documents/{what}", {}).get("requests", 0)


def test_a_status_before_the_work_and_after_it(index: Any, double: PineconeDouble) -> None:
    double.fail(status=400, path="/upsert", when="before")
    with pytest.raises(pinecone.ApiError):
        index.documents.upsert(namespace="n", documents=[ONE])
    assert index.documents.fetch(namespace="n", ids=["a"]).documents == {}
    double.fail(status=400, path="/upsert", when="after")
    with pytest.raises(pinecone.ApiError) as caught:
        index.documents.upsert(namespace="n", documents=[ONE])
    assert sorted(index.documents.fetch(namespace="n", ids=["a"]).documents) == ["a"]
    assert "x-pinecone-request-lsn" not in (caught.value.headers or {})
    assert count(double, "upsert") == 2


def test_what_the_client_retries(index: Any, double: PineconeDouble) -> None:
    double.fail(status=503, path="/upsert", when="after", times=2, retry_after=0)
    assert (
        index.documents.upsert(namespace="n", documents=[ONE]).response_info.lsn_committed == 3
    )  # it was written thrice
    double.fail(action="drop", path="/search", retry_after=0)
    assert ids(index.documents.search(namespace="n", score_by=dense([1, 0]), top_k=1)) == ["a"]
    assert (count(double, "upsert"), count(double, "search")) == (3, 2)


def test_a_fault_lets_some_pass_and_knows_path_and_method(index: Any, double: PineconeDouble) -> None:
    double.fail(status=429, method="POST", path="/fetch", skip=1, times=2, retry_after=7)
    sent = [ask(double, "POST", "/_index/docs/namespaces/n/documents/fetch", {"ids": ["a"]}) for _ in range(4)]
    assert [each[0] for each in sent] == [200, 429, 429, 200]
    assert sent[1][2]["retry-after"] == "7"
    assert sent[1][1] == "A fault that a test asked for."  # plain text, as from the layer that limits
    double.fail(status=500, method="GET")
    assert docs(double, "list", {})[0] == 200
    assert ask(double, "GET", "/indexes")[0] == 500
    assert ask(double, "GET", "/indexes")[0] == 200


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_is_dropped_without_a_reply(index: Any, double: PineconeDouble, when: str) -> None:
    double.fail(action="drop", path="/upsert", when=when)
    with pytest.raises(ConnectionError):
        docs(double, "upsert", {"documents": [ONE]})
    assert sorted(docs(double, "fetch", {"ids": ["a"]})[1]["documents"]) == (["a"] if when == "after" else [])
    assert count(double, "upsert") == 1


def test_a_slow_reply_comes_and_others_do_not_wait(index: Any, double: PineconeDouble) -> None:
    double.fail(action="slow", seconds=0.4, path="/list")
    took: list[float] = []

    def slow() -> None:
        began = time.monotonic()
        assert docs(double, "list", {})[0] == 200
        took.append(time.monotonic() - began)

    thread = threading.Thread(target=slow)
    thread.start()
    time.sleep(0.05)
    began = time.monotonic()
    assert docs(double, "fetch", {"ids": ["a"]})[0] == 200
    assert time.monotonic() - began < 0.3
    thread.join()
    assert took[0] >= 0.4


def test_what_is_slowed_down_does_not_outlive_its_fault() -> None:
    with PineconeDouble() as double:
        double.fail(action="slow", seconds=60, path="/indexes")
        failed: list[BaseException] = []

        def slow() -> None:
            try:
                ask(double, "POST", "/indexes", _with(a=FTS))
            except ConnectionError as error:
                failed.append(error)

        thread = threading.Thread(target=slow)
        thread.start()
        time.sleep(0.1)
        double.reset()
        thread.join(5)
        assert len(failed) == 1
        assert ask(double, "GET", "/indexes")[1] == {"indexes": []}
        double.fail(action="slow", seconds=60, path="/indexes")
        thread = threading.Thread(target=slow)
        thread.start()
        time.sleep(0.1)
        began = time.monotonic()
    thread.join(5)
    assert time.monotonic() - began < 1
    assert len(failed) == 2


@pytest.mark.parametrize(
    "fault", [{"status": 200}, {"when": "never"}, {"action": "burn"}, {"colour": 1}, {"times": "1"}, {"skip": -1}]
)
def test_what_is_no_fault(double: PineconeDouble, fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        double.fail(**fault)


@pytest.mark.parametrize(
    "setting", [{"delay": "1"}, {"delay": -1}, {"delay": None}, {"max_indexes": 1.5}, {"x": 1}, {"float32_scores": 1}]
)
def test_what_is_no_setting(double: PineconeDouble, setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        double.set(**setting)
    assert double.settings == Settings()


def test_traffic_is_counted_by_template(filled: Any, double: PineconeDouble) -> None:
    sent = len(orjson.dumps({"documents": ROWS}))
    assert double.traffic()["POST /namespaces/{namespace}/documents/upsert"] == {
        "requests": 1,
        "request_bytes": sent,
        "response_bytes": len(b'{"upserted_count":3}'),
    }
    double.fail(status=500)
    double.forget()
    assert double.traffic() == {}
    assert docs(double, "list", {})[0] == 200
    Control(double.url).reset()
    assert ask(double, "GET", "/indexes")[1] == {"indexes": []}


def test_a_key_and_the_version_are_asked_for() -> None:
    with PineconeDouble(api_key="right", delay=0.5) as double:
        assert double.settings.delay == 0.5
        for key in ("", "wrong"):
            status, told, headers = ask(double, "GET", "/indexes", **{"api-key": key})
            assert (status, told, headers["content-type"]) == (401, "Unauthorized", "text/plain")
        assert ask(double, "GET", "/indexes", **{"api-key": "right"})[0] == 200
        assert ask(double, "GET", "/indexes", **{"api-key": "right", "x-pinecone-api-version": "2025-04"})[0] == 501
        connection = HTTPConnection(urlsplit(double.url).netloc)
        connection.request("GET", "/indexes", headers={"api-key": "right"})
        assert connection.getresponse().status == 400
        connection.close()
        with Pinecone(api_key="wrong", host=double.url) as client, pytest.raises(pinecone.UnauthorizedError):
            client.indexes.list().to_list()


def test_doubles_stand_apart_and_leave_nothing() -> None:
    threads = threading.active_count()
    with PineconeDouble() as one, PineconeDouble() as two:
        assert one.url != two.url
        assert one.url.startswith("http://127.0.0.1:")
        assert ask(one, "POST", "/indexes", _with(a=FTS))[0] == 201
        assert ask(two, "GET", "/indexes")[1] == {"indexes": []}
        url = one.url
    assert threading.active_count() == threads
    with pytest.raises(ConnectionError):
        ask(Control(url), "GET", "/indexes")
    port = urlsplit(url).port
    assert port is not None
    with PineconeDouble(port=port) as again, pytest.raises(OSError), PineconeDouble(port=port):
        pytest.fail(f"two of them on {again.url}")


def test_it_runs_as_a_process_of_its_own() -> None:
    command = [
        sys.executable,
        "-m",
        "vectorkit_pinecone.double",
        "--port",
        "0",
        "--delay",
        "0.25",
        "--api-key-env",
        "DOUBLE_KEY",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "DOUBLE_KEY": "k"}
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found is not None
        control = Control(found[0])
        assert control.delay == 0.25
        assert ask(control, "GET", "/indexes")[0] == 200
        assert ask(control, "GET", "/indexes", **{"api-key": "x"})[0] == 401
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


# --------------------------------------------------------------------------------------------- any bytes


BODIES = [
    b"", b"{", b"null", b"[]", b"1", b'"x"', b"\xff\xfe", b'{"a":NaN}', b'{"v":[Infinity]}', b'{"documents":[{}]}',
    b"[" * 5000, b'{"filter":' * 1000 + b"1" + b"}" * 1000, b'{"documents":[{"_id":"a","v":[1e400,1]}]}',
    b'{"documents":[{"_id":"a","v":[99999999999999999999999999,1]}]}', b'{"documents":[{"_id":"a","v":[1,1],"n":1e400}]}',
    b'{"documents":[{"_id":"\\ud800","v":[1,1]}]}', b'{"ids":{"a":1}}', b'{"ids":[[]]}', b'{"filter":[1]}',
    b'{"filter":{"$and":[{"$or":[{"n":{"$in":[{}]}}]}]}}', b'{"score_by":[null],"top_k":1}', b'{"score_by":[{"type":[]}],"top_k":1}',
    b'{"vectors":[null]}', b'{"topK":1,"vector":{}}', b'{"topK":1,"id":[]}', b'{"namespace":1,"ids":["a"]}', b'{"name":{}}',
    b'{"name":"x","schema":{"fields":{"a":{"type":"dense_vector","dimension":2,"metric":[]}}}}',
    b'{"name":"x","schema":{"fields":{"a":{"type":"string","full_text_search":{"language":[]}}}}}',
    b'{"name":"x","schema":{"fields":{"a":[]}},"deployment":[]}', b'{"tags":[],"deletion_protection":[]}',
    b'{"schema":{"fields":{"a":{"type":"string","full_text_search":{}}}},"deployment":{"deployment_type":"managed","cloud":[],"region":"x"}}',
    b'{"filter":{"n":1},"set_fields":[],"remove_fields":{}}', b'{"documents":[{"_id":"a","_remove_fields":[1]}]}',
    b'{"filter":{"n":1},"pagination_token":"\xc3\xa9"}', b'{"prefix":{}}', b'{"limit":1.5}', b'{"include_fields":[1],"ids":["a"]}',
]  # fmt: skip
PATHS = [
    ("POST", "/indexes"),
    ("PATCH", "/indexes/docs"),
    *(
        ("POST", f"/_index/docs/namespaces/n/documents/{verb}")
        for verb in ("upsert", "search", "fetch", "list", "update", "delete")
    ),
    *(("POST", f"/_index/classic/{path}") for path in ("vectors/upsert", "query", "vectors/fetch_by_metadata")),
    *(
        ("POST", f"/_index/classic/{path}")
        for path in ("vectors/update", "vectors/delete", "describe_index_stats", "namespaces")
    ),
    ("POST", "/_double/faults"),
    ("PUT", "/_double/settings"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_no_bytes_break_it(records: PineconeDouble, method: str, path: str) -> None:
    for body in BODIES:
        status = ask(records, method, path, body)[0]
        assert status < 500 or status == 501, body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"), ("GET", "//"), ("PUT", "/indexes"), ("GET", "/nothing"), ("GET", "/_index/"), ("GET", "/_index/docs"),
        ("POST", "/_index/docs/namespaces/n/documents/burn"), ("GET", "/_index/docs/namespaces/n/documents/fetch"),
        ("POST", "/_index/gone/namespaces/n/documents/list"), ("GET", "/_index/%ff%00/vectors/list"), ("GET", "/_double/x"),
        ("DELETE", "/indexes/gone"), ("GET", "/indexes/%2e%2e"), ("GET", "/indexes/a/b/c"), ("POST", "/_index/docs/query/more"),
    ],
)  # fmt: skip
def test_a_path_that_is_not_there(stored: PineconeDouble, method: str, path: str) -> None:
    assert ask(stored, method, path, {} if method == "POST" else None)[0] in ({404, 501} if "a/b/c" in path else {404})
    assert ask(stored, "POST", "/_index/docs/namespaces//documents/list", {})[0] == 400


# --------------------------------------------------------------------------------------------- its place


HERE = Path(package.__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "pinecone-double.md"


def test_it_shares_nothing_with_what_is_tested_against_it() -> None:
    allowed = {"numpy", "orjson", "uvicorn", "pytest", *sys.stdlib_module_names}
    for file in HERE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                inside = name == "vectorkit_pinecone.double" or name.startswith("vectorkit_pinecone.double.")
                assert inside or name.split(".")[0] in allowed, (file.name, name)
                assert "pytest" not in name or file.name == "fixtures.py"


def test_every_setting_and_every_code_block_of_its_page_holds() -> None:
    page = DOCS.read_text()
    for name in Settings.__dataclass_fields__:
        assert f"`{name}`" in page, name
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        compile(block, "pinecone-double.md", "exec")
    shown: dict[str, Any] = {}
    exec(blocks[0], shown)
    assert ids(shown["found"]) == ["a"]
    assert shown["traffic"]["POST /namespaces/{namespace}/documents/search"]["requests"] == 3
