"""Bodies of the Image API. An image is one flat object: its own properties stand beside what every image has."""

import re
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from kilonova.api.http.json_text import shown
from kilonova.api.http.schema import Uuid, convert
from kilonova.cloud.images import SETTABLE, Change, ImageRequest, check_settable
from kilonova.model.errors import BadRequest
from kilonova.model.image import Visibility

PATCH_V21: Final = "application/openstack-images-v2.1-json-patch"
PATCH_V20: Final = "application/openstack-images-v2.0-json-patch"
MAX_CHANGES: Final = 1000

Name = Annotated[str, Meta(max_length=255)]
Format = Annotated[str, Meta(max_length=20)]
ProjectId = Annotated[str, Meta(min_length=1, max_length=64)]
Amount = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Property = Annotated[str, Meta(max_length=65535)]


class ImageFields(Struct, kw_only=True, omit_defaults=True):
    """What a caller can set of every image, and the id of a new one."""

    id: Uuid | UnsetType = UNSET
    name: Name | UnsetType | None = UNSET
    visibility: Visibility | UnsetType = UNSET
    owner: ProjectId | UnsetType | None = UNSET
    disk_format: Format | UnsetType | None = UNSET
    container_format: Format | UnsetType | None = UNSET
    min_disk: Amount | UnsetType = UNSET
    min_ram: Amount | UnsetType = UNSET
    protected: bool | UnsetType = UNSET
    os_hidden: bool | UnsetType = UNSET
    tags: list[Name] | UnsetType = UNSET


def image_request(body: dict[str, Any]) -> ImageRequest:
    """What the body of ``POST /images`` asks for.

    Raises:
        BadRequest, ReadOnlyAttribute
    """
    own: dict[str, str] = {}
    known: dict[str, Any] = {}
    for name, value in body.items():
        if name == "id" or name in SETTABLE:
            known[name] = value
        else:
            check_settable(name)
            own[name] = convert(value, Property, at=name)
    fields = convert(known, ImageFields)
    given = {SETTABLE.get(name, name): getattr(fields, name) for name in known}
    return ImageRequest(properties=own, **given)


def changes(body: Any, media_type: str) -> list[Change]:
    """The operations of the body of ``PATCH /images/{id}``, in the form of its media type.

    Raises:
        BadRequest, ReadOnlyAttribute
    """
    if not isinstance(body, list):
        raise BadRequest("Request body must be a JSON array of operation objects.")
    if len(body) > MAX_CHANGES:
        raise BadRequest(f"Request body has more than {MAX_CHANGES} operations.")
    read = _operation_v20 if PATCH_V20 in media_type else _operation_v21
    return [_change(*read(operation)) for operation in body]


def _change(op: str, path: str, value: Any) -> Change:
    if op not in ("add", "replace", "remove"):
        raise BadRequest(f"Invalid operation: {shown(op)}. It must be one of the following: add, remove, replace.")
    name = _name_in(path)
    check_settable(name)
    if op == "remove":
        return Change("remove", name)
    if value is UNSET:
        raise BadRequest(f"Operation {op} of {shown(path)} requires a member named 'value'.")
    if name in SETTABLE:
        value = getattr(convert({name: value}, ImageFields), name)
    else:
        value = convert(value, Property, at=name)
    return Change(op, name, value)  # type: ignore[arg-type]  # checked above


def _operation_v21(operation: Any) -> tuple[str, str, Any]:
    if not isinstance(operation, dict):
        raise BadRequest("Operations must be JSON objects.")
    op, path = operation.get("op"), operation.get("path")
    if not isinstance(op, str) or not isinstance(path, str):
        raise BadRequest("Operation objects must contain the members 'op' and 'path', both strings.")
    return op, path, operation.get("value", UNSET)


def _operation_v20(operation: Any) -> tuple[str, str, Any]:
    """``{"replace": "/name", "value": "x"}``."""
    if not isinstance(operation, dict):
        raise BadRequest("Operations must be JSON objects.")
    names = [name for name in operation if name != "value"]
    if len(names) != 1 or not isinstance(operation[names[0]], str):
        raise BadRequest("Operation objects must contain exactly one member named 'add', 'remove' or 'replace'.")
    return names[0], operation[names[0]], operation.get("value", UNSET)


def _name_in(path: str) -> str:
    """The attribute that a JSON pointer points at."""
    if not path.startswith("/"):
        raise BadRequest(f'Pointer `{path[:80]}` does not start with "/".')
    if re.search(r"/\s*?/|\s\Z|\A/\s", path) or path.endswith("/"):
        raise BadRequest(f"Pointer `{path[:80]}` contains an empty or blank part.")
    if re.search(r"~(?![01])", path):
        raise BadRequest(f'Pointer `{path[:80]}` contains "~" not part of a recognized escape sequence.')
    first, *rest = path[1:].split("/")
    name = first.replace("~1", "/").replace("~0", "~")
    if rest:
        raise BadRequest(f"Invalid JSON pointer for this resource: '{path[:80]}'.")
    return name
