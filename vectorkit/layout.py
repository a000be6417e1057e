"""Names that stores narrower than ours are given: docs/layout.md, section 1.1. Injective, never truncated."""

import base64
import hashlib


def parts(*names: str) -> str:
    """Names joined so that no two lists of them look alike: each with its length in bytes of UTF-8 before it."""
    return "".join(f"{len(name.encode())}:{name}" for name in names)


def h26(*names: str) -> str:
    """A hash of the names: 26 characters of [a-z2-7]."""
    digest = hashlib.sha256(parts(*names).encode()).digest()[:16]
    return base64.b32encode(digest).decode().rstrip("=").lower()
