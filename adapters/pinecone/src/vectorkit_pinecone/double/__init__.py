"""A stateful double of Pinecone's HTTP API, version 2026-07, for tests: what it models and from where is docs/pinecone-double.md.

It shares no code with the adapter, and so no assumption. What is not known answers 501.
"""

from vectorkit_pinecone.double.server import Control, PineconeDouble, main, serve
from vectorkit_pinecone.double.settings import Settings

__all__ = ["Control", "PineconeDouble", "Settings", "main", "serve"]
