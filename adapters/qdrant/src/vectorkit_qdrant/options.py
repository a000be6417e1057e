"""The knobs of the Qdrant adapter, given to `connect(options=…)` or as keys of a profile."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from vectorkit.codec import bad_text
from vectorkit.errors import InvalidArgument, Unsupported
from vectorkit.types import HNSW, IVF, CollectionSpec
from vectorkit.validate import check_header

LONGEST = 1_000_000  # seconds
Consistency: TypeAlias = int | Literal["majority", "quorum", "all"]
Ordering: TypeAlias = Literal["weak", "medium", "strong"]
Quantization: TypeAlias = Literal["scalar", "product", "binary", "turbo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QdrantOptions:
    """Where a field says no more, None leaves it to Qdrant. docs/scale.md tells what those of a cluster promise.

    Server only: grpc: speak gRPC to `grpc_port`, a quarter of the bytes; TLS and keys as over REST. api_key: a secret, better given as
    the profile's `api_key` or in the URL (`qdrant://:key@host`). headers: more headers, for a proxy. ssl_verify: False accepts
    any certificate. ssl_ca: a file of authorities to trust. timeout: whole seconds that one request may take; the sync colour
    over REST counts them for each part of an answer. retries: how often a request is sent again after a lost connection, a 502, 503 or 429, within `timeout`.

    Of collections that this handle makes on a server: shard_number; replication_factor; write_consistency_factor: replicas
    that confirm a write; shard_key: custom sharding, this handle's rows in the shards of this key and its reads from them.

    Of each request to a server: read_consistency: replicas asked, or "majority", "quorum", "all"; write_ordering: "weak", "medium",
    "strong".

    Of collections that this handle makes anywhere: on_disk_vectors, on_disk_index, on_disk_payload: not held in memory.
    quantization: codes that a graph search ranks by, "scalar" (int8), "product", "binary" or "turbo"; the best are scored
    again by their full vectors. quantized_in_ram: keep the codes in memory. oversampling: how many times k are scored
    again; None by what was measured: 2, product 8, binary 16. tenant_field: the declared str field that most filters name, whose rows are kept together (`is_tenant`).

    Embedded only: lock_timeout: seconds to wait for another handle to let go of the directory before `Locked` (0 to 5).

    exact_limit: vectors that a search may read where float32 could not measure them.
    """

    grpc: bool = False
    grpc_port: int = 6334
    api_key: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ssl_verify: bool = True
    ssl_ca: str | None = None
    timeout: int = 60
    retries: int = 2
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    shard_key: str | None = None
    read_consistency: Consistency | None = None
    write_ordering: Ordering | None = None
    on_disk_vectors: bool | None = None
    on_disk_index: bool | None = None
    on_disk_payload: bool | None = None
    quantization: Quantization | None = None
    quantized_in_ram: bool = True
    oversampling: float | None = None
    tenant_field: str | None = None
    lock_timeout: float = 1.0
    exact_limit: int = 100_000

    def __post_init__(self) -> None:
        for name in ("grpc", "ssl_verify", "quantized_in_ram"):
            _require(name, getattr(self, name), isinstance(getattr(self, name), bool), "True or False")
        for name in ("on_disk_vectors", "on_disk_index", "on_disk_payload"):
            _require(name, getattr(self, name), isinstance(getattr(self, name), bool | None), "True, False or None")
        for name, least, most in (
            ("grpc_port", 1, 65_535), ("timeout", 1, LONGEST), ("retries", 0, 100), ("exact_limit", 1, 2**62),
        ):  # fmt: skip
            _require(
                name, getattr(self, name), _whole(getattr(self, name), least, most), f"an int from {least} to {most}"
            )
        for name in ("shard_number", "replication_factor", "write_consistency_factor"):
            value = getattr(self, name)
            _require(name, value, value is None or _whole(value, 1, 2**31), "an int of at least 1, or None")
        for name in ("ssl_ca", "shard_key", "tenant_field"):
            value = getattr(self, name)
            allowed = value is None or (isinstance(value, str) and bool(value) and not bad_text(value))
            _require(name, value, allowed, "a string or None")
        if not isinstance(self.api_key, str):
            raise InvalidArgument(f"api_key must be a string, got {type(self.api_key).__name__}")
        check_header("api_key", self.api_key)
        if not isinstance(self.headers, Mapping) or not all(
            isinstance(key, str) and isinstance(value, str) for key, value in self.headers.items()
        ):
            raise InvalidArgument("headers must map names to strings")
        for key, value in self.headers.items():
            check_header("a name in headers", key)
            check_header("a value in headers", value)
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", key) or key.lower().endswith("-bin"):
                raise InvalidArgument(f"headers has a name that HTTP or gRPC does not take: {key!r}")
        level = self.read_consistency
        known_level = level is None or level in ("majority", "quorum", "all") or _whole(level, 1, 2**31)
        _require("read_consistency", level, known_level, 'an int of at least 1, "majority", "quorum", "all" or None')
        for name, kind in (("write_ordering", Ordering), ("quantization", Quantization)):
            known = get_args(kind)
            _require(name, getattr(self, name), getattr(self, name) in (None, *known), f"{', '.join(known)} or None")
        over = self.oversampling
        _require("oversampling", over, over is None or _number(over, 1, 1_000), "a number from 1 to 1000, or None")
        _require("lock_timeout", self.lock_timeout, _number(self.lock_timeout, 0, 5), "0 to 5 seconds")


def codes_of(spec: CollectionSpec, options: QdrantOptions) -> Quantization | None:
    """What a collection's graph ranks by: what its index says, else what the options say. Unsupported."""
    if not isinstance(spec.index, HNSW | IVF):
        return None
    match spec.index.quantization:
        case None:
            return options.quantization
        case "sq8":
            return "scalar"
        case "pq":
            return "product"
        case other:
            raise Unsupported(
                f"qdrant keeps float32 vectors and has no {other} codes; ask for sq8 or pq, or for binary or turbo by "
                "QdrantOptions(quantization=…)"
            )


def oversampling_of(spec: CollectionSpec, options: QdrantOptions) -> float:
    """How many times k candidates are scored again. Of 8,000 × 64 normally distributed vectors product codes found .79 of the true
    ten nearest with 2 and .98 with 8, binary ones .31 with 2 and .58 with 16; of clustered ones .69, 1.0, .57 and .99."""
    if options.oversampling is not None:
        return options.oversampling
    return {"product": 8.0, "binary": 16.0}.get(codes_of(spec, options) or "", 2.0)


def kilobytes(rows: int, dimension: int) -> int:
    """So many rows in the kilobytes of vectors that Qdrant counts its thresholds in, at least 10, which is the least it takes.

    Half as many again: it compares with an estimate of the rows that match, which was seen to be too low.
    """
    return max(10, min(math.ceil(1.5 * rows * dimension * 4 / 1_024), 2**53))


def _require(name: str, value: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise InvalidArgument(f"{name} must be {wanted}, got {value!r}")


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
