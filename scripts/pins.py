"""Write constraints.txt, for pip, from the pins in pyproject.toml, which `uv run` reads."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def wanted() -> str:
    """The text that constraints.txt must have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    pins = project["tool"]["uv"]["constraint-dependencies"]
    return "# Made by scripts/pins.py from pyproject.toml; do not edit.\n" + "".join(f"{pin}\n" for pin in pins)


if __name__ == "__main__":
    (ROOT / "constraints.txt").write_text(wanted(), "utf-8")
