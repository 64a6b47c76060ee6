"""Every route of the Network API, registered by importing the modules that hold them."""

from kilonova.api.network import agents, networks, ports, quotas, security_groups, subnets
from kilonova.api.network.api import api

__all__ = ["agents", "api", "networks", "ports", "quotas", "security_groups", "subnets"]
