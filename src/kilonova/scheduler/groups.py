"""Where the members of a server group are: the conductor knows of claims, the table of what it just promised."""

from collections import Counter

from kilonova.scheduler.plugin import HostTable, RequestSpec


def members_by_host(hosts: HostTable, spec: RequestSpec) -> Counter[str]:
    """Host to how many members of the request's group it has, besides the servers asked for that have no host yet.

    A claim may be known to the conductor and still be promised here: servers are counted, each once.
    """
    if spec.group is None:
        return Counter()
    return Counter({**hosts.promised_members(spec.group.id), **spec.group.members}.values())
