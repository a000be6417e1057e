"""Pinecone behind vectorkit's API: `pinecone://prefix?cloud=aws&region=us-east-1`."""
