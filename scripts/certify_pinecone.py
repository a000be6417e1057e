"""Certify the Pinecone adapter against the real service, which nothing else here has seen: needs a key, costs a little, cleans up.

    PINECONE_API_KEY=… uv run --group dev python scripts/certify_pinecone.py --cloud aws --region us-east-1

What the double (docs/pinecone-double.md) takes from documents is asked of the service: that log numbers are sent, what `$exists` and
`$ne` do, how scores, ties, limits and namespaces are; then 300 questions about 2,000 rows for each metric, whose answers are worked out
from the definitions. `--contract` runs the whole contract too: some hundred indexes are made and deleted, one after another, which takes
hours. Everything is made under a prefix of this run alone, and deleted at the end, also after Ctrl-C; indexes of others are not
touched. `--host` points it at another control plane, such as the double.
"""

import argparse
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import vectorkit as vk
from vectorkit import F
from vectorkit.testing import proof
from vectorkit.types import Metric

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


class Checks:
    """What was asked, and what came out."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.done = 0

    def hold(self, what: str, act: Callable[[], Any]) -> None:
        """One assumption: `act` returns nothing, or what is the case instead."""
        self.done += 1
        began = time.monotonic()
        try:
            other = act()
        except Exception as error:  # noqa: BLE001 - of the service, and whatever it says is the finding
            other = f"{type(error).__name__}: {error}"
        if other:
            self.failed.append(what)
        print(f"{'DIFFERS' if other else 'as assumed':>10}  {what} ({time.monotonic() - began:.1f} s)", flush=True)
        if other:
            print(f"            {other}", flush=True)


def main() -> int:
    """The number of findings, at most 100."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cloud", default="aws")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--host", default=None, help="another control plane than Pinecone's own")
    parser.add_argument("--wait", type=float, default=120.0, help="seconds that a write may take to be seen")
    parser.add_argument("--api", choices=("documents", "vectors"), default="documents")
    parser.add_argument("--metric", choices=proof.METRICS, action="append", help="those of the proof; else all")
    parser.add_argument("--contract", action="store_true", help="the whole contract as well")
    asked = parser.parse_args()
    if not os.environ.get("PINECONE_API_KEY"):
        parser.error("PINECONE_API_KEY is not set")
    prefix = f"vkc-{secrets.token_hex(4)}"
    host = f"&host={asked.host}" if asked.host else ""
    target = {
        "url": f"pinecone://{prefix}?cloud={asked.cloud}&region={asked.region}{host}",
        "wait": asked.wait,
        "api": asked.api,
    }
    checks = Checks()
    print(f"{target['url']}, {asked.api}", flush=True)
    with swept(target):
        assumptions(target, checks)
        for metric in asked.metric or proof.METRICS:
            checks.hold(f"300 questions about 2,000 rows, {metric}", lambda metric=metric: prove(target, metric))  # type: ignore[misc]
        if asked.contract:
            checks.hold("the whole contract", lambda: contract(target))
    print(f"{checks.done - len(checks.failed)} of {checks.done} as assumed", flush=True)
    return min(len(checks.failed), 100)


@contextmanager
def swept(target: dict[str, Any]) -> Iterator[None]:
    """Nothing under the prefix before; and after, whatever happened."""
    from integration.servers.pinecone import pinecone_indexes, pinecone_sweep

    with vk.connect(target) as store:
        if there := pinecone_indexes(store.native, target["url"]):
            raise SystemExit(f"there are indexes under this prefix already: {', '.join(there)}")
    try:
        yield
    finally:
        with vk.connect(target) as store:
            gone = pinecone_sweep(store.native, target["url"])
            left = pinecone_indexes(store.native, target["url"])
        print(f"deleted {len(gone)} indexes that were left; {len(left)} remain", flush=True)


