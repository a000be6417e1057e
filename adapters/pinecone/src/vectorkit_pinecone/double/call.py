"""What the endpoints of one index share: the request they were given, the writes they make, the pages they cut."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vectorkit_pinecone.double.errors import Refused, bad
from vectorkit_pinecone.double.indexes import Index
from vectorkit_pinecone.double.namespace import Namespace, Write
from vectorkit_pinecone.double.rows import View
from vectorkit_pinecone.double.settings import Settings

REQUEST_LSN = "x-pinecone-request-lsn"
INDEXED_LSN = "x-pinecone-max-indexed-lsn"
DEFAULT = "__default__"


@dataclass
class Call:
    """One request to the data plane."""

    index: Index
    settings: Settings
    body: Any = None
    query: Mapping[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    """Of the reply."""

    def take(self, *known: str) -> dict[str, Any]:
        """The body, an object of known keys; a key with null counts as left out."""
        if not isinstance(self.body, dict):
            raise bad("The request body must be a JSON object.")
        if more := sorted(set(self.body) - set(known)):
            raise bad(f"Unknown field(s) {', '.join(more)}.")
        return {key: value for key, value in self.body.items() if value is not None}

    def namespace(self, name: str, *, make: bool = False) -> Namespace | None:
        """A namespace, if it is there; writes make it."""
        held = self.index.namespaces
        if name not in held and make:
            if len(held) >= self.settings.max_namespaces:
                raise Refused(403, "The index has reached its quota of namespaces.", "QUOTA_EXCEEDED")
            held[name] = Namespace()
        return held.get(name)

    def searched(self, name: str) -> View:
        """What a search of a namespace sees; its sequence number goes into the reply's headers."""
        found = self.namespace(name)
        if found is None:
            return View()
        view = found.searched()
        self.headers[INDEXED_LSN] = str(view.lsn)
        return view

    def fetched(self, name: str) -> View:
        """What a fetch of a namespace sees."""
        found = self.namespace(name)
        return View() if found is None else found.fetched()

    def write(self, name: str, write: Write, *, make: bool = False) -> None:
        """Accept a write; its sequence number goes into the reply's headers."""
        found = self.namespace(name, make=make)
        if found is None:
            if self.settings.missing_namespace_404:
                raise Refused(404, "Namespace not found")
            return
        delay, fetch_delay = self.settings.delay, self.settings.fetch_delay
        lsn = found.write(write, delay, delay if fetch_delay is None else fetch_delay)
        self.headers[REQUEST_LSN] = str(lsn)

    def parameter(self, name: str) -> str | None:
        """The last value of a query parameter."""
        return self.query.get(name, [None])[-1]


def printed(value: Any) -> Any:
    """A stored value as the reply has it: float32 is printed as the double that it equals, 0.4 as 0.4000000059604645."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float64)
    if isinstance(value, dict):
        return {name: printed(each) for name, each in value.items()}
    return value


def scored(score: float, settings: Settings) -> float:
    """A score as the reply has it; one that is not finite is printed as null."""
    if not settings.float32_scores:
        return score
    with np.errstate(over="ignore"):
        return float(np.float32(score))


def token(last: str) -> str:
    """An opaque page token: all up to this id was answered."""
    return base64.urlsafe_b64encode(last.encode()).decode()


def after(raw: Any) -> str:
    """What a page token stands for."""
    if raw is None:
        return ""
    if not isinstance(raw, str):
        raise bad("The pagination token must be a string.")
    try:
        return base64.b64decode(raw, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise bad("The pagination token is invalid.") from error
