"""Qdrant's REST requests carried out by Qdrant's own engine (package qdrant-edge-py), which stores, filters and scores.

What a server adds to the engine is made up here: collections by name, aliases, what GET tells, and the wording of errors, which
is that of the server's source as of 1.19.
"""

import json
import queue
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

Json = dict[str, Any]

DISTANCES = {
    "Cosine": qe.Distance.Cosine,
    "Dot": qe.Distance.Dot,
    "Euclid": qe.Distance.Euclid,
    "Manhattan": qe.Distance.Manhattan,
}
GRAPH = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "max_indexing_threads": 0, "on_disk": False}
OPTIMIZERS = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1_000,
    "default_segment_number": 0,
    "max_segment_size": None,
    "memmap_threshold": None,
    "indexing_threshold": 10_000,
    "flush_interval_sec": 5,
    "max_optimization_threads": None,
}
LOG = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}
_FORBIDDEN = re.compile(r"[<>:\"/\\|?*\0\x1f]")


class Refused(Exception):
    """An error with its status of HTTP, and after how many seconds to ask again."""

    def __init__(self, status: int, told: str, retry_after: int | None = None) -> None:
        super().__init__(told)
        self.status = status
        self.retry_after = retry_after


def malformed(told: str) -> Refused:
    """A request that is not of the form the API has."""
    return Refused(400, f"Format error in JSON body: {told}")


def invalid(told: str) -> Refused:
    """A request of the right form with a value out of bounds."""
    return Refused(422, f"Validation error in JSON body: [{told}]")


