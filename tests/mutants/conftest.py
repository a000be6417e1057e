"""The option that writes the mutation score: `pytest tests/mutants -m slow --mutation-score docs/mutation-score.md`.

Known only where this folder is named on the command line.
"""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutation-score", metavar="PATH", help="write the score of the mutants to PATH (Markdown)")
