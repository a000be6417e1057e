"""The command that runs a double of a service for tests: Pinecone's HTTP API on this machine, without an account."""

import os
from typing import Annotated

import typer

import vectorkit as vk
from vectorkit.cli.exits import guard
from vectorkit.cli.options import DebugOption

commands = typer.Typer()


@commands.command("pinecone-double")
def pinecone_double(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen on.")] = 5080,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    delay: Annotated[float, typer.Option(min=0.0, help="Seconds until reads see a write.")] = 0.0,
    fetch_delay: Annotated[
        float | None, typer.Option(min=0.0, help="Seconds until fetch, list and counts see it; else as --delay.")
    ] = None,
    ready_delay: Annotated[float, typer.Option(min=0.0, help="Seconds until a new index is ready.")] = 0.0,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The variable that holds the key to ask for; else any is taken.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Answer as Pinecone's HTTP API does, until Ctrl-C: for tests, in memory, compared with no live service.

    Connect with pinecone://kb?host=http://127.0.0.1:5080, or Pinecone(host=…). docs/pinecone-double.md says what it models.
    """
    with guard(debug):
        try:
            from vectorkit_pinecone.double import serve
        except ImportError as error:
            raise vk.ConfigError(
                f"the double needs the extra pinecone-double ({error}); from a checkout: pip install './adapters/pinecone[double]'"
            ) from error
        key = None
        if api_key_env is not None and not (key := os.environ.get(api_key_env)):
            raise vk.ConfigError(f"the variable {api_key_env} is not set")
        try:
            serve(host, port, api_key=key, delay=delay, fetch_delay=fetch_delay, ready_delay=ready_delay)
        except OSError as error:
            raise vk.ConfigError(f"{host}:{port} cannot be listened on: {error.strerror or error}") from error
