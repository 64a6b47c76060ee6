"""Security groups, their rules, and who is in them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from ipaddress import IPv4Address
from typing import Any

import sqlalchemy as sa

from kilonova.model.errors import BadRequest, Conflict, NotFound
from kilonova.model.network_plans import GroupMembers, RulePlan
from kilonova.model.security_group import SecurityGroup, SecurityGroupRule, default_id, default_rules
from kilonova.store.queries import quotas
from kilonova.store.tables.networks import addresses, ports
from kilonova.store.tables.security_groups import port_security_groups as members
from kilonova.store.tables.security_groups import security_group_rules as rules
from kilonova.store.tables.security_groups import security_groups as groups
from kilonova.store.transactions import Tx, insert_if_absent, insert_row, select_rows, update_rows

_g, _r, _m = groups.c, rules.c, members.c
_RULES = sa.select(rules).where(_r.group_id.in_(sa.bindparam("groups", expanding=True))).order_by(_r.created_at, _r.id)
_OF_PORTS = (
    sa.select(members).where(_m.port_id.in_(sa.bindparam("ports", expanding=True))).order_by(_m.port_id, _m.group_id)
)
_MEMBERS_ON = (
    sa.select(ports.c.network_id, _m.group_id, addresses.c.address, ports.c.allowed_address_pairs)
    .select_from(members.join(ports, ports.c.id == _m.port_id).join(addresses, addresses.c.port_id == ports.c.id))
    .where(
        ports.c.network_id.in_(sa.bindparam("networks", expanding=True)),
        _m.group_id.in_(sa.bindparam("groups", expanding=True)),
    )
)
_LEAVE = sa.delete(members).where(_m.port_id == sa.bindparam("port"))
_THERE = sa.select(_g.id).where(_g.id == sa.bindparam("group"))
_SOME = sa.select(groups).where(_g.id.in_(sa.bindparam("groups", expanding=True))).order_by(_g.name, _g.id)
_NAMES = sa.select(_g.id, _g.name).where(_g.id.in_(sa.bindparam("groups", expanding=True)))


def _with_rules(tx: Tx, rows: Sequence[Any]) -> list[SecurityGroup]:
    of_group = _rules_of(tx, [row.id for row in rows])
    return [SecurityGroup(**row._mapping, rules=tuple(of_group.get(row.id, ()))) for row in rows]


def _rules_of(tx: Tx, group_ids: Sequence[str]) -> dict[str, list[SecurityGroupRule]]:
    found: dict[str, list[SecurityGroupRule]] = {}
    if group_ids:
        for row in tx.execute(_RULES, {"groups": list(group_ids)}):
            found.setdefault(row.group_id, []).append(SecurityGroupRule(**row._mapping))
    return found


def ensure_default(tx: Tx, project_id: str, *, at: datetime) -> str:
    """The project's default group, made if it is not there; its id."""
    group_id = default_id(project_id)
    if tx.execute(_THERE, {"group": group_id}).first() is not None:
        return group_id
    row = {
        "id": group_id,
        "project_id": project_id,
        "name": "default",
        "description": "Default security group",
        "created_at": at,
        "updated_at": at,
    }
    if insert_if_absent(tx, groups, row):
        tx.execute(
            sa.insert(rules),
            [{**rule, "description": "", "created_at": at} for rule in default_rules(group_id, project_id)],
        )
    return group_id


def get(tx: Tx, group_id: str, *, project_id: str | None = None) -> SecurityGroup:
    """One group; with `project_id`, only of that project.

    Raises:
        NotFound
    """
    row = select_rows(tx, groups, {"id": group_id}).first()
    if row is None or (project_id is not None and row.project_id != project_id):
        raise NotFound(kind="Security group", id=group_id)
    return _with_rules(tx, [row])[0]


def list_all(tx: Tx, *, project_id: str | None = None) -> list[SecurityGroup]:
    """Groups of a project (None: all), by id."""
    query = sa.select(groups).order_by(_g.id)
    if project_id is not None:
        query = query.where(_g.project_id == project_id)
    return _with_rules(tx, tx.execute(query).all())


