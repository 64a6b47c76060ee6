"""``/schemas``: JSON schemas of images and members, from which older clients learn what they can set."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kilonova.api.http.routing import Reply
from kilonova.api.image.api import api
from kilonova.model.image import ImageStatus, MemberStatus, Visibility

if TYPE_CHECKING:
    from kilonova.cloud.cloud import Cloud

_UUID = "^([0-9a-f]){8}-([0-9a-f]){4}-([0-9a-f]){4}-([0-9a-f]){4}-([0-9a-f]){12}$"

Json = dict[str, Any]


def _text(description: str, *, most: int | None = None, is_set: bool = True, nullable: bool = False) -> Json:
    schema: Json = {"description": description, "type": ["null", "string"] if nullable else "string"}
    if most is not None:
        schema["maxLength"] = most
    if not is_set:
        schema["readOnly"] = True
    return schema


def _number(description: str, *, is_set: bool = True) -> Json:
    if is_set:
        return {"description": description, "type": "integer", "minimum": 0}
    return {"description": description, "type": ["null", "integer"], "readOnly": True}


def _one_of(description: str, words: Sequence[str], *, nullable: bool = False, is_set: bool = True) -> Json:
    if nullable:
        return {"description": description, "type": ["null", "string"], "enum": [None, *words]}
    schema: Json = {"description": description, "type": "string", "enum": list(words)}
    return schema if is_set else {**schema, "readOnly": True}


def _image(disk_formats: Sequence[str], container_formats: Sequence[str]) -> Json:
    properties: Json = {
        "id": {"description": "An identifier for the image", "type": "string", "pattern": _UUID},
        "name": _text("Descriptive name for the image", most=255, nullable=True),
        "status": _one_of("Status of the image", [*ImageStatus], is_set=False),
        "visibility": _one_of("Scope of image accessibility", [*Visibility]),
        "owner": _text("Owner of the image", most=64, nullable=True),
        "disk_format": _one_of("Format of the disk", disk_formats, nullable=True),
        "container_format": _one_of("Format of the container", container_formats, nullable=True),
        "min_disk": _number("Amount of disk space (in GB) required to boot image."),
        "min_ram": _number("Amount of ram (in MB) required to boot image."),
        "protected": {"description": "If true, image will not be deletable.", "type": "boolean"},
        "os_hidden": {"description": "If true, image will not appear in default image list.", "type": "boolean"},
        "size": _number("Size of image file in bytes", is_set=False),
        "virtual_size": _number("Virtual size of image in bytes", is_set=False),
        "checksum": _text("md5 hash of image contents.", most=32, is_set=False, nullable=True),
        "os_hash_algo": _text("Algorithm to calculate the os_hash_value", most=64, is_set=False, nullable=True),
        "os_hash_value": _text("Hexdigest of the image contents", most=128, is_set=False, nullable=True),
        "tags": {
            "description": "List of strings related to the image",
            "type": "array",
            "items": {"type": "string", "maxLength": 255},
        },
        "created_at": _text("Date and time of image registration", is_set=False),
        "updated_at": _text("Date and time of the last image modification", is_set=False),
        "self": _text("An image self url", is_set=False),
        "file": _text("An image file url", is_set=False),
        "schema": _text("An image schema url", is_set=False),
    }
    return {
        "name": "image",
        "properties": properties,
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


def _member() -> Json:
    return {
        "name": "member",
        "properties": {
            "member_id": _text("An identifier for the image member (tenantId)"),
            "image_id": {"description": "An identifier for the image", "type": "string", "pattern": _UUID},
            "status": _one_of("The status of this image member", [*MemberStatus]),
            "created_at": _text("Date and time of image member creation"),
            "updated_at": _text("Date and time of last modification of image member"),
            "schema": _text("The schema", is_set=False),
        },
    }


def _several(name: str, one: Json, *, is_paged: bool) -> Json:
    texts = ("first", "next", "schema") if is_paged else ("schema",)
    links = [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}] if is_paged else []
    return {
        "name": name,
        "properties": {name: {"type": "array", "items": one}, **{text: {"type": "string"} for text in texts}},
        "links": [*links, {"rel": "describedby", "href": "{schema}"}],
    }


def _image_schema(cloud: "Cloud") -> Json:
    options = cloud.images.options
    return _image(options.disk_formats, options.container_formats)


@api.route("GET", "/schemas/image")
async def show_image_schema(cloud: "Cloud") -> Reply:
    """An image."""
    return Reply(_image_schema(cloud))


@api.route("GET", "/schemas/images")
async def show_images_schema(cloud: "Cloud") -> Reply:
    """A page of images."""
    return Reply(_several("images", _image_schema(cloud), is_paged=True))


@api.route("GET", "/schemas/member")
async def show_member_schema() -> Reply:
    """A member of an image."""
    return Reply(_member())


@api.route("GET", "/schemas/members")
async def show_members_schema() -> Reply:
    """The members of an image."""
    return Reply(_several("members", _member(), is_paged=False))
