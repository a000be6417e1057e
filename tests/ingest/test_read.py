"""Readers: every format gives the same rows, every fault its file and line, and nothing is read before it is asked for."""

import csv
import io
import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectorkit as vk
from vectorkit.ingest.read import Files
from vectorkit.ingest.rows import Row, stable_id
from vectorkit.types import Record

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
FIELDS = {
    "year": int,
    "price": float,
    "open": bool,
    "born": datetime,
    "tags": list[str],
    "days": list[datetime],
    "name": str,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(*paths: Any, **options: Any) -> list[Record]:
    return [row.record for row in Files([*paths], **options)]


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8", newline="")
    return path


# --------------------------------------------------------------------------------------------- JSON Lines


def test_json_lines(here: Path) -> None:
    write(
        here / "a.jsonl",
        """{"id": "a", "text": "red", "vector": [1, 0.5], "year": 2020, "gone": null}

{"id": 7, "metadata": {"tags": ["x"], "a.b": {"n": null}, "$$x": 1}, "born": {"$date": "2024-05-01T12:00:00Z"}}
{"id": "c", "text": "", "expires_at": "2024-05-01T14:00:00+02:00"}""",
    )
    a, b, c = records("a.jsonl")
    assert a == Record("a", np.array([1, 0.5], np.float32), "red", {"year": 2020})
    assert b == Record("7", None, None, {"tags": ["x"], "a.b": {"n": None}, "$x": 1, "born": NOON})
    assert c == Record("c", None, "", {}, NOON)


def test_places_are_lines(here: Path) -> None:
    write(here / "a.jsonl", '\n{"id":"a"}\n\n{"id":"b"}')
    assert [row.place for row in Files(["./a.jsonl"])] == ["a.jsonl, line 2", "a.jsonl, line 4"]


def test_a_byte_order_mark_and_windows_lines_are_no_content(here: Path) -> None:
    (here / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"id":"a"}\r\n{"id":"b"}\r\n')
    assert [r.id for r in records("a.jsonl")] == ["a", "b"]
    (here / "a.csv").write_bytes(b"\xef\xbb\xbfid,text\r\na,x\r\n")
    assert records("a.csv") == [Record("a", None, "x")]
    (here / "a.md").write_bytes(b"\xef\xbb\xbf# T\r\nx\r\n")
    assert records("a.md")[0].metadata == {"source": "a.md", "chunk": 0, "section": "T"}


def test_dates_in_declared_fields_are_read_as_dates(here: Path) -> None:
    write(
        here / "a.jsonl",
        '{"id":"a","born":"2024-05-01T12:00:00Z","days":["2024-05-01T12:00:00Z"],"other":"2024-05-01T12:00:00Z"}',
    )
    (row,) = records("a.jsonl", fields=FIELDS)
    assert row.metadata == {"born": NOON, "days": [NOON], "other": "2024-05-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("line", "told", "field"),
    [
        (b"{", "the line is no JSON object: Expecting property name", None),
        (b"[1]", "the line is no JSON object, or", None),
        (b'"text"', "the line is no JSON object, or", None),
        (b"[" * 100_000, "the line is no JSON object", None),
        (b'{"id": "\xff"}', "the line is not UTF-8", None),
        (b'{"x": {"$date": 5}}', "the line is no JSON object, or holds a $date that is none", None),
        (b'{"x": {"$date": "soon"}}', "the line is no JSON object, or holds a $date that is none", None),
        (b'{"id": 1.5}', "id must be a string or an integer, got float", "id"),
        (b'{"id": true}', "id must be a string or an integer, got bool", "id"),
        (b'{"text": 5}', "text must be a string, got int", "text"),
        (b'{"vector": "1,2"}', "vector must be a list of numbers, got '1,2'", "vector"),
        (b'{"vector": []}', "vector must be a list of numbers, got []", "vector"),
        (b'{"vector": [1, "a"]}', "vector must be a list of numbers", "vector"),
        (b'{"vector": [[1], [2]]}', "vector must be a list of numbers", "vector"),
        (b'{"vector": [true, false]}', "vector must be a list of numbers", "vector"),
        (b'{"metadata": [1]}', "metadata must be an object", "metadata"),
        (b'{"metadata": 5}', "metadata must be an object, got int", "metadata"),
        (b'{"metadata": {"x": 1}, "x": 2}', "'x' is both a column and a key of the metadata column", "x"),
        (b'{"expires_at": 5}', "expires_at takes a date like 2024-05-01T12:00:00Z, got 5", "expires_at"),
        (b'{"expires_at": "2024-05-01T12:00:00"}', "'expires_at' takes a date with a timezone", "expires_at"),
        (b'{"born": "1 May"}', "'born' takes a date like 2024-05-01T12:00:00Z, got '1 May'", "born"),
    ],
)
def test_a_bad_line_is_named_and_the_ones_before_it_are_given(
    here: Path, line: bytes, told: str, field: str | None
) -> None:
    (here / "bad.jsonl").write_bytes(b'{"id":"a"}\n{"id":"b"}\n' + line + b'\n{"id":"d"}\n')
    rows = iter(Files(["bad.jsonl"], fields=FIELDS))
    assert [next(rows).record.id, next(rows).record.id] == ["a", "b"]
    with pytest.raises(vk.InvalidRecord) as caught:
        next(rows)
    assert str(caught.value).startswith(f"bad.jsonl, line 3: {told}")
    assert caught.value.field == field


# --------------------------------------------------------------------------------------------- CSV


def test_csv_cells_are_text_unless_their_field_is_declared(here: Path) -> None:
    write(
        here / "a.csv",
        "id,text,year,price,open,born,tags,days,name,other,vector\n"
        'a,"two\nlines, and ""quotes""",2020,1.5,TRUE,2024-05-01T12:00:00Z,"[""x"",""y""]",'
        '"[""2024-05-01T12:00:00Z""]",7,8,"[1,2]"\n'
        "b,,-3,2,0,,,,,,\n",
    )
    a, b = records("a.csv", fields=FIELDS)
    assert a == Record(
        "a",
        np.array([1, 2], np.float32),
        'two\nlines, and "quotes"',
        {
            "year": 2020,
            "price": 1.5,
            "open": True,
            "born": NOON,
            "tags": ["x", "y"],
            "days": [NOON],
            "name": "7",
            "other": "8",
        },
    )
    assert b == Record("b", None, None, {"year": -3, "price": 2.0, "open": False})
    assert type(b.metadata["price"]) is float
    assert records("a.csv")[1].metadata == {"year": "-3", "price": "2", "open": "0"}


def test_csv_metadata_and_expiry_columns(here: Path) -> None:
    write(here / "a.csv", 'id,metadata,expires_at\na,"{""n"": 1}",2024-05-01T12:00:00Z\n')
    assert records("a.csv") == [Record("a", None, None, {"n": 1}, NOON)]


def test_tab_separated(here: Path) -> None:
    write(here / "a.tsv", "id\ttext\na\tx, y\n")
    assert records("a.tsv") == [Record("a", None, "x, y")]


def test_a_cell_may_be_longer_than_the_csv_modules_own_limit(here: Path) -> None:
    write(here / "a.csv", "id,text\na," + "x" * 300_000 + "\n")
    assert len(records("a.csv")[0].text or "") == 300_000


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ("20x,,,,,", "field 'year' is declared int, got '20x'"),
        ("1_0,,,,,", "field 'year' is declared int, got '1_0'"),
        ("١,,,,,", "field 'year' is declared int, got '١'"),
        ("1.0,,,,,", "field 'year' is declared int, got '1.0'"),
        (" 1,,,,,", "field 'year' is declared int, got ' 1'"),
        (",nan,,,,", "field 'price' is declared float, got 'nan'"),
        (",1e,,,,", "field 'price' is declared float, got '1e'"),
        (",,yes,,,", "field 'open' is declared bool, got 'yes'"),
        (",,,today,,", "'born' takes a date like 2024-05-01T12:00:00Z, got 'today'"),
        (",,,2024-05-01,,", "'born' takes a date with a timezone"),
        (",,,,x,", "field 'tags' is declared a list and takes a JSON array, got 'x'"),
        (",,,,5,", "field 'tags' is declared a list and takes a JSON array, got '5'"),
        (",,,,,1", "vector must be a JSON array of numbers, got '1'"),
        (",,,,,[1", "vector is no JSON array"),
        (",,,,", "the line has 5 cells, the header 6"),
        (",,,,,,", "the line has 7 cells, the header 6"),
        ('"a"b,,,,,', "',' expected after '\"'"),
    ],
)
def test_a_bad_csv_row_is_named(here: Path, cells: str, told: str) -> None:
    write(here / "bad.csv", f"year,price,open,born,tags,vector\n2020,1,1,,,\n{cells}\n")
    rows = iter(Files(["bad.csv"], fields=FIELDS))
    assert next(rows).record.metadata == {"year": 2020, "price": 1.0, "open": True}
    with pytest.raises(vk.InvalidRecord) as caught:
        next(rows)
    assert str(caught.value).startswith(f"bad.csv, line 3: {told}")


