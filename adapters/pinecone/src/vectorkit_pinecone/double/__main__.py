"""`python -m vectorkit_pinecone.double --port 5080`."""

from vectorkit_pinecone.double import main

main()
