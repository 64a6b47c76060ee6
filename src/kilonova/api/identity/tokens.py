"""``/auth`` of Identity v3: tokens and the catalogue."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from kilonova.api.http.errors import KEYSTONE_ERRORS
from kilonova.api.http.routing import Api, Reply, Request
from kilonova.cloud.cloud import Cloud
from kilonova.cloud.logins import LoginRequest, Wanted
from kilonova.identity.passwords import MAX_LENGTH
from kilonova.identity.service import Login
from kilonova.model.errors import BadRequest, NotFound, Unauthorized

api = Api("identity", root="/identity/v3", errors=KEYSTONE_ERRORS)


Text = Annotated[str, Meta(max_length=255)]
Secret = Annotated[str, Meta(max_length=MAX_LENGTH)]


class Ref(Struct, forbid_unknown_fields=True, kw_only=True):
    """Something by its id, or by its name in a domain."""

    id: Text | None = None
    name: Text | None = None
    domain: "Ref | None" = None
    password: Secret | None = None


class PasswordMethod(Struct, kw_only=True):
    """By password."""

    user: Ref


class TokenMethod(Struct, kw_only=True):
    """By a token that one has."""

    id: Secret


class CredentialMethod(Struct, kw_only=True):
    """By application credential."""

    id: Text | None = None
    name: Text | None = None
    secret: Secret
    user: Ref | None = None


class Methods(Struct, kw_only=True):
    """How somebody proves who they are."""

    methods: Annotated[list[Text], Meta(max_length=16)]
    password: PasswordMethod | None = None
    token: TokenMethod | None = None
    application_credential: CredentialMethod | None = None


class SystemScope(Struct, forbid_unknown_fields=True, kw_only=True):
    """The whole system; there are no parts of it."""

    all: Literal[True]


class Scope(Struct, forbid_unknown_fields=True, kw_only=True):
    """Where somebody wants to work: one of these."""

    project: Ref | None = None
    domain: Ref | None = None
    system: SystemScope | None = None


class AuthBody(Struct, kw_only=True):
    """``auth`` in the body of ``POST /auth/tokens``."""

    identity: Methods
    scope: Scope | str | None = None


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _token_view(req: Request, login: Login, *, with_catalog: bool = True) -> dict[str, Any]:
    body, user = login.body, login.user
    view: dict[str, Any] = {
        "methods": list(body.methods),
        "user": {
            "id": user["id"],
            "name": user["name"],
            "domain": {"id": login.user_domain["id"], "name": login.user_domain["name"]},
            "password_expires_at": None,
        },
        "audit_ids": [body.audit_id, body.parent_id] if body.parent_id else [body.audit_id],
        "expires_at": _stamp(body.expires_at),
        "issued_at": _stamp(body.issued_at),
    }
    if login.project is not None and login.domain is not None:
        view["project"] = {
            "id": login.project["id"],
            "name": login.project["name"],
            "domain": {"id": login.domain["id"], "name": login.domain["name"]},
        }
        view["is_domain"] = False
    elif login.domain is not None:
        view["domain"] = {"id": login.domain["id"], "name": login.domain["name"]}
    elif body.scope == "system":
        view["system"] = {"all": True}
    if login.credential is not None:
        given = login.credential
        view["application_credential"] = {
            "id": given["id"],
            "name": given["name"],
            "restricted": not given["unrestricted"],
        }
    if body.scope:
        view["roles"] = [{"id": role["id"], "name": role["name"]} for role in login.roles]
        if with_catalog:
            view["catalog"] = catalog(req)
    return view


SERVICES = (
    ("identity", "keystone", "/identity/v3"),
    ("compute", "nova", "/compute/v2.1"),
    ("image", "glance", "/image"),
    ("network", "neutron", "/network"),
)


def catalog(req: Request) -> list[dict[str, Any]]:
    """Where each service is, as this client reaches it."""
    return [
        {
            "id": f"{type}-service",
            "type": type,
            "name": name,
            "endpoints": [
                {
                    "id": f"{type}-{interface}",
                    "interface": interface,
                    "region": "RegionOne",
                    "region_id": "RegionOne",
                    "url": f"{req.base_url}{path}",
                }
                for interface in ("public", "internal", "admin")
            ],
        }
        for type, name, path in SERVICES
    ]


def _wanted(ref: Ref | None) -> Wanted:
    if ref is None:
        return Wanted()
    if ref.id is None and ref.name is None:
        raise BadRequest("Give an id, or a name with its domain.")
    domain = ref.domain or Ref()
    return Wanted(id=ref.id, name=ref.name, domain_id=domain.id, domain_name=domain.name)


def _request(body: AuthBody) -> LoginRequest:
    """The login that a body asks for.

    Raises:
        BadRequest, Unauthorized
    """
    identity = body.identity
    scope, target = _scope(body.scope)
    known: dict[str, Struct | None] = {
        "password": identity.password,
        "token": identity.token,
        "application_credential": identity.application_credential,
    }
    if not identity.methods:
        raise BadRequest("Invalid input for field/attribute identity.methods: name at least one method.")
    for method in identity.methods:
        if method not in known:
            raise Unauthorized(f"Attempted to authenticate with an unsupported method: {method[:40]}.")
        if known[method] is None:
            raise BadRequest(f"Invalid input for field/attribute identity: '{method}' is a required property.")
    if len(set(identity.methods)) > 1:
        # Nobody shall believe that both were asked for.
        raise BadRequest("Invalid input for field/attribute identity.methods: name one; they are not combined.")
    if "application_credential" in identity.methods and identity.application_credential is not None:
        given = identity.application_credential
        if given.id is None and (given.name is None or given.user is None):
            raise BadRequest("An application credential is named by its id, or by its name and its user.")
        credential = Wanted(id=given.id, name=given.name)
        user = _wanted(given.user) if given.id is None else Wanted()
        return LoginRequest(credential=credential, secret=given.secret, user=user)
    if "password" in identity.methods and identity.password is not None:
        who = identity.password.user
        if who.password is None:
            raise BadRequest("Invalid input for field/attribute identity.password.user: 'password' is required.")
        return LoginRequest(user=_wanted(who), password=who.password, scope=scope, target=target)
    assert identity.token is not None
    return LoginRequest(token=identity.token.id, scope=scope, target=target)


def _scope(scope: Scope | str | None) -> tuple[str, Wanted]:
    if scope is None:
        return "", Wanted()
    if isinstance(scope, str):
        if scope != "unscoped":
            raise BadRequest("Invalid input for field/attribute scope: it is an object, or the word 'unscoped'.")
        return scope, Wanted()
    if sum(part is not None for part in (scope.project, scope.domain, scope.system)) != 1:
        raise BadRequest("Invalid input for field/attribute scope: name one project, one domain or the system.")
    if scope.project is not None:
        return "project", _wanted(scope.project)
    if scope.domain is not None:
        return "domain", _wanted(scope.domain)
    return "system", Wanted()


@api.route("POST", "/auth/tokens", public=True, body_key="auth", status=201)
async def issue_token(cloud: Cloud, req: Request, body: AuthBody) -> Reply:
    """Log in."""
    token, login = await cloud.logins.login(_request(body), req.ctx.source_address)
    view = _token_view(req, login, with_catalog="nocatalog" not in dict(req.params))
    return Reply({"token": view}, {"X-Subject-Token": token, "Vary": "X-Auth-Token"})


async def _subject(cloud: Cloud, req: Request) -> tuple[str, Login]:
    subject = req.headers.get("x-subject-token", "")
    try:
        return subject, await cloud.identity.login_of(subject)
    except Unauthorized:
        raise NotFound(kind="token", id="given") from None


@api.route("GET", "/auth/tokens")
async def check_token(cloud: Cloud, req: Request) -> Reply:
    """What a token stands for: the caller's own, or for administrators anybody's."""
    subject, login = await _subject(cloud, req)
    if login.body.audit_id != req.ctx.token_id:
        cloud.parts.policy.authorize(req.ctx, "identity:validate_token")
    view = _token_view(req, login, with_catalog="nocatalog" not in dict(req.params))
    return Reply({"token": view}, {"X-Subject-Token": subject, "Vary": "X-Auth-Token"})


@api.route("DELETE", "/auth/tokens", status=204)
async def revoke_token(cloud: Cloud, req: Request) -> Reply:
    """A token is good no more."""
    _, login = await _subject(cloud, req)
    if login.user["id"] != req.ctx.user_id:
        cloud.parts.policy.authorize(req.ctx, "identity:revoke_token")
    await cloud.identity.revoke(login)
    return Reply()


@api.route("GET", "/auth/catalog")
async def show_catalog(cloud: Cloud, req: Request) -> Reply:
    """Where each service is."""
    return Reply({"catalog": catalog(req), "links": {"self": req.url("auth", "catalog")}})


@api.route("GET", "/services", policy="identity:list_services")
async def list_services(cloud: Cloud, req: Request) -> Reply:
    """The services of the catalogue."""
    found = [{"id": s["id"], "type": s["type"], "name": s["name"], "enabled": True} for s in catalog(req)]
    return Reply({"services": found, "links": {"self": req.url("services")}})


@api.route("GET", "/endpoints", policy="identity:list_endpoints")
async def list_endpoints(cloud: Cloud, req: Request) -> Reply:
    """The endpoints of the catalogue."""
    found = [{**e, "service_id": s["id"], "enabled": True} for s in catalog(req) for e in s["endpoints"]]
    return Reply({"endpoints": found, "links": {"self": req.url("endpoints")}})


@api.route("GET", "/regions", policy=None)
async def list_regions(cloud: Cloud, req: Request) -> Reply:
    """The one region."""
    region = {"id": "RegionOne", "description": "", "parent_region_id": None}
    return Reply({"regions": [region], "links": {"self": req.url("regions")}})
