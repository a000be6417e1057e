"""A collection that LangChain, LlamaIndex or the bare client made, copied into one of ours whole or not at all.

Both write the text as the document, flat metadata and their own vectors: langchain_chroma's `add_texts`, and LlamaIndex's
`ChromaVectorStore.add`, which keeps its node as JSON under `_node_content`.
"""

from collections.abc import Callable
from typing import Any

from vectorkit.errors import DimensionMismatch, InvalidArgument, InvalidRecord, SpecMismatch
from vectorkit.types import Batch, CollectionSpec
from vectorkit.validate import check_batch
from vectorkit_chroma import convert

SPACE_NAMES = {space: metric for metric, space in convert.SPACES.items()}


def check_source(model: Any, spec: CollectionSpec, shown: str) -> None:
    """Refuse what cannot become this collection. Raises InvalidArgument, DimensionMismatch, SpecMismatch."""
    if model.name == convert.CONTROL or "_vk_physical" in (model.metadata or {}):
        raise InvalidArgument(f"{shown}: {model.name!r} is vectorkit's own; open it by its name")
    if model.dimension is not None and model.dimension != spec.dimension:
        raise DimensionMismatch(
            f"{shown}: {model.name!r} holds vectors of {model.dimension} numbers, {spec.name!r} is for {spec.dimension}",
            expected=spec.dimension,
            got=model.dimension,
        )
    metric = SPACE_NAMES[_space(model)]
    if metric != spec.metric:
        raise SpecMismatch(
            f"{shown}: {model.name!r} measures by {metric}, {spec.name!r} by {spec.metric}; say metric={metric!r}",
            differences={"metric": (metric, spec.metric)},
        )


def _space(model: Any) -> str:
    """What it measures by; Chroma's own default is l2."""
    configuration = model.configuration_json
    for kind in ("hnsw", "spann"):
        if (found := configuration.get(kind)) and found.get("space"):
            return str(found["space"])
    return "l2"


def copy_rows(source: Any, spec: CollectionSpec, write: Callable[[Batch], object], size: int) -> None:
    """Every row of the source, checked as a write is. Raises InvalidRecord naming the row, in the order of the listing."""
    ids = source.get(include=[])["ids"]
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        got = source.get(ids=part, include=["embeddings", "documents", "metadatas"])
        place = {id: start + at for at, id in enumerate(part)}  # noqa: A001
        batch = Batch(
            got["ids"],
            convert.matrix(got["embeddings"], spec.dimension),
            got["documents"],
            [metadata or {} for metadata in got["metadatas"]],
        )
        try:
            checked = check_batch(spec, batch)
        except InvalidRecord as error:
            row = error.row or 0
            name = got["ids"][row]
            raise InvalidRecord(f"{name!r}: {error.detail}", row=place[name], field=error.field) from None
        write(checked)
