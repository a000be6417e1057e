"""The documentation of the Python standard library on this very machine, as rows: real text that is always at hand.

Python modules are read as source with `ast` and never imported; modules written in C have no source, so those that are
known to be free of side effects are imported and asked.
"""

import ast
import importlib
import inspect
import os
import platform
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import decode_source
from pathlib import Path
from typing import Any

from vectorkit.types import Record

FIELDS: Mapping[str, Any] = {"module": str, "kind": str, "name": str, "lines": int, "public": bool, "python": str}
"""The metadata of every row, as a spec declares it."""

_SKIPPED = frozenset(
    [
        "__pycache__",
        "dist-packages",
        "ensurepip",
        "idle_test",
        "idlelib",
        "lib2to3",
        "site-packages",
        "test",
        "tests",
        "turtledemo",
    ]
)
# Extension modules whose import does nothing but define things. Built-in modules are in every interpreter already.
_SAFE = (
    "_bisect _bz2 _contextvars _csv _datetime _decimal _hashlib _heapq _json _lzma _opcode _posixsubprocess _queue _random "
    "_socket _sqlite3 _statistics _struct _uuid array binascii cmath fcntl grp itertools math mmap resource select syslog "
    "termios unicodedata zlib"
)
_EXTENSIONS = frozenset(_SAFE.split())
# Built into some interpreters, and either noisy, deprecated or a demonstration.
_UNASKED = frozenset(["_testbuffer", "_testcapi", "_xxtestfuzz", "antigravity", "this", "xxlimited", "xxsubtype"])
# What C modules define and a Python module with another name gives out.
_GIVEN_OUT_BY = {"posix": "os", "nt": "os"}
_SPACE = re.compile(r"\s+")
_COMMENT = re.compile(r"(?:^|\s)\s*#\s.*")
_DEFINITION = re.compile(r"(?:async )?(?:def|class) \w+")
_SELF = re.compile(r"\$(?:self|module|type)(?:, /)?(?:, )?")


@dataclass(frozen=True, slots=True)
class _Entry:
    id: str
    kind: str
    signature: str
    documentation: str


def standard_library() -> Iterator[Record]:
    """Every docstring of the standard library as a Record without vector, in a stable order, each id once.

    id: the qualified name (`gzip.compress`). text: name, signature and docstring. metadata: `FIELDS`, where `module` is
    the top-level package, `kind` one of "module", "class" and "function", `lines` the lines of the docstring, `public` whether no
    part of the name begins with an underscore, `python` the version as in "3.11".
    """
    python = ".".join(platform.python_version_tuple()[:2])
    seen: set[str] = set()
    for entry in _entries():
        if entry.id in seen:
            continue
        seen.add(entry.id)
        parts = entry.id.split(".")
        title = entry.id + entry.signature
        yield Record(
            entry.id,
            None,
            f"{title}\n\n{entry.documentation}",
            {
                "module": parts[0],
                "kind": entry.kind,
                "name": parts[-1],
                "lines": entry.documentation.count("\n") + 1,
                "public": not any(part.startswith("_") for part in parts),
                "python": python,
            },
        )


def _entries() -> Iterator[_Entry]:
    given_out: dict[str, dict[str, str]] = {}
    root = sysconfig.get_path("stdlib")
    for module, path in _sources(root):
        tree = _parse(path)
        if tree is not None:
            yield from _from_module(module, *tree)
            _note_names_from_c(module, tree[0], given_out)
    for name in sorted({*sys.builtin_module_names, *_EXTENSIONS} - _UNASKED):
        yield from _from_c(name, given_out.get(name, {}))


# --------------------------------------------------------------------------------------------- Python modules


def _sources(root: str) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name.isidentifier() and name not in _SKIPPED)
        package = Path(folder).relative_to(root).parts
        for file in sorted(files):
            stem = file.removesuffix(".py")
            if stem != file and stem.isidentifier() and stem not in _UNASKED and not _is_twin(stem):
                yield ".".join(package if stem == "__init__" else (*package, stem)), Path(folder, file)


def _is_twin(stem: str) -> bool:
    """Whether this is the Python twin of a module in C (`_pydecimal`), with the same documentation once more."""
    return stem.startswith("_py") and stem.removeprefix("_py") in sys.stdlib_module_names


