"""URLs, profiles, dicts and options: what opens what, and that a secret shows nowhere."""

import asyncio
from pathlib import Path

import pytest

import vectorkit as vk
from vectorkit.adapter import Target
from vectorkit.address import backend_for


def spec(name: str = "a") -> vk.CollectionSpec:
    return vk.CollectionSpec(name, dimension=2)


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(vk.ConfigError, match=r"unknown store scheme 'nosuch'; installed are .*local, memory"):
        vk.connect("nosuch:///x")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("local://kb", "write an absolute path"),
        ("local://", "write an absolute path"),
        ("LOCAL:///kb", "looks like scheme"),
        ("local:///kb?nprobe=3", "takes no parameter 'nprobe'"),
        ("local:///a%00b", "NUL"),
    ],
)
def test_bad_urls(url: str, said: str) -> None:
    with pytest.raises(vk.ConfigError, match=said):
        vk.connect(url)


def test_not_a_url() -> None:
    with pytest.raises(vk.InvalidArgument):
        vk.connect(3)  # type: ignore[arg-type]
    with pytest.raises(vk.ConfigError, match="needs a url"):
        vk.connect({})


def test_relative_paths_and_percent_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with vk.connect("local://./k%20b") as store:
        store.create_collection(spec())
    assert (tmp_path / "k b" / "vectorkit.json").is_file()


def test_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vectorkit.toml").write_text('[stores.dev]\nurl = "local://./kb"\nlock_timeout = 0.5\n', "utf-8")
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.delenv("VECTORKIT_CONFIG", raising=False)
    with vk.connect("dev") as store:
        store.create_collection(spec())
    assert (tmp_path / "kb" / "vectorkit.json").is_file()
    with pytest.raises(vk.ConfigError, match=r"no profile 'prod' \(known: dev\)"):
        vk.connect("prod")


def test_a_named_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "other.toml"
    config.write_text('[stores.m]\nurl = "memory://"\n', "utf-8")
    monkeypatch.setenv("VECTORKIT_CONFIG", str(config))
    assert vk.connect("m").capability.store == "memory"
    monkeypatch.setenv("VECTORKIT_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(vk.ConfigError, match="which is no file"):
        vk.connect("m")


def test_only_names_in_braces_are_expanded_and_a_missing_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "vectorkit.toml"
    config.write_text(
        '[stores.a]\nurl = "local://./${KB_DIR}/$HOME"\n[stores.b]\nurl = "memory://"\napi_key = "${NOPE}"\n', "utf-8"
    )
    monkeypatch.setenv("VECTORKIT_CONFIG", str(config))
    monkeypatch.setenv("KB_DIR", "here")
    monkeypatch.delenv("NOPE", raising=False)
    with vk.connect("a"):
        assert (tmp_path / "here" / "$HOME" / "vectorkit.json").is_file()
    with pytest.raises(vk.ConfigError, match="environment variable NOPE"):
        vk.connect("b")


def test_read_only_in_a_profile_cannot_be_argued_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "vectorkit.toml"
    config.write_text('[stores.r]\nurl = "memory://shared-ro"\nread_only = true\n', "utf-8")
    monkeypatch.setenv("VECTORKIT_CONFIG", str(config))
    with vk.connect("r") as store, pytest.raises(vk.Unsupported, match="read_only"):
        store.create_collection(spec())


def test_options_are_typed() -> None:
    with pytest.raises(vk.InvalidArgument, match="takes LocalOptions, got dict"):
        vk.connect("local:///nowhere", options={"cache_mb": 3})
    with pytest.raises(vk.ConfigError, match="no option 'cache'"):
        vk.connect({"url": "local:///nowhere", "cache": 3})
    with pytest.raises(vk.InvalidArgument, match="lock_timeout"):
        vk.LocalOptions(lock_timeout=60)


def test_a_target_never_shows_its_secret() -> None:
    target = Target(scheme="qdrant", host="h", port=1, user="u", secret="hunter2")
    assert "hunter2" not in repr(target)
    assert target.shown == "qdrant://h:1"


def test_a_stranger_cannot_pass_as_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "odd"

        def load(self) -> object:
            return object()

    monkeypatch.setattr("vectorkit.address._entry_points", lambda: {"odd": Point()})
    with pytest.raises(vk.ConfigError, match="names no vectorkit Backend"):
        backend_for("odd")


def test_an_adapter_that_cannot_be_imported_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        def load(self) -> object:
            raise ImportError("No module named 'faiss'")

    monkeypatch.setattr("vectorkit.address._entry_points", lambda: {"faiss": Point()})
    with pytest.raises(vk.ConfigError, match=r"No module named 'faiss'.*pip install \./adapters/faiss"):
        backend_for("faiss")


def test_memory_is_private_unless_named() -> None:
    with vk.connect("memory://") as a, vk.connect("memory://") as b:
        a.create_collection(spec())
        assert b.collections() == []
    with vk.connect("memory://named-in-test") as a, vk.connect("memory://named-in-test") as b:
        a.create_collection(spec())
        assert b.collections() == ["a"]


def test_the_clock_must_be_aware() -> None:
    from datetime import datetime

    store = vk.connect("memory://", clock=lambda: datetime(2024, 1, 1))  # noqa: DTZ001
    docs = store.create_collection(vk.CollectionSpec("a", dimension=2, expiry=True))
    with pytest.raises(vk.InvalidArgument, match="aware"):
        docs.count()


def test_async_is_the_same() -> None:
    async def body() -> list[str]:
        async with await vk.aconnect("memory://") as store:
            await store.create_collection(spec("b"))
            return await store.collections()

    assert asyncio.run(body()) == ["b"]


def test_residual_limit_is_checked() -> None:
    with pytest.raises(vk.InvalidArgument, match="residual_limit"):
        vk.connect("memory://", residual_limit=0)
