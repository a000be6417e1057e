"""The capability table: what each store says it can do, and what a run of the contract found, as Markdown.

It is an output of the run (`pytest --vectorkit-table docs/capabilities.md`), so that it cannot promise more than was proven.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from vectorkit.adapter import Capability

_HEAD = """# What each store can do

Made by the contract suite from its own run; do not edit.

The first table is `store.capability`. The second counts the contract's tests, in both colours, with
every index the suite was run on: passed, and where there are any, deviations that are declared and strict.
"""


def shown(capability: Capability) -> dict[str, str]:
    """A capability as the table's cells, by flag or limit."""
    return {part.name: _cell(getattr(capability, part.name)) for part in fields(capability)}


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, frozenset):
        return " ".join(f"`{name}`" for name in sorted(value)) or "none"
    return "none" if value is None else str(value)


@dataclass(slots=True)
class Tally:
    """What a run found for one store: its capability, and (passed, deviating, failed) by area."""

    capability: Mapping[str, str]
    areas: dict[str, list[int]] = field(default_factory=dict)

    def add(self, area: str, outcome: str) -> None:
        """Count one test."""
        self.areas.setdefault(area, [0, 0, 0])[("passed", "xfailed", "failed").index(outcome)] += 1


def collect(results: Iterable[tuple[Mapping[str, Any], str]]) -> dict[str, Tally]:
    """Tallies by column, from the notes that contract tests leave and their outcomes."""
    found: dict[str, Tally] = {}
    for note, outcome in results:
        capability = note["capability"]
        if not capability:
            continue
        column = note["column"] or capability["store"]
        found.setdefault(column, Tally(capability)).add(note["area"], outcome)
    return dict(sorted(found.items()))


def _rows(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    table = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


def render(tallies: Mapping[str, Tally]) -> str:
    """The Markdown document."""
    stores = list(tallies)
    names = list(dict.fromkeys(name for tally in tallies.values() for name in tally.capability if name != "store"))
    areas = sorted({area for tally in tallies.values() for area in tally.areas})
    capability = _rows(
        ["capability", *stores],
        [[f"`{name}`", *(t.capability.get(name, "") for t in tallies.values())] for name in names],
    )
    proven = _rows(
        ["contract", *stores], [[area, *(_count(t.areas.get(area)) for t in tallies.values())] for area in areas]
    )
    return f"{_HEAD}\n{capability}\n\n{proven}\n"


def _count(counts: list[int] | None) -> str:
    if counts is None:
        return "not run"
    passed, deviating, failed = counts
    parts = [f"{passed} passed"]
    parts += [f"{deviating} deviating"] * bool(deviating)
    parts += [f"**{failed} failed**"] * bool(failed)
    return ", ".join(parts)


def capability_cells(document: str) -> dict[str, dict[str, str]]:
    """What a rendered table says of each store's capability; the inverse of `render` for its first table."""
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in document.splitlines()
        if line.startswith("| ")
    ]
    stores = lines[0][1:]
    found: dict[str, dict[str, str]] = {store: {} for store in stores}
    for line in lines[2:]:
        if line[0] == "contract":
            break
        for store, cell in zip(stores, line[1:], strict=True):
            found[store][line[0].strip("`")] = cell
    return found
