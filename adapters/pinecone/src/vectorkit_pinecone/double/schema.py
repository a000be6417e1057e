"""An index's schema: which fields are searched and how. All else in a document is metadata."""

from dataclasses import dataclass
from typing import Any

from vectorkit_pinecone.double.errors import Refused, bad, unknown
from vectorkit_pinecone.double.settings import DIMENSIONS

METRICS = ("cosine", "dotproduct", "euclidean")
DENSE, SPARSE = "_values", "_sparse_values"
"""The fields of an index that the vectors API serves."""
_NOT_DECLARED = ("boolean", "float", "number", "integer", "string_list")
_CODES = ["ar", "da", "de", "el", "en", "es", "fi", "fr", "hu", "it", "nl", "no", "pt", "ro", "ru", "sv", "ta", "tr"]
_LANGUAGES = {
    *_CODES,
    *(
        "arabic",
        "danish",
        "german",
        "greek",
        "english",
        "spanish",
        "finnish",
        "french",
        "hungarian",
        "italian",
        "dutch",
    ),
    *("norwegian", "portuguese", "romanian", "russian", "swedish", "tamil", "turkish"),
}


@dataclass(frozen=True)
class Field:
    """One declared field. `kind` is dense, sparse or text."""

    kind: str
    told: dict[str, Any]
    dimension: int = 0
    metric: str = ""
    plain: bool = True
    """Whether the analyzer of a text field is one that the double has."""


@dataclass(frozen=True)
class Schema:
    """The declared fields by name."""

    fields: dict[str, Field]
    classic: bool

    def of(self, kind: str) -> list[str]:
        """The names of one kind."""
        return [name for name, field in self.fields.items() if field.kind == kind]

    def told(self) -> dict[str, Any]:
        """As a describe reply has it."""
        return {"fields": {name: field.told for name, field in self.fields.items()}}


def read(raw: Any) -> Schema:
    """The schema of a create request."""
    if not isinstance(raw, dict) or not isinstance(raw.get("fields"), dict):
        raise Refused(422, "Failed to deserialize the JSON body into the target type: missing field `fields`")
    if not raw["fields"]:
        raise bad("A schema declares at least one field that is used for search.")
    classic = set(raw["fields"]) <= {DENSE, SPARSE}
    if not classic:
        for name in raw["fields"]:
            field_name(name)
    schema = Schema({name: _field(name, given) for name, given in raw["fields"].items()}, classic)
    for kind, most in (("dense", 1), ("sparse", 1), ("text", 100)):
        if len(schema.of(kind)) > most:
            raise bad(f"A schema declares at most {most} {kind} field(s).")
    if classic and (schema.of("dense") not in ([], [DENSE]) or schema.of("sparse") not in ([], [SPARSE])):
        raise bad(f"{DENSE} is a dense_vector and {SPARSE} a sparse_vector.")
    if classic and len(schema.fields) > 1:
        raise unknown(f"an index with both {DENSE} and {SPARSE}")
    return schema


def field_name(name: str) -> None:
    """Refuse what may not name a field of a document."""
    if not name or name[0] in "_$":
        raise bad(f"Field name {name!r} is invalid: names are not empty and do not start with '_' or '$'.")
    if len(name.encode("utf-8", "surrogatepass")) > 64:
        raise bad(f"Field name {name!r} is invalid: names have at most 64 bytes.")


def _field(name: str, raw: Any) -> Field:
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
        raise Refused(422, "Failed to deserialize the JSON body into the target type: missing field `type`")
    kind = raw["type"]
    described = {"description": raw["description"]} if isinstance(raw.get("description"), str) else {}
    if kind == "dense_vector":
        _only(name, raw, {"type", "description", "dimension", "metric"})
        dimension, metric = raw.get("dimension"), raw.get("metric", "cosine")
        if isinstance(dimension, bool) or not isinstance(dimension, int):
            raise Refused(422, "Failed to deserialize the JSON body into the target type: missing field `dimension`")
        if not 1 <= dimension <= DIMENSIONS:
            raise bad(f"The dimension of {name!r} is not in 1 to {DIMENSIONS}.")
        if not isinstance(metric, str) or metric not in METRICS:
            raise bad(f"The metric of {name!r} is not one of {', '.join(METRICS)}.")
        told = {"type": kind, "dimension": dimension, "metric": metric, **described}
        return Field("dense", told, dimension=dimension, metric=metric)
    if kind == "sparse_vector":
        _only(name, raw, {"type", "description"})
        return Field("sparse", {"type": kind, **described}, metric="dotproduct")
    if "embed" in raw or "sparse_embed" in raw or kind == "semantic_text":
        raise unknown("fields that Pinecone embeds")
    if kind == "string" and isinstance(raw.get("full_text_search"), dict):
        _only(name, raw, {"type", "description", "full_text_search"})
        return _text(name, raw["full_text_search"], described)
    if kind == "string" and "filterable" not in raw:
        raise Refused(422, "Failed to deserialize the JSON body into the target type: missing field `full_text_search`")
    if kind == "string" or kind in _NOT_DECLARED:
        raise bad(
            "The schema only accepts fields used for search (field types `dense_vector`, `sparse_vector`, and `string` "
            f"with `full_text_search` configuration). To use field '{name}' for filtering, omit it from the schema and "
            "include it in documents. It will be indexed automatically."
        )
    raise Refused(422, f"Failed to deserialize the JSON body into the target type: unknown variant `{kind}`")


def _text(name: str, raw: dict[str, Any], described: dict[str, Any]) -> Field:
    _only(name, raw, {"language", "stemming", "stop_words", "ngram"})
    language = raw.get("language", "en")
    if not isinstance(language, str) or language not in _LANGUAGES:
        raise bad(f"The language of {name!r} is not supported.")
    told: dict[str, Any] = {"language": language}
    for key in ("stemming", "stop_words"):
        told[key] = raw.get(key, False)
        if not isinstance(told[key], bool):
            raise Refused(422, f"Failed to deserialize the JSON body into the target type: {key} is a boolean")
    if "ngram" in raw:
        if told["stemming"] or told["stop_words"]:
            raise bad(f"Field {name!r} cannot combine ngram with stemming or stop_words.")
        told["ngram"] = raw["ngram"]
    plain = not (told["stemming"] or told["stop_words"] or "ngram" in raw)
    return Field("text", {"type": "string", "full_text_search": told, **described}, plain=plain)


def _only(name: str, raw: dict[str, Any], known: set[str]) -> None:
    """An option that the double would drop in silence is one that a test cannot rely on."""
    if more := sorted(set(raw) - known):
        raise unknown(f"{', '.join(more)} of field {name!r}")
