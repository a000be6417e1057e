"""Ranking documents: what a `score_by` asks for, read into a function of a view."""

from collections.abc import Callable
from typing import Any

from vectorkit_pinecone.double import values
from vectorkit_pinecone.double.errors import bad, unknown
from vectorkit_pinecone.double.rows import Predicate, Row, View
from vectorkit_pinecone.double.schema import Schema
from vectorkit_pinecone.double.settings import QUERY_BYTES, SCORE_BY
from vectorkit_pinecone.double.text import tokens

Rank = Callable[[View, int, Predicate | None], list[tuple[Row, float]]]
_KEYS = {
    "dense_vector": {"values"},
    "sparse_vector": {"sparse_values"},
    "text": {"query"},
    "query_string": {"query"},
    "embed": {"query"},
    "sparse_embed": {"query"},
}


def ranked(schema: Schema, raw: Any) -> Rank:
    """The ranking of a search request."""
    if not isinstance(raw, list) or not 1 <= len(raw) <= SCORE_BY:
        raise bad(f"'score_by' must be an array of 1 to {SCORE_BY} scoring methods.")
    clauses = [_clause(each) for each in raw]
    kinds = {each["type"] for each in clauses}
    if len(clauses) > 1 and not kinds <= {"text", "query_string"}:
        raise bad("'score_by' clauses of type 'text' and 'query_string' may be combined; all others must appear alone.")
    if "query_string" in kinds:
        if any("field" in each or "fields" in each for each in clauses if each["type"] == "query_string"):
            raise bad("'score_by' clauses of type 'query_string' must not specify 'field' or 'fields'.")
        raise unknown("query_string scoring (Lucene's syntax)")
    if kinds == {"text"}:
        return _text(schema, clauses)
    names = _names(clauses[0])
    if len(names) != 1:
        raise bad(f"{clauses[0]['type']} scoring requires specifying the name of exactly one field.")
    if kinds & {"embed", "sparse_embed"}:
        raise unknown("scoring by text that Pinecone embeds")
    declared = schema.fields.get(names[0])
    if (
        declared is None
        or {"dense": "dense_vector", "sparse": "sparse_vector"}.get(declared.kind) != clauses[0]["type"]
    ):
        raise bad(f"Field {names[0]!r} is no {clauses[0]['type']} field of the schema.")
    if declared.kind == "sparse":
        raise unknown("sparse scores")
    query = values.dense(clauses[0].get("values"), declared.dimension, "values")

    def rank(view: View, top_k: int, keep: Predicate | None) -> list[tuple[Row, float]]:
        return view.matrix(names[0], declared.dimension).best(query, declared.metric, top_k, keep)

    return rank


def _clause(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str) or raw["type"] not in _KEYS:
        raise bad(f"Every 'score_by' clause must have a 'type', one of {', '.join(_KEYS)}.")
    if more := sorted(set(raw) - _KEYS[raw["type"]] - {"type", "field", "fields"}):
        raise bad(f"Unknown field(s) {', '.join(more)} in a 'score_by' clause of type {raw['type']!r}.")
    return {key: value for key, value in raw.items() if value is not None}


def _names(clause: dict[str, Any]) -> list[str]:
    if "field" in clause and "fields" in clause:
        raise bad("A 'score_by' clause takes 'field' or 'fields', but not both.")
    names = [clause["field"]] if "field" in clause else clause.get("fields")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise bad(f"{clause['type']} scoring requires specifying at least one field.")
    return names


def _text(schema: Schema, clauses: list[dict[str, Any]]) -> Rank:
    """One BM25 score for each field and query; a repeated pair scores once."""
    pairs: dict[tuple[str, str], tuple[str, ...]] = {}
    for clause in clauses:
        query = clause.get("query")
        if not isinstance(query, str) or not query.strip():
            raise bad("text scoring requires a 'query' that is not empty.")
        if len(query.strip().encode()) > QUERY_BYTES:
            raise bad(f"A query has at most {QUERY_BYTES} bytes.")
        for name in _names(clause):
            declared = schema.fields.get(name)
            if declared is None or declared.kind != "text":
                raise bad(f"Field {name!r} is no full-text field of the schema.")
            if not declared.plain:
                raise unknown("stemming, stop words and n-grams")
            pairs[name, query.strip()] = tokens(query)

    def rank(view: View, top_k: int, keep: Predicate | None) -> list[tuple[Row, float]]:
        scores: dict[str, float] = {}
        for (name, _), asked in pairs.items():
            view.text(name).add_scores(asked, scores)
        found = sorted(((score, key) for key, score in scores.items()), reverse=True)
        kept = ((view.rows[key], score) for score, key in found)
        return [(row, score) for row, score in kept if keep is None or keep(row)][:top_k]

    return rank
