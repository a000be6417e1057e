"""The command line's way in: what `vectorkit …` runs.

It checks, before anything else is imported, that the command line's libraries are here and that `vectorkit` is this one.
"""

import signal
import sys
import threading


def main() -> None:
    """Run the command line and exit with its code."""
    if problem := _problem():
        sys.stderr.write(f"vectorkit: {problem}\n")
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    from vectorkit.cli.app import app

    try:
        app(prog_name="vectorkit")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:  # all is said and closed: a Ctrl-C during the interpreter's end would only change the exit code
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _problem() -> str | None:
    """Why the command line cannot run, with the way out; None when it can."""
    import vectorkit

    if getattr(vectorkit, "__distribution__", None) != "vectorkit-core":
        where = getattr(vectorkit, "__file__", None) or "an unknown place"
        return (
            f"the package imported as vectorkit ({where}) is another project's; "
            "pip uninstall vectorkit, then from a checkout of this one: pip install --force-reinstall '.[cli]'"
        )
    from importlib.util import find_spec

    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        return f"the command line needs {' and '.join(missing)}; from a checkout: pip install '.[cli]'"
    return None
