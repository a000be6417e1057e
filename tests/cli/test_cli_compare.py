"""`vectorkit demo --compare`: the same answers on every store that needs no server, and nothing left of it."""

from pathlib import Path
from typing import Any

import pytest

import vectorkit as vk
from vectorkit.cli import comparing
from vectorkit.cli.comparing import agree
from vectorkit.types import Hits

QUESTIONS = 5


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go, to see whether they go away."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.delenv("VECTORKIT_PGVECTOR_URL", raising=False)
    return folder


def test_the_stores_give_the_same_answers(cli: Any, own_folder: Path, tmp_path: Path) -> None:
    url = f"local://{tmp_path}/mine"
    ran = cli("demo", "--compare", f"faiss, memory,local,{url}", "--rows", "800", "--json")
    assert ran.code == 0, ran.err
    report = ran.json
    assert report["identical"] is True
    assert report["rows"] == 800
    assert [store["name"] for store in report["stores"]] == ["faiss", "memory", "local", "local #2"]
    assert all(store["rows_per_second"] > 0 for store in report["stores"])
    assert len(report["questions"]) == QUESTIONS
    for asked in report["questions"]:
        assert asked["same"] is True
        assert list(asked["answers"]) == ["faiss", "memory", "local", "local #2"]
        ids = [[hit["id"] for hit in answer["hits"]] for answer in asked["answers"].values()]
        assert ids[0] == ids[1] == ids[2] == ids[3]
        assert all(answer["ms"] > 0 and answer["coverage"] == "exact" for answer in asked["answers"].values())
    assert len(report["questions"][0]["answers"]["faiss"]["hits"]) == 5
    assert "Identical answers on 4 stores: faiss, memory, local, local #2; 800 rows, 5 questions" in ran.err.replace(
        "\n", " "
    )
    assert list(own_folder.iterdir()) == []
    with vk.connect(url) as store:
        assert store.collections() == []


def test_people_see_tables_with_times(cli: Any) -> None:
    ran = cli("demo", "--compare", "faiss,memory", "--rows", "300")
    assert ran.code == 0, ran.err
    assert ran.out.count("the same answers") == QUESTIONS
    assert ran.out.count(" ms") == 2 * QUESTIONS
    assert "faiss: 300 rows written and indexed" in ran.out
    assert "Identical answers on 2 stores" in ran.out


def test_answers_that_differ_are_told(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "agree", lambda one, other, k: False)
    ran = cli("demo", "--compare", "memory,memory", "--rows", "300")
    assert "The answers to 5 of 5 questions differ between memory, memory #2." in ran.out
    assert ran.code == 0
    assert ran.out.count("THE ANSWERS DIFFER") == QUESTIONS
    assert "Identical" not in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["faiss"], 2, "--compare takes two stores or more"),
        (["faiss,,"], 2, "--compare takes two stores or more"),
        (["faiss,pgvector"], 2, "pgvector needs a server: set VECTORKIT_PGVECTOR_URL"),
        (["faiss,weaviate://x"], 2, "unknown store scheme 'weaviate'"),
        (["faiss,nobody"], 2, "'nobody' is no URL"),
        (["faiss,memory", "--keep"], 2, "it goes without --store and --keep"),
        (["faiss,memory", "--store", "memory://"], 2, "it goes without --store and --keep"),
    ],
)
def test_what_cannot_be_compared_is_said_at_once(
    cli: Any, own_folder: Path, arguments: list[str], code: int, told: str
) -> None:
    ran = cli("demo", "--compare", *arguments)
    assert told in ran.err
    assert ran.code == code
    assert "Reading" not in ran.out
    assert list(own_folder.iterdir()) == []


def test_an_adapter_that_is_not_installed_is_named_with_its_hint(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorkit.address._entry_points", dict)
    ran = cli("demo", "--compare", "memory,chroma")
    assert ran.code == 2
    assert "pip install ./adapters/chroma" in ran.err


def test_a_collection_that_is_there_is_not_touched(cli: Any, url: str) -> None:
    assert cli("create", "pydocs", "-s", url, "--dimension", "16").code == 0
    ran = cli("demo", "--compare", f"memory,{url}", "--rows", "50")
    assert ran.code == 2
    assert "choose another name with --collection" in ran.err
    assert cli("collections", "-s", url, "--json").code == 0
    assert cli("count", "pydocs", "-s", url).out == "0\n"
    assert cli("demo", "--compare", f"memory,{url}", "--rows", "50", "--collection", "other").code == 0


def test_a_secret_is_not_shown(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTORKIT_PGVECTOR_URL", "nothing://user:hidden@127.0.0.1:1/x")
    ran = cli("demo", "--compare", "memory,pgvector")
    assert ran.code == 2
    assert "hidden" not in ran.out + ran.err


def test_answers_agree_by_groups_of_ties() -> None:
    def hits(*pairs: tuple[str, float]) -> Hits:
        return Hits([vk.Hit(name, score, None, {}, None) for name, score in pairs])

    one = hits(("a", 0.9), ("b", 0.5), ("c", 0.5), ("d", 0.1))
    assert agree(one, one, 4)
    assert agree(one, hits(("a", 0.9), ("c", 0.5), ("b", 0.5 + 1e-9), ("d", 0.1)), 4)
    assert agree(one, hits(("a", 0.9), ("b", 0.5), ("c", 0.5), ("e", 0.1)), 4)  # a tie at the last rank
    assert not agree(one, hits(("a", 0.9), ("b", 0.5), ("c", 0.5), ("e", 0.1)), 5)  # there are no more than four
    assert not agree(one, hits(("b", 0.9), ("a", 0.5), ("c", 0.5), ("d", 0.1)), 4)
    assert not agree(one, hits(("a", 0.9), ("b", 0.5), ("c", 0.5), ("d", 0.2)), 4)
    assert not agree(one, hits(("a", 0.9), ("b", 0.5), ("x", 0.5), ("d", 0.1)), 4)
    assert not agree(one, Hits(one[:3]), 4)
    assert agree(hits(), hits(), 4)
