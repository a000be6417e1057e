"""Chroma: `chroma:///path` and `chroma://host:port`. Its client takes a second to import, so that waits for the first store."""

from vectorkit.adapter import Adapter, Backend, Target
from vectorkit.errors import ConfigError
from vectorkit.runtime import Runtime
from vectorkit_chroma.options import ChromaOptions as ChromaOptions


async def _open(target: Target, runtime: Runtime) -> Adapter:
    try:
        from vectorkit_chroma.adapter import open_chroma
    except ImportError as error:
        raise ConfigError(f"chromadb cannot be imported ({error}); install vectorkit-chroma again") from error
    return await open_chroma(target, runtime)


BACKEND = Backend(store="chroma", open=_open, place="either", options=ChromaOptions)
