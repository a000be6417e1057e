"""How commands end: the store's name, profiles, exit codes, one line on standard error, and the way in itself."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import vectorkit as vk
from vectorkit import errors
from vectorkit.cli.exits import MEANING, Code, code_of, guard

RUN = "from vectorkit.cli import main; main()"


def python(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, **options
    )


# --------------------------------------------------------------------------------------------- which store


def test_the_store_is_an_option_a_variable_or_a_profile(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "vectorkit.toml").write_text('[stores.dev]\nurl = "local://./kb"\n')
    assert cli("load", "c", "-", "--store", "dev", stdin='{"id":"a","text":"x"}').code == 0
    assert cli("count", "c", "-s", f"local://{tmp_path}/kb").out == "1\n"
    assert cli("count", "c", VECTORKIT_STORE="dev").out == "1\n"
    (tmp_path / "below").mkdir()
    other = tmp_path / "below" / "other.toml"
    other.write_text('[stores.mine]\nurl = "local://../kb"\n')
    assert cli("count", "c", "-s", "mine", VECTORKIT_CONFIG=str(other)).out == "1\n"


def test_no_store_says_how_to_name_one(cli: Any) -> None:
    ran = cli("count", "c")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "vectorkit: which store? give --store URL or the name of a profile, or set VECTORKIT_STORE\n"


def test_wrong_stores(cli: Any, tmp_path: Path) -> None:
    assert cli("count", "c", "-s", "nosuch://x").code == 2
    assert cli("count", "c", "-s", "dev").code == 2
    (tmp_path / "vectorkit.toml").write_text('[stores.p]\nurl = "local://./kb"\napi_key = "${NOT_SET_ANYWHERE}"\n')
    ran = cli("count", "c", "-s", "p")
    assert ran.code == 2
    assert "NOT_SET_ANYWHERE" in ran.err


@pytest.mark.parametrize(
    "arguments", [["count", "c"], ["search", "c", "x"], ["get", "c", "a"], ["scan", "c"], ["collections"], ["info"]]
)
def test_reading_never_makes_a_store(cli: Any, tmp_path: Path, arguments: list[str]) -> None:
    ran = cli(*arguments, "-s", f"local://{tmp_path}/typo")
    assert (ran.code, ran.out) == (3, "")
    assert not (tmp_path / "typo").exists()


# --------------------------------------------------------------------------------------------- exit codes


def test_every_error_has_a_code() -> None:
    wanted = {
        "AlreadyExists": 2,
        "Ambiguous": 4,
        "Closed": 4,
        "ConfigError": 2,
        "Corrupt": 6,
        "DeadlineExceeded": 4,
        "DimensionMismatch": 2,
        "FingerprintMismatch": 2,
        "InvalidArgument": 2,
        "InvalidFilter": 2,
        "InvalidRecord": 2,
        "Locked": 4,
        "NotFound": 3,
        "RateLimited": 4,
        "SpecMismatch": 2,
        "TenantLeak": 6,
        "TenantRequired": 2,
        "Unavailable": 4,
        "Unsupported": 5,
        "VectorkitError": 2,
    }
    assert {
        name: int(code_of(getattr(errors, name)("x"))) for name in errors.__all__ if name != "PartialFailure"
    } == wanted


def test_a_partial_failure_has_the_code_of_its_cause() -> None:
    partial = errors.PartialFailure("2 rows were written before this failed: full", written=2)
    assert code_of(partial) is Code.UNAVAILABLE
    partial.__cause__ = errors.Unsupported("no")
    assert code_of(partial) is Code.UNSUPPORTED


def test_help_lists_every_exit_code(cli: Any) -> None:
    ran = cli("--help")
    assert ran.code == 0
    text = re.sub(r"[\s│]+", " ", ran.out)
    assert "Exit codes: 0 done" in text
    for code, meaning in MEANING.items():
        assert f"{int(code)} {meaning}" in text
    for command in [
        "demo",
        "load",
        "search",
        "get",
        "count",
        "scan",
        "delete",
        "collections",
        "info",
        "optimize",
        "create",
        "drop",
    ]:
        assert f" {command} " in text


def test_usage_errors_are_2(cli: Any) -> None:
    for arguments in (["nosuch"], ["count"], ["search", "c", "--nosuch"], ["count", "c", "--limit", "x"]):
        ran = cli(*arguments)
        assert (ran.code, ran.out) == (2, "")


def test_a_collection_that_is_not_there_names_those_that_are(cli: Any, url: str) -> None:
    assert cli("create", "here", "-s", url).code == 0
    ran = cli("count", "gone", "-s", url)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.endswith("has no collection 'gone'; there are: here\n")
    assert cli("drop", "gone", "-s", url, "--yes").code == 3


def test_a_locked_store_is_4_for_writers_and_open_for_readers(cli: Any, url: str) -> None:
    with vk.connect(url) as store:
        store.create_collection(vk.CollectionSpec("c", dimension=384, embedding=vk.HashEmbedder().fingerprint))
        ran = cli("load", "c", "-", "-s", url, stdin='{"id":"a","text":"x"}')
        assert (ran.code, ran.out) == (4, "")
        assert "is open for writing elsewhere" in ran.err
        assert cli("count", "c", "-s", url).out == "0\n"


def test_a_store_that_is_damaged_is_6(cli: Any, tmp_path: Path) -> None:
    url = f"local://{tmp_path}/db"
    assert cli("load", "c", "-", "-s", url, stdin='{"id":"a","text":"x"}').code == 0
    for path in (tmp_path / "db").rglob("*"):
        if path.is_file() and path.read_bytes()[:6] == b"SQLite":
            path.write_bytes(b"\xff" * path.stat().st_size)
    ran = cli("count", "c", "-s", url)
    assert (ran.code, ran.out) == (6, "")
    assert ran.err.count("\n") == 1


def test_a_fault_of_ours_is_70_and_hides_nothing_under_debug(
    cli: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("create", "c", "-s", url).code == 0

    def broken(*_: object, **__: object) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(vk.Collection, "count", broken)
    ran = cli("count", "c", "-s", url)
    assert (ran.code, ran.out) == (70, "")
    assert ran.err == (
        "vectorkit: a fault in vectorkit: RuntimeError: a bug; run it again with --debug for the traceback, and report it\n"
    )
    debug = cli("count", "c", "-s", url, "--debug")
    assert debug.code == 70
    assert debug.err.startswith("Traceback (most recent call last):\n")
    assert debug.err.endswith("RuntimeError: a bug\n")


def test_debug_shows_the_traceback_of_an_error(cli: Any, url: str) -> None:
    ran = cli("count", "c", "-s", "nosuch://x", "--debug")
    assert ran.err.startswith("Traceback")
    assert ran.err.splitlines()[-1].startswith("vectorkit: unknown store scheme 'nosuch'")


def test_a_message_of_several_lines_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, guard(debug=False):
        raise vk.InvalidArgument("one\n  two")
    assert caught.value.exit_code == 2
    assert capsys.readouterr().err == "vectorkit: one two\n"


# --------------------------------------------------------------------------------------------- the way in


def test_version() -> None:
    ran = python(RUN, "--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"vectorkit {vk.__version__} (vectorkit-core), Python ")


@pytest.mark.parametrize(("gone", "told"), [(["rich"], "rich"), (["typer", "rich"], "typer and rich")])
def test_without_its_libraries_it_says_what_to_install(gone: list[str], told: str) -> None:
    ran = python(f"import sys\nfor name in {gone}: sys.modules[name] = None\n{RUN}", "demo")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"vectorkit: the command line needs {told}; from a checkout: pip install '.[cli]'\n"


def test_a_stranger_of_the_same_name_is_noticed(tmp_path: Path) -> None:
    ours = Path(vk.__file__).parent
    (tmp_path / "vectorkit").mkdir()
    (tmp_path / "vectorkit" / "__init__.py").write_text(f"__path__.append({str(ours)!r})\n")
    ran = python(RUN, "demo", env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"vectorkit: the package imported as vectorkit ({tmp_path}")
    assert "is another project's; pip uninstall vectorkit, then from a checkout of this one: pip install" in ran.stderr


def test_no_hint_would_install_the_stranger() -> None:
    source = Path(vk.__file__).parent
    for path in [*source.glob("cli/*.py"), *source.glob("ingest/*.py")]:
        assert not re.search(r"(?<!un)install ['\"]?vectorkit\b(?!-)", path.read_text("utf-8")), path.name


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    url = f"local://{tmp_path}/db"
    with vk.connect(url) as store:
        docs = store.create_collection(vk.CollectionSpec("c", dimension=2))
        docs.upsert([vk.Record(str(i), [1, 2], "x" * 500) for i in range(5000)])
    command = [sys.executable, "-c", RUN, "scan", "c", "--json", "-s", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith('{"id": ')
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == Code.PIPE


def test_output_is_utf8_whatever_the_terminal_says(tmp_path: Path) -> None:
    url = f"local://{tmp_path}/db"
    with vk.connect(url) as store:
        docs = store.create_collection(vk.CollectionSpec("c", dimension=2))
        docs.upsert([vk.Record("é", [1, 2], "naïve 日本")])
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, "scan", "c", "-s", url], capture_output=True, env=environment, check=True
    )
    assert done.stdout.decode() == "é\tnaïve 日本\n"
