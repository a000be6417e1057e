"""The everyday commands, one after the other on a store that lies on disk: what they print, where, and their exit codes."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vectorkit as vk

PEOPLE = [
    {"id": "ada", "text": "wrote the first program for a computing engine", "year": 1843, "tags": ["math"]},
    {"id": "grace", "text": "wrote the first compiler", "year": 1952, "tags": ["navy", "math"]},
    {"id": "alan", "text": "asked whether machines can think", "year": 1950, "born": {"$date": "1912-06-23T00:00:00Z"}},
]


@pytest.fixture
def people(tmp_path: Path) -> str:
    path = tmp_path / "people.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PEOPLE))
    return "people.jsonl"


@pytest.fixture
def loaded(cli: Any, url: str, people: str) -> str:
    assert cli("load", "people", people, "-s", url).code == 0
    return url


# --------------------------------------------------------------------------------------------- load


def test_load_makes_the_collection_and_says_so(cli: Any, url: str, people: str) -> None:
    ran = cli("load", "people", people, "--store", url, "--json")
    assert ran.code == 0
    assert ran.json == {"collection": "people", "written": 3, "seconds": ran.json["seconds"]}
    assert ran.err == (
        "made the collection 'people': the offline embedder vectorkit-hash-384 (words and parts of words, not meaning)\n"
    )
    again = cli("load", "people", people, "--store", url)
    assert (again.code, again.out) == (0, "")
    assert again.err.startswith("3 rows written to 'people' in ")
    assert cli("count", "people", "-s", url).out == "3\n"


def test_load_takes_the_first_vectors_length(cli: Any, url: str) -> None:
    ran = cli("load", "v", "-", "-s", url, stdin='{"id":"a","vector":[1,2,3]}\n{"id":"b","vector":[1,2]}\n')
    assert ran.code == 2
    assert ran.err.splitlines() == [
        "made the collection 'v': vectors of 3 numbers as they come, cosine",
        "vectorkit: -, line 2: the vector has 2 numbers; 'v' holds 3 (rows written before it: 1)",
    ]
    assert cli("count", "v", "-s", url).out == "1\n"


def test_load_csv_into_declared_fields(cli: Any, url: str, tmp_path: Path) -> None:
    assert cli("create", "c", "-s", url, "--field", "year=int", "--field", "tags=list[str]").code == 0
    (tmp_path / "a.csv").write_text(
        'id,text,year,tags,note\n1,one,1999,"[""x""]",7\n2,two,,,\n3,three,MM,,\n4,four,1,,\n'
    )
    ran = cli("load", "c", "a.csv", "-s", url)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "vectorkit: a.csv, line 4: field 'year' is declared int, got 'MM' (rows written before it: 2)\n"
    assert cli("scan", "c", "-s", url, "--json").lines == [
        {"id": "1", "text": "one", "metadata": {"year": 1999, "tags": ["x"], "note": "7"}},
        {"id": "2", "text": "two", "metadata": {}},
    ]


def test_load_a_folder_of_texts_and_a_parquet_file(cli: Any, url: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "guide.md").write_text(
        "# Guide\n\n## Install\n\nUse the lawnmower.\n\n## Run\n\nUse the kettle.\n"
    )
    (tmp_path / "docs" / "notes.txt").write_text("a plain note\n")
    pq.write_table(pa.table({"id": ["p"], "text": ["from parquet"]}), tmp_path / "a.parquet")
    ran = cli("load", "docs", "docs", "a.parquet", "-s", url, "--json")
    assert (ran.code, ran.json["written"]) == (0, 4)
    hit = cli("search", "docs", "kettle", "-s", url, "--json", "-k", "1").lines[0]
    assert hit["metadata"] == {"source": "docs/guide.md", "chunk": 1, "section": "Guide > Run"}
    assert hit["text"] == "## Run\n\nUse the kettle."
    assert cli("count", "docs", "-s", url, "-w", 'source startswith "docs/"').out == "3\n"


def test_what_scan_prints_is_what_load_reads(cli: Any, loaded: str, tmp_path: Path) -> None:
    dump = cli("scan", "people", "-s", loaded, "--json", "--vectors").out
    other = f"local://{tmp_path}/other"
    assert cli("load", "people", "-", "-s", other, stdin=dump).code == 0
    with vk.connect(loaded) as a, vk.connect(other) as b:
        rows = {row.id: row for row in a.collection("people").scan(vectors=True)}
        assert {row.id: row for row in b.collection("people").scan(vectors=True)} == rows
    assert len(rows) == 3


def test_expiry_goes_there_and_back(cli: Any, url: str) -> None:
    assert cli("create", "e", "-s", url, "--expiry").code == 0
    line = '{"id": "a", "text": "x", "expires_at": "2999-01-01T00:00:00.000000Z"}\n'
    assert cli("load", "e", "-", "-s", url, stdin=line).code == 0
    dump = cli("get", "e", "a", "-s", url, "--json")
    assert dump.json == {"id": "a", "text": "x", "metadata": {}, "expires_at": "2999-01-01T00:00:00.000000Z"}
    assert "expires 2999-01-01" in cli("get", "e", "a", "-s", url).out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nosuch.csv"], "there is no file or folder 'nosuch.csv'"),
        (["x.docx"], "'x.docx' has no suffix that tells its format"),
        (["x.docx", "--format", "xml"], "--format is one of jsonl, csv, tsv, parquet, text, markdown, not 'xml'"),
    ],
)
def test_a_wrong_path_makes_no_store(cli: Any, tmp_path: Path, arguments: list[str], told: str) -> None:
    (tmp_path / "x.docx").write_text("x")
    ran = cli("load", "c", *arguments, "-s", f"local://{tmp_path}/db")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"vectorkit: {told}")
    assert not (tmp_path / "db").exists()


def test_a_file_that_may_not_be_read(cli: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text("{}")

    def refuse(name: str, *_: object) -> None:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr("vectorkit.ingest.read.open", refuse, raising=False)
    ran = cli("load", "c", "a.jsonl", "-s", url)
    assert (ran.code, ran.err) == (2, "vectorkit: a.jsonl: Permission denied\n")


def test_texts_for_a_model_that_vectorkit_cannot_run(cli: Any, url: str, people: str) -> None:
    assert cli("create", "m", "-s", url, "--embedding", "all-MiniLM-L6-v2", "--normalized").code == 0
    ran = cli("load", "m", people, "-s", url)
    assert ran.code == 5
    assert ran.err.startswith(
        "vectorkit: people.jsonl, line 1: the vectors were made by 'all-MiniLM-L6-v2', which vectorkit"
    )


# --------------------------------------------------------------------------------------------- search


def test_search_is_hybrid_where_both_can_be_had(cli: Any, loaded: str) -> None:
    ran = cli("search", "people", "first compiler", "-s", loaded, "--json")
    assert ran.code == 0
    assert [hit["id"] for hit in ran.lines][:2] == ["grace", "ada"]
    assert ran.lines[0] == {
        "rank": 1,
        "id": "grace",
        "score": pytest.approx(2 / 61),
        "text": "wrote the first compiler",
        "metadata": {"year": 1952, "tags": ["navy", "math"]},
    }
    assert ran.err.startswith("3 rows, hybrid, exact, ")


def test_search_modes(cli: Any, loaded: str) -> None:
    dense = cli("search", "people", "first compiler", "-s", loaded, "--json", "--mode", "dense")
    assert len(dense.lines) == 3
    assert 0.3 < dense.lines[0]["score"] <= 1.0
    keyword = cli("search", "people", "first compiler", "-s", loaded, "--json", "--mode", "keyword")
    assert [hit["id"] for hit in keyword.lines] == ["grace", "ada"]
    assert keyword.err.startswith("2 rows, keyword, exact, ")


def test_search_with_a_filter_and_k(cli: Any, loaded: str) -> None:
    ran = cli(
        "search", "people", "first", "-s", loaded, "--json", "--where", 'year < 1900 or tags contains "navy"', "-k", "1"
    )
    assert [hit["rank"] for hit in ran.lines] == [1]
    dated = cli("search", "people", "first", "-s", loaded, "--json", "-w", 'born < date "1913-01-01T00:00:00Z"')
    assert [(hit["id"], hit["metadata"]["born"]) for hit in dated.lines] == [
        ("alan", {"$date": "1912-06-23T00:00:00.000000Z"})
    ]


def test_search_for_people_is_a_table(cli: Any, loaded: str) -> None:
    ran = cli("search", "people", "first compiler", "-s", loaded)
    head, first = ran.out.splitlines()[:2]
    assert head.split() == ["#", "score", "id", "text", "metadata"]
    assert first.split()[:6] == ["1", "0.0328", "grace", "wrote", "the", "first"]


def test_search_by_vector(cli: Any, url: str) -> None:
    rows = '{"id":"a","vector":[1,0],"text":"red"}\n{"id":"b","vector":[0,1],"text":"blue"}\n'
    assert cli("load", "v", "-", "-s", url, stdin=rows).code == 0
    dense = cli("search", "v", "-s", url, "--vector", "[0, 2]", "--json")
    assert [(hit["id"], hit["score"]) for hit in dense.lines] == [("b", 1.0), ("a", 0.0)]
    both = cli("search", "v", "red", "-s", url, "--vector", "[0, 2]", "--json")
    assert both.err.startswith("2 rows, hybrid")
    words = cli("search", "v", "red", "-s", url, "--json")
    assert [hit["id"] for hit in words.lines] == ["a"]
    assert words.err.splitlines()[0].startswith("by keyword alone: 'v' does not say what makes its vectors")
    refused = cli("search", "v", "red", "-s", url, "--mode", "dense")
    assert refused.code == 5
    assert "give the query's with --vector, or --mode keyword" in refused.err


def test_search_without_a_keyword_index(cli: Any, url: str, people: str) -> None:
    assert cli("create", "p", "-s", url, "--no-text").code == 0
    assert cli("load", "p", people, "-s", url).code == 0
    ran = cli("search", "p", "compiler", "-s", url, "--json")
    assert ran.lines[0]["id"] == "grace"
    assert ran.err.splitlines()[0] == "by vector alone: no keyword index here"
    assert cli("search", "p", "compiler", "-s", url, "--mode", "keyword").code == 5


def test_search_that_finds_nothing_is_1(cli: Any, loaded: str) -> None:
    for arguments in (["zebra", "--mode", "keyword"], ["first", "-w", "year > 3000"]):
        ran = cli("search", "people", *arguments, "-s", loaded, "--json")
        assert (ran.code, ran.out, ran.err) == (1, "", "nothing found\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], 'what to look for? give words in quotes, or --vector "[…]"'),
        (["x", "--mode", "fuzzy"], "--mode is dense, keyword or hybrid, not 'fuzzy'"),
        (["--mode", "keyword"], "--mode keyword needs words to look for"),
        (["--mode", "hybrid", "--vector", "[1]"], "--mode hybrid needs words to look for"),
        (["--vector", "[1"], "--vector is no JSON array"),
        (["--vector", "5"], "--vector must be a JSON array of numbers, got '5'"),
        (["--vector", '["a"]'], "--vector must be a JSON array of numbers"),
        (["--vector", "[1, 2]"], "the query has 2 numbers; 'people' holds 384"),
        (["x", "-k", "0"], "k must be at least 1, got 0"),
        (["x", "-w", "year >"], "cannot read the filter at the end"),
        (["x", "-w", "_vk_id == 1"], "the field '_vk_id': the prefix _vk_ is reserved"),
    ],
)
def test_a_search_that_cannot_be_is_2(cli: Any, loaded: str, arguments: list[str], told: str) -> None:
    ran = cli("search", "people", *arguments, "-s", loaded)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"vectorkit: {told}")
    assert ran.err.count("\n") == 1


# --------------------------------------------------------------------------------------------- get, count, scan


def test_get(cli: Any, loaded: str) -> None:
    ran = cli("get", "people", "grace", "nobody", "ada", "-s", loaded, "--json")
    assert ran.code == 0
    assert [row["id"] for row in ran.lines] == ["grace", "ada"]
    assert ran.lines[1] == {
        "id": "ada",
        "text": "wrote the first program for a computing engine",
        "metadata": {"year": 1843, "tags": ["math"]},
    }
    assert ran.err == "no row 'nobody'\n"
    assert cli("get", "people", "nobody", "-s", loaded).code == 1
    vector = cli("get", "people", "ada", "-s", loaded, "--json", "--vectors").json["vector"]
    assert sum(value * value for value in vector) == pytest.approx(1.0, abs=1e-6)
    shown = cli("get", "people", "ada", "-s", loaded, "--vectors").out
    assert shown.splitlines()[:2] == ["ada", '{"year":1843,"tags":["math"]}']
    assert "of 384 numbers" in shown


def test_count(cli: Any, loaded: str) -> None:
    assert cli("count", "people", "-s", loaded, "--where", "year >= 1950").out == "2\n"
    assert cli("count", "people", "-s", loaded, "--where", "year > 3000", "--json").json == {
        "collection": "people",
        "count": 0,
    }


def test_scan(cli: Any, loaded: str) -> None:
    rows = cli("scan", "people", "-s", loaded, "--json").lines
    assert sorted(row["id"] for row in rows) == ["ada", "alan", "grace"]
    assert len(cli("scan", "people", "-s", loaded, "--json", "-n", "2").lines) == 2
    assert cli("scan", "people", "-s", loaded, "-n", "0").out == ""
    assert cli("scan", "people", "-s", loaded, "-w", "year == 1950").out == "alan\tasked whether machines can think\n"


def test_a_rows_text_is_data_and_no_escape_for_the_terminal(cli: Any, url: str) -> None:
    line = json.dumps({"id": "e\x1b[31m", "text": "red \x1b[31malert\x07 [bold]not bold[/]\nsecond\tline"}) + "\n"
    assert cli("load", "c", "-", "-s", url, stdin=line).code == 0
    for arguments in (["scan", "c"], ["search", "c", "alert"], ["get", "c", "e\x1b[31m"]):
        out = cli(*arguments, "-s", url).out
        assert "\x1b" not in out
        assert "\x07" not in out
        assert "[bold]not bold[/]" in out
    assert cli("scan", "c", "-s", url, "--json").json["text"].startswith("red \x1b[31m")


# --------------------------------------------------------------------------------------------- delete


def test_delete(cli: Any, loaded: str) -> None:
    ran = cli("delete", "people", "--id", "ada", "--id", "nobody", "-s", loaded, "--json")
    assert (ran.code, ran.json) == (0, {"collection": "people", "deleted": 1})
    assert cli("delete", "people", "--where", "year == 1952", "-s", loaded).err == "1 row deleted from 'people'\n"
    refused = cli("delete", "people", "--everything", "-s", loaded)
    assert (refused.code, refused.err) == (2, "vectorkit: this would delete all 1 row of 'people'; add --yes\n")
    assert cli("delete", "people", "--everything", "--yes", "-s", loaded).code == 0
    assert cli("count", "people", "-s", loaded).out == "0\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "delete what? give one of --id, --where and --everything"),
        (["--id", "a", "--where", "year == 1"], "delete what? give one of"),
        (["--everything", "--id", "a", "--yes"], "delete what? give one of"),
        (["--where", "true"], "delete(where=…) with a filter that holds for every row"),
    ],
)
def test_a_delete_without_one_clear_selector_is_refused(cli: Any, loaded: str, arguments: list[str], told: str) -> None:
    ran = cli("delete", "people", *arguments, "-s", loaded)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"vectorkit: {told}")
    assert cli("count", "people", "-s", loaded).out == "3\n"


# --------------------------------------------------------------------------------------------- collections


def test_create_says_everything_a_spec_can(cli: Any, url: str) -> None:
    ran = cli(
        *("create", "c", "-s", url, "--dimension", "3", "--metric", "l2", "--index", "flat", "--no-text", "--expiry"),
        *("--field", "year=int", "--field", "a=b=list[datetime]", "--embedding", "mini", "--revision", "2", "--json"),
    )
    assert (ran.code, ran.err) == (0, "")
    with vk.connect(url) as store:
        assert store.collection("c").spec == vk.CollectionSpec(
            "c",
            dimension=3,
            metric="l2",
            index=vk.Flat(),
            expiry=True,
            text=False,
            fields={"year": "int", "a=b": "list[datetime]"},
            embedding=vk.Embedding("mini", revision="2"),
        )
    assert ran.json["fields"] == {"year": "int", "a=b": "list[datetime]"}
    again = cli("create", "c", "-s", url)
    assert again.code == 2
    assert "'c' already" in again.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["c", "--metric", "cos"], "--metric is cosine, dot or l2, not 'cos'"),
        (["c", "--index", "annoy"], "--index is one of flat, hnsw, ivf, not 'annoy'"),
        (["c", "--field", "year"], "--field takes NAME=TYPE, as in year=int; got 'year'"),
        (["c", "--field", "year=number"], "field 'year': the type must be one of str"),
        (["c", "--dimension", "8"], "dimension must be an int from 16 to 65536, got 8"),
        (["no/slash"], "a collection name is 1 to 100 of"),
    ],
)
def test_a_spec_that_cannot_be_makes_no_store(cli: Any, tmp_path: Path, arguments: list[str], told: str) -> None:
    ran = cli("create", *arguments, "-s", f"local://{tmp_path}/db")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"vectorkit: {told}")
    assert not (tmp_path / "db").exists()


def test_collections_info_optimize_and_drop(cli: Any, loaded: str) -> None:
    assert cli("create", "b", "-s", loaded, "--dimension", "16", "--embedding", "none").code == 0
    ran = cli("collections", "-s", loaded, "--json")
    assert ran.lines == [
        {"name": "b", "rows": 0, "dimension": 16, "metric": "cosine"},
        {"name": "people", "rows": 3, "dimension": 384, "metric": "cosine"},
    ]
    assert [line.split()[:2] for line in cli("collections", "-s", loaded).out.splitlines()] == [
        ["b", "0"],
        ["people", "3"],
    ]
    info = cli("info", "people", "-s", loaded, "--json").json
    assert (info["name"], info["rows"], info["embedding"]["name"]) == ("people", 3, "vectorkit-hash-384")
    assert "embedding  name vectorkit-hash-384, revision 1, normalized yes" in cli("info", "people", "-s", loaded).out
    tidy = cli("optimize", "people", "-s", loaded, "--json")
    assert (tidy.code, tidy.json["rows"]) == (0, 3)
    refused = cli("drop", "people", "-s", loaded)
    assert (refused.code, refused.err) == (2, "vectorkit: this would remove 'people' with 3 rows; add --yes\n")
    assert cli("drop", "people", "-s", loaded, "--yes", "--json").json == {"collection": "people", "dropped": 3}
    assert cli("count", "people", "-s", loaded).code == 3


def test_info_without_a_collection_tells_what_the_store_can(cli: Any, loaded: str) -> None:
    with vk.connect(loaded, read_only=True) as store:
        capability = store.capability
    document = cli("info", "-s", loaded, "--json").json
    assert document["store"] == capability.store
    assert document["indexes"] == sorted(capability.indexes)
    assert set(document) == set(capability.__dataclass_fields__)
    assert f"store              {capability.store}" in cli("info", "-s", loaded).out
