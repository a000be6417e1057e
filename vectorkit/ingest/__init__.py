"""From files and texts to rows: readers, chunking, the offline embedder and the load pipeline.

Nothing here knows a store; what is loaded goes through the public API like anybody's rows.
"""
