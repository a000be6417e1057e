"""Work on a shard in a process of its own, run as a program: the engine holds the interpreter's lock for as long as it works.

`optimize` builds the graph; `recover` opens and reads a shard that was not closed in order, where damage can end the process.
"""

import os
import signal
import sys
from contextlib import suppress


def _die_with(parent: int) -> None:
    """Linux ends this process when the one that started it ends; elsewhere it goes on, with the directory's lock, to its end."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if hasattr(os, "getppid") and os.getppid() != parent:
        os._exit(1)


def main(verb: str, folder: str, packages: str, parent: str) -> None:
    """Do it, and print what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent, which ends this process
    _die_with(int(parent))
    sys.path.append(packages)
    import qdrant_edge as qe

    try:
        shard = qe.EdgeShard.load(folder)
        if verb == "optimize":
            shard.optimize()
        else:
            start = None
            while True:
                _, start = shard.scroll(
                    qe.ScrollRequest(offset=start, limit=1_000, with_payload=True, with_vector=True)
                )
                if start is None:
                    break
        shard.flush()
        shard.close()
    except BaseException as error:  # noqa: BLE001 - a panic of the engine is no Exception
        print(f"{type(error).__name__}: {error}"[:2_000])  # noqa: T201 - to the parent
        sys.stdout.flush()
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
