"""What commands print: rows as JSON for machines, tables for people, a bar while it lasts.

Standard output carries the answer and nothing else; a row's text is data and never reaches the terminal as an escape.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vectorkit.codec import encode, format_datetime
from vectorkit.types import Hit, Record


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave it to `guard`; rich would end the process with code 1, which here means "nothing found"."""
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console of the terminal's width; 120 columns where there is no terminal, so that tables in a file can be read."""
    made = _Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = 120
    return made


# --------------------------------------------------------------------------------------------- machines


def emit(document: Mapping[str, Any]) -> None:
    """One JSON document on a line of standard output."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")


def metadata_json(metadata: Mapping[str, Any]) -> Any:
    """Metadata as JSON from which every type can be read back: datetimes are {"$date": …}."""
    return json.loads(encode(metadata))


def record_json(record: Record) -> dict[str, Any]:
    """A row as `vectorkit load` reads it."""
    document: dict[str, Any] = {"id": record.id}
    if record.text is not None:
        document["text"] = record.text
    document["metadata"] = metadata_json(record.metadata)
    if record.expires_at is not None:
        document["expires_at"] = format_datetime(record.expires_at)
    if record.vector is not None:
        document["vector"] = np.asarray(record.vector, np.float64).tolist()
    return document


def hit_json(rank: int, hit: Hit) -> dict[str, Any]:
    """An answer: rank from 1, score larger is better."""
    return {
        "rank": rank,
        "id": hit.id,
        "score": hit.score,
        "text": hit.text,
        "metadata": metadata_json(hit.metadata),
    }


# --------------------------------------------------------------------------------------------- people


def plain(text: str, limit: int = 200) -> Text:
    """Text as data: one line, without control characters or markup, cut at `limit`."""
    line = " ".join(text[: 4 * limit].split())
    line = "".join([c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line])
    return Text(line if len(line) <= limit else line[: limit - 1] + "…")


def rows_text(rows: int) -> str:
    """ "1 row", "9,288 rows"."""
    return f"{rows:,} row{'' if rows == 1 else 's'}"


def metadata_text(metadata: Mapping[str, Any], limit: int = 200) -> Text:
    """Metadata in short."""
    return plain(encode(metadata) if metadata else "", limit)


def hits_table(hits: Sequence[Hit], width: int) -> Table:
    """Answers as a table of so many columns: rank, score, id, beginning of the text, metadata. Ids are never cut."""
    ids = [plain(hit.id, 512) for hit in hits]
    metadata = [metadata_text(hit.metadata) for hit in hits]
    left = max(30, width - 16 - len(str(len(hits))))  # what rank, score and the gaps do not take
    for_ids = min(max(map(len, ids), default=2), 2 * left // 5)
    for_metadata = min(max(map(len, metadata), default=0), (left - for_ids) // 2)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("#", justify="right", style="dim", width=len(str(len(hits))))
    table.add_column("score", justify="right", width=7)
    table.add_column("id", overflow="fold", style="cyan", width=for_ids)
    table.add_column("text", overflow="ellipsis", no_wrap=True, width=left - for_ids - for_metadata)
    if for_metadata:
        table.add_column("metadata", overflow="ellipsis", no_wrap=True, style="dim", width=for_metadata)
    for rank, hit in enumerate(hits, 1):
        cells = (str(rank), f"{hit.score:.4f}", ids[rank - 1], plain(hit.text or ""))
        table.add_row(*cells, *([metadata[rank - 1]] if for_metadata else []))
    return table


# --------------------------------------------------------------------------------------------- while it lasts


class _Rows(ProgressColumn):
    """Rows so far, and how many a second."""

    def render(self, task: Task) -> Text:
        rows = int(task.fields.get("rows", 0))
        seconds = task.elapsed or 0.0
        rate = f"{rows / seconds:,.0f} rows/s" if rows and seconds > 0 else ""
        return Text(f"{rows_text(rows)}  {rate}")


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, float | None], None]]:
    """A progress bar on standard error where that is a terminal: rows, rate, time left.

    Gives update(rows, fraction): rows done, and the share of the work from 0 to 1, or None when nobody knows.
    """
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda _rows, _fraction: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(30), _Rows(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(title, total=None, rows=0)

        def update(rows: int, fraction: float | None) -> None:
            progress.update(task, rows=rows, completed=fraction or 0.0, total=None if fraction is None else 1.0)

        yield update


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """So far."""
        return time.perf_counter() - self._start
