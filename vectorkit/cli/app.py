"""The command line as a whole: its commands in the order a newcomer meets them, and the help that explains exit codes.

Each group of commands is a file beside this one.
"""

import platform
from typing import Annotated

import typer

import vectorkit as vk
from vectorkit.cli import adopting, collections, demo, double, reading, writing
from vectorkit.cli.exits import MEANING

_HELP = """
Search your texts and vectors on any store: the same commands, the same answers.

The collection comes first, the store by --store (or VECTORKIT_STORE): a URL, or the name of a profile in vectorkit.toml.
To begin: vectorkit demo
"""
_EPILOG = "Exit codes: " + " · ".join(f"[bold]{code.value}[/] {meaning}" for code, meaning in MEANING.items())

app = typer.Typer(
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for part in (demo, writing, reading, collections, adopting, double):
    app.add_typer(part.commands)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"vectorkit {vk.__version__} ({vk.__distribution__}), Python {platform.python_version()}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What is common to all commands; its help is the app's."""
