"""Tenancy: each strategy a store lists is a wall, and asking for one it does not list is refused.

Stores without tenancy are held to the refusal; the other tests wait for the first strategy that is listed.
"""

from typing import Any

import vectorkit as vk
from vectorkit.aio import AsyncStore
from vectorkit.testing.areas.collections import every_verb
from vectorkit.testing.kit import Area, all_ids, contract, ids_of, put, raises, rec, rows

EAST = [1.0, 0.0, 0.0, 0.0]
STRATEGIES = ("collection", "namespace", "filter")


class Tenants(Area):
    """§5 Tenancy."""

    @contract
    async def test_tenancy_that_is_not_listed_is_refused(self, store: AsyncStore) -> None:
        """Unsupported, naming the store; nothing is made."""
        listed = store.capability.tenancy
        asked: list[Any] = [strategy for strategy in STRATEGIES if strategy not in listed]
        if not listed:
            asked += ["auto", vk.ByField("tenant_id")]
        for tenancy in asked:
            with raises(vk.Unsupported, store.capability.store):
                await store.create_collection(self.spec("docs", tenancy=tenancy))
            with raises(vk.Unsupported, store.capability.store):
                await store.ensure_collection(self.spec("docs", tenancy=tenancy))
        assert await store.collections() == []

    @contract
    async def test_a_collection_without_tenancy_has_no_tenants(self, store: AsyncStore) -> None:
        """tenant(), tenants() and drop_tenant() are refused; the verbs work without a tenant."""
        docs = await self.docs(store)
        await put(docs, rec("a", EAST))
        with raises(vk.VectorkitError):
            docs.tenant("acme")
        with raises(vk.VectorkitError):
            await docs.tenants()
        with raises(vk.VectorkitError):
            await docs.drop_tenant("acme")
        assert await docs.count() == 1

    @contract
    async def test_a_tenant_is_required(self, store: AsyncStore) -> None:
        """Every data verb without a tenant is TenantRequired."""
        for tenancy in sorted(store.capability.tenancy):
            docs = await self.docs(store, f"by-{tenancy}", tenancy=tenancy)
            for verb, call in every_verb(docs).items():
                if verb == "optimize" or (verb in {"keyword", "hybrid"} and not store.capability.keyword):
                    continue
                with raises(vk.TenantRequired):
                    await call()

    @contract
    async def test_tenants_are_walled_off(self, store: AsyncStore) -> None:
        """The same id lives in two tenants; no verb of one sees, counts or touches a row of the other."""
        for tenancy in sorted(store.capability.tenancy):
            docs = await self.docs(store, f"by-{tenancy}", tenancy=tenancy)
            acme, blue = docs.tenant("acme"), docs.tenant("Acme")
            await put(acme, *rows(6))
            await put(blue, rec("r00001", EAST, "common blue", n="blue"))
            assert await docs.tenants() == {"acme": 6, "Acme": 1}
            assert [await acme.count(), await blue.count()] == [6, 1]
            assert await all_ids(blue) == ["r00001"]
            assert ids_of(await blue.query(EAST, k=10)) == ["r00001"]
            assert await blue.get(["r00002"]) == [None]
            if store.capability.keyword:
                assert ids_of(await blue.keyword("common")) == ["r00001"]
            assert await blue.update(where={}, set={"seen": 1}) == 1
            assert await acme.count({"seen": 1}) == 0
            assert await blue.delete(everything=True) == 1
            assert await acme.count() == 6
            assert await docs.drop_tenant("acme") == 6
            assert await docs.tenants() == {}

    @contract
    async def test_tenant_ids(self, store: AsyncStore) -> None:
        """1 to 200 characters of any Unicode but NUL and surrogates, not blank, exact."""
        for tenancy in sorted(store.capability.tenancy):
            docs = await self.docs(store, f"by-{tenancy}", tenancy=tenancy)
            good = ["a", "A", "é", "e\u0301", "x" * 200, "'; DROP TABLE", "a/b", "日本", " a"]
            for n, name in enumerate(good):
                await put(docs.tenant(name), *rows(n + 1))
            assert await docs.tenants() == {name: n + 1 for n, name in enumerate(good)}
            bad: list[Any] = ["", " ", "\t", "x" * 201, "a\0", "\ud800", None, 5]
            for name in bad:
                with raises(vk.InvalidArgument):
                    docs.tenant(name)