def _parse(path: Path) -> tuple[ast.Module, list[str]] | None:
    try:
        source = decode_source(path.read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old modules hold escapes that newer parsers warn about
            return ast.parse(source), source.splitlines()
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None  # a file of the installation that is no module of this Python: there is nothing to document


def _from_module(module: str, tree: ast.Module, lines: list[str]) -> Iterator[_Entry]:
    if documentation := _clean(ast.get_docstring(tree, clean=False)):
        yield _Entry(module, "module", "", documentation)
    yield from _from_body(module, tree.body, lines)


def _from_body(prefix: str, body: list[ast.stmt], lines: list[str]) -> Iterator[_Entry]:
    for node in body:
        match node:
            case ast.ClassDef(name=name):
                if documentation := _clean(ast.get_docstring(node, clean=False)):
                    yield _Entry(f"{prefix}.{name}", "class", _signature(node, lines), documentation)
                yield from _from_body(f"{prefix}.{name}", node.body, lines)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if documentation := _clean(ast.get_docstring(node, clean=False)):
                    yield _Entry(f"{prefix}.{name}", "function", _signature(node, lines), documentation)
            case ast.If(body=then, orelse=otherwise):
                yield from _from_body(prefix, then, lines)
                yield from _from_body(prefix, otherwise, lines)
            case ast.Try(body=tried, handlers=handlers, orelse=otherwise):
                yield from _from_body(prefix, tried, lines)
                for handler in handlers:
                    yield from _from_body(prefix, handler.body, lines)
                yield from _from_body(prefix, otherwise, lines)
            case _:
                pass


def _signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str:
    """What stands between the name and the colon, as it was written, on one line; "" where there is nothing.

    From the source and not by `ast.unparse`, which alone would take longer than all the parsing.
    """
    first = node.body[0]
    head = [*lines[node.lineno - 1 : first.lineno - 1]]
    if first.lineno == node.lineno or lines[first.lineno - 1][: first.col_offset].strip():
        head.append(lines[first.lineno - 1].encode()[: first.col_offset].decode(errors="ignore"))
    text = _SPACE.sub(" ", " ".join([_COMMENT.sub("", line) for line in head])).strip()
    text = _DEFINITION.sub("", text).removesuffix(":")
    return text.strip().replace("( ", "(").replace(" )", ")").replace(",)", ")")


def _clean(documentation: object) -> str:
    return inspect.cleandoc(documentation).strip() if isinstance(documentation, str) else ""


def _note_names_from_c(module: str, tree: ast.Module, given_out: dict[str, dict[str, str]]) -> None:
    """Remember which names of a C module this module gives out as its own: `from _struct import *` in struct."""
    for node in ast.walk(ast.Module([n for n in tree.body if not isinstance(n, ast.ClassDef | ast.FunctionDef)], [])):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and _GIVEN_OUT_BY.get(node.module, node.module.lstrip("_")) == module
        ):
            names = given_out.setdefault(node.module, {})
            for alias in node.names:
                names[alias.name] = f"{module}.{alias.asname or alias.name}"


# --------------------------------------------------------------------------------------------- C modules


def _from_c(name: str, given_out: Mapping[str, str]) -> Iterator[_Entry]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
    except ImportError:
        return  # this interpreter was built without it
    if documentation := _clean(module.__doc__):
        yield _Entry(name, "module", "", documentation)
    whole = given_out.get("*", "").removesuffix("*")
    for member, value in sorted(vars(module).items()):
        id = given_out.get(member) or (f"{whole}{member}" if whole and member[0] != "_" else f"{name}.{member}")  # noqa: A001
        if isinstance(value, type):
            if value.__module__ in {name, name.lstrip("_")} and value.__name__ == member:
                yield from _from_c_class(f"{value.__module__}.{member}" if value.__module__ != name else id, value)
        elif isinstance(value, types.BuiltinFunctionType) and (documentation := _clean(value.__doc__)):
            yield _Entry(id, "function", _c_signature(value), documentation)


def _from_c_class(id: str, value: type) -> Iterator[_Entry]:
    if documentation := _clean(value.__doc__):
        yield _Entry(id, "class", _c_signature(value), documentation)
    for member, method in sorted(vars(value).items()):
        # Not the slot wrappers: hundreds of __repr__ with one and the same sentence.
        called = isinstance(method, types.MethodDescriptorType | types.ClassMethodDescriptorType | staticmethod)
        if called and (documentation := _clean(method.__doc__)):
            yield _Entry(f"{id}.{member}", "function", _c_signature(method), documentation)


def _c_signature(value: Any) -> str:
    text = getattr(value, "__text_signature__", None)
    return _SPACE.sub(" ", _SELF.sub("", text)) if text else ""
