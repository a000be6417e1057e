"""How hard the generated tests try: little and always the same by default, more and at random when asked.

`VECTORKIT_EFFORT=20` makes every generated test twenty times as long; a failure then prints how to repeat it.
"""

import os
from typing import Any

from hypothesis import HealthCheck, settings


def times() -> int:
    """The factor asked for in the environment, at least 1."""
    return max(1, int(os.environ.get("VECTORKIT_EFFORT", "1")))


def effort(examples: int, **options: Any) -> settings:
    """Hypothesis settings, a decorator, for so many examples at the default effort."""
    return settings(
        max_examples=examples * times(),
        deadline=None,
        derandomize=times() == 1,
        database=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        **options,
    )