def test_a_row_is_named_by_its_first_line(here: Path) -> None:
    write(here / "a.csv", 'id,text\na,"1\n2\n3"\nb,"x\ny",z\n')
    with pytest.raises(vk.InvalidRecord, match=r"^a\.csv, line 5: the line has 3 cells"):
        records("a.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a.csv is empty"),
        ("id,id\n", "a.csv, line 1: the column 'id' is there twice"),
        ("id,,x\n", "a.csv, line 1: column 2 has no name"),
    ],
)
def test_a_bad_header(here: Path, text: str, told: str) -> None:
    write(here / "a.csv", text)
    with pytest.raises(vk.InvalidRecord, match=told):
        records("a.csv")


def test_csv_that_is_no_utf8_is_named_by_line(here: Path) -> None:
    (here / "a.csv").write_bytes(b"id,text\na,x\nb,caf\xe9\n")
    with pytest.raises(vk.InvalidRecord, match=r"^a\.csv, line 3: the cell 'text' is not UTF-8$"):
        records("a.csv")


# --------------------------------------------------------------------------------------------- Parquet


def test_parquet(here: Path) -> None:
    table = pa.table(
        {
            "id": ["a", "b", None],
            "vector": pa.array([[1.0, 0.5], None, [3.0, 4.0]], pa.list_(pa.float32())),
            "text": ["red", "", None],
            "year": pa.array([2020, None, 2022], pa.int64()),
            "big": pa.array([2**63 - 1, -(2**63), 0], pa.int64()),
            "when": pa.array([NOON, NOON + timedelta(microseconds=1), None], pa.timestamp("us", "UTC")),
            "tags": pa.array([["x"], [], None], pa.list_(pa.string())),
            "metadata": pa.array([{"n": 1}, None, {"n": None}], pa.struct([("n", pa.int64())])),
            "expires_at": pa.array([NOON, None, None], pa.timestamp("us", "Europe/Berlin")),
        }
    )
    pq.write_table(table, here / "a.parquet")
    a, b, c = records("a.parquet")
    assert a == Record(
        "a", np.array([1, 0.5]), "red", {"n": 1, "year": 2020, "big": 2**63 - 1, "when": NOON, "tags": ["x"]}, NOON
    )
    assert b == Record("b", None, "", {"big": -(2**63), "when": NOON + timedelta(microseconds=1), "tags": []})
    assert c == Record(c.id, np.array([3, 4]), None, {"year": 2022, "big": 0})
    assert len(c.id) == 32


