"""The control plane: indexes, made, described, changed and deleted."""

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from vectorkit_pinecone.double.errors import Refused, bad, unknown
from vectorkit_pinecone.double.namespace import Namespace
from vectorkit_pinecone.double.schema import Schema, read
from vectorkit_pinecone.double.settings import Settings

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TOLD = re.compile(r"[\x20-\x7e]{0,120}")
_TAGS = 20
_MANAGED = {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"}
_REGIONS = {
    "aws": ("us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-southeast-1"),
    "gcp": ("us-central1", "europe-west4"),
    "azure": ("eastus2",),
}


@dataclass
class Index:
    """One index and what it holds."""

    name: str
    schema: Schema
    deployment: dict[str, Any]
    ready_at: float
    protected: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    namespaces: dict[str, Namespace] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether it is past its delay."""
        return time.monotonic() >= self.ready_at

    def told(self, base: str) -> dict[str, Any]:
        """As a describe reply has it. The host is an address on this server, with the scheme, and a path of its own."""
        told: dict[str, Any] = {
            "name": self.name,
            "host": f"{base}/_index/{self.name}",
            "schema": self.schema.told(),
            "deployment": self.deployment,
            "deletion_protection": "enabled" if self.protected else "disabled",
            "read_capacity": {"mode": "OnDemand", "status": {"state": "Ready"}},
            "status": {"ready": self.ready, "state": "Ready" if self.ready else "Initializing"},
        }
        return told | ({"tags": self.tags} if self.tags else {})


class Indexes:
    """Those of one project."""

    def __init__(self) -> None:
        self._held: dict[str, Index] = {}

    def clear(self) -> None:
        """Forget all."""
        self._held.clear()

    def all(self) -> list[Index]:
        """In the order of their making."""
        return list(self._held.values())

    def named(self, name: str) -> Index:
        """One that is there."""
        found = self._held.get(name)
        if found is None:
            raise Refused(404, f"Index {name} not found.")
        return found

    def create(self, body: Any, settings: Settings) -> Index:
        """POST /indexes."""
        known = {"name", "schema", "deployment", "read_capacity", "deletion_protection", "tags"}
        body = _object(body, known, "an index")
        name = body.get("name", f"index-{secrets.token_hex(4)}")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise bad(
                "Index name must contain only lowercase alphanumeric characters or hyphens, must not begin or end with a "
                "hyphen, and has 1 to 45 characters."
            )
        if "schema" not in body:
            raise Refused(422, "Failed to deserialize the JSON body into the target type: missing field `schema`")
        schema = read(body["schema"])
        deployment = _deployment(body.get("deployment", _MANAGED))
        if body.get("read_capacity", {"mode": "OnDemand"}) != {"mode": "OnDemand"}:
            raise unknown("dedicated read capacity")
        protected = _protection(body.get("deletion_protection", "disabled"))
        tags = _merged({}, body.get("tags", {}))
        if name in self._held:
            raise Refused(409, "Resource already exists.")
        if len(self._held) >= settings.max_indexes:
            raise Refused(403, "Increase your quota or upgrade to create more indexes.")
        made = Index(name, schema, deployment, time.monotonic() + settings.ready_delay, protected, tags)
        self._held[name] = made
        return made

    def configure(self, name: str, body: Any) -> Index:
        """PATCH /indexes/{name}."""
        index = self.named(name)
        body = _object(body, {"deletion_protection", "tags"}, "a change of an index")
        protected = _protection(body.get("deletion_protection", "enabled" if index.protected else "disabled"))
        index.tags = _merged(index.tags, body.get("tags", {}))
        index.protected = protected
        return index

    def delete(self, name: str) -> None:
        """DELETE /indexes/{name}."""
        if self.named(name).protected:
            raise Refused(
                403, "Deletion protection is enabled for this index. Disable deletion protection before retrying."
            )
        del self._held[name]


def _object(body: Any, known: set[str], what: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Refused(422, "Failed to deserialize the JSON body into the target type: expected an object")
    if more := sorted(set(body) - known):
        raise unknown(f"{', '.join(more)} of {what}")
    return body


def _deployment(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict) or not isinstance(raw.get("deployment_type"), str):
        raise Refused(422, "Failed to deserialize the JSON body into the target type: missing field `deployment_type`")
    if raw["deployment_type"] != "managed":
        raise unknown(f"a deployment of type {raw['deployment_type']!r}")
    cloud, region = raw.get("cloud"), raw.get("region")
    if not isinstance(cloud, str) or not isinstance(region, str):
        raise Refused(
            422, "Failed to deserialize the JSON body into the target type: missing field `cloud` or `region`"
        )
    if region not in _REGIONS.get(cloud, ()):
        raise Refused(404, f"Resource cloud: {cloud} region: {region} not found.")
    return {"deployment_type": "managed", "cloud": cloud, "region": region}


def _protection(raw: Any) -> bool:
    if raw not in ("enabled", "disabled"):
        raise bad("deletion_protection is enabled or disabled.")
    return bool(raw == "enabled")


def _merged(tags: dict[str, str], raw: Any) -> dict[str, str]:
    """Tags with some set; an empty string takes one away."""
    if not isinstance(raw, dict) or not all(isinstance(each, str) for each in raw.values()):
        raise bad("tags are an object of strings.")
    for key, value in raw.items():
        if not _TAG.fullmatch(key) or not _TOLD.fullmatch(value):
            raise bad(
                f"Tag {key!r} is invalid: keys have 1 to 80 characters, alphanumeric, '_' or '-', and values at most 120 "
                "printable ASCII characters."
            )
    merged = {key: value for key, value in (tags | raw).items() if value}
    if len(merged) > _TAGS:
        raise bad(f"An index has at most {_TAGS} tags.")
    return merged
