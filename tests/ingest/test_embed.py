"""The offline embedder: the same vector everywhere, unit length, near where words are shared, and honest about its name."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import vectorkit as vk
from vectorkit.ingest.embed import Embedder, embedder_for


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split()]


# Golden values: made once by this very code. Should one change, REVISION has to rise.
GOLDEN = {
    "compress a file with gzip": numbers(
        "0.165112 0 0.025286 -0.135313 0 0 0.019037 0.135313 -0.140616 0.125574 0.14462 -0.082873 0.163656 0 "
        "0 0.165112 -0.147165 0.082873 0.297818 0.10191 -0.237223 0.10191 0 0.270627 0 -0.006249 -0.021591 "
        "-0.10191 -0.041612 0.256206 -0.288613 0.163656 -0.265566 0 0 -0.112725 0 0 0 0.017948 0.343239 "
        "0.001089 0 -0.116277 -0.143521 -0.019037 -0.05956 0.00936 0.017948 -0.017948 -0.135313 -0.025286 0 "
        "-0.025286 -0.09208 0.008208 0.10191 -0.017948 -0.256206 0 -0.129011 -0.025286 0 0 "
    ),
    "Straße 12, naïve café — 日本語": numbers(
        "0.110684 0.078265 -0.078265 -0.121491 0.176849 -0.198392 0.078265 -0.169575 -0.176849 -0.078265 "
        "-0.075536 0 -0.078265 -0.024232 0.185348 -0.104354 -0.080994 0 -0.008499 -0.014861 0 0.156531 "
        "0.160624 -0.080994 -0.213253 0.110684 0.025636 -0.280751 0.171391 -0.156531 0.078265 0.080994 "
        "0.095855 0 -0.121491 0.156531 -0.056722 -0.110684 0.095855 -0.182619 0 0 -0.159259 0 -0.234796 "
        "0.078265 0.110684 -0.276657 0.110684 0 0.300017 0 0.176849 -0.104354 0.078265 -0.110684 -0.078265 "
        "-0.117398 0.080994 0 -0.080994 0.014829 0 -0.121491 "
    ),
}
SHOW = """
import sys, vectorkit as vk
for text in ("compress a file with gzip", "Straße 12, naïve café — 日本語"):
    vector = vk.HashEmbedder(64).embed([text])[0]
    print([round(float(value), 6) for value in vector])
