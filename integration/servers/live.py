"""The stores that `$STORES` names, and where they are: servers that somebody else runs.

Apart from the fixtures because tests, too, ask what was named.
"""

import os
from urllib.parse import urlsplit

URLS = {
    "pgvector": ("VECTORKIT_PGVECTOR_URL", "postgresql://postgres:vectorkit@127.0.0.1:5432/postgres"),
    "chroma": ("VECTORKIT_CHROMA_URL", "chroma://127.0.0.1:8000"),
    "qdrant": ("VECTORKIT_QDRANT_URL", "qdrant://127.0.0.1:6333"),
    "pinecone": ("VECTORKIT_PINECONE_URL", "pinecone://vkc?cloud=aws&region=us-east-1"),
}
"""A store's variable, and where docker-compose.yml puts it; of Pinecone a prefix of its indexes, with the key in $PINECONE_API_KEY."""


def named() -> list[str]:
    """The stores in $STORES; empty for servers of our own."""
    return [name.strip() for name in os.environ.get("STORES", "").split(",") if name.strip()]


def live_url(store: str) -> str:
    """Where a live store is."""
    variable, default = URLS[store]
    return os.environ.get(variable) or default


def shown(url: str) -> str:
    """The URL without its secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"
