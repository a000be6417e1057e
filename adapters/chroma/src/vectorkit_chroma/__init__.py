"""Chroma: `chroma:///path` and `chroma://host:port`."""