"""


def cosine(a: str, b: str, dimension: int = 384) -> float:
    left, right = vk.HashEmbedder(dimension).embed([a, b])
    return float(left @ right)


@pytest.mark.parametrize("text", list(GOLDEN))
def test_golden_values(text: str) -> None:
    np.testing.assert_allclose(vk.HashEmbedder(64).embed([text])[0], GOLDEN[text], atol=2e-6)


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_the_same_in_another_process_with_another_hash_seed(seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True)
    rows = [[float(value) for value in line.strip("[]\n").split(",")] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(rows, list(GOLDEN.values()), atol=2e-6)


def test_shape_type_and_length() -> None:
    vectors = vk.HashEmbedder().embed(["one", "two words", "", "x" * 10_000, "+++", "a\nb\tc", "日本語"])
    assert vectors.shape == (7, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert vk.HashEmbedder().embed([]).shape == (0, 384)


def test_a_text_without_words_gets_the_same_unit_vector() -> None:
    empty, spaces, signs = vk.HashEmbedder(32).embed(["", "  \n", "+-* ___"])
    assert empty.tolist() == [1.0] + [0.0] * 31
    assert spaces.tolist() == empty.tolist() == signs.tolist()


def test_a_text_does_not_depend_on_its_company() -> None:
    texts = [f"text number {i} about {'gzip' if i % 2 else 'dates'}" for i in range(600)]
    together = vk.HashEmbedder().embed(texts)
    backwards = vk.HashEmbedder().embed(texts[::-1])[::-1]
    alone = np.vstack([vk.HashEmbedder().embed([text]) for text in texts[:20]])
    assert (together == backwards).all()
    assert (together[:20] == alone).all()


def test_forgetting_words_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(f"word{i * 7 + j}" for j in range(50)) for i in range(40)]
    kept = vk.HashEmbedder().embed(texts)
    monkeypatch.setattr("vectorkit.ingest.embed._KEPT_WORDS", 60)
    np.testing.assert_allclose(vk.HashEmbedder().embed(texts), kept, atol=1e-6)


def test_near_where_words_or_parts_of_words_are_shared() -> None:
    assert cosine("parse_date", "parseDate") == pytest.approx(1.0, abs=1e-6)
    assert cosine("parse_date", "parse date") > 0.8
    assert cosine("compress the file", "compression of files") > 0.3
    assert cosine("HTTPServer", "http server") > 0.8
    assert cosine("COMPRESS", "compress") == pytest.approx(1.0, abs=1e-6)
    assert cosine("cafe\u0301", "caf\u00e9") == pytest.approx(1.0, abs=1e-6)
    assert cosine("naïve Straße", "NAÏVE STRAẞE") == pytest.approx(1.0, abs=1e-6)
    assert cosine("日本語", "これは日本語の文章です") > 0.3
    assert abs(cosine("gzip archive", "monotonic clock")) < 0.25
    assert cosine("the gzip", "gzip") > 0.98  # a function word hardly counts


def test_it_is_lexical_and_its_documentation_says_so() -> None:
    assert abs(cosine("car", "automobile")) < 0.25
    assert "not a semantic model" in (vk.HashEmbedder.__doc__ or "")


def test_unlike_texts_scatter_by_the_root_of_the_dimension() -> None:
    texts = [f"{chr(97 + i // 26)}{chr(97 + i % 26)}q{i}zx" for i in range(300)]
    for dimension in (64, 1024):
        vectors = vk.HashEmbedder(dimension).embed(texts)
        gram = vectors @ vectors.T
        spread = gram[~np.eye(len(texts), dtype=bool)].std()
        assert spread < 2.0 / dimension**0.5


def test_threads_may_share_one() -> None:
    embedder, texts = vk.HashEmbedder(), [f"alpha{i} beta{i % 13} gamma" for i in range(400)]
    wanted = vk.HashEmbedder().embed(texts)
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(embedder.embed(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all((result == wanted).all() for result in results)


def test_fingerprint_names_dimension_and_revision() -> None:
    assert vk.HashEmbedder().fingerprint == vk.Embedding("vectorkit-hash-384", revision="1", normalized=True)
    assert vk.HashEmbedder(64).fingerprint.name == "vectorkit-hash-64"
    assert vk.HashEmbedder(64).dimension == 64
    embedder: Embedder = vk.HashEmbedder()
    assert embedder.dimension == 384


@pytest.mark.parametrize("dimension", [0, 15, -1, 65_537, True, 3.0, "64", None])
def test_a_dimension_that_cannot_be_is_refused(dimension: Any) -> None:
    with pytest.raises(vk.InvalidArgument, match="dimension must be an int from 16 to 65536"):
        vk.HashEmbedder(dimension)


@pytest.mark.parametrize("texts", ["one text", b"bytes", {"a": 1}, 5])
def test_one_text_is_no_list_of_texts(texts: Any) -> None:
    with pytest.raises(vk.InvalidArgument, match="embed takes a list of texts"):
        vk.HashEmbedder().embed(texts)


def test_what_is_no_text_is_refused() -> None:
    texts: Sequence[str] = ["a", None]  # type: ignore[list-item]
    with pytest.raises(vk.InvalidArgument, match="a text to embed is a string, got NoneType"):
        vk.HashEmbedder().embed(texts)


def test_an_embedder_is_rebuilt_from_its_fingerprint() -> None:
    rebuilt = embedder_for(vk.HashEmbedder(96).fingerprint)
    assert isinstance(rebuilt, vk.HashEmbedder)
    assert rebuilt.dimension == 96


def test_another_models_fingerprint_says_what_to_do() -> None:
    with pytest.raises(vk.Unsupported, match=r"'all-MiniLM-L6-v2', which vectorkit cannot run.*--vector"):
        embedder_for(vk.Embedding("all-MiniLM-L6-v2"))


@pytest.mark.parametrize(
    "fingerprint",
    [
        vk.Embedding("vectorkit-hash-384", revision="2", normalized=True),
        vk.Embedding("vectorkit-hash-384", revision="1", normalized=False),
        vk.Embedding("vectorkit-hash-3", revision="1", normalized=True),
    ],
)
def test_a_fingerprint_of_ours_that_is_not_made_any_more_is_refused(fingerprint: vk.Embedding) -> None:
    with pytest.raises(vk.FingerprintMismatch):
        embedder_for(fingerprint)
