"""What pytest loads where vectorkit is installed: the option that writes the capability table, and nothing else.

It is loaded by every pytest run of the environment, so it imports pytest alone until the option is used.
"""

from collections.abc import Iterator
from typing import Any

import pytest

# Their asserts are the contract; without this a failure would not show its two sides.
pytest.register_assert_rewrite("vectorkit.testing.kit", "vectorkit.testing.machine", "vectorkit.testing.areas")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--vectorkit-table PATH`."""
    group = parser.getgroup("vectorkit", "vectorkit's contract suite")
    group.addoption(
        "--vectorkit-table", metavar="PATH", help="write the capability table of this run to PATH (Markdown)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect results only when the table is asked for."""
    path = config.getoption("--vectorkit-table")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Table(str(path)), "vectorkit-table")


class _Table:
    """The results of a run, and the table at its end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.results: list[tuple[Any, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        self.results += [(note, outcome) for note in self._notes(report)]

    @staticmethod
    def _notes(report: pytest.TestReport) -> Iterator[Any]:
        for name, note in report.user_properties:
            if name == "vectorkit":
                yield note

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        from pathlib import Path

        from vectorkit.testing.table import collect, render

        tallies = collect((note, outcome) for note, outcome in self.results if outcome != "skipped")
        if not tallies:
            terminalreporter.write_line("vectorkit: no contract test ran, so no capability table was written")
            return
        Path(self.path).write_text(render(tallies), encoding="utf-8")
        terminalreporter.write_line(f"vectorkit: the capability table of {', '.join(tallies)} is in {self.path}")
