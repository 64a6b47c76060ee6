"""Put the use cases together, and say which APIs one port serves."""

import json
import subprocess

from cryptography.fernet import Fernet

from kilonova.api.compute import flavors, hosts, keypairs, server_actions, servers
from kilonova.api.compute.api import api as compute_api
from kilonova.api.http.routing import Api
from kilonova.api.identity import resources as identity_resources
from kilonova.api.identity.tokens import api as identity_api
from kilonova.api.image.routes import api as image_api
from kilonova.api.metadata.routes import api as metadata_api
from kilonova.api.network.resources import api as network_api
from kilonova.api.operations.routes import metrics_api, readiness_api
from kilonova.base.clock import Clock
from kilonova.base.config import Config
from kilonova.base.ids import Ids
from kilonova.cloud.accounts import Accounts
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.flavors import Flavors
from kilonova.cloud.hosts import Hosts
from kilonova.cloud.images import Images
from kilonova.cloud.keypairs import KeyPairs
from kilonova.cloud.metadata import Metadata
from kilonova.cloud.networks import NetworkOptions, Networks
from kilonova.cloud.parts import Parts
from kilonova.cloud.policy import CloudPolicy, PolicyOptions
from kilonova.cloud.readiness import Readiness
from kilonova.cloud.servers import Servers
from kilonova.identity.service import Identity, IdentityOptions
from kilonova.images.backends.filesystem import FilesystemStore
from kilonova.images.options import ImageOptions
from kilonova.images.references import ImageReferences
from kilonova.images.tickets import Tickets
from kilonova.launch.calls import Calls
from kilonova.launch.credentials import write_credentials
from kilonova.launch.options import UpOptions
from kilonova.launch.state import StateDir, write_private
from kilonova.store.engine import Store
from kilonova.store.queries import identity as identity_rows

# Importing a module of an API registers its routes.
_ROUTES = (flavors, hosts, keypairs, server_actions, servers, identity_resources)

APIS: tuple[Api, ...] = (
    identity_api,
    compute_api,
    image_api,
    network_api,
    metadata_api,
    readiness_api,
    metrics_api,
)


async def build_cloud(
    state: StateDir, options: UpOptions, config: Config, store: Store, clock: Clock, ids: Ids, calls: Calls, url: str
) -> Cloud:
    """Every use case; at first start also the first user, the credentials' files, and a network for everybody."""
    policy = CloudPolicy.load(config.get(PolicyOptions), clock=clock)
    parts = Parts(store, policy, clock, ids, calls.bell)
    identity = Identity(store, clock, ids, config.get(IdentityOptions), _token_key(state))
    password = await identity.bootstrap()
    if password is not None:
        write_private(state.secrets / "admin-password", password)
    write_credentials(state, url, (state.secrets / "admin-password").read_text().strip(), options.region)
    image_options = config.get(ImageOptions)
    files = FilesystemStore(state.images, keep_free=image_options.keep_free_mib * 1024**2)
    images = Images(parts, files, Tickets(state.secret("image-tickets")), image_options)
    await images.sweep(alone=True)
    networks = Networks(parts, config.get(NetworkOptions))
    [project] = await store.read(identity_rows.find, "project", name="admin", domain_id="default")
    await networks.ensure_default(project["id"], _routes())
    return Cloud(
        parts=parts,
        identity=identity,
        accounts=Accounts(parts, identity),
        servers=Servers(parts, calls.compute),
        flavors=Flavors(parts),
        keypairs=KeyPairs(parts),
        hosts=Hosts(parts),
        images=images,
        networks=networks,
        metadata=Metadata(parts, state.secret("metadata")),
        readiness=Readiness(),
    )


def image_references(state: StateDir, url: str, config: Config, store: Store, clock: Clock) -> ImageReferences:
    """How the conductor tells agents where an image is."""
    tickets = Tickets(state.secret("image-tickets"))
    return ImageReferences(store, tickets, clock, config.get(ImageOptions), api_url=lambda: url)


def _token_key(state: StateDir) -> bytes:
    path = state.secrets / "token-key"
    if not path.exists():
        write_private(path, Fernet.generate_key().decode())
    return path.read_bytes().strip()


def _routes() -> list[str]:
    """Where this machine has routes to already."""
    done = subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, text=True, check=False)
    routes = json.loads(done.stdout or "[]") if done.returncode == 0 else []
    return [route["dst"] for route in routes if route.get("dst") not in (None, "default") and "type" not in route]
