"""What a user can do with security groups."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from kilonova.cloud.answers import once
from kilonova.cloud.networks import tell_hosts, update_port
from kilonova.cloud.parts import Parts
from kilonova.model.context import RequestContext
from kilonova.model.errors import BadRequest, Conflict, Forbidden, InvalidState, NotFound
from kilonova.model.network import Port
from kilonova.model.security_group import SecurityGroup, SecurityGroupRule
from kilonova.model.server import Server
from kilonova.model.states import TaskState, VMState
from kilonova.store.queries import ports, security_groups, servers
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

    # ---- servers ------------------------------------------------------------------------------------

    async def of_server(
        self, ctx: RequestContext, server_id: str
    ) -> tuple[list[SecurityGroup], dict[str, SecurityGroup]]:
        """The groups that a server's ports are in, by name; and, by id, those that their rules name.

        Raises:
            NotFound: the server.
        """
        return await self._store.read(_of_server, server_id, self._scope(ctx))

    async def add_to_server(self, ctx: RequestContext, server_id: str, word: str) -> None:
        """Put all ports of a server into a group, named by id or name. One that is in it stays in it.

        Raises:
            NotFound: there is no such server or group, or the server has no ports.
            Conflict: there are several groups of that name.
            InvalidState: the server is being built, so has no ports for good yet, or deleted.
            BadRequest: a port has no address, or no port security.
        """
        await self._change_server(ctx, server_id, word, _add_to_server)

    async def remove_from_server(self, ctx: RequestContext, server_id: str, word: str) -> None:
        """Take all ports of a server out of a group, named by id or name. What only it let through is cut off.

        Raises:
            NotFound: there is no such server or group, or none of the server's ports is in it.
            Conflict, InvalidState: as in `add_to_server`.
        """
        await self._change_server(ctx, server_id, word, _remove_from_server)

    async def _change_server(
        self, ctx: RequestContext, server_id: str, word: str, change: Callable[..., list[str]]
    ) -> None:
        server = await self._store.read(servers.get, server_id, project_id=self._scope(ctx))
        self._allow(ctx, "update_port", server.project_id)
        network_ids = await self._store.run(change, server_id, self._scope(ctx), word, at=self._parts.clock.now())
        await tell_hosts(self._parts, network_ids)

    async def _tell(self, group_id: str) -> None:
        for host in await self._store.read(security_groups.hosts_of_group, group_id):
            self._parts.bell.ring(f"network.{host}")


def _ensure_default(tx: Tx, project_id: str, *, at: Any) -> None:
    security_groups.ensure_default(tx, project_id, at=at)


# ---- transactions: a server's groups --------------------------------------------------------------------------


def _ports_of(tx: Tx, server: Server) -> list[Port]:
    """The ports of a server's own project: another's are in that one's groups, which are not its owner's to see."""
    found = ports.of_servers(tx, [server.id]).get(server.id, [])
    return [port for port in found if port.project_id == server.project_id]


def _of_server(tx: Tx, server_id: str, project_id: str | None) -> tuple[list[SecurityGroup], dict[str, SecurityGroup]]:
    server = servers.get(tx, server_id, project_id=project_id)
    found = security_groups.some(tx, {group for port in _ports_of(tx, server) for group in port.security_groups})
    named = {rule.remote_group_id for group in found for rule in group.rules if rule.remote_group_id}
    return found, {group.id: group for group in security_groups.some(tx, named)}


def _changeable(tx: Tx, server_id: str, project_id: str | None, action: str) -> tuple[Server, list[Port]]:
    """A server, and its ports. A build that fails on one host makes them anew on the next, so it must have ended."""
    server = servers.get(tx, server_id, project_id=project_id)
    if server.vm_state is VMState.BUILDING:
        raise InvalidState(server_id=server_id, action=action, attribute="vm_state", state=server.vm_state)
    if server.task_state is TaskState.DELETING:
        raise InvalidState(server_id=server_id, action=action, attribute="task_state", state=server.task_state)
    found = _ports_of(tx, server)
    if not found:
        raise NotFound(kind="Port of server", id=server_id)
    return server, found


def _add_to_server(tx: Tx, server_id: str, project_id: str | None, word: str, *, at: datetime) -> list[str]:
    server, found = _changeable(tx, server_id, project_id, "addSecurityGroup")
    group_id = security_groups.named(tx, server.project_id, word)
    for port in found:
        if not port.port_security or not port.fixed_ips:
            raise BadRequest(
                f"Security groups cannot be applied to port {port.id} of server {server_id}: it needs an address "
                "and port_security_enabled."
            )
    for port in found:
        _regroup(tx, port, lambda groups: tuple(dict.fromkeys((*groups, group_id))), at)
    return [port.network_id for port in found]


def _remove_from_server(tx: Tx, server_id: str, project_id: str | None, word: str, *, at: datetime) -> list[str]:
    server, found = _changeable(tx, server_id, project_id, "removeSecurityGroup")
    group_id = security_groups.named(tx, server.project_id, word)
    changed = [_regroup(tx, port, lambda groups: tuple(g for g in groups if g != group_id), at) for port in found]
    if not any(changed):
        raise NotFound(kind="Security group", id=f"{word} of server {server_id}")
    return [port.network_id for port in found]


def _regroup(tx: Tx, port: Port, change: Callable[[tuple[str, ...]], tuple[str, ...]], at: datetime) -> bool:
    """Bring a port into other groups; whether they are others."""
    port = ports.update(tx, port.id, {}, at=at)  # as it is now: nobody else changes it before this commits
    groups = change(port.security_groups)
    if groups == port.security_groups:
        return False
    update_port(tx, port, {"security_groups": list(groups)}, None, True, at=at)
    return True
