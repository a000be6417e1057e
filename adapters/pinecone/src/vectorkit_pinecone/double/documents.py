"""The documents API: upsert, search, fetch, list, update and delete in one namespace of an index with a document schema."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any

import orjson

from vectorkit_pinecone.double import values
from vectorkit_pinecone.double.call import Call, after, printed, scored, token
from vectorkit_pinecone.double.errors import bad, unknown
from vectorkit_pinecone.double.filters import Reader
from vectorkit_pinecone.double.rows import Patch, Predicate, Row, View
from vectorkit_pinecone.double.schema import Schema, field_name
from vectorkit_pinecone.double.search import ranked
from vectorkit_pinecone.double.settings import FETCH_PAGE, LIST_PAGE, ROWS, TOP_K

_USAGE = {"read_units": 1}
_ENVELOPE = 2_048
"""Bytes of a reply that are not documents: the names of the namespace and of the next page."""


def upsert(call: Call, namespace: str) -> dict[str, Any]:
    """Write documents whole: all of them or none."""
    rows = [
        _row(call.index.schema, each, f"Document at position {at}")
        for at, each in enumerate(_documents(call.take("documents").get("documents")))
    ]
    _unique([row.id for row in rows])

    def write(view: View) -> None:
        for row in rows:
            view.put(row)

    call.write(namespace, write, make=True)
    return {"upserted_count": len(rows)}


def search(call: Call, namespace: str) -> dict[str, Any]:
    """The best documents by one scoring type, of those that a filter keeps."""
    body = call.take("score_by", "top_k", "include_fields", "filter")
    if "top_k" not in body:
        raise bad("top_k is required.")
    top_k = values.number(body["top_k"], "top_k", 1, TOP_K, 0)
    schema = call.index.schema
    shown = _include(body.get("include_fields"))
    keep = _reader(call, in_search=True).read(body["filter"]) if body.get("filter") else None
    rank = ranked(schema, body.get("score_by"))
    view = call.searched(namespace)
    found = [] if _gap(call) else rank(view, top_k, keep)
    matches = [{**_document(row, shown or frozenset()), "_score": scored(score, call.settings)} for row, score in found]
    return {"matches": matches, "namespace": namespace, "usage": _USAGE}


def fetch(call: Call, namespace: str) -> dict[str, Any]:
    """Documents by id, or page by page those that a filter keeps, in the order of their ids."""
    body = call.take("ids", "filter", "include_fields", "pagination_token", "limit")
    shown = _include(body.get("include_fields"))
    limit = values.number(body.get("limit"), "limit", 1, FETCH_PAGE, 100)
    view = call.fetched(namespace)
    if ("ids" in body) is ("filter" in body):
        raise bad(
            "No 'ids' or 'filter' provided in the document fetch request. Provide at least one document ID in 'ids', or a "
            "metadata filter in 'filter'."
            if "ids" not in body
            else "The 'ids' and 'filter' fields are mutually exclusive in document fetch requests."
        )
    if "ids" in body:
        if "pagination_token" in body:
            raise bad("The 'pagination_token' field is only valid together with 'filter'.")
        ids = values.identifiers(body["ids"], "ids", ROWS)
        found = {key: _document(view.rows[key], shown) for key in ids if key in view.rows}
        return {"documents": found, "namespace": namespace, "usage": _USAGE}
    keep = _filter(call, body["filter"], in_search=True)
    rows = [] if _gap(call) else sorted(view.matching(keep), key=_by_id)
    start = after(body.get("pagination_token"))
    page, told = _page([row for row in rows if row.id > start], limit, call.settings.result_bytes, shown)
    return {"documents": page, "namespace": namespace, "usage": _USAGE, **told}


def listed(call: Call, namespace: str) -> dict[str, Any]:
    """Ids in byte order."""
    body = call.take("prefix", "limit", "pagination_token")
    limit = values.number(body.get("limit"), "limit", 1, LIST_PAGE, LIST_PAGE)
    page, told = listing(call.fetched(namespace), body.get("prefix", ""), limit, body.get("pagination_token"))
    return {"documents": [{"_id": key} for key in page], "namespace": namespace, "usage": _USAGE, **told}


def update(call: Call, namespace: str) -> dict[str, Any]:
    """Patch documents by id, or one patch for all that a filter keeps."""
    body = call.take("documents", "filter", "set_fields", "remove_fields")
    set_fields, remove = body.get("set_fields", {}), body.get("remove_fields", [])
    schema = call.index.schema
    if "documents" in body:
        if "filter" in body or set_fields or remove:
            raise bad("The 'documents' field is mutually exclusive with 'filter', 'set_fields' and 'remove_fields'.")
        patches: dict[str, Patch] = {}
        given = _documents(body["documents"])
        for at, each in enumerate(given):
            what = f"Document at position {at}"
            key = values.identifier(each.get("_id"), f"'_id' of {what}")
            changed = {name: value for name, value in each.items() if name not in {"_id", "_remove_fields"}}
            patches[key] = _patch(schema, changed, each.get("_remove_fields") or [], what)
        _unique([each["_id"] for each in given])
        call.write(namespace, lambda view: _patched(view, patches))
        return {}
    keep = _filter(call, body.get("filter"), in_search=False)
    if not isinstance(set_fields, dict) or not (set_fields or remove):
        raise bad("A document update by 'filter' must change something: 'set_fields' and/or 'remove_fields'.")
    if schema.of("dense") and set(schema.of("dense")) & set(set_fields):
        raise unknown("vectors in set_fields")
    patch = _patch(schema, set_fields, remove, "set_fields")
    matched = _count(call, namespace, keep)
    call.write(namespace, lambda view: _patched(view, {row.id: patch for row in view.matching(keep)}))
    return {"matched_records": matched}


def delete(call: Call, namespace: str) -> dict[str, Any]:
    """Delete documents by id, by filter, or all."""
    body = call.take("ids", "filter", "delete_all")
    delete_all = body.pop("delete_all", False)
    if not isinstance(delete_all, bool):
        raise bad("delete_all is a boolean.")
    if len(body) + delete_all != 1:
        raise bad("Exactly one of 'ids', 'filter', or 'delete_all' must be provided in the document delete request.")
    if delete_all:
        call.write(namespace, View.clear)
        return {}
    if "ids" in body:
        ids = values.identifiers(body["ids"], "ids", ROWS)
        call.write(namespace, lambda view: removed(view, ids))
        return {}
    keep = _filter(call, body["filter"], in_search=False)
    matched = _count(call, namespace, keep)
    call.write(namespace, lambda view: removed(view, [row.id for row in view.matching(keep)]))
    return {"matched_records": matched}


ENDPOINTS: dict[str, tuple[Callable[[Call, str], dict[str, Any]], int]] = {
    "upsert": (upsert, 202),
    "search": (search, 200),
    "fetch": (fetch, 200),
    "list": (listed, 200),
    "update": (update, 202),
    "delete": (delete, 202),
}
"""Each with the status of its success."""


def listing(view: View, prefix: Any, limit: int, page_token: Any) -> tuple[list[str], dict[str, Any]]:
    """A page of ids, and what to say of the next."""
    if not isinstance(prefix, str) or (prefix and not prefix.isascii()) or "\0" in prefix or len(prefix) > 512:
        raise bad("prefix must be a string of at most 512 ASCII characters, without NUL.")
    ids = view.ids()
    at = max(bisect_left(ids, prefix), bisect_right(ids, after(page_token)))
    page = [key for key in ids[at : at + limit + 1] if key.startswith(prefix)]
    more = len(page) > limit
    return page[:limit], {"pagination": {"next": token(page[limit - 1])}} if more else {}


def removed(view: View, ids: list[str]) -> None:
    """Forget rows by id."""
    for key in ids:
        view.remove(key)


def _patched(view: View, patches: dict[str, Patch]) -> None:
    for key, patch in patches.items():
        if key in view.rows:
            view.put(patch.apply(view.rows[key]))


def _by_id(row: Row) -> str:
    return row.id


def _documents(raw: Any) -> list[dict[str, Any]]:
    if not isinstance(raw, list) or not raw or not all(isinstance(each, dict) for each in raw):
        raise bad("'documents' must be an array of objects that is not empty.")
    if len(raw) > ROWS:
        raise bad(f"Number of documents ({len(raw)}) exceeds the maximum limit of {ROWS} documents.")
    return raw


def _unique(ids: list[str]) -> None:
    if len(set(ids)) < len(ids):
        raise unknown("two documents of one '_id' in a request, which the client does not send")


def _row(schema: Schema, raw: dict[str, Any], what: str) -> Row:
    key = values.identifier(raw.get("_id"), f"'_id' of {what}")
    patch = _patch(schema, {name: value for name, value in raw.items() if name != "_id"}, [], what)
    if lacking := sorted(set(schema.of("dense")) - set(patch.dense)):
        raise bad(f"{what} ({key!r}) lacks the required field(s) {', '.join(lacking)}.")
    if not patch.dense and not patch.sparse and not set(schema.fields) & set(patch.fields):
        raise bad(f"{what} ({key!r}) must have at least one of the schema's fields {', '.join(schema.fields)}.")
    return Row(key, patch.fields, patch.dense, patch.sparse)


def _patch(schema: Schema, raw: dict[str, Any], remove: Any, what: str) -> Patch:
    fields: dict[str, Any] = {}
    dense: dict[str, Any] = {}
    sparse: dict[str, Any] = {}
    for name, value in raw.items():
        told = f"Field {name!r} of {what}"
        declared = schema.fields.get(name)
        if declared is None:
            field_name(name)
            fields[name] = values.metadata(value, told)
        elif declared.kind == "dense":
            dense[name] = values.dense(value, declared.dimension, told)
        elif declared.kind == "sparse":
            sparse[name] = values.sparse(value, told)
        else:
            fields[name] = values.text(value, told)
    values.small({name: value for name, value in fields.items() if name not in schema.fields}, what)
    if not isinstance(remove, list) or not all(isinstance(name, str) for name in remove):
        raise bad(f"The fields to remove of {what} must be an array of strings.")
    if set(remove) & set(raw):
        raise bad(f"{what} both sets and removes a field.")
    if set(remove) & set(schema.of("dense")):
        raise bad(f"{what} removes a required field.")
    return Patch(fields, dense, sparse, frozenset(remove))


def _include(raw: Any) -> frozenset[str] | None:
    """The fields to show; `None` stands for nothing said."""
    if raw is None or raw == []:
        return None
    if not isinstance(raw, list) or not all(isinstance(name, str) for name in raw):
        raise bad("include_fields must be an array of strings.")
    return frozenset(raw)


def _document(row: Row, shown: frozenset[str] | None) -> dict[str, Any]:
    every = shown is None or "*" in shown
    told: dict[str, Any] = {"_id": row.id}
    for held in row[1:]:
        for name in held if every else held.keys() & (shown or ()):
            told[name] = printed(held[name])
    return told


def _reader(call: Call, *, in_search: bool) -> Reader:
    return Reader(call.index.schema, call.settings, words=in_search)


def _filter(call: Call, raw: Any, *, in_search: bool) -> Predicate:
    if not raw:
        raise bad("The 'filter' field must be a non-empty object of filter predicates.")
    return _reader(call, in_search=in_search).read(raw)


def _count(call: Call, namespace: str, keep: Predicate) -> int:
    return len(call.fetched(namespace).matching(keep))


def _gap(call: Call) -> bool:
    return call.settings.dense_only_gap and not call.index.schema.of("text")


def _page(
    rows: list[Row], limit: int, most: int, shown: frozenset[str] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """As many documents as a page and a reply hold."""
    page: dict[str, Any] = {}
    room = most - _ENVELOPE
    for row in rows[:limit]:
        told = _document(row, shown)
        room -= len(orjson.dumps({row.id: told}, option=orjson.OPT_SERIALIZE_NUMPY))
        if page and room < 0:
            break
        page[row.id] = told
    if len(page) == len(rows):
        return page, {}
    return page, {"pagination": {"next": token(next(reversed(page)))}}
