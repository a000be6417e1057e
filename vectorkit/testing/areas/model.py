"""The state machine as a contract test: any sequence of verbs leaves what a plain dict of rows would hold.

`tests/contract/test_machine.py` runs the same machine for longer.
"""

from vectorkit.testing.faces import Bench
from vectorkit.testing.kit import Area, contract
from vectorkit.testing.machine import run_machine


class Model(Area):
    """Every verb, in any order."""

    @contract
    def test_any_sequence_of_verbs(self, bench: Bench) -> None:
        """Upserts, inserts, updates, deletes, reads, reopens and the clock, against the dict and the memory store."""
        report = run_machine(bench, self.index, examples=12, steps=25)
        assert report.steps > 0
