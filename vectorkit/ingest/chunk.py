"""Long texts in pieces that a search can answer with: Markdown by headings and paragraphs, plain text by paragraphs.

Ours and not a library's since the ready-made splitters either name no section, or bring a compiled wheel or a tokenizer.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vectorkit.errors import InvalidArgument

SIZE = 1000
"""Characters a chunk may have."""

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*\Z")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*\Z")
_NO_TITLE = re.compile(r"\s*(?:[-*+>|]|\d+[.)])")
# The best place to cut a long paragraph: after a line, after a sentence, after a word.
_CUTS = (re.compile(r"\n"), re.compile(r"[.!?…][\"')\]]*\s"), re.compile(r"\s"))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a text. section: the headings it stands under, as in "Guide > Install". line: its first, from 1."""

    text: str
    section: str
    line: int


@dataclass(frozen=True, slots=True)
class _Block:
    text: str
    section: str
    line: int
    heading: bool = False


def chunk_markdown(lines: Iterable[str], *, size: int = SIZE) -> Iterator[Chunk]:
    """Chunks of at most `size` characters, lazily. Every heading begins one, and stands in it.

    A heading without a text of its own goes with the one below it. Fenced code is kept together while it fits, and no `#`
    in it is a heading. A YAML front matter is left out. Raises InvalidArgument for a size under 50.
    """
    return _pack(_markdown_blocks(lines, 32 * size), _check_size(size))


def chunk_text(lines: Iterable[str], *, size: int = SIZE) -> Iterator[Chunk]:
    """Chunks of at most `size` characters, lazily, cut between paragraphs where that fits, else between sentences."""
    return _pack(_paragraphs(lines, 32 * size), _check_size(size))


def _check_size(size: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 50:
        raise InvalidArgument(f"a chunk's size is an int of at least 50 characters, got {size!r}")
    return size


# --------------------------------------------------------------------------------------------- blocks


class _Paragraph:
    """Lines until they are a block. `limit` ends a block that would never end, so that memory stays bounded."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lines: list[str] = []
        self.line = 0
        self.length = 0

    def add(self, line: str, number: int) -> bool:
        """Take a line; whether the block is full."""
        if not self.lines:
            self.line = number
        self.lines.append(line)
        self.length += len(line) + 1
        return self.length > self.limit

    def take(self, section: str) -> Iterator[_Block]:
        """The block, if there is one, and begin anew."""
        text = "\n".join(self.lines).rstrip()
        if text.strip():
            yield _Block(text, section, self.line)
        self.lines = []
        self.length = 0


def _paragraphs(lines: Iterable[str], limit: int) -> Iterator[_Block]:
    held = _Paragraph(limit)
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip()
        if not line or held.add(line, number):
            yield from held.take("")
    yield from held.take("")


def _markdown_blocks(lines: Iterable[str], limit: int) -> Iterator[_Block]:
    held = _Paragraph(limit)
    headings: list[tuple[int, str]] = []
    section = ""
    fence = ""
    front_matter = False
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip()
        if number == 1 and line == "---":
            front_matter = True
        elif front_matter:
            front_matter = line not in {"---", "..."}
        elif fence:
            full = held.add(line, number)
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
                full = True
            if full:
                yield from held.take(section)
        elif not line:
            yield from held.take(section)
        elif opening := _FENCE.match(line):
            yield from held.take(section)
            held.add(line, number)
            fence = opening[1]
        elif heading := _HEADING.match(line):
            yield from held.take(section)
            section = _enter(headings, len(heading[1]), (heading[2] or "").strip())
            yield _Block(line.strip(), section, number, heading=True)
        elif len(held.lines) == 1 and not _NO_TITLE.match(held.lines[0]) and (underline := _UNDERLINE.match(line)):
            title, first = held.lines[0], held.line
            held.lines = []
            section = _enter(headings, 1 if underline[1][0] == "=" else 2, title.strip())
            yield _Block(f"{title}\n{line}", section, first, heading=True)
        elif held.add(line, number):
            yield from held.take(section)
    yield from held.take(section)


def _enter(headings: list[tuple[int, str]], level: int, title: str) -> str:
    while headings and headings[-1][0] >= level:
        headings.pop()
    headings.append((level, title))
    return " > ".join(title for _, title in headings if title)


# --------------------------------------------------------------------------------------------- chunks


def _pack(blocks: Iterable[_Block], size: int) -> Iterator[Chunk]:
    held: list[_Block] = []
    length = 0
    for block in blocks:
        for piece in _split(block, size):
            new_section = piece.heading and not all(b.heading for b in held)
            if held and (new_section or length + 2 + len(piece.text) > size):
                yield _join(held)
                held = []
                length = 0
            length += len(piece.text) + (2 if held else 0)
            held.append(piece)
    if held:
        yield _join(held)


def _join(blocks: list[_Block]) -> Chunk:
    return Chunk("\n\n".join(block.text for block in blocks), blocks[-1].section, blocks[0].line)


def _split(block: _Block, size: int) -> Iterator[_Block]:
    text, line = block.text, block.line
    while len(text) > size:
        end = _cut(text, size)
        piece = text[:end].rstrip()
        yield replace(block, text=piece, line=line)
        rest = text[end:].lstrip("\n ")
        line += text[: len(text) - len(rest)].count("\n")
        text = rest
    if text:
        yield replace(block, text=text, line=line)


def _cut(text: str, size: int) -> int:
    for pattern in _CUTS:
        ends = [found.end() for found in pattern.finditer(text, size // 2, size)]
        if ends:
            return ends[-1]
    return size
