"""Running the command line in this process, with standard output and standard error apart."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from typer.testing import CliRunner

from vectorkit.cli.app import app


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on standard output."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[Any]:
        """The JSON Lines on standard output."""
        return [json.loads(line) for line in self.out.splitlines()]


Cli: TypeAlias = Callable[..., Ran]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in an empty working directory, without the caller's store or profiles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VECTORKIT_STORE", raising=False)
    monkeypatch.delenv("VECTORKIT_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str, stdin: str | None = None, **environment: str) -> Ran:
        result = CliRunner().invoke(app, list(arguments), input=stdin, env=environment)
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(params=["local", "faiss"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that survives from one command to the next."""
    return f"{request.param}://{tmp_path}/db"
