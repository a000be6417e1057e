"""Which index of a project is which collection: tags on the indexes, and the spec as a record in each.

Every generation of a name has an index of its own, whose name is a hash; the tags say what it is. A generation is the second of
its making, so that none is given twice, whoever makes it, and nothing has to remember those that were dropped.
"""

import json
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vectorkit.errors import (
    AlreadyExists,
    ConfigError,
    Corrupt,
    DeadlineExceeded,
    NotFound,
    Unavailable,
    Unsupported,
    VectorkitError,
)
from vectorkit.runtime import Runtime
from vectorkit.types import LAYOUT, CollectionSpec
from vectorkit_pinecone.client import Client
from vectorkit_pinecone.convert import METRICS, MOST_METADATA, VECTOR, Stored, index_name
from vectorkit_pinecone.documents import Documents
from vectorkit_pinecone.options import PineconeOptions
from vectorkit_pinecone.vectors import Vectors
from vectorkit_pinecone.wire import Place, Wire

CONTROL, ROWS, SPEC = "control", "rows", "spec"
SKEW = 2.0  # seconds that clocks of those who make and drop a name may differ
ABANDONED = 3_600  # seconds after which an index that was never published is swept by the next create of its name
_PREFIX = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,16}[a-z0-9])?\Z")
_GENERATION = re.compile(r"[1-9][0-9]{0,9}\Z")
_REGION = re.compile(r"[A-Za-z0-9-]{1,60}\Z")


@dataclass(frozen=True, slots=True)
class Found:
    """An index of ours as the project lists it."""

    index: str
    name: str
    generation: int
    state: str
    begun: int
    layout: str
    maker: str
    host: str
    kind: Literal["documents", "vectors"]

    @property
    def published(self) -> bool:
        """Whether it is a collection that can be read."""
        return self.state == "published"


@dataclass(frozen=True, slots=True)
class Opened:
    """A collection that is open: its spec, its index, and how that is spoken to."""

    spec: CollectionSpec
    index: str
    host: str
    wire: Wire

    @property
    def rows(self) -> Place:
        """Where its rows are."""
        return Place(self.host, ROWS)