def test_parquet_vectors_without_nulls_and_metadata_as_text_or_map(here: Path) -> None:
    vectors = np.random.default_rng(1).normal(size=(2500, 8)).astype(np.float32)
    table = pa.table(
        {
            "id": [str(i) for i in range(2500)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8),
            "metadata": ['{"n": 1}'] * 2500,
        }
    )
    pq.write_table(table, here / "a.parquet", row_group_size=1000)
    rows = [*Files(["a.parquet"])]
    np.testing.assert_array_equal(np.vstack([row.record.vector for row in rows]), vectors)
    assert rows[2499].place == "a.parquet, row 2500"
    assert rows[0].record.metadata == {"n": 1}
    pq.write_table(pa.table({"metadata": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}), here / "m.parquet")
    assert records("m.parquet")[0].metadata == {"k": 1}


def test_a_bad_parquet_row_is_named(here: Path) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "metadata": ['{"n":1}', "{"]}), here / "a.parquet")
    rows = iter(Files(["a.parquet"]))
    assert next(rows).record.id == "a"
    with pytest.raises(vk.InvalidRecord, match=r"^a\.parquet, row 2: the metadata column is no JSON object"):
        next(rows)


def test_what_is_no_parquet(here: Path) -> None:
    write(here / "a.parquet", "hello")
    with pytest.raises(vk.InvalidRecord, match=r"^a\.parquet, after row 0: cannot be read as Parquet"):
        records("a.parquet")


