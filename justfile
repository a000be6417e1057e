# Everything a developer runs. `just` lists it; each line also works by hand.

default:
    @just --list

# the fast tests: no network, no server
test *args:
    uv run --group dev pytest {{args}}

# the slow ones too: mutants, long state machines, faults
test-all:
    uv run --group dev pytest
    uv run --group dev pytest -m "slow and not timed"
    uv run --group dev pytest -m timed -n 0

# one embedded store's contract: just store faiss
store name:
    uv run --group dev pytest tests/contract/test_contract_{{name}}.py

# real servers, started as children: contract, proof, faults
servers *args:
    uv run --group dev pytest integration -m "slow or not slow" {{args}}

# the Pinecone adapter against the service: needs PINECONE_API_KEY, makes and deletes indexes
certify *args:
    uv run --group dev python scripts/certify_pinecone.py {{args}}

# the same against live ones, as docker-compose.yml starts them: just live pgvector,chroma,qdrant
live stores:
    STORES={{stores}} uv run --group dev pytest integration

lint:
    uv run --group dev ruff format --check
    uv run --group dev ruff check
    uv run --group dev mypy

format:
    uv run --group dev ruff format
    uv run --group dev ruff check --fix

# constraints.txt from pyproject.toml
pins:
    python scripts/pins.py

# the capability table in the docs, from a run of the contract suite
docs:
    VECTORKIT_WHOLE=1 uv run --group dev pytest tests/contract integration/test_contract_*.py -m "slow or not slow" --vectorkit-table docs/capabilities.md -q

# bare library against vectorkit, as ratios
bench:
    uv run --group bench python bench/embedded.py
    uv run --group bench python bench/core.py
    uv run --group bench python bench/postgresql.py
    uv run --group bench python bench/chroma.py
    uv run --group bench python bench/qdrant.py
    uv run --group bench python bench/pinecone_http.py

# what continuous integration runs
ci:
    bash .ci/run
