"""FAISS indexes for vectorkit's embedded engine: `faiss:///path`."""

from vectorkit_faiss.adapter import BACKEND as BACKEND