def test_parquet_without_pyarrow_names_what_to_install(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here / "a.parquet", "x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(vk.ConfigError, match=r"^'a\.parquet': reading Parquet needs pyarrow; pip install pyarrow$"):
        records("a.parquet")


# --------------------------------------------------------------------------------------------- the formats agree

plain_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
scalars = st.one_of(
    plain_text, st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)
row = st.fixed_dictionaries(
    {"id": plain_text, "text": plain_text, "vector": st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3)},
    optional={
        "n": st.integers(-(2**63), 2**63 - 1),
        "w": st.floats(-1e300, 1e300),
        "b": st.booleans(),
        "s": plain_text,
    },
)


@given(rows=st.lists(row, min_size=1, max_size=8))
def test_json_lines_csv_and_parquet_give_the_same_rows(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("agree")
    names = ["id", "text", "vector", "n", "w", "b", "s"]
    (folder / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(names)
    for r in rows:
        cells = [json.dumps(r["vector"]) if name == "vector" else r.get(name, "") for name in names]
        writer.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in cells])
    write(folder / "a.csv", out.getvalue())
    kinds = {"n": pa.int64(), "w": pa.float64(), "b": pa.bool_(), "vector": pa.list_(pa.float32())}
    columns = {name: pa.array([r.get(name) for r in rows], kinds.get(name, pa.string())) for name in names}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    fields = {"n": int, "w": float, "b": bool, "s": str}
    wanted = [
        Record(r["id"], np.array(r["vector"], np.float32), r["text"], {n: r[n] for n in ("n", "w", "b", "s") if n in r})
        for r in rows
    ]
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        assert records(folder / name, fields=fields) == wanted, name


# --------------------------------------------------------------------------------------------- ids


def test_a_row_without_an_id_gets_one_from_its_content(here: Path) -> None:
    write(
        here / "a.jsonl",
        '{"text":"x","n":1}\n{"text":"x","n":2}\n{"text":"x","n":1}\n{"vector":[1,2]}\n{"id":"","text":"y"}',
    )
    first = [r.id for r in records("a.jsonl")]
    assert first == [r.id for r in records("./a.jsonl")]
    assert first[0] == first[2]
    assert len(set(first)) == 4
    assert {len(made) for made in first} == {32}
    write(here / "b.jsonl", '{"text":"x","n":1}')
    assert records("b.jsonl")[0].id != first[0]  # another source


def test_stable_ids_are_the_same_in_every_version() -> None:
    assert stable_id("a.jsonl", Record("", None, "x", {"n": 1})) == "d6b1e9e1ed88fabf88ce5ff86c607e0c"
    assert stable_id("é", Record("", [1, 2], None)) == "2f1aee0a271b586ddf3dcf938ef44acb"


def test_what_is_joined_differently_has_another_id() -> None:
    ids = {stable_id(s, Record("", None, t)) for s, t in (("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"))}
    assert len(ids) == 4


# --------------------------------------------------------------------------------------------- texts and folders


def test_text_and_markdown_become_chunks(here: Path) -> None:
    (here / "docs").mkdir()
    write(here / "docs" / "b.md", "# A\n\none\n\n## B\n\ntwo\n")
    write(here / "docs" / "a.txt", "first\n\nsecond\n\n" + "x" * 60)
    rows = [*Files(["docs"], chunk=50)]
    assert [(row.record.text, row.record.metadata, row.place) for row in rows] == [
        ("first\n\nsecond", {"source": "docs/a.txt", "chunk": 0}, "docs/a.txt, line 1"),
        ("x" * 50, {"source": "docs/a.txt", "chunk": 1}, "docs/a.txt, line 5"),
        ("x" * 10, {"source": "docs/a.txt", "chunk": 2}, "docs/a.txt, line 5"),
        ("# A\n\none", {"source": "docs/b.md", "chunk": 0, "section": "A"}, "docs/b.md, line 1"),
        ("## B\n\ntwo", {"source": "docs/b.md", "chunk": 1, "section": "A > B"}, "docs/b.md, line 5"),
    ]