def some(tx: Tx, group_ids: Collection[str]) -> list[SecurityGroup]:
    """These groups, by name; one that is gone is left out."""
    return _with_rules(tx, tx.execute(_SOME, {"groups": sorted(group_ids)}).all()) if group_ids else []


def names(tx: Tx, group_ids: Collection[str]) -> dict[str, str]:
    """What some groups are called, by id; one without a name is called by its id."""
    if not group_ids:
        return {}
    return {row.id: row.name or row.id for row in tx.execute(_NAMES, {"groups": sorted(group_ids)})}


def insert(tx: Tx, row: Mapping[str, Any], first_rules: Sequence[Mapping[str, Any]]) -> SecurityGroup:
    """Add a group with its first rules."""
    quotas.take(tx, row["project_id"], {"security_group": 1})
    insert_row(tx, groups, row)
    for rule in first_rules:
        insert_rule(tx, rule)
    return get(tx, row["id"])


def update(tx: Tx, group_id: str, values: Mapping[str, Any], *, at: datetime) -> SecurityGroup:
    """Change a group's name or description."""
    update_rows(tx, groups, {"id": group_id}, {**values, "updated_at": at})
    return get(tx, group_id)


def delete(tx: Tx, group: SecurityGroup) -> None:
    """Remove a group with its rules, and others' rules that name it.

    Raises:
        Conflict: ports are in it.
    """
    if tx.execute(sa.select(_m.port_id).where(_m.group_id == group.id).limit(1)).first():
        raise Conflict(f"Security Group {group.id} in use.")
    about = sa.or_(_r.group_id == group.id, _r.remote_group_id == group.id)
    for rule in [SecurityGroupRule(**row._mapping) for row in tx.execute(sa.select(rules).where(about))]:
        delete_rule(tx, rule)
    tx.execute(sa.delete(groups).where(_g.id == group.id))
    quotas.give_back(tx, group.project_id, {"security_group": 1})


# ---- rules --------------------------------------------------------------------------------------------------


def get_rule(tx: Tx, rule_id: str, *, project_id: str | None = None) -> SecurityGroupRule:
    """One rule.

    Raises:
        NotFound
    """
    row = select_rows(tx, rules, {"id": rule_id}).first()
    if row is None or (project_id is not None and row.project_id != project_id):
        raise NotFound(kind="Security group rule", id=rule_id)
    return SecurityGroupRule(**row._mapping)


def list_rules(tx: Tx, *, project_id: str | None = None) -> list[SecurityGroupRule]:
    """Rules of a project's groups (None: all), by id."""
    query = sa.select(rules).order_by(_r.id)
    if project_id is not None:
        query = query.where(_r.project_id == project_id)
    return [SecurityGroupRule(**row._mapping) for row in tx.execute(query)]


_SAYS = ("direction", "ethertype", "protocol", "port_min", "port_max", "remote_cidr", "remote_group_id")


def insert_rule(tx: Tx, row: Mapping[str, Any]) -> SecurityGroupRule:
    """Add a rule to a group.

    Raises:
        Conflict: the group has one that says the same.
    """
    for other in _rules_of(tx, [row["group_id"]]).get(row["group_id"], []):
        if all(getattr(other, name) == row.get(name) for name in _SAYS):
            raise Conflict(f"Security group rule already exists. Rule id is {other.id}.")
    quotas.take(tx, row["project_id"], {"security_group_rule": 1})
    insert_row(tx, rules, row)
    return get_rule(tx, row["id"])


def delete_rule(tx: Tx, rule: SecurityGroupRule) -> None:
    """Remove a rule."""
    first = {row["id"] for row in default_rules(rule.group_id, rule.project_id)}  # these took no quota
    if tx.execute(sa.delete(rules).where(_r.id == rule.id)).rowcount and rule.id not in first:
        quotas.give_back(tx, rule.project_id, {"security_group_rule": 1})


# ---- ports --------------------------------------------------------------------------------------------------


