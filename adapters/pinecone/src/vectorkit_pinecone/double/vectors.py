"""The vectors API, and what both kinds of index share: namespaces and statistics."""

from collections.abc import Callable
from typing import Any

import numpy as np

from vectorkit_pinecone.double import documents, values
from vectorkit_pinecone.double.call import DEFAULT, Call, after, printed, scored, token
from vectorkit_pinecone.double.errors import bad, unknown
from vectorkit_pinecone.double.filters import Reader
from vectorkit_pinecone.double.namespaces import page_limit, stats
from vectorkit_pinecone.double.rows import Patch, Predicate, Row, View
from vectorkit_pinecone.double.schema import DENSE, SPARSE
from vectorkit_pinecone.double.settings import FETCH_PAGE, ROWS, TOP_K

_USAGE = {"readUnits": 1}
_Verb = Callable[[Call], dict[str, Any]]


def upsert(call: Call) -> dict[str, Any]:
    """Write records whole."""
    body = call.take("vectors", "namespace")
    given = body.get("vectors")
    if not isinstance(given, list) or not given or not all(isinstance(each, dict) for each in given):
        raise bad("vectors must be an array of objects that is not empty.")
    if len(given) > ROWS:
        raise bad(f"The request has {len(given)} vectors, more than the maximum of {ROWS}.")
    rows = [_row(call, each) for each in given]

    def write(view: View) -> None:
        for row in rows:
            view.put(row)

    call.write(_namespace(body.get("namespace")), write, make=True)
    return {"upsertedCount": len(rows)}


def query(call: Call) -> dict[str, Any]:
    """The nearest records to a vector, or to that of a record."""
    body = call.take("topK", "vector", "id", "sparseVector", "namespace", "filter", "includeValues", "includeMetadata")
    if "topK" not in body:
        raise bad("topK is required.")
    top_k = values.number(body["topK"], "topK", 1, TOP_K, 0)
    with_values, with_metadata = (_flag(body, name) for name in ("includeValues", "includeMetadata"))
    keep = _reader(call).read(body["filter"]) if body.get("filter") else None
    if "sparseVector" in body or call.index.schema.of("sparse"):
        raise unknown("sparse scores")
    if ("id" in body) is ("vector" in body):
        raise bad("Exactly one of id and vector must be given.")
    field = call.index.schema.fields[DENSE]
    view = call.searched(_namespace(body.get("namespace")))
    matches: list[dict[str, Any]] = []
    vector = None
    if "vector" in body:
        vector = values.dense(body["vector"], field.dimension, "vector")
    elif (row := view.rows.get(values.identifier(body["id"], "id"))) is not None:
        vector = row.dense[DENSE]
    if vector is not None:
        for row, score in view.matrix(DENSE, field.dimension).best(vector, field.metric, top_k, keep):
            told = {"id": row.id, "score": scored(score, call.settings)}
            matches.append(told | _record(row, with_values=with_values, with_metadata=with_metadata))
    if call.settings.unsorted_matches:
        matches.reverse()
    return {"matches": matches, "namespace": body.get("namespace", ""), "usage": _USAGE}


def fetch(call: Call) -> dict[str, Any]:
    """Records by id."""
    name = call.parameter("namespace")
    view = call.fetched(_namespace(name))
    ids = values.identifiers(call.query.get("ids"), "ids", ROWS)
    found = {key: {"id": key, **_record(view.rows[key])} for key in ids if key in view.rows}
    return {"vectors": found, "namespace": name or "", "usage": _USAGE}


def fetch_by_metadata(call: Call) -> dict[str, Any]:
    """Page by page the records that a filter keeps, in the order of their ids."""
    body = call.take("namespace", "filter", "limit", "paginationToken")
    limit = values.number(body.get("limit"), "limit", 1, FETCH_PAGE, 100)
    if not body.get("filter"):
        raise bad("Empty filter provided for fetch by metadata request")
    view = call.fetched(_namespace(body.get("namespace")))
    start = after(body.get("paginationToken"))
    ids = sorted(row.id for row in view.matching(_reader(call).read(body["filter"])) if row.id > start)
    told: dict[str, Any] = {"vectors": {key: {"id": key, **_record(view.rows[key])} for key in ids[:limit]}}
    if len(ids) > limit:
        told["pagination"] = {"next": token(ids[limit - 1])}
    return told | {"namespace": body.get("namespace", ""), "usage": _USAGE}


def listed(call: Call) -> dict[str, Any]:
    """Ids in byte order."""
    name = call.parameter("namespace")
    view = call.fetched(_namespace(name))
    limit = page_limit(call)
    page, told = documents.listing(view, call.parameter("prefix") or "", limit, call.parameter("paginationToken"))
    return {"vectors": [{"id": key} for key in page], "namespace": name or "", "usage": _USAGE, **told}


