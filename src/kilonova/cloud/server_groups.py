"""What a user can do with server groups."""

import msgspec

from kilonova.cloud.parts import Parts
from kilonova.model.context import RequestContext
from kilonova.model.server_group import ServerGroupRecord
from kilonova.store.queries import groups, quotas
from kilonova.store.transactions import Tx


class ServerGroups:
    """Use cases of server groups."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store

    def _scope(self, ctx: RequestContext) -> str | None:
        return None if ctx.is_admin else ctx.project_id

    async def page(
        self, ctx: RequestContext, *, all_projects: bool = False, limit: int | None = None, offset: int = 0
    ) -> list[ServerGroupRecord]:
        """Groups of the caller's project; administrators may ask for all."""
        if all_projects:
            self._parts.policy.authorize(ctx, "os_compute_api:os-server-groups:index:all_projects")
        project_id = None if all_projects else ctx.project_id
        return await self._store.read(groups.list_page, project_id=project_id, limit=limit, offset=offset)

    async def get(self, ctx: RequestContext, group_id: str) -> ServerGroupRecord:
        """One group, if the caller may see it.

        Raises:
            NotFound
        """
        return await self._store.read(groups.get, group_id, project_id=self._scope(ctx))

    async def create(self, ctx: RequestContext, name: str, policy: str, max_server_per_host: int) -> ServerGroupRecord:
        """A new group without members.

        Raises:
            QuotaExceeded
        """
        group = ServerGroupRecord(
            id=self._parts.ids.uuid(),
            project_id=ctx.project_id,
            user_id=ctx.user_id,
            name=name,
            policy=policy,
            max_server_per_host=max_server_per_host,
            created_at=self._parts.clock.now(),
        )
        await self._store.run(_insert, group)
        return group

    async def delete(self, ctx: RequestContext, group_id: str) -> None:
        """Remove a group. Its servers stay where they are.

        Raises:
            NotFound
        """
        await self._store.run(_delete, group_id, self._scope(ctx))


def _insert(tx: Tx, group: ServerGroupRecord) -> None:
    quotas.take(tx, group.project_id, {"server_groups": 1})
    groups.insert(tx, msgspec.structs.replace(group, members=()))


def _delete(tx: Tx, group_id: str, project_id: str | None) -> None:
    group = groups.get(tx, group_id, project_id=project_id)
    groups.delete(tx, group_id)
    quotas.give_back(tx, group.project_id, {"server_groups": 1})