def named(tx: Tx, project_id: str, word: str) -> str:
    """The id of the group of a project that a user names by id or name.

    Raises:
        NotFound
        Conflict: there are several of that name.
    """
    known = tx.execute(sa.select(_g.id, _g.name).where(_g.project_id == project_id)).all()
    ids = [row.id for row in known if row.id == word] or [row.id for row in known if row.name == word]
    if not ids:
        raise NotFound(kind="Security group", id=word[:255])
    if len(ids) > 1:
        raise Conflict(f"Multiple security groups found matching '{word[:255]}'. Use an ID to be more specific.")
    return str(ids[0])


def resolve(tx: Tx, project_id: str, wanted: Sequence[str], *, at: datetime) -> list[str]:
    """Ids of groups that a user names by id or name; nothing named: the default group.

    Raises:
        BadRequest: there is none.
        Conflict: there are several of that name.
    """
    default = ensure_default(tx, project_id, at=at)
    try:
        return list(dict.fromkeys(named(tx, project_id, word) for word in wanted)) or [default]
    except NotFound as missing:
        raise BadRequest(f"Security group {missing.id} not found for project {project_id}.") from None


def set_of_port(tx: Tx, port_id: str, group_ids: Sequence[str]) -> None:
    """The port is in these groups and no others."""
    tx.execute(_LEAVE, {"port": port_id})
    add_port(tx, port_id, group_ids)


def add_port(tx: Tx, port_id: str, group_ids: Sequence[str]) -> None:
    """A port that is in no group yet comes into these."""
    for group_id in group_ids:
        insert_row(tx, members, {"port_id": port_id, "group_id": group_id})


def of_ports(tx: Tx, port_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The groups of some ports."""
    found: dict[str, tuple[str, ...]] = {}
    if not port_ids:
        return found
    few = len(port_ids) < 500
    for row in tx.execute(_OF_PORTS, {"ports": list(port_ids)}) if few else tx.execute(sa.select(members)):
        found[row.port_id] = (*found.get(row.port_id, ()), row.group_id)
    return found


# ---- what hosts are told ------------------------------------------------------------------------------------


def plans_of(tx: Tx, group_ids: Collection[str]) -> dict[str, tuple[RulePlan, ...]]:
    """Rules of some groups as hosts keep them. Of IPv6 nothing passes, whatever rules say."""
    return {
        group_id: tuple(
            RulePlan(
                direction=rule.direction,
                protocol=rule.protocol or "",
                port_min=rule.port_min,
                port_max=rule.port_max,
                remote=rule.remote_cidr or "",
                remote_group=rule.remote_group_id or "",
            )
            for rule in found
            if rule.ethertype == "IPv4"
        )
        for group_id, found in _rules_of(tx, sorted(group_ids)).items()
    }


def members_on(tx: Tx, network_ids: Collection[str], group_ids: Collection[str]) -> tuple[GroupMembers, ...]:
    """The addresses, on these networks, of these groups' ports."""
    if not network_ids or not group_ids:
        return ()
    found: dict[tuple[str, str], set[str]] = {}
    for row in tx.execute(_MEMBERS_ON, {"networks": sorted(network_ids), "groups": sorted(group_ids)}):
        there = found.setdefault((row.network_id, row.group_id), set())
        there.add(str(IPv4Address(row.address)))
        there.update(pair["ip_address"] for pair in row.allowed_address_pairs)
    return tuple(
        GroupMembers(network_id=network_id, group_id=group_id, addresses=tuple(sorted(there)))
        for (network_id, group_id), there in sorted(found.items())
    )


def hosts_of_group(tx: Tx, group_id: str) -> list[str]:
    """Hosts with ports that are in a group."""
    query = (
        sa.select(ports.c.host)
        .select_from(members.join(ports, ports.c.id == _m.port_id))
        .where(_m.group_id == group_id, ports.c.host != "")
        .distinct()
    )
    return sorted(tx.execute(query).scalars())


def hosts_of_networks(tx: Tx, network_ids: Collection[str]) -> list[str]:
    """Hosts with ports on some networks."""
    query = sa.select(ports.c.host).where(ports.c.network_id.in_(sorted(network_ids)), ports.c.host != "").distinct()
    return sorted(tx.execute(query).scalars())
