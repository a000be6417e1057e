"""The servers and the proxy that all other integration tests stand on: each does what its name says, and leaves nothing."""

import gc
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import psycopg
import pytest

from integration.servers import postgres as postgres_module
from integration.servers.chroma import ChromaServer
from integration.servers.keeper import Keeper, ServerError, free_port
from integration.servers.postgres import PostgresServer
from integration.servers.proxy import Mode, Proxy
from integration.servers.qdrant import QdrantServer
from integration.servers.served import Served


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def backends(server: PostgresServer) -> list[int]:
    """The postmaster and all its children, as the kernel has them."""
    postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    return [postmaster, *(pid for pid, parent in pairs if parent == postmaster)]


# ------------------------------------------------------------------------------------- PostgreSQL


@pytest.fixture
def own() -> Iterator[PostgresServer]:
    with PostgresServer(fsync=True, log_statements=True, password="s'p@ss:/wörd") as server:
        yield server


def test_postgres_has_pgvector_and_a_password_and_listens_on_the_loopback_interface_only(own: PostgresServer) -> None:
    url = own.create_database('a "b"/c')
    own.execute("CREATE EXTENSION vector", 'a "b"/c')
    with psycopg.connect(url) as connection:
        (found,) = connection.execute("SELECT '[3,4]'::vector <-> '[0,0]', current_database()").fetchall()
        (settings,) = connection.execute(
            "SELECT current_setting('listen_addresses'), current_setting('unix_socket_directories'), current_setting('fsync')"
        ).fetchall()
    assert found == (5.0, 'a "b"/c')
    assert settings == ("127.0.0.1", "", "on")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(own.url(password="wrong"))
    own.drop_database('a "b"/c')
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_what_was_committed_is_there_after_kill_9_and_no_process_is_left(own: PostgresServer) -> None:
    own.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    port = own.port
    with psycopg.connect(own.url()) as connection:
        connection.execute("SELECT 1")
        pids = backends(own)
        assert len(pids) > 3
        own.kill()
        assert not any(alive(pid) for pid in pids)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    own.start()
    assert own.port == port
    assert own.execute("SELECT count(*), sum(n) FROM t") == [(1000, 500_500)]


def test_a_frozen_postgres_takes_connections_and_answers_nothing_until_it_is_thawed(own: PostgresServer) -> None:
    with psycopg.connect(own.url(), autocommit=True) as connection:
        own.freeze()
        with socket.create_connection((own.host, own.port), timeout=2):
            pass
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(own.url(), connect_timeout=2)
        answered = threading.Event()

        def ask() -> None:
            connection.execute("SELECT 1")
            answered.set()

        thread = threading.Thread(target=ask)
        thread.start()
        assert not answered.wait(0.3)
        own.thaw()
        assert answered.wait(5)
        thread.join()


def test_a_frozen_postgres_can_be_stopped_and_killed(own: PostgresServer) -> None:
    own.freeze()
    own.stop()
    own.start()
    own.freeze()
    own.kill()
    own.restart()
    assert own.execute("SELECT 1") == [(1,)]


def test_the_statement_log_has_the_text_of_statements_and_no_parameters(own: PostgresServer) -> None:
    with psycopg.connect(own.url(), autocommit=True) as connection:
        connection.execute('SELECT %s AS "two\nlines"', ["a secret"])
        with pytest.raises(psycopg.DataError):
            connection.execute("SELECT %s::int", ["another secret"])
        connection.execute("SELECT 'simple', 1")
        for _ in range(2):
            connection.execute("SELECT %s, 'prepared'", ["third secret"], prepare=True)
    found = own.statements()
    assert 'SELECT $1 AS "two\nlines"' in found
    assert "SELECT $1::int" in found
    assert "SELECT 'simple', 1" in found
    assert found.count("SELECT $1, 'prepared'") == 2
    assert not [text for text in found if "secret" in text]


def test_a_port_taken_meanwhile_is_another_ports_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, PostgresServer() as server:
        ports = iter([taken.getsockname()[1], free_port()])
        server.stop()
        server.port = 0
        monkeypatch.setattr("integration.servers.served.free_port", lambda: next(ports))
        server.start()
        assert server.port != taken.getsockname()[1]
        assert server.execute("SELECT 1") == [(1,)]


def test_what_is_wrong_with_a_server_is_said() -> None:
    with pytest.raises(ServerError, match="no_such_setting"), PostgresServer(settings={"no_such_setting": "1"}):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_binaries_below_a_closed_folder_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Path(tempfile.mkdtemp(prefix="vk-closed-"))
    try:
        package = postgres_module.installed().parent
        for name in (f"{package.name}/pginstall18", f"{package.name}.libs"):
            shutil.copytree(package.parent / name, closed / name)
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        monkeypatch.setattr(postgres_module, "installed", lambda: closed / package.name / "pginstall18")
        with PostgresServer() as server:
            assert server.execute("CREATE EXTENSION vector") == []
            assert server.command[0].startswith(str(server.folder))
    finally:
        shutil.rmtree(closed)


