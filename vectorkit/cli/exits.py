"""How a command ends: which exit code an error has, and one line on standard error instead of a traceback.

Every command's body runs inside `guard`, so that no error finds another way out.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import NoReturn

import typer

from vectorkit.errors import (
    Ambiguous,
    Closed,
    ConfigError,
    Corrupt,
    DeadlineExceeded,
    Locked,
    NotFound,
    PartialFailure,
    RateLimited,
    TenantLeak,
    Unavailable,
    Unsupported,
    VectorkitError,
)


class Code(IntEnum):
    """Exit codes; `vectorkit --help` lists them."""

    OK = 0
    NOTHING = 1
    BAD_INPUT = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    UNSUPPORTED = 5
    CORRUPT = 6
    BUG = 70
    INTERRUPTED = 130
    PIPE = 141


MEANING = {
    Code.OK: "done",
    Code.NOTHING: "get or search found nothing",
    Code.BAD_INPUT: "usage, a bad row, filter or profile, a spec that does not fit",
    Code.NOT_FOUND: "no such collection or store",
    Code.UNAVAILABLE: "the store cannot be reached, or is locked (try again)",
    Code.UNSUPPORTED: "the store cannot do that (the message names the way out)",
    Code.CORRUPT: "the store's data cannot be trusted",
    Code.BUG: "a fault in vectorkit (--debug shows it)",
    Code.INTERRUPTED: "Ctrl-C (what was written stays, and the store is whole)",
    Code.PIPE: "whoever read the output went away",
}


def code_of(error: VectorkitError) -> Code:
    """The exit code that an error stands for."""
    match error:
        case PartialFailure(__cause__=VectorkitError() as cause):
            return code_of(cause)
        case NotFound():
            return Code.NOT_FOUND
        case Locked() | Unavailable() | DeadlineExceeded() | RateLimited() | Ambiguous() | Closed() | PartialFailure():
            return Code.UNAVAILABLE
        case Unsupported():
            return Code.UNSUPPORTED
        case Corrupt() | TenantLeak():
            return Code.CORRUPT
        case ConfigError():
            return Code.BAD_INPUT
        case _:
            return Code.BAD_INPUT


def say(message: str) -> None:
    """One line for a person, on standard error."""
    sys.stderr.write(" ".join(message.split()) + "\n")
    sys.stderr.flush()


def fail(code: Code, message: str) -> NoReturn:
    """End with one line on standard error."""
    say(f"vectorkit: {message}")
    raise typer.Exit(code)


@contextmanager
def guard(debug: bool) -> Iterator[None]:
    """Turn whatever a command raises into a line and an exit code; with `debug`, the traceback comes first."""
    try:
        yield
        sys.stdout.flush()
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # so that the interpreter's own flush at exit has somewhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(Code.PIPE) from None
    except KeyboardInterrupt:
        fail(Code.INTERRUPTED, "interrupted")
    except VectorkitError as error:
        _trace(debug)
        fail(code_of(error), str(error))
    except OSError as error:
        _trace(debug)
        named = f"{error.filename}: " if error.filename else ""
        fail(Code.BAD_INPUT, f"{named}{error.strerror or error}")
    except Exception as error:  # noqa: BLE001
        _trace(debug)
        again = "" if debug else "; run it again with --debug for the traceback, and report it"
        fail(Code.BUG, f"a fault in vectorkit: {type(error).__name__}: {error}{again}")


def _trace(debug: bool) -> None:
    if debug:
        traceback.print_exc(file=sys.stderr)
