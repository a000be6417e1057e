"""The contract suite that any store's adapter can run: subclass `AdapterContract`, give it one fixture, run pytest.

It is shipped so that a third party's store is held to the same words as ours. It needs pytest and hypothesis.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vectorkit.testing.contract import AdapterContract
    from vectorkit.testing.faces import Bench, Clock

__all__ = ["AdapterContract", "Bench", "Clock"]

_HOMES = {
    "AdapterContract": "vectorkit.testing.contract",
    "Bench": "vectorkit.testing.faces",
    "Clock": "vectorkit.testing.faces",
}


def __getattr__(name: str) -> Any:
    # Lazy, because the plugin beside this file is loaded by every pytest run of the environment.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
