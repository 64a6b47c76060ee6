"""``/os-keypairs`` of the Compute API v2.1."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from kilonova.api.compute.api import api
from kilonova.api.compute.shared import timestamp_us
from kilonova.api.http.microversions import Version
from kilonova.api.http.paging import next_links, page_size
from kilonova.api.http.routing import Reply, Request
from kilonova.api.http.schema import Since
from kilonova.api.http.views import Field, View
from kilonova.cloud.cloud import Cloud
from kilonova.model.errors import BadRequest
from kilonova.model.keypair import KeyPair

PublicKey = Annotated[str, Meta(min_length=1, max_length=16384)]
KeyName = Annotated[str, Meta(min_length=1, max_length=255)]


NO_GENERATION = Version(2, 92)


class KeyPairCreate(Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /os-keypairs``. Since 2.92 a key must be given: the cloud no longer makes any."""

    name: KeyName
    public_key: PublicKey | None = None
    type: Annotated[str, Since("2.2")] = "ssh"
    user_id: Annotated[str | None, Since("2.10")] = None


class KeyPairQuery(Struct, kw_only=True):
    """Query of all key pair routes."""

    user_id: str | None = None
    limit: str | None = None
    marker: str | None = None


SUMMARY = View(
    Field("name", lambda k: k.name),
    Field("public_key", lambda k: k.public_key),
    Field("fingerprint", lambda k: k.fingerprint),
    Field("type", lambda k: k.type, since="2.2"),
)

MADE = View(
    Field("name", lambda k: k.name),
    Field("public_key", lambda k: k.public_key),
    Field("fingerprint", lambda k: k.fingerprint),
    Field("user_id", lambda k: k.user_id),
    Field("type", lambda k: k.type, since="2.2"),
)

DETAIL = View(
    Field("id", lambda k: k.id),
    Field("name", lambda k: k.name),
    Field("public_key", lambda k: k.public_key),
    Field("fingerprint", lambda k: k.fingerprint),
    Field("user_id", lambda k: k.user_id),
    Field("created_at", lambda k: timestamp_us(k.created_at)),
    Field("deleted", lambda k: False),
    Field("deleted_at", lambda k: None),
    Field("updated_at", lambda k: None),
    Field("type", lambda k: k.type, since="2.2"),
)


def _owner(cloud: Cloud, req: Request, action: str, user_id: str | None) -> str:
    """Whose key pairs: the caller's own, or with the right role somebody else's."""
    owner = user_id or req.ctx.user_id
    cloud.parts.policy.authorize(req.ctx, f"os_compute_api:os-keypairs:{action}", {"user_id": owner})
    return owner


@api.route("GET", "/os-keypairs", policy=None)
async def list_keypairs(cloud: Cloud, req: Request, query: KeyPairQuery) -> Reply:
    """A user's key pairs."""
    owner = _owner(cloud, req, "index", query.user_id)
    limit = page_size(query.limit)
    found = await cloud.keypairs.page(owner, limit=limit, marker=query.marker)
    body: dict[str, Any] = {"keypairs": [{"keypair": _summary(keypair, req)} for keypair in found]}
    further = next_links(req, limit, [keypair.name for keypair in found])
    if further:
        body["keypairs_links"] = further
    return Reply(body)


def _summary(keypair: KeyPair, req: Request) -> dict[str, Any]:
    return SUMMARY.render(keypair, req.microversion)


@api.route("GET", "/os-keypairs/{name}", policy=None)
async def show_keypair(cloud: Cloud, req: Request, name: str, query: KeyPairQuery) -> Reply:
    """One key pair."""
    owner = _owner(cloud, req, "show", query.user_id)
    return Reply({"keypair": DETAIL.render(await cloud.keypairs.get(owner, name), req.microversion)})


@api.route("POST", "/os-keypairs", policy=None, body_key="keypair", status=200, until="2.1", once=True)
@api.route("POST", "/os-keypairs", policy=None, body_key="keypair", status=201, since="2.2", once=True)
async def create_keypair(cloud: Cloud, req: Request, body: KeyPairCreate) -> Reply:
    """Import a public key, or have a pair made; the private half comes back only now."""
    owner = _owner(cloud, req, "create", body.user_id)
    if body.public_key is None and req.microversion >= NO_GENERATION:
        raise BadRequest("public_key is required; make the pair on your own machine (ssh-keygen -t ed25519).")
    req.answers_with(lambda pair: _made(req, *pair))
    return _made(
        req, *await cloud.keypairs.create(req.ctx, owner, body.name, public_key=body.public_key, type=body.type)
    )


def _made(req: Request, made: KeyPair, private_key: str | None) -> Reply:
    view = MADE.render(made, req.microversion)
    if private_key is not None:
        view["private_key"] = private_key
    return Reply({"keypair": view})


@api.route("DELETE", "/os-keypairs/{name}", policy=None, status=202, until="2.1")
@api.route("DELETE", "/os-keypairs/{name}", policy=None, status=204, since="2.2")
async def delete_keypair(cloud: Cloud, req: Request, name: str, query: KeyPairQuery) -> Reply:
    """Forget a key pair."""
    await cloud.keypairs.delete(_owner(cloud, req, "delete", query.user_id), name)
    return Reply()
