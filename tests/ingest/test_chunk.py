"""Chunks: where Markdown is cut, which heading stands over a piece, that nothing is lost and memory stays bounded."""

import re
from itertools import count, islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectorkit as vk
from vectorkit.ingest.chunk import Chunk, chunk_markdown, chunk_text

GUIDE = """---
title: ignored
# not a heading: it is front matter
---
Before any heading.

# Guide

## Install

Run it:

```sh
# no heading either

pip list
```

After.

Setext
------

Under setext.

### Deep ###
Body right below.

# Second
last
"""


def lines(text: str) -> list[str]:
    return text.split("\n")


def test_markdown_is_cut_at_headings_and_names_them() -> None:
    assert list(chunk_markdown(lines(GUIDE))) == [
        Chunk("Before any heading.", "", 5),
        Chunk(
            "# Guide\n\n## Install\n\nRun it:\n\n```sh\n# no heading either\n\npip list\n```\n\nAfter.",
            "Guide > Install",
            7,
        ),
        Chunk("Setext\n------\n\nUnder setext.", "Guide > Setext", 21),
        Chunk("### Deep ###\n\nBody right below.", "Guide > Setext > Deep", 26),
        Chunk("# Second\n\nlast", "Second", 29),
    ]


def test_a_heading_alone_at_the_end_is_not_lost() -> None:
    assert list(chunk_markdown(["# A", "", "# B"])) == [Chunk("# A\n\n# B", "B", 1)]


def test_what_looks_like_a_heading_and_is_none() -> None:
    found = list(
        chunk_markdown(["#hashtag", "", "    # code", "", "- item", "---", "", "| a |", "---", "", "#", "", "x"])
    )
    assert [chunk.section for chunk in found] == ["", ""]
    assert found[1].text == "#\n\nx"


def test_an_unclosed_fence_runs_to_the_end() -> None:
    assert list(chunk_markdown(["```", "# a", "", "b"])) == [Chunk("```\n# a\n\nb", "", 1)]


def test_a_longer_fence_holds_a_shorter_one() -> None:
    text = "````\n```\n# no\n```\n````\n# yes"
    assert [chunk.section for chunk in chunk_markdown(lines(text))] == ["", "yes"]


def test_paragraphs_share_a_chunk_while_they_fit() -> None:
    text = "a" * 30 + "\n\n" + "b" * 30 + "\n\n\n" + "c" * 30
    assert list(chunk_text(lines(text), size=64)) == [
        Chunk("a" * 30 + "\n\n" + "b" * 30, "", 1),
        Chunk("c" * 30, "", 6),
    ]


def test_a_long_paragraph_is_cut_after_lines_sentences_words() -> None:
    by_line = list(chunk_text(["x" * 40, "y" * 40, "z" * 40], size=90))
    assert [chunk.text for chunk in by_line] == ["x" * 40 + "\n" + "y" * 40, "z" * 40]
    assert [chunk.line for chunk in by_line] == [1, 3]
    by_sentence = list(chunk_text(["One is first. " + "word " * 6 + "end. Then more words follow here."], size=50))
    assert [chunk.text for chunk in by_sentence] == [
        "One is first. word word word word word word end.",
        "Then more words follow here.",
    ]
    by_word = list(chunk_text(["abcdefghi " * 12], size=50))
    assert [chunk.text for chunk in by_word] == ["abcdefghi " * 4 + "abcdefghi"] * 2 + ["abcdefghi abcdefghi"]
    nowhere = list(chunk_text(["q" * 120], size=50))
    assert [len(chunk.text) for chunk in nowhere] == [50, 50, 20]


@pytest.mark.parametrize("split", [chunk_text, chunk_markdown])
@given(text=st.text(alphabet="ab #=-`\n.é", max_size=400), size=st.integers(50, 120))
def test_no_chunk_is_too_long_and_no_word_is_lost(split: Any, text: str, size: Any) -> None:
    if split is chunk_markdown and text.startswith("---"):
        text = "a" + text
    chunks = list(split(lines(text), size=size))
    assert all(0 < len(chunk.text) <= size for chunk in chunks)
    written = re.sub(r"\s", "", text)
    assert re.sub(r"\s", "", "".join(chunk.text for chunk in chunks)) == written
    assert [chunk.line for chunk in chunks] == sorted(chunk.line for chunk in chunks)


@pytest.mark.parametrize("split", [chunk_text, chunk_markdown])
def test_a_file_without_end_is_cut_as_it_is_read(split: Any) -> None:
    endless = (f"line {number} of one paragraph" for number in count())
    chunks = list(islice(split(endless), 200))
    assert len(chunks) == 200
    assert int(next(endless).split()[1]) < 12_000  # it did not read on: 200 chunks of 1,000 characters are 8,000 lines


@pytest.mark.parametrize("size", [0, 49, True, 100.0, "100"])
def test_a_size_that_cannot_be_is_refused(size: Any) -> None:
    with pytest.raises(vk.InvalidArgument, match="at least 50 characters"):
        chunk_text(["a"], size=size)
