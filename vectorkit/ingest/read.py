"""Files and folders as a lazy stream of rows: JSON Lines, CSV, Parquet, text and Markdown.

A reader never holds more than a line, a row group's batch or a chunk, and knows the line of everything it gives out.
"""

import csv
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias, get_args

from vectorkit.errors import ConfigError, InvalidArgument, InvalidRecord
from vectorkit.ingest.chunk import SIZE, Chunk, chunk_markdown, chunk_text
from vectorkit.ingest.rows import BadValue, Row, cell, json_list, json_object, record_of, stable_id
from vectorkit.types import Record

Format: TypeAlias = Literal["jsonl", "csv", "tsv", "parquet", "text", "markdown"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: Mapping[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".log": "text",
    ".md": "markdown",
    ".markdown": "markdown",
}
_CELL = 2**27  # characters that a CSV cell may have; the csv module's own limit is 131,072, less than a long text


class Files:
    """The rows of files and folders, in the order given; a folder's files sorted by path, hidden ones left out.

    paths: files, folders, or "-" for standard input (JSON Lines unless `format` says otherwise). format: read every file as
    this; None goes by the suffix, and takes those of a folder's files that have a known one. fields: the collection's declared types,
    which CSV cells are converted to. chunk: characters of a piece of text.

    Tables: the columns id, vector, text, metadata and expires_at are taken as such, every other column is metadata. An
    integer id becomes its decimal text; without one, see `rows.stable_id`. In CSV an empty cell is an absent value,
    vectors and lists are JSON arrays, metadata a JSON object. Texts become rows with the metadata `source` (the path as given),
    `section` (Markdown headings, where there are any) and `chunk` (from 0).

    Iterating raises InvalidRecord naming file and line, and ConfigError when Parquet needs pyarrow. Constructing raises InvalidArgument for
    a path that is not there or whose format is unknown.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        format: Format | None = None,
        fields: Mapping[str, Any] | None = None,
        chunk: int = SIZE,
    ) -> None:
        if isinstance(paths, str | os.PathLike):
            raise InvalidArgument("paths is a list of paths, not one path")
        if format is not None and format not in FORMATS:
            raise InvalidArgument(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
        self.fields: Mapping[str, Any] = dict(fields or {})
        self.chunk = chunk
        self.files = [found for path in paths for found in _find(os.fspath(path), format)]
        self._sizes = [0 if name == "-" else Path(name).stat().st_size for name, _ in self.files]
        self._done = 0
        self._position: Callable[[], float] = lambda: 0.0

    @property
    def fraction(self) -> float | None:
        """How much of the bytes has been read, 0 to 1; None while that cannot be known (standard input)."""
        if any(name == "-" for name, _ in self.files):
            return None
        total = sum(self._sizes)
        return min(1.0, (sum(self._sizes[: self._done]) + self._position()) / total) if total else 1.0

    def __iter__(self) -> Iterator[Row]:
        self._done = 0
        for at, (name, format) in enumerate(self.files):  # noqa: A001
            self._done = at
            self._position = lambda: 0.0
            yield from self._read(name, format)
        self._done = len(self.files)
        self._position = lambda: 0.0

    def _read(self, name: str, format: Format) -> Iterator[Row]:
        if format == "parquet":
            yield from self._parquet(name)
            return
        with _open(name) as stream:
            if name != "-":
                self._position = lambda: 0.0 if stream.closed else stream.tell()
            match format:
                case "jsonl":
                    yield from self._json_lines(name, stream)
                case "csv" | "tsv":
                    yield from self._csv(name, stream, "," if format == "csv" else "\t")
                case "text":
                    yield from self._texts(name, chunk_text(_lines(name, stream), size=self.chunk))
                case "markdown":
                    yield from self._texts(name, chunk_markdown(_lines(name, stream), size=self.chunk))

    def _row(self, place: str, name: str, values: Mapping[str, Any]) -> Row:
        return Row(record_of(values, source=_source(name), fields=self.fields), place)

    def _json_lines(self, name: str, stream: BinaryIO) -> Iterator[Row]:
        for number, raw in enumerate(stream, 1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if not line.strip():
                continue
            place = f"{_source(name)}, line {number}"
            try:
                yield self._row(place, name, json_object(line, "the line"))
            except BadValue as error:
                raise error.at(place) from None

    def _csv(self, name: str, stream: BinaryIO, delimiter: str) -> Iterator[Row]:
        # A byte that is no UTF-8 becomes a lone surrogate, so that the line it stands in can be named.
        text = TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        csv.field_size_limit(max(csv.field_size_limit(), _CELL))
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        try:
            while True:
                place = f"{_source(name)}, line {reader.line_num + 1}"
                try:
                    cells = next(reader, None)
                    if cells is None:
                        break
                    if not cells:
                        continue
                    if header is None:
                        header = _header(cells)
                        continue
                    yield self._row(place, name, self._cells(header, cells))
                except csv.Error as error:
                    raise InvalidRecord(f"{place}: {error}") from None
                except BadValue as error:
                    raise error.at(place) from None
        finally:
            text.detach()  # whoever opened the stream closes it
        if header is None:
            raise InvalidRecord(f"{_source(name)} is empty; a table begins with the names of its columns")

    def _cells(self, header: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
        if len(cells) != len(header):
            raise BadValue(f"the line has {len(cells)} cells, the header {len(header)}")
        values: dict[str, Any] = {}
        for name, text in zip(header, cells, strict=True):
            if not text:
                continue
            if not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text):
                raise BadValue(f"the cell {name!r} is not UTF-8", name)
            if name == "vector":
                values[name] = json_list(text, name)
            elif name in {"id", "text", "metadata", "expires_at"}:
                values[name] = text
            else:
                values[name] = cell(text, name, self.fields.get(name))
        return values

    def _texts(self, name: str, chunks: Iterable[Chunk]) -> Iterator[Row]:
        source = _source(name)
        seen: Counter[str] = Counter()
        for number, chunk in enumerate(chunks):
            # The id comes from the text alone, so that a paragraph added above does not give every later one a new id.
            id = stable_id(source, Record("", None, chunk.text))  # noqa: A001
            seen[id] += 1
            if seen[id] > 1:
                id = stable_id(source, Record("", None, chunk.text, {"again": seen[id]}))  # noqa: A001
            metadata: dict[str, Any] = {"source": source, "chunk": number}
            if chunk.section:
                metadata["section"] = chunk.section
            yield Row(Record(id, None, chunk.text, metadata), f"{source}, line {chunk.line}")

    def _parquet(self, name: str) -> Iterator[Row]:
        pa, parquet = _pyarrow(name)
        source = _source(name)
        number = 0
        try:
            with parquet.ParquetFile(name) as file:
                size = Path(name).stat().st_size
                for batch in file.iter_batches(batch_size=1024):
                    columns = {column: _column(batch.column(column), column) for column in batch.schema.names}
                    for at in range(batch.num_rows):
                        number += 1
                        place = f"{source}, row {number}"
                        try:
                            yield self._row(place, name, {column: values[at] for column, values in columns.items()})
                        except BadValue as error:
                            raise error.at(place) from None
                    read = size * number / max(1, file.metadata.num_rows)
                    self._position = lambda read=read: read  # type: ignore[misc]
        except (pa.ArrowException, ValueError) as error:
            if isinstance(error, InvalidRecord):
                raise
            raise InvalidRecord(f"{source}, after row {number}: cannot be read as Parquet: {error}") from error


# --------------------------------------------------------------------------------------------- finding files


def _find(name: str, format: Format | None) -> Iterator[tuple[str, Format]]:
    if name == "-":
        if format == "parquet":
            raise InvalidArgument("Parquet cannot be read from standard input; save it to a file")
        yield name, format or "jsonl"
        return
    if Path(name).is_dir():
        yield from _walk(name, format)
        return
    if not Path(name).exists():
        raise InvalidArgument(f"there is no file or folder {name!r}")
    found = format or SUFFIXES.get(Path(name).suffix.lower())
    if found is None:
        raise InvalidArgument(
            f"{name!r} has no suffix that tells its format ({', '.join(SUFFIXES)}); name one of {', '.join(FORMATS)}"
        )
    yield name, found


def _walk(root: str, format: Format | None) -> Iterator[tuple[str, Format]]:
    count = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            known = SUFFIXES.get(Path(file).suffix.lower())
            if known is not None and not file.startswith(".") and (format is None or known == format):
                count += 1
                yield str(Path(folder, file)), known
    if not count:
        raise InvalidArgument(f"the folder {root!r} holds no file to load ({', '.join(SUFFIXES)})")


def _source(name: str) -> str:
    return "-" if name == "-" else Path(os.path.normpath(name)).as_posix()


# --------------------------------------------------------------------------------------------- opening them


class _Stdin:
    """Standard input as a file that is not ours to close."""

    def __enter__(self) -> BinaryIO:
        return sys.stdin.buffer

    def __exit__(self, *_: object) -> None:
        pass


def _open(name: str) -> Any:
    return _Stdin() if name == "-" else open(name, "rb")  # noqa: PTH123


def _lines(name: str, stream: BinaryIO) -> Iterator[str]:
    for number, raw in enumerate(stream, 1):
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            raise InvalidRecord(f"{_source(name)}, line {number}: not UTF-8: {error.reason}") from None
        yield (line.removeprefix("\ufeff") if number == 1 else line).rstrip("\r\n")


def _header(cells: Sequence[str]) -> list[str]:
    for at, name in enumerate(cells, 1):
        if not name:
            raise BadValue(f"column {at} has no name")
    repeated = [name for name, count in Counter(cells).items() if count > 1]
    if repeated:
        raise BadValue(f"the column {repeated[0]!r} is there twice")
    return list(cells)


def _pyarrow(name: str) -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(f"{name!r}: reading Parquet needs pyarrow; pip install pyarrow") from None
    return pa, parquet


def _column(column: Any, name: str) -> list[Any]:
    if name == "vector" and hasattr(column.type, "list_size") and column.type.list_size > 0 and not column.null_count:
        flat = column.flatten()
        if not flat.null_count:
            return list(
                flat.to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size).astype("float32")
            )
    values: list[Any] = column.to_pylist()
    return values