def update(call: Call) -> dict[str, Any]:
    """Change one record, or the metadata of all that a filter keeps."""
    body = call.take("id", "values", "sparseValues", "setMetadata", "namespace", "filter", "dryRun")
    namespace = _namespace(body.get("namespace"))
    dry_run = _flag(body, "dryRun")
    patch = _patch(call, body.get("values"), body.get("sparseValues"), body.get("setMetadata", {}))
    if ("id" in body) is ("filter" in body):
        raise bad("Exactly one of id or filter must be provided.")
    if "id" in body:
        if dry_run:
            raise unknown("dryRun of an update by id")
        key = values.identifier(body["id"], "id")

        def write_one(view: View) -> None:
            if key in view.rows:
                view.put(patch.apply(view.rows[key]))

        call.write(namespace, write_one)
        return {}
    if patch.dense or patch.sparse:
        raise bad("Update by metadata request does not support updating vector values.")
    keep = _filter(call, body["filter"], "Update")

    def write(view: View) -> None:
        for row in view.matching(keep):
            view.put(patch.apply(row))

    matched = len(call.fetched(namespace).matching(keep))
    if not dry_run:
        call.write(namespace, write)
    return {"matchedRecords": matched}


def delete(call: Call) -> dict[str, Any]:
    """Delete records by id, by filter, or all; with a filter the ids count for nothing."""
    body = call.take("ids", "deleteAll", "namespace", "filter")
    namespace = _namespace(body.get("namespace"))
    if _flag(body, "deleteAll"):
        if "ids" in body or "filter" in body:
            raise bad("No explicit IDs and no filter allowed when deleteAll=true")
        call.write(namespace, View.clear)
        return {}
    if "filter" in body:
        keep = _filter(call, body["filter"], "Delete")
        call.write(namespace, lambda view: documents.removed(view, [row.id for row in view.matching(keep)]))
        return {}
    ids = values.identifiers(body.get("ids"), "ids", ROWS)
    call.write(namespace, lambda view: documents.removed(view, ids))
    return {}


ENDPOINTS: dict[tuple[str, str], _Verb] = {
    ("POST", "vectors/upsert"): upsert,
    ("POST", "query"): query,
    ("GET", "vectors/fetch"): fetch,
    ("POST", "vectors/fetch_by_metadata"): fetch_by_metadata,
    ("GET", "vectors/list"): listed,
    ("POST", "vectors/update"): update,
    ("POST", "vectors/delete"): delete,
    ("POST", "describe_index_stats"): stats,
}


def answer(call: Call, method: str, path: str) -> dict[str, Any]:
    """One operation of the vectors API; statistics are for both kinds of index."""
    verb = ENDPOINTS[method, path]
    if verb is not stats and not call.index.schema.classic:
        raise bad("This index has a document schema: use the documents API instead of the vectors API.")
    return verb(call)


def of_documents(call: Call, namespace: str, verb: str) -> tuple[int, dict[str, Any]]:
    """One operation of the documents API, with its status."""
    if call.index.schema.classic:
        raise bad("This index is served by the vectors API: use /vectors/* and /query instead of the documents API.")
    run, status = documents.ENDPOINTS[verb]
    return status, run(call, values.identifier(namespace, "The namespace"))


def _namespace(raw: Any) -> str:
    return DEFAULT if raw in (None, "") else values.identifier(raw, "namespace")


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise bad(f"{name} is a boolean.")
    return value


def _reader(call: Call) -> Reader:
    return Reader(call.index.schema, call.settings)


def _filter(call: Call, raw: Any, what: str) -> Predicate:
    if not raw:
        raise bad(f"{what} with empty metadata filter is not allowed")
    return _reader(call).read(raw)


def _record(row: Row, *, with_values: bool = True, with_metadata: bool = True) -> dict[str, Any]:
    told: dict[str, Any] = {"values": []}
    if with_values:
        told["values"] = printed(row.dense.get(DENSE, np.zeros(0, np.float32)))
        for held in row.sparse.values():
            told["sparseValues"] = printed(held)
    return told | ({"metadata": row.fields} if with_metadata and row.fields else {})


def _row(call: Call, raw: dict[str, Any]) -> Row:
    if more := sorted(set(raw) - {"id", "values", "sparseValues", "metadata"}):
        raise bad(f"Unknown field(s) {', '.join(more)} of a vector.")
    key = values.identifier(raw.get("id"), "The id of a vector")
    patch = _patch(call, raw.get("values") or None, raw.get("sparseValues"), raw.get("metadata") or {})
    if lacking := sorted(set(call.index.schema.fields) - set(patch.dense) - set(patch.sparse)):
        raise bad(f"Vector {key!r} lacks {', '.join(lacking).replace('_', ' ').strip()}.")
    return Row(key, patch.fields, patch.dense, patch.sparse)


def _patch(call: Call, dense: Any, sparse: Any, metadata: Any) -> Patch:
    declared = call.index.schema.fields
    if dense is not None and DENSE not in declared:
        raise bad("An index of sparse vectors takes no values.")
    if not isinstance(metadata, dict):
        raise bad("metadata must be an object.")
    for key in metadata:
        if key.startswith("$"):
            raise bad(f"Metadata key {key!r} is invalid: keys do not start with '$'.")
    fields = {key: values.metadata(value, f"Metadata value of {key!r}") for key, value in metadata.items()}
    values.small(fields, "a vector")
    return Patch(
        fields,
        {} if dense is None else {DENSE: values.dense(dense, declared[DENSE].dimension, "values")},
        {} if sparse is None else {SPARSE: values.sparse(sparse, "sparseValues")},
    )
