"""PostgreSQL with pgvector: `postgresql://user@host/database`."""

from vectorkit_pgvector.adapter import BACKEND as BACKEND
from vectorkit_pgvector.options import PgvectorOptions as PgvectorOptions
