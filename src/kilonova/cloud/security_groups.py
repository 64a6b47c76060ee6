"""What a user can do with security groups."""

from collections.abc import Mapping
from typing import Any

from kilonova.cloud.answers import once
from kilonova.cloud.parts import Parts
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, Conflict, Forbidden, NotFound
from kilonova.model.security_group import SecurityGroup, SecurityGroupRule
from kilonova.store.queries import security_groups
from kilonova.store.transactions import Tx


class SecurityGroups:
    """Use cases of security groups. Hosts learn of a change at once, or by their timer."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store

    def _scope(self, ctx: RequestContext) -> str | None:
        return None if ctx.is_admin else ctx.project_id

    def _allow(self, ctx: RequestContext, rule: str, project_id: str) -> None:
        self._parts.policy.authorize(ctx, rule, {"project_id": project_id})

    async def groups(self, ctx: RequestContext) -> list[SecurityGroup]:
        """Groups of the caller's project; an administrator sees all. Every project has its default one."""
        await self._store.run(_ensure_default, ctx.project_id, at=self._parts.clock.now())
        return await self._store.read(security_groups.list_all, project_id=self._scope(ctx))

    async def group(self, ctx: RequestContext, group_id: str) -> SecurityGroup:
        """One of them."""
        return await self._store.read(security_groups.get, group_id, project_id=self._scope(ctx))

    async def create_group(
        self, ctx: RequestContext, project_id: str | None, name: str, description: str
    ) -> SecurityGroup:
        """A new group: nothing comes in, everything may leave."""
        if project_id and project_id != ctx.project_id and not ctx.is_admin:
            raise Forbidden("Only administrators make things for other projects.")
        owner = project_id or ctx.project_id
        self._allow(ctx, "create_security_group", owner)
        if name.lower() == "default":
            raise Conflict("Default security group already exists.")
        now, ids = self._parts.clock.now(), self._parts.ids
        row = {
            "id": ids.uuid(),
            "project_id": owner,
            "name": name,
            "description": description,
            "created_at": now,
            "updated_at": now,
        }
        out = [
            {
                "id": ids.uuid(),
                "group_id": row["id"],
                "project_id": owner,
                "direction": "egress",
                "ethertype": ethertype,
                "description": "",
                "created_at": now,
            }
            for ethertype in ("IPv4", "IPv6")
        ]
        return await self._store.run(once(ctx, self._parts.clock, security_groups.insert), row, out)

    async def update_group(self, ctx: RequestContext, group_id: str, values: dict[str, Any]) -> SecurityGroup:
        """Change a group's name or description."""
        group = await self.group(ctx, group_id)
        self._allow(ctx, "update_security_group", group.project_id)
        if "name" in values and values["name"] != group.name and (group.is_default or values["name"] == "default"):
            raise Conflict("The default security group cannot be renamed, and there is only one.")
        return await self._store.run(security_groups.update, group_id, values, at=self._parts.clock.now())

    async def delete_group(self, ctx: RequestContext, group_id: str) -> None:
        """Remove a group that no port is in."""
        group = await self.group(ctx, group_id)
        self._allow(ctx, "delete_security_group", group.project_id)
        if group.is_default:
            raise Conflict("The default security group cannot be removed.")
        await self._store.run(security_groups.delete, group)

    # ---- rules --------------------------------------------------------------------------------------

    async def rules(self, ctx: RequestContext) -> list[SecurityGroupRule]:
        """Rules of the caller's project; an administrator sees all."""
        await self._store.run(_ensure_default, ctx.project_id, at=self._parts.clock.now())
        return await self._store.read(security_groups.list_rules, project_id=self._scope(ctx))

    async def rule(self, ctx: RequestContext, rule_id: str) -> SecurityGroupRule:
        """One of them."""
        return await self._store.read(security_groups.get_rule, rule_id, project_id=self._scope(ctx))

    async def create_rule(self, ctx: RequestContext, group_id: str, values: Mapping[str, Any]) -> SecurityGroupRule:
        """A new rule of a group; `values` are its other columns, checked."""
        group = await self.group(ctx, group_id)
        self._allow(ctx, "create_security_group_rule", group.project_id)
        remote = values.get("remote_group_id")
        if remote is not None:
            try:
                await self._store.read(security_groups.get, remote, project_id=group.project_id)
            except NotFound:
                raise BadRequest(f"Security group {remote} does not exist in this project.") from None
        row = {
            **values,
            "id": self._parts.ids.uuid(),
            "group_id": group_id,
            "project_id": group.project_id,
            "created_at": self._parts.clock.now(),
        }
        made: SecurityGroupRule = await self._store.run(once(ctx, self._parts.clock, security_groups.insert_rule), row)
        await self._tell(group_id)
        return made

    async def delete_rule(self, ctx: RequestContext, rule_id: str) -> None:
        """Remove a rule. What it let through is cut off."""
        rule = await self.rule(ctx, rule_id)
        self._allow(ctx, "delete_security_group_rule", rule.project_id)
        await self._store.run(security_groups.delete_rule, rule)
        await self._tell(rule.group_id)

    async def _tell(self, group_id: str) -> None:
        for host in await self._store.read(security_groups.hosts_of_group, group_id):
            self._parts.bell.ring(f"network.{host}")


def _ensure_default(tx: Tx, project_id: str, *, at: Any) -> None:
    security_groups.ensure_default(tx, project_id, at=at)
