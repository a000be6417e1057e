"""How the double refuses: one exception, and the two shapes of a body that Pinecone's API gives an error."""

from typing import Any

import orjson

_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "PAYMENT_REQUIRED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    413: "PAYLOAD_TOO_LARGE",
    422: "UNPROCESSABLE_ENTITY",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "SERVICE_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_NUMBERS = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 412: 9, 413: 11, 422: 3, 429: 8, 501: 12, 503: 14, 504: 4}


class Refused(Exception):
    """A request that the double does not carry out."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code or _NAMES.get(status, "UNKNOWN")
        self.headers: dict[str, str] = {}


def bad(message: str) -> Refused:
    """What the API calls an invalid argument."""
    return Refused(400, message)


def unknown(what: str) -> Refused:
    """What no page settles: to guess would make a test pass that the service may fail."""
    return Refused(501, f"The double does not model this: {what}")


def body(refused: Refused, shape: str) -> tuple[bytes, str]:
    """Bytes and content type. Shapes: `error` (control plane, documents) and `rpc` (vectors, namespaces).

    What authentication and rate limits refuse is plain text on every path.
    """
    if refused.status in {401, 429}:
        return refused.message.encode(), "text/plain"
    told: dict[str, Any]
    if shape == "rpc":
        told = {"code": _NUMBERS.get(refused.status, 2), "message": refused.message, "details": []}
    else:
        told = {"error": {"code": refused.code, "message": refused.message}, "status": refused.status}
    return orjson.dumps(told), "application/json"