def test_the_same_paragraph_twice_in_a_file_is_two_rows_and_keeps_its_ids(here: Path) -> None:
    write(here / "a.txt", "same " * 12 + "\n\n" + "same " * 12 + "\n\n" + "other " * 9)
    before = [r.id for r in records("a.txt", chunk=60)]
    assert len(set(before)) == 3
    write(here / "a.txt", "new " * 13 + "\n\n" + "same " * 12 + "\n\n" + "same " * 12 + "\n\n" + "other " * 9)
    assert [r.id for r in records("a.txt", chunk=60)][1:] == before


def test_text_that_is_no_utf8_is_named_by_line(here: Path) -> None:
    (here / "a.txt").write_bytes(b"one\ntwo\n\xff\n")
    with pytest.raises(vk.InvalidRecord, match=r"^a\.txt, line 3: not UTF-8"):
        records("a.txt")


def test_a_folder_is_walked_in_order_without_hidden_and_unknown_files(here: Path) -> None:
    for name in ("z.txt", "a/b.md", "a/.hidden.md", ".git/x.txt", "a/photo.png", "c.jsonl", "B.TXT"):
        (here / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        write(here / "all" / name, '{"id":"j"}' if name.endswith("jsonl") else "text")
    assert [name for name, _ in Files(["all"]).files] == ["all/B.TXT", "all/c.jsonl", "all/z.txt", "all/a/b.md"]
    assert [name for name, _ in Files(["all"], format="markdown").files] == ["all/a/b.md"]


def test_an_empty_text_is_no_row(here: Path) -> None:
    write(here / "a.txt", "\n \n")
    write(here / "b.jsonl", "\n\n")
    assert records("a.txt", "b.jsonl") == []


@pytest.mark.parametrize(
    ("paths", "options", "told"),
    [
        (["nosuch.csv"], {}, "there is no file or folder 'nosuch.csv'"),
        (["a.docx"], {}, "'a.docx' has no suffix that tells its format"),
        (["empty"], {}, "the folder 'empty' holds no file to load"),
        (["a.docx"], {"format": "xml"}, "unknown format 'xml'; known are jsonl, csv"),
        ("a.docx", {}, "paths is a list of paths"),
        (["-"], {"format": "parquet"}, "Parquet cannot be read from standard input"),
    ],
)
def test_a_path_that_cannot_be_read_is_refused_at_once(here: Path, paths: Any, options: Any, told: str) -> None:
    write(here / "a.docx", "x")
    (here / "empty").mkdir()
    with pytest.raises(vk.InvalidArgument, match=told):
        Files(paths, **options)


def test_a_format_overrides_the_suffix(here: Path) -> None:
    write(here / "a.docx", '{"id":"a"}')
    assert records("a.docx", format="jsonl") == [Record("a", None)]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"id":"a"}\n{"id":\n')))
    files = Files(["-"])
    assert files.fraction is None
    rows = iter(files)
    assert next(rows) == Row(Record("a", None), "-, line 1")
    with pytest.raises(vk.InvalidRecord, match=r"^-, line 2: "):
        next(rows)


def test_rows_are_read_as_they_are_asked_for_and_the_fraction_tells_how_far(here: Path) -> None:
    line = json.dumps({"text": "x" * 1000}) + "\n"
    write(here / "a.jsonl", line * 1000)
    write(here / "b.jsonl", line * 1000)
    files = Files(["a.jsonl", "b.jsonl"])
    assert files.fraction == 0.0
    rows = iter(files)
    next(rows)
    assert 0 < (files.fraction or 0) < 0.01
    for _ in range(999):
        next(rows)
    assert files.fraction == pytest.approx(0.5, abs=0.01)
    assert sum(1 for _ in rows) == 1000
    assert files.fraction == 1.0


def test_expiry_keeps_the_instant(here: Path) -> None:
    write(here / "a.jsonl", '{"id":"a","expires_at":"2024-05-01T12:00:00-07:00"}')
    assert records("a.jsonl")[0].expires_at == datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=-7)))