def assumptions(target: dict[str, Any], checks: Checks) -> None:
    """What the adapter relies on, by its own verbs, and what only the client shows."""
    with vk.connect(target) as store:
        spec = vk.CollectionSpec(
            "facts", 8, metric="l2", expiry=True, fields={"n": int, "s": str, "tags": list[str], "b": bool}
        )
        began = time.monotonic()
        docs = store.create_collection(spec)
        print(f"{'':>10}  an index was ready after {time.monotonic() - began:.1f} s", flush=True)
        rows = [
            vk.Record(
                "all",
                [1, *[0] * 7],
                "Compress a file",
                {"n": 2**53 + 1, "s": "abcdefgh", "tags": ["x", "y"], "b": True},
            ),
            vk.Record("some", [0, 1, *[0] * 6], "compress nothing", {"n": 1, "tags": []}),
            vk.Record("none", [0] * 8, "", {}),
            vk.Record("tiny", [1e-12, *[0] * 7], None, {"nested": {"deep": [1, None]}}),
            vk.Record("é/日本" + "x" * 400, [0, 0, 1e15, *[0] * 5], "日本語 " + "w" * 300, {"s": "é"}),
        ]
        ids = {row.id for row in rows}
        checks.hold("a write is seen within the wait", lambda: _not(docs.upsert(rows).written, 5))
        checks.hold("every row is counted", lambda: _not(docs.count(), 5))
        checks.hold("every row is scanned once", lambda: _not(sorted(r.id for r in docs.scan()), sorted(ids)))
        checks.hold(
            "rows come back as they were",
            lambda: _not([r for r in docs.get([r.id for r in rows]) if r and not _same(r, rows)], []),
        )
        wanted: dict[str, tuple[vk.Filter, set[str]]] = {
            "$exists false finds rows without the key": (F("n").missing(), ids - {"all", "some"}),
            "!= holds where the key is missing": (F("s") != "abcdefgh", ids - {"all"}),
            "integers beyond 2^53 are told apart": (F("n") == 2**53, set()),
            "ranges": (F("n") > 0, {"all", "some"}),
            "prefixes of strings": (F("s").startswith("abcdefg"), {"all"}),
            "any element of a list": (F("tags").contains("y"), {"all"}),
            "no element of a list": (~F("tags").contains("y"), ids - {"all"}),
            "an empty list": (F("tags").contains_all([]), {"all", "some"}),
            "what is not declared is looked at again": (F("nested").exists(), {"tiny"}),
        }
        for what, (where, found) in wanted.items():
            checks.hold(
                f"filters: {what}",
                lambda where=where, found=found: (
                    _not({h.id for h in docs.query([1, *[0] * 7], k=5, where=where)}, found)  # type: ignore[misc]
                    or _not(docs.count(where), len(found))
                ),
            )
        checks.hold(
            "scores and order under l2",
            lambda: _not(docs.query([1, *[0] * 7], k=4).ids, ["all", "none", "tiny", "some"]),
        )
        if store.capability.keyword:
            checks.hold("words in any case", lambda: _not(set(docs.keyword("COMPRESS").ids), {"all", "some"}))
            checks.hold("long words and other scripts", lambda: _not(docs.keyword("w" * 300).ids, [rows[4].id]))
        checks.hold("an update sets and removes", lambda: _updates(docs))
        checks.hold(
            "a delete by filter says how many", lambda: _not(docs.delete(where=F("n") == 1), 1) or _not(docs.count(), 4)
        )
        checks.hold(
            "a row of 39,000 bytes is taken",
            lambda: _not(docs.upsert([vk.Record("large", [1] * 8, None, {"x": "y" * 38_000})]).written, 1),
        )
        checks.hold(
            "1,000 rows of 8 numbers are taken at once",
            lambda: _not(
                docs.upsert(vk.Record(f"r{n}", [1, n, *[0] * 6], f"row {n}") for n in range(1_000)).written, 1_000
            ),
        )
        checks.hold(
            "a delete of everything says how many",
            lambda: _not(docs.delete(everything=True), 1_005) or _not(docs.count(), 0),
        )
        store.drop_collection("facts")
        checks.hold("a dropped collection is not listed", lambda: _not(store.collections(), []))


def _updates(docs: vk.Collection) -> str:
    docs.update(ids=["all"], set={"s": "new", "more": 1.5}, unset=["n"])
    (row,) = docs.get(["all"])
    metadata = None if row is None else dict(row.metadata)
    return _not(metadata, {"s": "new", "tags": ["x", "y"], "b": True, "more": 1.5}) or _not(
        docs.count(F("n").exists()), 1
    )


def _not(found: Any, wanted: Any) -> str:
    """What is the case instead, nothing where it is as wanted."""
    return "" if found == wanted else f"{found!r} instead of {wanted!r}"


def _same(row: vk.Record, rows: list[vk.Record]) -> bool:
    wanted = next(one for one in rows if one.id == row.id)
    return (row.text, dict(row.metadata)) == (wanted.text, dict(wanted.metadata))


def prove(target: dict[str, Any], metric: Metric) -> str:
    """The proof across stores, on this one: what is wrong, nothing where all is right."""
    with vk.connect(target) as store:
        report = proof.prove(proof.load(store, vk.HNSW(), metric), metric, exact_too=store.capability.exact)
        for name in store.collections():
            store.drop_collection(name)
    print(f"{'':>10}  {metric}: {report}", flush=True)
    recall = float(np.mean(report.recall)) if report.recall else 1.0
    if report.wrong:
        return "; ".join(report.wrong[:3])
    return "" if recall >= proof.RECALL else f"recall {recall:.3f} below {proof.RECALL}"


def contract(target: dict[str, Any]) -> str:
    """The contract suite in a process of its own, with this run's prefix."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "integration/test_contract_pinecone.py",
        "-n",
        "0",
        "-m",
        "slow or not slow",
        "-q",
    ]
    environment = {
        **os.environ,
        "STORES": "pinecone",
        "VECTORKIT_PINECONE_URL": target["url"],
        "VECTORKIT_PINECONE_WAIT": str(target["wait"]),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    return "" if done.returncode == 0 else f"pytest ended with {done.returncode}"


if __name__ == "__main__":
    sys.exit(main())
