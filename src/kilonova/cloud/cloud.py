"""The cloud as the APIs see it: one attribute a resource."""

from dataclasses import dataclass

from kilonova.cloud.accounts import Accounts
from kilonova.cloud.aggregates import Aggregates
from kilonova.cloud.answers import Answers
from kilonova.cloud.application_credentials import ApplicationCredentials
from kilonova.cloud.flavors import Flavors
from kilonova.cloud.hosts import Hosts
from kilonova.cloud.images import Images
from kilonova.cloud.keypairs import KeyPairs
from kilonova.cloud.logins import Logins
from kilonova.cloud.metadata import Metadata
from kilonova.cloud.networks import Networks
from kilonova.cloud.parts import Parts
from kilonova.cloud.placement import Placement
from kilonova.cloud.readiness import Readiness
from kilonova.cloud.role_assignments import RoleAssignments
from kilonova.cloud.security_groups import SecurityGroups
from kilonova.cloud.server_groups import ServerGroups
from kilonova.cloud.servers import Servers
from kilonova.identity.service import Identity


@dataclass(frozen=True)
class Cloud:
    """Every use case there is."""

    parts: Parts
    identity: Identity
    logins: Logins
    accounts: Accounts
    role_assignments: RoleAssignments
    application_credentials: ApplicationCredentials
    servers: Servers
    server_groups: ServerGroups
    aggregates: Aggregates
    placement: Placement
    flavors: Flavors
    keypairs: KeyPairs
    hosts: Hosts
    images: Images
    networks: Networks
    security_groups: SecurityGroups
    metadata: Metadata
    readiness: Readiness
    answers: Answers
