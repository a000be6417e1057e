"""What the engine in this process takes: conditions, specs and searches as objects of qdrant_edge, which `server.py` sends as JSON.

Its binding takes True for 1 and has other names for some things; nothing is asked of a shard here.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import qdrant_edge as qe

from vectorkit.types import HNSW, CollectionSpec, Flat
from vectorkit_qdrant.engine import Search
from vectorkit_qdrant.filters import Condition, as_filter
from vectorkit_qdrant.options import QdrantOptions, codes_of, kilobytes

_DISTANCES = {"cosine": qe.Distance.Cosine, "dot": qe.Distance.Dot, "l2": qe.Distance.Euclid}


def engine_filter(condition: Condition | None) -> Any:
    """A condition as the engine's own filter."""
    if condition is None:
        return None
    whole: dict[str, Any] = {name: [_condition(part) for part in parts] for name, parts in as_filter(condition).items()}
    return qe.Filter(**whole)


def _condition(condition: Condition) -> Any:
    match condition:
        case {"key": key, "match": {"value": value}}:
            return qe.FieldCondition(key, match=qe.MatchValue(value))
        case {"key": key, "match": {"any": values}}:
            return qe.FieldCondition(key, match=qe.MatchAny(values))
        case {"key": key, "match": {"prefix": prefix}}:
            return qe.FieldCondition(key, match=qe.MatchPrefix(prefix))
        case {"key": key, "range": bounds}:
            return qe.FieldCondition(key, range=qe.RangeFloat(**{name: float(bound) for name, bound in bounds.items()}))
        case {"is_empty": {"key": key}}:
            return qe.IsEmptyCondition(key)
        case {"has_id": points}:
            return qe.HasIdCondition(set(points))
        case _:
            return engine_filter(condition)


def included(keys: Sequence[str] | None) -> Any:
    """Which keys of a payload come back, None for all."""
    return True if keys is None else _selector(tuple(keys))


@lru_cache(maxsize=16)
def _selector(keys: tuple[str, ...]) -> Any:
    return qe.PayloadSelector.Include(list(keys))


@lru_cache(maxsize=16)
def _params(ef: int | None, exact: bool, oversampling: float) -> Any:
    rescored = None if exact else qe.QuantizationSearchParams(rescore=True, oversampling=oversampling)
    return qe.SearchParams(hnsw_ef=ef, exact=exact, quantization=rescored)


def engine_config(spec: CollectionSpec, options: QdrantOptions) -> Any:
    """How a shard stores and indexes: a graph with the spec's figures, none for Flat."""
    index = spec.index if isinstance(spec.index, HNSW) else HNSW()
    flat = isinstance(spec.index, Flat)
    graph = qe.HnswIndexConfig(
        m=0 if flat else index.m,
        ef_construct=max(4, index.ef_construction),
        full_scan_threshold=kilobytes(index.full_scan_threshold, spec.dimension),
        max_indexing_threads=0,
        on_disk=options.on_disk_index,
    )
    vectors = qe.EdgeVectorParams(
        size=spec.dimension,
        distance=_DISTANCES[spec.metric],
        on_disk=options.on_disk_vectors,
        quantization_config=_codes(codes_of(spec, options), in_ram=options.quantized_in_ram),
        hnsw_config=graph,
    )
    return qe.EdgeConfig(
        vectors=vectors,
        on_disk_payload=options.on_disk_payload,
        optimizers=qe.EdgeOptimizersConfig(indexing_threshold=1),
    )


def _codes(kind: str | None, *, in_ram: bool) -> Any:
    match kind:
        case "scalar":
            return qe.ScalarQuantizationConfig(qe.ScalarType.Int8, always_ram=in_ram)
        case "product":
            return qe.ProductQuantizationConfig(qe.CompressionRatio.X16, always_ram=in_ram)
        case "binary":
            return qe.BinaryQuantizationConfig(always_ram=in_ram)
        case "turbo":
            return qe.TurboQuantQuantizationConfig(always_ram=in_ram)
    return None


def engine_indexes(spec: CollectionSpec, tenant_field: str | None) -> Iterator[tuple[str, Any]]:
    """Payload indexes of a collection: what they narrow is what the conditions mean without them."""
    whole = qe.IntegerIndexParams(lookup=True, range=True)
    if spec.expiry:
        yield "_vk_expires", whole
    for n, (name, kind) in enumerate(spec.fields.items()):
        key = f"_vk_f{n}"
        if getattr(kind, "__origin__", None) is list:
            yield key, qe.KeywordIndexParams()
        elif kind is str:
            yield key, qe.KeywordIndexParams(prefix=True, is_tenant=True if name == tenant_field else None)
            yield f"{key}p", whole
        else:
            yield key, qe.FloatIndexParams() if kind is float else whole
    if spec.text:
        yield (
            "_vk_words",
            qe.TextIndexParams(tokenizer=qe.TokenizerType.Whitespace, lowercase=False, scoring=True),
        )


def engine_request(search: Search) -> Any:
    """A search as a query; whatever ranks first, scores are those of the full vectors."""
    if search.text is not None:
        query: Any = qe.TextQuery("_vk_words", search.text)
    else:
        assert search.vector is not None
        query = qe.Query.Nearest(search.vector.tolist())  # the binding reads a list in half the time of an array
    return qe.QueryRequest(
        query=query,
        filter=engine_filter(search.where),
        limit=search.limit,
        params=_params(search.ef, search.exact, search.oversampling),
        with_vector=search.vectors,
        with_payload=included(search.keys),
    )
