"""Runs a command beside servers of our own, whose URLs it finds in its environment; without Docker, and gone when it ends.

python -m integration.servers vectorkit demo --compare faiss,chroma,pgvector,qdrant,pinecone
STORES=pgvector,chroma,qdrant python -m integration.servers pytest integration

Pinecone has no server; in its place is the double, which takes any key.
"""

import os
import subprocess
import sys

from integration.servers.chroma import ChromaServer
from integration.servers.pinecone import PineconeServer
from integration.servers.postgres import PostgresServer
from integration.servers.qdrant import QdrantServer


def main() -> int:
    """The command's exit code."""
    if len(sys.argv) < 2:
        sys.stderr.write("usage: python -m integration.servers COMMAND …\n")
        return 2
    with PostgresServer() as postgres, ChromaServer() as chroma, QdrantServer() as qdrant, PineconeServer() as pinecone:
        urls = {
            "VECTORKIT_PGVECTOR_URL": postgres.create_database("vectorkit"),
            "VECTORKIT_CHROMA_URL": chroma.url,
            "VECTORKIT_QDRANT_URL": qdrant.url,
            "VECTORKIT_QDRANT_GRPC_PORT": str(qdrant.grpc_port),
            "VECTORKIT_PINECONE_URL": pinecone.url,
            "PINECONE_API_KEY": "any",
        }
        for name, url in urls.items():
            sys.stderr.write(f"{name}={url}\n")
        return subprocess.run(sys.argv[1:], env={**os.environ, **urls}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
