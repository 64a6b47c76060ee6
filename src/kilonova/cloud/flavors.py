"""What can be done with flavors."""

from kilonova.cloud.parts import Parts
from kilonova.model.context import RequestContext
from kilonova.model.errors import NotFound
from kilonova.model.flavor import Flavor
from kilonova.store.queries import flavors
from kilonova.store.transactions import Tx


class Flavors:
    """Use cases of flavors. Who may change them is said by the routes' policy."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store

    async def get(self, ctx: RequestContext, flavor_id: str) -> Flavor:
        """One flavor that the caller can see.

        Raises:
            NotFound
        """
        return await self._store.read(flavors.get, flavor_id, project_id=self._scope(ctx))

    async def page(
        self,
        ctx: RequestContext,
        *,
        is_public: bool | None = True,
        min_ram: int = 0,
        min_disk: int = 0,
        limit: int = 1000,
        marker: str | None = None,
        sort_key: str = "flavorid",
        descends: bool = False,
    ) -> list[Flavor]:
        """A page of the flavors that the caller can see; administrators choose with `is_public` (None: all)."""
        return await self._store.read(
            flavors.list_page,
            project_id=ctx.project_id,
            is_public=is_public if ctx.is_admin else True,
            min_ram=min_ram,
            min_disk=min_disk,
            limit=limit,
            marker=marker,
            sort_key=sort_key,
            descends=descends,
        )

    async def create(self, flavor: Flavor) -> Flavor:
        """Add a flavor; without an id it gets one.

        Raises:
            AlreadyExists
        """
        made = Flavor(
            **{
                **{name: getattr(flavor, name) for name in flavor.__struct_fields__},
                "id": flavor.id or self._parts.ids.uuid(),
                "created_at": self._parts.clock.now(),
            }
        )
        await self._store.run(flavors.insert, made)
        return made

    async def update(self, flavor_id: str, *, description: str | None) -> Flavor:
        """Change what is said of a flavor; its size never changes."""
        return await self._store.run(_describe, flavor_id, description)

    async def delete(self, flavor_id: str) -> None:
        """Remove a flavor. Servers that have it keep their own copy."""
        await self._store.run(flavors.delete, flavor_id)

    async def set_extra_specs(self, flavor_id: str, specs: dict[str, str]) -> dict[str, str]:
        """Add to a flavor's extra specs, or change some."""
        return (await self._store.run(_set_extra_specs, flavor_id, specs)).extra_specs

    async def delete_extra_spec(self, flavor_id: str, key: str) -> None:
        """Remove one extra spec.

        Raises:
            NotFound
        """
        await self._store.run(_delete_extra_spec, flavor_id, key)

    async def access(self, flavor_id: str) -> list[str]:
        """Projects that may use a private flavor.

        Raises:
            NotFound: also for a public flavor, which has no list.
        """
        return await self._store.read(_access, flavor_id)

    async def grant(self, flavor_id: str, project_id: str) -> list[str]:
        """Let a project use a private flavor."""
        await self._store.run(flavors.grant, flavor_id, project_id)
        return await self.access(flavor_id)

    async def revoke(self, flavor_id: str, project_id: str) -> list[str]:
        """Take a private flavor away from a project."""
        await self._store.run(flavors.revoke, flavor_id, project_id)
        return await self.access(flavor_id)

    def _scope(self, ctx: RequestContext) -> str | None:
        return None if ctx.is_admin else ctx.project_id


def _describe(tx: Tx, flavor_id: str, description: str | None) -> Flavor:
    return flavors.update(tx, flavor_id, description=description)


def _set_extra_specs(tx: Tx, flavor_id: str, specs: dict[str, str]) -> Flavor:
    flavor = flavors.get(tx, flavor_id)
    return flavors.update(tx, flavor_id, extra_specs={**flavor.extra_specs, **specs})


def _delete_extra_spec(tx: Tx, flavor_id: str, key: str) -> None:
    left = dict(flavors.get(tx, flavor_id).extra_specs)
    if key not in left:
        raise NotFound(kind="Flavor extra spec", id=key)
    del left[key]
    flavors.update(tx, flavor_id, extra_specs=left)


def _access(tx: Tx, flavor_id: str) -> list[str]:
    flavor = flavors.get(tx, flavor_id)
    if flavor.is_public:
        raise NotFound(kind="Access list of public flavor", id=flavor_id)
    return flavors.access(tx, flavor_id)
