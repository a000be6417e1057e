"""The standard library's documentation: thousands of real texts, ids that are names, and no module run on the way."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import vectorkit as vk
from vectorkit.ingest.pydocs import FIELDS, standard_library
from vectorkit.validate import check_batch


@pytest.fixture(scope="module")
def records() -> list[vk.Record]:
    return [*standard_library()]


def test_thousands_of_texts_each_id_once(records: list[vk.Record]) -> None:
    assert len(records) > 5000
    assert len({record.id for record in records}) == len(records)
    kinds = Counter(record.metadata["kind"] for record in records)
    assert kinds.keys() == {"module", "class", "function"}
    assert kinds["function"] > 4000
    assert kinds["class"] > 800
    assert kinds["module"] > 250


def test_every_row_can_be_stored_under_the_declared_fields(records: list[vk.Record]) -> None:
    embedder = vk.HashEmbedder(16)
    spec = vk.CollectionSpec("docs", dimension=16, fields=FIELDS)
    vectors = embedder.embed([record.text or "" for record in records])
    batch = vk.Batch(
        [record.id for record in records], vectors, [r.text for r in records], [r.metadata for r in records]
    )
    assert len(check_batch(spec, batch)) == len(records)
    assert all(record.metadata.keys() == FIELDS.keys() for record in records)


def test_a_python_function(records: list[vk.Record]) -> None:
    (row,) = [record for record in records if record.id == "gzip.compress"]
    assert (row.text or "").startswith(
        "gzip.compress(data, compresslevel=_COMPRESS_LEVEL_BEST, *, mtime=None)\n\nCompress data in one shot"
    )
    assert row.vector is None
    assert row.metadata == {
        "module": "gzip",
        "kind": "function",
        "name": "compress",
        "lines": (row.text or "").partition("\n\n")[2].count("\n") + 1,
        "public": True,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }


@pytest.mark.parametrize(
    ("id", "kind", "begins"),
    [
        ("gzip", "module", "gzip\n\nFunctions that read and write gzipped files."),
        ("threading.Thread", "class", "threading.Thread\n\nA class that represents a thread of control."),
        ("collections.OrderedDict.popitem", "function", "collections.OrderedDict.popitem(self, last=True)\n\n"),
        ("zlib.compress", "function", "zlib.compress(data, /, level=Z_DEFAULT_COMPRESSION"),
        ("builtins.str.split", "function", "builtins.str.split(sep=None, maxsplit=-1)\n\n"),
        ("builtins.len", "function", "builtins.len(obj, /)\n\n"),
        ("math.sqrt", "function", "math.sqrt(x, /)\n\nReturn the square root of x."),
        ("os.listdir", "function", "os.listdir(path=None)\n\n"),
        ("struct.pack", "function", "struct.pack"),
        ("itertools.chain", "class", "itertools.chain"),
    ],
)
def test_what_is_collected(records: list[vk.Record], id: str, kind: Any, begins: str) -> None:
    (row,) = [record for record in records if record.id == id]
    assert row.metadata["kind"] == kind
    assert (row.text or "").startswith(begins)


def test_public_means_no_underscore_anywhere(records: list[vk.Record]) -> None:
    public = {record.id: record.metadata["public"] for record in records}
    assert public["gzip.compress"] is True
    assert public["gzip.GzipFile.__init__"] is False
    assert not any(flag for name, flag in public.items() if name.startswith("_") or "._" in name)


def test_tests_and_applications_are_left_out(records: list[vk.Record]) -> None:
    modules = {record.metadata["module"] for record in records}
    assert not modules & {"test", "idlelib", "turtledemo", "lib2to3", "ensurepip", "antigravity", "this"}
    assert not modules & {"_pydatetime", "_pydecimal", "_pyio"}
    assert {"datetime", "decimal", "io"} <= modules
    assert not [record.id for record in records if ".test." in record.id or ".tests." in record.id]


CHECK = """
import sys
from vectorkit.ingest.pydocs import standard_library
before = set(sys.modules)
print(sum(1 for _ in standard_library()))
print(sorted(name for name in set(sys.modules) - before if not name.startswith("_sysconfigdata")
             and getattr(sys.modules[name], "__file__", None) and sys.modules[name].__file__.endswith(".py")))
"""


def test_no_python_module_is_imported_and_the_order_is_the_same_in_another_process(records: list[vk.Record]) -> None:
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=True)
    count, imported = done.stdout.splitlines()
    assert abs(int(count) - len(records)) < 50  # what pytest has loaded may change a hook or two
    assert imported == "[]"


def test_a_library_that_is_not_there_leaves_the_modules_in_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    ids = [record.id for record in standard_library()]
    assert "builtins.len" in ids
    assert "gzip" not in ids


def test_a_file_that_does_not_parse_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "latin.py").write_bytes(b'# no coding line\n"""caf\xe9"""\n')
    (tmp_path / "good.py").write_text(
        '"""Good."""\nif True:\n    def f(a,\n          b=(1, 2),  # why\n          ) -> int:\n        r"""\\d F."""\n'
        'try:\n    class C(dict): "C."\nexcept Exception:\n    def g(): "G: one line."\n'
        'class D:\n    x = 1\n    async def h(self):\n        """H."""\n    def h(self):\n        """Again."""\n'
    )
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setattr("vectorkit.ingest.pydocs._EXTENSIONS", [])
    found = {r.id: r.text for r in standard_library() if r.metadata["module"] in {"broken", "latin", "good"}}
    assert found == {
        "good": "good\n\nGood.",
        "good.f": "good.f(a, b=(1, 2)) -> int\n\n\\d F.",
        "good.C": "good.C(dict)\n\nC.",
        "good.g": "good.g()\n\nG: one line.",
        "good.D.h": "good.D.h(self)\n\nH.",
    }