# ------------------------------------------------------------------------------------- Chroma


def test_chroma_is_killed_frozen_and_started_again_on_its_port() -> None:
    with ChromaServer() as server:
        url = server.url
        assert server.answers()
        server.freeze()
        assert not server.answers()
        server.thaw()
        assert server.answers()
        server.kill()
        assert not server.answers()
        server.start()
        assert server.answers()
        server.restart()
        assert server.answers()
        assert server.url == url
        folder = server.folder
    assert not server.answers()
    assert not folder.exists()


# ------------------------------------------------------------------------------------- Qdrant


def test_qdrant_is_killed_frozen_and_started_again_on_its_ports() -> None:
    with QdrantServer() as server:
        places = (server.url, server.grpc_port)
        assert server.answers()
        server.freeze()
        assert not server.answers()
        server.thaw()
        assert server.answers()
        server.kill()
        assert not server.answers()
        server.start()
        assert server.answers()
        server.restart()
        assert server.answers()
        assert (server.url, server.grpc_port) == places
        folder = server.folder
    assert not server.answers()
    assert not folder.exists()


def test_a_port_for_grpc_that_is_taken_meanwhile_is_another_ports_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, QdrantServer() as server:
        server.stop()
        server._settled = False
        ports = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr("integration.servers.qdrant.free_port", lambda: next(ports))
        server.start()
        assert server.grpc_port != taken.getsockname()[1]
        with socket.create_connection((server.host, server.grpc_port), timeout=2):
            pass


# ------------------------------------------------------------------------------------- nothing is left

_DIES = """
import os, signal, sys, time
from integration.servers.{module} import {server}
server = {server}()
server.start()
print(server.port, server.folder, flush=True)
{how}
"""


_KILLED, _LEFT = "os.kill(os.getpid(), signal.SIGKILL)", "sys.exit()"
_FORKED = "os.fork() or time.sleep(12); os.kill(os.getpid(), 9)"  # for so long a child holds the keeper's socket


@pytest.mark.parametrize(
    ("server", "how"),
    [
        (PostgresServer, _KILLED),
        (PostgresServer, _LEFT),
        (PostgresServer, _FORKED),
        (ChromaServer, _KILLED),
        (QdrantServer, _KILLED),
    ],
)
def test_no_server_outlives_the_process_that_made_it(server: type[Served], how: str) -> None:
    source = _DIES.format(module=server.name, server=server.__name__, how=how)
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", source], cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port, folder = process.stdout.readline().split()
        process.kill()
    assert until(lambda: not Path(folder).exists())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=2)
    listed = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert folder not in listed


def test_a_server_that_is_forgotten_is_ended() -> None:
    server = PostgresServer()
    server.start()
    folder = server.folder
    del server
    gc.collect()
    assert until(lambda: not folder.exists())


def test_a_keeper_kills_grandchildren_that_left_their_group(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "folder")
    script = (
        "import os, time; p = os.fork(); os.setsid() if not p else None; print(os.getpid(), flush=True); time.sleep(60)"
    )
    keeper.run([sys.executable, "-c", script], tmp_path / "log")
    try:
        assert until(lambda: (tmp_path / "log").read_text().count("\n") == 2)
        pids = [int(line) for line in (tmp_path / "log").read_text().split()]
        assert keeper.wait(0.05) is None
        os.kill(pids[0], signal.SIGKILL)
        assert keeper.wait(5) == -signal.SIGKILL
        assert alive(pids[1])
        keeper.kill()
        assert not any(map(alive, pids))
    finally:
        keeper.close()
    with pytest.raises(ServerError, match="closed"):
        keeper.kill()


# ------------------------------------------------------------------------------------- the proxy