@contextmanager
def worded() -> Iterator[None]:
    """The engine's bare exceptions, and Python's about values that do not fit, as a server's answers."""
    try:
        yield
    except Refused:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise malformed(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        told = str(error)
        if told.startswith("No point with id"):
            raise Refused(404, f"Not found: {told} found") from error
        if told.startswith("Service runtime error: "):
            raise Refused(500, f"Service internal error: {told.removeprefix('Service runtime error: ')}") from error
        raise Refused(400, f"Wrong input: {told}") from error


# --------------------------------------------------------------------------------------------- conditions


def as_filter(given: Any) -> Any:
    """A filter of the REST API as the engine's."""
    if given is None:
        return None
    if unknown := set(given) - {"must", "should", "must_not", "min_should"}:
        raise malformed(f"unknown field `{min(unknown)}`, expected one of `should`, `min_should`, `must`, `must_not`")
    parts = {name: given[name] for name in ("must", "should", "must_not") if given.get(name) is not None}
    made: Json = {
        name: [as_condition(one) for one in (found if isinstance(found, list) else [found])]
        for name, found in parts.items()
    }
    if (few := given.get("min_should")) is not None:
        made["min_should"] = qe.MinShould([as_condition(one) for one in few["conditions"]], few["min_count"])
    return qe.Filter(**made)


def as_condition(given: Json) -> Any:
    """One condition."""
    if "has_id" in given:
        return qe.HasIdCondition({as_id(one) for one in given["has_id"]})
    if "has_vector" in given:
        return qe.HasVectorCondition(given["has_vector"])
    if "is_empty" in given:
        return qe.IsEmptyCondition(given["is_empty"]["key"])
    if "is_null" in given:
        return qe.IsNullCondition(given["is_null"]["key"])
    if "nested" in given:
        return qe.NestedCondition(given["nested"]["key"], as_filter(given["nested"]["filter"]))
    if "key" not in given:
        if not set(given) & {"must", "should", "must_not", "min_should"}:
            raise malformed("data did not match any variant of untagged enum Condition")
        return as_filter(given)
    tests = {name: test for name, test in given.items() if name != "key" and test is not None}
    if len(tests) != 1 or not set(tests) <= set(_TESTS):
        raise malformed("At least one field condition must be specified, and of those that the shim knows")
    ((name, test),) = tests.items()
    return qe.FieldCondition(given["key"], **{name: _TESTS[name](test)})


def _match(given: Json) -> Any:
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1 or not set(named) <= set(_MATCHES):
        raise malformed("data did not match any variant of untagged enum MatchInterface")
    ((name, value),) = named.items()
    if isinstance(value, bool) or (isinstance(value, list) and any(isinstance(one, bool) for one in value)):
        raise malformed("the engine's binding takes true for the number 1, so the shim matches no booleans")
    return _MATCHES[name](value)


def _range(given: Json) -> Any:
    bounds = {name: bound for name, bound in given.items() if bound is not None}
    if any(isinstance(bound, str) for bound in bounds.values()):
        return qe.RangeDateTime(**bounds)
    return qe.RangeFloat(**{name: float(bound) for name, bound in bounds.items()})


def _place(given: Json) -> Any:
    return qe.GeoPoint(given["lon"], given["lat"])


_MATCHES: dict[str, Callable[[Any], Any]] = {
    "value": qe.MatchValue,
    "any": qe.MatchAny,
    "except": qe.MatchExcept,
    "prefix": qe.MatchPrefix,
    "substring": qe.MatchSubstring,
    "text": qe.MatchText,
    "text_any": qe.MatchTextAny,
    "phrase": qe.MatchPhrase,
}
_TESTS: dict[str, Callable[[Any], Any]] = {
    "match": _match,
    "range": _range,
    "values_count": lambda given: qe.ValuesCount(**given),
    "is_empty": bool,
    "is_null": bool,
    "geo_radius": lambda given: qe.GeoRadius(_place(given["center"]), given["radius"]),
    "geo_bounding_box": lambda given: qe.GeoBoundingBox(_place(given["top_left"]), _place(given["bottom_right"])),
}


# --------------------------------------------------------------------------------------------- points


def as_id(given: Any) -> Any:
    """A point's id: an unsigned integer or a UUID, in any of its spellings."""
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**64:
        return given
    if isinstance(given, str):
        with suppress(ValueError):
            return uuid.UUID(given)
    raise malformed(f"value {given} is not a valid point ID, valid values are either an unsigned integer or a UUID")


def shown_id(found: Any) -> int | str:
    """The id as JSON has it."""
    return found if isinstance(found, int) else str(found)


def as_vector(given: Any) -> Any:
    """A point's vectors: one, or by their names."""
    if isinstance(given, dict) and "indices" not in given:
        return {name: _one_vector(value) for name, value in given.items()}
    return _one_vector(given)


def _one_vector(given: Any) -> Any:
    if isinstance(given, dict):
        if set(given) != {"indices", "values"}:
            raise malformed("the shim makes no vectors of texts or images")
        return qe.SparseVector(given["indices"], given["values"])
    return given


def shown_vector(found: Any) -> Any:
    """Vectors as JSON has them: in float32, which is written shorter than the float64 of the same value."""
    if isinstance(found, dict):
        return {name: shown_vector(value) for name, value in found.items()}
    if isinstance(found, qe.SparseVector):
        return {"indices": list(found.indices), "values": np.asarray(found.values, np.float32)}
    return None if found is None else np.asarray(found, np.float32)


def as_payload(given: Any, otherwise: bool) -> Any:
    """`with_payload`."""
    if given is None:
        return otherwise
    if isinstance(given, dict):
        (name,) = given
        return getattr(qe.PayloadSelector, name.capitalize())(given[name])
    return qe.PayloadSelector.Include(given) if isinstance(given, list) else given


def record(found: Any) -> Json:
    """A point as REST shows it."""
    told: Json = {"id": shown_id(found.id), "payload": found.payload}
    if found.vector is not None:
        told["vector"] = shown_vector(found.vector)
    if found.order_value is not None:
        told["order_value"] = found.order_value
    return told


def scored(found: Any) -> Json:
    """A point that a search found."""
    return {**record(found), "version": found.version, "score": np.float32(found.score)}


# --------------------------------------------------------------------------------------------- searches


def as_params(given: Json | None) -> Any:
    """How to search."""
    if given is None:
        return None
    coarse = given.get("quantization")
    return qe.SearchParams(
        hnsw_ef=given.get("hnsw_ef"),
        exact=bool(given.get("exact")),
        indexed_only=bool(given.get("indexed_only")),
        quantization=None
        if coarse is None
        else qe.QuantizationSearchParams(
            ignore=bool(coarse.get("ignore")), rescore=coarse.get("rescore"), oversampling=coarse.get("oversampling")
        ),
    )


def as_scoring(query: Any, using: str | None) -> Any:
    """What a search ranks by."""
    if not isinstance(query, dict) or "indices" in query:
        query = {"nearest": query}
    named = {name: value for name, value in query.items() if value is not None}
    match named:
        case {"nearest": nearest}:
            return qe.Query.Nearest(_one_vector(nearest), using=using)
        case {"text": text}:
            asked: Json = {"query": text} if isinstance(text, str) else text
            scoring: Json = asked.get("scoring") or {}
            scoring = scoring.get("bm25") or scoring
            weights: dict[str, float] = {name: scoring[name] for name in ("k", "b") if scoring.get(name) is not None}
            if using is None:
                raise Refused(400, "Wrong input: `using` must name the payload field of a text query")
            return qe.TextQuery(using, asked["query"], qe.Bm25Params(**weights) if weights else None)
        case {"fusion": "rrf"}:
            return qe.Fusion.Rrf(k=2)
        case {"fusion": "dbsf"}:
            return qe.Fusion.Dbsf()
        case {"rrf": rrf}:
            return qe.Fusion.Rrf(k=rrf.get("k") or 2, weights=rrf.get("weights"))
        case {"order_by": order}:
            return as_order(order)
    raise malformed(f"no query that the shim knows: {sorted(named)}")


def as_order(given: Any) -> Any:
    """`order_by`."""
    if isinstance(given, str):
        return qe.OrderBy(given)
    directions = {"asc": qe.Direction.Asc, "desc": qe.Direction.Desc}
    return qe.OrderBy(given["key"], directions[given.get("direction") or "asc"], given.get("start_from"))


def _limit(given: Json) -> int:
    limit = given.get("limit")
    if limit is None:
        return 10
    if limit < 1:
        raise invalid(f"limit: value {limit} invalid, must be 1 or larger")
    return int(limit)


def as_prefetch(given: Json) -> Any:
    """A search whose results another one ranks."""
    query = given.get("query")
    return qe.Prefetch(
        limit=_limit(given),
        query=None if query is None else as_scoring(query, given.get("using")),
        prefetches=as_prefetches(given),
        params=as_params(given.get("params")),
        filter=as_filter(given.get("filter")),
        score_threshold=given.get("score_threshold"),
    )


def as_prefetches(given: Json) -> list[Any]:
    """All of them."""
    found = given.get("prefetch") or []
    return [as_prefetch(one) for one in (found if isinstance(found, list) else [found])]


def as_query(given: Json) -> Any:
    """One search."""
    query = given.get("query")
    return qe.QueryRequest(
        limit=_limit(given),
        offset=given.get("offset"),
        query=None if query is None else as_scoring(query, given.get("using")),
        prefetches=as_prefetches(given),
        with_vector=given.get("with_vector") or False,
        with_payload=as_payload(given.get("with_payload"), otherwise=False),
        filter=as_filter(given.get("filter")),
        score_threshold=given.get("score_threshold"),
        params=as_params(given.get("params")),
    )


# --------------------------------------------------------------------------------------------- configurations


def as_memory(given: Json) -> Any:
    """`memory`."""
    return None if given.get("memory") is None else getattr(qe.Memory, given["memory"].capitalize())


def as_index(given: Any) -> Any:
    """A payload index."""
    schema: Json = {"type": given} if isinstance(given, str) else dict(given)
    kind = schema.pop("type")
    params = {name: value for name, value in schema.items() if value is not None}
    if "memory" in params:
        params["memory"] = as_memory(params)
    if "tokenizer" in params:
        params["tokenizer"] = getattr(qe.TokenizerType, params["tokenizer"].capitalize())
    if isinstance(params.get("scoring"), dict):
        params["scoring"] = qe.TextScoringParams()
    if set(params) & {"stopwords", "stemmer"}:
        raise malformed("the shim knows no stop words and no stemmers")
    made = {
        "keyword": qe.KeywordIndexParams,
        "integer": qe.IntegerIndexParams,
        "float": qe.FloatIndexParams,
        "geo": qe.GeoIndexParams,
        "bool": qe.BoolIndexParams,
        "datetime": qe.DatetimeIndexParams,
        "uuid": qe.UuidIndexParams,
        "text": qe.TextIndexParams,
    }
    if kind not in made:
        raise malformed(f"unknown variant `{kind}`, expected one of {', '.join(f'`{name}`' for name in made)}")
    return made[kind](**params)


def as_quantization(given: Json | None) -> Any:
    """`quantization_config`."""
    match given:
        case None:
            return None
        case {"scalar": how}:
            return qe.ScalarQuantizationConfig(
                qe.ScalarType.Int8,
                quantile=how.get("quantile"),
                always_ram=how.get("always_ram"),
                memory=as_memory(how),
            )
        case {"product": how}:
            ratio = getattr(qe.CompressionRatio, how["compression"].upper())
            return qe.ProductQuantizationConfig(ratio, always_ram=how.get("always_ram"), memory=as_memory(how))
        case {"binary": how}:
            words = {"one_bit": "OneBit", "two_bits": "TwoBits", "one_and_half_bits": "OneAndHalfBits"}
            asked = {
                "default": "Default",
                "binary": "Binary",
                "scalar4bits": "Scalar4Bits",
                "scalar8bits": "Scalar8Bits",
            }
            stored, sought = how.get("encoding"), how.get("query_encoding")
            return qe.BinaryQuantizationConfig(
                always_ram=how.get("always_ram"),
                encoding=None if stored is None else getattr(qe.BinaryQuantizationEncoding, words[stored]),
                query_encoding=None if sought is None else getattr(qe.BinaryQuantizationQueryEncoding, asked[sought]),
                memory=as_memory(how),
            )
        case {"turbo": how}:
            bits = {"bits1": "Bits1", "bits1_5": "Bits1_5", "bits2": "Bits2", "bits4": "Bits4", "bits8": "Bits8"}
            size = how.get("bits")
            return qe.TurboQuantQuantizationConfig(
                always_ram=how.get("always_ram"),
                bits=None if size is None else getattr(qe.TurboQuantBitSize, bits[size]),
                memory=as_memory(how),
            )
    raise malformed("data did not match any variant of untagged enum QuantizationConfig")


def as_graph(*given: Json | None) -> Any:
    """`hnsw_config`, the last of those that say something."""
    said = merged(*given)
    return qe.HnswIndexConfig(
        m=said["m"],
        ef_construct=said["ef_construct"],
        full_scan_threshold=said["full_scan_threshold"],
        max_indexing_threads=said["max_indexing_threads"],
        on_disk=said.get("on_disk"),
        payload_m=said.get("payload_m"),
        inline_storage=said.get("inline_storage"),
        memory=as_memory(said),
    )


def as_vectors(given: Json, graph: Json, coarse: Json | None) -> Any:
    """The parameters of one vector."""
    datatypes = {
        "float32": qe.VectorStorageDatatype.Float32,
        "float16": qe.VectorStorageDatatype.Float16,
        "uint8": qe.VectorStorageDatatype.Uint8,
    }
    if not 1 <= given["size"] <= 65_536:
        raise invalid(f"vectors.size: value {given['size']} invalid, must be from 1 to 65536")
    if given["distance"] not in DISTANCES:
        raise malformed(
            f"unknown variant `{given['distance']}`, expected one of `Cosine`, `Euclid`, `Dot`, `Manhattan`"
        )
    return qe.EdgeVectorParams(
        size=given["size"],
        distance=DISTANCES[given["distance"]],
        on_disk=given.get("on_disk"),
        multivector_config=qe.MultiVectorConfig(qe.MultiVectorComparator.MaxSim)
        if given.get("multivector_config")
        else None,
        datatype=datatypes[given["datatype"]] if given.get("datatype") else None,
        quantization_config=as_quantization(given.get("quantization_config") or coarse),
        hnsw_config=as_graph(graph, given.get("hnsw_config")),
        memory=as_memory(given),
    )


def as_sparse(given: Json) -> Any:
    """The parameters of one sparse vector."""
    index = given.get("index") or {}
    return qe.EdgeSparseVectorParams(
        full_scan_threshold=index.get("full_scan_threshold"),
        on_disk=index.get("on_disk"),
        modifier=qe.Modifier.Idf if given.get("modifier") == "idf" else None,
    )


def merged(*given: Json | None) -> Json:
    """Later ones over earlier ones, where they say something."""
    found: Json = {}
    for one in given:
        found |= {name: value for name, value in (one or {}).items() if value is not None}
    return found


def single(vectors: Json) -> bool:
    """Whether there is one vector without a name."""
    return isinstance(vectors.get("size"), int)


# --------------------------------------------------------------------------------------------- a collection


class Collection:
    """A shard and what was asked when it was made. Its lock is held over every call: a shard may be closed to be changed."""

    def __init__(self, folder: Path, told: Json) -> None:
        self.folder = folder
        self.told = told
        self.lock = threading.RLock()
        self.waiting = False  # for the optimizers
        self.operations = 0
        self._shard: Any = None

    @property
    def asked(self) -> Json:
        """The body of the request that made it, changed by later ones."""
        found: Json = self.told["asked"]
        return found

    @property
    def optimizers(self) -> Json:
        """`optimizer_config`."""
        return {**OPTIMIZERS, **merged(self.asked.get("optimizers_config"))}

    def config(self) -> Any:
        """As the engine takes it."""
        graph = merged(GRAPH, self.asked.get("hnsw_config"))
        coarse = self.asked.get("quantization_config")
        vectors: Json = self.asked.get("vectors") or {}
        dense = {"": vectors} if single(vectors) else vectors
        said = self.optimizers
        return qe.EdgeConfig(
            vectors={name: as_vectors(one, graph, coarse) for name, one in dense.items()},
            sparse_vectors={
                name: as_sparse(one or {}) for name, one in (self.asked.get("sparse_vectors") or {}).items()
            },
            on_disk_payload=self.asked.get("on_disk_payload"),
            hnsw_config=as_graph(graph),
            quantization_config=as_quantization(coarse),
            optimizers=qe.EdgeOptimizersConfig(
                deleted_threshold=said["deleted_threshold"],
                vacuum_min_vector_number=said["vacuum_min_vector_number"],
                default_segment_number=said["default_segment_number"] or None,
                max_segment_size=said["max_segment_size"],
                indexing_threshold=said["indexing_threshold"],
            ),
        )

    def make(self) -> None:
        """Create the shard."""
        self._shard = qe.EdgeShard.create(str(self.folder / self.told["stem"]), self.config())

    def open(self) -> None:
        """Load the shard, with what has been changed."""
        self._shard = qe.EdgeShard.load(str(self.folder / self.told["stem"]), self.config())

    def keep(self) -> None:
        """Write down what the engine does not keep."""
        file = self.folder / f"{self.told['stem']}.json"
        other = file.with_suffix(".new")
        other.write_text(json.dumps(self.told), "utf-8")
        other.replace(file)

    def close(self) -> None:
        """Close the shard."""
        with self.lock:
            if self._shard is not None:
                self._shard.flush()
                self._shard.close()
                self._shard = None

    def remove(self) -> None:
        """Close and delete it."""
        with self.lock:
            (self.folder / f"{self.told['stem']}.json").unlink()
            if self._shard is not None:
                self._shard.close()
                self._shard = None
            shutil.rmtree(self.folder / self.told["stem"])

    @contextmanager
    def shard(self) -> Iterator[Any]:
        """The shard, to be used by one at a time: the engine's calls hold the interpreter's lock anyway."""
        with self.lock:
            if self._shard is None:
                raise Refused(404, f"Not found: Collection `{self.told['name']}` doesn't exist!")
            with worded():
                yield self._shard

    def due(self) -> bool:
        """Whether the vectors without an index are so many that a server would index them."""
        threshold = self.optimizers["indexing_threshold"]
        vectors: Json = self.asked.get("vectors") or {}
        width = sum(one["size"] for one in ([vectors] if single(vectors) else vectors.values()))
        with self.shard() as shard:
            info = shard.info()
        return bool(threshold) and (info.points_count - info.indexed_vectors_count) * width * 4 > threshold * 1024

    def optimize(self) -> None:
        """What the server's optimizers do by themselves."""
        with self.lock:
            try:
                if self._shard is not None:
                    self._shard.optimize()
                    self._shard.flush()
            finally:
                self.waiting = False

    def describe(self) -> Json:
        """As GET /collections/name."""
        asked = self.asked
        with self.shard() as shard:
            info = shard.info()
        params = {
            "vectors": asked.get("vectors") or {},
            "shard_number": asked.get("shard_number") or 1,
            "sharding_method": asked.get("sharding_method"),
            "replication_factor": asked.get("replication_factor") or 1,
            "write_consistency_factor": asked.get("write_consistency_factor") or 1,
            "read_fan_out_factor": asked.get("read_fan_out_factor"),
            "on_disk_payload": True if asked.get("on_disk_payload") is None else asked["on_disk_payload"],
            "sparse_vectors": asked.get("sparse_vectors"),
        }
        graph = merged(GRAPH, asked.get("hnsw_config"))
        schema: Json = {}
        for name, found in info.payload_schema.items():
            given = self.told["indexes"].get(name)
            schema[name] = {"data_type": given if isinstance(given, str) else given["type"], "points": found.points}
            if isinstance(given, dict):
                schema[name]["params"] = merged(given)
        config = {
            "params": {name: value for name, value in params.items() if value is not None},
            "hnsw_config": graph,
            "optimizer_config": self.optimizers,
            "wal_config": merged(LOG, asked.get("wal_config")),
            "quantization_config": asked.get("quantization_config"),
            "strict_mode_config": asked.get("strict_mode_config"),
            "metadata": asked.get("metadata"),
        }
        return {
            "status": "yellow" if self.waiting else "green",
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "indexed_vectors_count": info.indexed_vectors_count,
            "segments_count": info.segments_count,
            "config": {
                name: value
                for name, value in config.items()
                if value is not None or name in {"quantization_config", "hnsw_config"}
            },
            "payload_schema": schema,
            "update_queue": {"length": 0},
            "created_at": self.told["created_at"],
        }


# --------------------------------------------------------------------------------------------- all of them

_RELOADING = ("optimizers_config", "hnsw_config", "quantization_config", "vectors")


class Collections:
    """Collections by name, in a directory, and their aliases. Both faces of the shim call the same one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.found: dict[str, Collection] = {}
        self._work: queue.SimpleQueue[Collection] = queue.SimpleQueue()
        folder.mkdir(parents=True, exist_ok=True)
        self._aliases = folder / "aliases"
        self.aliases: dict[str, str] = json.loads(self._aliases.read_text("utf-8")) if self._aliases.exists() else {}
        for file in folder.glob("*.json"):
            collection = Collection(folder, json.loads(file.read_text("utf-8")))
            collection.open()
            self.found[collection.told["name"]] = collection
        threading.Thread(target=self._optimize, name="optimizers", daemon=True).start()

    def _optimize(self) -> None:
        while True:
            self._work.get().optimize()

    def close(self) -> None:
        """Flush and close all."""
        with self.lock:
            for collection in self.found.values():
                collection.close()

    def resolved(self, name: str) -> Collection:
        """A collection by its name or its alias, or a 404."""
        found = self.found.get(self.aliases.get(name, name))
        if found is None:
            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
        return found

    # ------------------------------------------------------------------------------------- collections

    def names(self) -> Json:
        """GET collections."""
        return {"collections": [{"name": name} for name in list(self.found)]}

    def exists(self, name: str) -> Json:
        """GET exists."""
        return {"exists": self.aliases.get(name, name) in self.found}

    def create(self, name: str, asked: Json) -> bool:
        """Make one, or a 409."""
        if not 1 <= len(name) <= 255 or _FORBIDDEN.search(name):
            raise Refused(422, f"Validation error in path parameters: [name: value {name!r} invalid]")
        with self.lock, worded():
            if name in self.found:
                raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
            if name in self.aliases:
                raise Refused(
                    400,
                    f"Wrong input: Can't create collection with name {name}. Alias with the same name already exists",
                )
            told = {
                "name": name,
                "stem": uuid.uuid4().hex,
                "asked": merged(asked),
                "indexes": {},
                "created_at": datetime.now(UTC).isoformat(),
            }
            collection = Collection(self.folder, told)
            collection.make()
            collection.keep()
            self.found[name] = collection
        return True

    def change(self, name: str, asked: Json) -> bool:
        """PATCH: metadata is merged, null removes a key; a changed graph or quantization is built anew by the optimizers."""
        collection = self.resolved(name)
        with collection.lock, worded():
            body = collection.asked
            if (metadata := asked.get("metadata")) is not None:
                after = {**(body.get("metadata") or {}), **metadata}
                body["metadata"] = {key: value for key, value in after.items() if value is not None}
            for part in ("optimizers_config", "hnsw_config", "strict_mode_config"):
                if asked.get(part) is not None:
                    body[part] = merged(body.get(part), asked[part])
            body |= merged(asked.get("params"))
            if (coarse := asked.get("quantization_config")) is not None:
                body["quantization_config"] = None if coarse == "Disabled" else coarse
            for vector, given in (asked.get("vectors") or {}).items():
                vectors = body["vectors"] if vector == "" else body["vectors"][vector]
                graph = merged(vectors.get("hnsw_config"), given.get("hnsw_config"))
                vectors |= merged(given, {"hnsw_config": graph or None})
            collection.keep()
            if any(asked.get(part) is not None for part in _RELOADING):
                with collection.shard() as shard:
                    shard.flush()
                    shard.close()
                    collection.open()
                self._later(collection)
        return True

    def drop(self, name: str) -> bool:
        """Whether it was there; its aliases go with it."""
        with self.lock:
            collection = self.found.pop(name, None)
            if collection is None:
                return False
            self._keep_aliases({alias: target for alias, target in self.aliases.items() if target != name})
        collection.remove()
        return True

    def describe(self, name: str) -> Json:
        """GET a collection."""
        return self.resolved(name).describe()

    def cluster(self, name: str) -> Json:
        """GET a collection's cluster."""
        count = self.resolved(name).describe()["points_count"]
        shard = {"shard_id": 0, "points_count": count, "state": "Active"}
        return {"peer_id": 1, "shard_count": 1, "local_shards": [shard], "remote_shards": [], "shard_transfers": []}

    def _later(self, collection: Collection) -> None:
        """Have it optimized once the request has been answered: the engine then holds the interpreter, and others wait."""
        if not collection.waiting:
            collection.waiting = True
            self._work.put(collection)

    # ------------------------------------------------------------------------------------- aliases

    def alias(self, asked: Json) -> bool:
        """POST collections/aliases: one after the other."""
        with self.lock, worded():
            for action in asked["actions"]:
                after = dict(self.aliases)
                match action:
                    case {"create_alias": {"collection_name": name, "alias_name": alias}}:
                        if name not in self.found:
                            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
                        if alias in self.found:
                            raise Refused(409, f"Wrong input: Collection `{alias}` already exists!")
                        after[alias] = name
                    case {"delete_alias": {"alias_name": alias}}:
                        after.pop(alias, None)
                    case {"rename_alias": {"old_alias_name": old, "new_alias_name": new}}:
                        if old not in after:
                            raise Refused(404, f"Not found: Alias {old} does not exists!")
                        after[new] = after.pop(old)
                    case _:
                        raise malformed("data did not match any variant of untagged enum AliasOperations")
                self._keep_aliases(after)
        return True

    def _keep_aliases(self, after: dict[str, str]) -> None:
        other = self._aliases.with_suffix(".new")
        other.write_text(json.dumps(after), "utf-8")
        other.replace(self._aliases)
        self.aliases = after

    def aliases_of(self, name: str | None) -> Json:
        """GET aliases, of one collection or all."""
        wanted = None if name is None else self.resolved(name).told["name"]
        listed = [(alias, target) for alias, target in self.aliases.items() if wanted in {None, target}]
        return {"aliases": [{"alias_name": alias, "collection_name": target} for alias, target in listed]}

    # ------------------------------------------------------------------------------------- changes

    def _done(self, collection: Collection, *operations: Any, wait: bool) -> Json:
        with collection.shard() as shard:
            for operation in operations:
                shard.update(operation)
        with collection.lock:
            collection.operations += 1
            number = collection.operations
        if not collection.waiting and collection.due():
            self._later(collection)
        return {"operation_id": number, "status": "completed" if wait else "acknowledged"}

    def _aimed(self, asked: Json, by_id: Callable[..., Any], by_filter: Callable[..., Any], *rest: Any) -> Any:
        """An operation on some points, or on those that a filter keeps."""
        if asked.get("points") is not None:
            return by_id([as_id(one) for one in asked["points"]], *rest)
        if asked.get("filter") is not None:
            return by_filter(as_filter(asked["filter"]), *rest)
        if rest:
            raise Refused(400, "Bad request: No filter or points provided")
        raise malformed("data did not match any variant of untagged enum PointsSelector")

    def upsert(self, name: str, asked: Json, *, wait: bool = False) -> Json:
        """PUT points, by rows or by columns."""
        collection = self.resolved(name)
        with worded():
            rows: list[tuple[Any, Any, Any]]
            if asked.get("batch") is not None:
                batch = asked["batch"]
                ids, vectors = batch["ids"], batch["vectors"]
                if isinstance(vectors, dict):
                    vectors = [dict(zip(vectors, one, strict=True)) for one in zip(*vectors.values(), strict=True)]
                payloads = batch.get("payloads") or [None] * len(ids)
                if not len(ids) == len(vectors) == len(payloads):
                    raise Refused(400, "Wrong input: number of ids, vectors and payloads must be equal")
                rows = list(zip(ids, vectors, payloads, strict=True))
            else:
                rows = [(one["id"], one["vector"], one.get("payload")) for one in asked["points"]]
            modes = {"insert_only": qe.UpdateMode.InsertOnly, "update_only": qe.UpdateMode.UpdateOnly}
            operation = qe.UpdateOperation.upsert_points(
                [qe.Point(as_id(number), as_vector(vector), payload) for number, vector, payload in rows],
                condition=as_filter(asked.get("update_filter")),
                update_mode=modes.get(asked.get("update_mode") or "", qe.UpdateMode.Upsert),
            )
        return self._done(collection, operation, wait=wait)

    def delete(self, name: str, asked: Json, *, wait: bool = False) -> Json:
        """POST points/delete."""
        collection, made = self.resolved(name), qe.UpdateOperation
        with worded():
            operation = self._aimed(asked, made.delete_points, made.delete_points_by_filter)
        return self._done(collection, operation, wait=wait)

    def set_payload(self, name: str, asked: Json, *, wait: bool = False) -> Json:
        """POST points/payload."""
        collection, made = self.resolved(name), qe.UpdateOperation
        with worded():
            rest = (asked["payload"], asked.get("key"))
            operation = self._aimed(asked, made.set_payload, made.set_payload_by_filter, *rest)
        return self._done(collection, operation, wait=wait)

    def overwrite_payload(self, name: str, asked: Json, *, wait: bool = False) -> Json:
        """PUT points/payload."""
        collection, made = self.resolved(name), qe.UpdateOperation
        with worded():
            rest = (asked["payload"], asked.get("key"))
            operation = self._aimed(asked, made.overwrite_payload, made.overwrite_payload_by_filter, *rest)
        return self._done(collection, operation, wait=wait)

    def delete_payload(self, name: str, asked: Json, *, wait: bool = False) -> Json:
        """POST points/payload/delete."""
        collection, made = self.resolved(name), qe.UpdateOperation
        with worded():
            operation = self._aimed(asked, made.delete_payload, made.delete_payload_by_filter, asked["keys"])
        return self._done(collection, operation, wait=wait)

    def clear_payload(self, name: str, asked: Json, *, wait: bool = False) -> Json:
        """POST points/payload/clear."""
        collection, made = self.resolved(name), qe.UpdateOperation
        with worded():
            operation = self._aimed(asked, made.clear_payload, made.clear_payload_by_filter)
        return self._done(collection, operation, wait=wait)

    def update_vectors(self, name: str, asked: Json, *, wait: bool = False) -> Json:
        """PUT points/vectors."""
        collection = self.resolved(name)
        with worded():
            vectors = [qe.PointVectors(as_id(one["id"]), as_vector(one["vector"])) for one in asked["points"]]
            operation = qe.UpdateOperation.update_vectors(vectors, condition=as_filter(asked.get("update_filter")))
        return self._done(collection, operation, wait=wait)

    def delete_vectors(self, name: str, asked: Json, *, wait: bool = False) -> Json:
        """POST points/vectors/delete."""
        collection, made = self.resolved(name), qe.UpdateOperation
        with worded():
            operation = self._aimed(asked, made.delete_vectors, made.delete_vectors_by_filter, asked["vector"])
        return self._done(collection, operation, wait=wait)

    def batch(self, name: str, asked: Json, *, wait: bool = False) -> list[Json]:
        """POST points/batch: one after the other, and what was done stays done when a later one fails."""
        verbs: dict[str, Callable[..., Json]] = {
            "upsert": self.upsert,
            "delete": self.delete,
            "set_payload": self.set_payload,
            "overwrite_payload": self.overwrite_payload,
            "delete_payload": self.delete_payload,
            "clear_payload": self.clear_payload,
            "update_vectors": self.update_vectors,
            "delete_vectors": self.delete_vectors,
        }
        self.resolved(name)
        done = []
        for operation in asked["operations"]:
            if len(operation) != 1 or not set(operation) <= set(verbs):
                raise malformed("data did not match any variant of untagged enum UpdateOperation")
            ((verb, change),) = operation.items()
            done.append(verbs[verb](name, change, wait=wait))
        return done

    def create_index(self, name: str, asked: Json, *, wait: bool = False) -> Json:
        """PUT index."""
        collection = self.resolved(name)
        with worded():
            schema = asked.get("field_schema") or asked.get("field_type")
            if schema is None:
                raise malformed("missing field `field_schema`")
            operation = qe.UpdateOperation.create_field_index(asked["field_name"], as_index(schema))
        with collection.lock:
            done = self._done(collection, operation, wait=wait)
            collection.told["indexes"][asked["field_name"]] = schema
            collection.keep()
        return done

    def delete_index(self, name: str, field: str, *, wait: bool = False) -> Json:
        """DELETE index/field."""
        collection = self.resolved(name)
        with collection.lock, worded():
            done = self._done(collection, qe.UpdateOperation.delete_field_index(field), wait=wait)
            collection.told["indexes"].pop(field, None)
            collection.keep()
        return done

    # ------------------------------------------------------------------------------------- questions

    def retrieve(self, name: str, asked: Json) -> list[Json]:
        """POST points."""
        with self.resolved(name).shard() as shard:
            ids = [as_id(one) for one in asked["ids"]]
            found = shard.retrieve(
                ids, as_payload(asked.get("with_payload"), otherwise=True), asked.get("with_vector") or False
            )
            return [record(one) for one in found]

    def one(self, name: str, number: str) -> Json:
        """GET points/id."""
        found = self.retrieve(name, {"ids": [int(number) if number.isdigit() else number], "with_vector": True})
        if not found:
            raise Refused(404, f"Not found: Point with id {number} does not exists!")
        return found[0]

    def scroll(self, name: str, asked: Json) -> Json:
        """POST points/scroll."""
        offset, order = asked.get("offset"), asked.get("order_by")
        with self.resolved(name).shard() as shard:
            found, following = shard.scroll(
                qe.ScrollRequest(
                    offset=None if offset is None else as_id(offset),
                    limit=_limit(asked),
                    filter=as_filter(asked.get("filter")),
                    with_payload=as_payload(asked.get("with_payload"), otherwise=True),
                    with_vector=asked.get("with_vector") or False,
                    order_by=None if order is None else as_order(order),
                )
            )
            return {
                "points": [record(one) for one in found],
                "next_page_offset": None if following is None else shown_id(following),
            }

    def query(self, name: str, asked: Json) -> Json:
        """POST points/query."""
        return self.query_batch(name, {"searches": [asked]})[0]

    def query_batch(self, name: str, asked: Json) -> list[Json]:
        """POST points/query/batch."""
        with self.resolved(name).shard() as shard:
            requests = [as_query(self._with_vector(shard, one)) for one in asked["searches"]]
            answers = shard.query_batch(qe.QueryBatchRequest(requests)) if requests else []
            return [{"points": [scored(one) for one in answer]} for answer in answers]

    def _with_vector(self, shard: Any, asked: Json) -> Json:
        """A search for what is near a point, as one for what is near its vector, but for the point itself."""
        query = asked.get("query")
        point = query.get("nearest") if isinstance(query, dict) else query
        if isinstance(point, bool) or not isinstance(point, int | str):
            return asked
        found = shard.retrieve([as_id(point)], False, True)
        if not found:
            raise Refused(404, f"Not found: No point with id {point} found")
        using = asked.get("using") or ""
        vector = found[0].vector[using] if isinstance(found[0].vector, dict) else found[0].vector
        others = {"must_not": [{"has_id": [point]}]}
        kept = others if asked.get("filter") is None else {"must": [asked["filter"]], **others}
        return {**asked, "query": {"nearest": vector}, "filter": kept}

    def count(self, name: str, asked: Json) -> Json:
        """POST points/count. Always exact."""
        with self.resolved(name).shard() as shard:
            return {"count": shard.count(qe.CountRequest(filter=as_filter(asked.get("filter")), exact=True))}

    def facet(self, name: str, asked: Json) -> Json:
        """POST facet."""
        with self.resolved(name).shard() as shard:
            request = qe.FacetRequest(
                asked["key"], _limit(asked), exact=bool(asked.get("exact")), filter=as_filter(asked.get("filter"))
            )
            return {"hits": [{"value": hit.value, "count": hit.count} for hit in shard.facet(request).hits]}
