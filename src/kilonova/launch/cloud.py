"""Put the use cases together, and say which APIs one port serves."""

import json
import subprocess
from functools import partial

from cryptography.fernet import Fernet

from kilonova.api.compute import aggregates, flavors, hosts, keypairs, placement, server_actions, server_groups, servers
from kilonova.api.compute.api import api as compute_api
from kilonova.api.http.routing import Api
from kilonova.api.identity import application_credentials, groups, role_assignments
from kilonova.api.identity import resources as identity_resources
from kilonova.api.identity.tokens import api as identity_api
from kilonova.api.image.routes import api as image_api
from kilonova.api.metadata.routes import api as metadata_api
from kilonova.api.network.routes import api as network_api
from kilonova.api.operations.routes import metrics_api, readiness_api
from kilonova.base.clock import Clock
from kilonova.base.config import Config
from kilonova.cloud.accounts import Accounts
from kilonova.cloud.aggregates import Aggregates
from kilonova.cloud.answers import Answers
from kilonova.cloud.application_credentials import ApplicationCredentials
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.flavors import Flavors
from kilonova.cloud.hosts import Hosts
from kilonova.cloud.images import Images
from kilonova.cloud.keypairs import KeyPairs
from kilonova.cloud.logins import Logins
from kilonova.cloud.metadata import Metadata
from kilonova.cloud.networks import NetworkOptions, Networks
from kilonova.cloud.parts import Parts
from kilonova.cloud.placement import Placement
from kilonova.cloud.policy import CloudPolicy, PolicyOptions
from kilonova.cloud.role_assignments import RoleAssignments
from kilonova.cloud.security_groups import SecurityGroups
from kilonova.cloud.server_groups import ServerGroups
from kilonova.cloud.servers import Servers
from kilonova.identity.service import Identity, IdentityOptions
from kilonova.images.backends.filesystem import FilesystemStore
from kilonova.images.options import ImageOptions
from kilonova.images.references import ImageReferences
from kilonova.images.tickets import Tickets
from kilonova.launch.credentials import write_credentials
from kilonova.launch.options import ApiOptions
from kilonova.launch.process import Process
from kilonova.launch.state import StateDir, write_private
from kilonova.store.engine import Store
from kilonova.store.queries import identity as identity_rows

# Importing a module of an API registers its routes.
_ROUTES = (
    aggregates,
    flavors,
    hosts,
    keypairs,
    placement,
    server_actions,
    server_groups,
    servers,
    identity_resources,
    application_credentials,
    groups,
    role_assignments,
)

APIS: tuple[Api, ...] = (
    identity_api,
    compute_api,
    image_api,
    network_api,
    metadata_api,
    readiness_api,
    metrics_api,
)


SWEEP_S = 300.0
"""Seconds between two looks for uploads that died and bytes that nobody needs."""


async def build_cloud(process: Process, store: Store, url: str, *, alone: bool) -> Cloud:
    """Every use case; at first start also the first user, the credentials' files, and a network for everybody.

    Args:
        url: where this machine reaches the API; goes into the credentials' files.
        alone: no other process serves this cloud, so uploads that an earlier run began are dead.
    """
    state, config, clock, ids = process.state, process.config, process.clock, process.ids
    policy = CloudPolicy.load(config.get(PolicyOptions), clock=clock)
    parts = Parts(store, policy, clock, ids, process.calls.bell)
    identity = Identity(
        store, clock, ids, config.get(IdentityOptions), state.secret("token-key", Fernet.generate_key().decode).encode()
    )
    await _first_user(process, identity, url)
    image_options = config.get(ImageOptions)
    files = FilesystemStore(state.images, keep_free=image_options.keep_free_mib * 1024**2)
    images = Images(parts, files, Tickets(state.secret("image-tickets")), image_options)
    await images.sweep(alone=alone)
    process.repeat("api.images", SWEEP_S, partial(images.sweep, alone=False))
    networks = Networks(parts, config.get(NetworkOptions))
    for project in await store.read(identity_rows.find, "project", name="admin", domain_id="default"):
        await networks.ensure_default(project["id"], _routes())  # whoever renamed that project has a network already
    return Cloud(
        parts=parts,
        answers=Answers(store, clock),
        identity=identity,
        logins=Logins(parts, identity),
        accounts=Accounts(parts, identity),
        role_assignments=RoleAssignments(parts),
        application_credentials=ApplicationCredentials(parts, identity),
        servers=Servers(parts, process.calls.compute),
        server_groups=ServerGroups(parts),
        aggregates=Aggregates(parts),
        placement=Placement(parts, process.calls.scheduler),
        flavors=Flavors(parts),
        keypairs=KeyPairs(parts),
        hosts=Hosts(parts),
        images=images,
        networks=networks,
        security_groups=SecurityGroups(parts),
        metadata=Metadata(parts, state.secret("metadata")),
        readiness=process.readiness,
    )


async def _first_user(process: Process, identity: Identity, url: str) -> None:
    """Make the administrator once a cloud; only the machine that did so knows the generated password."""
    state = process.state
    kept = state.secrets / "admin-password"
    password = await identity.bootstrap()
    if password is not None:
        write_private(kept, password)
    if kept.exists():
        write_credentials(state, url, kept.read_text().strip(), process.config.get(ApiOptions).region)


def image_references(state: StateDir, url: str, config: Config, store: Store, clock: Clock) -> ImageReferences:
    """How the conductor tells agents where an image is."""
    tickets = Tickets(state.secret("image-tickets"))
    return ImageReferences(store, tickets, clock, config.get(ImageOptions), api_url=lambda: url)


def _routes() -> list[str]:
    """Where this machine has routes to already."""
    done = subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, text=True, check=False)
    routes = json.loads(done.stdout or "[]") if done.returncode == 0 else []
    return [route["dst"] for route in routes if route.get("dst") not in (None, "default") and "type" not in route]
