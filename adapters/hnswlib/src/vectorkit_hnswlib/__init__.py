"""hnswlib graphs for vectorkit's embedded engine: `hnswlib:///path`."""

from vectorkit_hnswlib.adapter import BACKEND as BACKEND