class Catalogue:
    """The collections of one prefix in one project."""

    def __init__(
        self, client: Client, prefix: str, where: dict[str, str], options: PineconeOptions, runtime: Runtime
    ) -> None:
        if not _PREFIX.match(prefix):
            raise ConfigError(
                "pinecone:// is followed by a prefix for index names: 1 to 18 of a-z, 0-9 and -, as in "
                f"pinecone://kb?cloud=aws&region=us-east-1; got {prefix[:40]!r}"
            )
        for name in ("cloud", "region"):
            if not _REGION.match(where[name]):
                raise ConfigError(f"{name}= must name one of Pinecone's, got {where[name][:40]!r}")
        self._client = client
        self._prefix = prefix
        self._where = where
        self._options = options
        self._runtime = runtime
        self._wires: dict[str, Wire] = {"documents": Documents(client), "vectors": Vectors(client)}
        self._opened: dict[str, Opened] = {}
        self._last = 0

    # ------------------------------------------------------------------------------------- what there is

    async def _ours(self, name: str | None = None) -> list[Found]:
        """Our indexes, of one name or of all, lowest generation first; not those that are going."""
        found = [one for model in await self._client.listed() if (one := self._found(model)) is not None]
        return sorted((one for one in found if name in (None, one.name)), key=lambda one: one.generation)

    def _found(self, model: Any) -> Found | None:
        tags = model.tags or {}
        name, generation = tags.get("vk_name", ""), tags.get("vk_generation", "")
        if not _GENERATION.match(generation) or model.name != index_name(self._prefix, f"{name}@{generation}"):
            return None
        if model.status.state == "Terminating":
            return None
        host = (model.private_host if self._options.private else model.host) or ""
        begun = tags.get("vk_begun", "")
        return Found(
            index=model.name,
            name=name,
            generation=int(generation),
            state=tags.get("vk_state", ""),
            begun=int(begun) if begun.isdecimal() else 0,
            layout=tags.get("vk_layout", ""),
            maker=tags.get("vk_maker", ""),
            host=host,
            kind="documents" if VECTOR in model.schema.fields else "vectors",
        )

    async def names(self) -> list[str]:
        """Logical names."""
        return sorted({one.name for one in await self._ours() if one.published})

    async def describe(self, name: str) -> CollectionSpec:
        """The spec of the highest published generation: two requests."""
        there = await self._ours(name)
        found = [one for one in there if one.published]
        if not found:
            for one in there:
                self._check_tags(one)
            raise NotFound(f"{self._client.shown} has no collection {name!r}")
        current = found[-1]
        if current.layout != str(LAYOUT):
            raise Unsupported(
                f"{self._client.shown}: {name!r} has layout {current.layout!r}; this version reads layout {LAYOUT}"
            )
        if not current.host:
            raise self._without_host(current.index)
        wire = self._wires[current.kind]
        kept = await wire.fetch(Place(current.host, CONTROL), [SPEC], ("vk_spec",), vectors=False)
        spec = self._spec(current, kept[0].fields.get("vk_spec") if kept else None)
        self._opened[spec.physical] = Opened(spec, current.index, current.host, wire)
        return spec

    def _spec(self, found: Found, document: Any) -> CollectionSpec:
        try:
            spec = CollectionSpec.from_json(json.loads(document))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise Corrupt(
                f"{self._client.shown}: the spec of {found.name!r} cannot be read ({error}); it is the record {SPEC!r} in the "
                f"namespace {CONTROL!r} of the index {found.index!r}"
            ) from error
        if spec.physical != f"{found.name}@{found.generation}":
            raise Corrupt(f"{self._client.shown}: the index of {found.name!r} carries the spec of {spec.physical!r}")
        return spec

    async def open(self, physical: str) -> Opened:
        """The collection of a physical name. NotFound where it is another by now."""
        if (known := self._opened.get(physical)) is not None:
            return known
        spec = await self.describe(physical.rpartition("@")[0])
        if spec.physical != physical:
            raise NotFound(f"{self._client.shown}: the collection {spec.name!r} was dropped and made anew")
        return self._opened[physical]

    async def gone(self, opened: Opened) -> bool:
        """Whether the index of a collection was dropped, which its host answers in many ways."""
        try:
            model = await self._client.control("describe", opened.index)
        except NotFound:
            pass
        except VectorkitError:
            return False
        else:
            if model.status.state != "Terminating":
                return False
        self._opened.pop(opened.spec.physical, None)
        await self._client.forget(opened.host)
        return True

    # ------------------------------------------------------------------------------------- making and dropping

    async def create(self, spec: CollectionSpec, *, publish: bool = True) -> CollectionSpec:
        """Make an index, write the spec into it, and publish it. Of several who make one name at once one does, and the others are
        told once it has: AlreadyExists. Unavailable where somebody began and neither publishes nor goes away."""
        document = json.dumps(spec.to_json(), ensure_ascii=False, separators=(",", ":"))
        if len(document.encode()) > MOST_METADATA - 1_000:
            raise Unsupported(
                f"pinecone keeps a spec of {MOST_METADATA - 1_000} bytes, and that of {spec.name!r} has "
                f"{len(document.encode())}; declare fewer fields"
            )
        end = time.monotonic() + self._options.ready_timeout
        pause = 0.1
        while True:
            there = await self._vacated(spec.name)
            if there:  # that are being made by others
                await self._rivals(there, end, pause)
                pause = min(1.5 * pause, 2.0)
                continue
            opened = await self._make(spec)
            try:
                if await self._is_first(opened.spec, end):
                    await self._label(opened)
                    if publish:
                        await self.publish(opened)
                    self._opened[opened.spec.physical] = opened
                    return opened.spec
            except BaseException:
                await self._runtime.finish(self.discard(opened.spec))
                raise
            await self.discard(opened.spec)

    async def _vacated(self, name: str, mine: int = 0) -> list[Found]:
        """The indexes of a name that others are making, once what was left behind is gone. AlreadyExists, Corrupt."""
        found = []
        for one in await self._ours(name):
            if one.generation == mine:
                continue
            if one.published:
                raise AlreadyExists(f"{self._client.shown} has a collection {name!r} already")
            self._check_tags(one)
            if time.time() - one.begun < ABANDONED:
                found.append(one)
            else:
                await self._sweep(one.index)
        return found

    def _check_tags(self, one: Found) -> None:
        """Nothing is deleted, and nothing said to be absent, because a tag is not what it was."""
        if one.state not in ("published", "building") or not one.begun or one.layout != str(LAYOUT):
            raise Corrupt(
                f"{self._client.shown}: the index {one.index!r} is of the collection {one.name!r}, and its tags are damaged (vk_layout "
                f"{one.layout!r}, vk_state {one.state!r}, vk_begun {one.begun}); mend them, or delete the index, in Pinecone"
            )

    async def _rivals(self, there: list[Found], end: float, pause: float) -> None:
        """Wait a moment for those who make the same name."""
        if time.monotonic() + pause > end:
            raise Unavailable(
                f"{self._client.shown}: the collection {there[0].name!r} is being made by somebody else (the index "
                f"{there[0].index!r}) for longer than {self._options.ready_timeout:g} s; if nobody is, delete that index"
            )
        await self._runtime.sleep(pause)

    async def _is_first(self, made: CollectionSpec, end: float) -> bool:
        """Whether this one may be published: nobody began before, and who began after has given up. Each looks once its own index
        is there, so that of two at least one sees the other. AlreadyExists."""
        pause = 0.1
        while others := await self._vacated(made.name, made.generation):
            if any(one.generation < made.generation for one in others):
                return False
            await self._rivals(others, end, pause)
            pause = min(1.5 * pause, 2.0)
        return True

    async def _make(self, spec: CollectionSpec) -> Opened:
        """An index of the next generation, up and empty."""
        generation = max([int(time.time()), self._last + 1])
        self._last = generation
        made = CollectionSpec.from_json({**spec.to_json(), "generation": generation})
        wire = self._wires[self._options.api]
        index = index_name(self._prefix, made.physical)
        maker = secrets.token_hex(16)
        tags = {
            "vk_layout": str(LAYOUT),
            "vk_name": made.name,
            "vk_generation": str(generation),
            "vk_state": "building",
            "vk_begun": str(int(time.time())),
            "vk_maker": maker,
        }
        try:
            try:
                model = await self._client.control(
                    "create",
                    name=index,
                    schema=wire.schema(made.dimension, METRICS[made.metric]),
                    deployment={"deployment_type": "managed", **self._where},
                    deletion_protection="enabled" if self._options.deletion_protection else "disabled",
                    tags=tags,
                    timeout=-1,
                )
            except AlreadyExists:  # made by another; or by us, the reply being lost and the request sent again
                with suppress(NotFound):  # given up meanwhile
                    model = await self._client.control("describe", index)
                    if (model.tags or {}).get("vk_maker") == maker:
                        return Opened(made, index, await self._ready(index, model), wire)
                return await self._make(spec)
            host = await self._ready(index, model)
        except BaseException:  # it may be there, and come up later
            await self._runtime.finish(self.discard(made, maker))
            raise
        return Opened(made, index, host, wire)

    async def _ready(self, index: str, model: Any) -> str:
        """The host of an index, once it is ready."""
        end = time.monotonic() + self._options.ready_timeout
        pause = 0.1
        while not model.status.ready:
            if model.status.state == "InitializationFailed":
                raise Unavailable(f"{self._client.shown}: the index {index!r} did not come up")
            if time.monotonic() > end:
                raise DeadlineExceeded(
                    f"{self._client.shown}: the index {index!r} was not ready after {self._options.ready_timeout:g} s"
                )
            await self._runtime.sleep(pause)
            pause = min(1.5 * pause, 5.0)
            model = await self._client.control("describe", index)
        host = model.private_host if self._options.private else model.host
        if not host:
            raise self._without_host(index)
        return str(host)

    def _without_host(self, index: str) -> VectorkitError:
        if self._options.private:
            return Unsupported(
                f"{self._client.shown}: the index {index!r} has no private endpoint; leave private=False"
            )
        return Unavailable(f"{self._client.shown}: the index {index!r} has no host yet")

    async def _label(self, opened: Opened) -> None:
        """Write the spec, and see it: who finds the published tag finds the spec."""
        document = json.dumps(opened.spec.to_json(), ensure_ascii=False, separators=(",", ":"))
        values = np.zeros(opened.spec.dimension, np.float32)
        values[0] = 1.0
        numbers = ("[1" + ",0" * (opened.spec.dimension - 1) + "]").encode()
        at = Place(opened.host, CONTROL)
        await opened.wire.upsert(
            at, [Stored(SPEC, {"vk_spec": document}, numbers, values, len(document) + len(numbers))]
        )
        end = time.monotonic() + self._options.ready_timeout
        pause = 0.02
        while True:
            with suppress(NotFound):
                if await opened.wire.fetch(at, [SPEC], ("vk_spec",), vectors=False):
                    return
            if time.monotonic() > end:
                raise DeadlineExceeded(
                    f"{self._client.shown}: the spec of {opened.spec.name!r} was not to be seen after "
                    f"{self._options.ready_timeout:g} s"
                )
            await self._runtime.sleep(pause)
            pause = min(1.6 * pause, 1.0)

    async def publish(self, opened: Opened) -> None:
        """Let it be read."""
        await self._client.control("configure", opened.index, tags={"vk_state": "published"})

    async def discard(self, spec: CollectionSpec, maker: str | None = None) -> None:
        """Take back what was made of a collection that is not to be, if anything was, and by this maker."""
        index = index_name(self._prefix, spec.physical)
        with suppress(VectorkitError):
            if maker is not None:
                model = await self._client.control("describe", index)
                if (model.tags or {}).get("vk_maker") != maker:
                    return
            await self._sweep(index)

    async def _sweep(self, index: str) -> None:
        """Delete an index that was never published, protected or not."""
        with suppress(NotFound):  # somebody else did
            try:
                await self._delete(index)
            except Unsupported:
                await self._client.control("configure", index, deletion_protection="disabled")
                await self._delete(index)

    async def _delete(self, index: str) -> None:
        await self._client.control("delete", index, timeout=-1)

    async def drop(self, name: str) -> None:
        """Delete every generation, the current one last."""
        found = await self._ours(name)
        if not any(one.published for one in found):
            raise NotFound(f"{self._client.shown} has no collection {name!r}")
        until = found[-1].generation + 1  # by when nobody makes another with its number
        await self._runtime.sleep(max(0.0, min(until - time.time(), SKEW)))
        for one in found:
            self._opened.pop(f"{one.name}@{one.generation}", None)
            with suppress(NotFound):  # by now; or before the client sent a request again whose reply was lost
                await self._delete(one.index)
            await self._client.forget(one.host)
