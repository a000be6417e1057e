"""What both kinds of index share: namespaces, and the counts of an index."""

from collections.abc import Callable
from typing import Any

from vectorkit_pinecone.double import values
from vectorkit_pinecone.double.call import DEFAULT, Call, after, token
from vectorkit_pinecone.double.errors import Refused, bad, unknown
from vectorkit_pinecone.double.settings import LIST_PAGE


def stats(call: Call) -> dict[str, Any]:
    """Counts of every namespace."""
    if call.take("filter").get("filter"):
        raise bad("Serverless indexes do not support describing index stats with metadata filtering.")
    counts = {name: len(held.fetched().rows) for name, held in call.index.namespaces.items()}
    told: dict[str, Any] = {
        "namespaces": {name: {"vectorCount": count} for name, count in counts.items()},
        "indexFullness": 0,
        "totalVectorCount": sum(counts.values()),
    }
    for name in call.index.schema.of("dense"):
        field = call.index.schema.fields[name]
        told |= {"dimension": field.dimension, "metric": field.metric, "vectorType": "dense"}
    return told


def listed(call: Call) -> dict[str, Any]:
    """A page of namespaces, in byte order."""
    prefix, start = call.parameter("prefix") or "", after(call.parameter("paginationToken"))
    names = sorted(name for name in call.index.namespaces if name.startswith(prefix))
    limit = page_limit(call)
    page = [name for name in names if name > start]
    told: dict[str, Any] = {"namespaces": [_described(call, name) for name in page[:limit]], "total_count": len(names)}
    return told | ({"pagination": {"next": token(page[limit - 1])}} if len(page) > limit else {})


def create(call: Call) -> dict[str, Any]:
    """Make an empty namespace."""
    body = call.take("name", "schema")
    if "schema" in body:
        raise unknown("the schema of a namespace")
    name = values.identifier(body.get("name"), "name")
    if name == DEFAULT:
        raise bad(f"{DEFAULT} is reserved and cannot be created.")
    if name in call.index.namespaces:
        raise Refused(409, f"Namespace {name} already exists.")
    call.namespace(name, make=True)
    return _described(call, name)


def describe(call: Call, name: str) -> dict[str, Any]:
    """How many rows a namespace has."""
    if name not in call.index.namespaces and not (call.index.schema.classic and name == DEFAULT):
        raise Refused(404, "Namespace not found")
    return _described(call, name)


def delete(call: Call, name: str) -> dict[str, Any]:
    """Delete a namespace with all its rows, at once."""
    if call.index.namespaces.pop(name, None) is None:
        raise Refused(404, "Namespace not found")
    return {}


ENDPOINTS: dict[tuple[str, int], Callable[..., dict[str, Any]]] = {
    ("GET", 0): listed,
    ("POST", 0): create,
    ("GET", 1): describe,
    ("DELETE", 1): delete,
}


def page_limit(call: Call) -> int:
    """How many a listing answers at most."""
    raw = call.parameter("limit")
    if raw is not None and not raw.isdecimal():
        raise bad(f"limit must be an integer between 1 and {LIST_PAGE}.")
    return values.number(None if raw is None else int(raw[:9]), "limit", 1, LIST_PAGE, LIST_PAGE)


def _described(call: Call, name: str) -> dict[str, Any]:
    held = call.index.namespaces.get(name)
    return {"name": name, "record_count": str(len(held.fetched().rows) if held else 0)}