class Echo:
    """A server that answers every line with `<n>:<line>`, and knows what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=[link]))
            self._threads[-1].start()

    def _serve(self, link: socket.socket) -> None:
        with link, link.makefile("rb") as lines:
            try:
                for line in lines:
                    self.asked.append(line)
                    link.sendall(b"%d:%s" % (len(self.asked), line))
            except ConnectionError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as made:
        yield made


class Client:
    def __init__(self, port: int, timeout: float = 5.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)

    def send(self, line: bytes) -> None:
        self._socket.sendall(line)

    def reply(self) -> bytes:
        """All there is until a newline or the end."""
        got = b""
        while not got.endswith(b"\n") and (part := self._socket.recv(65_536)):
            got += part
        return got

    def ask(self, line: bytes) -> bytes:
        self.send(line)
        return self.reply()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()


def test_the_proxy_passes_and_counts(proxy: Proxy) -> None:
    with Client(proxy.port) as one, Client(proxy.port) as two:
        assert one.ask(b"a\n") == b"1:a\n"
        assert two.ask(b"bb\n") == b"2:bb\n"
        assert one.ask(b"c\n") == b"3:c\n"
        assert proxy.open() == 2
        big = b"x" * 1_000_000 + b"\n"
        assert one.ask(big) == b"4:" + big
    counts = proxy.counts
    assert (counts.connections, counts.round_trips) == (2, 4)
    assert (counts.up, counts.down) == (2 + 3 + 2 + len(big), 4 + 5 + 4 + len(big) + 2)
    assert until(lambda: proxy.open() == 0)


def test_a_delay_holds_back_both_directions(proxy: Proxy) -> None:
    with Client(proxy.port) as client:
        proxy.delay = 0.15
        began = time.monotonic()
        assert client.ask(b"a\n") == b"1:a\n"
        assert 0.3 <= time.monotonic() - began < 2


def test_silence_holds_what_is_sent_and_new_connections(proxy: Proxy, echo: Echo) -> None:
    with Client(proxy.port, timeout=0.3) as old:
        assert old.ask(b"a\n") == b"1:a\n"
        proxy.mode = Mode.SILENT
        with Client(proxy.port, timeout=0.3) as new:
            for client in (old, new):
                with pytest.raises(TimeoutError):
                    client.ask(b"b\n")
            assert echo.asked == [b"a\n"]
            proxy.mode = Mode.PASS
            assert sorted([old.reply()[1:], new.reply()[1:]]) == [b":b\n", b":b\n"]


def test_drop_ends_connections_and_reset_breaks_them(proxy: Proxy) -> None:
    with Client(proxy.port) as client:
        assert client.ask(b"a\n") == b"1:a\n"
        proxy.mode = Mode.DROP
        assert client.reply() == b""
    with Client(proxy.port) as client:
        assert client.reply() == b""
    proxy.mode = Mode.PASS
    with Client(proxy.port) as client:
        assert client.ask(b"b\n") == b"2:b\n"
        proxy.mode = Mode.RESET
        with pytest.raises(ConnectionResetError):
            client.reply()
    with pytest.raises(ConnectionResetError), Client(proxy.port) as client:
        client.reply()
    proxy.mode = Mode.PASS
    with Client(proxy.port) as client:
        assert client.ask(b"c\n") == b"3:c\n"


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_lets_so_many_bytes_through_and_happens_once(proxy: Proxy, echo: Echo, reset: bool) -> None:
    with Client(proxy.port) as client:
        assert client.ask(b"abc\n") == b"1:abc\n"
        proxy.cut_after(10, "down", reset=reset)
        assert client.ask(b"abc\n") == b"2:abc\n"
        client.send(b"abcdef\n")
        got = b""
        try:
            got = client.reply()
            client.reply()
        except ConnectionResetError:
            assert reset
        assert got in ([b"3:ab", b""] if reset else [b"3:ab"])
    with Client(proxy.port) as client:
        assert client.ask(b"z\n") == b"4:z\n"
        proxy.cut_after(2, "up")
        assert client.ask(b"wxyz\n") == b""
    assert until(lambda: len(echo.asked) == 5)
    assert echo.asked[4] == b"wx"


def test_a_swallowed_reply_is_one_whose_request_was_done(proxy: Proxy, echo: Echo) -> None:
    with Client(proxy.port) as client:
        assert client.ask(b"COMMIT\n") == b"1:COMMIT\n"
        lost = proxy.swallow_reply(b"COMMIT")
        assert client.ask(b"BEGIN\n") == b"2:BEGIN\n"
        client.send(b"COM")
        time.sleep(0.05)
        with pytest.raises(ConnectionResetError):
            client.ask(b"MIT\n")
        assert lost.wait(1)
        assert echo.asked == [b"COMMIT\n", b"BEGIN\n", b"COMMIT\n"]
    with Client(proxy.port) as client:
        assert client.ask(b"COMMIT\n") == b"4:COMMIT\n"


def test_a_server_that_is_not_there_resets_its_clients() -> None:
    with Proxy(free_port()) as proxy, pytest.raises(ConnectionResetError), Client(proxy.port) as client:
        client.reply()


def test_a_closed_proxy_ended_its_connections_and_its_thread(echo: Echo) -> None:
    threads = set(threading.enumerate())
    proxy = Proxy(echo.port)
    with Client(proxy.port) as client:
        assert client.ask(b"a\n") == b"1:a\n"
        proxy.close()
        assert client.reply() == b""
    proxy.close()
    with pytest.raises(ConnectionRefusedError):
        Client(proxy.port)
    assert not [thread for thread in set(threading.enumerate()) - threads if thread.name == "proxy"]
